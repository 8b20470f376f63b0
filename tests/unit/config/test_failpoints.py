"""Failpoints: only in tests, only where they were ordered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import failpoints
from config.errors import ConfigError

YES = {failpoints.CONSENT: "yes"}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Signals that the process would have sent itself."""
    signals: list[int] = []
    monkeypatch.setattr(signal, "pthread_kill", lambda _thread, number: signals.append(number))
    yield signals
    failpoints.disarm()


def test_without_an_order_nothing_happens_anywhere(sent: list[int]) -> None:
    failpoints.arm({})
    for name in failpoints.POINTS:
        failpoints.reach(name)
    assert sent == []


def test_an_order_without_the_word_that_it_is_a_test_is_refused(sent: list[int]) -> None:
    with pytest.raises(ConfigError, match="end itself on purpose") as refused:
        failpoints.arm({failpoints.ORDER: "apply.sent:kill"})
    assert failpoints.CONSENT in refused.value.hint
    failpoints.reach("apply.sent")
    assert sent == []


@pytest.mark.parametrize("wrong", ["apply.sent", "nowhere:kill", "apply.sent:kill@0", "a:b:c"])
def test_an_order_that_is_not_understood_is_refused(sent: list[int], wrong: str) -> None:
    with pytest.raises(ConfigError, match="not a known place"):
        failpoints.arm({failpoints.ORDER: wrong, **YES})
    assert sent == []


def test_the_nth_passing_is_meant_and_no_other(sent: list[int]) -> None:
    failpoints.arm({failpoints.ORDER: "apply.sent:kill@3, copy.read:pause", **YES})
    for _ in range(2):
        failpoints.reach("apply.sent")
    assert sent == []
    failpoints.reach("apply.sent")
    failpoints.reach("apply.sent")
    assert sent == [signal.SIGKILL]
    failpoints.reach("copy.read")
    assert sent == [signal.SIGKILL, signal.SIGSTOP]


def test_orders_in_a_file_may_change_while_the_process_runs(
    sent: list[int], tmp_path: Path
) -> None:
    file = tmp_path / "orders"
    file.write_text("")
    failpoints.arm({failpoints.ORDER: f"@{file}", **YES})
    failpoints.reach("apply.sent")
    file.write_text("apply.sent:pause@2")
    failpoints.reach("apply.sent")
    assert sent == []
    failpoints.reach("apply.sent")
    assert sent == [signal.SIGSTOP]


_PAUSES = 20
_ON_A_THREAD = f"""
import os, threading
from config import failpoints
def work():
    failpoints.reach("copy.before_commit")
    os.write(2, b"behind it")
for _ in range({_PAUSES}):
    failpoints.arm(os.environ)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""


def test_a_thread_that_is_to_stand_still_goes_not_one_statement_further() -> None:
    """Others would take a signal to the process in its stead, and a chunk would be committed."""
    with subprocess.Popen(
        [sys.executable, "-c", _ON_A_THREAD],
        env={**os.environ, failpoints.ORDER: "copy.before_commit:pause", **YES},
        cwd=Path(failpoints.__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        said = []
        for _ in range(_PAUSES):
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            said.append(os.read(process.stderr.fileno(), 4096))
            process.send_signal(signal.SIGCONT)
    assert [one.startswith(b"behind it") for one in said] == [False] + [True] * (_PAUSES - 1)
    assert not any(one.endswith(b"behind it") for one in said)

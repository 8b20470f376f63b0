"""The demo: exact at its end, and gone without a trace however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicator.sandbox.waiting import wait_until

COMMAND = [sys.executable, "-m", "replicator.cli", "sandbox", "demo", "--patients", "40"]


@contextmanager
def played(seconds: int, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo as a process; one that is still there at the end is ended."""
    with subprocess.Popen(
        [*COMMAND, "--seconds", str(seconds)],
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def ended(demo: subprocess.Popen[str], seconds: float) -> str:
    """What the demo said; where it hangs, also where each of its threads stands."""
    try:
        return demo.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        demo.send_signal(signal.SIGABRT)
        pytest.fail(f"the demo did not end in {seconds:g} s:\n{demo.communicate()[0]}")


@pytest.fixture
def temporary(server_directory: Path) -> Path:
    """Short, for sockets; open, for PostgreSQL's account."""
    place = server_directory / "demo"
    place.mkdir(mode=0o711, exist_ok=True)
    return place


def processes_in(place: Path) -> list[int]:
    """Processes whose command line names the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(place).encode() in words:
                found.append(int(entry.name))
    return found


def test_the_demo_is_exact_and_leaves_nothing(temporary: Path) -> None:
    with played(6, temporary) as demo:
        said = ended(demo, 200)
    assert demo.returncode == 0, said
    assert said.rstrip().endswith("exact: yes")
    assert "resync patient: done" in said
    assert processes_in(temporary) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_ended_leaves_nothing(number: signal.Signals, temporary: Path) -> None:
    with played(60, temporary) as demo:
        # Five: three servers and both daemons.
        wait_until(lambda: len(processes_in(temporary)) >= 5, 60, "everything to run")
        demo.send_signal(number)
        ended(demo, 60)
    assert demo.returncode != 0
    wait_until(lambda: not processes_in(temporary), 30, "all processes to end")
    wait_until(lambda: not list(temporary.iterdir()), 30, "the directory to be removed")

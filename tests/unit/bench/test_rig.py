"""The rig's meters, on processes of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bench.rig import Meter, Spent, children, cpu_seconds

BUSY = "import sys\nx = sum(range(3_000_000))\nprint('done', flush=True)\nsys.stdin.read()"


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[str]]:
    """A child that has worked a little when it is handed out."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        yield process
        process.kill()


def test_a_childs_time_is_its_parents_while_it_runs(busy: subprocess.Popen[str]) -> None:
    assert busy.pid in children(os.getpid())
    assert 0 < cpu_seconds(busy.pid) < cpu_seconds(os.getpid())


def test_a_childs_time_stays_its_parents_when_it_has_ended(busy: subprocess.Popen[str]) -> None:
    its = cpu_seconds(busy.pid)
    busy.communicate("")
    assert busy.pid not in children(os.getpid())
    assert cpu_seconds(os.getpid()) >= its


def test_a_meter_reads_what_was_spent_since_it_began() -> None:
    meter = Meter({"ours": os.getpid()})
    first = meter.read()
    sum(range(1_000_000))
    second = meter.read()
    assert 0 <= first.cpu["ours"] < second.cpu["ours"]
    assert first.seconds < second.seconds
    assert second.peak["ours"] >= first.peak["ours"] > 0


def test_each_process_is_shown_beside_the_same_time() -> None:
    runs = Spent(2.0, {"a": 1.0, "b": 0.5}, {"a": 10.0, "b": 20.0}).runs(100)
    assert {name: run.rate for name, run in runs.items()} == {"a": 50, "b": 50}
    assert runs["b"].cpu_seconds == 0.5
    assert runs["b"].peak_mib == 20.0

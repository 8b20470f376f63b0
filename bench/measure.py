"""Time functions side by side: candidates in, medians of interleaved runs out.

Each run is a process of its own, so that its peak of memory is its own, and all are held
to the same processor. Runs are interleaved (a, b, a, b, …), so that what else the machine
does meets all candidates alike.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import re
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.goals import GOALS, is_met

ROUNDS_VARIABLE = "BENCH_RUNS"

Pass = Callable[[], int]
"""One pass over the work; how many units (rows) it did."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run cost: units done, wall and CPU seconds, growth of resident memory in MiB."""

    units: int
    seconds: float
    cpu_seconds: float
    peak_mib: float

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.units / self.seconds


@dataclass(frozen=True, slots=True)
class Result:
    """A figure under its id; the rest is for the table and the JSON line.

    `goal` is taken from `bench.goals` where the figure has one there: nowhere else can it change.
    """

    bench: str
    value: float
    goal: str = "—"
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "goal", GOALS.get(self.bench, self.goal))

    @property
    def met(self) -> bool | None:
        """Does the value meet the goal? None where there is none."""
        return is_met(self.value, self.goal)

    def line(self) -> str:
        """The JSON line."""
        judged = {"goal": self.goal, "met": self.met} if self.met is not None else {}
        return json.dumps({"bench": self.bench, "value": self.value, **judged, **self.details})


def rounds() -> int:
    """How many interleaved runs a median is taken of: `--runs`, or 3."""
    return int(os.environ.get(ROUNDS_VARIABLE, "3"))


def interleaved(candidates: Mapping[str, Pass], *, runs: int, seconds: float) -> dict[str, Run]:
    """Run each candidate `runs` times for about `seconds`, in turn; each one's median run."""
    found: dict[str, list[Run]] = {name: [] for name in candidates}
    for _ in range(runs):
        for name, work in candidates.items():
            found[name].append(_alone(work, seconds))
    return {name: median(of) for name, of in found.items()}


def median(of: list[Run]) -> Run:
    """The run in the middle by rate, with the highest peak of memory of all."""
    middle = sorted(of, key=lambda run: run.rate)[len(of) // 2]
    return Run(middle.units, middle.seconds, middle.cpu_seconds, max(run.peak_mib for run in of))


def _alone(work: Pass, seconds: float) -> Run:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(work, seconds, theirs))
    process.start()
    theirs.close()
    run = ours.recv()
    process.join()
    assert isinstance(run, Run)
    return run


def _measure(work: Pass, seconds: float, answer: Any) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    gc.collect()
    start_peak()
    before = peak_mib()
    started, cpu = time.perf_counter(), _cpu()
    units = 0
    while (spent := time.perf_counter() - started) < seconds:
        units += work()
    answer.send(Run(units, spent, _cpu() - cpu, peak_mib() - before))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def start_peak(pid: int | str = "self") -> None:
    """Let `peak_mib` speak of what comes from here on: proc(5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int | str = "self") -> float:
    """The process' highest resident memory, as the kernel kept count of it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024


def described(runs: Mapping[str, Run]) -> dict[str, Any]:
    """Runs as a JSON line shows them."""
    shown = {}
    for name, run in runs.items():
        values = {key: round(value, 3) for key, value in asdict(run).items()}
        shown[name] = {"rate": round(run.rate), **values}
    return shown


def ratio(runs: Mapping[str, Run], one: str, other: str) -> float:
    """How many times as fast `one` is as `other`."""
    return round(runs[one].rate / runs[other].rate, 1)

"""`replicator sandbox demo`: the whole pipeline on throwaway servers, from copy to proof.

Left: how long, how large, which engine. Right: True when, after a live workload with
a schema change and a resync in its middle, dbt has built its models from `raw`, and
source, replica and `raw` are the same.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from config.errors import ReplicatorError
from config.tables import load_table_rules
from replicator.cli import demo_dbt, resync
from replicator.cli.demo_stage import DemoFailed, Stage
from replicator.cli.demo_view import DemoView, copying_line, working_line
from replicator.cli.observation import Observer
from replicator.cli.outcome import console
from replicator.cli.report import Report
from replicator.cli.status import Status, read_status
from replicator.cli.verify import verify
from replicator.cli.verify_view import show_report
from replicator.cli.wait import wait
from replicator.resync_requests import RequestState
from replicator.sandbox.cluster import Engine
from replicator.sandbox.schema import TABLES

COPY_SECONDS = 300.0
ARRIVAL_SECONDS = 120.0
LOOK_SECONDS = 0.5
SCHEMA_CHANGE = "ALTER TABLE patient ADD COLUMN DemoNote varchar(40) NOT NULL DEFAULT 'added live'"


def run_demo(seconds: float, patients: int, engine: Engine) -> bool:
    """Play it; True when everything was exact at the end. Nothing is left running."""
    with _ended_by_signals(), DemoView(console()) as view:
        view.say(f"starting a {engine} source, a replica and PostgreSQL on loopback ports")
        with Stage(engine) as stage:
            try:
                report = _play(stage, view, seconds, patients)
            except (DemoFailed, ReplicatorError) as error:
                view.say(f"the demo failed: {error}")
                for name, log in stage.logs().items():
                    view.say(f"--- the end of the {name}'s log\n{log}")
                view.say("exact: no")
                return False
    exact = report.exact(strict=True)
    show_report(report, console(), strict=True)
    view.say(f"exact: {'yes' if exact else 'no'}")
    return exact


def _play(stage: Stage, view: DemoView, seconds: float, patients: int) -> Report:
    rows = stage.load(patients)
    view.say(f"source: {rows:,} rows in {len(TABLES)} tables; starting replicator and loader")
    stage.start_daemons()
    with Observer(stage.settings) as observer:
        began = time.monotonic()
        _until(
            stage,
            lambda: _all_streaming(observer, view),
            COPY_SECONDS,
            "the first copy to reach raw",
        )
        view.say(f"first copy: {rows:,} rows in raw after {time.monotonic() - began:.1f} s")
        numbers = _work(stage, view, observer, seconds)
        _finish(stage, view, observer, numbers)
        _build_models(stage, view)
        view.say("comparing source, replica and raw")
        return verify(stage.settings, load_table_rules(stage.settings.tables_file))


def _build_models(stage: Stage, view: DemoView) -> None:
    """What analysts read, from what stands in `raw` now."""
    dbt = demo_dbt.find_dbt()
    if dbt is None or not demo_dbt.PROJECT.is_dir():
        view.say("no dbt here: its models are left out (make setup installs it)")
        return
    view.say("building staging, intermediate and marts with dbt")
    view.say(demo_dbt.build(stage, dbt).line())


def _all_streaming(observer: Observer, view: DemoView) -> bool:
    status = read_status(observer, rates=False)
    view.news(copying_line(status, len(TABLES)))
    streaming = [t for t in status.tables if t.replica == t.raw == "streaming"]
    return len(streaming) == len(TABLES)


def _work(stage: Stage, view: DemoView, observer: Observer, seconds: float) -> list[int]:
    """The practice works; the resync requests that were made meanwhile."""
    view.say(f"the practice works for {seconds:g} s")
    stage.open_practice()
    end = time.monotonic() + seconds
    plot: list[tuple[float, str, Callable[[], list[int]]]] = [
        (end - seconds * 2 / 3, SCHEMA_CHANGE, lambda: _alter(stage)),
        (end - seconds / 3, "replicator resync patient", lambda: _resync(observer)),
    ]
    numbers: list[int] = []
    while (left := end - time.monotonic()) > 0:
        stage.check()
        if plot and time.monotonic() >= plot[0][0]:
            _when, title, act = plot.pop(0)
            view.say(f"in the middle of it: {title}")
            numbers += act()
        view.news(working_line(_look(observer), stage.steps, left))
    stage.close_practice()
    view.say(f"the practice closed after {stage.steps:,} transactions")
    return numbers


def _look(observer: Observer) -> Status:
    return read_status(observer)  # takes a second: it counts during one


def _alter(stage: Stage) -> list[int]:
    stage.execute(SCHEMA_CHANGE)
    return []


def _resync(observer: Observer) -> list[int]:
    return resync.queue(observer, ["patient"])


def _finish(stage: Stage, view: DemoView, observer: Observer, numbers: list[int]) -> None:
    """Everything committed has arrived, and the resync is done."""

    def resynced() -> bool:
        found = resync.progress(observer, numbers)
        for request in found:
            if request.state == RequestState.FAILED:
                raise DemoFailed(f"the resync of {request.table} failed: {request.message}")
        view.news(", ".join(f"resync {r.table}: {r.state}" for r in found))
        return all(request.ended for request in found)

    _until(stage, resynced, ARRIVAL_SECONDS, "the resync to be done")
    view.say("resync patient: done")
    arrival = wait(observer, ARRIVAL_SECONDS)
    stage.check()
    if not arrival.arrived:
        raise DemoFailed("; ".join(arrival.missing))
    view.say(f"raw shows all of it, {arrival.seconds:.2f} s after it was asked for")
    _until(
        stage, lambda: _all_streaming(observer, view), ARRIVAL_SECONDS, "all tables to be streaming"
    )


def _until(stage: Stage, met: Callable[[], bool], patience: float, what: str) -> None:
    deadline = time.monotonic() + patience
    while not met():
        stage.check()
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited {patience:.0f} s in vain for {what}")
        time.sleep(LOOK_SECONDS)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the demo alike: through every context on the way.

    SIGINT too, since a shell that starts us in the background has it ignored.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

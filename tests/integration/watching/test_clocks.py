"""Lags where the servers' clocks are wrong, and are set while everything runs.

Real servers: a source whose clock is an hour ahead, a replica whose clock is half an hour behind,
and later the other way round. The daemons and PostgreSQL have this machine's clock.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from replicator.sandbox.processes import ServerProcess
from replicator.sandbox.waiting import wait_until
from tests.fix_pipeline import NewPipeline, Pipeline
from tests.fix_watching import get

HOUR = 3600.0
NEAR = 60.0
"""A lag that is right is far below this; one that has a clock's fault in it far above."""
NewClock = Callable[[ServerProcess], "WrongClock"]


class WrongClock:
    """How far a server's wall clock is ahead, while it runs."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.write_bytes(bytes(8))
        file.chmod(0o644)

    def set(self, seconds: float) -> None:
        with self._file.open("r+b") as file:  # the server has this very file mapped
            file.write(struct.pack("=q", int(seconds * 1e9)))


@pytest.fixture
def new_clock() -> Iterator[NewClock]:
    """Starts a server again with a clock of its own."""
    directory = Path(tempfile.mkdtemp(prefix="opendental-clocks-"))
    directory.chmod(0o755)
    library = directory / "other_clock.so"
    source = Path(__file__).with_name("other_clock.c")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"],
        check=True,
        capture_output=True,
    )
    library.chmod(0o755)

    def make(server: ServerProcess) -> WrongClock:
        file = directory / f"{server.port}"
        clock = WrongClock(file)
        server.stop()
        server.variables = {"LD_PRELOAD": str(library), "OTHER_CLOCK": str(file)}
        server.start()
        return clock

    yield make
    shutil.rmtree(directory)


class Metrics:
    """What both daemons tell."""

    def __init__(self, pipe: Pipeline) -> None:
        self._ports = {
            leg: pipe.environment[f"{leg.upper()}_METRICS_PORT"] for leg in ("replicator", "loader")
        }

    def value(self, leg: str, name: str) -> float | None:
        try:
            text = get(f"http://127.0.0.1:{self._ports[leg]}/metrics")
        except OSError:
            return None
        found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None

    def lags(self) -> dict[str, float | None]:
        return {
            "source to replica": self.value("replicator", "replicator_lag_seconds"),
            "replica to raw": self.value("loader", "loader_lag_seconds"),
            "source to raw": self.value("loader", "pipeline_lag_seconds"),
        }

    def ahead(self, leg: str) -> float | None:
        return self.value(leg, "replicator_clock_ahead_seconds")


@pytest.mark.timeout(240)
def test_lags_are_right_while_the_servers_clocks_are_not(
    pipeline: NewPipeline, new_clock: NewClock
) -> None:
    pipe = pipeline(
        "InnoDB",
        REPLICATOR_HEARTBEAT_SECONDS="0.5",
        LOADER_HEARTBEAT_SECONDS="0.5",
        REPLICATOR_POLL_SECONDS="0.1",
        LOADER_POLL_SECONDS="0.1",
    )
    source, replica = new_clock(pipe.sandbox.source), new_clock(pipe.sandbox.replica)
    pipe.sandbox.source_db.close()
    pipe.sandbox.replica_db.close()
    pipe.sandbox.source_db.execute("CREATE TABLE visit (VisitNum int PRIMARY KEY)")
    source.set(HOUR)
    replica.set(-HOUR / 2)
    pipe.start()
    pipe.catch_up()
    metrics = Metrics(pipe)
    _is_right(pipe, metrics, HOUR, -HOUR / 2, first=1)
    source.set(-HOUR / 2)  # somebody sets the clocks
    replica.set(HOUR)
    _is_right(pipe, metrics, -HOUR / 2, HOUR, first=4)
    batches = metrics.value("loader", "pipeline_delay_seconds_count") or 0
    assert batches >= 4
    # Those that were committed between a jump and the next looks at the clocks may be off.
    assert (metrics.value("loader", 'pipeline_delay_seconds_bucket{le="60.0"}') or 0) >= 4


def _is_right(pipe: Pipeline, metrics: Metrics, source: float, replica: float, first: int) -> None:
    """At rest all lags are 0; while a leg is kept from writing they grow from when it was."""
    wait_until(
        lambda: (
            _about(metrics.ahead("replicator"), source) and _about(metrics.ahead("loader"), replica)
        ),
        60,
        what=lambda: f"clocks: {metrics.ahead('replicator')}, {metrics.ahead('loader')}",
    )
    _visit(pipe, first)
    _settles(metrics)
    with _replica_in_the_way(pipe):
        _visit(pipe, first + 1)
        _grow(metrics, "source to replica", "source to raw")
        assert metrics.lags()["replica to raw"] == 0
        _status_is_near(pipe, "replicator")
    _settles(metrics)
    with _raw_in_the_way(pipe):
        _visit(pipe, first + 2)
        _grow(metrics, "replica to raw", "source to raw")
        assert metrics.lags()["source to replica"] == 0
        _status_is_near(pipe, "loader")
    _settles(metrics)


def _about(found: float | None, wanted: float) -> bool:
    return found is not None and abs(found - wanted) < 2


def _visit(pipe: Pipeline, number: int) -> None:
    pipe.sandbox.source_db.execute("INSERT INTO visit VALUES (%s)", (number,))


def _settles(metrics: Metrics) -> None:
    wait_until(
        lambda: set(metrics.lags().values()) == {0.0},
        60,
        what=lambda: f"no lag: {metrics.lags()}",
        every=0.2,
    )


def _grow(metrics: Metrics, *names: str) -> None:
    for name in names:
        before = wait_until(lambda name=name: metrics.lags()[name], 30, what=f"a lag, {name}")
        wait_until(
            lambda name=name, before=before: (metrics.lags()[name] or 0) >= before + 1,
            30,
            what=lambda name=name: f"the lag {name} to grow: {metrics.lags()}",
            every=0.2,
        )
        assert (metrics.lags()[name] or HOUR) < NEAR


def _status_is_near(pipe: Pipeline, leg: str) -> None:
    told = json.loads(pipe.run("status", "--json").stdout)[leg]["lag_seconds"]
    assert 0 < told < NEAR


@contextmanager
def _replica_in_the_way(pipe: Pipeline) -> Iterator[None]:
    """Leg 1 cannot write the table."""
    with closing(pipe.sandbox.replica_db.connect()) as root, root.cursor() as cursor:
        cursor.execute("LOCK TABLES visit READ")
        yield


@contextmanager
def _raw_in_the_way(pipe: Pipeline) -> Iterator[None]:
    """Leg 2 cannot write the table."""
    database = pipe.sandbox.analytics_db.name
    with pipe.sandbox.analytics.connect(database=database, autocommit=False) as root:
        root.execute("LOCK TABLE raw.visit IN ACCESS EXCLUSIVE MODE")
        yield
        root.rollback()

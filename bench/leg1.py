"""Leg 1 against the server's own replication: who has caught up first, from the same binlog.

A source is loaded while nobody reads it: both tables in bulk, then single-row
transactions. Then each candidate catches up with each of the two slices, one candidate
at a time, in an order that turns from round to round, each on a replica server of its own:

* **ours**: the replicator in a process of its own, into a replica that writes its binlog.
* **native**: one replication thread, `log_slave_updates` on, as ours writes the binlog too.
* **parallel**: the same with four threads, optimistic.
* **unlogged**: native, without `log_slave_updates`: less work than ours has to do.

The clock runs from the demand for events (`START SLAVE`; for ours, the opening of the binlog
stream) until the slice's end is committed. Starting processes is not in it on any side, nor
are our connections to the replica; the connection to the source is. Each of our slices has
a server id of its own: a source that is asked again under one id first ends the thread that
served it before, which takes it a tenth of a second. All processes may use the same two
processors. CPU seconds are those of the replica server and, for ours, of the replicator; the
source's are the same for all and left out.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from bench import practice
from bench.measure import Result, Run, described
from config.logs import configure_logging
from config.settings import Settings, load_settings
from config.tables import TableRules
from replicator.binlog.ahead import AheadStream
from replicator.binlog.position import BinlogPosition, SourcePosition
from replicator.daemon import Replicator
from replicator.sandbox.accounts import (
    allow_replica,
    allow_source,
    create_replica_account,
    create_source_account,
)
from replicator.sandbox.servers import (
    REPLICA_OPTIONS,
    SOURCE_OPTIONS,
    MariaDBServer,
    Options,
)

ROUNDS = 3
WIDE_ROWS, NARROW_ROWS, TRANSACTIONS = 20_000, 150_000, 40_000
DATABASE, COPY = "opendental", "opendental_replication"
_PASSWORD = "bench"
_TICK = os.sysconf("SC_CLK_TCK")
_LOGGED: Options = {**REPLICA_OPTIONS, "log_slave_updates": "ON"}
_PARALLEL: Options = {
    **_LOGGED,
    "slave_parallel_threads": "4",
    "slave_parallel_mode": "optimistic",
}


class Candidate(Protocol):
    """One that catches up when told to, on a replica server of its own."""

    def catch_up(self, goal: SourcePosition) -> tuple[float, float, float]:
        """Wall seconds, CPU seconds, MiB at the peak (of our process; 0 where there is none)."""


def run() -> Iterator[Result]:
    """Yield the figures of both slices."""
    configure_logging("error")
    processors = set(sorted(os.sched_getaffinity(0))[:2])
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)  # what we start inherits it
    try:
        slices = _measured()
    finally:
        os.sched_setaffinity(0, before)
    goals = {
        ("oltp", "native"): "≤ 0.6",
        ("oltp", "parallel"): "≤ 0.8",
        ("bulk", "native"): "≤ 1.0",
    }
    for kind, other in [*goals, ("oltp", "unlogged"), ("bulk", "unlogged"), ("bulk", "parallel")]:
        yield _result(kind, other, goals.get((kind, other), ""), slices[kind], len(processors))


def _result(
    kind: str, other: str, goal: str, rounds: Mapping[str, list[Run]], processors: int
) -> Result:
    ratios = [o.seconds / n.seconds for o, n in zip(rounds["ours"], rounds[other], strict=True)]
    name = "native_unlogged" if other == "unlogged" else other
    return Result(
        f"leg1_{kind}_vs_{name}",
        round(median(ratios), 2),
        goal,
        {
            "ratios": [round(ratio, 2) for ratio in ratios],
            "processors": processors,
            "runs": described({n: _middle(rounds[n]) for n in ("ours", other)}),
        },
    )


def _middle(runs: list[Run]) -> Run:
    middle = sorted(runs, key=lambda one: one.seconds)[len(runs) // 2]
    peak = max(one.peak_mib for one in runs)
    return Run(middle.units, middle.seconds, middle.cpu_seconds, peak)


def _measured() -> dict[str, dict[str, list[Run]]]:
    found: dict[str, dict[str, list[Run]]] = {}
    with ExitStack() as stack:
        stage = Stage(stack)
        candidates = stage.candidates()
        for number in range(ROUNDS):
            for kind, (load, units) in stage.slices(number).items():
                goal = load()
                names = [*candidates][number:] + [*candidates][:number]
                for name in names:
                    run = Run(units, *candidates[name].catch_up(goal))
                    found.setdefault(kind, {}).setdefault(name, []).append(run)
        stage.compare()
    return found


class Stage:
    """The source, and a replica server for each candidate; all end with `stack`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        directory.chmod(0o711)
        options = {
            "ours": REPLICA_OPTIONS,
            "native": _LOGGED,
            "parallel": _PARALLEL,
            "unlogged": REPLICA_OPTIONS,
        }
        source = {**SOURCE_OPTIONS, "default_storage_engine": "InnoDB"}
        self.source = MariaDBServer(directory / "source", options=source, server_id=1)
        self.replicas = {
            name: MariaDBServer(directory / name, options=chosen, server_id=number)
            for number, (name, chosen) in enumerate(options.items(), start=2)
        }
        for server in (self.source, *self.replicas.values()):
            stack.callback(server.discard)
            server.launch()
        for server in (self.source, *self.replicas.values()):
            server.wait_ready()
        self._prepare()

    def _prepare(self) -> None:
        with closing(self.source.connect()) as root:
            _run(root, f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb3")
            create_source_account(root, "reader", _PASSWORD)
            allow_source(root, "reader", DATABASE)
        with closing(self.replicas["ours"].connect()) as root:
            create_replica_account(root, "writer", _PASSWORD)
            allow_replica(root, "writer", COPY)
        self.connection = self._stack.enter_context(closing(self.source.connect(database=DATABASE)))
        practice.create(self.connection)

    def candidates(self) -> dict[str, Candidate]:
        """Each stands where the source stands now, with both tables empty."""
        made: dict[str, Candidate] = {"ours": Ours(self)}
        self._stack.callback(made["ours"].close)  # type: ignore[attr-defined]
        for name in ("native", "parallel", "unlogged"):
            made[name] = Native(self, self.replicas[name])
        return made

    def slices(self, number: int) -> dict[str, tuple[Callable[[], SourcePosition], int]]:
        """What is loaded in this round, by kind: the loading, and how many units it is."""
        wide, narrow = 1 + number * WIDE_ROWS, 1 + number * NARROW_ROWS
        singles = 10_000_000 + number * TRANSACTIONS

        def bulk() -> SourcePosition:
            practice.load_wide(self.connection, WIDE_ROWS, wide)
            practice.load_narrow(self.connection, NARROW_ROWS, narrow)
            return self.position()

        def oltp() -> SourcePosition:
            practice.one_row_transactions(self.connection, TRANSACTIONS, singles)
            return self.position()

        return {"bulk": (bulk, WIDE_ROWS + NARROW_ROWS), "oltp": (oltp, TRANSACTIONS)}

    def position(self) -> SourcePosition:
        """Where the source's binlog ends."""
        with self.connection.cursor() as cursor:
            cursor.execute("SHOW MASTER STATUS")
            row = cursor.fetchone()
        assert row is not None
        return SourcePosition(row[0], int(row[1]))

    def settings(self, number: int = 0) -> Settings:
        """The replicator's, as an operator would write them, for the slice of this number."""
        port = self.replicas["ours"].port
        return load_settings(
            env_file=None,
            environ={
                "OPENDENTAL_SOURCE_HOST": "127.0.0.1",
                "OPENDENTAL_SOURCE_PORT": str(self.source.port),
                "OPENDENTAL_SOURCE_DB": DATABASE,
                "OPENDENTAL_SOURCE_USER": "reader",
                "OPENDENTAL_SOURCE_PASSWORD": _PASSWORD,
                "MYSQL_REPLICATION_HOST": "127.0.0.1",
                "MYSQL_REPLICATION_PORT": str(port),
                "MYSQL_REPLICATION_DB": COPY,
                "MYSQL_REPLICATION_USER": "writer",
                "MYSQL_REPLICATION_PASSWORD": _PASSWORD,
                "POSTGRES_ANALYTICS_HOST": "127.0.0.1",
                "POSTGRES_ANALYTICS_PORT": "1",
                "POSTGRES_ANALYTICS_DB": "none",
                "POSTGRES_ANALYTICS_SCHEMA": "raw",
                "POSTGRES_ANALYTICS_USER": "none",
                "POSTGRES_ANALYTICS_PASSWORD": "none",
                "REPLICATOR_SERVER_ID": str(1000 + number),
            },
        )

    def compare(self) -> None:
        """Nobody was fast by leaving something out."""
        wanted = _checksums(self.source, DATABASE)
        for name, server in self.replicas.items():
            found = _checksums(server, COPY if name == "ours" else DATABASE)
            if found != wanted:
                raise AssertionError(f"{name} holds other rows than the source")


class Native:
    """The server's own replication, its thread stopped between two slices."""

    def __init__(self, stage: Stage, server: MariaDBServer) -> None:
        self._server = server
        self._connection = stage._stack.enter_context(closing(server.connect()))
        _run(self._connection, f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb3")
        _run(self._connection, f"USE {DATABASE}")
        practice.create(self._connection)
        here = stage.position()
        _run(
            self._connection,
            f"CHANGE MASTER TO master_host='127.0.0.1', master_port={stage.source.port},"
            f" master_user='reader', master_password='{_PASSWORD}', master_use_gtid=no,"
            f" master_log_file='{here.file}', master_log_pos={here.offset}",
        )

    def catch_up(self, goal: SourcePosition) -> tuple[float, float, float]:
        cpu, started = _cpu(self._server.pid), time.perf_counter()
        _run(self._connection, "START SLAVE")
        _run(self._connection, f"SELECT MASTER_POS_WAIT('{goal.file}', {goal.offset}, 120)")
        spent = time.perf_counter() - started
        cpu = _cpu(self._server.pid) - cpu
        _run(self._connection, "STOP SLAVE")
        return spent, cpu, 0.0


class Ours:
    """The replicator in a process of its own, its binlog stream closed between two slices."""

    def __init__(self, stage: Stage) -> None:
        self._server = stage.replicas["ours"]
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_replicate, args=(stage, theirs))
        self._process.start()
        theirs.close()
        assert self._pipe.recv() == "copied"

    def catch_up(self, goal: SourcePosition) -> tuple[float, float, float]:
        self._pipe.send(goal)
        assert self._pipe.recv() == "ready"
        cpu, started = self._cpu(), time.perf_counter()
        self._pipe.send("go")
        assert self._pipe.recv() == "reached"
        spent = time.perf_counter() - started
        cpu = self._cpu() - cpu
        return spent, cpu, _peak_mib(self._process.pid)

    def _cpu(self) -> float:
        return _cpu(self._server.pid) + _cpu(self._process.pid)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()


def _replicate(stage: Stage, pipe: Connection) -> None:
    """The process of `Ours`: copy once, then catch up with what it is told to."""
    gate = _Gate(pipe)
    replicator = _replicator(stage.settings())
    while not replicator.settled:
        replicator.step()
    replicator.close()
    gate.close_it()
    pipe.send("copied")
    for number in count(1):
        try:
            goal = pipe.recv()
        except EOFError:
            return
        replicator = _replicator(stage.settings(number))
        gate.shut = True
        replicator.step()
        while replicator.position < goal:
            replicator.step()
        pipe.send("reached")
        replicator.close()


def _replicator(settings: Settings) -> Replicator:
    return Replicator(settings, TableRules(), watch=lambda _progress: None)


class _Gate:
    """Holds the opening of the binlog stream until the clock runs."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.shut = False

    def close_it(self) -> None:
        """From now on, each opening asks first."""
        opened = AheadStream.open

        def asked(self_: AheadStream, position: BinlogPosition) -> None:
            if self.shut:
                self.shut = False
                self._pipe.send("ready")
                assert self._pipe.recv() == "go"
            opened(self_, position)

        AheadStream.open = asked  # type: ignore[assignment, method-assign]


def _run(connection: Any, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _checksums(server: MariaDBServer, database: str) -> list[int]:
    with closing(server.connect(database=database)) as connection, connection.cursor() as cursor:
        cursor.execute(f"CHECKSUM TABLE {practice.WIDE}, {practice.NARROW}")
        return [int(row[1]) for row in cursor.fetchall()]


def _cpu(pid: int | None) -> float:
    """CPU seconds that a process has used, with all its threads: proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _peak_mib(pid: int | None) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024

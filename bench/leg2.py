"""Leg 2 against PostgreSQL alone: the same rows, by the same statements, without a loader.

The replicator writes a replica's binlog: many source transactions in each of the replica's,
the offset row last. Two slices of it, bulk and one-row transactions, are caught up with by
the loader, in a process of its own, in a clone of the database as it was before the
slice. The first of these runs is recorded: each statement, its parameters, each block of COPY in
the form, binary or text, in which PostgreSQL got it.
*postgres* is a process that sends the recording to another clone, and does nothing else.

The clock runs, for the loader, from the opening of its stream to the commit of the slice's last
position; for the recording, from its first statement to its last commit. Connecting is in
neither. Runs take turns, everything shares the same two processors, and CPU seconds are those of
the process and of PostgreSQL (the replica's dump thread, which only the loader needs, is shown
by itself). A slice must leave the same rows in each clone.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Any

import psycopg
from psycopg import sql

from bench import practice
from bench.measure import Result, Run, described, median, peak_mib, rounds, start_peak
from bench.rig import Rig, cpu_seconds
from config.connections import connect_postgres
from config.logs import configure_logging
from config.settings import Settings
from config.tables import TableRules, load_table_rules
from loader import session
from loader.daemon import Loader
from replicator.binlog.ahead import AheadStream
from replicator.binlog.position import BinlogPosition, ReplicaPosition, SourcePosition
from replicator.daemon import Replicator

WIDE_ROWS, NARROW_ROWS, TRANSACTIONS = 30_000, 200_000, 40_000
_KEYS = {"bulk": 1, "oltp": 10_000_000}
_DEADLINE = 60.0
_LOOK_SECONDS = 0.005
"""How often the loader's loop looks up when nothing comes, so that the clock stops in time."""


def run() -> Iterator[Result]:
    """Yield the figures of both slices."""
    configure_logging("error")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[:2]))  # what we start inherits it
    try:
        with Rig() as rig:
            stage = Stage(rig)
            for kind in _KEYS:
                yield _result(kind, stage.measured(kind))
    finally:
        os.sched_setaffinity(0, before)


def _result(kind: str, found: Mapping[str, list[Run]]) -> Result:
    middle = {name: median(runs) for name, runs in found.items()}
    ratios = sorted(
        ours.seconds / theirs.seconds
        for ours, theirs in zip(found["loader"], found["postgres"], strict=True)
    )
    return Result(
        f"leg2_{kind}_vs_postgres",
        round(ratios[len(ratios) // 2], 2),
        details={
            "ratios": [round(ratio, 2) for ratio in ratios],
            "pinning": "all processes share two processors",
            "runs": described(middle),
        },
    )


class Stage:
    """The replica with its binlog, and databases to catch up in."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._settings = rig.settings
        self._base = rig.sandbox.analytics_db.name
        self._clones = 0
        self._postgres = rig.sandbox.analytics
        self._source = rig.sandbox.source_db.connect()
        practice.create(self._source)
        self._replicate()
        self._in_process(Catching(self._settings, self._end(), loads=2))

    def _replicate(self) -> None:
        """Let leg 1 carry what the source has to the replica."""
        goal = SourcePosition(*self._rig.sandbox.source_db.binlog_end())
        replicator = Replicator(self._settings, TableRules(), watch=lambda _progress: None)
        with closing(replicator):
            replicator.step()
            while not replicator.settled or replicator.position < goal:
                replicator.step()

    def _end(self) -> ReplicaPosition:
        return ReplicaPosition(*self._rig.sandbox.replica_db.binlog_end())

    def _write(self, kind: str) -> int:
        """Log the slice; its units."""
        first = _KEYS[kind]
        if kind == "oltp":
            practice.one_row_transactions(self._source, TRANSACTIONS, first)
        else:
            practice.load_wide(self._source, WIDE_ROWS, first)
            practice.load_narrow(self._source, NARROW_ROWS, first)
        self._replicate()
        return TRANSACTIONS if kind == "oltp" else WIDE_ROWS + NARROW_ROWS

    def measured(self, kind: str) -> dict[str, list[Run]]:
        """Runs of a slice, by candidate; afterwards the base database has the slice too."""
        units = self._write(kind)
        goal = self._end()
        tape: list[Step] = []
        with self._clone("recorded") as settings:
            tape = self._in_process(Catching(settings, goal, record=True))
        found: dict[str, list[Run]] = {"loader": [], "postgres": []}
        for _ in range(rounds()):
            for name, runs in found.items():
                with self._clone(name) as settings:
                    work: Work = (
                        Catching(settings, goal) if name == "loader" else Sending(settings, tape)
                    )
                    runs.append(self._timed(work, units))
                    self._compare(settings.analytics.db, kind)
        self._in_process(Catching(self._settings, goal))
        return found

    @contextmanager
    def _clone(self, name: str) -> Iterator[Settings]:
        """The base database once more, under another name."""
        database = f"{self._base}_{name}"
        with closing(self._postgres.connect()) as root:
            copied, source = sql.Identifier(database), sql.Identifier(self._base)
            owner = sql.Identifier(self._settings.analytics.user)
            root.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(copied, source, owner)
            )
            root.execute("CHECKPOINT")
            analytics = self._settings.analytics.model_copy(update={"db": database})
            self._clones += 1  # the replica first ends the thread that served an id before: 0.1 s
            update = {"server_id": 1000 + self._clones, "poll_seconds": _LOOK_SECONDS}
            loader = self._settings.loader.model_copy(update=update)
            try:
                yield self._settings.model_copy(update={"analytics": analytics, "loader": loader})
            finally:
                root.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(copied))

    def _timed(self, work: Work, units: int) -> Run:
        """The work in a process of its own."""
        server = self._postgres.pid or 0
        with _process(work) as (pid, pipe):
            assert pipe.recv() == "ready"
            start_peak(pid)
            spent = cpu_seconds(server) + cpu_seconds(pid)
            began = time.perf_counter()
            pipe.send("go")
            assert pipe.recv() == "done"
            seconds = time.perf_counter() - began
            spent = cpu_seconds(server) + cpu_seconds(pid) - spent
            return Run(units, seconds, spent, peak_mib(pid))

    def _in_process(self, work: Work) -> list[Step]:
        with _process(work) as (_pid, pipe):
            assert pipe.recv() == "ready"
            pipe.send("go")
            assert pipe.recv() == "done"
            tape: list[Step] = pipe.recv()
            return tape

    def _compare(self, database: str, kind: str) -> None:
        """Nobody was fast by leaving something out."""
        wanted = self._rig.sandbox.replica_db
        with closing(self._postgres.connect(database=database)) as root:
            for table in (practice.WIDE, practice.NARROW):
                [(there,)] = wanted.query(f"SELECT COUNT(*) FROM {table}")
                query = sql.SQL("SELECT count(*) FROM raw.{}").format(sql.Identifier(table))
                [(here,)] = root.execute(query).fetchall()
                if here != there:
                    raise RuntimeError(f"{kind}, {table}: {here} rows in {database}, not {there}")


# --- what runs in a process of its own -------------------------------------------------------

Step = tuple[str, Any, Any]
"""What was done on the connection, with up to two arguments."""


@dataclass
class Catching:
    """The loader, until it has written all up to `goal`."""

    settings: Settings
    goal: ReplicaPosition
    loads: int = 0
    """Tables that must have been loaded as well."""
    record: bool = False
    tape: list[Step] = field(default_factory=list)
    _asked: list[tuple[AheadStream, BinlogPosition]] = field(default_factory=list)

    def prepare(self) -> None:
        """Everything but the opening of the stream."""
        if self.record:
            _record(self.tape)
        streams: Any = AheadStream
        really = streams.open
        streams.open = lambda stream, position: self._asked.append((stream, position))
        self._loader = Loader(self.settings)
        rules = load_table_rules(self.settings.tables_file)
        self._loader._session = session.Session.start(self.settings, rules)
        streams.open = really

    def work(self) -> None:
        """Open the stream and catch up."""
        for stream, position in self._asked:
            stream.open(position)
        while not self._reached():
            self._loader.step()

    def _reached(self) -> bool:
        current: Any = self._loader._session
        ledger = current._ledger
        loaded = sum(t.state == "streaming" for t in current._tables.by_name.values())
        reached: bool = ledger.offset.replica >= self.goal and ledger.idle
        return reached and loaded >= self.loads


def _record(tape: list[Step]) -> None:
    """From now on, keep what the loader does on its connection."""

    def recorded(*arguments: Any, **options: Any) -> Any:
        connection: Any = connect_postgres(*arguments, **options)
        if options.get("application_name") == "loader":
            connection.__class__ = Recording
            connection.cursor_factory = RecordingCursor
            connection.tape = tape
        return connection

    session.connect_postgres = recorded  # type: ignore[attr-defined]


class Recording(psycopg.Connection[Any]):
    """A connection that keeps what is done on it."""

    tape: list[Step]

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        text = query.as_bytes(self) if isinstance(query, sql.Composable) else query
        self.tape.append(("execute", (text, params), options))
        return super().execute(query, params, **options)

    def commit(self) -> None:
        self.tape.append(("commit", None, None))
        super().commit()

    def rollback(self) -> None:
        self.tape.append(("rollback", None, None))
        super().rollback()

    @contextmanager
    def pipeline(self) -> Iterator[Any]:
        self.tape.append(("pipeline", None, None))
        with super().pipeline() as opened:
            yield opened
            self.tape.append(("end", None, None))

    @contextmanager
    def transaction(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        self.tape.append(("transaction", None, None))
        with super().transaction(*arguments, **options) as opened:
            yield opened
            self.tape.append(("end", None, None))


class RecordingCursor(psycopg.Cursor[Any]):
    """A cursor whose COPY is kept."""

    @contextmanager
    def copy(self, statement: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        connection: Any = self.connection
        text = (
            statement.as_bytes(connection) if isinstance(statement, sql.Composable) else statement
        )
        blocks: list[bytes] = []
        connection.tape.append(("copy", text, blocks))
        with super().copy(statement, *arguments, **options) as sink:
            yield _Kept(sink, blocks)


class _Kept:
    def __init__(self, sink: Any, blocks: list[bytes]) -> None:
        self._sink = sink
        self._blocks = blocks

    def write(self, block: bytes) -> None:
        self._blocks.append(block)
        self._sink.write(block)


@dataclass
class Sending:
    """A recording, sent to PostgreSQL."""

    settings: Settings
    tape: list[Step]

    def prepare(self) -> None:
        self._connection = connect_postgres(self.settings.analytics, application_name="baseline")
        self._connection.prepared_max = None

    def work(self) -> None:
        open_blocks: list[Any] = []
        for kind, what, more in self.tape:
            if kind == "execute":
                self._connection.execute(*what, **more)
            elif kind == "copy":
                with self._connection.cursor() as cursor, cursor.copy(what) as sink:
                    for block in more:
                        sink.write(block)
            elif kind == "end":
                open_blocks.pop().__exit__(None, None, None)
            elif kind in ("pipeline", "transaction"):
                opened = getattr(self._connection, kind)()
                opened.__enter__()
                open_blocks.append(opened)
            else:
                getattr(self._connection, kind)()


Work = Catching | Sending


@contextmanager
def _process(work: Work) -> Iterator[tuple[int, Pipe]]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_do, args=(work, theirs))
    process.start()
    theirs.close()
    try:
        yield process.pid or 0, ours
    finally:
        with suppress(OSError):
            ours.send("end")
        process.join(_DEADLINE)
        if process.is_alive():
            process.kill()


def _do(work: Work, pipe: Pipe) -> None:
    work.prepare()
    pipe.send("ready")
    pipe.recv()
    began = len(work.tape)
    work.work()
    pipe.send("done")
    pipe.send(work.tape[began:] if isinstance(work, Catching) else [])
    pipe.recv()  # until it has been measured
    os._exit(0)  # with threads and connections as they are: a daemon is killed no more gently

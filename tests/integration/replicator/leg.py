"""Leg 1 between two real servers, stepped by the test itself.

`Leg` runs a `Replicator` in this process, throws it away as a kill would, and
compares what stands on both servers by their own SELECTs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from pydantic import SecretStr

from config.settings import (
    LoaderTuning,
    MySQLServer,
    PostgresServer,
    ReplicatorTuning,
    Settings,
)
from config.tables import TableRules
from replicator import daemon, resync_requests, tracking
from replicator.binlog.ahead import AheadStream
from replicator.binlog.position import SourcePosition
from replicator.binlog.stream import BinlogStream
from replicator.daemon import Replicator
from replicator.sandbox.databases import MySQLDatabase

DEADLINE = 30.0


class Leg:
    """Source, replica, and a replicator that stands between them only while it steps."""

    def __init__(
        self, source: MySQLDatabase, replica: MySQLDatabase, rules: TableRules, **tuning: Any
    ) -> None:
        self.source, self.replica, self.rules = source, replica, rules
        self.settings = Settings(
            source=_server("source", source),
            replication=_server("replica", replica),
            analytics=PostgresServer(host="127.0.0.1", port=1, db="x", user="x"),
            replicator=ReplicatorTuning(
                **{
                    "server_id": 2**31 + 20,
                    "poll_seconds": 0.02,
                    "copy_gap_seconds": 0.05,
                    **tuning,
                }
            ),
            loader=LoaderTuning(server_id=2**31 + 21),
            log_format="console",
        )
        self.replicator = Replicator(self.settings, rules)

    # --- running -------------------------------------------------------------------------

    def step(self) -> None:
        self.replicator.step()

    def restart(self) -> None:
        """A new process; the old one's connections end, and with them what it had not committed."""
        self.close()
        self.replicator = Replicator(self.settings, self.rules)

    def close(self) -> None:
        self.replicator.close()

    def step_until(self, reached: Callable[[], Any], what: str = "the condition") -> None:
        end = time.monotonic() + DEADLINE
        while not reached():
            assert time.monotonic() < end, f"waited in vain for {what}: {self.states()}"
            self.step()

    def catch_up(self) -> None:
        """Step until the replica shows what the source shows now, and nothing is under way.

        Then once more: a test may have hung work of its own into the first time.
        """
        for _ in range(2):
            goal = self.source_position()
            self.step_until(partial(self._caught_up, goal), f"{goal}, now at {self.position()}")

    def _caught_up(self, goal: SourcePosition) -> bool:
        position = self.position()
        if position is None or position < goal or not self.replicator.settled:
            return False
        unsettled = set(self.states().values()) & {"copying", "reconciling", "queued"}
        return not unsettled and not self.requests("queued", "copying", "catching_up")

    # --- what is there -------------------------------------------------------------------

    def source_position(self) -> SourcePosition:
        file, offset = self.source.binlog_end()
        return SourcePosition(file, int(offset))

    def offset(self) -> tracking.Offset | None:
        if not self.replica.query("SHOW TABLES LIKE 'etl\\_binlog\\_offset'"):
            return None
        return tracking.read_offset(self.replica._connection(), tracking.MAIN)

    def position(self) -> SourcePosition | None:
        offset = self.offset()
        return None if offset is None else offset.position

    def states(self) -> dict[str, str]:
        if not self.replica.query("SHOW TABLES LIKE 'etl\\_extract\\_status'"):
            return {}
        return dict(
            self.replica.query("SELECT table_name, extraction_status FROM etl_extract_status")
        )

    def requests(self, *states: str) -> list[tuple[str, str]]:
        if not self.replica.query("SHOW TABLES LIKE 'etl\\_resync\\_request'"):
            return []
        rows = self.replica.query("SELECT table_name, state FROM etl_resync_request ORDER BY id")
        return [row for row in rows if not states or row[1] in states]

    def resync(self, *tables: str) -> None:
        """Ask for these tables, or all that are known, as the command line does."""
        resync_requests.queue_resync(self.replica._connection(), tables or sorted(self.states()))

    def copied_rows(self) -> dict[str, tuple[int, str | None]]:
        return {
            row[0]: (row[1], row[2])
            for row in self.replica.query(
                "SELECT target_table, rows_copied, copy_key FROM etl_copy_progress"
            )
        }

    def tables(self) -> list[str]:
        """The replica's tables that are not for tracking; ours in hiding are among them."""
        names = [row[0] for row in self.replica.query("SHOW TABLES")]
        return [name for name in names if not name.startswith("etl_")]

    def assert_exact(self, without: tuple[str, ...] = ()) -> None:
        """Both servers have the same tables with the same columns and rows, and nothing else."""
        names = [row[0] for row in self.source.query("SHOW TABLES") if row[0] not in without]
        assert self.tables() == names
        for name in names:
            assert _columns(self.replica, name) == _columns(self.source, name), name
            there, here = _rows(self.source, name), _rows(self.replica, name)
            assert here == there, f"{name}: {(here - there)!r:.2000} for {(there - here)!r:.2000}"
        assert self.replica.query(
            "SELECT table_name, engine FROM information_schema.tables WHERE table_schema=%s"
            " AND engine <> 'InnoDB'",
            (self.replica.name,),
        ) == []  # fmt: skip


def _server(role: Any, database: MySQLDatabase) -> MySQLServer:
    return MySQLServer(
        role=role,
        host="127.0.0.1",
        port=database.server.port,
        db=database.name,
        user=database.user,
        password=SecretStr(database.password),
        ssl_mode="disabled",  # making a TLS context costs more than all that a test does
    )


def _columns(database: MySQLDatabase, table: str) -> list[tuple[Any, ...]]:
    return database.query(
        "SELECT column_name, column_type, is_nullable, collation_name FROM"
        " information_schema.columns WHERE table_schema=%s AND table_name=%s"
        " ORDER BY ordinal_position",
        (database.name, table),
    )


def _rows(database: MySQLDatabase, table: str) -> Counter[tuple[Any, ...]]:
    with closing(database.connect(use_unicode=False, conv={}, ssl_disabled=True)) as connection:
        cursor = connection.cursor()
        cursor.execute("SET time_zone='+00:00', character_set_results=NULL")
        cursor.execute(f"SELECT * FROM `{table}`")
        return Counter(cursor.fetchall())


class Crash(Exception):
    """The process dies here."""


@contextmanager
def crashing(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, after: int = 0, done: bool = False
) -> Iterator[None]:
    """Behind `after` calls, one of `owner.name` ends the process, before or after it is `done`."""
    original, calls = getattr(owner, name), [0]

    def dying(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == after + 1:
            if done:
                original(*arguments, **options)
            raise Crash(name)
        return original(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, dying)
        yield


def crawl(monkeypatch: pytest.MonkeyPatch) -> None:
    """One event a step: everything that happens between steps happens between any two events."""
    for kind in (AheadStream, BinlogStream):
        monkeypatch.setattr(kind, "read", one_at_a_time(kind.read))
    monkeypatch.setattr(daemon, "STEP_SECONDS", 0.0)


def one_at_a_time(read: Callable[[Any, float], list[bytes]]) -> Callable[..., list[bytes]]:
    """A stream's `read` that brings one event, however many have come."""
    waiting: WeakKeyDictionary[Any, list[bytes]] = WeakKeyDictionary()

    def one(stream: Any, timeout: float) -> list[bytes]:
        queue = waiting.setdefault(stream, [])
        if not queue:
            queue += read(stream, timeout)
        return [queue.pop(0)] if queue else []

    return one

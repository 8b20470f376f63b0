"""One set of connections at work: from the stored position to wherever they last.

Left: events of the replica's binlog, read ahead by a thread. Right: the `Taker`, which
sorts them, the `Ledger`, which has them written by another thread, and the `LoadWorker`,
a third, whose copies of tables come back to the `Follower`. This thread never waits for
PostgreSQL unless two batches are full, or everything must stand still.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import Self

import psycopg
import pymysql
import structlog

from config.connections import (
    MySQLConnection,
    PostgresConnection,
    answered_within,
    connect_mysql,
    connect_postgres,
)
from config.errors import translated
from config.failpoints import reach
from config.metrics import EVENTS
from config.settings import Settings
from config.tables import TableRules
from loader import replica as rep
from loader import starting, tracking
from loader.completing import Completer
from loader.ddl import shapes
from loader.ddl.remasking import check_rules
from loader.following import Follower
from loader.intake import Intake
from loader.ledger import Ledger
from loader.load.reload import Connections, raw_bytes_options
from loader.load.worker import LoadWorker
from loader.masking import masker_of
from loader.quarantine import entries
from loader.retention import Retention
from loader.standing import Standing
from loader.taking import Taker
from replicator.binlog.ahead import AheadStream
from replicator.binlog.events import EventType, event_timestamp
from replicator.binlog.position import ReplicaPosition
from replicator.binlog.silence import Silence
from replicator.binlog.stream import BinlogStream
from replicator.binlog.transactions import TransactionReader

log = structlog.get_logger()

LOCK_WAIT_SECONDS = 15.0
STREAM_SESSION = "SET SESSION net_write_timeout = 3600"
"""So that the replica does not hang up while a large merge keeps us from reading."""


class Session:
    """See the module; made by `start`."""

    def __init__(
        self,
        settings: Settings,
        rules: TableRules,
        postgres: PostgresConnection,
        standing: Standing,
    ) -> None:
        self._settings = settings
        self._rules = rules
        self._postgres = postgres
        self._standing = standing
        self._database = settings.replication.db
        self._ledger: Ledger | None = None
        self._worker: LoadWorker | None = None
        self._stream: AheadStream | None = None
        self._retention: Retention | None = None
        self._completer = Completer(self._connect_rows, self._database)

    @classmethod
    def start(
        cls,
        settings: Settings,
        rules: TableRules,
        standing: Standing | None = None,
        *,
        anew: bool = False,
        reload: frozenset[str] = frozenset(),
        completed: frozenset[str] = frozenset(),
    ) -> Self:
        """Connect, become the only loader, and stand where PostgreSQL says that `raw` is.

        `anew`: forget the stored position; every table is reloaded. `reload`: these are.
        `completed`: tables whose events may leave out generated columns (see `completing`).
        """
        postgres = connect_postgres(settings.analytics, application_name="loader")
        session = cls(settings, rules, postgres, standing or Standing(settings))
        session._completer.tables = completed
        try:
            session._start(anew=anew, reload=reload)
        except BaseException:
            session.close()
            raise
        return session

    def _start(self, *, anew: bool, reload: frozenset[str]) -> None:
        server = self._settings.analytics
        masker = masker_of(self._settings, self._rules)
        with translated(server.label):
            tracking.lock_writer(self._postgres, server.db, server.schema_name, LOCK_WAIT_SECONDS)
            tracking.create_tables(self._postgres, server.schema_name)
            shapes.create_tables(self._postgres)
            entries.create_tables(self._postgres)
        self._query = connect_mysql(self._settings.replication)
        with translated(self._settings.replication.label):
            server_id, replica = starting.prepare_replica(self._query, self._database)
            stored = None if anew else starting.stored_offset(self._postgres, server_id)
            offset = stored or starting.first_offset(self._query, self._database, server_id)
            wanted = rep.streaming_tables(self._query, self._database)
            requests = rep.loading_requests(self._query, self._database)
            copied = rep.copied_tables(self._query, self._database)
            check_rules(self._query, self._database, filter(self._rules.carries, wanted), masker)
        with translated(server.label):
            self._tables = starting.restore_tables(
                self._postgres,
                self._rules,
                wanted,
                requests,
                offset.replica,
                everything=stored is None,
                reload=reload,
                masker=masker,
            )
            self._tables.pause(copied)
            ledger = self._ledger = Ledger(
                self._settings,
                self._postgres,
                self._tables,
                offset,
                self._finish,
                self._standing.written,
            )
            ledger.write()
        self._standing.opened(offset, self._tables)
        intake = Intake(self._database, self._rules, self._tables, masker, self._completer)
        intake.notices.seed_streaming(wanted)
        self._follower = Follower(
            self._settings,
            self._rules,
            replica,
            self._query,
            ledger,
            self._connect_copy,
            intake.notices,
            masker,
            self._completer,
        )
        most_bytes = 2 * self._settings.loader.batch_bytes
        self._taker = Taker(intake, ledger, self._follower, most_bytes, self._open_stream)
        self._worker = LoadWorker(
            self._connect_worker,
            self._database,
            self._settings.replication.label,
            self._settings.loader.copy_connections,
            masker=masker,
            analytics=self._settings.analytics.label,
        )
        self._open_stream(offset.replica)
        self._retention = Retention(
            partial(connect_mysql, self._settings.replication),
            self._database,
            loader=self._settings.loader.server_id,
            reserve=self._settings.loader.binlog_reserve_bytes,
            server=self._settings.replication.label,
        )
        log.info(
            "loader_started",
            position=str(offset.replica),
            resumed=stored is not None,
            tables=len(self._tables.by_name),
        )

    def _finish(self, requests: list[int]) -> None:
        """Tell leg 1's operators that their resync is through."""
        if requests:
            reach("finish.before")
            with translated(self._settings.replication.label):
                rep.finish_requests(self._query, self._database, requests)
            reach("finish.done")

    def _connect_worker(self) -> Connections:
        server = self._settings.analytics
        writer = self._postgres.info.backend_pid
        postgres = connect_postgres(server, application_name="loader reload")
        try:
            with translated(server.label):
                tracking.lock_copier(postgres, server.db, server.schema_name, writer)
            return self._connect_copy(postgres)
        except BaseException:
            postgres.close()
            raise

    def _connect_copy(self, postgres: PostgresConnection) -> Connections:
        return Connections(*self._connect_rows(), postgres)

    def _connect_rows(self) -> tuple[MySQLConnection, MySQLConnection]:
        """To the replica, for rows as bytes and for what is text."""
        server = self._settings.replication
        return connect_mysql(server, **raw_bytes_options()), connect_mysql(server)

    def _open_stream(self, position: ReplicaPosition) -> None:
        """Read from `position` on."""
        tuning = self._settings.loader
        server = self._settings.replication
        if self._stream is None:
            stream = BinlogStream(
                partial(connect_mysql, server, init_command=STREAM_SESSION),
                server_id=tuning.server_id,
                heartbeat_seconds=tuning.heartbeat_seconds,
                name="replica",
            )
            self._stream = AheadStream(stream)
        self._stream.open(position)
        self._reader = TransactionReader(position)
        self._silence = Silence("replica", tuning.heartbeat_seconds, time.monotonic())

    def close(self) -> None:
        """Close everything; what was not committed comes again from the stored position."""
        if self._worker is not None:
            self._worker.stop()
        if self._retention is not None:
            self._retention.stop()
        if self._stream is not None:
            self._stream.close()
        self._completer.close()
        if self._ledger is not None:
            with suppress(psycopg.Error, OSError):
                self._ledger.stop()
        with suppress(psycopg.Error, OSError):
            self._postgres.close()
        query = getattr(self, "_query", None)
        if query is not None:
            with suppress(pymysql.MySQLError, OSError):
                query.close()

    def step(self) -> None:
        """Read what has come, or wait for it; let be written what is due."""
        assert self._stream is not None
        assert self._worker is not None
        assert self._ledger is not None
        ledger = self._ledger
        heard = self._stream.heard
        events = self._stream.read(self._poll_seconds())
        EVENTS.labels("loader").inc(len(events))
        if events:
            reach("stream.read")
            self._standing.arrived(time.monotonic())
            self._silence.broken(time.monotonic())
        elif self._silence.due(time.monotonic()):
            self._ask()
        ledger.reclaim()
        self._take(events)
        if not self._taker.reading_again:
            self._take_copies()
            self._follower.settle(idle=not events)
            ledger.replay()
        if ledger.due():
            ledger.write()
        elif not events and ledger.idle:
            self._standing.caught_up(heard, ledger.offset)
        else:
            ledger.offer()
        self._standing.link.stream, self._standing.offset = self._stream, ledger.committed
        if self._retention is not None and ledger.committed is not None:
            self._retention.passed(ledger.committed.replica, ledger.committed.created)
        self._worker.submit(self._tables.take_wanted())

    def describe(self) -> str:
        """Where it stands, in a few words."""
        assert self._ledger is not None
        offset = self._ledger.offset
        loading = ", tables being loaded" if self._tables.loading else ""
        return f"at {offset.source or offset.replica}{loading}"

    def _ask(self) -> None:
        """Nothing came for a while: is there nothing?"""
        assert self._ledger is not None
        patience = self._settings.loader.heartbeat_seconds
        with (
            translated(self._settings.replication.label),
            answered_within(self._query, patience),
        ):
            end = rep.binlog_end(self._query)
        self._silence.judge(self._ledger.offset.replica, end, time.monotonic())

    def _poll_seconds(self) -> float:
        return min(self._settings.loader.poll_seconds, 0.02 if self._tables.loading else 1.0)

    def _take(self, events: list[bytes]) -> None:
        assert self._ledger is not None
        for event in events:
            if event[4] == EventType.ROTATE:  # no position is stored without its file's beginning
                self._reader.feed(event)
                continue
            if event[4] == EventType.FORMAT_DESCRIPTION:
                self._ledger.enter_file(self._reader.file, event_timestamp(event))
                self._completer.format_description = event
            change = self._reader.feed(event)
            if change is not None and not self._taker.take(change):
                return

    def _take_copies(self) -> None:
        assert self._worker is not None
        assert self._ledger is not None
        copies = list(self._worker.results())
        if copies:
            self._ledger.drain()  # nobody writes while tables' lives change
            self._follower.take_copies(copies)

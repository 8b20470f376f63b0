"""One set of connections at work: from the stored position to wherever they last.

Left: changes of the replica's binlog. They are kept until their transaction ends,
since only its last rows event, leg 1's offset row, tells which source position and
time it stands for; then they are decoded and folded. Right: batches for the
`Writer`. Statements and leg 1's notices cut the batch and are acted on at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Self

import psycopg
import pymysql
import structlog

from config.connections import PostgresConnection, connect_mysql, connect_postgres
from config.errors import translated
from config.metrics import BATCH_ROWS, BATCH_SECONDS, EVENTS, PIPELINE_LAG
from config.settings import Settings
from config.tables import TableRules
from loader import replica as rep
from loader import schema, tracking
from loader.batch import Batch, Limits
from loader.decoder import best_decoder
from loader.keyless import load_keyless
from loader.lifecycle import Table, Tables
from loader.merge import helpers_of
from loader.notices import NoticeReader, Notices
from loader.reload import Connections, Copier, LoadWorker, raw_bytes_options
from loader.rows import RowDecoder, TablePlan, plan_for
from loader.statements import Replica, TableChanges, changes_of, version_number
from loader.tracking import DROPPED, LOADING, RELOADING, STREAMING, WAITING, Offset
from loader.types import raw_name
from loader.values import NULL
from loader.writer import Action, Writer
from replicator.binlog.events import HEADER_LENGTH, TableMap
from replicator.binlog.position import ReplicaPosition
from replicator.binlog.stream import BinlogStream
from replicator.binlog.transactions import (
    Begin,
    Change,
    Commit,
    Moved,
    Rollback,
    Rows,
    Statement,
    TransactionReader,
)

log = structlog.get_logger()

LOCK_WAIT_SECONDS = 15.0
IDLE_OFFSET_SECONDS = 0.5
"""How often a position that moved without any change for us is stored: `wait` waits for it."""
STREAM_SESSION = "SET SESSION net_write_timeout = 3600"
"""So that the replica does not hang up while a large merge keeps us from reading."""


@dataclass(slots=True)
class OpenTransaction:
    """What a replica transaction has brought so far."""

    rows: list[tuple[TablePlan, bytes]] = field(default_factory=list)
    notices: Notices = field(default_factory=Notices)


class Session:
    """See the module; made by `start`."""

    def __init__(self, settings: Settings, rules: TableRules, postgres: PostgresConnection) -> None:
        self._settings = settings
        self._rules = rules
        self._postgres = postgres
        self._database = settings.replication.db
        self._decoder: RowDecoder = best_decoder()
        self._notices = NoticeReader(self._decoder)
        self._plans: dict[tuple[str, bytes], TablePlan] = {}
        self._tables = Tables()
        self._batch = Batch()
        self._open = OpenTransaction()
        self._stored_at = time.monotonic()
        self._moved = False
        tuning = settings.loader
        self._limits = Limits(tuning.batch_rows, tuning.batch_bytes, tuning.batch_seconds)
        self._worker: LoadWorker | None = None
        self._stream: BinlogStream | None = None

    @classmethod
    def start(cls, settings: Settings, rules: TableRules, *, anew: bool = False) -> Self:
        """Connect, become the only loader, and stand where PostgreSQL says that `raw` is.

        `anew`: forget the stored position; every table is reloaded.
        """
        postgres = connect_postgres(settings.analytics, application_name="loader")
        session = cls(settings, rules, postgres)
        try:
            session._start(anew=anew)
        except BaseException:
            session.close()
            raise
        return session

    def _start(self, *, anew: bool) -> None:
        server = self._settings.analytics
        with translated(server.label):
            tracking.lock_writer(self._postgres, server.db, server.schema_name, LOCK_WAIT_SECONDS)
            tracking.create_tables(self._postgres, server.schema_name)
        self._query = connect_mysql(self._settings.replication)
        with translated(self._settings.replication.label):
            self._prepare_replica()
            stored = None if anew else self._stored_offset()
            self._offset = stored or self._first_offset()
            wanted = rep.streaming_tables(self._query, self._database)
            requests = rep.loading_requests(self._query, self._database)
        with translated(server.label):
            self._restore_tables(wanted, requests, everything=stored is None)
            self._writer = Writer(self._postgres, self._tables)
            self._write()
        self._worker = LoadWorker(
            self._connect_worker, self._database, self._settings.replication.label
        )
        self._open_stream()
        log.info(
            "loader_started",
            position=str(self._offset.replica),
            resumed=stored is not None,
            tables=len(self._tables.by_name),
        )

    def _prepare_replica(self) -> None:
        self._server_id = rep.check_settings(self._query)
        with self._query.cursor() as cursor:
            cursor.execute("SET SESSION wait_timeout = 604800")
            cursor.execute("SELECT VERSION()")
            row = cursor.fetchone()
        self._replica = Replica(self._database, version_number(str(row[0]) if row else ""))

    def _stored_offset(self) -> Offset | None:
        stored = tracking.read_offset(self._postgres)
        if stored is not None and stored.replica_server_id != self._server_id:
            log.warning(
                "replica_changed",
                was=stored.replica_server_id,
                now=self._server_id,
                remedy="reloading every table",
            )
            return None
        return stored

    def _first_offset(self) -> Offset:
        """Where the replica's binlog ends, and a source position that is surely before it."""
        mark = rep.read_mark(self._query, self._database)
        position = rep.binlog_end(self._query)
        return Offset(
            position,
            self._server_id,
            source=mark.position if mark else None,
            source_ts=mark.source_ts if mark else None,
        )

    def _restore_tables(
        self, wanted: set[str], requests: dict[int, str], *, everything: bool
    ) -> None:
        """Take up every table's life where it was; what was being loaded begins again."""
        statuses = tracking.read_statuses(self._postgres)
        watermarks = {} if everything else tracking.read_watermarks(self._postgres)
        helpers = [name for table in statuses for name in helpers_of(table)]
        schema.drop_helpers(self._postgres, [h for h in helpers if h not in statuses])
        for name, status in statuses.items():
            table = self._tables.get(name)
            table.state = status.state
            table.watermark = watermarks.get(name)
        again = {
            name
            for name, status in statuses.items()
            if status.state in (LOADING, RELOADING) or (everything and status.state == STREAMING)
        }
        fresh = {
            name
            for name in wanted
            if self._rules.carries(name)
            and (name not in statuses or statuses[name].state in (WAITING, DROPPED))
        }
        carried = {n: t for n, t in requests.items() if self._rules.carries(t)}
        self._load_all(again | fresh | set(carried.values()))
        for number, name in carried.items():
            self._tables.get(name).requests.append(number)
        self._notices.seed_streaming(wanted)

    def _load_all(self, names: set[str]) -> None:
        there = schema.read_tables(self._postgres, [raw_name(name) for name in names])
        for name in sorted(names):
            # Its old state meant a copy that is lost: begin from scratch.
            self._tables.get(name).state = WAITING
            self._tables.load(name, exists=raw_name(name) in there, at=self._offset.replica)

    def _connect_worker(self) -> Connections:
        server = self._settings.analytics
        return self._connect_copy(connect_postgres(server, application_name="loader reload"))

    def _connect_copy(self, postgres: PostgresConnection) -> Connections:
        server = self._settings.replication
        rows = connect_mysql(server, **raw_bytes_options())
        return Connections(rows, connect_mysql(server), postgres)

    def _open_stream(self) -> None:
        tuning = self._settings.loader
        server = self._settings.replication
        self._stream = BinlogStream(
            partial(connect_mysql, server, init_command=STREAM_SESSION),
            server_id=tuning.server_id,
            heartbeat_seconds=tuning.heartbeat_seconds,
            name="replica",
        )
        self._stream.open(self._offset.replica)
        self._reader = TransactionReader(self._offset.replica)

    def close(self) -> None:
        """Close everything; what was not committed comes again from the stored position."""
        if self._worker is not None:
            self._worker.stop()
        if self._stream is not None:
            self._stream.close()
        with suppress(psycopg.Error, OSError):
            self._postgres.close()
        query = getattr(self, "_query", None)
        if query is not None:
            with suppress(pymysql.MySQLError, OSError):
                query.close()

    def step(self) -> None:
        """Read what has come, or wait for it; write what is due."""
        assert self._stream is not None
        assert self._worker is not None
        events = self._stream.read(0 if self._batch else self._poll_seconds())
        EVENTS.labels("loader").inc(len(events))
        for event in events:
            change = self._reader.feed(event)
            if change is not None:
                self._take(change)
        self._take_copies()
        if self._due(idle=not events):
            self._write()
        elif not events and not self._batch:
            PIPELINE_LAG.set(0)
        self._worker.submit(self._tables.take_wanted())

    def _poll_seconds(self) -> float:
        loading = any(table.loading for table in self._tables.by_name.values())
        return min(self._settings.loader.poll_seconds, 0.02 if loading else 1.0)

    def _due(self, *, idle: bool) -> bool:
        if self._batch and (idle or self._batch.full(self._limits, time.monotonic())):
            return True
        if any(True for _ in self._tables.mergeable(self._offset.replica)):
            return True
        return self._moved and time.monotonic() - self._stored_at > IDLE_OFFSET_SECONDS

    def _take(self, change: Change) -> None:
        match change:
            case Rows(table, event):
                self._take_rows(table, event)
            case Commit():
                self._commit(change)
            case Statement():
                self._statement(change)
            case Moved(position):
                self._advance(position)
            case Rollback(position):
                self._open = OpenTransaction()
                self._advance(position)
            case Begin():
                self._open = OpenTransaction()

    def _advance(self, position: object) -> None:
        if isinstance(position, ReplicaPosition):
            self._offset = replace(self._offset, replica=position)
            self._moved = True

    def _take_rows(self, table_map: TableMap, event: bytes) -> None:
        if table_map.database != self._database:
            return
        if table_map.table in rep.NOTICE_TABLES:
            self._notices.read(self._plan(table_map), event, self._open.notices)
        elif self._rules.carries(table_map.table):
            table = self._tables.by_name.get(table_map.table)
            if table is not None and (table.loading or table.state == STREAMING):
                self._open.rows.append((self._plan(table_map), event))

    def _plan(self, table_map: TableMap) -> TablePlan:
        # The table id, the first six bytes, changes whenever the server reopens the table.
        key = (table_map.table, table_map.raw[HEADER_LENGTH + 6 :])
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = plan_for(table_map)
        return plan

    def _commit(self, commit: Commit) -> None:
        transaction, self._open = self._open, OpenTransaction()
        if any(self._batch.holds_other_plan(plan) for plan, _ in transaction.rows):
            self._write()
        now = time.monotonic()
        mark = transaction.notices.mark
        if mark is not None:
            self._offset = replace(self._offset, source=mark.position, source_ts=mark.source_ts)
        for plan, event in transaction.rows:
            self._fold(plan, event, now)
        self._advance(commit.position)
        self._offset = replace(self._offset, gtid=commit.gtid)
        self._batch.end_transaction(now)
        if transaction.notices:
            self._heed(transaction.notices)
        elif self._batch.full(self._limits, now):
            self._write()

    def _fold(self, plan: TablePlan, event: bytes, now: float) -> None:
        table = self._tables.get(plan.table)
        if not table.wants(plan) or self._is_behind_watermark(table):
            return
        stamp = self._offset.source_ts
        changes = self._decoder.decode(event, plan)
        self._batch.fold(plan, changes, stamp.encode() if stamp else NULL, now)

    def _is_behind_watermark(self, table: Table) -> bool:
        source = self._offset.source
        if table.watermark is None or source is None:
            return False
        if source <= table.watermark:
            return True
        table.watermark = None
        return False

    def _heed(self, notices: Notices) -> None:
        """Act on what leg 1 says about its tables, at this point of the stream."""
        named = notices.streaming | set(notices.requests.values())
        names = {name for name in named if self._rules.carries(name)}
        if names:
            self._write()
            self._load(names)
        for number, name in notices.requests.items():
            self._tables.get(name).requests.append(number)

    def _load(self, names: set[str]) -> None:
        """See that each table's copy is later than the present position."""
        there = self._writer.raw_tables([raw_name(name) for name in names])
        touched = [schema.helper_name(schema.TOUCHED, name) for name in names]
        for name in sorted(names):
            exists = raw_name(name) in there
            self._tables.load(name, exists=exists, at=self._offset.replica)
        self._write([partial(schema.drop_helpers, helpers=touched)])

    def _statement(self, statement: Statement) -> None:
        changes = changes_of(statement.query, self._replica, self._rules.carries)
        if changes:
            self._write()
        if not statement.in_transaction:
            self._advance(statement.position)
        if changes:
            self._follow(changes)

    def _follow(self, changes: TableChanges) -> None:
        """Act on a schema change, the batch before it being written."""
        log.info(
            "schema_change",
            created=changes.created,
            dropped=changes.dropped,
            truncated=changes.truncated,
            altered=changes.altered,
        )
        self._drop([n for n in changes.dropped if n in self._tables.by_name])
        self._truncate(changes.truncated)
        self._create(changes.created)
        known = self._tables.by_name
        self._load_known({n for n in changes.altered if n in known})

    def _drop(self, names: list[str]) -> None:
        if not names:
            return
        actions: list[Action] = []
        finished: list[int] = []
        for name in names:
            finished += self._tables.drop(name).take_requests()
            actions.append(partial(_drop_action, table=name))
        self._write(actions)
        self._finish(finished)

    def _truncate(self, names: tuple[str, ...]) -> None:
        for name in names:
            table = self._tables.by_name.get(name)
            if table is None or self._is_behind_watermark(table):
                continue
            loading = table.loading
            if table.state == STREAMING or loading:
                self._write([] if table.hidden else [partial(_empty_action, table=name)])
            if loading:
                self._load({name})

    def _create(self, names: tuple[str, ...]) -> None:
        """New tables: load those that leg 1 streams already, let the others wait for its word."""
        if not names:
            return
        with translated(self._settings.replication.label):
            streaming = rep.streaming_tables(self._query, self._database)
        for name in names:
            table = self._tables.get(name)
            if table.state == DROPPED:
                table.state = WAITING
        self._load({name for name in names if name in streaming})

    def _load_known(self, names: set[str]) -> None:
        live = {n for n in names if self._tables.get(n).state not in (WAITING, DROPPED)}
        keep = {n for n in live if not self._is_behind_watermark(self._tables.get(n))}
        if keep:
            self._load(keep)

    def _take_copies(self) -> None:
        assert self._worker is not None
        for loaded in self._worker.results():
            table = self._tables.arrived(loaded)
            if table is None:
                continue
            if loaded.schema is None:
                self._vanished(table)
            elif not loaded.schema.primary_key:
                self._load_keyless(table)

    def _vanished(self, table: Table) -> None:
        """The replica has no such table (any more): the stream will say so, if it has not."""
        log.warning("table_absent", table=table.name)
        self._write()
        self._drop([table.name])

    def _load_keyless(self, table: Table) -> None:
        """A table without a key is copied here, while the stream waits."""
        self._write()
        connections = self._connect_copy(self._postgres)
        try:
            mark = load_keyless(Copier(connections, self._database), self._postgres, table.name)
        finally:
            connections.close_replica()
        table.watermark = mark.position if mark else None
        finished = table.take_requests()
        self._tables.merged([table])
        self._write()
        self._finish(finished)

    def _write(self, actions: Sequence[Action] = ()) -> None:
        """Commit everything taken in so far, with its position."""
        batch, self._batch = self._batch, Batch()
        began = time.monotonic()
        with translated(self._settings.analytics.label):
            written = self._writer.write(batch, self._offset, actions)
        self._stored_at, self._moved = time.monotonic(), False
        finished = [number for table in written.merged for number in table.take_requests()]
        self._tables.merged(written.merged)
        if batch:
            self._measure(batch, self._stored_at - began)
        self._finish(finished)

    def _measure(self, batch: Batch, seconds: float) -> None:
        BATCH_ROWS.labels("loader").observe(batch.rows)
        BATCH_SECONDS.labels("loader").observe(seconds)
        if self._offset.source_ts:
            moment = datetime.fromisoformat(self._offset.source_ts + ":00")
            PIPELINE_LAG.set(max(0.0, time.time() - moment.timestamp()))
        log.debug(
            "batch_committed",
            rows=batch.rows,
            transactions=batch.transactions,
            position=str(self._offset.replica),
            seconds=round(seconds, 4),
        )

    def _finish(self, requests: list[int]) -> None:
        """Tell leg 1's operators that their resync is through."""
        if requests:
            with translated(self._settings.replication.label):
                rep.finish_requests(self._query, self._database, requests)


def _drop_action(connection: PostgresConnection, table: str) -> None:
    schema.drop_helpers(connection, helpers_of(table))
    schema.drop_table(connection, raw_name(table))
    tracking.set_watermark(connection, table, None)
    tracking.clear_all_exceptions(connection, table)


def _empty_action(connection: PostgresConnection, table: str) -> None:
    schema.empty_table(connection, raw_name(table))
    tracking.clear_all_exceptions(connection, table)

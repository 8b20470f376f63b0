"""Leg 1 as a loop: connect, finish what was begun, copy what is missing, stream.

Left: settings and table rules. Right: the replica, always at a position that its
own offset row tells. `step` returns within about a second; whatever breaks is
raised, everything is closed, and the next `step` begins from what is stored.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import structlog

from config import metrics
from config.connections import connect_mysql, connect_source
from config.connections import quote_mysql_identifier as quote
from config.errors import ConfigError, CopyRefused, Halt, ReplicatorError, SourceReset, translated
from config.settings import Settings
from config.tables import TableRules
from replicator import replica as rep
from replicator import source as src
from replicator import tracking
from replicator.batch import binlog_statement
from replicator.binlog.events import EventType, format_description_without_checksums
from replicator.binlog.position import SourcePosition
from replicator.binlog.schema import schemas_from_catalog
from replicator.binlog.stream import BinlogStream
from replicator.binlog.transactions import Statement, TransactionReader
from replicator.exact import Applied, ExactMySQLReplicator
from replicator.first_copy import FirstCopy, Watch, begin_first_copy, log_stages
from replicator.reconcile import Reconciler, drop_scratch, hidden_name
from replicator.resync import STREAM, Resync, ResyncRoom, swap
from replicator.routes import Routes, Window
from replicator.schema_changes import SchemaChanges
from replicator.snapshot import TableChanged, TableCopier
from replicator.statements import read_statements
from replicator.tracking import (
    MAIN,
    Offset,
    RequestState,
    ResyncRequest,
    TableState,
    execute,
    execute_bytes,
)

log = structlog.get_logger(__name__)

STEP_SECONDS = 1.0
BATCH_SECONDS = 0.05
"""While the source keeps sending, a batch is committed at this age."""
TOUCH_SECONDS = 5.0
RESYNC_IDS = 64
"""Server ids behind our own that resyncs use in turn."""
_RAW_SESSION = ("SET character_set_results=NULL", "SET time_zone='+00:00'")


class Replicator:
    """The whole of leg 1 for one source database."""

    def __init__(self, settings: Settings, rules: TableRules, watch: Watch | None = None) -> None:
        """`watch` is told of each step of a first copy; log lines by default."""
        self._settings = settings
        self._watch = watch or log_stages()
        self._rules = rules
        self._closers: list[Any] = []
        self._copy: FirstCopy | None = None
        self._resync: Resync | None = None
        self._opened = False
        self._streaming = False
        self._next_poll = 0.0
        self._next_touch = 0.0
        self._positions: list[tuple[float, SourcePosition]] = []

    # --- the loop's face -----------------------------------------------------------------

    def step(self) -> None:
        """A bounded piece of work."""
        try:
            if not self._opened:
                self._open()
            if self._copy is not None:
                self._copy_on(self._copy)
            else:
                self._stream_on()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give everything back; nothing is lost, for nothing was only here."""
        if self._resync is not None:
            with suppress(Exception):
                self._resync.stop()
            self._resync = None
        for connection in reversed(self._closers):
            with suppress(Exception):
                connection.close()
        self._closers.clear()
        self._copy = None
        self._positions.clear()
        self._opened = self._streaming = False

    @property
    def settled(self) -> bool:
        """Streaming, with no copy under way."""
        return self._streaming and self._resync is None

    @property
    def position(self) -> SourcePosition:
        """Up to where the replica shows the source."""
        return self._replicator.position

    # --- opening -------------------------------------------------------------------------

    def _kept(self, connection: Any) -> Any:
        self._closers.append(connection)
        return connection

    def _open(self) -> None:
        settings = self._settings
        self._catalog = self._kept(connect_source(settings))
        with translated(settings.source.label):
            self._identity = src.identify(self._catalog)
            src.require_row_format(self._catalog)
            charset, collation = self._source_charset()
        rep.prepare_database(settings, charset, collation)
        self._replica = self._kept(rep.open_main(settings))
        self._hidden = self._kept(rep.connect_hidden(settings.replication))
        with translated(settings.replication.label):
            self._replica_identity = src.identify(self._replica)
            self._require_same_family()
            offset = tracking.read_offset(self._replica, MAIN)
            over = offset is not None and tracking.everything_requested(self._replica)
        if offset is None or over:
            offset = self._first_start(charset, collation)
        self._require_same_source(offset)
        self._format_description = self._read_format_description(offset.position)
        self._wire(offset)
        self._opened = True

    def _source_charset(self) -> tuple[str, str]:
        database = self._settings.source.db
        rows = tracking.fetch(
            self._catalog,
            "SELECT default_character_set_name, default_collation_name"
            " FROM information_schema.schemata WHERE schema_name=%s",
            [database],
        )
        if not rows:
            raise ConfigError(
                f"the source has no database {database} that this account may read",
                hint="Check OPENDENTAL_SOURCE_DB, and GRANT SELECT on it.",
            )
        return rows[0]

    def _require_same_family(self) -> None:
        if self._identity.mariadb != self._replica_identity.mariadb:
            raise ConfigError(
                f"source ({self._identity.version}) and replica"
                f" ({self._replica_identity.version}) are of different families",
                hint="Run the replica on the source's family: MariaDB with MariaDB, MySQL with"
                " MySQL. Row events are applied as they are, and the families differ there.",
            )

    def _require_same_source(self, offset: Offset) -> None:
        now = (self._identity.server_id, self._identity.uuid)
        if now != (offset.server_id, offset.server_uuid):
            raise SourceReset(
                f"the source is another server than the replica was copied from (server id"
                f" {now[0]} instead of {offset.server_id})",
                hint="Point OPENDENTAL_SOURCE_HOST back to it; or, to follow the new one, drop the"
                f" database {self._settings.replication.db} on the replica and start again:"
                " everything is copied anew.",
            )
        with translated(self._settings.source.label):
            src.require_file(self._catalog, offset.position)

    def _first_start(self, charset: str, collation: str) -> Offset:
        with translated(self._settings.source.label):
            position = self._history(self._catalog).settled()
            tables = [
                t
                for t in src.base_tables(self._catalog, self._settings.source.db)
                if self._rules.carries(t.name)
            ]
        offset = Offset(MAIN, position, self._identity.server_id, self._identity.uuid)
        with translated(self._settings.replication.label):
            database = self._settings.replication.db
            rep.take_charset(self._hidden, self._replica, database, charset, collation)
            begin_first_copy(self._replica, offset, tables)
        return offset

    def _binlog(self, server_id: int) -> BinlogStream:
        settings = self._settings
        return BinlogStream(
            lambda: connect_mysql(settings.source),
            server_id=server_id,
            heartbeat_seconds=settings.replicator.heartbeat_seconds,
            name=settings.source.label,
        )

    def _read_format_description(self, position: SourcePosition) -> bytes:
        """How the source's events are laid out; asking for it proves the grant to read them."""
        stream = self._binlog(self._settings.replicator.server_id)
        try:
            stream.open(position)
            while not stream.format_description:
                stream.read(self._settings.replicator.poll_seconds)
        finally:
            stream.close()
        return stream.format_description

    def _history(self, connection: Any) -> src.PositionHistory:
        gap = self._settings.replicator.copy_gap_seconds
        return src.PositionHistory(connection, self._identity, gap, self._positions)

    def _wire(self, offset: Offset) -> None:
        settings = self._settings
        database = settings.replication.db
        with translated("source or replica"):
            self._statements = read_statements(
                self._catalog,
                self._replica,
                self._identity,
                self._replica_identity,
                source_db=settings.source.db,
                replica_db=database,
                carries=self._rules.carries,
            )
        self._reconciler = Reconciler(self._replica, self._hidden, database)
        self._routes = Routes(self._rules.carries)
        self._replicator = ExactMySQLReplicator(
            self._replica,
            database,
            offset,
            self._routes,
            source_database=settings.source.db,
            limit=settings.replicator.batch_bytes,
            reconciler=self._reconciler,
        )
        self._changes = SchemaChanges(
            self._replica,
            self._replicator,
            self._routes,
            self._statements,
            database,
        )
        with translated(settings.replication.label):
            self._changes.recover(offset)
            self._recover_swap(offset)
            copying = self._set_routes()
            if copying:
                admin = self._kept(rep.connect_hidden(settings.replication))
                self._copy = FirstCopy(
                    self._copier(
                        self._catalog,
                        self._kept(self._raw_source()),
                        self._hidden,
                        Reconciler(self._hidden, admin, database),
                    ),
                    self._replica,
                    self._catalog,
                    settings.source.db,
                    copying,
                    self._watch,
                )
            else:
                self._fit_rules()

    def _set_routes(self) -> list[str]:
        """Routes as the stored states have them; the tables whose first copy is unfinished."""
        states = tracking.table_states(self._replica)
        copies = tracking.copy_progresses(self._replica)
        for table, state in states.items():
            progress = copies.get(table)
            if state == TableState.STREAMING:
                self._routes.stream(table)
            elif state == TableState.RECONCILING and progress and progress.low and progress.high:
                self._routes.stream(table, window=Window(progress.low, progress.high))
            else:
                self._routes.skip(table)
        return [t for t, state in states.items() if state == TableState.COPYING]

    def _fit_rules(self) -> None:
        """Follow tables.toml as it is now: leave what it excludes, copy what it has added."""
        states = tracking.table_states(self._replica)
        carried = {t for t, state in states.items() if state != TableState.EXCLUDED}
        for table in sorted(carried):
            if not self._rules.carries(table):
                log.info("table_excluded", table=table)
                tracking.set_state(self._replica, table, TableState.EXCLUDED)
                self._routes.skip(table)
        for source_table in src.base_tables(self._catalog, self._settings.source.db):
            if self._rules.carries(source_table.name) and source_table.name not in carried:
                log.info("table_included", table=source_table.name)
                self._queue(source_table.name)

    def _copier(
        self, catalog: Any, reader: Any, replica: Any, reconciler: Reconciler
    ) -> TableCopier:
        tuning = self._settings.replicator
        description = format_description_without_checksums(self._format_description)
        execute_bytes(replica, binlog_statement(description))
        return TableCopier(
            catalog,
            reader,
            replica,
            reconciler,
            source_db=self._settings.source.db,
            replica_db=self._settings.replication.db,
            identity=self._identity,
            replica_identity=self._replica_identity,
            history=self._history(catalog),
            chunk_rows=tuning.copy_chunk_rows,
            lock=tuning.copy_lock == "short",
        )

    def _raw_source(self) -> Any:
        """A source connection that gives every value as the bytes it is stored in."""
        connection = connect_source(self._settings, use_unicode=False, conv={})
        with translated(self._settings.source.label):
            for statement in _RAW_SESSION:
                execute(connection, statement)
        return connection

    # --- the first copy ------------------------------------------------------------------

    def _copy_on(self, copy: FirstCopy) -> None:
        deadline = time.monotonic() + STEP_SECONDS
        with translated("source or replica"):
            while time.monotonic() < deadline:
                if copy.step():
                    self._copy = None
                    self._set_routes()
                    return

    # --- streaming -----------------------------------------------------------------------

    def _stream_on(self) -> None:
        if not self._streaming:
            self._open_stream()
        deadline = time.monotonic() + STEP_SECONDS
        events = self._stream.read(self._settings.replicator.poll_seconds)
        batch_began = time.monotonic()
        while events:
            for event in events:
                self._feed(event)
            now = time.monotonic()
            if now > deadline:
                break
            if now - batch_began > BATCH_SECONDS:
                self._commit_batch()
                batch_began = now
            events = self._stream.read(0)
        self._commit_batch()
        if not self._replicator.has_begun:  # what housekeeping begins would commit half of it
            self._housekeeping()

    def _open_stream(self) -> None:
        settings = self._settings
        self._stream = self._kept(self._binlog(settings.replicator.server_id))
        self._reader = TransactionReader(self._replicator.position)
        self._stream.open(self._replicator.position)
        self._streaming = True
        log.info("streaming", position=str(self._replicator.position))

    def _feed(self, event: bytes) -> None:
        if event[4] == EventType.FORMAT_DESCRIPTION:
            self._replicator.describe(event)
        change = self._reader.feed(event)
        if isinstance(change, Statement):
            with translated(self._settings.replication.label):
                self._changes.apply(change)
        elif change is not None:
            self._replicator.apply(change)

    def _commit_batch(self) -> None:
        began = time.monotonic()
        self._replicator.flush()
        applied = self._replicator.applied
        if applied.statements:
            metrics.BATCH_SECONDS.labels("replicator").observe(time.monotonic() - began)
            metrics.TRANSACTIONS.labels("replicator").inc(applied.transactions)
            self._replicator.applied = Applied()

    # --- housekeeping --------------------------------------------------------------------

    def _housekeeping(self) -> None:
        with translated(self._settings.replication.label):
            self._end_windows()
            self._queue_dirty()
            now = time.monotonic()
            if now >= self._next_touch:
                tracking.touch_tables(self._replica, self._replicator.touched)
                self._replicator.touched.clear()
                self._next_touch = now + TOUCH_SECONDS
            if now >= self._next_poll or self._resync is not None:
                self._next_poll = now + self._settings.replicator.poll_seconds
                self._mind_resyncs()

    def _end_windows(self) -> None:
        """Tables whose copy window the stream has passed are exact from here on."""
        passed = self._routes.windows_passed(self._replicator.position)
        self._reconciler.finish_others(self._routes.windowed().difference(passed))
        if passed:
            hashes = schemas_from_catalog(self._replica, self._settings.replication.db, passed)
            execute(self._replica, "BEGIN")
            for table in passed:
                tracking.set_state(
                    self._replica, table, TableState.STREAMING, schema_hash=hashes[table].hash
                )
                tracking.forget_progress(self._replica, table)
                tracking.answer_restarted(self._replica, table)
            execute(self._replica, "COMMIT")
            for table in passed:
                self._routes.stream(table)
            log.info("tables_streaming", tables=len(passed))

    def _queue_dirty(self) -> None:
        """Copy again what cannot be reconciled, keyless tables, and copy what had no route."""
        for table in sorted(self._routes.unknown):
            log.info("table_included", table=table)
            self._queue(table)
        self._routes.unknown.clear()
        dirty, self._replicator.dirty = self._replicator.dirty, set()
        for table in sorted(dirty):
            log.info("copy_begins_again", tables=[table], reason="it has no key, and it changed")
            self._queue(table)

    def _queue(self, table: str) -> None:
        execute(self._replica, "BEGIN")
        tracking.set_state(self._replica, table, TableState.QUEUED)
        tracking.forget_progress(self._replica, table)
        tracking.queue_resync(self._replica, [table])
        execute(self._replica, "COMMIT")
        self._routes.skip(table)

    # --- resyncs -------------------------------------------------------------------------

    def _mind_resyncs(self) -> None:
        job = self._resync
        if job is None:
            request = tracking.open_request(self._replica)
            if request is not None:
                log.info("resync_started", table=request.table, request=request.id)
                self._resync = Resync(
                    request, lambda: self._room(request), lambda: self._replicator.position
                )
                self._resync.start()
        elif job.error is not None:
            self._resync_failed(job, job.error)
        elif job.gone:
            self._resync_gone(job)
        elif job.ready:
            self._swap_when_level(job)

    def _room(self, request: ResyncRequest) -> ResyncRoom:
        """Connections for a resync, on its own thread; none is left open where one fails."""
        if not self._rules.carries(request.table):
            raise CopyRefused(
                f"table {request.table} is not carried",
                hint="Include it in tables.toml and start again, or do not resync it.",
            )
        opened: list[Any] = []
        try:
            return self._furnished(request, opened)
        except BaseException:
            _close_all(opened)
            raise

    def _furnished(self, request: ResyncRequest, opened: list[Any]) -> ResyncRoom:
        settings = self._settings

        def kept(connection: Any) -> Any:
            opened.append(connection)
            return connection

        replica = kept(rep.connect_hidden(settings.replication))
        with translated(settings.replication.label):
            rep.take_lock(replica, settings.replication.db, "resync")
        catalog = kept(connect_source(settings))
        admin = kept(rep.connect_hidden(settings.replication))
        reconciler = Reconciler(replica, admin, settings.replication.db)
        # An id of its own for each: a server that ends an earlier stream of the same id wakes all
        # its streams, and those send no heartbeat before they have slept for a whole period.
        stream = kept(self._binlog(settings.replicator.server_id + 1 + request.id % RESYNC_IDS))
        return ResyncRoom(
            self._copier(catalog, kept(self._raw_source()), replica, reconciler),
            reconciler,
            replica,
            stream,
            self._statements,
            settings.source.db,
            settings.replication.db,
            self._identity,
            settings.replicator.batch_bytes,
            lambda: _close_all(opened),
        )

    def _resync_failed(self, job: Resync, error: ReplicatorError) -> None:
        job.stop()
        self._resync = None
        if not isinstance(error, Halt):
            raise error  # the link broke: everything starts again from what is stored
        log.error("resync_failed", table=job.table, reason=str(error), hint=error.hint)
        self._discard_resync(job)
        tracking.set_request(
            self._replica, job.request.id, RequestState.FAILED, message=f"{error} {error.hint}"
        )

    def _discard_resync(self, job: Resync) -> None:
        """Leave nothing that a later resync would take for its own beginning."""
        drop_scratch(self._hidden, job.hidden)
        execute(self._hidden, f"DROP TABLE IF EXISTS {quote(job.hidden)}")
        tracking.forget_progress(self._hidden, job.hidden)
        tracking.forget_offset(self._hidden, STREAM)

    def _resync_gone(self, job: Resync) -> None:
        """The source has no such table; if the stream has not told so yet, it will."""
        job.stop()
        self._resync = None
        log.info("resync_without_table", table=job.table)
        self._discard_resync(job)
        execute(self._replica, "BEGIN")
        if self._routes.skips(job.table):
            tracking.set_state(self._replica, job.table, TableState.VANISHED)
        tracking.set_request(
            self._replica, job.request.id, RequestState.FAILED, message="not on the source any more"
        )
        execute(self._replica, "COMMIT")

    def _swap_when_level(self, job: Resync) -> None:
        """Swap when both streams stand at one position; the one behind moves on."""
        here = self._replicator.position
        if here < job.position:
            return
        try:
            level = job.advance(here)
        except TableChanged:
            self._resync = job.begin_again()
            self._resync.start()
            return
        if level:
            self._swap(job)

    def _swap(self, job: Resync) -> None:
        tracking.set_pending(
            self._replica,
            MAIN,
            {"what": "swap", "table": job.table, "request": job.request.id, "rows": job.rows},
        )
        job.stop()
        self._resync = None
        self._finish_swap(job.table, job.request.id, job.rows)
        self._next_poll = 0.0
        self._routes.stream(job.table)
        log.info("resync_swapped", table=job.table, rows=job.rows)

    def _recover_swap(self, offset: Offset) -> None:
        pending = json.loads(offset.pending_ddl or "{}")
        if pending.get("what") == "swap":
            self._finish_swap(pending["table"], pending["request"], pending["rows"])

    def _finish_swap(self, table: str, request: int, rows: int) -> None:
        """Swap, then tell: leg 2 reloads the table behind this very transaction."""
        swap(self._hidden, table)
        drop_scratch(self._hidden, hidden_name("_resync_", table))
        schema = schemas_from_catalog(self._replica, self._settings.replication.db, [table])[table]
        connection = self._replica
        execute(connection, "BEGIN")
        tracking.set_state(
            connection, table, TableState.STREAMING, schema_hash=schema.hash, rows=rows
        )
        tracking.set_request(connection, request, RequestState.LOADING, copied=rows)
        tracking.forget_offset(connection, STREAM)
        tracking.forget_progress(connection, hidden_name("_resync_", table))
        tracking.forget_progress(connection, table)
        tracking.set_pending(connection, MAIN, None)
        execute(connection, "COMMIT")


def _close_all(connections: list[Any]) -> None:
    for connection in reversed(connections):
        with suppress(Exception):
            connection.close()

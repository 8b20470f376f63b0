"""Answer resync requests, one after the other, beside the main stream.

Left: rows of `etl_resync_request`, and the main stream's position. Right: tables
swapped for their fresh copies at a point in the stream, and requests moved on.
All of this runs on the main thread between two batches; the copy itself is a
`Resync` on a thread of its own.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import structlog

from config.connections import connect_source
from config.connections import quote_mysql_identifier as quote
from config.errors import ApplyConflict, CopyRefused, Halt, ReplicatorError, translated
from config.failpoints import reach
from replicator import copy_progress, resync_requests, tracking
from replicator import replica as rep
from replicator.binlog.position import SourcePosition
from replicator.binlog.schema import schemas_from_catalog
from replicator.conflicts import ask_for_repair
from replicator.exact import ExactMySQLReplicator
from replicator.reconcile import Reconciler
from replicator.resync import STREAM, Resync, ResyncRoom, swap
from replicator.resync_requests import RequestState, ResyncRequest
from replicator.routes import Routes
from replicator.scratch import drop_scratch, hidden_name
from replicator.session import Session, close_all
from replicator.targets import TableChanged
from replicator.tracking import MAIN, Offset, TableState, execute

log = structlog.get_logger(__name__)

RESYNC_IDS = 64
"""Server ids behind our own that resyncs use in turn."""


class ResyncDesk:
    """The requests of one session; `job` is the one that is worked on."""

    def __init__(self, session: Session, replicator: ExactMySQLReplicator, routes: Routes) -> None:
        self._session = session
        self._replicator = replicator
        self._routes = routes
        self.job: Resync | None = None
        self._absent: dict[str, SourcePosition] = {}
        """Tables that the source has not, and up to where the stream may still speak of them."""

    def close(self) -> None:
        """Stop the work; it goes on from what is stored."""
        if self.job is not None:
            with suppress(Exception):
                self.job.stop()
            self.job = None

    def mind(self) -> None:
        """Move the request on that is worked on, or begin the next."""
        if self._absent:
            self._forget_absent()
        job = self.job
        if job is None:
            request = resync_requests.open_request(self._session.replica)
            if request is not None:
                log.info("resync_started", table=request.table, request=request.id)
                reach("resync.taken")
                self.job = Resync(
                    request, lambda: self._room(request), lambda: self._replicator.position
                )
                self.job.start()
        elif job.error is not None:
            self._failed(job, job.error)
        elif job.gone:
            self._gone(job)
        elif job.ready:
            self._swap_when_level(job)

    def _room(self, request: ResyncRequest) -> ResyncRoom:
        """Connections for a resync, on its own thread; none is left open where one fails."""
        if not self._session.rules.carries(request.table):
            raise CopyRefused(
                f"table {request.table} is not carried",
                hint="Include it in tables.toml and start again, or do not resync it.",
            )
        opened: list[Any] = []
        try:
            return self._furnished(request, opened)
        except BaseException:
            close_all(opened)
            raise

    def _furnished(self, request: ResyncRequest, opened: list[Any]) -> ResyncRoom:
        settings = self._session.settings

        def kept(connection: Any) -> Any:
            opened.append(connection)
            return connection

        replica = kept(rep.open_side(settings.replication, self._session.replica))
        with translated(settings.replication.label):
            rep.take_lock(replica, settings.replication.db, "resync")
        catalog = kept(connect_source(settings))
        admin = kept(rep.open_side(settings.replication, self._session.replica))
        reconciler = Reconciler(replica, admin, settings.replication.db)
        # An id of its own for each: a server that ends an earlier stream of the same id wakes all
        # its streams, and those send no heartbeat before they have slept for a whole period.
        server_id = settings.replicator.server_id + 1 + request.id % RESYNC_IDS
        stream = kept(self._session.binlog(server_id))
        return ResyncRoom(
            kept(
                self._session.copier(catalog, kept(self._session.raw_source()), replica, reconciler)
            ),
            reconciler,
            replica,
            stream,
            self._session.prepared(server_id, catalog),
            self._session.statements,
            settings.source.db,
            settings.replication.db,
            self._session.identity,
            settings.replicator.batch_bytes,
            lambda: close_all(opened),
        )

    def _failed(self, job: Resync, error: ReplicatorError) -> None:
        job.stop()
        self.job = None
        if not isinstance(error, Halt):
            raise error  # the link broke: everything starts again from what is stored
        log.error("resync_failed", table=job.table, reason=str(error), hint=error.hint)
        self._discard(job)
        if job.request.reason == resync_requests.CONFLICT:
            self._repair_failed(job, error)
            return
        resync_requests.set_request(
            self._session.replica,
            job.request.id,
            RequestState.FAILED,
            message=f"{error} {error.hint}",
        )

    def _repair_failed(self, job: Resync, error: Halt) -> None:
        """The stream has left the table to this reload: it is begun again, or everything halts.

        It is begun again where someone wrote into its hidden copy, unless that goes on and on; and
        when the daemon is started again, whatever the reason was.
        """
        if isinstance(error, ApplyConflict) and error.tables:
            ask_for_repair(self._session.replica, job.table, job.request.id)
            return
        resync_requests.set_request(
            self._session.replica,
            job.request.id,
            RequestState.QUEUED,
            message=f"{error} {error.hint}",
        )
        raise CopyRefused(
            f"the reload of {job.table} behind a conflict failed: {error}", error.hint
        )

    def _discard(self, job: Resync) -> None:
        """Leave nothing that a later resync would take for its own beginning."""
        drop_scratch(self._session.hidden, job.hidden)
        execute(self._session.hidden, f"DROP TABLE IF EXISTS {quote(job.hidden)}")
        copy_progress.forget_progress(self._session.hidden, job.hidden)
        tracking.forget_offset(self._session.hidden, STREAM)

    def _gone(self, job: Resync) -> None:
        """The source has no such table; if the stream has not told so yet, it will."""
        job.stop()
        self.job = None
        log.info("resync_without_table", table=job.table)
        self._discard(job)
        execute(self._session.replica, "BEGIN")
        if self._routes.skips(job.table):
            tracking.set_state(self._session.replica, job.table, TableState.VANISHED)
            self._note_absent(job.table)
        resync_requests.set_request(
            self._session.replica,
            job.request.id,
            RequestState.FAILED,
            message="not on the source any more",
        )
        execute(self._session.replica, "COMMIT")

    def _note_absent(self, table: str) -> None:
        with translated(self._session.settings.source.label):
            self._absent[table] = self._session.history(self._session.catalog).now()

    def _forget_absent(self) -> None:
        """What the stream has not told of by now was no table: a view that was renamed, say.

        What the replica has under such a name is left from a table that went with a statement
        that failed half-way: nothing else will drop it.
        """
        here = self._replicator.position
        passed = [table for table, position in self._absent.items() if here >= position]
        for table in passed:
            del self._absent[table]
            if tracking.table_states(self._session.replica).get(table) == TableState.VANISHED:
                log.info("table_forgotten", table=table)
                execute(self._session.replica, f"DROP TABLE IF EXISTS {quote(table)}")
                tracking.forget_table(self._session.replica, table)
                self._routes.forget(table)

    def _swap_when_level(self, job: Resync) -> None:
        """Swap when both streams stand at one position; the one behind moves on."""
        here = self._replicator.position
        if here < job.position:
            return
        try:
            level = job.advance(here)
        except TableChanged:
            self.job = job.begin_again()
            self.job.start()
            return
        except ApplyConflict as error:  # of the hidden copy
            self._failed(job, error)
            return
        if level:
            self._swap(job)

    def _swap(self, job: Resync) -> None:
        reach("resync.level")
        tracking.set_pending(
            self._session.replica,
            MAIN,
            {"what": "swap", "table": job.table, "request": job.request.id, "rows": job.rows},
        )
        reach("resync.recorded")
        job.stop()
        self.job = None
        self._finish_swap(job.table, job.request.id, job.rows)
        self._routes.stream(job.table)
        log.info("resync_swapped", table=job.table, rows=job.rows)

    def recover(self, offset: Offset) -> None:
        """Finish a swap that was begun before we died; take up what is not on the source."""
        for table, state in tracking.table_states(self._session.replica).items():
            if state == TableState.VANISHED:
                self._note_absent(table)
        pending = json.loads(offset.pending_ddl or "{}")
        if pending.get("what") == "swap":
            self._finish_swap(pending["table"], pending["request"], pending["rows"])

    def _finish_swap(self, table: str, request: int, rows: int) -> None:
        """Swap, then tell: leg 2 reloads the table behind this very transaction."""
        swap(self._session.hidden, table)
        reach("resync.swapped")
        drop_scratch(self._session.hidden, hidden_name("_resync_", table))
        schema = schemas_from_catalog(
            self._session.replica, self._session.settings.replication.db, [table]
        )[table]
        connection = self._session.replica
        execute(connection, "BEGIN")
        tracking.set_state(
            connection, table, TableState.STREAMING, schema_hash=schema.hash, rows=rows
        )
        resync_requests.set_request(connection, request, RequestState.LOADING, copied=rows)
        tracking.forget_offset(connection, STREAM)
        copy_progress.forget_progress(connection, hidden_name("_resync_", table))
        copy_progress.forget_progress(connection, table)
        tracking.set_pending(connection, MAIN, None)
        reach("resync.before_commit")
        execute(connection, "COMMIT")
        reach("resync.noted")

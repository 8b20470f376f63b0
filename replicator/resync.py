"""Reload one table in full while everything else streams on.

Left: a request. Right: a hidden copy of the table beside the old one, brought to
the very position of the main stream, ready to take the old one's place. The copy
is read in chunks like a first copy; then a second binlog stream of our own passes
the table's events, renamed, from the copy's window on. When it stands exactly
where the main stream stands, the main thread swaps the two by one RENAME.

The hidden copy is kept out of the replica's binlog: leg 2 learns of it by the
request's row alone, and reloads the table at a watermark behind the swap.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from config.connections import quote_mysql_identifier as quote
from config.errors import CopyRefused, ReplicatorError, classify
from config.failpoints import reach
from replicator import copy_progress, resync_requests, tracking
from replicator import source as src
from replicator.binlog.ddl import Execute, TransactionControl
from replicator.binlog.events import EventType, event_timestamp
from replicator.binlog.position import SourcePosition
from replicator.binlog.stream import BinlogStream
from replicator.binlog.transactions import (
    Change,
    Moved,
    Prepared,
    Statement,
    TransactionReader,
    XaCommit,
)
from replicator.copy_progress import CopyProgress
from replicator.exact import ExactMySQLReplicator
from replicator.prepared import PreparedTransactions
from replicator.reconcile import Reconciler
from replicator.resync_requests import RequestState, ResyncRequest
from replicator.routes import Routes, Window
from replicator.scratch import hidden_name
from replicator.snapshot import TableCopier
from replicator.statements import Statements
from replicator.targets import TableChanged, TableGone
from replicator.tracking import Offset, execute

log = structlog.get_logger(__name__)

STREAM = tracking.RESYNC
_MOST_RESTARTS = 20
_ADVANCE_SECONDS = 2.0
"""How long the main stream waits at most while a copy is brought to its position: longer than a
step of its own takes, so that it is caught up with even where neither has anything else to do."""


@dataclass(frozen=True, slots=True)
class ResyncRoom:
    """The connections and facts that a resync works with; all its own."""

    copier: TableCopier
    reconciler: Reconciler
    replica: Any
    """Writes no binlog."""
    stream: BinlogStream
    prepared: PreparedTransactions
    statements: Statements
    source_db: str
    replica_db: str
    identity: src.Identity
    batch_bytes: int
    close: Callable[[], None]


class Resync(threading.Thread):
    """Works on one request until its copy is `ready`, has `failed`, or is told to stop."""

    def __init__(
        self,
        request: ResyncRequest,
        open_room: Callable[[], ResyncRoom],
        main_position: Callable[[], SourcePosition],
    ) -> None:
        super().__init__(name=f"resync-{request.id}", daemon=True)
        self.request = request
        self.table = request.table
        self.hidden = hidden_name("_resync_", request.table)
        self._open_room = open_room
        self._main_position = main_position
        self._stopping = threading.Event()
        self._pending: deque[bytes] = deque()
        self.ready = False
        self.gone = False
        self.error: ReplicatorError | None = None
        self.room: ResyncRoom | None = None
        self.rows = self.expected = 0
        """Rows copied so far, and how many there will be by the engine's estimate."""

    def run(self) -> None:
        """The thread's work; outcomes are left in the attributes."""
        try:
            self.room = self._open_room()
            self._copy_until_caught_up(self.room)
        except TableGone:
            self.gone = True
        except ReplicatorError as error:
            self.error = error
        except Exception as error:
            self.error = classify(error, server="source or replica")

    def stop(self) -> None:
        """End the work; what is copied stays, and the next start goes on from it."""
        self._stopping.set()
        if self.is_alive():
            self.join(timeout=30)
        if self.room is not None:
            self.room.close()

    # --- copy ----------------------------------------------------------------------------

    def _copy_until_caught_up(self, room: ResyncRoom) -> None:
        for _attempt in range(_MOST_RESTARTS):
            try:
                progress = self._copied(room)
                if progress is None:
                    return
                high = self._open_stream(room, progress)
                while not self._stopping.is_set():
                    if self.position >= high and self._has_keys(room):
                        high = self._read_again(room)
                    elif self.position >= max(self._main_position(), high):
                        self._routes.stream(self.table, self.hidden)
                        self.ready = True
                        return
                    else:
                        self._read(room)
                return
            except TableChanged:
                log.info("resync_begins_again", table=self.table, reason="its definition changed")
                self._discard(room)
                room.copier.begin_later()
        raise CopyRefused(
            f"table {self.table} changed too often while it was copied",
            hint="Resync it when its schema is at rest; a table without a key needs"
            " REPLICATOR_COPY_LOCK=short and the LOCK TABLES grant on the source.",
        )

    def _copied(self, room: ResyncRoom) -> CopyProgress | None:
        """The finished copy; None when told to stop before."""
        table = src.base_table(room.copier.catalog, room.source_db, self.table)
        if table is None:
            raise TableGone(self.table)
        progress = copy_progress.copy_progresses(room.replica).get(self.hidden)
        if progress is None:
            progress = room.copier.begin(table, self.hidden)
        while not progress.complete:
            if self._stopping.is_set():
                return None
            self._tell(room, RequestState.COPYING, progress)
            progress = room.copier.copy_chunk(table, progress)
        self._tell(room, RequestState.CATCHING_UP, progress)
        reach("resync.copied")
        self.rows = progress.rows
        return progress

    def _tell(self, room: ResyncRoom, state: str, progress: CopyProgress) -> None:
        self.rows, self.expected = progress.rows, progress.expected
        resync_requests.set_request(
            room.replica,
            self.request.id,
            state,
            copied=progress.rows,
            total=max(progress.expected, progress.rows),
        )

    def _discard(self, room: ResyncRoom) -> None:
        room.stream.close()
        execute(room.replica, "ROLLBACK")  # or the scratch table would wait for its transaction
        room.reconciler.finish(self.hidden)
        execute(room.replica, f"DROP TABLE IF EXISTS {quote(self.hidden)}")
        copy_progress.forget_progress(room.replica, self.hidden)
        tracking.forget_offset(room.replica, STREAM)

    # --- catch up ------------------------------------------------------------------------

    def _open_stream(self, room: ResyncRoom, progress: CopyProgress) -> SourcePosition:
        """Open it; the end of the copy's window, before which the copy shows no one moment."""
        if progress.low is None or progress.high is None:
            raise AssertionError("a complete copy has a window")
        offset = tracking.read_offset(room.replica, STREAM)
        if offset is None:
            offset = Offset(STREAM, progress.low, room.identity.server_id, room.identity.uuid)
            tracking.write_offset(room.replica, offset)
            reach("resync.begun_stream")
        self._routes = routes = Routes(lambda _table: False, strict=False)
        routes.stream(self.table, self.hidden, Window(progress.low, progress.high))
        if self._has_keys(room):
            routes.hold(self.table)
        self._replicator = ExactMySQLReplicator(
            room.replica,
            room.replica_db,
            offset,
            routes,
            source_database=room.source_db,
            limit=room.batch_bytes,
            reconciler=room.reconciler,
            rows_v2=not room.identity.mariadb,
        )
        self._reader = TransactionReader(offset.position, xa=True)
        self._pending.clear()
        room.stream.open(offset.position)
        return progress.high

    def _has_keys(self, room: ResyncRoom) -> bool:
        """Are there rows that must be read again?"""
        return self.hidden in copy_progress.targets_with_keys(room.replica)

    def _read_again(self, room: ResyncRoom) -> SourcePosition:
        """Read them; the end of the window that this gives the copy."""
        tables = {t.name: t for t in src.base_tables(room.copier.catalog, room.source_db)}
        progress = copy_progress.copy_progresses(room.replica)[self.hidden]
        window = self._routes.window(self.table)
        if self.table not in tables or window is None:
            raise TableChanged(self.table)
        progress = room.copier.read_again(tables[self.table], progress, self.position)
        high = progress.high or window.high
        window = Window(window.low, high, window.settled)
        self._routes.stream(self.table, self.hidden, window)
        self._routes.hold(self.table)
        return high

    @property
    def position(self) -> SourcePosition:
        """Up to where the hidden copy is exact."""
        return self._replicator.position

    def _read(self, room: ResyncRoom) -> None:
        self._pending.extend(room.stream.read(0.2))
        self._feed(room, None)

    def advance(self, target: SourcePosition) -> bool:
        """On the main thread: bring the copy to exactly `target`; False if it takes longer.

        All that has come is passed, not a piece at each look: the main stream moves on between
        looks, under load by more than a piece, and the copy would never come level with it.
        Raises `TableChanged` where the table's definition changes on the way.
        """
        if self.room is None:
            raise AssertionError("the copy was never ready")
        deadline = time.monotonic() + _ADVANCE_SECONDS
        while self.position < target and time.monotonic() < deadline:
            if not self._pending:
                self._pending.extend(self.room.stream.read(0.2))
            self._feed(self.room, target)
        return self.position == target

    def _feed(self, room: ResyncRoom, target: SourcePosition | None) -> None:
        replicator = self._replicator
        while self._pending and (target is None or replicator.reached < target):
            event = self._pending.popleft()
            if event[4] == EventType.FORMAT_DESCRIPTION:
                replicator.describe(event)
                replicator.enter_file(self._reader.file, event_timestamp(event))
            change = self._reader.feed(event)
            if event[4] == EventType.ROTATE:  # no position without its file's beginning
                continue
            if isinstance(change, Prepared | XaCommit):
                for part in room.prepared.unfold(change, replicator.reached):
                    self._take(room, part)
            elif change is not None:
                self._take(room, change)
        replicator.flush()
        if replicator.dirty:
            replicator.dirty.clear()
            raise TableChanged(self.table)

    def _take(self, room: ResyncRoom, change: Change) -> None:
        if not isinstance(change, Statement):
            self._replicator.apply(change)
            return
        verdict = room.statements.verdict(change.query)
        if isinstance(verdict, Execute) and self.table in verdict.tables:
            if verdict.kind != "truncate table":
                raise TableChanged(self.table)
            self._empty(room)
        if not change.in_transaction:
            self._replicator.apply(Moved(change.position))
        elif isinstance(verdict, TransactionControl):
            # MariaDB keeps rows that were rolled back to a savepoint, and says so behind them,
            # where a temporary table or one without transactions was changed, whose own rows
            # never stand in between: they are logged as transactions of their own.
            self._replicator.run_inside_transaction(room.statements.text(change.query))

    def _empty(self, room: ResyncRoom) -> None:
        """The table was truncated: its rows are right from here on, whatever the copy had read.

        But not its columns, which are those of the moment at which the copy was begun: what stands
        in the window before that is still reconciled, or the copy begins again.
        """
        self._replicator.flush()
        execute(room.replica, f"TRUNCATE TABLE {quote(self.hidden)}")
        copy_progress.forget_keys(room.replica, self.hidden)

    # --- the swap, on the main thread ----------------------------------------------------

    def begin_again(self) -> Resync:
        """The same request from its start: the table changed its shape."""
        if self.room is not None:
            self._discard(self.room)
            self.room.copier.begin_later()
        self.stop()
        return Resync(self.request, self._open_room, self._main_position)


def swap(replica: Any, table: str) -> None:
    """Put the hidden copy in the table's place; safe to repeat after a crash at any point.

    `replica` writes no binlog. One RENAME moves both, so readers see either table.
    """
    hidden, old = hidden_name("_resync_", table), hidden_name("_old_", table)
    there = {
        name
        for (name,) in tracking.fetch(
            replica,
            "SELECT table_name FROM information_schema.tables WHERE table_schema=DATABASE()"
            " AND table_name IN (%s,%s,%s)",
            [table, hidden, old],
        )
    }
    if hidden in there:
        if table in there:
            execute(replica, f"DROP TABLE IF EXISTS {quote(old)}")
            execute(
                replica,
                f"RENAME TABLE {quote(table)} TO {quote(old)}, {quote(hidden)} TO {quote(table)}",
            )
        else:
            execute(replica, f"RENAME TABLE {quote(hidden)} TO {quote(table)}")
        reach("resync.renamed")
    execute(replica, f"DROP TABLE IF EXISTS {quote(old)}")

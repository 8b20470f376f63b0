"""ExactMySQLReplicator: row events in, the same rows on the replica, offset included.

Left: changes of one source binlog in commit order. Right: `BINLOG` statements on
one connection to the replica, whose offset row moves in the same transaction. No
row is decoded: the server that applies the events is the one that knows them.

Small transactions gather in a batch that is one autocommitted statement. A
transaction larger than a batch is sent piece by piece between BEGIN and COMMIT.

Why a batch may be sent before the one ahead of it is answered: its last event finds the
offset row by the position, part of the primary key, that the batch ahead writes. If that
one failed, whatever the reason, the position is not there, the statement fails (1032) and
InnoDB takes back all its rows: so a batch is never skipped, and none is applied twice.
The first error is the one that is raised, once everything sent has been answered. If the
link breaks instead, the session's lock on the replica keeps a successor out until the
server has done with what it had received, and the offset row then tells how far that was.

Pieces between BEGIN and COMMIT hold no offset, so each waits for its forerunner's answer:
a deadlock would end the transaction, and a piece behind it would commit by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pymysql

from config import metrics
from config.errors import Halt
from config.failpoints import reach
from replicator.announce import announcement
from replicator.batch import Item, Segment, is_one_statement, runs, segments
from replicator.binlog.gtidset import GtidSet
from replicator.binlog.position import SourcePosition
from replicator.binlog.transactions import (
    Begin,
    Change,
    Commit,
    Moved,
    Rollback,
    Rows,
    TransactionReader,
)
from replicator.conflicts import refusal
from replicator.delivery import Delivery
from replicator.inflight import InFlight
from replicator.offset_row import table_map as offset_map
from replicator.offset_row import update_rows as offset_rows
from replicator.packets import packet_limit, require_fits
from replicator.plain import Ways, gather
from replicator.provenance import require_created
from replicator.reconcile import Outcome, Reconciler
from replicator.routes import Route, Routes, Via
from replicator.tracking import Offset, execute_bytes, utc_now
from replicator.virtual_columns import VirtualColumns

if TYPE_CHECKING:
    from replicator.gathering import Run

BATCH_SECONDS = metrics.BATCH_SECONDS.labels("replicator")
BATCH_BYTES = metrics.BATCH_BYTES.labels("replicator")
_ON_THEIR_WAY = 2
"""Batches that the replica may owe an answer for: one that it executes, and the next."""
_WORTH_SENDING = 256 << 10
"""Bytes from which on a batch is sent while the replica still works on another."""


@dataclass(slots=True)
class Applied:
    """What has been applied since last asked; counts only."""

    transactions: int = 0
    statements: int = 0
    row_events: int = 0
    bytes: int = 0


@dataclass(slots=True)
class _Sent:
    """A statement on its way: the tables it changes, and the offset it moves to, if it does."""

    tables: Iterable[str]
    after: Offset | None
    at: float = field(default_factory=time.monotonic)


class ExactMySQLReplicator:
    """Applies one stream's changes to `database` through `connection`.

    `offset` is the stream's stored offset; `limit` bounds a statement's event bytes.
    Raises `ApplyConflict` where the replica's rows are not what the source's were.
    """

    def __init__(
        self,
        connection: Any,
        database: str,
        offset: Offset,
        routes: Routes,
        *,
        source_database: str,
        limit: int,
        reconciler: Reconciler,
        rows_v2: bool = False,
        apart: SourcePosition | None = None,
        virtual: VirtualColumns | None = None,
    ) -> None:
        """Transactions that begin up to `apart` are applied a table at a time: see `conflicts`.

        `virtual`: of a replica whose binlog tells wrong what events leave out of them.
        """
        self._connection = connection
        self._database = database
        self._source_database = source_database
        self._routes = routes
        self._limit = limit
        self._rows_v2 = rows_v2
        self._apart = apart
        self._reconciler = reconciler
        self._virtual = virtual
        self._flight: InFlight[_Sent] = InFlight(connection)
        self._delivery = Delivery(connection)
        self.committed = offset
        self._gtids = GtidSet.parse(offset.gtid)
        self._sent = offset
        """The offset as it is to be once everything on its way is committed."""
        self._here = offset.position
        self._last: Commit | None = None
        """The last transaction taken behind `_sent`."""
        self._batch = Segment()
        self._batch_second: int | None = None
        self._open: list[Item] = []
        self._open_bytes = 0
        self._explicit = False
        self.dirty: set[str] = set()
        """Tables whose copy's window cannot be reconciled by key: copy them again."""
        self.touched: set[str] = set()
        self.applied = Applied()

    @property
    def position(self) -> SourcePosition:
        """Up to where changes are committed on the replica."""
        return self.committed.position

    @property
    def reached(self) -> SourcePosition:
        """Up to where changes have been taken; the next transaction starts here."""
        return self._here

    @property
    def idle(self) -> bool:
        """Is nothing waiting to be applied?"""
        waiting = self._batch or self._flight or self.has_open_rows
        return not waiting and self._here == self.position

    def describe(self, format_description: bytes) -> None:
        """Tell the session which binlog format its events have."""
        self.flush()
        for statement in announcement(format_description, mariadb=not self._rows_v2):
            self._execute(statement)

    def enter_file(self, file: str, created: int) -> None:
        """What is taken from here on stands in this binlog file, which was begun then."""
        self.flush()
        known = self.committed.binlog_created
        if known and file == self.committed.position.file:
            require_created(file, known, created)
        self.committed = self._sent = replace(self.committed, binlog_created=created)

    def executed(self, gtid: str) -> None:
        """The source executed this, too, up to the position that was taken last."""
        self._gtids.add(gtid)

    def apply(self, change: Change) -> None:
        """Take one change; statements (DDL) are the caller's business."""
        if isinstance(change, Rows):
            self._rows(change)
        elif isinstance(change, Commit):
            self._commit(change)
        elif isinstance(change, Moved):
            self._here = _source(change.position)
        elif isinstance(change, Rollback):
            self._roll_back(_source(change.position))
        elif not isinstance(change, Begin):
            raise TypeError(f"{type(change).__name__} is not a row change")

    def _rows(self, rows: Rows) -> None:
        if rows.table.database != self._source_database:
            return
        route = self._routes.route(rows.table.table, self._here)
        if route.via is Via.SKIP:
            return
        for way in route.ways:
            self._open.append(Item(self._completing(way, rows), rows.table, rows.event))
        self._open_bytes += len(rows.event)
        if self._open_bytes > self._limit:
            self._send_open()

    def _completing(self, way: Route, rows: Rows) -> Route:
        """The way, or that of an event that leaves virtual columns out."""
        virtual = self._virtual
        if virtual is None or way.via is not Via.PASS:
            return way
        lacks = virtual.lacks(way.target, rows.table, rows.event)
        return Route(Via.COMPLETE, way.target) if lacks else way

    def _commit(self, commit: Commit) -> None:
        self.applied.transactions += 1
        if self._explicit or (self._open and self._is_apart) or not is_one_statement(self._open):
            self._commit_explicit(commit)
            return
        second = commit.timestamp_us // 1_000_000
        if self._batch and (second != self._batch_second or not self._batch_takes_open()):
            self.cut()
        self._move_open_into_batch(second)
        self._reach(commit)
        if self._batch.size > self._limit:
            self.cut()

    def take_plain(self, reader: TransactionReader, events: list[bytes], at: int) -> int:
        """Take whole plain transactions from `events[at]` on; the index behind them.

        It does what `reader.feed` and `apply` would do with these events one by one.
        """
        if gather is None or self.has_open_rows or not reader.between or self._is_apart:
            return at
        batch = self._batch
        run = gather(
            events,
            at,
            self._ways(reader),
            batch.flags,
            -1 if self._batch_second is None else self._batch_second,
            self._limit - batch.size,
        )
        if run.transactions:
            self._take_run(reader, run)
        return run.end

    def _ways(self, reader: TransactionReader) -> Ways:
        return Ways(
            reader,
            self._routes,
            self._source_database,
            self._database,
            self._here,
            self._batch,
            self._virtual,
        )

    def _take_run(self, reader: TransactionReader, run: Run) -> None:
        ways = [(way.target, way.table_map) for way in run.ways]
        self._batch.extend(self._database, ways, run.rows, run.flags)
        self._batch_second = run.second
        self.touched.update(target for target, _ in ways)
        self.applied.transactions += run.transactions
        self.applied.row_events += len(run.rows)
        self.applied.bytes += run.size
        reader.feed(run.gtid)
        commit = reader.feed(run.commit)
        if not isinstance(commit, Commit):
            raise AssertionError("a run ends with a commit")
        self._reach(commit)
        if self._batch.size > self._limit:
            self.cut()

    def _reach(self, commit: Commit) -> None:
        self._here = _source(commit.position)
        self._gtids.add(commit.gtid)
        self._last = commit

    def _offset_here(self) -> Offset:
        """The offset row as it is to be behind everything taken so far."""
        offset, last = replace(self._sent, position=self._here, gtid=str(self._gtids)), self._last
        if last is None:
            return offset
        when = datetime.fromtimestamp(last.timestamp_us / 1e6, UTC).replace(tzinfo=None)
        return replace(offset, event_timestamp=when)

    def _batch_takes_open(self) -> bool:
        return all(self._batch.takes(i.route.target, i.table_map, i.event) for i in self._open)

    def _move_open_into_batch(self, second: int) -> None:
        for item in self._open:
            self._batch.add(self._database, item.route.target, item.table_map, item.event)
        self._batch_second = second
        self._count_open()

    def _count_open(self) -> None:
        self.applied.row_events += len(self._open)
        self.applied.bytes += self._open_bytes
        self.touched.update(item.route.target for item in self._open)
        self._open.clear()
        self._open_bytes = 0

    def flush(self) -> None:
        """Commit the batch, and the position reached; on return they are committed."""
        self.cut()
        self.settle()

    def cut(self) -> None:
        """Send the batch, and the position reached, in one statement; its answer comes later."""
        if self._explicit or self._here == self._sent.position:
            return
        after = self._offset_here()
        self._send(self._batch, after)
        self._batch = Segment()
        self._sent, self._last = after, None

    def keep_busy(self) -> None:
        """Send what there is if the replica has nothing to do, or soon will not."""
        while self._flight.answered():
            self._receive()
        if not self._flight or (
            len(self._flight) < _ON_THEIR_WAY and self._batch.size >= _WORTH_SENDING
        ):
            self.cut()

    def settle_one(self) -> bool:
        """Send what there is and await one answer; False where nothing was on its way."""
        self.cut()
        if self._flight:
            self._receive()
            return True
        return False

    def settle(self) -> None:
        """Await the answers to everything that was sent."""
        while self._flight:
            self._receive()

    def _receive(self) -> None:
        sent = self._flight.oldest
        try:
            self._flight.receive()
        except (pymysql.MySQLError, OSError) as error:
            raise self._failure(error, sent.tables) from None
        reach("apply.answered")
        BATCH_SECONDS.observe(time.monotonic() - sent.at)
        if sent.after is not None:
            self.committed = sent.after

    def _committed(self, offset: Offset) -> None:
        self.committed = self._sent = offset
        self._gtids = GtidSet.parse(offset.gtid)
        self._here = offset.position
        self._last = None

    def _send(self, segment: Segment, after: Offset | None) -> None:
        if after is None:
            events = segment.events()
        else:
            moment = after.event_timestamp or utc_now()
            timestamp = int(moment.replace(tzinfo=UTC).timestamp())
            events = segment.events(
                offset_map(self._database, timestamp, after.server_id),
                offset_rows(
                    self._sent, after, timestamp=timestamp, now=utc_now(), rows_v2=self._rows_v2
                ),
            )
        self.applied.statements += 1
        BATCH_BYTES.observe(segment.size)
        try:
            if self._delivery.wants_quiet(events):
                self.settle()
                packet_limit(self._connection)  # asked while nothing is on its way
            commands = self._delivery.commands(events)
            require_fits(self._connection, commands, segment.tables)
            while len(self._flight) >= (1 if self._explicit else _ON_THEIR_WAY):
                self._receive()
            moves = None if self._explicit else after  # else only COMMIT moves it
            reach("apply.before_send")
            self._flight.send(commands, _Sent(segment.tables, moves))
            reach("apply.sent")
        except (pymysql.MySQLError, OSError) as error:
            raise self._failure(error, segment.tables) from None

    def _send_open(self) -> None:
        """Send what the open transaction holds so far, inside a transaction of our own."""
        self._begin()
        for part in runs(self._open):
            if isinstance(part, list):
                for some in ([item] for item in part) if self._is_apart else (part,):
                    for segment in segments(self._database, some):
                        self._send(segment, None)
            elif part.route.via is Via.COMPLETE:
                self._complete(part)
            else:
                self._reconcile(part)
        self._count_open()

    def _begin(self) -> None:
        if not self._explicit:
            self.flush()
            self._execute(b"BEGIN")
            self._explicit = True
            reach("transaction.begun")

    def _reconcile(self, item: Item) -> None:
        self.settle()
        target = item.route.target
        if target in self.dirty:
            return
        try:
            outcome = self._reconciler.apply(
                target, item.table_map, item.event, settled=item.route.settled
            )
        except (pymysql.MySQLError, OSError) as error:
            raise self._failure(error, (target,)) from None
        if outcome is Outcome.COPY_AGAIN or (outcome is Outcome.NOTED and item.route.aside):
            self.dirty.add(target)
        elif outcome is Outcome.NOTED:
            self._routes.hold(item.table_map.table)

    def _complete(self, item: Item) -> None:
        """Send the event with the virtual columns that it leaves out."""
        assert self._virtual is not None
        self.settle()
        target = item.route.target
        try:
            for event in self._virtual.completed(target, item.table_map, item.event):
                segment = Segment()
                segment.add(self._database, target, item.table_map, event)
                self._send(segment, None)
                self.settle()
        except (pymysql.MySQLError, OSError) as error:
            raise self._failure(error, (target,)) from None

    def _commit_explicit(self, commit: Commit) -> None:
        self._send_open()
        self._reach(commit)
        after = self._offset_here()
        self._send(Segment(), after)
        reach("transaction.before_commit")
        self._execute(b"COMMIT")
        reach("transaction.committed")
        self._explicit = False
        self._committed(after)

    def _roll_back(self, position: SourcePosition) -> None:
        if self._explicit:
            self._execute(b"ROLLBACK")
            self._explicit = False
        self._open.clear()
        self._open_bytes = 0
        self._here = position

    def run_inside_transaction(self, statement: str) -> None:
        """Execute SAVEPOINT or ROLLBACK TO behind what has been sent of the open transaction."""
        self._send_open()
        self._execute(statement.encode())

    def moved_to(self, offset: Offset, tables: Iterable[str] = ()) -> None:
        """The caller moved the offset row, behind a DDL of `tables`; nothing may be waiting."""
        if not self.idle:
            raise AssertionError("the offset was moved over rows that wait")
        self._committed(offset)
        if self._virtual is not None:
            self._virtual.forget(tables)

    @property
    def _is_apart(self) -> bool:
        return self._apart is not None and self._here <= self._apart

    @property
    def has_open_rows(self) -> bool:
        """Has a transaction brought rows without having ended?"""
        return bool(self._open) or self._explicit

    @property
    def has_begun(self) -> bool:
        """Does the connection stand inside a transaction? Whoever begins another commits half."""
        return self._explicit

    def _execute(self, statement: bytes) -> None:
        self.settle()
        try:
            execute_bytes(self._connection, statement)
        except (pymysql.MySQLError, OSError) as error:
            raise self._failure(error, ()) from None

    def _failure(self, error: BaseException, tables: Iterable[str]) -> Exception:
        return refusal(error, self.position, tables)


def _source(position: object) -> SourcePosition:
    if not isinstance(position, SourcePosition):
        raise Halt("a position of the replica was applied to the replica", hint="Report this.")
    return position

"""ExactMySQLReplicator: row events in, the same rows on the replica, offset included.

Left: changes of one source binlog in commit order. Right: `BINLOG` statements on
one connection to the replica, whose offset row moves in the same transaction. No
row is decoded: the server that applies the events is the one that knows them.

Small transactions gather in a batch that is one autocommitted statement. A
transaction larger than a batch is sent piece by piece between BEGIN and COMMIT.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pymysql

from config.errors import ApplyConflict, Halt, classify
from replicator.batch import Segment, binlog_statement
from replicator.binlog.events import TableMap, format_description_without_checksums
from replicator.binlog.position import SourcePosition
from replicator.binlog.transactions import Begin, Change, Commit, Moved, Rollback, Rows
from replicator.offset_row import table_map as offset_map
from replicator.offset_row import update_rows as offset_rows
from replicator.reconcile import Reconciler
from replicator.routes import Route, Routes, Via
from replicator.tracking import Offset, execute_bytes, utc_now

_DUPLICATE_KEY, _ROW_NOT_FOUND, _MISMATCH = 1062, 1032, 1105
_CONFLICTS = {
    _DUPLICATE_KEY: "a row that the source inserted is already there",
    _ROW_NOT_FOUND: "a row that the source changed is not there",
    _MISMATCH: "the table's columns do not fit the source's (the replica's error log says how)",
}


@dataclass(slots=True)
class Applied:
    """What has been applied since last asked; counts only."""

    transactions: int = 0
    statements: int = 0
    row_events: int = 0
    bytes: int = 0


@dataclass(slots=True)
class _Item:
    route: Route
    table_map: TableMap
    event: bytes


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
    ) -> None:
        self._connection = connection
        self._database = database
        self._source_database = source_database
        self._routes = routes
        self._limit = limit
        self._rows_v2 = rows_v2
        self._reconciler = reconciler
        self.committed = offset
        self._here = offset.position
        self._last: Commit | None = None
        """The last transaction taken behind `committed`."""
        self._batch = Segment()
        self._batch_second: int | None = None
        self._open: list[_Item] = []
        self._open_bytes = 0
        self._explicit = False
        self.dirty: set[str] = set()
        """Keyless tables that changed inside their copy's window: copy them again."""
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
        return not self._batch and not self.has_open_rows and self._here == self.position

    def describe(self, format_description: bytes) -> None:
        """Tell the session which binlog format its events have."""
        self.flush()
        self._execute(binlog_statement(format_description_without_checksums(format_description)))

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
        self._open.append(_Item(route, rows.table, rows.event))
        self._open_bytes += len(rows.event)
        if self._open_bytes > self._limit:
            self._send_open()

    def _commit(self, commit: Commit) -> None:
        self.applied.transactions += 1
        if self._explicit or not _is_one_statement(self._open):
            self._commit_explicit(commit)
            return
        second = commit.timestamp_us // 1_000_000
        if self._batch and (second != self._batch_second or not self._batch_takes_open()):
            self.flush()
        self._move_open_into_batch(second)
        self._reach(commit)
        if self._batch.size > self._limit:
            self.flush()

    def _reach(self, commit: Commit) -> None:
        self._here = _source(commit.position)
        self._last = commit

    def _offset_here(self) -> Offset:
        """The offset row as it is to be behind everything taken so far."""
        offset, last = self.committed.at(self._here), self._last
        if last is None:
            return offset
        when = datetime.fromtimestamp(last.timestamp_us / 1e6, UTC).replace(tzinfo=None)
        return replace(offset, gtid=last.gtid or offset.gtid, event_timestamp=when)

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
        """Commit the batch, and the position reached, in one statement."""
        if self._explicit or self._here == self.position:
            return
        after = self._offset_here()
        self._send(self._batch, after)
        self._batch = Segment()
        self._committed(after)

    def _committed(self, offset: Offset) -> None:
        self.committed = offset
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
                    self.committed, after, timestamp=timestamp, now=utc_now(), rows_v2=self._rows_v2
                ),
            )
        self.applied.statements += 1
        self._execute(binlog_statement(events), segment.tables)

    def _send_open(self) -> None:
        """Send what the open transaction holds so far, inside a transaction of our own."""
        self._begin()
        for part in _runs(self._open):
            if isinstance(part, list):
                for segment in _segments(self._database, part):
                    self._send(segment, None)
            else:
                self._reconcile(part)
        self._count_open()

    def _begin(self) -> None:
        if not self._explicit:
            self.flush()
            self._execute(b"BEGIN")
            self._explicit = True

    def _reconcile(self, item: _Item) -> None:
        target = item.route.target
        if target not in self.dirty and not self._reconciler.apply(
            target, item.table_map, item.event
        ):
            self.dirty.add(target)

    def _commit_explicit(self, commit: Commit) -> None:
        self._send_open()
        self._reach(commit)
        after = self._offset_here()
        self._send(Segment(), after)
        self._execute(b"COMMIT")
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

    def moved_to(self, offset: Offset) -> None:
        """The caller moved the offset row itself (behind a DDL); nothing may be waiting."""
        if not self.idle:
            raise AssertionError("the offset was moved over rows that wait")
        self._committed(offset)

    @property
    def has_open_rows(self) -> bool:
        """Has a transaction brought rows without having ended?"""
        return bool(self._open) or self._explicit

    @property
    def has_begun(self) -> bool:
        """Does the connection stand inside a transaction? Whoever begins another commits half."""
        return self._explicit

    def _execute(self, statement: bytes, tables: Iterable[str] = ()) -> None:
        try:
            execute_bytes(self._connection, statement)
        except (pymysql.MySQLError, OSError) as error:
            raise self._failure(error, tables) from None

    def _failure(self, error: BaseException, tables: Iterable[str]) -> Exception:
        code = error.args[0] if error.args else None
        if isinstance(error, pymysql.MySQLError) and code in _CONFLICTS:
            names = ", ".join(sorted(tables)) or "etl_binlog_offset"
            return ApplyConflict(
                f"the replica refused rows behind {self.position} of {names} (error {code}):"
                f" {_CONFLICTS[int(code)]}",
                hint=f"Someone else wrote on the replica. replicator resync {names}"
                if names != "etl_binlog_offset"
                else "Another process moved the offset: make sure that one replicator runs.",
            )
        return classify(error, server="replica")


def _source(position: object) -> SourcePosition:
    if not isinstance(position, SourcePosition):
        raise Halt("a position of the replica was applied to the replica", hint="Report this.")
    return position


def _runs(items: list[_Item]) -> Iterator[list[_Item] | _Item]:
    """Neighbours that pass as they are come as lists, the others one by one."""
    run: list[_Item] = []
    for item in items:
        if item.route.via is Via.PASS:
            run.append(item)
            continue
        if run:
            yield run
            run = []
        yield item
    if run:
        yield run


def _is_one_statement(items: list[_Item]) -> bool:
    """Can one statement carry a transaction's rows, as they are?"""
    if any(item.route.via is Via.RECONCILE for item in items):
        return False
    segment = Segment()
    for item in items if len(items) > 1 else ():
        if not segment.takes(item.route.target, item.table_map, item.event):
            return False
        segment.note(item.route.target, item.table_map, item.event)
    return True


def _segments(database: str, items: list[_Item]) -> Iterator[Segment]:
    """As few statements as carry these items in their order."""
    segment = Segment()
    for item in items:
        if not segment.takes(item.route.target, item.table_map, item.event):
            yield segment
            segment = Segment()
        segment.add(database, item.route.target, item.table_map, item.event)
    if segment:
        yield segment

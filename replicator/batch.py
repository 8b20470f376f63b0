"""Coalesce many source transactions into few `BINLOG` statements.

Left: rows events with the table they go to. Right: `Segment`s, each the content
of one statement: every table map once, all rows in source order, and the end of the
statement on the last event only. Pure.

Neighbouring inserts into one table become one event: a server prepares and cleans up for
each event, and executes an event's rows one by one all the same. Updates and deletes keep
their events: a server may look up all rows of one event at once (MySQL's hash scan), and two
that change the same keyless row after each other must not be looked up together.

A segment holds one kind of key checking (the events' flags) and one table id per
table, because a server applies a statement under one set of flags and maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from replicator.binlog.events import HEADER_LENGTH, STMT_END_FLAG, TableMap, rows_flags
from replicator.routes import Route, Via

_KEY_FLAGS = 0xFFFF & ~STMT_END_FLAG
_MERGED_BYTES = 256 << 10
"""Bytes up to which inserts are merged into one event."""
_WRITE_V1, _WRITE_V2 = 23, 30
_SHORT_WIDTHS = 250
"""Columns up to which a table's width is one byte; wider ones are left as they are."""


def rewritten_map(table_map: TableMap, database: str, table: str) -> bytes:
    """The TABLE_MAP event under another database and table name."""
    raw = table_map.raw
    first, end = table_map.database_span[0], table_map.table_span[1]
    db, name = database.encode(), table.encode()
    names = bytes([len(db)]) + db + b"\0" + bytes([len(name)]) + name + b"\0"
    length = len(raw) - (end - first) + len(names)
    return b"".join((raw[:9], length.to_bytes(4, "little"), raw[13:first], names, raw[end:]))


class Segment:
    """What one `BINLOG` statement will carry."""

    def __init__(self) -> None:
        self._flags: int | None = None
        self._maps: dict[int, bytes] = {}
        self._ids: dict[str, int] = {}
        self._rows: list[bytes] = []
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._rows)

    @property
    def tables(self) -> frozenset[str]:
        """The tables that it changes, by target name."""
        return frozenset(self._ids)

    def takes(self, target: str, table_map: TableMap, event: bytes) -> bool:
        """Can this rows event join the statement?"""
        if self._flags is None:
            return True
        same = self.joins(target, table_map.table_id)
        return same and self._flags == rows_flags(event) & _KEY_FLAGS

    def joins(self, target: str, table_id: int) -> bool:
        """Does the statement know the table under this id and no other, or neither of them?"""
        known = self._ids.get(target)
        return table_id not in self._maps if known is None else known == table_id

    def cost(self, database: str, target: str, table_map: TableMap) -> int:
        """Bytes that the table's map adds, when rows of it come in."""
        return 0 if target in self._ids else len(rewritten_map(table_map, database, target))

    @property
    def flags(self) -> int:
        """How all its rows have their keys checked; -1 while it has none."""
        return -1 if self._flags is None else self._flags

    def note(self, target: str, table_map: TableMap, event: bytes) -> None:
        """Take it as far as `takes` asks, to try whether rows go together."""
        self._ids[target] = table_map.table_id
        self._maps[table_map.table_id] = b""
        self._flags = rows_flags(event) & _KEY_FLAGS

    def add(self, database: str, target: str, table_map: TableMap, event: bytes) -> None:
        """Append a rows event, and its table map where it is the table's first."""
        self._introduce(database, target, table_map)
        flags = rows_flags(event)
        self._flags = flags & _KEY_FLAGS
        self._rows.append(_with_rows_flags(event, self._flags) if flags & STMT_END_FLAG else event)
        self.size += len(event)

    def _introduce(self, database: str, target: str, table_map: TableMap) -> None:
        if target not in self._ids:
            rewritten = rewritten_map(table_map, database, target)
            self._ids[target] = table_map.table_id
            self._maps[table_map.table_id] = rewritten
            self.size += len(rewritten)

    def extend(
        self, database: str, tables: Iterable[tuple[str, TableMap]], rows: list[bytes], flags: int
    ) -> None:
        """Append rows events of these tables that `takes` would take, none ending the statement."""
        for target, table_map in tables:
            self._introduce(database, target, table_map)
        if rows:
            self._flags = flags
            self._rows += rows
            self.size += sum(map(len, rows))

    def events(self, closing_map: bytes = b"", closing_rows: bytes = b"") -> bytes:
        """The statement's events; a closing table's change ends it where one is given."""
        rows = merged(self._rows, _MERGED_BYTES)
        if not closing_rows and rows:
            last = rows[-1]
            rows = [*rows[:-1], _with_rows_flags(last, rows_flags(last) | STMT_END_FLAG)]
        return b"".join((*self._maps.values(), closing_map, *rows, closing_rows))


@dataclass(slots=True)
class Item:
    """A rows event of a transaction that is still open, and where it goes."""

    route: Route
    table_map: TableMap
    event: bytes


def runs(items: list[Item]) -> Iterator[list[Item] | Item]:
    """Neighbours that pass as they are come as lists, the others one by one."""
    run: list[Item] = []
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


def is_one_statement(items: list[Item]) -> bool:
    """Can one statement carry a transaction's rows, as they are?"""
    if any(item.route.via is not Via.PASS for item in items):
        return False
    segment = Segment()
    for item in items if len(items) > 1 else ():
        if not segment.takes(item.route.target, item.table_map, item.event):
            return False
        segment.note(item.route.target, item.table_map, item.event)
    return True


def segments(database: str, items: list[Item]) -> Iterator[Segment]:
    """As few statements as carry these items in their order."""
    segment = Segment()
    for item in items:
        if not segment.takes(item.route.target, item.table_map, item.event):
            yield segment
            segment = Segment()
        segment.add(database, item.route.target, item.table_map, item.event)
    if segment:
        yield segment


def merged_python(events: list[bytes], limit: int) -> list[bytes]:
    """The same rows in fewer events: neighbouring inserts into one table are one event.

    None grows beyond `limit` bytes by it. All are without the statement's end.
    """
    left: list[bytes] = []
    run: list[bytes] = []
    rows_at = size = 0
    for event in events:
        head = event[HEADER_LENGTH:rows_at]
        if (
            run
            and rows_at
            and event[4] == run[0][4]
            and head == run[0][HEADER_LENGTH:rows_at]
            and size + len(event) - rows_at <= limit
        ):
            run.append(event)
            size += len(event) - rows_at
            continue
        if run:
            left.append(_joined(run, rows_at, size))
        run, rows_at, size = [event], _inserted_rows_at(event), len(event)
    if run:
        left.append(_joined(run, rows_at, size))
    return left


def _joined(run: list[bytes], rows_at: int, size: int) -> bytes:
    first, *others = run
    if not others:
        return first
    head = (first[:9], size.to_bytes(4, "little"), first[13:])
    return b"".join((*head, *(other[rows_at:] for other in others)))


def _inserted_rows_at(event: bytes) -> int:
    """Where the rows of a WRITE_ROWS event begin; 0 where that cannot be said."""
    at = HEADER_LENGTH + 8
    if event[4] not in {_WRITE_V1, _WRITE_V2} or len(event) < at + 2:
        return 0
    if event[4] == _WRITE_V2:
        at += int.from_bytes(event[at : at + 2], "little")
    if len(event) <= at or event[at] > _SHORT_WIDTHS:
        return 0
    at += 1 + (event[at] + 7) // 8
    return at if at <= len(event) else 0


merged: Callable[[list[bytes], int], list[bytes]]
try:
    from replicator import gathering

    merged = gathering.merged
except ImportError:
    merged = merged_python


def _with_rows_flags(event: bytes, flags: int) -> bytes:
    at = HEADER_LENGTH + 6
    return event[:at] + flags.to_bytes(2, "little") + event[at + 2 :]

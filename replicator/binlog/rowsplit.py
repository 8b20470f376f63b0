"""Cut rows events into the images of single rows, and images into stored values.

From the left comes a rows event (header and body, no checksum, not compressed)
with its table map; to the right go byte strings, cut by the lengths that types
and metadata give. Nothing is decoded, and no length is trusted before it is
held against the event's end.

Formats: MariaDB `sql/log_event_old.cc`, `sql/rpl_utility.cc`; MySQL `rows_event.h`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache

from config.errors import UnknownEvent
from replicator.binlog.events import (
    HEADER_LENGTH,
    UPDATE_EVENTS,
    EventType,
    TableMap,
    read_lenenc,
    real_type,
)
from replicator.binlog.rowvalues import decimal_size
from replicator.binlog.schema import char_octets

Measure = Callable[[bytes, int], int]
"""(event, offset of a value) → offset behind it; not checked against the event's end."""

WRITE_EVENTS = frozenset({EventType.WRITE_ROWS_V1, EventType.WRITE_ROWS})
DELETE_EVENTS = frozenset({EventType.DELETE_ROWS_V1, EventType.DELETE_ROWS})
_SPLITTABLE = WRITE_EVENTS | UPDATE_EVENTS | DELETE_EVENTS
_MALFORMED = (
    "Check the binlog with mariadb-binlog/mysqlbinlog --verify-binlog-checksum; if it is sound,"
    " copy the table again: replicator resync it."
)


def split_rows(event: bytes, table_map: TableMap) -> list[tuple[bytes | None, bytes | None]]:
    """(before, after) image of each row of a rows event, null bitmaps included.

    The event is a full-image one of version 1 or 2, not compressed, without checksum. Raises
    `UnknownEvent` for any other, and where the event's bytes do not add up.
    """
    return RowSplitter.of(table_map).split(event)


class RowSplitter:
    """Finds the borders of rows and values in a table's rows events by its types alone."""

    def __init__(self, table: str, types: bytes, metadata: tuple[int, ...]) -> None:
        self.table = table
        self._measures = tuple(
            _measure(code, meta, table) for code, meta in zip(types, metadata, strict=True)
        )
        self.width = len(self._measures)
        self._bitmap_size = (self.width + 7) // 8

    @classmethod
    def of(cls, table_map: TableMap) -> RowSplitter:
        """The splitter for a table map; those of the last tables are kept."""
        return _splitter(table_map.table, table_map.column_types, table_map.column_metadata)

    def split(self, event: bytes) -> list[tuple[bytes | None, bytes | None]]:
        """As `split_rows`."""
        kind, at = event[4] if len(event) > HEADER_LENGTH else 0, self._rows_at(event)
        rows: list[tuple[bytes | None, bytes | None]] = []
        while at < len(event):
            start, at = at, self._row_end(event, at)
            image = event[start:at]
            if kind in UPDATE_EVENTS:
                start, at = at, self._row_end(event, at)
                rows.append((image, event[start:at]))
            elif kind in WRITE_EVENTS:
                rows.append((None, image))
            else:
                rows.append((image, None))
        return rows

    def values(self, image: bytes) -> list[bytes | None]:
        """Each column's stored bytes of one image, lengths and all; None for NULL."""
        found: list[bytes | None] = []
        end, at, nulls = len(image), self._bitmap_size, self._nulls(image, 0)
        for measure in self._measures:
            if nulls & 1:
                found.append(None)
            else:
                start, at = at, self._value_end(measure, image, at, end)
                found.append(image[start:at])
            nulls >>= 1
        if at != end:
            raise self._malformed("an image goes on behind its last column")
        return found

    def _rows_at(self, event: bytes) -> int:
        """Offset of the first row's image, once the event's own header is found to be sound."""
        if len(event) < HEADER_LENGTH + 9 or event[4] not in _SPLITTABLE:
            raise self._malformed("it is too short, or of a kind that cannot be split")
        at = HEADER_LENGTH + 8
        if event[4] >= EventType.WRITE_ROWS:
            at += max(2, int.from_bytes(event[at : at + 2], "little"))
        if at >= len(event):
            raise self._malformed("its header is cut short")
        width, at = read_lenenc(event, at)
        if width != self.width:
            raise self._malformed(f"it has {width} columns where its table has {self.width}")
        for _ in range(2 if event[4] in UPDATE_EVENTS else 1):
            self._require_every_column(event[at : at + self._bitmap_size])
            at += self._bitmap_size
        return at

    def _require_every_column(self, bitmap: bytes) -> None:
        wanted = (1 << self.width) - 1
        if int.from_bytes(bitmap, "little") & wanted != wanted:
            raise UnknownEvent(
                f"a rows event of table {self.table} leaves out columns",
                "On the source: SET GLOBAL binlog_row_image = 'FULL'; then replicator resync"
                " the table.",
            )

    def _row_end(self, event: bytes, at: int) -> int:
        end, nulls = len(event), self._nulls(event, at)
        at += self._bitmap_size
        for measure in self._measures:
            if not nulls & 1:
                at = self._value_end(measure, event, at, end)
            nulls >>= 1
        return at

    def _value_end(self, measure: Measure, data: bytes, at: int, end: int) -> int:
        try:
            behind = measure(data, at)
        except (IndexError, struct.error):
            behind = end + 1
        if behind > end:
            raise self._malformed("a value goes beyond its end")
        return behind

    def _nulls(self, data: bytes, at: int) -> int:
        bitmap = data[at : at + self._bitmap_size]
        if len(bitmap) < self._bitmap_size:
            raise self._malformed("a row is cut short")
        return int.from_bytes(bitmap, "little")

    def _malformed(self, how: str) -> UnknownEvent:
        return UnknownEvent(f"malformed rows event of table {self.table}: {how}", _MALFORMED)


@lru_cache(maxsize=512)
def _splitter(table: str, types: bytes, metadata: tuple[int, ...]) -> RowSplitter:
    return RowSplitter(table, types, metadata)


_FIXED = {
    1: 1, 2: 2, 9: 3, 3: 4, 8: 8, 4: 4, 5: 8, 13: 1, 10: 3, 14: 3,
    7: 4, 11: 3, 12: 8,  # TIMESTAMP, TIME, DATETIME of before MySQL 5.6, without fractions
}  # fmt: skip
_FRACTIONAL = {17: 4, 18: 5, 19: 3}


def _measure(code: int, meta: int, table: str) -> Measure:
    """How to find the end of a value of a column's type."""
    code = real_type(code, meta)
    if code in _FIXED:
        return _skip(_FIXED[code])
    if code in _FRACTIONAL:
        return _skip(_FRACTIONAL[code] + (meta + 1) // 2)
    if code == 16:
        return _skip((meta >> 8) + ((meta & 0xFF) > 0))
    if code == 246:
        return _skip(decimal_size(meta & 0xFF, meta >> 8))
    if code in (247, 248):
        return _skip(meta >> 8)
    if code in (15, 141, 253):
        return _skip_prefixed(1 if meta < 256 else 2)
    if code == 254:
        return _skip_prefixed(1 if char_octets(meta) < 256 else 2)
    if code in (252, 140, 242, 245, 255) and 1 <= meta <= 4:
        return _skip_prefixed(meta)
    raise UnknownEvent(
        f"a column of table {table} has type {code}, which is not known",
        "Exclude the table in tables.toml, or report the type.",
    )


def _skip(size: int) -> Measure:
    return lambda _data, at: at + size


def _skip_prefixed(size: int) -> Measure:
    if size == 1:
        return lambda data, at: at + 1 + data[at]
    if size == 3:
        return lambda data, at: at + 3 + data[at] + (data[at + 1] << 8) + (data[at + 2] << 16)
    unpack = struct.Struct("<H" if size == 2 else "<I").unpack_from

    def behind(data: bytes, at: int) -> int:
        length: int = unpack(data, at)[0]
        return at + size + length

    return behind

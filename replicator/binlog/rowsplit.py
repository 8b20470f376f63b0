"""Cut rows events into the images of single rows, and images into stored values.

From the left comes a rows event (header and body, no checksum, not compressed)
with its table map; to the right go byte strings, cut by the lengths that types
and metadata give. Nothing is decoded, and no length is trusted before it is
held against the event's end.

Formats: MariaDB `sql/log_event_old.cc`, `sql/rpl_utility.cc`; MySQL `rows_event.h`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from config.errors import UnknownEvent
from replicator.binlog.decimals import decimal_size
from replicator.binlog.events import (
    HEADER_LENGTH,
    STMT_END_FLAG,
    UPDATE_EVENTS,
    EventType,
    TableMap,
    read_lenenc,
    real_type,
    rows_flags,
)
from replicator.binlog.schema import char_octets

Measure = Callable[[bytes, int], int]
"""(event, offset of a value) → offset behind it; not checked against the event's end."""

WRITE_EVENTS = frozenset({EventType.WRITE_ROWS_V1, EventType.WRITE_ROWS})
DELETE_EVENTS = frozenset({EventType.DELETE_ROWS_V1, EventType.DELETE_ROWS})
_TWO_IMAGES = UPDATE_EVENTS | {EventType.PARTIAL_UPDATE_ROWS}
_SPLITTABLE = WRITE_EVENTS | _TWO_IMAGES | DELETE_EVENTS
_JSON = 245
_MOST_BITMAPS = 64
"""Sets of columns that a table's events may hold, kept for the next event."""
_PARTIAL_JSON = 1
_MALFORMED = (
    "Check the binlog with mariadb-binlog/mysqlbinlog --verify-binlog-checksum; if it is sound,"
    " copy the table again: replicator resync it."
)

Image = bytes
"""A bitmap of NULLs, a bit for each column that is there, and the values that are not NULL."""
Values = dict[int, bytes | None]
"""Stored bytes by column, lengths and all; None for NULL. Other columns are not there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a rows event: its images, and the bytes of both in the event as they stand."""

    before: Image | None
    after: Image | None
    raw: bytes
    patches: bool = False
    """Does the after image hold changes of JSON values instead of the values?"""


@dataclass(frozen=True, slots=True)
class CutEvent:
    """A rows event in pieces: bitmaps of the columns that its images hold, bit 0 the first."""

    before_columns: int
    after_columns: int
    rows: list[Row]
    head: bytes
    """The event up to its first row."""

    def alone(self, row: Row) -> bytes:
        """An event of this row only, which ends its statement."""
        event = self.head + row.raw
        flags = rows_flags(event) | STMT_END_FLAG
        length = len(event).to_bytes(4, "little")
        return b"".join((event[:9], length, event[13:25], flags.to_bytes(2, "little"), event[27:]))


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
        self._types = types
        self._measures = tuple(
            _measure(code, meta, table) for code, meta in zip(types, metadata, strict=True)
        )
        self.width = len(self._measures)
        self.every_column = (1 << self.width) - 1
        self._bitmap_size = (self.width + 7) // 8
        self._patch_bits_size = (types.count(_JSON) + 7) // 8
        self._present: dict[int, tuple[tuple[int, Measure], ...]] = {}

    @classmethod
    def of(cls, table_map: TableMap) -> RowSplitter:
        """The splitter for a table map; those of the last tables are kept."""
        return _splitter(table_map.table, table_map.column_types, table_map.column_metadata)

    def split(self, event: bytes) -> list[tuple[bytes | None, bytes | None]]:
        """As `split_rows`."""
        before, after, _at = self._bitmaps(event)
        if before & after != self.every_column:
            raise UnknownEvent(
                f"a rows event of table {self.table} leaves out columns",
                "On the source: SET GLOBAL binlog_row_image = 'FULL'; then replicator resync"
                " the table.",
            )
        return [(row.before, row.after) for row in self.cut(event).rows]

    def cut(self, event: bytes) -> CutEvent:
        """The images of each row, whatever columns they hold (`binlog_row_image`).

        Raises `UnknownEvent` where the event's bytes do not add up.
        """
        first, second, at = self._bitmaps(event)
        head, kind = event[:at], event[4]
        if kind in _TWO_IMAGES:
            return CutEvent(first, second, list(self._pairs(event, at, first, second)), head)
        images = list(self._images(event, at, first))
        if kind in WRITE_EVENTS:
            return CutEvent(0, first, [Row(None, image, image) for image in images], head)
        return CutEvent(first, 0, [Row(image, None, image) for image in images], head)

    def after_columns(self, event: bytes) -> int:
        """The columns of the images of what the rows are then; of a deletion, of what they were."""
        return self._bitmaps(event)[1]

    def retold(self, cut: CutEvent, after_columns: int, rows: Iterable[bytes]) -> bytes:
        """The event with other rows, whose after images hold these columns."""
        size = self._bitmap_size
        beyond = ((1 << 8 * size) - 1) & ~self.every_column  # as the servers do
        columns = (after_columns | beyond).to_bytes(size, "little")
        event = b"".join((cut.head[:-size], columns, *rows))
        return b"".join((event[:9], len(event).to_bytes(4, "little"), event[13:]))

    def head_of_after(self, row: Row, whole: Iterable[int]) -> bytes:
        """What stands before the row's after image; of `whole` columns it will hold no patches."""
        head = row.raw.removesuffix(row.after or b"")
        if not row.patches:
            return head
        size = self._patch_bits_size
        bits = int.from_bytes(head[-size:], "little")
        for column in whole:
            if self._types[column] == _JSON:
                bits &= ~(1 << self._types[:column].count(_JSON))
        return head[:-size] + bits.to_bytes(size, "little")

    def _images(self, event: bytes, at: int, columns: int) -> Iterator[Image]:
        while at < len(event):
            start, at = at, self._row_end(event, at, columns)
            if at == start:
                raise self._malformed("an image holds no column")
            yield event[start:at]

    def _pairs(self, event: bytes, at: int, before: int, after: int) -> Iterator[Row]:
        while at < len(event):
            start, middle = at, self._row_end(event, at, before)
            if middle == start:
                raise self._malformed("an image holds no column")
            image_at, patches = middle, False
            if event[4] == EventType.PARTIAL_UPDATE_ROWS:
                image_at, patches = self._patch_bits(event, middle)
            at = self._row_end(event, image_at, after)
            yield Row(event[start:middle], event[image_at:at], event[start:at], patches)

    def values(self, image: Image, columns: int | None = None) -> Values:
        """Each column's stored bytes of one image that holds `columns`, all of them by default."""
        columns = self.every_column if columns is None else columns
        found, at = self._values_to(image, columns, self.width)
        if at != len(image):
            raise self._malformed("an image goes on behind its last column")
        return found

    def some_values(self, image: Image, columns: int, wanted: Iterable[int]) -> Values:
        """The values of some columns alone; those that the image does not hold are missing."""
        wanted = frozenset(wanted)
        found, _ = self._values_to(image, columns, max(wanted, default=-1) + 1)
        return {column: value for column, value in found.items() if column in wanted}

    def _values_to(self, image: Image, columns: int, end_column: int) -> tuple[Values, int]:
        found: Values = {}
        end, at = len(image), self._null_bytes(columns)
        nulls = self._nulls(image, 0, columns)
        for column, measure in self._measures_of(columns):
            if column >= end_column:
                break
            if nulls & 1:
                found[column] = None
            else:
                start, at = at, self._value_end(measure, image, at, end)
                found[column] = image[start:at]
            nulls >>= 1
        return found, at

    def _bitmaps(self, event: bytes) -> tuple[int, int, int]:
        """The columns of the images, and where the first row begins."""
        at = self._rows_at(event)
        bitmaps = []
        for _ in range(2 if event[4] in _TWO_IMAGES else 1):
            bitmaps.append(int.from_bytes(event[at : at + self._bitmap_size], "little"))
            at += self._bitmap_size
        if at > len(event):
            raise self._malformed("its header is cut short")
        return bitmaps[0] & self.every_column, bitmaps[-1] & self.every_column, at

    def _rows_at(self, event: bytes) -> int:
        """Offset of the bitmaps, once the event's own header is found to be sound."""
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
        return at

    def _patch_bits(self, event: bytes, at: int) -> tuple[int, bool]:
        """Where an after image of PARTIAL_UPDATE_ROWS begins, and does it patch JSON values?"""
        if at >= len(event):
            raise self._malformed("a row is cut short")
        options, at = read_lenenc(event, at)
        if options & ~_PARTIAL_JSON:
            raise self._malformed(f"it has value options {options}, which are not known")
        return at + (self._patch_bits_size if options else 0), bool(options)

    def _measures_of(self, columns: int) -> tuple[tuple[int, Measure], ...]:
        found = self._present.get(columns)
        if found is None:
            if len(self._present) >= _MOST_BITMAPS:
                self._present.clear()
            found = self._present[columns] = tuple(
                (column, measure)
                for column, measure in enumerate(self._measures)
                if columns >> column & 1
            )
        return found

    def _row_end(self, event: bytes, at: int, columns: int) -> int:
        end, nulls = len(event), self._nulls(event, at, columns)
        at += self._null_bytes(columns)
        for _column, measure in self._measures_of(columns):
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

    def _null_bytes(self, columns: int) -> int:
        return (columns.bit_count() + 7) // 8

    def _nulls(self, data: bytes, at: int, columns: int) -> int:
        size = self._null_bytes(columns)
        bitmap = data[at : at + size]
        if len(bitmap) < size:
            raise self._malformed("a row is cut short")
        return int.from_bytes(bitmap, "little")

    def _malformed(self, how: str) -> UnknownEvent:
        return UnknownEvent(f"malformed rows event of table {self.table}: {how}", _MALFORMED)


def image_of(values: Values, width: int) -> tuple[int, Image]:
    """The columns that values are of, and an image that holds them."""
    columns = sum(1 << column for column in values)
    ordered = [values[column] for column in range(width) if column in values]
    size = (len(ordered) + 7) // 8
    nulls = ((1 << 8 * size) - 1) ^ ((1 << len(ordered)) - 1)  # the bits beyond are ones
    nulls |= sum(1 << at for at, value in enumerate(ordered) if value is None)
    parts = [value for value in ordered if value is not None]
    return columns, b"".join((nulls.to_bytes(size, "little"), *parts))


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

"""Read a chunk of a table on the source as the rows events that write it on the replica.

Left: a connection that gives every value as the bytes it is stored in, and the key behind
which to go on. Right: rows events, their number of rows, and the last row's key as SQL
literals. Where the row kernel was built, rows come by the binary protocol and no value is
looked at, but for the last row's key; else they come by the text protocol, and
`RowImageEncoder` encodes each value: the same bytes, more slowly.

A chunk is bounded by its number of rows, which is chosen by their expected size, and by
`MOST_BYTES`: rows beyond are read and dropped, and belong to the next chunk.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pymysql.cursors import SSCursor

from config.connections import quote_mysql_identifier as quote
from config.errors import SchemaDrift
from replicator.binlog.catalog import CatalogTable
from replicator.binlog.resultset import ResultSet
from replicator.binlog.rowimage import (
    RowImageEncoder,
    TableLayout,
    build_table_map,
    rows_event,
)
from replicator.binlog.rowplan import UNSIGNED, RowPlan
from replicator.binlog.schema import schema_from_catalog
from replicator.source import SourceTable
from replicator.throttle import Ceiling
from replicator.tracking import fetch

try:
    from replicator.binlog import rowkernel
except ImportError:
    rowkernel = None  # type: ignore[assignment]

CHUNK_BYTES: Final = 4 << 20
"""Rows asked for at once are bounded by their expected size too."""
MOST_BYTES: Final = 16 << 20
"""What a chunk may come to where its rows are larger than expected."""
COPY_TABLE_ID: Final = 0xFFFF_FFFF_FFE0
KEY_TYPES = frozenset(
    {"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "char", "varchar"}
    | {"binary", "varbinary", "date", "datetime"}
)

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Writer:
    """How the replica's events are framed: ids, and version 2 for MySQL."""

    server_id: int
    version: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows on their way: `events` write them; `last` where the table has no more."""

    events: list[bytes]
    rows: int
    key: Key | None
    last: bool
    size: int


class TablePlan:
    """How one table is read and written; made from the replica's catalog."""

    def __init__(
        self,
        catalog: CatalogTable,
        table: SourceTable,
        writer: Writer,
        chunk_rows: int,
        ceiling: Ceiling,
        *,
        compiled: bool | None = None,
    ) -> None:
        """`compiled` False leaves the row kernel aside; None takes it where it was built."""
        self.source, self.target = table.name, catalog.name
        self.layout = TableLayout.of(catalog)
        self.table_map = build_table_map(COPY_TABLE_ID, catalog.database, self.layout)
        self.schema = schema_from_catalog(catalog)
        self._writer = writer
        self._rows_limit = chunk_rows
        self._ceiling = ceiling
        self._compiled = rowkernel is not None if compiled is None else compiled
        self.limit = self._limit(table.average_row_bytes)
        self._encoder = RowImageEncoder(self.layout)
        self._plan = RowPlan(catalog, self.layout)
        listed = self._plan.select_list if self._compiled else self._encoder.select_list
        self._select = f"SELECT {', '.join(listed)} FROM {quote(table.name)}"
        self._key = [self.schema.columns[i] for i in self.schema.primary_key]
        names = [field.name for field in self.layout.fields]
        self._key_index = [names.index(c.name) for c in self._key]
        self.chunked = bool(self._key) and all(c.type.base in KEY_TYPES for c in self._key)

    def _limit(self, row_bytes: float) -> int:
        return max(1, min(self._rows_limit, int(CHUNK_BYTES / max(row_bytes, 1.0))))

    def read_chunk(self, reader: Any, after: Key | None) -> Chunk:
        """The next rows in key order; the next chunk is sized by them."""
        limit = self.limit
        names = [quote(c.name) for c in self._key]
        where = f" WHERE {_behind(names, after)}" if after else ""
        sql = f"{self._select}{where} ORDER BY {', '.join(names)} LIMIT {limit}"
        read = self._read_compiled if self._compiled else self._read_printed
        chunk = read(reader, sql, after, limit)
        self._ceiling.took(chunk.size)
        if chunk.rows:
            self.limit = self._limit(chunk.size / chunk.rows)
        return chunk

    def read_keys(self, reader: Any, keys: Sequence[str]) -> Chunk:
        """The rows that have these keys; `last` is False where they were too many bytes."""
        ordered = ", ".join(quote(column.name) for column in self._key)
        sql = f"{self._select} WHERE {self.having(keys)} ORDER BY {ordered}"
        read = self._read_compiled if self._compiled else self._read_printed
        chunk = read(reader, sql, None, len(keys) + 1)
        self._ceiling.took(chunk.size)
        return chunk

    def having(self, keys: Sequence[str]) -> str:
        """The condition that a row has one of these keys: SQL literals, with ", " between them."""
        names = [quote(column.name) for column in self._key]
        if len(names) == 1:
            return f"{names[0]} IN ({', '.join(keys)})"
        terms = (zip(names, key.split(", "), strict=True) for key in keys)
        return " OR ".join(
            f"({' AND '.join(f'{name} = {value}' for name, value in term)})" for term in terms
        )

    def read_all(self, reader: Any, *, paced: bool) -> Iterator[Chunk]:
        """All rows in pieces, streamed; `paced` waits at the ceiling between them."""
        pieces = self._stream_compiled if self._compiled else self._stream_printed
        for chunk in pieces(reader):
            self._ceiling.took(chunk.size)
            if paced:
                self._ceiling.wait()
            yield chunk

    # --- compiled ------------------------------------------------------------------------

    def _read_compiled(self, reader: Any, sql: str, after: Key | None, limit: int) -> Chunk:
        events: list[bytes] = []
        rows = size = 0
        key, cut = after, False
        with ResultSet(reader, sql, binary=True) as result:
            kernel, head = self._plan.kernel(result.fields), self._head()
            tail: tuple[bytes, int] | None = None
            for block in result.blocks():
                cut = cut or size > MOST_BYTES
                if not cut:
                    event, count, place = kernel.encode(block, head)
                    events.append(event)
                    rows += count
                    size += len(block)
                    tail = block, place
            if tail is not None:
                places = [self._plan.places[at] for at in self._key_index]
                key = self._literals(key_values(*tail, result.fields, places))
        return Chunk(events, rows, key, not cut and rows < limit, size)

    def _stream_compiled(self, reader: Any) -> Iterator[Chunk]:
        with ResultSet(reader, self._select, binary=True) as result:
            kernel = self._plan.kernel(result.fields)
            for block in result.blocks():
                event, rows, _place = kernel.encode(block, self._head())
                yield Chunk([event], rows, None, last=False, size=len(block))

    def _head(self) -> bytes:
        return self._event([])

    # --- printed -------------------------------------------------------------------------

    def _read_printed(self, reader: Any, sql: str, after: Key | None, limit: int) -> Chunk:
        rows = fetch(reader, sql)
        size = _size(rows)
        key = self._literals([rows[-1][at] for at in self._key_index]) if rows else after
        return Chunk(list(self._encoded(rows)), len(rows), key, len(rows) < limit, size)

    def _stream_printed(self, reader: Any) -> Iterator[Chunk]:
        with reader.cursor(SSCursor) as cursor:
            cursor.execute(self._select)
            while rows := list(cursor.fetchmany(self.limit)):
                yield Chunk(list(self._encoded(rows)), len(rows), None, False, _size(rows))

    def _encoded(self, rows: list[Any]) -> Iterator[bytes]:
        """Events of about a chunk's size."""
        part: list[bytes] = []
        size = 0
        for row in rows:
            image = self._encoder.encode(row)
            part.append(image)
            size += len(image)
            if size > CHUNK_BYTES:
                yield self._event(part)
                part, size = [], 0
        if part:
            yield self._event(part)

    def _event(self, images: list[bytes]) -> bytes:
        return rows_event(
            COPY_TABLE_ID,
            self.layout.width,
            images,
            timestamp=int(time.time()),
            server_id=self._writer.server_id,
            version=self._writer.version,
        )

    def _literals(self, values: Sequence[bytes | None]) -> Key:
        """A row's primary key as SQL literals."""
        return tuple(
            _literal(column.type.base, column.type.charset, value)
            for column, value in zip(self._key, values, strict=True)
        )


def _size(rows: list[Any]) -> int:
    return sum(len(value) for row in rows for value in row if value is not None)


# --- keys --------------------------------------------------------------------------------


def _behind(names: list[str], after: Key) -> str:
    """The rows behind a key, in a form that an index can serve."""
    terms = []
    for depth in range(len(names)):
        equal = [f"{n} = {v}" for n, v in zip(names[:depth], after[:depth], strict=True)]
        terms.append(" AND ".join([*equal, f"{names[depth]} > {after[depth]}"]))
    bound = f"{names[0]} >= {after[0]} AND " if len(names) > 1 else ""
    return f"{bound}({' OR '.join(terms)})"


def _literal(base: str, charset: str | None, value: bytes | None) -> str:
    if value is None:
        raise SchemaDrift("a primary key holds NULL", hint="Report the table's definition.")
    if base in ("char", "varchar"):
        return f"_{charset} x'{value.hex()}'"
    if base in ("binary", "varbinary"):
        return f"x'{value.hex()}'"
    text = value.decode("ascii")
    return f"'{text}'" if base in ("date", "datetime") else text


_INTEGERS: Final = {1: "b", 2: "h", 9: "i", 3: "i", 8: "q", 13: "h"}
_FIXED: Final = {1: 1, 2: 2, 13: 2, 3: 4, 9: 4, 4: 4, 5: 8, 8: 8}
_MOMENTS: Final = frozenset({7, 10, 11, 12})


def key_values(
    block: bytes, at: int, fields: Sequence[Any], wanted: Sequence[int]
) -> list[bytes | None]:
    """Columns of the row whose payload is at `at`, printed as the text protocol prints them.

    Integers, dates, datetimes and strings; the kernel has seen that the row is whole.
    """
    nulls = at + 1
    at = nulls + (len(fields) + 9) // 8
    found: dict[int, bytes | None] = {}
    for index, field in enumerate(fields):
        if block[nulls + (index + 2 >> 3)] >> (index + 2 & 7) & 1:
            found[index] = None
            continue
        kind = field.type_code
        length = _FIXED.get(kind)
        if length is None and kind in _MOMENTS:
            length, at = block[at], at + 1
        elif length is None:
            length, at = _length(block, at)
        if index in wanted:
            found[index] = _printed(block[at : at + length], field)
        at += length
    return [found[index] for index in wanted]


def _length(block: bytes, at: int) -> tuple[int, int]:
    first = block[at]
    if first < 0xFB:
        return first, at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    return int.from_bytes(block[at + 1 : at + 1 + size], "little"), at + 1 + size


def _printed(value: bytes, field: Any) -> bytes:
    kind = field.type_code
    if kind in _INTEGERS:
        letter = _INTEGERS[kind]
        (number,) = struct.unpack(
            "<" + (letter.upper() if field.flags & UNSIGNED else letter), value
        )
        return b"%d" % number
    if kind in (10, 12):
        year, month, day, hour, minute, second, micros = struct.unpack(
            "<HBBBBBI", value.ljust(11, b"\0")
        )
        printed = b"%04d-%02d-%02d" % (year, month, day)
        if kind == 12:
            printed += b" %02d:%02d:%02d" % (hour, minute, second)
            printed += (b".%06d" % micros)[: field.scale + 1] if field.scale else b""
        return printed
    return value

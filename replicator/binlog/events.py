"""Frame and classify binlog events; read the parts that need no row decoding.

Left: one raw event (19-byte header and body, checksum already removed by
`stream`). Right: header fields, a QUERY event's text, a TABLE_MAP's columns,
and rows events whose compression is undone. Pure: bytes in, values out.

Sources: MariaDB `sql/log_event.h`, MySQL `libs/mysql/binlog/event/*.h`.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import ClassVar

from config.errors import SchemaDrift, UnknownEvent

HEADER_LENGTH = 19
IGNORABLE_FLAG = 0x80
ARTIFICIAL_FLAG = 0x20
STMT_END_FLAG = 0x1
DUMMY_TABLE_ID = 0xFFFFFF
"""Table id of a rows event that only carries STMT_END (MySQL writes these)."""

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class EventType(IntEnum):
    """Event type codes of both server families."""

    START_V3 = 1
    QUERY = 2
    STOP = 3
    ROTATE = 4
    INTVAR = 5
    RAND = 13
    USER_VAR = 14
    FORMAT_DESCRIPTION = 15
    XID = 16
    TABLE_MAP = 19
    WRITE_ROWS_V1 = 23
    UPDATE_ROWS_V1 = 24
    DELETE_ROWS_V1 = 25
    INCIDENT = 26
    HEARTBEAT = 27
    IGNORABLE = 28
    ROWS_QUERY = 29
    WRITE_ROWS = 30
    UPDATE_ROWS = 31
    DELETE_ROWS = 32
    GTID = 33
    ANONYMOUS_GTID = 34
    PREVIOUS_GTIDS = 35
    TRANSACTION_CONTEXT = 36
    VIEW_CHANGE = 37
    XA_PREPARE = 38
    PARTIAL_UPDATE_ROWS = 39
    TRANSACTION_PAYLOAD = 40
    HEARTBEAT_V2 = 41
    GTID_TAGGED = 42
    ANNOTATE_ROWS = 160
    BINLOG_CHECKPOINT = 161
    MARIADB_GTID = 162
    MARIADB_GTID_LIST = 163
    START_ENCRYPTION = 164
    QUERY_COMPRESSED = 165
    WRITE_ROWS_COMPRESSED_V1 = 166
    UPDATE_ROWS_COMPRESSED_V1 = 167
    DELETE_ROWS_COMPRESSED_V1 = 168
    WRITE_ROWS_COMPRESSED = 169
    UPDATE_ROWS_COMPRESSED = 170
    DELETE_ROWS_COMPRESSED = 171


ROWS_EVENTS = frozenset({23, 24, 25, 30, 31, 32, 39})
UPDATE_EVENTS = frozenset({EventType.UPDATE_ROWS_V1, EventType.UPDATE_ROWS})
_DECOMPRESSED = {166: 23, 167: 24, 168: 25, 169: 30, 170: 31, 171: 32}


def event_timestamp(event: bytes) -> int:
    """Seconds since 1970 of the statement that wrote the event."""
    return int.from_bytes(event[:4], "little")


def event_end(event: bytes) -> int:
    """Offset of the event's end in its binlog file; 0 in events made up for the stream."""
    return int.from_bytes(event[13:17], "little")


def event_flags(event: bytes) -> int:
    """The header's flags."""
    return int.from_bytes(event[17:19], "little")


def table_id_of(event: bytes) -> int:
    """Table id of a TABLE_MAP or ROWS event (6 bytes)."""
    return int.from_bytes(event[19:25], "little")


def rows_flags(event: bytes) -> int:
    """Flags of a ROWS event: STMT_END and how keys are to be checked."""
    return int.from_bytes(event[25:27], "little")


def with_header(event_type: int, timestamp: int, server_id: int, flags: int, body: bytes) -> bytes:
    """A whole event without checksum around `body`, its length set, its end position zero."""
    length = HEADER_LENGTH + len(body)
    return struct.pack("<IBIIIH", timestamp, event_type, server_id, length, 0, flags) + body


def read_lenenc(data: bytes, at: int) -> tuple[int, int]:
    """A length-encoded integer at `at`: (value, offset behind it)."""
    first = data[at]
    if first < 0xFB:
        return first, at + 1
    width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first)
    if width is None or at + 1 + width > len(data):
        raise UnknownEvent("malformed length in a binlog event", hint=_MALFORMED_HINT)
    return int.from_bytes(data[at + 1 : at + 1 + width], "little"), at + 1 + width


_MALFORMED_HINT = (
    "Check the server's binlog with mariadb-binlog/mysqlbinlog --verify-binlog-checksum at the"
    " position named; nothing was applied from it."
)


@dataclass(frozen=True, slots=True)
class QueryEvent:
    """A statement as the binlog holds it, with the session context that it ran in."""

    timestamp: int
    thread_id: int
    error_code: int
    database: str
    status_vars: bytes
    statement: bytes


def parse_query(event: bytes) -> QueryEvent:
    """Read a QUERY event, MariaDB's compressed kind too (types 2 and 165)."""
    if len(event) < HEADER_LENGTH + 13:
        raise UnknownEvent("a QUERY event is shorter than its header", hint=_MALFORMED_HINT)
    thread_id, _seconds, database_length, error_code, status_length = struct.unpack_from(
        "<IIBHH", event, HEADER_LENGTH
    )
    at = HEADER_LENGTH + 13
    status = event[at : at + status_length]
    at += status_length
    database = event[at : at + database_length].decode("utf-8", "surrogateescape")
    statement = event[at + database_length + 1 :]
    if event[4] == EventType.QUERY_COMPRESSED:
        statement = _inflate(statement)
    return QueryEvent(event_timestamp(event), thread_id, error_code, database, status, statement)


_MOST_INFLATED = 1 << 30
"""No server lets an event be larger."""


def _inflate(data: bytes) -> bytes:
    """Undo MariaDB's `binlog_buf_compress`: a byte with the length's width, the length, zlib."""
    if not data:
        raise UnknownEvent("an empty compressed block in a binlog event", hint=_MALFORMED_HINT)
    width = data[0] & 0x07
    length = int.from_bytes(data[1 : 1 + width], "big")
    if length > _MOST_INFLATED:
        raise UnknownEvent("a compressed binlog event lies about its length", hint=_MALFORMED_HINT)
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data[1 + width :], length)
    except zlib.error as error:
        raise UnknownEvent(
            "a compressed binlog event cannot be unpacked", hint=_MALFORMED_HINT
        ) from error
    if len(plain) != length:
        raise UnknownEvent("a compressed binlog event lies about its length", hint=_MALFORMED_HINT)
    return plain


def decompress_rows(event: bytes) -> bytes:
    """MariaDB's compressed rows event (166-171) as the plain event it stands for."""
    plain_type = _DECOMPRESSED[event[4]]
    at = HEADER_LENGTH + 8
    if plain_type >= EventType.WRITE_ROWS:
        at += _U16.unpack_from(event, at)[0]
    width, at = read_lenenc(event, at)
    bitmaps = 2 if plain_type in UPDATE_EVENTS else 1
    at += bitmaps * ((width + 7) // 8)
    plain = event[:at] + _inflate(event[at:])
    return plain[:4] + bytes([plain_type]) + plain[5:9] + _U32.pack(len(plain)) + plain[13:]


_BINLOG_FILE = re.compile(rb"[\x20-\x7e]{1,511}\.[0-9]{1,10}\Z")


def parse_rotate(event: bytes) -> tuple[str, int]:
    """(next file, offset) of a ROTATE event."""
    name = event[HEADER_LENGTH + 8 :]
    if not _BINLOG_FILE.match(name):
        raise UnknownEvent("a ROTATE event names no binlog file", hint=_MALFORMED_HINT)
    return name.decode("ascii"), _U64.unpack_from(event, HEADER_LENGTH)[0]


def server_version(format_description: bytes) -> str:
    """The version string of the server that wrote the binlog, e.g. `10.11.6-MariaDB-log`."""
    raw = format_description[HEADER_LENGTH + 2 : HEADER_LENGTH + 52]
    return raw.rstrip(b"\0").decode("ascii", "replace")


def format_description_without_checksums(event: bytes) -> bytes:
    """The FORMAT_DESCRIPTION to announce events without checksum, itself with one.

    `event` ends with the checksum algorithm's byte, as `stream` hands it over.
    """
    length = _U32.pack(len(event) + 4)
    plain = event[:9] + length + b"\0\0\0\0" + event[17:-1] + b"\0"
    return plain + _U32.pack(zlib.crc32(plain))


# Bytes of per-column metadata in a TABLE_MAP, by type code; types not named have none.
METADATA_WIDTH = {
    4: 1, 5: 1, 15: 2, 16: 2, 17: 1, 18: 1, 19: 1, 140: 1, 141: 2, 242: 1, 245: 1, 246: 2,
    247: 2, 248: 2, 249: 1, 250: 1, 251: 1, 252: 1, 253: 2, 254: 2, 255: 1,
}  # fmt: skip
_PLAIN_TYPES = frozenset({0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14})
_NUMERIC = frozenset({1, 2, 3, 4, 5, 8, 9, 13, 246})
_CHARACTER = frozenset({15, 140, 141, 249, 250, 251, 252, 253})
_STRING, _ENUM, _SET, _GEOMETRY, _VECTOR = 254, 247, 248, 255, 242


def _cut_short() -> UnknownEvent:
    return UnknownEvent("a TABLE_MAP event is cut short", hint=_MALFORMED_HINT)


class TableMap:
    """A TABLE_MAP event: which table and columns the rows events after it mean.

    Only the names are read at once; the columns are read when first asked for,
    since leg 1 never asks. `mariadb` tells whose event it is: only there do columns of
    geometry have a charset. YEAR is among the numbers of both (MySQL 9.7, MariaDB 10.11).
    """

    def __init__(self, event: bytes, *, mariadb: bool = True) -> None:
        self.raw = event
        self._mariadb = mariadb
        try:
            self._read_names(event)
        except (IndexError, UnicodeDecodeError):
            raise _cut_short() from None

    def _read_names(self, event: bytes) -> None:
        self.table_id = table_id_of(event)
        at = HEADER_LENGTH + 8
        end = at + 1 + event[at]
        self.database = event[at + 1 : end].decode("utf-8")
        self.database_span = (at, end + 1)
        at = end + 1
        end = at + 1 + event[at]
        self.table = event[at + 1 : end].decode("utf-8")
        self.table_span = (at, end + 1)
        if end >= len(event):
            raise _cut_short()
        self._columns_at = end + 1

    def __repr__(self) -> str:
        return f"TableMap({self.database}.{self.table}, id={self.table_id})"

    @cached_property
    def _layout(self) -> tuple[bytes, tuple[int, ...], tuple[bool, ...], int]:
        try:
            return self._read_layout()
        except IndexError:
            raise _cut_short() from None

    def _read_layout(self) -> tuple[bytes, tuple[int, ...], tuple[bool, ...], int]:
        event = self.raw
        count, at = read_lenenc(event, self._columns_at)
        types = event[at : at + count]
        if len(types) != count:
            raise _cut_short()
        length, at = read_lenenc(event, at + count)
        metadata = _column_metadata(types, event[at : at + length])
        at += length
        nulls = event[at : at + (count + 7) // 8]
        nullable = tuple(bool(nulls[i >> 3] >> (i & 7) & 1) for i in range(count))
        return types, metadata, nullable, at + (count + 7) // 8

    @property
    def column_types(self) -> bytes:
        """Type code per column."""
        return self._layout[0]

    @property
    def column_metadata(self) -> tuple[int, ...]:
        """Metadata per column: its raw bytes as a little-endian number, 0 where it has none."""
        return self._layout[1]

    @property
    def nullable(self) -> tuple[bool, ...]:
        """May each column be NULL?"""
        return self._layout[2]

    @cached_property
    def metadata(self) -> OptionalMetadata:
        """What `binlog_row_metadata` adds; every part None where it is absent."""
        types, column_metadata, _nullable, at = self._layout
        return OptionalMetadata.parse(types, column_metadata, self.raw[at:], mariadb=self._mariadb)


def _column_metadata(types: bytes, block: bytes) -> tuple[int, ...]:
    values, at = [], 0
    for code in types:
        width = METADATA_WIDTH.get(code, 0)
        if not width and code not in _PLAIN_TYPES:
            raise UnknownEvent(
                f"column type {code} in a TABLE_MAP event is not known",
                hint="Exclude the table in tables.toml, or report the type.",
            )
        values.append(int.from_bytes(block[at : at + width], "little"))
        at += width
    if at != len(block):
        raise UnknownEvent(
            "a TABLE_MAP event's column metadata has another length than its column types need",
            hint=_MALFORMED_HINT,
        )
    return tuple(values)


def real_type(code: int, metadata: int) -> int:
    """The type behind STRING (254): ENUM (247) and SET (248) hide in its metadata."""
    if code == _STRING and (metadata & 0xFF) in (_ENUM, _SET):
        return metadata & 0xFF
    return code


@dataclass(frozen=True, slots=True)
class OptionalMetadata:
    """The optional part of a TABLE_MAP; tuples are as long as the table is wide."""

    unsigned: tuple[bool, ...] | None = None
    column_names: tuple[str, ...] | None = None
    charsets: tuple[int | None, ...] | None = None
    """Collation id per column; 63 is binary; None where a column has no charset."""
    values: tuple[tuple[bytes, ...] | None, ...] | None = None
    """ENUM and SET members per column, in definition order."""
    primary_key: tuple[int, ...] | None = None
    """Column indexes in key order; () where a key is known to be absent (names are there)."""
    geometry_types: tuple[int | None, ...] | None = None
    vector_dimensions: tuple[int | None, ...] | None = None
    """MySQL's VECTOR columns: floats that a value has."""

    @classmethod
    def parse(
        cls, types: bytes, metadata: tuple[int, ...], block: bytes, *, mariadb: bool
    ) -> OptionalMetadata:
        """Read the type-length-value fields that end a TABLE_MAP event."""
        try:
            return _MetadataParser(types, metadata, mariadb).parse(block)
        except (ValueError, IndexError):
            raise UnknownEvent(
                "a TABLE_MAP event's metadata does not fit its columns", hint=_MALFORMED_HINT
            ) from None


class _MetadataParser:
    """Reads the TLV fields; each handler scatters a dense list over the columns it covers."""

    def __init__(self, types: bytes, metadata: tuple[int, ...], mariadb: bool) -> None:
        real = [real_type(c, m) for c, m in zip(types, metadata, strict=True)]
        self.width = len(real)
        self.numeric = [i for i, t in enumerate(real) if t in _NUMERIC]
        # MariaDB gives geometry columns a charset too (63: binary).
        character = _CHARACTER | {_STRING} | ({_GEOMETRY} if mariadb else set())
        self.character = [i for i, t in enumerate(real) if t in character]
        self.enumerated = [i for i, t in enumerate(real) if t in (_ENUM, _SET)]
        self.enums = [i for i, t in enumerate(real) if t == _ENUM]
        self.sets = [i for i, t in enumerate(real) if t == _SET]
        self.geometries = [i for i, t in enumerate(real) if t == _GEOMETRY]
        self.names: tuple[str, ...] | None = None
        self.unsigned: list[bool] | None = None
        self.charsets: list[int | None] | None = None
        self.values: list[tuple[bytes, ...] | None] | None = None
        self.primary_key: tuple[int, ...] | None = None
        self.vectors = [i for i, t in enumerate(real) if t == _VECTOR]
        self.geometry: list[int | None] | None = None
        self.dimensions: list[int | None] | None = None

    def parse(self, block: bytes) -> OptionalMetadata:
        at = 0
        while at < len(block):
            field = block[at]
            length, at = read_lenenc(block, at + 1)
            if at + length > len(block):
                raise UnknownEvent(
                    "a TABLE_MAP event's metadata is cut short", hint=_MALFORMED_HINT
                )
            self._take(field, block[at : at + length])
            at += length
        if self.names is not None and self.primary_key is None:
            self.primary_key = ()
        return OptionalMetadata(
            tuple(self.unsigned) if self.unsigned is not None else None,
            self.names,
            tuple(self.charsets) if self.charsets is not None else None,
            tuple(self.values) if self.values is not None else None,
            self.primary_key,
            tuple(self.geometry) if self.geometry is not None else None,
            tuple(self.dimensions) if self.dimensions is not None else None,
        )

    def _take(self, field: int, data: bytes) -> None:
        take = self._FIELDS.get(field)
        if take is not None:
            take(self, data)

    def _names(self, data: bytes) -> None:
        self.names = tuple(s.decode("utf-8") for s in _strings(data))

    def _geometry_types(self, data: bytes) -> None:
        self.geometry = [None] * self.width
        for column, kind in zip(self.geometries, _lenencs(data), strict=True):
            self.geometry[column] = kind

    def _vector_dimensions(self, data: bytes) -> None:
        self.dimensions = [None] * self.width
        for column, dimensions in zip(self.vectors, _lenencs(data), strict=True):
            self.dimensions[column] = dimensions

    def _simple_key(self, data: bytes) -> None:
        self.primary_key = tuple(_lenencs(data))

    def _prefixed_key(self, data: bytes) -> None:
        self.primary_key = tuple(list(_lenencs(data))[::2])

    def _signedness(self, data: bytes) -> None:
        self.unsigned = [False] * self.width
        for bit, column in enumerate(self.numeric):
            self.unsigned[column] = bool(data[bit >> 3] & (0x80 >> (bit & 7)))

    def _default_charset(self, columns: list[int], data: bytes) -> None:
        numbers = list(_lenencs(data))
        chosen: list[int] = [numbers[0]] * len(columns)
        for which, collation in zip(numbers[1::2], numbers[2::2], strict=True):
            chosen[which] = collation
        self._scatter_charsets(columns, chosen)

    def _scatter_charsets(self, columns: list[int], collations: list[int]) -> None:
        if self.charsets is None:
            self.charsets = [None] * self.width
        for column, collation in zip(columns, collations, strict=True):
            self.charsets[column] = collation

    def _members(self, columns: list[int], data: bytes) -> None:
        if self.values is None:
            self.values = [None] * self.width
        at = 0
        for column in columns:
            count, at = read_lenenc(data, at)
            members = []
            for _ in range(count):
                length, at = read_lenenc(data, at)
                members.append(data[at : at + length])
                at += length
            self.values[column] = tuple(members)

    _FIELDS: ClassVar[dict[int, Callable[[_MetadataParser, bytes], None]]] = {
        1: _signedness,
        2: lambda self, data: self._default_charset(self.character, data),
        3: lambda self, data: self._scatter_charsets(self.character, list(_lenencs(data))),
        4: _names,
        5: lambda self, data: self._members(self.sets, data),
        6: lambda self, data: self._members(self.enums, data),
        7: _geometry_types,
        8: _simple_key,
        9: _prefixed_key,
        10: lambda self, data: self._default_charset(self.enumerated, data),
        11: lambda self, data: self._scatter_charsets(self.enumerated, list(_lenencs(data))),
        13: _vector_dimensions,
    }


def _lenencs(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = read_lenenc(data, at)
        yield value


def _strings(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        length, at = read_lenenc(data, at)
        yield data[at : at + length]
        at += length


def parse_table_map(event: bytes, *, mariadb: bool = True) -> TableMap:
    """Read a TABLE_MAP event."""
    return TableMap(event, mariadb=mariadb)


def require_full_metadata(table_map: TableMap) -> OptionalMetadata:
    """The optional metadata, or `SchemaDrift` where the server writes only the minimum."""
    metadata = table_map.metadata
    if metadata.column_names is None:
        raise SchemaDrift(
            f"the binlog's table map of {table_map.table} carries no column names",
            hint="SET GLOBAL binlog_row_metadata = 'FULL'; on the replica"
            " (and binlog_row_metadata=FULL in its my.cnf).",
        )
    return metadata

"""One canonical model of a table, the same from the stream and from the catalog.

From the left comes a TABLE_MAP event with full metadata, or what the catalog
says; to the right goes a `TableSchema` and its hash. What a row image does not
depend on is left out (display widths, ZEROFILL, FLOAT's decimals, defaults,
comments, collations within a charset, COMPRESSED), and what the stream cannot
tell apart is one type: JSON is MariaDB's longtext, UUID and INET6 are
binary(16), INET4 is binary(4), VECTOR(n) is varbinary(4n), YEAR(2) is year.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import astuple, dataclass, fields

import pymysql
from pymysql.cursors import Cursor

from config.errors import SchemaDrift, UnknownEvent, UnsupportedStatement
from replicator.binlog.catalog import CatalogColumn, CatalogTable, read_catalog
from replicator.binlog.characters import decoder
from replicator.binlog.charsets import charset_of
from replicator.binlog.events import TableMap, real_type, require_full_metadata

HIDDEN_HASH = "DB_ROW_HASH_"
"""Name prefix of the columns that MariaDB hides behind the others for long unique keys."""

_BINARY = 63
_BEYOND_UTF8MB3 = re.compile("[\U00010000-\U0010ffff]")
_HASH_VERSION = 1
_TABLES_AT_ONCE = 8

# Bytes that a character takes at most (information_schema.CHARACTER_SETS.MAXLEN), if not one.
_WIDEST = {
    "big5": 2, "cp932": 2, "euckr": 2, "gb2312": 2, "gbk": 2, "sjis": 2, "ucs2": 2,
    "eucjpms": 3, "ujis": 3, "utf8mb3": 3,
    "gb18030": 4, "utf16": 4, "utf16le": 4, "utf32": 4, "utf8mb4": 4,
}  # fmt: skip

_INTEGERS = {1: "tinyint", 2: "smallint", 9: "mediumint", 3: "int", 8: "bigint"}
_TEMPORAL = {
    18: "datetime", 12: "datetime", 17: "timestamp", 7: "timestamp", 19: "time", 11: "time",
}  # fmt: skip
_SIZES = {1: "tiny", 2: "", 3: "medium", 4: "long"}
_GEOMETRIES = (
    "geometry", "point", "linestring", "polygon",
    "multipoint", "multilinestring", "multipolygon", "geometrycollection",
)  # fmt: skip
_GEOMETRY_ALIASES = {"geomcollection": "geometrycollection"}
_FIXED_BINARY = {"uuid": 16, "inet6": 16, "inet4": 4}
_UNSPELLABLE_HINT = (
    "On the source: convert the column to utf8mb4, or exclude the table in tables.toml."
)


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A type without what does not change its values.

    `length` counts characters of char and varchar, bytes of binary and varbinary, bits of bit.
    """

    base: str
    unsigned: bool = False
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    fsp: int = 0
    charset: str | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `key_position` counts from 1 and is None outside the primary key."""

    name: str
    type: ColumnType
    nullable: bool
    key_position: int | None


@dataclass(frozen=True, slots=True)
class TableSchema:
    """A table's columns in order; `primary_key` holds their indexes in key order.

    Row images may have more columns behind these: see `HIDDEN_HASH`.
    """

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[int, ...]

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the columns; the table's name is not part of it."""
        columns = [_hashed(column) for column in self.columns]
        canonical = json.dumps([_HASH_VERSION, columns], separators=(",", ":"))
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _hashed(column: Column) -> tuple[object, ...]:
    """A column's fields; in members what the catalogs cannot spell is as they show it.

    A table map has the members themselves, but information_schema is in utf8mb3, and has a
    question mark for each character beyond it. What a kind of Column of its own adds (leg 2's
    masks) is nothing of the server's.
    """
    name, kind, *rest = astuple(column)[: len(fields(Column))]
    return name, (*kind[:-1], tuple(_BEYOND_UTF8MB3.sub("?", member) for member in kind[-1])), *rest


def schema_from_table_map(table_map: TableMap) -> TableSchema:
    """The schema that a TABLE_MAP event carries; `SchemaDrift` without full metadata.

    `UnknownEvent` where its parts do not fit each other: no server writes such a thing.
    """
    try:
        schema = _mapped(table_map)
    except (IndexError, KeyError, ValueError):
        raise _misfit(table_map) from None
    if not set(schema.primary_key) <= set(range(len(schema.columns))):
        raise _misfit(table_map)
    return schema


def _misfit(table_map: TableMap) -> UnknownEvent:
    return UnknownEvent(
        f"a table map of {table_map.table} does not fit itself",
        hint="Nothing behind it was applied. Check that server's binlog with mariadb-binlog or"
        " mysqlbinlog, with --verify-binlog-checksum.",
    )


def _mapped(table_map: TableMap) -> TableSchema:
    metadata = require_full_metadata(table_map)
    names, key = metadata.column_names or (), metadata.primary_key or ()
    nothing = (None,) * len(names)
    parts = zip(
        names,
        table_map.column_types,
        table_map.column_metadata,
        table_map.nullable,
        metadata.unsigned or nothing,
        metadata.charsets or nothing,
        metadata.values or nothing,
        metadata.geometry_types or nothing,
        metadata.vector_dimensions or nothing,
        strict=True,
    )
    types = [
        (name, _MappedColumn(f"{table_map.table}.{name}", code, meta, bool(unsigned),
                             collation, members, geometry, dimensions).type(), nullable)
        for name, code, meta, nullable, unsigned, collation, members, geometry, dimensions in parts
        if not name.startswith(HIDDEN_HASH)
    ]  # fmt: skip
    return _schema(table_map.table, types, key)


def schemas_from_catalog(
    connection: pymysql.Connection[Cursor], database: str, tables: Collection[str] | None = None
) -> dict[str, TableSchema]:
    """Schemas of a database's base tables by name; only those in `tables` unless that is None."""
    return dict(_read(connection, database, tables))


def hashes_from_catalog(
    connection: pymysql.Connection[Cursor], database: str, tables: Collection[str]
) -> dict[str, str]:
    """The hashes of these tables' schemas; no more of them than a few is held at any time."""
    return {name: schema.hash for name, schema in _read(connection, database, tables)}


def _read(
    connection: pymysql.Connection[Cursor], database: str, tables: Collection[str] | None
) -> Iterator[tuple[str, TableSchema]]:
    """A few at a time: what the catalog says of a column is ten times what becomes of it."""
    for some in [None] if tables is None else _some(sorted(tables)):
        for name, table in read_catalog(connection, database, some).items():
            yield name, schema_from_catalog(table)


def _some(names: list[str]) -> Iterator[list[str]]:
    for at in range(0, len(names), _TABLES_AT_ONCE):
        yield names[at : at + _TABLES_AT_ONCE]


def schema_from_catalog(table: CatalogTable) -> TableSchema:
    """The schema of one table of the catalog."""
    columns = [(c.name, _catalog_type(table.name, c), c.nullable) for c in table.columns]
    return _schema(table.name, columns, table.primary_key)


def widest_character(charset: str | None) -> int:
    """Bytes that one character takes at most; 1 for binary."""
    return _WIDEST.get(charset or "", 1)


def _schema(
    name: str, columns: Collection[tuple[str, ColumnType, bool]], key: tuple[int, ...]
) -> TableSchema:
    places = {column: place for place, column in enumerate(key, 1)}
    return TableSchema(
        name,
        tuple(
            Column(column, kind, nullable, places.get(at))
            for at, (column, kind, nullable) in enumerate(columns)
        ),
        key,
    )


@dataclass(frozen=True, slots=True)
class _MappedColumn:
    """What a TABLE_MAP event says of one column."""

    where: str
    code: int
    meta: int
    unsigned: bool
    collation: int | None
    members: tuple[bytes, ...] | None
    geometry: int | None
    dimensions: int | None

    def type(self) -> ColumnType:
        code, meta = real_type(self.code, self.meta), self.meta
        if code in _INTEGERS:
            return ColumnType(_INTEGERS[code], self.unsigned)
        if code in (4, 5):
            return ColumnType("float" if code == 4 else "double", self.unsigned)
        if code == 246:
            return ColumnType("decimal", self.unsigned, precision=meta & 0xFF, scale=meta >> 8)
        if code in _TEMPORAL:
            return ColumnType(_TEMPORAL[code], fsp=meta)
        if code in (10, 14):
            return ColumnType("date")
        if code == 13:
            return ColumnType("year")
        if code == 16:
            return ColumnType("bit", length=(meta & 0xFF) + 8 * (meta >> 8))
        return self._text_or_bytes(code, meta)

    def _text_or_bytes(self, code: int, meta: int) -> ColumnType:
        if code in (15, 253):
            return self._sized("varchar", "varbinary", meta)
        if code == 141:  # VARCHAR COMPRESSED: one byte more, that says how it is packed
            return self._sized("varchar", "varbinary", meta - 1)
        if code == 254:
            return self._sized("char", "binary", char_octets(meta))
        if code in (247, 248):
            spelling = self._charset() or "binary"
            members = tuple(_spelled(m, spelling, self.where) for m in self.members or ())
            return ColumnType("enum" if code == 247 else "set", charset=spelling, values=members)
        if code in (252, 140) and meta in _SIZES:
            charset = self._charset()
            return ColumnType(_SIZES[meta] + ("text" if charset else "blob"), charset=charset)
        if code == 255:
            return ColumnType(_GEOMETRIES[self.geometry or 0])
        if code == 245:
            return ColumnType("json")
        if code == 242:  # MySQL's; MariaDB's comes as VARBINARY
            return ColumnType("varbinary", length=4 * (self.dimensions or 0))
        raise UnknownEvent(
            f"column {self.where} has type {code}, which is not known",
            hint="Exclude the table in tables.toml, or report the type.",
        )

    def _sized(self, text: str, binary: str, octets: int) -> ColumnType:
        charset = self._charset()
        length = octets // widest_character(charset)
        return ColumnType(text if charset else binary, length=length, charset=charset)

    def _charset(self) -> str | None:
        """The column's charset; None is binary."""
        if self.collation == _BINARY:
            return None
        charset = charset_of(self.collation) if self.collation is not None else None
        if charset is None:
            raise SchemaDrift(
                f"the charset of column {self.where} (collation {self.collation}) is not known",
                hint="SET GLOBAL binlog_row_metadata = 'FULL'; on the replica, and report the"
                " collation's number if it is set.",
            )
        return charset


def char_octets(meta: int) -> int:
    """Bytes of a STRING column: bits 8 and 9 hide, inverted, in the type's own byte.

    `meta` as in `TableMap.column_metadata` (MariaDB `sql/field.cc`, Field_string).
    """
    return (meta >> 8) | ((meta & 0x30) ^ 0x30) << 4


def _spelled(member: bytes, charset: str, where: str) -> str:
    decode = decoder(charset) or decoder("ascii")
    assert decode is not None
    try:
        return decode(member)
    except UnicodeDecodeError:
        raise _unspellable(charset, where) from None


def _checked(text: str, charset: str, where: str) -> str:
    """`text`, unless it is in no charset at all and not ASCII either."""
    if charset == "binary" and not text.isascii():
        raise _unspellable(charset, where)
    return text


def _unspellable(charset: str, where: str) -> UnsupportedStatement:
    return UnsupportedStatement(
        f"the members of {where} cannot be read in character set {charset}", _UNSPELLABLE_HINT
    )


def _catalog_type(table: str, column: CatalogColumn) -> ColumnType:
    kind = column.data_type
    if kind in _FIXED_BINARY:
        return ColumnType("binary", length=_FIXED_BINARY[kind])
    if kind in ("enum", "set"):
        charset = column.charset or "binary"
        where = f"{table}.{column.name}"
        members = tuple(_checked(member, charset, where) for member in column.members)
        return ColumnType(kind, charset=charset, values=members)
    if kind in ("char", "varchar"):
        return ColumnType(kind, length=column.characters, charset=column.charset)
    if kind in ("binary", "varbinary"):
        return ColumnType(kind, length=column.octets)
    if kind == "vector":
        return ColumnType("varbinary", length=column.octets)
    if kind.endswith("text"):
        return ColumnType(kind, charset=column.charset)
    if kind == "decimal":
        return ColumnType(kind, column.unsigned, precision=column.precision, scale=column.scale)
    if kind == "bit":
        return ColumnType(kind, length=column.precision)
    if kind in ("datetime", "timestamp", "time"):
        return ColumnType(kind, fsp=column.fsp)
    return ColumnType(_GEOMETRY_ALIASES.get(kind, kind), column.unsigned)

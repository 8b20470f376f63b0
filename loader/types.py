"""The one table of types: a MySQL column in, its column in `raw` out. Pure.

What a type is called in PostgreSQL stands here; how its bytes are read from the
binlog stands in `wire`, and how they come in a SELECT in `selected`. The names
are spelled as PostgreSQL's `format_type` spells them, so that a column found in
the catalog can be compared with a column wanted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from config.errors import SchemaDrift
from config.privacy import HASH
from loader.keeping import DELETED_AT
from loader.masking import is_dropped, mask_of
from replicator.binlog.schema import Column, TableSchema

CLOSING_COLUMNS = (
    ("_loaded_at", "timestamp with time zone"),
    ("_source_ts", "timestamp with time zone"),
)
"""Every raw table ends with these: when the row was written here, when the source committed it.

A table that keeps deleted rows has `DELETED_AT` behind them.
"""

_FIXED = {
    "year": "smallint",
    "float": "real",
    "double": "double precision",
    "enum": "text",
    "set": "text",
    "date": "date",
    "time": "interval",
    "json": "jsonb",
}
_INTEGERS = {
    ("tinyint", False): "smallint",
    ("tinyint", True): "smallint",
    ("smallint", False): "smallint",
    ("smallint", True): "integer",
    ("mediumint", False): "integer",
    ("mediumint", True): "integer",
    ("int", False): "integer",
    ("int", True): "bigint",
    ("bigint", False): "bigint",
    ("bigint", True): "numeric(20,0)",
}
CHARACTER = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
BINARY = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
GEOMETRY = frozenset(
    {"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring",
     "multipolygon", "geometrycollection", "geomcollection"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RawColumn:
    """A column of a raw table: its name and its type as `format_type` spells it."""

    name: str
    type: str


def raw_type(column: Column) -> str:
    """PostgreSQL's type for a column; raises SchemaDrift for a type that the table lacks.

    Of the masks only `hash` makes another type of it.
    """
    kind = column.type
    mask = mask_of(column)
    if mask is not None and mask.kind == HASH:
        return "text"
    base = kind.base
    if (base, kind.unsigned) in _INTEGERS:
        return _INTEGERS[base, kind.unsigned]
    if base in _FIXED:
        return _FIXED[base]
    if base in CHARACTER:
        return "text" if kind.charset else "bytea"
    if base in BINARY or base in GEOMETRY:
        return "bytea"
    if base == "decimal":
        return f"numeric({kind.precision},{kind.scale})"
    if base == "bit":
        return f"bit({kind.length})"
    if base == "datetime":
        return f"timestamp({kind.fsp or 0}) without time zone"
    if base == "timestamp":
        return f"timestamp({kind.fsp or 0}) with time zone"
    raise SchemaDrift(
        f"column {column.name} has the type {base}, which has no place in PostgreSQL yet",
        hint="Exclude the table in tables.toml, or report the type.",
    )


def raw_columns(schema: TableSchema) -> tuple[RawColumn, ...]:
    """The columns of the raw table, without the closing two and those that are dropped."""
    return tuple(
        RawColumn(raw_name(c.name), raw_type(c)) for c in schema.columns if not is_dropped(c)
    )


MAX_NAME_BYTES = 63
_DIGEST_BYTES = 9
_KEPT_NAMES = frozenset(
    {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid", "_key", "_deleted", DELETED_AT}
    | {name for name, _ in CLOSING_COLUMNS}
)
"""Columns that PostgreSQL, or we, give to tables that we make."""


def raw_name(name: str) -> str:
    """The name in PostgreSQL: the same, unless it is longer than PostgreSQL's 63 bytes.

    A longer one keeps its beginning and ends in `~` and eight hex digits of its
    SHA-256, so that the same name is always shortened to the same. So does a name that
    stands for something else in PostgreSQL's tables, such as `ctid`.
    """
    if name in _KEPT_NAMES:
        return name + _digest(name)
    return shortened(name, MAX_NAME_BYTES)


def shortened(name: str, limit: int) -> str:
    """`name` in at most `limit` bytes of UTF-8, made unique by a digest where cut."""
    data = name.encode()
    if len(data) <= limit:
        return name
    return data[: limit - _DIGEST_BYTES].decode("utf-8", "ignore") + _digest(name)


def _digest(name: str) -> str:
    return "~" + hashlib.sha256(name.encode()).hexdigest()[:8]

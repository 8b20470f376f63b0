"""Primary keys as SQL text: ranges and single keys, the same text for every server. Pure.

Left: key columns and values as the bytes a server sent. Right: conditions that an
index can serve. Literals carry their charset, so that no conversion on the way can
make two keys one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from config.connections import quote_mysql_identifier as quote
from loader.masking import mask_of
from replicator.binlog.schema import Column, TableSchema

Literals = tuple[str, ...]
"""A key's values as MySQL literals, in key order."""

INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_TEXT = frozenset({"char", "varchar"})
_BYTES = frozenset({"binary", "varbinary"})
_QUOTED = frozenset({"date", "datetime", "timestamp"})
_CHUNKABLE = INTEGERS | _TEXT | _BYTES | _QUOTED | {"decimal"}
_HEX = re.compile(r"(?:_(\w+) )?x'([0-9a-f]*)'")
_CODECS = {"utf8mb3": "utf-8", "utf8mb4": "utf-8", "latin1": "cp1252", "ascii": "ascii"}


def key_columns(schema: TableSchema) -> tuple[Column, ...]:
    """The primary key's columns in key order."""
    return tuple(schema.columns[index] for index in schema.primary_key)


def chunkable(schema: TableSchema) -> bool:
    """Can the table be cut into ranges of its key?"""
    columns = key_columns(schema)
    return bool(columns) and all(column.type.base in _CHUNKABLE for column in columns)


def integral(schema: TableSchema) -> bool:
    """Is the key made of integers, which every server orders alike?"""
    columns = key_columns(schema)
    return bool(columns) and all(
        column.type.base in INTEGERS and mask_of(column) is None for column in columns
    )


def names(schema: TableSchema) -> list[str]:
    """The key's columns, quoted."""
    return [quote(column.name) for column in key_columns(schema)]


def literals(schema: TableSchema, values: Sequence[bytes]) -> Literals:
    """A key as literals; `values` as a connection without conversions gives them."""
    pairs = zip(key_columns(schema), values, strict=True)
    return tuple(_literal(column, value) for column, value in pairs)


def _literal(column: Column, value: bytes) -> str:
    base = column.type.base
    if base in _TEXT and column.type.charset:
        return f"_{column.type.charset} x'{value.hex()}'"
    if base in _TEXT or base in _BYTES:
        return f"x'{value.hex()}'"
    text = value.decode("ascii")
    return f"'{text}'" if base in _QUOTED else text


def between(columns: Sequence[str], after: Literals | None, upto: Literals | None) -> str:
    """The rows behind `after` and not behind `upto`, as a WHERE clause; "" for all rows."""
    parts = []
    if after is not None:
        parts += [f"{columns[0]} >= {after[0]}"] if len(columns) > 1 else []
        parts.append(_behind(columns, after))
    if upto is not None:
        parts.append(f"{columns[0]} <= {upto[0]}")
        parts += [f"NOT {_behind(columns, upto)}"] if len(columns) > 1 else []
    return " WHERE " + " AND ".join(parts) if parts else ""


def _behind(columns: Sequence[str], key: Literals) -> str:
    terms = []
    for depth, (name, value) in enumerate(zip(columns, key, strict=True)):
        equal = [f"{n} = {v}" for n, v in zip(columns[:depth], key[:depth], strict=True)]
        terms.append(" AND ".join([*equal, f"{name} > {value}"]))
    return "(" + " OR ".join(terms) + ")"


def among(columns: Sequence[str], wanted: Sequence[Literals]) -> str:
    """The rows with one of these keys, as a WHERE clause."""
    if len(columns) == 1:
        return f" WHERE {columns[0]} IN ({', '.join(key[0] for key in wanted)})"
    alternatives = (
        " AND ".join(f"{n} = {v}" for n, v in zip(columns, key, strict=True)) for key in wanted
    )
    return " WHERE (" + ") OR (".join(alternatives) + ")"


def readable(literal: str) -> str:
    """A literal as people write it: text in quotes instead of its bytes."""
    match = _HEX.fullmatch(literal)
    if match is None:
        return literal
    data = bytes.fromhex(match[2])
    codec = _CODECS.get(match[1] or "")
    return repr(data.decode(codec, "replace")) if codec else f"x'{match[2]}'"

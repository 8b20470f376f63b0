"""One SQL text that sums up a table's rows, the same on every MySQL and MariaDB. Pure.

Left: a table's schema. Right: a SELECT whose answer is equal on two servers if the
rows are, and differs otherwise but for one chance in 2^64.

A row's number is taken from SHA2 over all its columns, each as its length and
its bytes, NULL as a letter: so neither charsets nor separators nor NULL beside ''
can make two rows one. FLOAT comes as DOUBLE, since its own text has six digits;
large objects come as their own SHA2, since a server cuts what is longer than
max_allowed_packet. MD5 would do, but MySQL 9 has none any more.
"""

from __future__ import annotations

from config.connections import quote_mysql_identifier as quote
from replicator.binlog.schema import Column, TableSchema

SESSION = (
    "SET SESSION time_zone = '+00:00'",
    "SET SESSION sql_mode = ''",
    "SET SESSION character_set_results = NULL",
    "SET SESSION net_write_timeout = 3600",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
)
"""The session in which both servers must answer."""

_LARGE = frozenset({"mediumtext", "longtext", "mediumblob", "longblob", "json", "vector"})
_NUMBERED = frozenset({"enum", "set", "bit"})
_WHOLE = 2**64 - 1


def row_digest(schema: TableSchema) -> str:
    """The expression of a row's digest, 64 hex digits."""
    return f"SHA2(CONCAT({', '.join(map(_column, schema.columns))}), 256)"


def _column(column: Column) -> str:
    name, base = quote(column.name), column.type.base
    if base in _LARGE or "geom" in base or base in _SHAPES:
        return f"COALESCE(SHA2({name}, 256), 'N')"
    value = _bytes_of(name, base)
    return f"COALESCE(CONCAT(OCTET_LENGTH({value}), ':', {value}), 'N')"


_SHAPES = frozenset(
    {"point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"}
)


def _bytes_of(name: str, base: str) -> str:
    if base in ("float", "double"):
        return f"CAST({name} * 1e0 AS BINARY)"
    if base in _NUMBERED:
        return f"CAST({name} + 0 AS BINARY)"
    return f"CAST({name} AS BINARY)"


def summary(number: int, table: str, schema: TableSchema, where: str) -> str:
    """SELECT `number`, rows, rows with a digest, and two sums over the digests."""
    # The LIMIT keeps the optimizer from merging the inner SELECT, which would compute each
    # digest once for every use.
    return (
        f"SELECT {number}, COUNT(*), COUNT(h),"
        " COALESCE(BIT_XOR(CAST(CONV(LEFT(h, 16), 16, 10) AS UNSIGNED)), 0),"
        " COALESCE(SUM(CAST(CONV(RIGHT(h, 12), 16, 10) AS UNSIGNED)), 0)"
        f" FROM (SELECT {row_digest(schema)} AS h FROM {quote(table)}{where} LIMIT {_WHOLE}) AS d"
    )


def digests(table: str, schema: TableSchema, key: list[str], where: str) -> str:
    """SELECT each row's key columns and its digest."""
    return f"SELECT {', '.join(key)}, {row_digest(schema)} FROM {quote(table)}{where}"

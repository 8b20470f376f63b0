"""Read one column's value from a SELECT on the replica: raw bytes in, COPY text out. Pure.

`expression` says how a column must be selected to come exactly: FLOAT widened to
DOUBLE, since its own text has six digits, and both freed of DOUBLE(m,d)'s rounding;
YEAR(2) in four digits; times in UTC (the session's time zone); everything else as the
server sends it, strings in their stored bytes (the session's character_set_results is
NULL). `converter` turns what comes into the same COPY text that `wire` makes of the same
value in the binlog; `copyrows` knows the converters by their functions, and does compiled
what they do. One raises ValueError for bytes that no server sends for its type.
"""

from __future__ import annotations

import re
from functools import partial

from config.connections import quote_mysql_identifier
from config.errors import UnknownEvent
from loader import charsets, types
from loader.jsonb import jsonb
from loader.masking import converting
from loader.values import (
    IMPOSSIBLE_DATE,
    Faults,
    TextOf,
    ValueFault,
    bits,
    bytea,
    date_text,
    text_of,
)
from replicator.binlog.rowvalues import exact_float
from replicator.binlog.schema import Column, ColumnType

SESSION = (
    "SET SESSION time_zone = '+00:00', character_set_results = NULL, sql_mode = '',"
    " net_write_timeout = 86400",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
)


def expression(column: Column) -> str:
    """What to select for a column."""
    name = quote_mysql_identifier(column.name)
    base = column.type.base
    if base in ("float", "double"):
        return exact_float(name)
    if base == "binary":
        return f"CAST({name} AS BINARY({column.type.length}))"  # INET6 in its bytes too
    if base == "json":
        return f"CAST({name} AS CHAR CHARACTER SET utf8mb4)"
    if _is_spelled_by_server(column.type):
        return f"CONVERT({name} USING utf8mb4)"
    if base == "year":  # YEAR(2) shows two digits of the four that it holds; 1900 is its zero
        return f"IF(LENGTH({name}) = 2, IF(YEAR({name}) = 1900, 0, YEAR({name})), {name})"
    return name


def _is_spelled_by_server(kind: ColumnType) -> bool:
    """ENUM's and SET's members in a charset without a decoder: the stream knows them as text."""
    return kind.base in ("enum", "set") and charsets.decoder(kind.charset or "") is None


def converter(column: Column) -> TextOf:
    """How what comes for a column becomes COPY text, masked where the column is."""
    return converting(column, _converter(column))


def _converter(column: Column) -> TextOf:
    kind = column.type
    name = types.raw_name(column.name)
    if kind.base in types.CHARACTER or kind.base in ("enum", "set"):
        charset = "utf8mb4" if _is_spelled_by_server(kind) else kind.charset
        if charset:
            in_key = column.key_position is not None
            return partial(text, charset, text_of(name, charset, in_key=in_key))
        return bytea_text
    if kind.base == "json":
        return partial(json, name)
    if kind.base in types.BINARY or kind.base in types.GEOMETRY:
        return bytea_text
    if kind.base in _SUFFIX:
        return partial(moment, _SUFFIX[kind.base], name)
    if kind.base in ("float", "double"):
        return double
    if kind.base == "bit":
        return partial(bit_text, kind.length or 1)
    return digits if kind.base == "time" else number


def malformed(table: str) -> UnknownEvent:
    """Rows that are not as the protocol and the table's columns say."""
    return UnknownEvent(
        f"the replica's answer to a SELECT of table {table} cannot be read",
        hint="Nothing of it was kept. Start the loader again; if it stays so, report it.",
    )


def bytea_text(data: bytes, _faults: Faults) -> bytes:
    """Bytes for bytea."""
    return bytea(data)


def text(_charset: str, convert: TextOf, data: bytes, faults: Faults) -> bytes | None:
    """A string in the bytes of its character set."""
    return convert(data, faults)


def bit_text(width: int, data: bytes, _faults: Faults) -> bytes:
    """A BIT value."""
    return bits(data, width)


def json(name: str, data: bytes, faults: Faults) -> bytes | None:
    """MySQL's JSON, whose text may hold a NUL that jsonb cannot."""
    return jsonb(name, data, faults)


_DIGITS = re.compile(rb"[-.:0-9]+\Z")


def digits(data: bytes, _faults: Faults) -> bytes:
    """A TIME, as it comes."""
    if _DIGITS.match(data) is None:
        raise ValueError
    return data


def number(data: bytes, faults: Faults) -> bytes:
    """An integer, a YEAR, a DECIMAL: without the zeros of ZEROFILL and of the year 0."""
    sign = b"-" if data.startswith(b"-") else b""
    rest = data[len(sign) :]
    zeros = len(rest) - len(rest.lstrip(b"0"))
    if zeros and not rest[zeros : zeros + 1].isdigit():
        zeros -= 1  # the one before the point, or the only one
    return sign + (digits(rest[zeros:], faults) if rest else b"")


def double(data: bytes, _faults: Faults) -> bytes:
    """A number in the same spelling as the binlog's value gets: Python's shortest exact form."""
    return repr(float(data)).encode()


_MOMENT = re.compile(rb"(\d{4})-(\d\d)-(\d\d)(?: (\d\d:\d\d:\d\d(?:\.\d+)?))?\Z")
_SUFFIX = {"date": b"", "datetime": b"", "timestamp": b"+00"}


def moment(suffix: bytes, name: str, data: bytes, faults: Faults) -> bytes | None:
    """A DATE, DATETIME or TIMESTAMP."""
    parts = _MOMENT.match(data)
    day = date_text(*(int(part) for part in parts.group(1, 2, 3))) if parts else None
    if day is None:
        faults.append(ValueFault(name, data, IMPOSSIBLE_DATE))
        return None
    return data + suffix

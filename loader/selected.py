"""Read one column's value from a SELECT on the replica: raw bytes in, COPY text out. Pure.

`expression` says how a column must be selected to come exactly: FLOAT widened to
DOUBLE, since its own text has six digits, and both freed of DOUBLE(m,d)'s rounding;
times in UTC (the session's time zone); everything else as the server sends it,
strings in their stored bytes (the session's character_set_results is NULL). `converter` turns what
comes into the same COPY text that `wire` makes of the same value in the binlog.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from config.connections import quote_mysql_identifier
from loader import types
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
from replicator.binlog.schema import Column

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
        return f"{name} * 1e0"  # unlike + 0e0 this keeps the sign of -0.0
    if base == "binary":
        return f"CAST({name} AS BINARY({column.type.length}))"  # INET6 in its bytes too
    if base == "json":
        return f"CAST({name} AS CHAR CHARACTER SET utf8mb4)"
    return name


def converter(column: Column) -> TextOf | None:
    """How what comes for a column becomes COPY text; None where it already is."""
    kind = column.type
    name = types.raw_name(column.name)
    if kind.base in types.CHARACTER or kind.base in ("enum", "set"):
        return text_of(name, kind.charset) if kind.charset else _binary
    if kind.base == "json":
        return partial(_json, name, text_of(name, "utf8mb4"))
    if kind.base in types.BINARY or kind.base in types.GEOMETRY:
        return _binary
    special = _SPECIAL.get(kind.base)
    if special is not None:
        return special(name)
    if kind.base == "bit":
        return partial(_bits, kind.length or 1)
    return None


def _binary(data: bytes, _faults: Faults) -> bytes:
    return bytea(data)


def _bits(width: int, data: bytes, _faults: Faults) -> bytes:
    return bits(data, width)


def _json(name: str, convert: TextOf, data: bytes, faults: Faults) -> bytes | None:
    if rb"\u0000" in data:
        faults.append(ValueFault(name, data, "NUL in JSON"))
        return None
    return convert(data, faults)


def _year(_name: str, data: bytes, _faults: Faults) -> bytes:
    return b"%d" % int(data)


def _number(_name: str, data: bytes, _faults: Faults) -> bytes:
    # The same spelling as the binlog's value gets: Python's shortest exact form.
    return repr(float(data)).encode()


_MOMENT = re.compile(rb"(\d{4})-(\d\d)-(\d\d)(?: (\d\d:\d\d:\d\d(?:\.\d+)?))?\Z")


def _moment(suffix: bytes, name: str, data: bytes, faults: Faults) -> bytes | None:
    parts = _MOMENT.match(data)
    day = date_text(*(int(part) for part in parts.group(1, 2, 3))) if parts else None
    if day is None:
        faults.append(ValueFault(name, data, IMPOSSIBLE_DATE))
        return None
    return data + suffix


_SPECIAL: dict[str, Callable[[str], TextOf]] = {
    "year": lambda name: partial(_year, name),
    "float": lambda name: partial(_number, name),
    "double": lambda name: partial(_number, name),
    "date": lambda name: partial(_moment, b"", name),
    "datetime": lambda name: partial(_moment, b"", name),
    "timestamp": lambda name: partial(_moment, b"+00", name),
}

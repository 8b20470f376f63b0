"""One value in, its COPY text out, or a note that PostgreSQL cannot hold it. Pure.

Both ways into `raw`, the binlog (`wire`) and a SELECT on the replica (`selected`),
end in these functions, so that a row is written alike whichever way it came.
COPY's text format: a backslash before backslash, tab, newline and carriage
return; `\\N` for NULL; PostgreSQL manual, "COPY", "Text Format".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from loader import charsets

NULL = b"\\N"


class ValueFault(NamedTuple):
    """A value that PostgreSQL cannot hold: where, what it was, and why."""

    column: str
    original: bytes
    reason: str


Faults = list[ValueFault]
TextOf = Callable[[bytes, Faults], bytes | None]
"""A stored value to COPY text; None, with a fault noted, where it becomes NULL."""

_SPECIAL = re.compile(rb"[\\\t\n\r]")
_SPECIAL_OR_NUL = re.compile(rb"[\\\t\n\r\0]")
_ESCAPED = {b"\\": b"\\\\", b"\t": b"\\t", b"\n": b"\\n", b"\r": b"\\r"}
_UNESCAPED = {b"\\\\": b"\\", b"\\t": b"\t", b"\\n": b"\n", b"\\r": b"\r"}
_ESCAPE_PAIR = re.compile(rb"\\[\\tnr]")


def escaped(data: bytes) -> bytes:
    """UTF-8 bytes as COPY text."""
    if _SPECIAL.search(data) is None:
        return data
    return _SPECIAL.sub(lambda found: _ESCAPED[found.group()], data)


def unescaped(field: bytes) -> bytes | None:
    """The value behind one field of COPY text; None for NULL."""
    if field == NULL:
        return None
    if b"\\" not in field:
        return field
    return _ESCAPE_PAIR.sub(lambda found: _UNESCAPED[found.group()], field)


def fields_of(row: bytes) -> list[bytes | None]:
    """The values of a COPY text row."""
    return [unescaped(field) for field in row.split(b"\t")]


def text_of(column: str, charset: str, *, in_key: bool = False) -> TextOf:
    """How a character column's stored bytes become COPY text.

    A NUL, which PostgreSQL's text cannot hold, is written as the two characters
    backslash and zero; bytes that are not valid in `charset` become NULL. Both
    are noted with the original bytes. In a key a NUL becomes NULL too: backslash and
    zero may be the key of another row.
    """
    decode = charsets.decoder(charset)
    as_is = charsets.is_utf8(charset)

    def convert(data: bytes, faults: Faults) -> bytes | None:
        if as_is and data.isascii() and _SPECIAL_OR_NUL.search(data) is None:
            return data
        if decode is None:
            faults.append(ValueFault(column, data, f"no decoder for charset {charset}"))
            return None
        try:
            text = decode(data)
            utf8 = data if as_is else text.encode()
        except UnicodeError:
            faults.append(ValueFault(column, data, f"not valid {charset}"))
            return None
        if b"\0" in utf8:
            faults.append(ValueFault(column, data, "NUL in text"))
            if in_key:
                return None
            utf8 = utf8.replace(b"\0", b"\\0")
        return escaped(utf8)

    return convert


def bytea(data: bytes) -> bytes:
    """Bytes in PostgreSQL's hex form, its backslash escaped for COPY."""
    return b"\\\\x" + data.hex().encode()


def bits(data: bytes, width: int) -> bytes:
    """A BIT value, big-endian bytes, as `width` digits."""
    return format(int.from_bytes(data, "big"), f"0{width}b")[-width:].encode()


def float4(number: float) -> bytes:
    """A single-precision number, widened: PostgreSQL narrows it back without loss."""
    return repr(number).encode()


float8 = float4
"""A double's shortest text that reads back as the same double."""


def date_text(year: int, month: int, day: int) -> bytes | None:
    """A date, or None where it is none in PostgreSQL (zeros, 31 February)."""
    try:
        return date(year, month, day).isoformat().encode()
    except ValueError:
        return None


def clock_text(hour: int, minute: int, second: int, micros: int, fsp: int) -> str:
    """A time of day or duration with `fsp` fractional digits."""
    text = f"{hour:02d}:{minute:02d}:{second:02d}"
    return f"{text}.{micros:06d}"[: len(text) + 1 + fsp] if fsp else text


_EPOCH = datetime(1970, 1, 1)


def timestamp_text(seconds: int, micros: int, fsp: int) -> bytes | None:
    """A TIMESTAMP, seconds since 1970 in UTC; None for MySQL's zero timestamp."""
    if seconds == 0 and micros == 0:
        return None
    moment = _EPOCH + timedelta(seconds=seconds)
    clock = clock_text(moment.hour, moment.minute, moment.second, micros, fsp)
    return f"{moment.date().isoformat()} {clock}+00".encode()


_MOMENT = re.compile(r"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(\.\d{1,6})?\+00", re.ASCII)


@lru_cache(maxsize=64)
def stamp_text(moment: str | None) -> bytes:
    """When the source committed, as rows carry it: ISO 8601's basic form, the same moment.

    PostgreSQL reads it in two thirds of the time, and it does so once for each row.
    """
    if not moment:
        return NULL
    parts = _MOMENT.fullmatch(moment)
    if parts is None:
        return moment.encode()
    year, month, day, hour, minute, second, fraction = parts.groups("")
    return f"{year}{month}{day} {hour}{minute}{second}{fraction}Z".encode()


IMPOSSIBLE_DATE = "no such date in PostgreSQL"


def impossible(column: str, year: int, month: int, day: int, clock: str = "") -> ValueFault:
    """A date that PostgreSQL does not have; its original bytes are what the server prints."""
    printed = f"{year:04d}-{month:02d}-{day:02d}" + (" " + clock if clock else "")
    return ValueFault(column, printed.encode(), IMPOSSIBLE_DATE)

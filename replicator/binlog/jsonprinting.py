"""MySQL's binary JSON as the server prints it.

From the left come the bytes that a row image holds of a JSON column, to the right goes
the text that the server's SELECT gives for them, to the letter: numbers keep their form,
opaque elements print as base64:type<number>:…. Pure.

The bytes are not trusted: every offset is held against its container's end, depth is
bounded as the server bounds it, and a document has no more elements than bytes, so that
offsets which point to one place again and again cost no more than an honest document.

Format: MySQL `sql-common/json_binary.h`; what is printed how: `json_dom.cc`
(`wrapper_to_string`), doubles: `strings/dtoa.cc` (`my_gcvt`).
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from replicator.binlog.decimals import decimal_printer
from replicator.binlog.jsonencoding import (
    DATE_FIELD,
    DATETIME_FIELD,
    DECIMAL_FIELD,
    DOUBLE,
    FALSE,
    INT16,
    INT32,
    INT64,
    LARGE_ARRAY,
    LARGE_OBJECT,
    LITERAL,
    NULL,
    OPAQUE,
    SMALL_ARRAY,
    SMALL_OBJECT,
    STRING,
    TIME_FIELD,
    TIMESTAMP_FIELD,
    TRUE,
    UINT16,
    UINT32,
    UINT64,
)

MOST_DEPTH: Final = 100
_LITERALS: Final = {NULL: "null", TRUE: "true", FALSE: "false"}
_INTEGERS: Final = {
    INT16: (2, True), UINT16: (2, False), INT32: (4, True), UINT32: (4, False),
    INT64: (8, True), UINT64: (8, False),
}  # fmt: skip
_ESCAPES: Final = {code: f"\\u{code:04x}" for code in range(0x20)} | {
    ord('"'): '\\"', ord("\\"): "\\\\", 8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r",
}  # fmt: skip
_MOST_PLAIN_DIGITS: Final = 15
"""Places before or behind the point from which on the server prints an exponent."""


def printed_json(stored: bytes) -> str:
    """The text of a document; `ValueError` where it is malformed.

    No bytes at all is what ALTER TABLE … ADD a json NOT NULL leaves: the server reads null.
    """
    if not stored:
        return "null"
    try:
        return _Printer(len(stored)).element(stored[0], memoryview(stored)[1:], 0)
    except (IndexError, struct.error, OverflowError) as error:
        raise ValueError("a JSON document is cut short") from error


class _Printer:
    """Prints one document of so many bytes."""

    def __init__(self, size: int) -> None:
        self._left = size

    def element(self, code: int, data: memoryview, depth: int) -> str:
        """`data` begins with the element's bytes, and may go on behind them."""
        self._left -= 1
        if self._left < -1 or depth > MOST_DEPTH:
            raise ValueError("a JSON document of more elements than it can have")
        if code in (SMALL_OBJECT, LARGE_OBJECT, SMALL_ARRAY, LARGE_ARRAY):
            wide = 4 if code in (LARGE_OBJECT, LARGE_ARRAY) else 2
            return self._container(data, wide, depth, keyed=code <= LARGE_OBJECT)
        return _scalar(code, data)

    def _container(self, data: memoryview, wide: int, depth: int, *, keyed: bool) -> str:
        count, size = _number(data, 0, wide), _number(data, wide, wide)
        key_entry = wide + 2 if keyed else 0
        values_at = 2 * wide + count * key_entry
        first = values_at + count * (1 + wide)
        if not first <= size <= len(data):
            raise ValueError("a JSON container goes beyond its end")
        data = data[:size]
        items = []
        for at in range(count):
            value = self._value(data, values_at + at * (1 + wide), wide, first, depth)
            if keyed:
                key = _key(data, 2 * wide + at * key_entry, wide, first)
                items.append(f"{_quoted(key)}: {value}")
            else:
                items.append(value)
        return "{" + ", ".join(items) + "}" if keyed else "[" + ", ".join(items) + "]"

    def _value(self, data: memoryview, entry: int, wide: int, first: int, depth: int) -> str:
        code = data[entry]
        if code == LITERAL or (code in _INTEGERS and _INTEGERS[code][0] <= wide):
            return self.element(code, data[entry + 1 : entry + 1 + wide], depth + 1)
        offset = _number(data, entry + 1, wide)
        if not first <= offset < len(data):
            raise ValueError("a JSON element lies outside its container")
        return self.element(code, data[offset:], depth + 1)


def _key(data: memoryview, entry: int, wide: int, first: int) -> memoryview:
    offset, length = _number(data, entry, wide), _number(data, entry + wide, 2)
    if not first <= offset <= len(data) - length:
        raise ValueError("a JSON key lies outside its container")
    return data[offset : offset + length]


def _number(data: memoryview, at: int, size: int) -> int:
    if at + size > len(data):
        raise ValueError("a JSON document is cut short")
    return int.from_bytes(data[at : at + size], "little")


# --- scalars -----------------------------------------------------------------------------


def _scalar(code: int, data: memoryview) -> str:
    if code in _INTEGERS:
        size, signed = _INTEGERS[code]
        return str(int.from_bytes(_exactly(data, 0, size), "little", signed=signed))
    if code == LITERAL and data[0] in _LITERALS:
        return _LITERALS[data[0]]
    if code == DOUBLE:
        return printed_double(struct.unpack("<d", _exactly(data, 0, 8))[0])
    if code == STRING:
        return _quoted(_measured(data, 0))
    if code == OPAQUE:
        return _opaque(data[0], _measured(data, 1))
    raise ValueError("a JSON element of an unknown kind")


def _exactly(data: memoryview, at: int, size: int) -> memoryview:
    if size > len(data) - at:
        raise ValueError("a JSON element is cut short")
    return data[at : at + size]


def _measured(data: memoryview, at: int) -> memoryview:
    """The bytes behind a length at `at`: seven bits a byte, five at most."""
    length = 0
    for place in range(5):
        byte = data[at + place]
        length |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            return _exactly(data, at + place + 1, length)
    raise ValueError("a length in JSON that does not end")


def _quoted(data: memoryview) -> str:
    return f'"{bytes(data).decode().translate(_ESCAPES)}"'


def printed_double(number: float) -> str:
    """The shortest digits that mean the number, with a point or an exponent."""
    if not math.isfinite(number):
        raise ValueError("a number that JSON does not have")
    digits, point = _digits(abs(number))
    sign = "-" if struct.pack(">d", number)[0] & 0x80 else ""
    plain = point <= _MOST_PLAIN_DIGITS or len(digits) > point
    if plain and point > -_MOST_PLAIN_DIGITS:
        if point <= 0:
            return f"{sign}0.{'0' * -point}{digits}"
        whole = digits[:point].ljust(point, "0")
        return f"{sign}{whole}.{digits[point:] or '0'}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1}"


def _digits(number: float) -> tuple[str, int]:
    """Significant digits, and how many of them (fewer than none, too) stand before the point."""
    mantissa, _, exponent = f"{number!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    return digits.rstrip("0") or "0", point if digits.strip("0") else 1


def _opaque(field: int, data: memoryview) -> str:
    kind = _OPAQUES.get(field)
    if kind is not None:
        return kind(data)
    lines = base64.b64encode(data).decode()
    broken = "\\n".join(lines[at : at + 76] for at in range(0, len(lines), 76))
    return f'"base64:type{field}:{broken}"'


def _decimal(data: memoryview) -> str:
    return _decimals(data[0], data[1])(data[2:])


@lru_cache(maxsize=256)
def _decimals(precision: int, scale: int) -> Callable[[memoryview], str]:
    if not scale <= precision:
        raise ValueError("a decimal of fewer digits than its fraction has")
    return decimal_printer(precision, scale)


def _date(data: memoryview) -> str:
    return f'"{_day(_moment(data)[0] >> 17)}"'


def _datetime(data: memoryview) -> str:
    packed, micros = _moment(data)
    return f'"{_day(packed >> 17)} {_clock(packed & 0x1FFFF, micros)}"'


def _time(data: memoryview) -> str:
    (number,) = struct.unpack("<q", _exactly(data, 0, 8))
    packed, micros = divmod(abs(number), 1 << 24)
    return f'"{"-" if number < 0 else ""}{_clock(packed, micros)}"'


def _moment(data: memoryview) -> tuple[int, int]:
    (number,) = struct.unpack("<q", _exactly(data, 0, 8))
    return number >> 24, number & 0xFFFFFF


def _day(packed: int) -> str:
    year, month = divmod(packed >> 5, 13)
    return f"{year:04}-{month:02}-{packed & 0x1F:02}"


def _clock(packed: int, micros: int) -> str:
    hours, minutes, seconds = packed >> 12, packed >> 6 & 0x3F, packed & 0x3F
    return f"{hours:02}:{minutes:02}:{seconds:02}.{micros:06}"


_OPAQUES: Final[dict[int, Callable[[memoryview], str]]] = {
    DECIMAL_FIELD: _decimal,
    DATE_FIELD: _date,
    DATETIME_FIELD: _datetime,
    TIMESTAMP_FIELD: _datetime,
    TIME_FIELD: _time,
}

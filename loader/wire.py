"""Read one column's value from a binlog row image: bytes and an offset in, COPY text out. Pure.

`reader` compiles a column into a function, `skipper` into the little that is
needed to step over it. Nothing here checks the buffer's end for each value: a
value that runs past it leaves the offset beyond the end, or raises IndexError or
struct.error, and the caller checks for both once a row.

Formats: MariaDB `sql/field.cc` (the `pack` and `unpack` of each field) and
`sql/compat56.cc` for the temporal types; MySQL `mysys/decimal.cc`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import partial

from config.errors import SchemaDrift, UnknownEvent
from loader import types
from loader.jsonb import json_text
from loader.values import (
    Faults,
    TextOf,
    ValueFault,
    bits,
    bytea,
    clock_text,
    date_text,
    escaped,
    float4,
    float8,
    impossible,
    text_of,
    timestamp_text,
    unescaped,
)
from replicator.binlog.events import real_type
from replicator.binlog.schema import Column

Reader = Callable[[bytes, int, Faults], tuple[bytes | None, int]]
"""(row image, offset, faults) to (COPY text or None, offset behind the value)."""

Skip = tuple[int, int]
"""(fixed bytes, width of a length prefix): one of the two is zero."""

_INTEGER_WIDTH = {1: 1, 2: 2, 9: 3, 3: 4, 8: 8}
_FIXED_WIDTH = {**_INTEGER_WIDTH, 4: 4, 5: 8, 7: 4, 10: 3, 14: 3, 11: 3, 12: 8, 13: 1}
_BLOBS = frozenset({140, 242, 245, 249, 250, 251, 252, 255})
_TEMPORAL2_BASE = {17: 4, 18: 5, 19: 3}


def skipper(code: int, metadata: int) -> Skip:
    """How far a value of this type reaches: see `Skip`."""
    code = real_type(code, metadata)
    if code in _FIXED_WIDTH:
        return _FIXED_WIDTH[code], 0
    if code in _TEMPORAL2_BASE:
        return _TEMPORAL2_BASE[code] + _fraction_width(metadata), 0
    if code == 246:
        return _decimal_width(metadata & 0xFF, metadata >> 8), 0
    if code in (15, 141, 253):
        return 0, 1 if metadata < 256 else 2
    if code in _BLOBS:
        return 0, metadata & 0xFF
    if code == 16:
        return (metadata >> 8) + (1 if metadata & 0xFF else 0), 0
    if code in (247, 248):
        return metadata >> 8, 0
    if code == 254:
        return 0, 1 if _string_length(metadata) < 256 else 2
    raise SchemaDrift(f"binlog column type {code} is not known", hint="Report the type.")


def _string_length(metadata: int) -> int:
    """Bytes of a STRING column: two bits of its high part hide, inverted, in the type byte."""
    kind, length = metadata & 0xFF, metadata >> 8
    if kind & 0x30 != 0x30:
        return length | ((kind & 0x30) ^ 0x30) << 4
    return length


def _fraction_width(fsp: int) -> int:
    return (fsp + 1) // 2


def reader(column: Column, code: int, metadata: int) -> Reader:
    """Compile a column: its schema says what the value means, `code` and `metadata` how it lies."""
    code = real_type(code, metadata)
    name = types.raw_name(column.name)
    if code in _INTEGER_WIDTH:
        return partial(_integer, _INTEGER_WIDTH[code], not column.type.unsigned)
    simple = _SIMPLE.get(code)
    if simple is not None:
        return partial(simple, name)
    if code in _TEMPORAL2_BASE:
        return partial(_TEMPORAL2[code], name, metadata)
    if code == 246:
        return _decimal(metadata & 0xFF, metadata >> 8)
    if code == 16:
        return partial(_bit, skipper(code, metadata)[0], column.type.length or 1)
    if code == 247:
        return _without_nul(name, column, partial(_enum, name, metadata >> 8, _members(column)))
    if code == 248:
        return _without_nul(name, column, partial(_set, metadata >> 8, _members(column)))
    return _string_reader(column, name, code, metadata)


def _members(column: Column) -> list[bytes]:
    return [escaped(member.encode()) for member in column.type.values]


def _without_nul(name: str, column: Column, read: Reader) -> Reader:
    """ENUM and SET as `read` does; where a member has a NUL, as `text_of` does with texts."""
    if not any("\0" in member for member in column.type.values):
        return read
    convert = text_of(name, "utf8mb4", in_key=column.key_position is not None)

    def checked(data: bytes, at: int, faults: Faults) -> tuple[bytes | None, int]:
        value, at = read(data, at, faults)
        return None if value is None else convert(unescaped(value) or b"", faults), at

    return checked


def _string_reader(column: Column, name: str, code: int, metadata: int) -> Reader:
    prefix = skipper(code, metadata)[1]
    convert = stored_text(column, name)
    if code in (140, 141):
        return partial(_compressed, name, prefix, convert)
    return partial(_string, prefix, convert)


def stored_text(column: Column, name: str) -> TextOf:
    """How a string column's stored bytes become COPY text: text, bytea or jsonb."""
    kind = column.type
    if kind.base == "json":
        return partial(_json, name)
    if kind.base == "binary":
        return partial(_padded_binary, kind.length or 0)
    if kind.base in types.CHARACTER and kind.charset:
        return text_of(name, kind.charset, in_key=column.key_position is not None)
    return _binary


def _binary(data: bytes, _faults: Faults) -> bytes:
    return bytea(data)


def _padded_binary(length: int, data: bytes, _faults: Faults) -> bytes:
    # The row image leaves out the zero bytes that pad a BINARY(n) value.
    return bytea(data.ljust(length, b"\0"))


def _integer(width: int, signed: bool, data: bytes, at: int, _faults: Faults) -> tuple[bytes, int]:
    end = at + width
    return b"%d" % int.from_bytes(data[at:end], "little", signed=signed), end


def _year(_name: str, data: bytes, at: int, _faults: Faults) -> tuple[bytes, int]:
    stored = data[at]
    return b"%d" % (stored + 1900 if stored else 0), at + 1


def _float(_name: str, data: bytes, at: int, _faults: Faults) -> tuple[bytes, int]:
    return float4(struct.unpack_from("<f", data, at)[0]), at + 4


def _double(_name: str, data: bytes, at: int, _faults: Faults) -> tuple[bytes, int]:
    return float8(struct.unpack_from("<d", data, at)[0]), at + 8


def _date(name: str, data: bytes, at: int, faults: Faults) -> tuple[bytes | None, int]:
    packed = int.from_bytes(data[at : at + 3], "little")
    year, month, day = packed >> 9, packed >> 5 & 15, packed & 31
    value = date_text(year, month, day)
    if value is None:
        faults.append(impossible(name, year, month, day))
    return value, at + 3


def _old_time(_name: str, data: bytes, at: int, _faults: Faults) -> tuple[bytes, int]:
    packed = int.from_bytes(data[at : at + 3], "little", signed=True)
    rest, second = divmod(abs(packed), 100)
    hour, minute = divmod(rest, 100)
    sign = "-" if packed < 0 else ""
    return f"{sign}{clock_text(hour, minute, second, 0, 0)}".encode(), at + 3


def _old_datetime(name: str, data: bytes, at: int, faults: Faults) -> tuple[bytes | None, int]:
    packed = int.from_bytes(data[at : at + 8], "little")
    day_part, time_part = divmod(packed, 1_000_000)
    year, month, day = day_part // 10_000, day_part // 100 % 100, day_part % 100
    clock = clock_text(time_part // 10_000, time_part // 100 % 100, time_part % 100, 0, 0)
    return _moment(name, year, month, day, clock, faults), at + 8


def _moment(name: str, year: int, month: int, day: int, clock: str, faults: Faults) -> bytes | None:
    value = date_text(year, month, day)
    if value is None:
        faults.append(impossible(name, year, month, day, clock))
        return None
    return value + b" " + clock.encode()


def _old_timestamp(name: str, data: bytes, at: int, faults: Faults) -> tuple[bytes | None, int]:
    return _since_1970(name, int.from_bytes(data[at : at + 4], "little"), 0, 0, faults), at + 4


def _since_1970(name: str, seconds: int, micros: int, fsp: int, faults: Faults) -> bytes | None:
    value = timestamp_text(seconds, micros, fsp)
    if value is None:
        faults.append(impossible(name, 0, 0, 0, clock_text(0, 0, 0, 0, fsp)))
    return value


_SIMPLE: dict[int, Callable[[str, bytes, int, Faults], tuple[bytes | None, int]]] = {
    4: _float,
    5: _double,
    7: _old_timestamp,
    10: _date,
    11: _old_time,
    12: _old_datetime,
    13: _year,
    14: _date,
}


def _micros(fraction: int, fsp: int) -> int:
    """A stored fraction, in units of its bytes' decimal width, as microseconds."""
    return int(fraction * 10 ** (6 - 2 * _fraction_width(fsp)))


def _timestamp2(
    name: str, fsp: int, data: bytes, at: int, faults: Faults
) -> tuple[bytes | None, int]:
    end = at + 4 + _fraction_width(fsp)
    seconds = int.from_bytes(data[at : at + 4], "big")
    micros = _micros(int.from_bytes(data[at + 4 : end], "big"), fsp)
    return _since_1970(name, seconds, micros, fsp, faults), end


def _datetime2(
    name: str, fsp: int, data: bytes, at: int, faults: Faults
) -> tuple[bytes | None, int]:
    end = at + 5 + _fraction_width(fsp)
    packed = int.from_bytes(data[at : at + 5], "big") - 0x8000000000
    year, month = divmod(packed >> 22, 13)
    micros = _micros(int.from_bytes(data[at + 5 : end], "big"), fsp)
    clock = clock_text(packed >> 12 & 31, packed >> 6 & 63, packed & 63, micros, fsp)
    return _moment(name, year, month, packed >> 17 & 31, clock, faults), end


def _time2(_name: str, fsp: int, data: bytes, at: int, _faults: Faults) -> tuple[bytes, int]:
    width = _fraction_width(fsp)
    end = at + 3 + width
    packed = int.from_bytes(data[at:end], "big") - (0x800000 << 8 * width)
    whole, fraction = divmod(abs(packed), 1 << 8 * width)
    clock = clock_text(
        whole >> 12 & 0x3FF, whole >> 6 & 63, whole & 63, _micros(fraction, fsp), fsp
    )
    return (f"-{clock}" if packed < 0 else clock).encode(), end


_TEMPORAL2 = {17: _timestamp2, 18: _datetime2, 19: _time2}

_DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
"""Bytes that hold a group of so many decimal digits."""


def _decimal_width(precision: int, scale: int) -> int:
    whole = precision - scale
    return whole // 9 * 4 + _DIGIT_BYTES[whole % 9] + scale // 9 * 4 + _DIGIT_BYTES[scale % 9]


def _decimal(precision: int, scale: int) -> Reader:
    whole = precision - scale
    whole_groups = ([whole % 9] if whole % 9 else []) + [9] * (whole // 9)
    scale_groups = [9] * (scale // 9) + ([scale % 9] if scale % 9 else [])
    width = _decimal_width(precision, scale)
    flip = (1 << 8 * width) - 1
    sign_bit = 1 << 8 * width - 1

    def read(data: bytes, at: int, _faults: Faults) -> tuple[bytes, int]:
        stored = int.from_bytes(data[at : at + width], "big")
        negative = not stored & sign_bit
        stored = (stored ^ flip if negative else stored) ^ sign_bit
        plain = stored.to_bytes(width, "big")
        head, used = _digits(plain, 0, whole_groups)
        tail, _ = _digits(plain, used, scale_groups)
        text = (head.lstrip("0") or "0") + ("." + tail if tail else "")
        return (f"-{text}" if negative else text).encode(), at + width

    return read


def _digits(data: bytes, at: int, groups: list[int]) -> tuple[str, int]:
    text = []
    for digits in groups:
        end = at + _DIGIT_BYTES[digits]
        text.append(f"{int.from_bytes(data[at:end], 'big'):0{digits}d}")
        at = end
    return "".join(text), at


def _bit(width: int, digits: int, data: bytes, at: int, _faults: Faults) -> tuple[bytes, int]:
    return bits(data[at : at + width], digits), at + width


def _enum(
    name: str, width: int, members: list[bytes], data: bytes, at: int, faults: Faults
) -> tuple[bytes | None, int]:
    end = at + width
    number = int.from_bytes(data[at:end], "little")
    if number == 0:
        return b"", end
    if number > len(members):
        faults.append(ValueFault(name, data[at:end], "no such enum member"))
        return None, end
    return members[number - 1], end


def _set(
    width: int, members: list[bytes], data: bytes, at: int, _faults: Faults
) -> tuple[bytes, int]:
    end = at + width
    chosen = int.from_bytes(data[at:end], "little")
    text = b""
    for bit, member in enumerate(members):
        if chosen >> bit & 1:
            # As the server prints it: no comma behind nothing, so an empty member leaves no trace.
            text = text + b"," + member if text else member
    return text, end


def _string(
    prefix: int, convert: TextOf, data: bytes, at: int, faults: Faults
) -> tuple[bytes | None, int]:
    start = at + prefix
    end = start + int.from_bytes(data[at:start], "little")
    if end > len(data):
        raise IndexError
    return convert(data[start:end], faults), end


def _compressed(
    _name: str, prefix: int, convert: TextOf, data: bytes, at: int, faults: Faults
) -> tuple[bytes | None, int]:
    start = at + prefix
    end = start + int.from_bytes(data[at:start], "little")
    if end > len(data):
        raise IndexError
    return convert(_inflated(data[start:end]), faults), end


def _inflated(stored: bytes) -> bytes:
    """MariaDB's COMPRESSED column: a method byte, the length, zlib (`sql/field_comp.cc`)."""
    if not stored or stored[0] == 0:
        return stored[1:]
    method, raw, width = stored[0] >> 4, stored[0] & 8, stored[0] & 7
    if method != 8:
        raise UnknownEvent(
            f"a compressed column uses the unknown method {method}", hint="Report the method."
        )
    try:
        return zlib.decompress(stored[1 + width :], -15 if raw else 15)
    except zlib.error as error:
        raise UnknownEvent(
            "a compressed column's value cannot be unpacked", hint="Resync the table."
        ) from error


def _json(name: str, data: bytes, faults: Faults) -> bytes | None:
    return json_text(name, data, faults)

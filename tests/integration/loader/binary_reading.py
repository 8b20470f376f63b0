"""What binary rows say, and what a line of text says, as Python reads each: the two must agree.

Python's own readers of numbers and times are the oracle for the compiled module's.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction

from loader.values import fields_of

INT2, INT4, INT8, BOOL, FLOAT4, FLOAT8, NUMERIC, BIT = 21, 23, 20, 16, 700, 701, 1700, 1560
DATE, TIMESTAMP, TIMESTAMPTZ, INTERVAL, TEXT, JSONB, BYTEA = 1082, 1114, 1184, 1186, 25, 3802, 17
TYPES = (
    INT2, INT4, INT8, BOOL, FLOAT4, FLOAT8, NUMERIC, BIT, DATE, TIMESTAMP, TIMESTAMPTZ, INTERVAL,
    TEXT, JSONB, BYTEA,
)  # fmt: skip
_CLOCK = re.compile(rb"(-?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?", re.ASCII)
_EPOCH = datetime(2000, 1, 1)
_LARGEST = 0x7F7FFFFF
"""The bits of the largest float."""

Fields = list[bytes | None]


def rows_of(data: bytes, width: int) -> list[Fields]:
    """Tuples without header and trailer; fails where one is not whole."""
    rows: list[Fields] = []
    at = 0
    while at < len(data):
        assert struct.unpack_from("!h", data, at) == (width,)
        at += 2
        row: Fields = []
        for _ in range(width):
            (length,) = struct.unpack_from("!i", data, at)
            at += 4
            assert -1 <= length <= len(data) - at
            row.append(None if length < 0 else data[at : at + length])
            at += max(length, 0)
        rows.append(row)
    return rows


def said(kind: int, payload: bytes) -> object:
    """The value of a binary field."""
    if kind in _PACKED:
        return struct.unpack(_PACKED[kind], payload)[0]
    if kind == NUMERIC:
        return _numeric(payload)
    if kind == BIT:
        (count,) = struct.unpack_from("!i", payload)
        digits = "".join(f"{byte:08b}" for byte in payload[4:])
        assert len(payload) == 4 + (count + 7) // 8
        assert set(digits[count:]) <= {"0"}
        return digits[:count]
    if kind == DATE:
        return _EPOCH.date() + timedelta(days=struct.unpack("!i", payload)[0])
    if kind in (TIMESTAMP, TIMESTAMPTZ):
        return _EPOCH + timedelta(microseconds=struct.unpack("!q", payload)[0])
    if kind == INTERVAL:
        micros, days, months = struct.unpack("!qii", payload)
        assert (days, months) == (0, 0)
        return timedelta(microseconds=micros)
    if kind == JSONB:
        assert payload[:1] == b"\1"
        return payload[1:]
    return payload


_PACKED = {INT2: "!h", INT4: "!i", INT8: "!q", BOOL: "!?", FLOAT4: "!f", FLOAT8: "!d"}


def _numeric(payload: bytes) -> tuple[Decimal, int]:
    """The number and the digits shown behind the dot; `-0` is 0 to PostgreSQL."""
    count, weight, sign, scale = struct.unpack_from("!hhHH", payload)
    assert len(payload) == 8 + 2 * count
    groups = struct.unpack_from(f"!{count}H", payload, 8)
    assert all(group < 10000 for group in groups)
    assert sign in (0, 0x4000)
    with localcontext() as context:
        context.prec = 5000
        number = sum(
            (Decimal(g).scaleb(4 * (weight - n)) for n, g in enumerate(groups)), Decimal(0)
        )
        return (-number if sign else number), scale


def meant(kind: int, text: bytes) -> object:
    """The value that a field's text, without its escapes, stands for."""
    return _MEANT[kind](text)


def _single(text: bytes) -> float:
    """The nearest float, by exact arithmetic: the double's own nearest one, or a neighbour."""
    exact = abs(Fraction(text.decode()))
    (bits,) = struct.unpack("!I", struct.pack("!f", abs(float(text))))
    near = range(max(bits - 1, 0), min(bits + 1, _LARGEST) + 1)
    around = [struct.unpack("!f", struct.pack("!I", each))[0] for each in near]
    even_first = sorted(around, key=lambda f: struct.pack("!f", f)[-1] & 1)
    found: float = min(even_first, key=lambda f: abs(Fraction(f) - exact))
    return -found if text.startswith(b"-") else found


def _bytes(text: bytes) -> bytes:
    assert text.startswith(b"\\x")
    return bytes.fromhex(text[2:].decode())


def _moment(text: bytes) -> datetime:
    found = datetime.fromisoformat(text.decode())
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found


def _duration(text: bytes) -> timedelta:
    parts = _CLOCK.fullmatch(text)
    assert parts
    sign, hours, minutes, seconds, fraction = parts.groups(b"")
    found = timedelta(
        hours=int(hours), minutes=int(minutes), seconds=int(seconds),
        microseconds=int(fraction.ljust(6, b"0")),
    )  # fmt: skip
    return -found if sign else found


def _decimal(text: bytes) -> tuple[Decimal, int]:
    return Decimal(text.decode()), len(text.partition(b".")[2])


def _whole(text: bytes) -> int:
    return int(text)


_MEANT: dict[int, Callable[[bytes], object]] = {
    INT2: _whole, INT4: _whole, INT8: _whole, BOOL: {b"t": True, b"f": False}.__getitem__,
    FLOAT4: _single, FLOAT8: float, NUMERIC: _decimal, BIT: bytes.decode,
    DATE: lambda text: date.fromisoformat(text.decode()), TIMESTAMP: _moment, TIMESTAMPTZ: _moment,
    INTERVAL: _duration, TEXT: bytes, JSONB: bytes, BYTEA: _bytes,
}  # fmt: skip


def assert_same(lines: bytes, made: bytes, types: Sequence[int]) -> int:
    """The binary rows say what the lines say; how many there are."""
    rows = rows_of(made, len(types))
    texts = lines.split(b"\n")[:-1]
    assert len(rows) == len(texts)
    for row, line in zip(rows, texts, strict=True):
        fields = fields_of(line)
        assert len(fields) == len(types)
        for kind, payload, field in zip(types, row, fields, strict=True):
            if payload is None or field is None:
                assert payload is field is None
                continue
            ours, theirs = said(kind, payload), meant(kind, field)
            assert ours == theirs, (kind, field)
            assert str(ours) == str(theirs) or kind == NUMERIC, (kind, field)  # the sign of zero
    return len(rows)

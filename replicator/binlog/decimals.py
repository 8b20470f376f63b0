"""DECIMAL as it is stored: groups of nine digits, big-endian.

From the left comes a number as it is printed, to the right goes what a row image or a
JSON document holds of it; and back. Pure.

Format: MariaDB `strings/decimal.c`, MySQL `mysys/decimal.cc` (`decimal2bin`, `bin2decimal`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_BYTES: Final = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
"""Bytes that a group of so many decimal digits takes."""


def decimal_encoder(precision: int, scale: int) -> Callable[[bytes], bytes]:
    """NEWDECIMAL: groups of nine digits, big-endian, the first bit flipped, all if negative."""
    whole = precision - scale
    size = decimal_size(precision, scale)
    flipped = (1 << (8 * size)) - 1
    top = 1 << (8 * size - 1)
    groups = _groups(precision, scale)

    def encode(printed: bytes) -> bytes:
        negative = printed[:1] == b"-"
        left, _, right = printed[negative:].partition(b".")
        digits = left.lstrip(b"0").rjust(whole, b"0") + right.ljust(scale, b"0")
        if len(digits) != precision:
            raise ValueError("more digits than the column has")
        number, at = 0, 0
        for count in groups:
            number = number << 8 * _BYTES[count] | int(digits[at : at + count])
            at += count
        if negative and number:
            number ^= flipped
        return (number ^ top).to_bytes(size, "big")

    return encode


def decimal_size(precision: int, scale: int) -> int:
    """Bytes of a NEWDECIMAL(precision, scale)."""
    whole = precision - scale
    return 4 * (whole // 9 + scale // 9) + _BYTES[whole % 9] + _BYTES[scale % 9]


def decimal_printer(precision: int, scale: int) -> Callable[[bytes | memoryview], str]:
    """The way back: as the server prints it, without zeros in front but for one."""
    whole = precision - scale
    size = decimal_size(precision, scale)
    flipped = (1 << (8 * size)) - 1
    top = 1 << (8 * size - 1)
    groups = _groups(precision, scale)

    def printed(stored: bytes | memoryview) -> str:
        if len(stored) != size:
            raise ValueError("a decimal of another size than its digits take")
        number = int.from_bytes(stored, "big") ^ top
        negative = number & top
        if negative:
            number ^= flipped
        digits = ""
        for count in reversed(groups):
            digits = f"{number & ((1 << 8 * _BYTES[count]) - 1):0{count}d}" + digits
            number >>= 8 * _BYTES[count]
        if len(digits) != precision:
            raise ValueError("a group of more digits than it has")
        left = digits[:whole].lstrip("0") or "0"
        return ("-" if negative else "") + left + ("." + digits[whole:] if scale else "")

    return printed


def _groups(precision: int, scale: int) -> list[int]:
    """Digits that stand together, in order: short groups outside, nines around the point."""
    whole = precision - scale
    groups = [whole % 9, *[9] * (whole // 9 + scale // 9), scale % 9]
    return [digits for digits in groups if digits]

"""The value that a new column has in the rows that are there already. Pure.

Left: a DEFAULT as the statement spells it, and the column's type. Right: the value
as PostgreSQL reads it in `raw`, only where the server's own conversion is beyond
doubt: no rounding, no cutting, no value that PostgreSQL cannot hold.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal

from replicator.binlog.schema import ColumnType


@dataclass(frozen=True, slots=True)
class Fill:
    """A literal: its text, whether it stood in quotes, or NULL (`text` is None)."""

    text: str | None
    quoted: bool = False


class Uncertain(Exception):
    """Only the server knows the value."""


_NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+")
_INTEGER = re.compile(r"[+-]?\d{1,20}")
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)(?: (\d\d:\d\d:\d\d)(\.\d{1,6})?)?")
_TIME = re.compile(r"-?\d\d:([0-5]\d):([0-5]\d)")
_WORDS = {"NULL": Fill(None), "TRUE": Fill("1"), "FALSE": Fill("0")}


def literal(tokens: Sequence[str]) -> Fill | None:
    """A plain literal: NULL, TRUE, FALSE, a number with or without a sign, a string."""
    if len(tokens) == 2 and tokens[0] in "+-" and _NUMBER.fullmatch(tokens[1]):
        return Fill("".join(tokens).lstrip("+"))
    if len(tokens) != 1:
        return None
    text = tokens[0]
    if text.upper() in _WORDS:
        return _WORDS[text.upper()]
    if _NUMBER.fullmatch(text):
        return Fill(text)
    if len(text) >= 2 and text[0] in "'\"" and text[-1] == text[0] and "\\" not in text:
        return Fill(text[1:-1].replace(text[0] * 2, text[0]), quoted=True)
    return None


def fill_of(kind: ColumnType, nullable: bool, default: Fill | None) -> str | None:
    """What the column holds in rows that were there before it; raises Uncertain."""
    if default is not None and default.text is None:
        if not nullable:
            raise Uncertain
        return None
    if kind.base == "timestamp" and not (nullable and default is None):
        raise Uncertain  # the session's time zone, or the moment of the change
    if default is None:
        return None if nullable else _implicit(kind)
    return _converted(kind, default)


def _implicit(kind: ColumnType) -> str:
    """What NOT NULL without a DEFAULT gives."""
    base = kind.base
    if base in _RANGES or base in ("decimal", "float", "double"):
        return "0"
    if base in ("char", "varchar", "set") or base.endswith("text"):
        return ""
    if base == "varbinary" or base.endswith("blob"):
        return ""
    if base == "time":
        return "00:00:00"
    if base == "enum" and kind.values:
        return kind.values[0]
    raise Uncertain


_RANGES = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}


def integer_range(kind: ColumnType) -> tuple[int, int] | None:
    """The least and the greatest value of an integer type."""
    bits = _RANGES.get(kind.base)
    if bits is None:
        return None
    return (0, 2**bits - 1) if kind.unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _converted(kind: ColumnType, default: Fill) -> str:
    text = default.text or ""
    bounds = integer_range(kind)
    if bounds is not None:
        if _INTEGER.fullmatch(text) and bounds[0] <= int(text) <= bounds[1]:
            return str(int(text))
        raise Uncertain
    if kind.base in _BY_BASE:
        return _BY_BASE[kind.base](kind, text)
    if kind.base in ("char", "varchar") or kind.base.endswith("text"):
        return _characters(kind, text, quoted=default.quoted)
    raise Uncertain


def _characters(kind: ColumnType, text: str, *, quoted: bool) -> str:
    long = len(text) > (kind.length if kind.length is not None else 255)
    padded = kind.base == "char" and text.endswith(" ")
    exact = quoted or _INTEGER.fullmatch(text) is not None
    if long or padded or not exact or "\0" in text or not _plain(kind, text):
        raise Uncertain
    return text


def _plain(kind: ColumnType, text: str) -> bool:
    """Is the text the same in any charset that the column may have?"""
    if kind.charset in ("utf8mb4",):
        return True
    return text.isascii() and kind.charset != "swe7"


def _decimal(kind: ColumnType, text: str) -> str:
    if not _DECIMAL.fullmatch(text):
        raise Uncertain
    value = Decimal(text)
    scale = kind.scale or 0
    shifted = value.scaleb(scale)
    negative = kind.unsigned and value < 0
    if shifted != int(shifted) or abs(shifted) >= 10 ** (kind.precision or 10) or negative:
        raise Uncertain
    return f"{value:f}" if value else "0"


def _float(kind: ColumnType, text: str) -> str:
    if not _DECIMAL.fullmatch(text) or text.startswith("-0"):
        raise Uncertain
    value = float(text)
    if Decimal(value) != Decimal(text) or (kind.unsigned and value < 0):
        if kind.base == "float" or len(text) > 15:
            raise Uncertain
    elif kind.base == "float" and struct.unpack("<f", struct.pack("<f", value))[0] != value:
        raise Uncertain
    if kind.unsigned and value < 0:
        raise Uncertain
    return repr(value)


def _day(_kind: ColumnType, text: str) -> str:
    parts = _DATE.fullmatch(text)
    if parts is None or not _is_date(text):
        raise Uncertain
    return text


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _moment(kind: ColumnType, text: str) -> str:
    parts = _MOMENT.fullmatch(text)
    if parts is None or not _is_date(parts[1]) or len(parts[3] or "") > kind.fsp + 1:
        raise Uncertain
    try:
        time.fromisoformat(parts[2] or "00:00:00")
    except ValueError:
        raise Uncertain from None
    return text


def _duration(_kind: ColumnType, text: str) -> str:
    if not _TIME.fullmatch(text) or text.startswith("-00:00:00"):
        raise Uncertain
    return text


def _member(kind: ColumnType, text: str) -> str:
    if text not in kind.values or not text.isascii():
        raise Uncertain
    return text


def _empty_set(_kind: ColumnType, text: str) -> str:
    if text:
        raise Uncertain
    return text


_BY_BASE = {
    "decimal": _decimal,
    "float": _float,
    "double": _float,
    "date": _day,
    "datetime": _moment,
    "time": _duration,
    "enum": _member,
    "set": _empty_set,
}

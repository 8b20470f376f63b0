"""How both sides are asked to print a value, so that equal values give equal answers.

The server's own functions print what stands in the source, PostgreSQL's own functions what stands
in `raw`; nothing of the product takes part. Left over for Python is only what the two spell
otherwise: `same` brings either answer into one form.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True)
class Printing:
    """`{0}` in the two expressions stands for the column."""

    mysql: str
    postgres: str
    same: Callable[[Any], object] = str
    original: str = "HEX({0})"
    """Of a value that PostgreSQL cannot hold: its bytes, as the server prints them."""


def _number(text: str) -> object:
    """Digits and scale: 1.50 is not 1.5."""
    return Decimal(text).as_tuple() if Decimal(text) else -Decimal(text).as_tuple().exponent


def _span(text: str) -> object:
    """Microseconds."""
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    hours, minutes, seconds = text.lstrip("-").split(":")
    whole = (int(hours) * 60 + int(minutes)) * 60_000_000 + int(Decimal(seconds) * 1_000_000)
    return -whole if text.startswith("-") else whole


def _json(text: str) -> object:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def _bits_of(form: str) -> Callable[[str], object]:
    """A float's bits, from the server's digits or from PostgreSQL's hexadecimal."""

    def bits(text: str) -> object:
        if text.startswith("x"):
            return text[1:]
        sign, digits = text[0], float(text[1:].strip("[]"))
        return struct.pack(form, digits or float(f"{sign}0")).hex()

    return bits


# A zero's sign, which the server may not print, from the arc tangent; as an element of JSON a
# double has all its digits, which an expression may cut off.
_SIGN = "IF({0} = 0 AND ATAN2({0}, -1) < 0, '-', '+')"
_DIGITS = f"IF({{0}} IS NULL, NULL, CONCAT({_SIGN}, JSON_ARRAY({{0}} * 1e0)))"

NUMBER = Printing("CAST({0} + 0 AS CHAR)", "{0}::text", _number)
SHORT_YEAR = Printing("CAST(IF({0} = 0, IF(YEAR({0}) = 2000, 2000, 0), YEAR({0})) AS CHAR)",
                      "{0}::text", _number)  # fmt: skip
FLOAT = Printing(_DIGITS, "'x' || encode(float4send({0}), 'hex')", _bits_of(">f"))
DOUBLE = Printing(_DIGITS, "'x' || encode(float8send({0}), 'hex')", _bits_of(">d"))
DAY = Printing("CAST({0} AS CHAR)", "to_char({0}, 'YYYY-MM-DD')")
MOMENT = Printing(
    "CAST(CAST({0} AS DATETIME(6)) AS CHAR)", "to_char({0}, 'YYYY-MM-DD HH24:MI:SS.US')"
)
SPAN = Printing(
    "CAST(CAST({0} AS TIME(6)) AS CHAR)",
    "(date_part('hour', {0})::bigint * 3600000000 + date_part('minute', {0})::bigint * 60000000"
    " + date_part('microseconds', {0})::bigint)::text",
    _span,
)
TEXT = Printing("HEX(CONVERT({0} USING utf8mb4))", "upper(encode(convert_to({0}, 'UTF8'), 'hex'))")
DIGEST = Printing(
    "SHA2(CONVERT({0} USING utf8mb4), 256)", "encode(sha256(convert_to({0}, 'UTF8')), 'hex')"
)
BYTES = Printing("HEX({0})", "upper(encode({0}, 'hex'))")
BYTES_DIGEST = Printing("SHA2({0}, 256)", "encode(sha256({0}), 'hex')")
JSON = Printing("CAST({0} AS CHAR)", "{0}::text", _json, "HEX(CAST({0} AS CHAR))")


def bits(width: int) -> Printing:
    """BIT(width)."""
    return Printing(f"LPAD(BIN({{0}} + 0), {width}, '0')", "{0}::text")


def address(octets: int) -> Printing:
    """Types that are so many bytes underneath."""
    return Printing(f"HEX(CAST({{0}} AS BINARY({octets})))", "upper(encode({0}, 'hex'))")

"""PostgreSQL's text of a value in, the COPY text that the stream has for it out. Pure.

A row that a merge finds refused is read back from PostgreSQL; its key must be spelled as the
stream and the copy spell it (`wire`, `selected`), or a later version would not find its entry.
`SESSION` makes PostgreSQL's text the one that is read here.
"""

from __future__ import annotations

import struct

from config.privacy import HASH
from loader.masking import mask_of
from loader.values import NULL, escaped
from replicator.binlog.schema import Column

SESSION = (
    "SET LOCAL datestyle = 'ISO'",
    "SET LOCAL timezone = 'UTC'",
    "SET LOCAL intervalstyle = 'postgres'",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL extra_float_digits = 1",
)


def spelled(column: Column, text: str | None) -> bytes:
    """A column's value as COPY text."""
    if text is None:
        return NULL
    mask = mask_of(column)
    base = "text" if mask is not None and mask.kind == HASH else column.type.base
    if base == "double":
        return repr(float(text)).encode()
    if base == "float":
        (single,) = struct.unpack("<f", struct.pack("<f", float(text)))
        return repr(single).encode()
    if base == "timestamp":
        return _fraction(text.removesuffix("+00"), column.type.fsp) + b"+00"
    if base in ("datetime", "time"):
        return _fraction(text, column.type.fsp)
    return escaped(text.encode())


def _fraction(text: str, digits: int) -> bytes:
    """As many digits behind the point as the column has, also where they are zeros."""
    whole, _, fraction = text.partition(".")
    return (f"{whole}.{fraction:0<{digits}}" if digits else whole).encode()

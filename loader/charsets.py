"""What the loader asks of a character set: how its text becomes PostgreSQL's UTF-8. Pure.

What the bytes mean stands in `replicator.binlog.characters`, for the members of ENUM and
SET are spelled in a column's charset too.
"""

from __future__ import annotations

from replicator.binlog.characters import SINGLE_BYTE_SETS, Decoder, decoder, single_byte_table

__all__ = ["SINGLE_BYTE_SETS", "Decoder", "decoder", "is_utf8", "single_byte_table"]


def is_utf8(charset: str) -> bool:
    """May valid bytes of this set be handed to PostgreSQL as they are?"""
    return charset in ("utf8", "utf8mb3", "utf8mb4", "ascii")

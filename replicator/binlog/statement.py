"""The `BINLOG` statement, which lets a server apply events that it is handed in base64.

Bulk loads are made of it, so the base64 is compiled code where there is a compiler, four times
as fast as Python's own.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable


def in_base64_python(data: bytes, start: int, end: int, head: bytes, tail: bytes) -> bytes:
    """`head`, then what `data` holds from `start` to `end` in base64, then `tail`."""
    text = binascii.b2a_base64(memoryview(data)[start:end], newline=False)
    return b"".join((head, text, tail))


in_base64: Callable[[bytes, int, int, bytes, bytes], bytes]
try:
    from replicator.binlog import rowkernel

    in_base64 = rowkernel.in_base64
except ImportError:  # built without a compiler
    in_base64 = in_base64_python


def binlog_statement(events: bytes) -> bytes:
    """The SQL statement that applies these events."""
    return in_base64(events, 0, len(events), b"BINLOG '", b"'")

"""Read MySQL's GTID event of transactions with a tag (GTID_TAGGED_LOG_EVENT, from MySQL 8.3).

Left: the event. Right: its GTID as the server prints it, and when it was committed. Pure.

Unlike all older events this one is a message of numbered fields. A number's first byte
ends in as many one bits as bytes follow it; the rest, little-endian, is the number.

Source: MySQL `libs/mysql/binlog/event/control_events.h` (Gtid_event), `libs/mysql/serialization`.
"""

from __future__ import annotations

from config.errors import UnknownEvent
from replicator.binlog.events import HEADER_LENGTH

_FLAGS, _SOURCE, _NUMBER, _TAG, _PARENT, _SEQUENCE, _COMMITTED = range(7)
_FRAME = 3
"""Numbers before the first field: the encoding's version, its length, the last vital field."""


def read_tagged(event: bytes) -> tuple[str, int]:
    """(`uuid:tag:number`, microseconds since 1970 of its commit on this server)."""
    try:
        return _read(event)
    except (IndexError, UnicodeDecodeError):
        raise UnknownEvent(
            "a tagged GTID event is cut short",
            hint="Check the server's binlog with mysqlbinlog --verify-binlog-checksum.",
        ) from None


def _read(event: bytes) -> tuple[str, int]:
    at = HEADER_LENGTH
    for _ in range(_FRAME):
        _, at = _number(event, at)
    source, tag, number, committed = bytearray(), "", 0, 0
    while at < len(event):
        field, at = _number(event, at)
        if field == _SOURCE:
            for _ in range(16):
                octet, at = _number(event, at)
                source.append(octet & 0xFF)
        elif field == _TAG:
            length, at = _number(event, at)
            tag, at = event[at : at + length].decode("ascii"), at + length
        elif field in (_FLAGS, _NUMBER, _PARENT, _SEQUENCE, _COMMITTED):
            value, at = _number(event, at)
            if field == _NUMBER:
                number = value >> 1  # with a sign, in the lowest bit
            elif field == _COMMITTED:
                committed = value
        else:
            break  # what stands behind is of no use to us
    if not (number and committed and len(source) == 16):
        raise IndexError
    return f"{_uuid(source)}:{tag}:{number}", committed


def _number(event: bytes, at: int) -> tuple[int, int]:
    """A number of variable length at `at`: (value, offset behind it)."""
    first = event[at]
    more = 0
    while first >> more & 1:
        more += 1
    end = at + 1 + more
    if end > len(event):
        raise IndexError
    shift = min(more + 1, 8)  # nine bytes: the first is nothing but ones
    return int.from_bytes(event[at:end], "little") >> shift, end


def _uuid(source: bytes | bytearray) -> str:
    text = source.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

"""Unpack MySQL's compressed transactions (binlog_transaction_compression) into their events.

Left: a TRANSACTION_PAYLOAD event, as `stream` hands it over. Right: the events inside,
in order, as if they had stood in the binlog one by one. Pure.

The server numbers the events inside as if they stood in a file of their own. Nobody can
start reading there, so each gets the end of the whole as its end: what resumes behind the
last of them, the commit, resumes behind the whole.

Source: MySQL `libs/mysql/binlog/event/codecs/binary.cpp`, Transaction_payload.
"""

from __future__ import annotations

from collections.abc import Iterator

import zstandard

from config.errors import UnknownEvent
from replicator.binlog.events import HEADER_LENGTH, event_end, read_lenenc

MAX_BYTES = 1 << 30
"""What a server compresses at most; a larger transaction it writes as it is."""
_CHUNK = 1 << 20
_END, _SIZE, _COMPRESSION, _UNCOMPRESSED = 0, 1, 2, 3
_ZSTD, _NONE = 0, 255
_HINT = (
    "Check the server's binlog with mysqlbinlog --verify-binlog-checksum at the position named;"
    " or write transactions as they are: SET GLOBAL binlog_transaction_compression = OFF;"
)


def unpack(event: bytes) -> Iterator[bytes]:
    """The events of a TRANSACTION_PAYLOAD event; `UnknownEvent` where it is malformed."""
    try:
        fields, at = _header(event)
    except IndexError:
        raise _malformed("its header is cut short") from None
    payload = event[at:]
    if fields.get(_SIZE, len(payload)) != len(payload):
        raise _malformed("it lies about its length")
    compression = fields.get(_COMPRESSION, _NONE)
    if compression not in (_ZSTD, _NONE):
        raise UnknownEvent(f"a transaction is compressed in a way unknown to us: {compression}")
    plain = _decompressed(payload) if compression == _ZSTD else iter((payload,))
    length = fields.get(_UNCOMPRESSED, MAX_BYTES)
    yield from _events(plain, min(length, MAX_BYTES), event_end(event).to_bytes(4, "little"))


def _header(event: bytes) -> tuple[dict[int, int], int]:
    """Numbered fields, then the payload: (field → value, offset of the payload)."""
    fields: dict[int, int] = {}
    at = HEADER_LENGTH
    while True:
        kind, at = read_lenenc(event, at)
        if kind == _END:
            return fields, at
        length, at = read_lenenc(event, at)
        if at + length > len(event):
            raise IndexError
        fields[kind], _ = read_lenenc(event, at) if length else (0, at)
        at += length


def _decompressed(payload: bytes) -> Iterator[bytes]:
    """In bounded pieces, however small a bomb is packed. A payload may be several frames."""
    try:
        with zstandard.ZstdDecompressor().stream_reader(payload, read_across_frames=True) as plain:
            while piece := plain.read(_CHUNK):
                yield piece
    except zstandard.ZstdError:
        raise _malformed("it cannot be decompressed") from None


def _events(pieces: Iterator[bytes], limit: int, end: bytes) -> Iterator[bytes]:
    """Cut the plain bytes into events, each ending where the whole does."""
    buffer, passed = bytearray(), 0
    for piece in pieces:
        passed += len(piece)
        if passed > limit:
            raise _malformed("it is larger than it says")
        buffer += piece
        at = 0
        while len(buffer) - at >= HEADER_LENGTH:
            length = int.from_bytes(buffer[at + 9 : at + 13], "little")
            if length < HEADER_LENGTH:
                raise _malformed("an event inside is shorter than its header")
            if at + length > len(buffer):
                break
            yield bytes(buffer[at : at + 13]) + end + bytes(buffer[at + 17 : at + length])
            at += length
        del buffer[:at]
    if buffer:
        raise _malformed("its last event is cut short")


def _malformed(reason: str) -> UnknownEvent:
    return UnknownEvent(f"a compressed transaction cannot be read: {reason}", hint=_HINT)

"""Compressed transactions: what is inside comes out, and what is malformed is told."""

from __future__ import annotations

import pytest
import zstandard

from config.errors import UnknownEvent
from replicator.binlog.events import EventType, event_end, with_header
from replicator.binlog.payload import MAX_BYTES, unpack

INSIDE = [with_header(kind, 7, 1, 0, bytes([kind]) * size) for kind, size in ((2, 9), (30, 5000))]
PLAIN = b"".join(INSIDE)
END = 123_456


def field(kind: int, value: int) -> bytes:
    return bytes([kind, 9, 0xFE]) + value.to_bytes(8, "little")


def payload(packed: bytes, compression: int = 0, size: int = len(PLAIN)) -> bytes:
    body = field(2, compression) + field(1, len(packed)) + field(3, size) + b"\0" + packed
    event = with_header(EventType.TRANSACTION_PAYLOAD, 7, 1, 0, body)
    return event[:13] + END.to_bytes(4, "little") + event[17:]


def packed(data: bytes = PLAIN) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize(
    "event",
    [
        payload(packed()),
        payload(PLAIN, compression=255),
        payload(packed(PLAIN[:100]) + packed(PLAIN[100:])),
    ],
    ids=["compressed", "plain", "two frames"],
)
def test_the_events_inside_come_out_ending_where_the_whole_ends(event: bytes) -> None:
    events = list(unpack(event))
    assert {event_end(inside) for inside in events} == {END}
    assert [inside[:13] + bytes(4) + inside[17:] for inside in events] == INSIDE


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (payload(packed(PLAIN[:-1])), "cut short"),
        (payload(packed(PLAIN + bytes(19))), "larger than it says"),
        (payload(packed(bytes(19)), size=19), "shorter than its header"),
        (payload(b"nothing of zstd's"), "cannot be decompressed"),
        (payload(packed())[:-1], "lies about its length"),
        (payload(packed(), compression=3), "in a way unknown to us"),
        (payload(packed())[:30], "header is cut short"),
    ],
)
def test_a_malformed_one_is_told(event: bytes, reason: str) -> None:
    with pytest.raises(UnknownEvent, match=reason):
        list(unpack(event))


def test_a_bomb_is_not_unpacked() -> None:
    bomb = packed(bytes(64 << 20))
    with pytest.raises(UnknownEvent):
        list(unpack(payload(bomb, size=MAX_BYTES)))


def test_any_cut_is_told() -> None:
    whole = payload(packed())
    for length in range(19, len(whole)):
        with pytest.raises(UnknownEvent):
            list(unpack(whole[:length]))

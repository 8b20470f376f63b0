"""The compiled cutter against damage: it takes what is sound and leaves the rest alone."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.binlog.events import EventType, with_header

from .hand_made import with_checksum

frames = pytest.importorskip("replicator.binlog.frames")

HEADER = 19


def packet(event: bytes, *, checksum: bool = True) -> bytes:
    payload = b"\0" + (with_checksum(event) if checksum else event)
    return len(payload).to_bytes(3, "little") + b"\1" + payload


def event(size: int, kind: int = EventType.XID) -> bytes:
    return with_header(kind, 1, 1, 0, bytes(n % 251 for n in range(size)))


@given(st.binary(max_size=600))
def test_the_checksum_is_zlibs(data: bytes) -> None:
    assert frames.crc32(data) == zlib.crc32(data)


@pytest.mark.parametrize("checksums", [True, False])
def test_many_events_are_cut_at_once(checksums: bool) -> None:
    events = [event(n % 90) for n in range(5000)]
    buffer = bytearray(b"".join(packet(e, checksum=checksums) for e in events))
    found: list[bytes] = []
    assert frames.cut(buffer, 0, checksums, found) == len(buffer)
    assert found == events


@given(st.integers(0, 200))
def test_what_is_not_whole_is_left(missing: int) -> None:
    wire = packet(event(5)) + packet(event(150))
    found: list[bytes] = []
    at = frames.cut(bytearray(wire[: len(wire) - missing]), 0, True, found)
    assert (
        found == [event(5), event(150)][: 2 - bool(missing) - (missing > len(packet(event(150))))]
    )
    assert at == sum(len(packet(e)) for e in found)


@pytest.mark.parametrize(
    "other",
    [
        packet(event(5, EventType.ROTATE)),
        packet(event(5, EventType.FORMAT_DESCRIPTION)),
        packet(event(5, EventType.HEARTBEAT)),
        packet(event(5, EventType.HEARTBEAT_V2)),
        b"\x05\0\0\1\xff\x17\x04#HY",
        b"\0\0\0\1",
        b"\xff\xff\xff\1" + bytes(0xFFFFFF),
        b"\x08\0\0\1" + bytes(8),
        packet(event(5))[:-1] + b"\x99",
    ],
)
def test_what_is_not_plain_is_left_to_the_stream(other: bytes) -> None:
    found: list[bytes] = []
    first = packet(event(9))
    assert frames.cut(bytearray(first + other + first), 0, True, found) == len(first)
    assert found == [event(9)]


@given(st.binary(max_size=300), st.integers(0, 400), st.booleans())
def test_any_bytes_are_read_within_their_bounds(data: bytes, at: int, checksums: bool) -> None:
    found: list[bytes] = []
    behind = frames.cut(bytearray(data), at, checksums, found)
    assert behind >= at
    assert sum(map(len, found)) <= len(data)


def test_an_offset_before_the_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="before"):
        frames.cut(bytearray(10), -1, True, [])

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from config.errors import (
    AlreadyRunning,
    ConfigError,
    ConnectionLost,
    Halt,
    PositionLost,
    SourceReset,
    UnknownEvent,
)
from replicator.binlog import stream as stream_module
from replicator.binlog.events import EventType, with_header
from replicator.binlog.position import SourcePosition
from replicator.binlog.stream import BinlogStream

from .hand_made import Log, artificial, format_description_body, with_checksum

LIMIT = 0xFFFFFF


@pytest.fixture(autouse=True, params=["compiled", "python"])
def either_cut(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this file over the compiled cutter and over Python's own."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            patch.setattr(stream_module, "cut", None)
        elif stream_module.cut is None:
            pytest.skip("built without a compiler")
        yield


class Socket:
    """Gives out what it was told to, piece by piece; then nothing comes in time."""

    def __init__(self, pieces: Iterable[bytes | BaseException]) -> None:
        self.pieces = list(pieces)
        self.timeouts: list[float] = []

    def settimeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)

    def recv(self, _size: int) -> bytes:
        if not self.pieces:
            raise TimeoutError if self.timeouts[-1] else BlockingIOError
        piece = self.pieces.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        return piece


class Connection:
    """What `BinlogStream` uses of PyMySQL's connection."""

    def __init__(self, socket: Socket) -> None:
        self._sock = socket
        self._next_seq_id = 5
        self.statements: list[str] = []
        self.commands: list[bytes] = []
        self.closed = False

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        yield SimpleNamespace(execute=self.statements.append)

    def write_packet(self, packet: bytes) -> None:
        assert self._next_seq_id == 0
        self.commands.append(packet)

    def _read_ok_packet(self) -> None:
        pass

    def _force_close(self) -> None:
        self.closed = True


class TLSSocket(Socket, ssl.SSLSocket):
    """One that gives a TLS record at a time."""

    def __init__(self, pieces: Iterable[bytes | BaseException]) -> None:
        Socket.__init__(self, pieces)

    def recv(self, _size: int) -> bytes:  # type: ignore[override]
        if not self.pieces and not self.timeouts[-1]:
            raise ssl.SSLWantReadError
        return Socket.recv(self, _size)

    def __del__(self) -> None:
        pass  # there is nothing to close


def opened(*pieces: bytes | BaseException) -> BinlogStream:
    return opened_on(Connection(Socket(pieces)))


def opened_on(connection: Connection) -> BinlogStream:
    stream = BinlogStream(
        lambda: connection, server_id=77, heartbeat_seconds=5, name="source db1:3306"
    )
    stream.open(SourcePosition("bin.000001", 4))
    return stream


def packets(payload: bytes) -> bytes:
    """The payload as the protocol frames it: at 16 MiB - 1 another packet follows."""
    framed, number = b"", 1
    while True:
        part, payload = payload[:LIMIT], payload[LIMIT:]
        framed += len(part).to_bytes(3, "little") + bytes([number % 256]) + part
        number += 1
        if len(part) < LIMIT:
            return framed


def sent(event: bytes) -> bytes:
    return packets(b"\0" + with_checksum(event))


def test_all_records_of_tls_that_have_arrived_are_read_at_once() -> None:
    log = Log()
    events = [log.table_map(5), log.rows(5), log.xid()]
    stream = opened_on(Connection(TLSSocket(map(sent, events))))
    assert stream.read(0.01) == events
    assert stream.read(0.01) == []


def test_what_came_over_tls_before_the_link_broke_is_read_first() -> None:
    log = Log()
    event = log.xid()
    stream = opened_on(Connection(TLSSocket([sent(event), ConnectionResetError()])))
    assert stream.read(0.01) == [event]


def read_all(stream: BinlogStream, timeout: float = 0.01) -> list[bytes]:
    found: list[bytes] = []
    while events := stream.read(timeout):
        found += events
    return found


EVENTS = [Log().xid(), Log().query(b"BEGIN"), Log().rows(5)]


def test_events_come_without_their_checksums_and_with_their_length_set() -> None:
    assert read_all(opened(*map(sent, EVENTS))) == EVENTS


def test_several_events_in_one_piece_come_at_once() -> None:
    assert opened(b"".join(map(sent, EVENTS))).read(0.01) == EVENTS


def test_events_that_come_byte_by_byte_are_put_together() -> None:
    wire = b"".join(map(sent, EVENTS))
    assert read_all(opened(*(wire[at : at + 1] for at in range(len(wire))))) == EVENTS


@given(st.lists(st.integers(1, 80), min_size=1), st.lists(st.integers(0, 300), max_size=20))
def test_events_do_not_depend_on_where_the_network_cuts(cuts: list[int], sizes: list[int]) -> None:
    events = [with_header(EventType.XID, 1, 1, 0, bytes(size)) for size in sizes]
    wire = b"".join(map(sent, events))
    pieces: list[bytes] = []
    while wire:
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(wire[:size])
        wire = wire[size:]
    assert read_all(opened(*pieces)) == events


def test_half_an_event_waits_for_its_other_half() -> None:
    wire = sent(EVENTS[0])
    stream = opened(wire[:10])
    assert stream.read(0.01) == []
    stream._connection._sock.pieces.append(wire[10:])
    assert stream.read(0.01) == [EVENTS[0]]


def test_what_has_arrived_is_read_without_waiting() -> None:
    stream = opened(sent(EVENTS[0]))
    assert stream.read(0) == [EVENTS[0]]
    assert stream.read(0) == []


@pytest.mark.parametrize("size", [LIMIT - 30, LIMIT - 24, LIMIT - 23, 2 * LIMIT, 2 * LIMIT - 24])
def test_an_event_of_more_than_16_mib_is_joined_from_its_packets(size: int) -> None:
    event = with_header(EventType.WRITE_ROWS_V1, 1, 1, 0, bytes(size))
    wire = sent(event) + sent(EVENTS[0])
    pieces = [wire[at : at + (4 << 20)] for at in range(0, len(wire), 4 << 20)]
    assert read_all(opened(*pieces)) == [event, EVENTS[0]]


def test_a_damaged_event_ends_the_link_so_that_it_is_read_again() -> None:
    wire = bytearray(sent(EVENTS[2]))
    wire[-6] ^= 1
    with pytest.raises(ConnectionLost, match="checksum"):
        opened(bytes(wire)).read(0.01)


def test_events_before_a_damaged_one_in_the_same_piece_are_not_handed_over_twice() -> None:
    damaged = bytearray(sent(EVENTS[2]))
    damaged[-6] ^= 1
    stream = opened(sent(EVENTS[0]) + bytes(damaged))
    assert stream.read(0.01) == [EVENTS[0]]
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            stream.read(0.01)


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (1236, "Could not find first log file name in binary log index file", PositionLost),
        (
            1236,
            "Client requested master to start replication from impossible position",
            SourceReset,
        ),
        (1236, "A slave with the same server_uuid/server_id has connected", AlreadyRunning),
        (1236, "bogus data in log event", Halt),
        (1227, "Access denied; you need REPLICATION SLAVE", ConfigError),
        (1053, "Server shutdown in progress", ConnectionLost),
    ],
)
def test_an_error_packet_becomes_the_error_that_it_means(
    code: int, text: str, expected: type[Exception]
) -> None:
    packet = packets(b"\xff" + struct.pack("<H", code) + b"#HY000" + text.encode())
    with pytest.raises(expected) as caught:
        opened(packet).read(0.01)
    assert "source db1:3306" in str(caught.value)


def test_the_end_of_the_stream_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionLost):
        opened(packets(b"\xfe\0\0\2\0")).read(0.01)


@pytest.mark.parametrize("piece", [b"", ConnectionResetError(104, "reset"), BrokenPipeError()])
def test_a_broken_link_is_a_lost_connection(piece: bytes | BaseException) -> None:
    with pytest.raises(ConnectionLost):
        opened(piece).read(0.01)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_silence_is_a_lost_connection_after_three_missed_heartbeats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr("replicator.binlog.stream.time", clock)
    stream = opened(sent(EVENTS[0]))
    assert stream.read(0) == [EVENTS[0]]
    clock.now += 15
    assert stream.read(0) == []
    clock.now += 0.1
    with pytest.raises(ConnectionLost, match="heartbeat"):
        stream.read(0)


def test_a_heartbeat_is_no_event_and_keeps_the_link_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("replicator.binlog.stream.time", clock)
    heartbeat = with_header(EventType.HEARTBEAT, 0, 1, 0, b"bin.000001")
    stream = opened(sent(heartbeat))
    clock.now += 14
    assert stream.read(0) == []
    clock.now += 14
    assert stream.read(0) == []


def test_what_arrived_during_a_long_pause_of_ours_is_not_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr("replicator.binlog.stream.time", clock)
    stream = opened(sent(EVENTS[0]), sent(EVENTS[1]))
    assert stream.read(0) == [EVENTS[0]]
    clock.now += 3600  # a long schema change on the replica
    assert stream.read(0) == [EVENTS[1]]


def test_the_stream_knows_which_file_its_last_event_was_in() -> None:
    body = (4).to_bytes(8, "little") + b"bin.000002"
    stream = opened(sent(artificial(EventType.ROTATE, body)))
    assert stream.file == "bin.000001"
    stream.read(0.01)
    assert stream.file == "bin.000002"


def described(version: bytes, algorithm: int) -> bytes:
    body = format_description_body(version, algorithm)
    return with_header(EventType.FORMAT_DESCRIPTION, 1, 1, 0, body)


def test_a_server_that_writes_no_checksums_is_believed() -> None:
    description = described(b"10.11.6-MariaDB-log", 0)
    stream = opened(sent(description), packets(b"\0" + EVENTS[0]))
    found = read_all(stream)
    assert found[1] == EVENTS[0]
    assert stream.format_description[-1] == 0


def test_a_server_older_than_checksums_is_read_without_them() -> None:
    description = described(b"5.5.62-log", 0)[:-1]
    stream = opened(packets(b"\0" + description), packets(b"\0" + EVENTS[0]))
    found = read_all(stream)
    assert found == [description + b"\0", EVENTS[0]]
    assert stream.format_description == description + b"\0"


def test_a_damaged_format_description_ends_the_link() -> None:
    wire = bytearray(sent(described(b"10.11.6-MariaDB-log", 1)))
    wire[40] ^= 1
    with pytest.raises(ConnectionLost, match="checksum"):
        opened(bytes(wire)).read(0.01)


def test_an_unknown_kind_of_checksum_halts() -> None:
    with pytest.raises(UnknownEvent, match="checksum algorithm 2"):
        opened(sent(described(b"10.11.6-MariaDB-log", 2))).read(0.01)


def test_opening_asks_for_checksums_and_heartbeats_and_registers_as_a_replica() -> None:
    connection = Connection(Socket([]))
    stream = opened_on(connection)
    assert "SET @master_binlog_checksum = @@GLOBAL.binlog_checksum" in connection.statements
    assert "SET @master_heartbeat_period = 5000000000" in connection.statements
    register, dump = connection.commands
    assert register[:5] == b"\x15" + struct.pack("<I", 77)
    assert dump == b"\x12" + struct.pack("<IHI", 4, 0, 77) + b"bin.000001"
    stream.close()
    assert connection.closed
    with pytest.raises(ConnectionLost, match="not open"):
        stream.read(0.01)


def test_a_large_compressed_transaction_comes_in_parts_and_in_its_order() -> None:
    log = Log()
    inside = [log.rows(7, number.to_bytes(4, "little") + bytes(1 << 20)) for number in range(12)]
    plain = b"".join(inside)
    packed = zstandard.ZstdCompressor().compress(plain)
    fields = b"".join(
        bytes([kind, 9, 0xFE]) + value.to_bytes(8, "little")
        for kind, value in ((2, 0), (3, len(plain)), (1, len(packed)))
    )
    whole = log.add(EventType.TRANSACTION_PAYLOAD, fields + b"\0" + packed)
    after = log.xid()
    stream = opened(sent(whole) + sent(after))
    sizes, got = [], []
    while len(got) < len(inside) + 1:
        events = stream.read(0)
        sizes.append(sum(map(len, events)))
        got += events
    assert [event[27:] for event in got[:-1]] == [event[27:] for event in inside]
    assert got[-1][4] == EventType.XID
    assert max(sizes) < 6 << 20
    assert len(sizes) >= 3


def test_an_event_without_end_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "_EVENT_LIMIT", 3 * LIMIT)
    endless = packets(b"\0" + bytes(LIMIT - 1))[: LIMIT + 4]  # full packets, never a short one
    stream = opened(*[endless] * 10)
    with pytest.raises(ConnectionLost, match="larger than any can be"):
        stream.read(0)

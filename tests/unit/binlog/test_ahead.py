"""Reading ahead: the same events in the same order, bounded, and errors where they belong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from config.errors import ConnectionLost
from replicator.binlog.ahead import AheadStream
from replicator.binlog.position import SourcePosition

DEADLINE = 10.0
START = SourcePosition("bin.000001", 4)


class Source:
    """A stream that gives what the test puts in; it knows which thread reads it."""

    def __init__(self) -> None:
        self.pieces: list[list[bytes] | BaseException] = []
        self.more = threading.Condition()
        self.file, self.format_description = "", b""
        self.opened: list[SourcePosition] = []
        self.closed = self.reads = 0
        self.heard = 0.0
        self.interrupted = False
        self.readers: set[int] = set()

    def put(self, *pieces: list[bytes] | BaseException) -> None:
        with self.more:
            self.pieces += pieces
            self.more.notify()

    def open(self, position: SourcePosition) -> None:
        self.opened.append(position)
        self.file, self.interrupted = position.file, False

    def read(self, timeout: float) -> list[bytes]:
        self.readers.add(threading.get_ident())
        with self.more:
            self.more.wait_for(lambda: self.pieces or self.interrupted, timeout)
            if self.interrupted:
                raise ConnectionLost("interrupted")
            if not self.pieces:
                return []
            piece = self.pieces.pop(0)
            self.reads += 1
        if isinstance(piece, BaseException):
            raise piece
        self.file = piece[0].decode()
        return piece

    def interrupt(self) -> None:
        with self.more:
            self.interrupted = True
            self.more.notify()

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def new(source: Source) -> Iterator[Callable[..., AheadStream]]:
    made: list[AheadStream] = []

    def make(limit: int = 1 << 20) -> AheadStream:
        stand_in: Any = source
        stream = AheadStream(stand_in, limit)
        made.append(stream)
        stream.open(START)
        return stream

    yield make
    for stream in made:
        stream.close()


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.001)


def test_events_come_in_their_order_from_another_thread(
    source: Source, new: Callable[..., AheadStream]
) -> None:
    stream = new()
    source.put([b"a", b"b"], [b"c"])
    assert stream.read(DEADLINE) + stream.read(DEADLINE) == [b"a", b"b", b"c"]
    assert threading.get_ident() not in source.readers


def test_the_file_is_that_of_the_last_event_handed_over(
    source: Source, new: Callable[..., AheadStream]
) -> None:
    stream = new()
    assert stream.file == START.file
    source.put([b"bin.000002"], [b"bin.000003"])
    wait_for(lambda: source.reads == 2)
    stream.read(DEADLINE)
    assert stream.file == "bin.000002"


def test_nothing_in_time_is_no_event(new: Callable[..., AheadStream]) -> None:
    stream = new()
    assert stream.read(0) == []
    assert stream.read(0.001) == []


def test_what_breaks_is_raised_behind_what_came_before_it(
    source: Source, new: Callable[..., AheadStream]
) -> None:
    stream = new()
    source.put([b"a"], ConnectionLost("gone"))
    wait_for(lambda: source.reads == 2)
    assert stream.read(DEADLINE) == [b"a"]
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="gone"):
            stream.read(DEADLINE)


def test_an_error_wakes_who_waits(source: Source, new: Callable[..., AheadStream]) -> None:
    stream = new()
    timer = threading.Timer(0.01, source.put, [ValueError("not ours")])
    timer.start()
    with pytest.raises(ValueError, match="not ours"):
        stream.read(DEADLINE)
    timer.join()


def test_no_more_waits_than_the_bound(source: Source, new: Callable[..., AheadStream]) -> None:
    stream = new(limit=1000)
    source.put(*([bytes(400)] for _ in range(10)))
    wait_for(lambda: source.reads == 3)  # two wait, the third for room
    assert stream.read(0) == [bytes(400)]
    wait_for(lambda: source.reads == 4)
    assert [stream.read(DEADLINE) for _ in range(9)] == [[bytes(400)]] * 9


def test_an_event_above_the_bound_is_let_in_alone(
    source: Source, new: Callable[..., AheadStream]
) -> None:
    stream = new(limit=1000)
    source.put([bytes(5000)], [b"a"])
    assert stream.read(DEADLINE) == [bytes(5000)]
    assert stream.read(DEADLINE) == [b"a"]


def test_closing_ends_the_thread_while_it_waits_for_room(
    source: Source, new: Callable[..., AheadStream]
) -> None:
    stream = new(limit=10)
    source.put(*([bytes(400)] for _ in range(3)))
    wait_for(lambda: source.reads == 2)
    before = threading.active_count()
    stream.close()
    assert threading.active_count() == before - 1
    assert source.closed


def test_closing_ends_the_thread_while_it_listens(
    source: Source, new: Callable[..., AheadStream]
) -> None:
    stream = new()
    wait_for(lambda: source.readers)
    stream.close()
    assert not any(t.name == "binlog reader" for t in threading.enumerate())
    with pytest.raises(ConnectionLost, match="not open"):
        stream.read(0)


def test_opening_again_forgets_what_waited(source: Source, new: Callable[..., AheadStream]) -> None:
    stream = new()
    source.put([b"old"])
    wait_for(lambda: source.reads == 1)
    stream.open(SourcePosition("bin.000009", 4))
    assert stream.file == "bin.000009"
    source.put([b"new"])
    assert stream.read(DEADLINE) == [b"new"]
    assert source.opened == [START, SourcePosition("bin.000009", 4)]

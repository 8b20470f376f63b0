"""Handing batches over: one is written, one waits and grows, and what fails is heard of."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from loader.handover import HandOver

LONG = 20.0


class Desk:
    """Writes only when it is let, and remembers what it wrote."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.begun, self.let = threading.Semaphore(0), threading.Semaphore(0)
        self.hand_over: HandOver[str] = HandOver(self._write)

    def _write(self, parcel: str) -> None:
        self.begun.release()
        assert self.let.acquire(timeout=LONG)
        if parcel == "bad":
            raise ValueError(parcel)
        self.written.append(parcel)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    for _ in range(5):
        made.let.release()
    assert made.hand_over.stop(LONG)


def test_what_waits_can_be_taken_back_while_another_is_written(desk: Desk) -> None:
    desk.hand_over.offer("first")
    assert desk.begun.acquire(timeout=LONG)
    assert desk.hand_over.reclaim() is None
    desk.hand_over.offer("second")
    assert not desk.hand_over.idle
    assert desk.hand_over.reclaim() == "second"
    desk.hand_over.offer("second and more")
    desk.let.release()
    assert desk.begun.acquire(timeout=LONG)
    desk.let.release()
    desk.hand_over.drain()
    assert desk.written == ["first", "second and more"]
    assert desk.hand_over.idle


def test_settling_waits_for_the_writing_to_begin_and_draining_for_its_end(desk: Desk) -> None:
    desk.hand_over.offer("first")
    desk.hand_over.settle()
    assert desk.written == []
    assert desk.hand_over.reclaim() is None
    desk.let.release()
    desk.hand_over.drain()
    assert desk.written == ["first"]


def test_what_the_writing_raises_is_raised_at_every_later_call(desk: Desk) -> None:
    desk.hand_over.offer("bad")
    desk.hand_over.settle()
    desk.let.release()
    with pytest.raises(ValueError, match="bad"):
        desk.hand_over.drain()
    for call in (desk.hand_over.reclaim, desk.hand_over.settle, desk.hand_over.drain):
        with pytest.raises(ValueError, match="bad"):
            call()
    with pytest.raises(ValueError, match="bad"):
        desk.hand_over.offer("next")
    assert desk.written == []


def test_a_stop_ends_the_thread_behind_what_it_writes_and_begins_nothing(desk: Desk) -> None:
    desk.hand_over.offer("first")
    assert desk.begun.acquire(timeout=LONG)
    desk.hand_over.offer("second")
    assert not desk.hand_over.stop(0)
    desk.let.release()
    assert desk.hand_over.stop(LONG)
    assert desk.written == ["first"]

"""The loop around a leg that is held: closed once, never stepped, and alive for its manager."""

from __future__ import annotations

import threading
from collections.abc import Callable

from config.daemon import run
from config.errors import ConnectionLost
from config.service import ServiceManager


class Leg:
    def __init__(self) -> None:
        self.did: list[str] = []

    def step(self) -> None:
        self.did.append("step")

    def close(self) -> None:
        self.did.append("close")

    def describe(self) -> str:
        return "at work"


class Manager(ServiceManager):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def stepped(self, describe: Callable[[], str]) -> None:
        self.words.append(describe())


def test_a_held_leg_is_closed_and_left_alone_while_the_manager_sees_it_alive() -> None:
    leg, manager, stop = Leg(), Manager(), threading.Event()
    answers = ["", "paused", "paused", "", "end"]

    def hold() -> str:
        answer = answers.pop(0)
        if not answers:
            stop.set()
        return answer

    run(leg, stop, service=manager, hold=hold)
    assert leg.did == ["step", "close", "step", "close", "close"]
    assert manager.words == ["at work", "paused", "paused", "at work", "end"]


def test_no_step_is_taken_before_it_is_known_whether_it_may_be() -> None:
    leg, stop = Leg(), threading.Event()
    looks = 0

    def hold() -> str:
        nonlocal looks
        looks += 1
        if looks < 3:
            assert leg.did == []
            raise ConnectionLost("replica: gone")
        stop.set()
        return ""

    run(leg, stop, hold=hold, max_wait=0.01)
    assert leg.did == ["step", "close"]

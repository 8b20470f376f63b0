"""A ceiling on bytes holds over any second, and never makes wait for what was not read."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from replicator.throttle import Ceiling


class Clock:
    """Time that passes only while somebody waits, or when told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waited = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        self.waited += seconds


def ceiling(rate: int, clock: Clock) -> Ceiling:
    return Ceiling(rate, clock=clock, wait=clock.wait)


def test_without_a_ceiling_nobody_waits() -> None:
    clock = Clock()
    free = ceiling(0, clock)
    for _ in range(5):
        free.wait()
        free.took(1 << 30)
    assert clock.waited == 0


def test_a_seconds_worth_is_free_and_more_is_waited_for() -> None:
    clock = Clock()
    bucket = ceiling(1000, clock)
    bucket.took(1000)
    bucket.wait()
    assert clock.waited == 0
    bucket.took(2500)
    bucket.wait()
    assert clock.waited == 2.5


def test_idle_time_is_not_saved_up_beyond_a_second() -> None:
    clock = Clock()
    bucket = ceiling(1000, clock)
    clock.now += 3600
    bucket.took(3000)
    bucket.wait()
    assert clock.waited == 2.0


@given(st.integers(1, 10**9), st.lists(st.integers(0, 10**8), max_size=30))
def test_what_is_read_stays_under_the_rate_in_the_long_run(rate: int, reads: list[int]) -> None:
    clock = Clock()
    bucket = ceiling(rate, clock)
    for count in reads:
        bucket.wait()
        bucket.took(count)
    bucket.wait()
    assert sum(reads) <= rate * (1 + clock.waited) * 1.000001 + 2


def test_who_waits_is_let_go_when_it_is_closed() -> None:
    bucket = Ceiling(1)
    bucket.took(10**9)
    waiting = threading.Thread(target=bucket.wait)
    waiting.start()
    bucket.close()
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_rate_may_change_while_somebody_waits() -> None:
    clock, rates = Clock(), [1000]

    def wait(seconds: float) -> None:
        clock.wait(seconds)
        if clock.waited >= 10:
            rates[0] = 100_000

    bucket = Ceiling(lambda: rates[0], clock=clock, wait=wait)
    bucket.took(1_000_000)
    bucket.wait()
    assert 19 < clock.waited < 21  # a hundred of the seconds at the old rate are left out


def test_no_ceiling_forgives_a_debt_and_a_new_one_begins_with_its_own_measure() -> None:
    clock, rates = Clock(), [1000]
    bucket = Ceiling(lambda: rates[0], clock=clock, wait=clock.wait)
    bucket.took(1_000_000)
    rates[0] = 0
    bucket.wait()
    bucket.took(1_000_000)
    assert clock.waited == 0
    rates[0] = 500
    bucket.took(1000)
    bucket.wait()
    assert clock.waited == 1.0

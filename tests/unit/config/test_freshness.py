"""How far behind, from what a loop notices: at rest, at work, with a dead link, with odd clocks."""

from __future__ import annotations

import pytest

from config.clock import ServerClock
from config.freshness import Freshness, patience


@pytest.fixture
def leg() -> Freshness:
    """A leg that had caught up at 100, with a patience of 9 seconds."""
    freshness = Freshness(9.0, 50.0)
    freshness.caught_up(100.0)
    return freshness


def test_a_leg_that_is_idle_and_hears_the_other_side_is_not_behind(leg: Freshness) -> None:
    assert [leg.lag(now) for now in (100.0, 104.0, 109.0)] == [0.0, 0.0, 0.0]


def test_a_link_that_falls_silent_counts_from_when_it_was_last_heard(leg: Freshness) -> None:
    assert leg.lag(109.5) == 9.5
    assert leg.lag(3700.0) == 3600.0


def test_a_link_that_breaks_counts_at_once(leg: Freshness) -> None:
    leg.lost()
    assert leg.lag(103.0) == 3.0


def test_what_comes_after_hours_of_quiet_is_as_old_as_its_arrival(leg: Freshness) -> None:
    leg.caught_up(4000.0)
    leg.arrived(4005.0)
    assert leg.lag(4005.5) == 0.5


def test_what_comes_behind_a_silence_is_as_old_as_the_silence(leg: Freshness) -> None:
    leg.arrived(160.0)
    assert leg.lag(161.0) == 61.0


def test_a_backlog_is_as_old_as_the_commit_that_was_written_last(leg: Freshness) -> None:
    leg.arrived(101.0)
    leg.committed(150.0, now=200.0)
    assert leg.lag(200.0) == 50.0
    leg.committed(199.0, now=200.0)
    assert leg.lag(200.0) == 1.0
    leg.caught_up(200.0)
    assert leg.lag(203.0) == 0.0


def test_a_loop_that_hangs_lets_the_lag_grow(leg: Freshness) -> None:
    leg.arrived(101.0)
    assert [leg.lag(now) for now in (102.0, 202.0, 402.0)] == [1.0, 101.0, 301.0]


def test_an_older_commit_makes_nothing_older(leg: Freshness) -> None:
    leg.arrived(101.0)
    leg.committed(20.0, now=111.0)
    assert leg.lag(111.0) == 10.0


def test_a_start_takes_up_what_was_known(leg: Freshness) -> None:
    started = Freshness(9.0, 1000.0)
    assert (started.known, started.lag(1001.0)) == (False, 1.0)
    started.begin(400.0, now=1000.0)
    assert (started.known, started.lag(1001.0)) == (True, 601.0)


def test_patience_is_longer_than_a_heartbeat() -> None:
    assert patience(5.0) == 9.0
    assert patience(0.5) > 0.5


@pytest.mark.parametrize("ahead", [-7200.0, -0.3, 0.0, 0.3, 86400.0])
def test_a_servers_clock_may_be_anywhere(ahead: float) -> None:
    """Our monotonic clock says 500 when the true time is 1_000_500."""
    clock = ServerClock(1_000_000.0)
    clock.read(1_000_500.1 + ahead, before=500.0, after=500.2)
    committed = 1_000_490.0 + ahead  # by the server's own clock
    leg = Freshness(9.0, 480.0)
    leg.committed(clock.moment(committed), now=500.0)
    assert leg.lag(500.0) == pytest.approx(10.0)
    assert clock.wall(490.0) == pytest.approx(committed)


def test_the_quickest_of_the_last_readings_counts() -> None:
    clock = ServerClock(0.0)
    clock.read(100.0, before=10.0, after=10.01)
    clock.read(103.0, before=10.0, after=14.0)  # the answer took its time on the way back
    assert clock.offset == pytest.approx(89.995)
    for n in range(8):
        clock.read(100.2 + n, before=10.0 + n, after=10.5 + n)  # the quick one is too old now
    assert clock.offset == pytest.approx(89.95)


@pytest.mark.parametrize("by", [-5400.0, -2.0, 2.0, 5400.0])
def test_a_clock_that_was_set_is_believed_at_the_next_reading(by: float) -> None:
    clock = ServerClock(0.0)
    clock.read(100.0, before=10.0, after=10.01)
    clock.read(101.25 + by, before=11.0, after=11.5)
    assert clock.offset == pytest.approx(90.0 + by)
    clock.read(102.25, before=12.0, after=12.0)
    assert clock.offset == pytest.approx(90.25)  # and back


def test_a_clock_that_tells_whole_seconds_was_not_set() -> None:
    clock = ServerClock(0.0)
    clock.read(100.5, before=10.0, after=10.01)
    clock.read(101.5, before=11.9, after=11.92)  # a second that is nearly over
    assert clock.offset == pytest.approx(90.495)


def test_no_commit_is_later_than_now(leg: Freshness) -> None:
    """A server's clock was set forward, and was not read again yet."""
    leg.arrived(101.0)
    leg.committed(5500.0, now=102.0)
    assert leg.lag(110.0) == 8.0
    started = Freshness(9.0, 1000.0)
    started.begin(6400.0, now=1001.0)
    assert started.lag(1003.0) == 2.0

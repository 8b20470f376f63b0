"""Links that are cut, silent, slow or spoiled: noticed, waited out, and nothing is lost.

The four links are those of `linked`: replicator and loader each have two servers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from replicator.sandbox.cluster import Engine
from replicator.sandbox.waiting import wait_until
from tests.faults.conftest import Linked
from tests.faults.trial import TIMES, Trial
from tests.fix_pipeline import Daemon

LINKS = ("source", "replica", "stream", "analytics")
STREAMS = ("source", "stream")
"""Links with a binlog stream on them, whose server sends heartbeats."""
HEARTBEAT = 5.0
"""Seconds, by default; then the server is asked, and given up when it does not answer as long."""

GetLinked = Callable[[Engine], Linked]


def _daemon(the: Trial, link: str) -> Daemon:
    return the.pipe.replicator if link in ("source", "replica") else the.pipe.loader


@contextmanager
def _unaided(the: Trial) -> Iterator[None]:
    before = [daemon.pid for daemon in the.daemons]
    yield
    for daemon in the.daemons:
        assert daemon.running, f"{daemon.program} has ended:\n{daemon.output[-3000:]}"
    assert [daemon.pid for daemon in the.daemons] == before


def _wait_for_retry(daemon: Daemon, since: int, deadline: float = 60) -> str:
    """Until the daemon says that it tries again; the reason that it gives."""
    wait_until(
        lambda: '"retrying"' in daemon.output[since:],
        deadline,
        what=lambda: f"{daemon.program} to try again:\n{daemon.output[-3000:]}",
    )
    return daemon.output[since:].split('"retrying"')[0].splitlines()[-1]


def _wait_for_work(the: Trial, pieces: int) -> None:
    done = the.work_done
    wait_until(lambda: the.work_done > done + pieces, 60, what="work")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("seed", range(TIMES))
def test_a_link_that_is_cut_again_and_again(linked: GetLinked, link: str, seed: int) -> None:
    the, links = linked("InnoDB")
    the.asked.set()
    dice = random.Random(f"{link}/{seed}")
    _wait_for_work(the, 10)
    with _unaided(the):
        for _ in range(5):
            said = len(_daemon(the, link).output)
            links[link].cut()
            _wait_for_retry(_daemon(the, link), said)
            links[link].pass_on()
            _wait_for_work(the, dice.randint(1, 60))
        the.settle(150)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("link", LINKS)
def test_a_link_that_is_cut_in_the_middle_of_a_packet(linked: GetLinked, link: str) -> None:
    the, links = linked("InnoDB")
    the.asked.set()
    with _unaided(the):
        for _ in range(3):
            said = len(_daemon(the, link).output)
            links[link].dribble()  # a piece that is under way is cut within it
            _wait_for_work(the, 40)
            links[link].cut()
            _wait_for_retry(_daemon(the, link), said)
            links[link].pass_on()
            _wait_for_work(the, 10)
        the.settle(150)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("link", STREAMS)
def test_a_stream_that_falls_silent_is_noticed(linked: GetLinked, link: str) -> None:
    the, links = linked("InnoDB")
    the.asked.clear()  # a reload would wait for answers, which TCP alone can give up
    _wait_for_work(the, 10)
    with _unaided(the), the.at_rest():
        the.pipe.catch_up()
        daemon, said = _daemon(the, link), len(_daemon(the, link).output)
        links[link].hold()
        _wait_for_retry(daemon, said, deadline=HEARTBEAT * 6)
        words = daemon.output[said:]
        assert "not even a heartbeat" in words or "timed out" in words, words
        assert _retries(the, daemon) > 0
        links[link].cut()
        links[link].pass_on()
        the.pipe.catch_up()
    the.settle(150)


def _retries(the: Trial, daemon: Daemon) -> float:
    port = the.pipe.environment[f"{daemon.program.upper()}_METRICS_PORT"]
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "retries_total"
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("link", ["replica", "analytics"])
def test_a_target_that_falls_silent_is_waited_for_until_the_link_is_given_up(
    linked: GetLinked, link: str
) -> None:
    """TCP gives it up by itself after half a minute (`config.connections`); here the proxy does."""
    the, links = linked("InnoDB")
    the.asked.set()
    with _unaided(the):
        daemon, said = _daemon(the, link), len(_daemon(the, link).output)
        links[link].hold()
        _wait_for_work(the, 100)
        links[link].cut()
        _wait_for_retry(daemon, said)
        links[link].pass_on()
        the.settle(150)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("link", LINKS)
def test_a_link_that_is_slow_only_makes_things_late(linked: GetLinked, link: str) -> None:
    the, links = linked("InnoDB")
    with _unaided(the):
        links[link].delay(0.02)
        _wait_for_work(the, 100)
        links[link].delay(0)
        links[link].dribble()
        _wait_for_work(the, 20)
        links[link].pass_on()
        the.settle(150)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("link", STREAMS)
def test_a_flipped_bit_in_a_binlog_is_found_by_its_checksum(linked: GetLinked, link: str) -> None:
    """Whatever the bit was a part of: an event's checksum, a packet's length, its number."""
    the, links = linked("InnoDB")
    dice = random.Random(link)
    with _unaided(the):
        for _ in range(8):
            said, before = len(_daemon(the, link).output), links[link].corrupted
            _wait_for_work(the, 5)
            with the.at_rest():
                the.pipe.catch_up()
                links[link].corrupt(dice.randint(0, 400))
            wait_until(lambda: links[link].corrupted > before, 60, what="a flipped bit")  # noqa: B023
            _wait_for_retry(_daemon(the, link), said)
        the.settle(150)

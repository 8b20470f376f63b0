"""Links that are cut, silent, slow or spoiled: noticed, waited out, and nothing is lost.

The four links are those of `linked`: replicator and loader each have two servers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from replicator.sandbox.cluster import Engine
from replicator.sandbox.waiting import wait_until
from tests.faults.conftest import Linked
from tests.faults.trial import TIMES, Trial, wait_for_word
from tests.fix_pipeline import Daemon

LINKS = ("source", "replica", "stream", "analytics")
STREAMS = ("source", "stream")
"""Links with a binlog stream on them, whose server sends heartbeats."""
HEARTBEAT = 5.0
"""Seconds, by default; then the server is asked, and given up when it does not answer as long."""

GetLinked = Callable[[Engine], Linked]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("seed", range(TIMES))
def test_a_link_that_is_cut_again_and_again(linked: GetLinked, link: str, seed: int) -> None:
    the, links = linked("InnoDB")
    the.asked.set()
    dice = random.Random(f"{link}/{seed}")
    the.wait_for_work(10)
    with the.unaided():
        for _ in range(3):
            said = len(the.daemon_at(link).output)
            links[link].cut()
            wait_for_word(the.daemon_at(link), '"retrying"', said)
            links[link].pass_on()
            the.wait_for_work(dice.randint(1, 60))
        the.settle(150)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("link", LINKS)
def test_a_link_that_is_cut_in_the_middle_of_a_packet(linked: GetLinked, link: str) -> None:
    the, links = linked("InnoDB")
    the.asked.set()
    with the.unaided():
        for _ in range(2):
            said = len(the.daemon_at(link).output)
            links[link].dribble()  # a piece that is under way is cut within it
            the.wait_for_work(40)
            links[link].cut()
            wait_for_word(the.daemon_at(link), '"retrying"', said)
            links[link].pass_on()
            the.wait_for_work(10)
        the.settle(150)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("link", STREAMS)
def test_a_stream_that_falls_silent_is_noticed(linked: GetLinked, link: str) -> None:
    the, links = linked("InnoDB")
    the.asked.clear()  # a reload would wait for answers, which TCP alone can give up
    the.wait_for_work(10)
    with the.unaided(), the.at_rest():
        the.pipe.catch_up()
        daemon, said = the.daemon_at(link), len(the.daemon_at(link).output)
        links[link].hold()
        wait_for_word(daemon, '"retrying"', said, deadline=HEARTBEAT * 6)
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
        if sample.name == "replicator_retries_total"
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("hosts", [STREAMS, ("replica", "analytics")], ids=["streams", "targets"])
def test_a_host_that_vanishes_is_given_up_and_waited_for(
    linked: GetLinked, hosts: tuple[str, ...]
) -> None:
    """Nothing is answered, acknowledged or reset any more; a heartbeat that is missing tells, or
    TCP after half a minute (`config.connections`)."""
    the, links = linked("InnoDB")
    the.asked.set()
    the.wait_for_work(10)
    with the.unaided():
        said = {link: len(the.daemon_at(link).output) for link in hosts}
        for link in hosts:
            links[link].vanish()
        for link, before in said.items():
            wait_for_word(the.daemon_at(link), '"retrying"', before, deadline=90)
        for link in hosts:
            links[link].pass_on()
        the.settle(150)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("link", LINKS)
def test_a_link_that_is_slow_only_makes_things_late(linked: GetLinked, link: str) -> None:
    the, links = linked("InnoDB")
    with the.unaided():
        links[link].delay(0.02)
        the.wait_for_work(100)
        links[link].delay(0)
        links[link].dribble()
        the.wait_for_work(20)
        links[link].pass_on()
        the.settle(150)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("link", STREAMS)
def test_a_flipped_bit_in_a_binlog_is_found_by_its_checksum(linked: GetLinked, link: str) -> None:
    """Whatever the bit was a part of: an event's checksum, a packet's length, its number.

    Nothing is copied meanwhile: the answer to a SELECT has no checksum (`test_damaged`).
    """
    the, links = linked("InnoDB")
    the.asked.clear()
    the.settle(150)
    dice = random.Random(link)
    with the.unaided():
        for _ in range(4):
            said, before = len(the.daemon_at(link).output), links[link].corrupted
            the.wait_for_work(5)
            with the.at_rest():
                the.pipe.catch_up()
                links[link].corrupt(dice.randint(0, 400))
            wait_until(lambda: links[link].corrupted > before, 60, what="a flipped bit")  # noqa: B023
            wait_for_word(the.daemon_at(link), '"retrying"', said)
        the.settle(150)

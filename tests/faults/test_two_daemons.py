"""Two daemons of one leg at once, a stale one among them: never two writers, no row doubled."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pymysql
import pytest

from replicator.replica import lock_name
from replicator.sandbox.cluster import REPLICA_DB, Engine
from replicator.sandbox.processes import free_port
from replicator.sandbox.waiting import wait_until
from tests.faults.conftest import GetTrial, Linked
from tests.faults.trial import TIMES, Trial
from tests.fix_pipeline import Daemon

PAIRS = [
    ("apply.before_send", "batch.before_commit"),
    ("resync.recorded", "load.before_commit"),
    ("copy.before_commit", "merge.done"),
][: 1 + TIMES]
"""Where they fall asleep. Each takes as long as locks are waited for: more where more is asked."""


@contextmanager
def _others(the: Trial) -> Iterator[tuple[Daemon, Daemon]]:
    """A replicator and a loader on a second host, as it were."""
    directory = Path(the.pipe.sandbox.directory, "second")
    directory.mkdir(exist_ok=True)
    environment = {
        **the.pipe.environment,
        "REPLICATOR_METRICS_PORT": str(free_port()),
        "LOADER_METRICS_PORT": str(free_port()),
    }
    others = (
        Daemon("replicator", environment, directory),
        Daemon("loader", environment, directory),
    )
    try:
        yield others
    finally:
        the.reshaping = True
        for other in others:
            other.kill()
            print(f"--- the other {other.program}\n{other.output[-5000:]}")  # where it fails
            other.log.unlink(missing_ok=True)


def _cut_replica(the: Trial) -> None:
    """End the replicator's connection that holds the main lock, and no other."""
    database = the.pipe.sandbox.replica_db
    holder = database.query("SELECT IS_USED_LOCK(%s)", (lock_name(REPLICA_DB, "main"),))[0][0]
    database.execute(f"KILL {int(holder)}")


def _cut_all(the: Trial) -> None:
    """End all that the daemons have open, as a network does that resets connections.

    At the source, too: a stream that a sleeper does not read holds up another of the same server
    id until the source loses its patience (net_write_timeout, a minute).
    """
    for database in (the.pipe.sandbox.source_db, the.pipe.sandbox.replica_db):
        for row in database.query("SHOW PROCESSLIST"):
            if row[1] == database.user:
                with suppress(pymysql.MySQLError):
                    database.execute(f"KILL {int(row[0])}")
    _cut_analytics(the, "loader", "loader reload")


def _cut_analytics(the: Trial, *names: str) -> None:
    with the.raw() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = ANY(%s)",
            [list(names)],
        )


def _pause(the: Trial, first: str, second: str) -> list[Daemon]:
    """The loader first: it has nothing to load while nothing is swapped on the replica."""
    # A loader that stands still in a load holds up changes of that table's shape: there are none
    # of these tables, and no more of others, nor a new table that it could be loading.
    the.rotation = ("visit", "account", "tally")
    the.reshaping = False
    the.settle()
    the.asked.set()
    asleep = []
    for point in (second, first):
        the.order(point, "pause")
        asleep.append(the.wait_for_pause(point))
    return asleep


@pytest.mark.timeout(300)
def test_a_second_daemon_is_refused_while_any_connection_of_the_first_may_still_write(
    trial: GetTrial,
) -> None:
    the = trial("InnoDB")
    with _others(the) as others:
        asleep = _pause(the, "resync.recorded", "load.before_commit")
        _cut_replica(the)  # the locks are gone, their writers' helpers are not
        _cut_analytics(the, "loader")
        for other in others:
            other.start()
        for other in others:
            assert other.wait(90) == 2, other.output
            assert "already writes to" in other.output
        for daemon in asleep:
            daemon.signal(signal.SIGCONT)
        the.settle()


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_daemon_that_slept_while_another_took_over_writes_nothing_and_stands_by(
    trial: GetTrial, first: str, second: str
) -> None:
    the = trial("InnoDB")
    with _others(the) as others:
        asleep = _pause(the, first, second)
        _cut_all(the)
        for other, word in zip(others, ("streaming", "loader_started"), strict=True):
            other.start()
            _wait_for(other, word)
        waits = [daemon.output.count("already writes to") for daemon in asleep]
        for daemon in asleep:
            daemon.signal(signal.SIGCONT)
        for daemon, before in zip(asleep, waits, strict=True):
            _wait_for(daemon, "already writes to", before)
        the.settle()
        for other in others:
            other.stop()
        the.settle()  # by those who stood by
        assert all(daemon.running for daemon in asleep)


@pytest.mark.timeout(400)
def test_a_host_that_vanishes_with_its_daemons_is_succeeded_by_another(
    linked: Callable[[Engine], Linked],
) -> None:
    """Answers to it are on their way at that moment: TCP would send them for a quarter of an hour.

    And what they answer is committed: by sessions that nobody listens to any more.
    """
    the, links = linked("InnoDB")
    the.settle()
    with the.at_rest(), _others(the) as others:
        with _held_up(the):
            for link in links.values():
                link.vanish()
            for daemon in the.daemons:
                daemon.kill()
        for other, word in zip(others, ("streaming", "loader_started"), strict=True):
            _insist(other, word)
        for other in others:
            other.stop()
    for link in links.values():
        link.pass_on()
    for daemon in the.daemons:
        the.restart_and_wait(daemon)
    the.settle()


@contextmanager
def _held_up(the: Trial) -> Iterator[None]:
    """Both daemons have sent rows of account, and their servers do not answer while this lasts."""
    sandbox = the.pipe.sandbox
    with the.raw() as raw, closing(sandbox.replica_db.connect()) as replica:
        raw.execute("BEGIN")
        raw.execute("LOCK TABLE raw.account IN EXCLUSIVE MODE")  # others may look
        _move_money(the)
        _await(the, "the loader", _loader_waits)
        cursor = replica.cursor()
        cursor.execute("LOCK TABLES account READ")
        _move_money(the)
        _await(the, "the replicator", _replicator_waits)
        yield


def _move_money(the: Trial) -> None:
    with closing(the.connect()) as connection:
        connection.cursor().execute(
            "UPDATE account SET amount = amount + IF(id = 1, 1, -1) ORDER BY id"
        )


def _await(the: Trial, who: str, waits: Callable[[Trial], bool]) -> None:
    wait_until(lambda: waits(the), 60, what=f"{who} to wait for a lock")


def _loader_waits(the: Trial) -> bool:
    with the.raw() as connection:
        found = connection.execute(
            "SELECT 1 FROM pg_stat_activity"
            " WHERE application_name = 'loader' AND wait_event_type = 'Lock'"
        )
        return bool(found.fetchall())


def _replicator_waits(the: Trial) -> bool:
    database = the.pipe.sandbox.replica_db
    return bool(
        database.query(
            "SELECT 1 FROM information_schema.processlist WHERE user = %s"
            " AND state LIKE 'Waiting for table%%'",
            (database.user,),
        )
    )


def _insist(daemon: Daemon, word: str) -> None:
    """Start it until it is let in, as its operator does."""

    def begun() -> bool:
        if not daemon.running:
            daemon.start()
        return word in daemon.output

    wait_until(begun, 180, what=lambda: f"{daemon.program} to be let in:\n{daemon.output[-3000:]}")


def _wait_for(daemon: Daemon, word: str, before: int = 0) -> None:
    wait_until(
        lambda: daemon.output.count(word) > before,
        60,
        what=lambda: f"{word!r} of the {daemon.program}:\n{daemon.output[-3000:]}",
    )

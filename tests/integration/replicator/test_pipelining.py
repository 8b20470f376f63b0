"""A batch is sent before the one ahead of it is answered: what if that one fails?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from config.errors import ApplyConflict, ConnectionLost, ServerBusy
from replicator.delivery import Delivery
from replicator.inflight import InFlight
from replicator.sandbox.waiting import wait_until
from tests.fix_servers import Pair
from tests.numbers import numbers

from .leg import DEADLINE, Leg

SECOND = 1_700_000_000


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many batches were on their way each time that one was sent."""
    seen: list[int] = []
    original = InFlight.send

    def counted(flight: InFlight[Any], commands: Any, tag: Any) -> None:
        original(flight, commands, tag)
        seen.append(len(flight))

    monkeypatch.setattr(InFlight, "send", counted)
    return seen


@pytest.fixture
def table(leg: Leg) -> Leg:
    leg.source.execute("CREATE TABLE sure (id INT PRIMARY KEY, n INT) ENGINE=InnoDB")
    leg.source.execute("INSERT INTO sure VALUES (1, 1), (2, 2)")
    leg.catch_up()
    return leg


@pytest.fixture
def impatient(replica_server: Any) -> Iterator[None]:
    """New sessions on the replica wait a second for a row's lock."""
    with closing(replica_server.connect()) as root, root.cursor() as cursor:
        cursor.execute("SET GLOBAL innodb_lock_wait_timeout = 1")
        yield
        cursor.execute("SET GLOBAL innodb_lock_wait_timeout = DEFAULT")


def batches(leg: Leg, *statements: str) -> None:
    """One transaction each, in seconds of their own: batches never span two."""
    with closing(leg.source.connect(ssl_disabled=True)) as connection:
        cursor = connection.cursor()
        for number, statement in enumerate(statements):
            cursor.execute(f"SET timestamp = {SECOND + number}")
            cursor.execute(statement)


@contextmanager
def when_two_are_on_their_way(most: list[int], act: Callable[[], Any]) -> Iterator[None]:
    """Meanwhile, in a thread: wait until a batch was sent behind an unanswered one, then act."""

    def wait() -> None:
        wait_until(lambda: max(most, default=0) == 2, DEADLINE, what="two batches on their way")
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def ids(leg: Leg) -> list[int]:
    return [row[0] for row in leg.replica.query("SELECT id FROM sure ORDER BY id")]


def test_several_batches_are_on_their_way_and_all_arrive(table: Leg, most: list[int]) -> None:
    with closing(table.replica.connect()) as other:
        other.begin()
        other.cursor().execute("SELECT * FROM sure WHERE id = 2 FOR UPDATE")
        batches(
            table,
            "UPDATE sure SET n = 20 WHERE id = 2",
            *(f"INSERT INTO sure VALUES ({n}, {n})" for n in range(10, 60)),
        )
        with when_two_are_on_their_way(most, other.rollback):
            table.catch_up()
    assert max(most) == 2
    table.assert_exact()
    assert table.position() == table.source_position()


def test_the_batch_that_failed_is_reported_and_the_one_behind_it_leaves_nothing(
    table: Leg, servers: Pair, most: list[int]
) -> None:
    batches(
        table,
        "INSERT INTO sure VALUES (3, 3)",
        "INSERT INTO sure VALUES (4711, 1)",
        *(f"INSERT INTO sure VALUES ({n}, {n})" for n in range(5, 10)),
    )
    with closing(table.replica.connect()) as other:
        other.begin()
        other.cursor().execute("INSERT INTO sure VALUES (4711, 0)")
        with (
            when_two_are_on_their_way(most, other.commit),
            pytest.raises(ApplyConflict, match=r"sure \(error 1062\)"),
        ):
            table.step_until(lambda: False)
    assert not set(ids(table)).intersection(range(5, 10))
    offset = table.offset()
    assert offset is not None
    assert offset.event_timestamp is not None
    # MySQL's events tell the true time beside the pretended one: the row before may come with it.
    if servers.family == "mariadb":
        assert ids(table) == [1, 2, 3, 4711]
        assert offset.event_timestamp.second == SECOND % 60  # of the one that arrived
    table.replica.execute("DELETE FROM sure WHERE id = 4711")
    table.restart()
    table.catch_up()
    table.assert_exact()


def test_a_batch_that_the_replica_is_too_busy_for_is_sent_again_with_those_behind_it(
    impatient: None, table: Leg, most: list[int]
) -> None:
    with closing(table.replica.connect()) as other:
        other.begin()
        other.cursor().execute("SELECT * FROM sure WHERE id = 2 FOR UPDATE")
        batches(
            table,
            "INSERT INTO sure VALUES (3, 3)",
            "UPDATE sure SET n = 20 WHERE id = 2",
            *(f"INSERT INTO sure VALUES ({n}, {n})" for n in range(5, 10)),
        )
        with pytest.raises(ServerBusy):
            table.step_until(lambda: False)
        assert max(most) == 2
        assert ids(table) == [1, 2, 3]
    table.catch_up()
    table.assert_exact()


def test_a_link_that_breaks_with_two_batches_on_their_way_loses_and_doubles_nothing(
    table: Leg, most: list[int]
) -> None:
    with closing(table.replica.connect()) as other:
        other.begin()
        other.cursor().execute("SELECT * FROM sure WHERE id = 2 FOR UPDATE")
        batches(
            table,
            "UPDATE sure SET n = 20 WHERE id = 2",
            *(f"INSERT INTO sure VALUES ({n}, {n})" for n in range(5, 10)),
        )
        with (
            when_two_are_on_their_way(most, lambda: _kill_who_applies(table)),
            pytest.raises(ConnectionLost),
        ):
            table.step_until(lambda: False)
        assert ids(table) == [1, 2]
    table.catch_up()
    table.assert_exact()


def _kill_who_applies(leg: Leg) -> None:
    """End the session that waits for the row."""
    with closing(leg.replica.connect()) as root, root.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM information_schema.processlist WHERE info LIKE 'BINLOG%%' AND user=%s",
            (leg.replica.user,),
        )
        for (number,) in cursor.fetchall():
            cursor.execute(f"KILL {number}")


def test_large_batches_arrive_byte_for_byte_by_variables_where_the_server_has_them(
    table: Leg, servers: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = Delivery.commands

    def counted(delivery: Delivery, events: bytes) -> Any:
        commands = original(delivery, events)
        sizes.append(len(commands))
        return commands

    monkeypatch.setattr(Delivery, "commands", counted)
    table.source.execute("CREATE TABLE wide (id INT PRIMARY KEY, body LONGBLOB) ENGINE=InnoDB")
    with closing(table.source.connect(ssl_disabled=True)) as connection:
        cursor = connection.cursor()
        for number in range(40):
            body = bytes((n * n + number) % 256 for n in range(20_000))
            cursor.execute("INSERT INTO wide VALUES (%s, _binary %s)", (number, body))
    table.catch_up()
    assert max(sizes) == (3 if servers.family == "mariadb" else 1)  # MySQL knows literals only
    table.assert_exact()


def test_a_large_batch_that_fails_leaves_nothing_and_takes_its_variables(table: Leg) -> None:
    table.replica.execute("INSERT INTO sure VALUES (9999, 0)")
    before = table.position()
    table.source.execute(f"INSERT INTO sure SELECT seq, seq FROM {numbers(10, 10_000)}")
    with pytest.raises(ApplyConflict, match="1062"):
        table.step_until(lambda: False)
    assert ids(table) == [1, 2, 9999]
    assert table.position() == before


@pytest.mark.only_on("mariadb", reason="MySQL's BINLOG takes literals only")
def test_the_server_takes_the_variables_with_the_statement(replica_server: Any) -> None:
    """What lets BINLOG be sent behind SETs that nobody has waited for."""
    with closing(replica_server.connect()) as connection, connection.cursor() as cursor:
        for text in ("QUJD", "no base64 at all"):
            cursor.execute("SET @a = %s, @b = ''", (text,))
            with pytest.raises(Exception, match=r"."):
                cursor.execute("BINLOG @a, @b")
            cursor.execute("SELECT @a, @b")
            assert cursor.fetchone() == (None, None)
        with pytest.raises(Exception, match="1149"):
            cursor.execute("BINLOG @a, @b")

"""Starting: a second replicator, a position that the source has lost, and the way past it."""

from __future__ import annotations

import threading
from contextlib import suppress

import pymysql
import pytest
from structlog.testing import capture_logs

from config.errors import AlreadyRunning, ConfigError, ConnectionLost, PositionLost, SourceReset
from replicator import replica as rep
from replicator.resync_desk import ResyncDesk
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.waiting import wait_until
from replicator.schema_changes import SchemaChanges
from replicator.snapshot import TableCopier
from replicator.tracking import execute

from .conftest import NewLeg
from .leg import Crash, Leg, crashing


@pytest.fixture
def two_legs(new_leg: NewLeg) -> tuple[Leg, Leg]:
    """One that streams, and one that would, to the same replica."""
    first, second = new_leg(), new_leg(server_id=2**31 + 40)
    first.source.execute("CREATE TABLE patient (id INT PRIMARY KEY)")
    first.catch_up()
    return first, second


def test_a_second_replicator_does_not_start(
    two_legs: tuple[Leg, Leg], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rep, "LOCK_PATIENCE", 0)
    first, second = two_legs
    with pytest.raises(AlreadyRunning) as caught:
        second.step()
    assert first.replica.name in str(caught.value)
    first.source.execute("INSERT INTO patient VALUES (1)")
    first.catch_up()
    first.close()
    second.source.execute("INSERT INTO patient VALUES (2)")
    second.catch_up()
    second.assert_exact()


def test_a_predecessor_that_says_nothing_any_more_is_ended_with_all_that_it_holds(
    two_legs: tuple[Leg, Leg], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its host has vanished, of which the server hears nothing."""
    monkeypatch.setattr(rep, "LOCK_PATIENCE", 1)
    first, second = two_legs
    with pytest.raises(AlreadyRunning):
        second.step()
    monkeypatch.setattr(rep, "SILENT_SECONDS", 0)
    second.source.execute("INSERT INTO patient VALUES (1)")
    with capture_logs() as logs:
        second.catch_up()
    ended = [line["session"] for line in logs if line["event"] == "silent_predecessor_ended"]
    assert len(ended) == len(set(ended)) >= 2  # the main connection, and the hidden one
    monkeypatch.undo()
    monkeypatch.setattr(rep, "LOCK_PATIENCE", 0)
    with pytest.raises(ConnectionLost):
        first.step()
    with pytest.raises(AlreadyRunning):  # it was not gone: it stands by, as ever
        first.step()
    second.source.execute("INSERT INTO patient VALUES (2)")
    second.catch_up()
    second.assert_exact()


def test_a_predecessor_at_work_is_not_ended_however_long_it_takes(
    two_legs: tuple[Leg, Leg], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rep, "LOCK_PATIENCE", 0)
    monkeypatch.setattr(rep, "SILENT_SECONDS", 0)
    first, second = two_legs
    working = first.replicator._session
    assert working is not None

    def work() -> None:
        with suppress(pymysql.err.OperationalError):  # interrupted, at the end
            execute(working.replica, "SELECT SLEEP(100)")

    thread = threading.Thread(target=work)
    thread.start()
    number = working.replica.thread_id()
    question = f"SELECT 1 FROM information_schema.processlist WHERE id={number} AND command='Query'"
    wait_until(lambda: first.replica.query(question), 10, "the long statement")
    with pytest.raises(AlreadyRunning):
        second.step()
    first.replica.execute(f"KILL QUERY {number}")
    thread.join()


def test_a_database_that_was_there_takes_the_sources_character_set(leg: Leg) -> None:
    leg.replica.execute("ALTER DATABASE CHARACTER SET latin1")
    leg.source.execute("CREATE TABLE patient (id INT PRIMARY KEY)")
    leg.catch_up()
    leg.source.execute("CREATE TABLE person (name VARCHAR(9) PRIMARY KEY)")
    leg.source.execute("INSERT INTO person VALUES ('ä')")
    leg.catch_up()
    leg.assert_exact()


def test_a_source_that_logs_statements_is_refused_at_the_start(
    new_leg: NewLeg, lone_source: MySQLDatabase
) -> None:
    lone_source.execute("SET GLOBAL binlog_format = 'MIXED'")
    try:
        with pytest.raises(ConfigError, match="binlog_format is MIXED"):
            new_leg(source=lone_source).step()
    finally:
        lone_source.execute("SET GLOBAL binlog_format = 'ROW'")


# --- positions that are lost -----------------------------------------------------------------


@pytest.fixture
def stopped(new_leg: NewLeg, lone_source: MySQLDatabase) -> Leg:
    """A leg that has streamed two tables, and is down; the source has gone on a little."""
    lone_source.forget_binlogs()
    for _ in range(2):
        lone_source.execute("FLUSH BINARY LOGS")
    leg = new_leg(source=lone_source)
    for table in ("one", "two"):
        lone_source.execute(f"CREATE TABLE {table} (id INT PRIMARY KEY, n INT)")
        lone_source.execute(f"INSERT INTO {table} VALUES (1, 1), (2, 2), (3, 3)")
    leg.catch_up()
    lone_source.execute("INSERT INTO one VALUES (4, 4)")
    leg.restart()
    return leg


LOSSES = {
    "purged": (["FLUSH BINARY LOGS", "PURGE BINARY LOGS TO 'source-bin.000004'"], PositionLost),
    "reset": (["RESET", "INSERT INTO one VALUES (5, 5)"], SourceReset),
    "restored to an older state": (
        ["RESET", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS"],
        SourceReset,
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_position_halts_and_a_resync_of_everything_goes_past_it(
    stopped: Leg, loss: str
) -> None:
    statements, error = LOSSES[loss]
    for statement in statements:
        if statement == "RESET":
            stopped.source.forget_binlogs()
        else:
            stopped.source.execute(statement)
    for _ in range(2):
        with pytest.raises(error) as caught:
            stopped.step_until(lambda: False)
        assert "replicator resync --all" in caught.value.hint
    stopped.resync()
    stopped.catch_up()
    stopped.assert_exact()
    assert stopped.requests() == [("one", "loading"), ("two", "loading")]
    stopped.source.execute("UPDATE one SET n = n + 1")
    stopped.catch_up()
    stopped.assert_exact()


def test_a_resync_of_one_table_does_not_go_past_a_lost_position(stopped: Leg) -> None:
    stopped.source.forget_binlogs()
    stopped.resync("one")
    with pytest.raises(SourceReset):
        stopped.step_until(lambda: False)


def test_a_resync_of_everything_forgets_the_resync_that_was_under_way(
    stopped: Leg, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = stopped
    leg.resync("two")
    with crashing(monkeypatch, ResyncDesk, "_swap"), pytest.raises(Crash):
        leg.step_until(lambda: False)
    assert "_resync_two" in leg.tables()
    leg.source.forget_binlogs()
    leg.source.execute("DROP TABLE two")
    leg.source.execute("DELETE FROM one WHERE id = 1")
    leg.restart()
    leg.resync()
    leg.catch_up()
    leg.assert_exact()
    assert leg.requests("restarting") == []
    leg.resync("one")
    leg.source.execute("INSERT INTO one VALUES (9, 9)")
    leg.catch_up()
    leg.assert_exact()
    assert leg.replica.query("SELECT stream FROM etl_binlog_offset") == [("main",)]


def test_a_resync_of_everything_takes_away_what_nobody_noted_that_it_was_made(
    stopped: Leg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a table that was made, unnoted, and is not on the source any more, nobody else would."""
    leg = stopped
    leg.source.execute("CREATE TABLE three (id int PRIMARY KEY)")
    with crashing(monkeypatch, SchemaChanges, "_finish"), pytest.raises(Crash):
        leg.step_until(lambda: False)
    assert "three" in leg.tables()
    leg.source.execute("DROP TABLE three")
    leg.restart()
    leg.resync()
    leg.catch_up()
    leg.assert_exact()
    assert "three" not in leg.tables()


def test_a_resync_of_everything_may_itself_be_cut_off(
    stopped: Leg, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped.source.forget_binlogs()
    stopped.resync()
    with (
        crashing(monkeypatch, TableCopier, "copy_chunk", after=1),
        pytest.raises(Crash),
    ):
        stopped.step_until(lambda: False)
    assert {state for _, state in stopped.requests()} == {"restarting"}
    stopped.source.execute("UPDATE one SET n = n + 1")
    stopped.restart()
    stopped.catch_up()
    stopped.assert_exact()
    assert {state for _, state in stopped.requests()} == {"loading"}


def test_another_server_in_the_sources_place_halts_where_no_gtids_tell(stopped: Leg) -> None:
    stopped.replica.execute(
        "UPDATE etl_binlog_offset SET source_server_id = 4, source_server_uuid = 'x', gtid_set = ''"
    )
    with pytest.raises(SourceReset, match="another server"):
        stopped.step()

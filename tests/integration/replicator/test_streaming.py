"""Rows of the source arrive as they are, with the position, and nothing else does."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from config.errors import ApplyConflict
from config.tables import TableRules
from replicator.sandbox.databases import MySQLDatabase
from tests.fix_servers import Pair
from tests.numbers import numbers

from .conftest import NewLeg
from .leg import DEADLINE, Leg, crawl


def session(database: MySQLDatabase, *statements: str) -> None:
    """Run statements in one session of their own."""
    with closing(database.connect(ssl_disabled=True)) as connection:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def pair(leg: Leg) -> Leg:
    """A transactional table and one that is not, being streamed."""
    leg.source.execute("CREATE TABLE sure (id INT PRIMARY KEY, n INT, UNIQUE (n)) ENGINE=InnoDB")
    leg.source.execute("CREATE TABLE loose (id INT PRIMARY KEY, n INT) ENGINE=MyISAM")
    leg.source.execute("INSERT INTO sure VALUES (1, 1), (2, 2)")
    leg.source.execute("INSERT INTO loose VALUES (1, 1), (2, 2)")
    leg.catch_up()
    return leg


WORK: dict[str, list[str]] = {
    "a rollback": ["BEGIN", "INSERT INTO sure VALUES (3, 3)", "ROLLBACK"],
    "a rollback over both engines": [
        "BEGIN",
        "INSERT INTO sure VALUES (3, 3)",
        "INSERT INTO loose VALUES (3, 3)",
        "UPDATE sure, loose SET sure.n = 100 + sure.id, loose.n = 5 WHERE sure.id = loose.id",
        "ROLLBACK",
    ],
    "a rollback that the binlog keeps": [
        "BEGIN",
        "INSERT INTO sure VALUES (3, 3)",
        "CREATE TEMPORARY TABLE scratch (id INT) ENGINE=InnoDB",
        "INSERT INTO loose VALUES (3, 3)",
        "DROP TEMPORARY TABLE scratch",
        "ROLLBACK",
    ],
    "savepoints": [
        "BEGIN",
        "INSERT INTO sure VALUES (3, 3)",
        "SAVEPOINT a",
        "INSERT INTO sure VALUES (4, 4)",
        "SAVEPOINT `b c`",
        "DELETE FROM sure WHERE id = 1",
        "ROLLBACK TO `b c`",
        "UPDATE sure SET n = 9 WHERE id = 4",
        "ROLLBACK TO a",
        "INSERT INTO sure VALUES (5, 5)",
        "RELEASE SAVEPOINT a",
        "COMMIT",
    ],
    "savepoints over both engines": [
        "BEGIN",
        "INSERT INTO sure VALUES (3, 3)",
        "SAVEPOINT a",
        "INSERT INTO sure VALUES (4, 4)",
        "INSERT INTO loose VALUES (4, 4)",
        "ROLLBACK TO a",
        "INSERT INTO loose VALUES (5, 5)",
        "INSERT INTO sure VALUES (5, 5)",
        "COMMIT",
    ],
    "savepoints that the binlog keeps": [
        "BEGIN",
        "INSERT INTO sure VALUES (3, 3)",
        "CREATE TEMPORARY TABLE scratch (id INT) ENGINE=MyISAM",
        "SAVEPOINT a",
        "INSERT INTO sure VALUES (4, 4)",
        "INSERT INTO loose VALUES (4, 4)",
        "ROLLBACK TO a",
        "INSERT INTO sure VALUES (5, 5)",
        "COMMIT",
    ],
    "tables of both engines in one transaction": [
        "BEGIN",
        "UPDATE sure, loose SET sure.n = 100 + sure.id, loose.n = 5 WHERE sure.id = loose.id",
        "DELETE sure, loose FROM sure JOIN loose USING (id) WHERE id = 1",
        "COMMIT",
    ],
    "a statement that fails half way in a table without transactions": [
        "INSERT IGNORE INTO loose VALUES (3, 3), (1, 9), (4, 4)",
    ],
    "key checks switched off and on": [
        "BEGIN",
        "INSERT INTO sure VALUES (3, 3)",
        "SET foreign_key_checks = 0",
        "INSERT INTO sure VALUES (4, 4)",
        "SET unique_checks = 0",
        "INSERT INTO sure VALUES (5, 5)",
        "SET foreign_key_checks = 1",
        "UPDATE sure SET n = n + 100",
        "COMMIT",
    ],
    "unique values that change places": [
        "BEGIN",
        "UPDATE sure SET n = NULL WHERE id = 1",
        "UPDATE sure SET n = 1 WHERE id = 2",
        "UPDATE sure SET n = 2 WHERE id = 1",
        "COMMIT",
    ],
    "a key that moves": ["UPDATE sure SET id = id + 10 ORDER BY id DESC", "DELETE FROM loose"],
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_transactions_arrive_as_the_source_committed_them(pair: Leg, work: list[str]) -> None:
    session(pair.source, *work)
    session(pair.source, *work[:0], "INSERT INTO sure VALUES (77, 77)")
    pair.catch_up()
    pair.assert_exact()
    assert pair.position() == pair.source_position()


def test_a_table_that_is_flushed_and_altered_within_a_batch_arrives(pair: Leg) -> None:
    session(
        pair.source,
        "INSERT INTO sure VALUES (3, 3)",
        "FLUSH TABLES",
        "INSERT INTO sure VALUES (4, 4)",
        "ALTER TABLE sure ADD COLUMN extra INT DEFAULT 5",
        "INSERT INTO sure VALUES (5, 5, 6)",
        "FLUSH TABLES sure",
        "UPDATE sure SET extra = id",
    )
    pair.catch_up()
    pair.assert_exact()


def test_a_table_flushed_by_somebody_else_within_a_transaction_arrives(pair: Leg) -> None:
    with closing(pair.source.connect(ssl_disabled=True)) as connection:
        cursor = connection.cursor()
        cursor.execute("INSERT INTO loose VALUES (7, 7)")
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO sure VALUES (3, 3)")
        cursor.execute("SAVEPOINT a")
        cursor.execute("INSERT INTO sure VALUES (4, 4)")
        cursor.execute("COMMIT")
    pair.catch_up()
    pair.assert_exact()


@pytest.mark.parametrize("limit", [1024, 40_000])
def test_transactions_larger_than_a_batch_arrive_whole(new_leg: NewLeg, limit: int) -> None:
    leg = new_leg(batch_bytes=limit)
    leg.source.execute("CREATE TABLE wide (id INT PRIMARY KEY, body TEXT) ENGINE=InnoDB")
    leg.catch_up()
    session(
        leg.source,
        f"INSERT INTO wide SELECT seq, REPEAT('synthetic', 10) FROM {numbers(1, 2000)}",
        "BEGIN",
        "UPDATE wide SET id = id + 10000, body = CONCAT(body, id)",
        "DELETE FROM wide WHERE id % 3 = 0",
        "COMMIT",
        "BEGIN",
        "DELETE FROM wide",
        "ROLLBACK",
    )
    leg.catch_up()
    leg.assert_exact()
    assert leg.position() == leg.source_position()


def test_what_happens_between_events_of_a_large_transaction_does_not_commit_it(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(batch_bytes=1024)
    leg.source.execute("CREATE TABLE wide (id INT PRIMARY KEY, body TEXT) ENGINE=InnoDB")
    leg.catch_up()
    crawl(monkeypatch)
    session(
        leg.source,
        "BEGIN",
        *(
            f"INSERT INTO wide SELECT seq, REPEAT('x', 900) FROM {numbers(n, n + 9)}"
            for n in range(0, 100, 10)
        ),
        "COMMIT",
    )
    seen: set[int] = set()

    def watch(reached: bool) -> bool:
        seen.add(int(leg.replica.query("SELECT COUNT(*) FROM wide")[0][0]))
        return reached

    main = leg.replicator._replicator
    leg.step_until(lambda: watch(main.has_begun))
    leg.resync("absent")  # it fails, which is noted in a transaction
    leg.step_until(lambda: watch(leg.replicator.resync is not None or not main.has_begun))
    if leg.replicator.resync is not None:
        leg.replicator.resync.join(DEADLINE)
    leg.step_until(lambda: watch(leg._caught_up(leg.source_position())))
    assert seen == {0, 100}
    assert leg.requests() == [("absent", "failed")]
    leg.assert_exact()


def test_excluded_tables_and_other_databases_only_move_the_position(
    new_leg: NewLeg, source_server: Any
) -> None:
    leg = new_leg(rules=TableRules(exclude=("tempdash*",)))
    leg.source.execute("CREATE TABLE patient (id INT PRIMARY KEY)")
    leg.source.execute("CREATE TABLE TempDash1 (id INT PRIMARY KEY)")
    leg.source.execute("CREATE TABLE etl_x (id INT PRIMARY KEY)")
    leg.source.execute("CREATE TABLE _resync_x (id INT PRIMARY KEY)")
    aside = ("TempDash1", "etl_x", "_resync_x")
    leg.catch_up()
    with closing(source_server.connect(ssl_disabled=True)) as root:
        cursor = root.cursor()
        cursor.execute("CREATE DATABASE IF NOT EXISTS elsewhere")
        cursor.execute("DROP TABLE IF EXISTS elsewhere.patient")
        cursor.execute("CREATE TABLE elsewhere.patient (id INT PRIMARY KEY)")
        cursor.execute("INSERT INTO elsewhere.patient VALUES (1)")
        for table in aside:
            cursor.execute(f"INSERT INTO `{leg.source.name}`.`{table}` VALUES (1)")
        cursor.execute("ALTER TABLE elsewhere.patient ADD COLUMN n INT")
        cursor.execute("DROP DATABASE elsewhere")
    leg.source.execute("ALTER TABLE etl_x ADD COLUMN n INT")
    leg.source.execute("DROP TABLE _resync_x")
    leg.catch_up()
    assert leg.tables() == ["patient"]
    assert leg.states() == {"patient": "streaming"}
    assert leg.replica.query("SELECT COUNT(*) FROM patient") == [(0,)]
    assert leg.position() == leg.source_position()


def test_the_offset_row_tells_position_gtid_and_commit_time(pair: Leg, servers: Pair) -> None:
    ((before,),) = pair.source.query("SELECT UTC_TIMESTAMP(6)")
    pair.source.execute("SET timestamp = 1700000000")
    pair.source.execute("INSERT INTO sure VALUES (3, 3)")
    pair.source.execute("SET timestamp = DEFAULT")
    ((after,),) = pair.source.query("SELECT UTC_TIMESTAMP(6)")
    pair.catch_up()
    offset = pair.offset()
    assert offset is not None
    assert offset.position == pair.source_position()
    if servers.family == "mariadb":
        assert [(offset.gtid,)] == pair.source.query("SELECT @@gtid_binlog_state")
        assert str(offset.event_timestamp) == "2023-11-14 22:13:20"
    else:  # it knows the true time, to the microsecond; a practice on MyISAM has no GTID
        assert offset.event_timestamp is not None
        assert before <= offset.event_timestamp <= after
        assert offset.gtid == ""


def test_a_batch_whose_offset_is_not_there_changes_nothing(pair: Leg) -> None:
    pair.replica.execute("UPDATE etl_binlog_offset SET binlog_position = binlog_position + 1")
    pair.source.execute("INSERT INTO sure VALUES (3, 3)")
    with pytest.raises(ApplyConflict):
        pair.step_until(lambda: False)
    assert pair.replica.query("SELECT COUNT(*) FROM sure") == [(2,)]


def test_somebody_elses_row_is_a_conflict_that_names_the_table_and_no_value(pair: Leg) -> None:
    before = pair.position()
    pair.replica.execute("INSERT INTO sure VALUES (1999888777, 1999888777)")
    pair.source.execute("INSERT INTO sure VALUES (3, 3), (1999888777, 5)")
    with pytest.raises(ApplyConflict, match="sure") as caught:
        pair.step_until(lambda: False)
    assert "1999888777" not in f"{caught.value} {caught.value.hint}"
    assert "replicator resync sure" in caught.value.hint
    assert pair.replica.query("SELECT COUNT(*) FROM sure WHERE id = 3") == [(0,)]
    assert pair.position() == before


def test_a_row_that_somebody_removed_is_a_conflict(pair: Leg) -> None:
    pair.replica.execute("DELETE FROM loose WHERE id = 1")
    pair.source.execute("UPDATE loose SET n = 8 WHERE id = 1")
    with pytest.raises(ApplyConflict, match="loose"):
        pair.step_until(lambda: False)


def test_a_new_binlog_file_is_followed(pair: Leg) -> None:
    for number in range(3, 6):
        pair.source.execute("FLUSH BINARY LOGS")
        pair.source.execute("INSERT INTO sure VALUES (%s, %s)", (number, number))
    pair.catch_up()
    pair.source.execute("FLUSH BINARY LOGS")
    pair.catch_up()
    pair.restart()
    pair.source.execute("INSERT INTO sure VALUES (6, 6)")
    pair.catch_up()
    pair.assert_exact()

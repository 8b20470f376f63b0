"""XA transactions: prepared now, committed or rolled back later, perhaps by somebody else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pymysql
import pytest

from config.errors import PositionLost
from replicator import source
from replicator.prepared import PreparedTransactions
from replicator.sandbox.accounts import allow_source, create_source_account
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.servers import SOURCE_OPTIONS
from replicator.sandbox.waiting import wait_until
from tests.fix_servers import NewMariaDB
from tests.numbers import numbers

from .conftest import NewLeg
from .leg import Crash, Leg, crashing
from .test_partial_windows import in_turn, whenever_read

_UNKNOWN_XID = 1397


@pytest.fixture
def leg(new_leg: NewLeg) -> Leg:
    """A table that streams."""
    leg = new_leg(batch_bytes=100_000)
    leg.source.execute("CREATE TABLE t (id INT PRIMARY KEY, note TEXT) ENGINE=InnoDB")
    leg.source.execute("CREATE TABLE m (id INT PRIMARY KEY, note TEXT) ENGINE=MyISAM")
    leg.source.execute("INSERT INTO t VALUES (0, 'old')")
    leg.catch_up()
    return leg


@contextmanager
def session(database: MySQLDatabase) -> Iterator[Any]:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        yield cursor


def prepare(database: MySQLDatabase, xid: str, *statements: str) -> None:
    """Do these in an XA transaction, prepare it and hang up; it locks the rows it found alone."""
    with session(database) as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute(f"XA START {xid}")
        for statement in statements:
            cursor.execute(statement)
        cursor.execute(f"XA END {xid}")
        cursor.execute(f"XA PREPARE {xid}")


def end(database: MySQLDatabase, how: str) -> None:
    """XA COMMIT or XA ROLLBACK by somebody else: who has hung up holds it for another moment."""

    def ended() -> bool:
        with session(database) as cursor:
            try:
                cursor.execute(f"XA {how}")
            except pymysql.OperationalError as error:
                if error.args[0] != _UNKNOWN_XID:
                    raise
                return False
        return True

    wait_until(ended, 20, what=f"XA {how}")


def notes(leg: Leg) -> list[tuple[int, str]]:
    return leg.replica.query("SELECT id, note FROM t ORDER BY id")


def test_rows_are_there_from_the_commit_on_and_not_before(leg: Leg) -> None:
    prepare(leg.source, "'a','b',7", "INSERT INTO t VALUES (1, 'xa')", "UPDATE t SET note = 'new'")
    prepare(leg.source, "'c'", "INSERT INTO t VALUES (2, 'rolled back')")
    leg.source.execute("INSERT INTO t VALUES (3, 'between')")
    leg.catch_up()
    assert notes(leg) == [(0, "old"), (3, "between")]
    end(leg.source, "ROLLBACK 'c'")
    leg.source.execute("INSERT INTO t VALUES (2, 'after it')")
    end(leg.source, "COMMIT 'a','b',7")
    leg.catch_up()
    assert notes(leg) == [(0, "new"), (1, "new"), (2, "after it"), (3, "between")]
    leg.assert_exact()
    assert leg.position() == leg.source_position()


def test_every_end_that_an_xa_transaction_can_have(leg: Leg) -> None:
    with session(leg.source) as cursor:
        for number, (work, ends) in enumerate([
            (["INSERT INTO t VALUES ({n}, 'one phase')"], ["COMMIT {xid} ONE PHASE"]),
            (["INSERT INTO t VALUES ({n}, 'not prepared')"], ["ROLLBACK {xid}"]),
            (["INSERT INTO t VALUES ({n}, 'x')"], ["PREPARE {xid}", "COMMIT {xid}"]),
            (["INSERT INTO t VALUES ({n}, 'x')"], ["PREPARE {xid}", "ROLLBACK {xid}"]),
            (["SELECT * FROM t"], ["PREPARE {xid}", "COMMIT {xid}"]),
            ([], ["PREPARE {xid}", "COMMIT {xid}"]),
            ([], ["COMMIT {xid} ONE PHASE"]),
            (["UPDATE t SET note = note"], ["PREPARE {xid}", "COMMIT {xid}"]),
            (["INSERT INTO m VALUES ({n}, 'at once')"], ["PREPARE {xid}", "COMMIT {xid}"]),
            (["INSERT INTO m VALUES ({n}, 'kept')", "INSERT INTO t VALUES ({n}, 'x')"],
             ["PREPARE {xid}", "ROLLBACK {xid}"]),
            (["INSERT INTO t VALUES ({n}, 'x')", "INSERT INTO m VALUES ({n}, 'x')"],
             ["PREPARE {xid}", "COMMIT {xid}"]),
            (["INSERT INTO t VALUES ({n}, 'x')", "SAVEPOINT s", "DELETE FROM t WHERE id = {n}",
              "INSERT INTO m VALUES ({n}, 'kept')", "ROLLBACK TO SAVEPOINT s",
              "UPDATE t SET note = 'later' WHERE id = {n}"],
             ["PREPARE {xid}", "COMMIT {xid}"]),
        ], start=10):  # fmt: skip
            xid = f"'{'g' * 60}{number}','{'q' * 64}',{number}"
            cursor.execute(f"XA START {xid}")
            for statement in work:
                cursor.execute(statement.format(n=number))
            cursor.execute(f"XA END {xid}")
            for end in ends:
                cursor.execute("XA " + end.format(xid=xid))
            cursor.execute("INSERT INTO t VALUES (%s, 'plain')", (number + 100,))
    leg.catch_up()
    leg.assert_exact()


def test_what_was_prepared_in_an_earlier_life_and_file_is_found(leg: Leg) -> None:
    prepare(leg.source, "'again'", "INSERT INTO t VALUES (1, 'rolled back')")
    end(leg.source, "ROLLBACK 'again'")
    prepare(leg.source, "'old'", "INSERT INTO t VALUES (2, 'old')", "DELETE FROM t WHERE id = 0")
    prepare(leg.source, "'again'", "INSERT INTO t VALUES (3, 'again')")
    leg.catch_up()
    with session(leg.source) as cursor:
        cursor.execute("FLUSH BINARY LOGS")
        cursor.execute("INSERT INTO t VALUES (9, 'plain')")
        cursor.execute("FLUSH BINARY LOGS")
    leg.restart()
    leg.catch_up()
    end(leg.source, "COMMIT 'again'")
    leg.catch_up()
    assert notes(leg) == [(0, "old"), (3, "again"), (9, "plain")]
    leg.restart()
    end(leg.source, "COMMIT 'old'")
    prepare(leg.source, "'old'", "INSERT INTO t VALUES (5, 'the same id')")
    leg.catch_up()
    end(leg.source, "COMMIT 'old'")
    leg.catch_up()
    leg.assert_exact()


def test_a_transaction_larger_than_a_batch_comes_whole_or_not_at_all(leg: Leg) -> None:
    fill = f"INSERT INTO t SELECT seq + %d, REPEAT('x', 200) FROM {numbers(1, 3000)}"
    prepare(leg.source, "'large'", fill % 100, "UPDATE t SET note = CONCAT(note, 'y')")
    prepare(leg.source, "'void'", fill % 10_000)
    leg.catch_up()
    assert notes(leg) == [(0, "old")]
    end(leg.source, "ROLLBACK 'void'")
    end(leg.source, "COMMIT 'large'")
    with crashing(pytest.MonkeyPatch(), PreparedTransactions, "_changes"), pytest.raises(Crash):
        leg.catch_up()
    leg.restart()
    leg.catch_up()
    assert len(notes(leg)) == 3001
    leg.assert_exact()


@pytest.mark.parametrize("flushed", [False, True])
def test_what_was_prepared_before_the_first_copy_is_not_lost(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch, flushed: bool
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    leg.source.execute("CREATE TABLE t (id INT PRIMARY KEY, note TEXT) ENGINE=InnoDB")
    leg.source.execute(f"INSERT INTO t SELECT seq, 'x' FROM {numbers(1, 12)}")
    prepare(leg.source, "'before'", "UPDATE t SET note = 'b' WHERE id IN (1, 11)")
    prepare(
        leg.source, "'later'", "UPDATE t SET id = 50 WHERE id = 2", "DELETE FROM t WHERE id = 10"
    )
    if flushed:
        with session(leg.source) as cursor:
            cursor.execute("FLUSH BINARY LOGS")
    whenever_read(monkeypatch, in_turn(lambda: end(leg.source, "COMMIT 'before'")))
    leg.catch_up()
    leg.assert_exact()
    end(leg.source, "COMMIT 'later'")
    leg.catch_up()
    leg.assert_exact()


@pytest.mark.parametrize("seed", range(2))
def test_commits_while_tables_are_copied_and_reloaded(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    leg = new_leg(copy_chunk_rows=4)
    leg.source.execute("CREATE TABLE t (id INT PRIMARY KEY, note TEXT) ENGINE=InnoDB")
    leg.source.execute(f"INSERT INTO t SELECT seq, 'x' FROM {numbers(1, 30)}")
    coordinator = Coordinator(leg.source, seed)
    whenever_read(monkeypatch, coordinator)
    for _ in range(2):
        for _ in range(20):
            leg.step()
            coordinator()
            if coordinator.dice.random() < 0.2:
                leg.restart()
        leg.catch_up()
        coordinator.end_all()
        leg.catch_up()
        leg.assert_exact()
        leg.resync("t")


class Coordinator:
    """Prepares transactions on rows of their own, and ends them later, in any order."""

    def __init__(self, database: MySQLDatabase, seed: int) -> None:
        self._database = database
        self.dice = random.Random(seed)
        self._open: dict[int, str] = {}
        self._number = 0

    def __call__(self) -> None:
        for _ in range(self.dice.randint(1, 3)):
            free = sorted(set(range(1, 31)) - set(self._open))
            if self._open and (not free or self.dice.random() < 0.5):
                self._end(self.dice.choice(sorted(self._open)))
            else:
                self._begin(self.dice.choice(free))

    def _begin(self, row: int) -> None:
        self._number += 1
        self._open[row] = f"'{self._number % 7}','{row}'"
        moved = (
            f"UPDATE t SET id = IF(id > 100, {row}, {row + 100}) WHERE id IN ({row}, {row + 100})"
        )
        prepare(
            self._database,
            self._open[row],
            f"UPDATE t SET note = 'n{self._number}' WHERE id IN ({row}, {row + 100})",
            self.dice.choice([moved, f"REPLACE INTO t VALUES ({row + 200}, 'r')"]),
        )

    def _end(self, row: int) -> None:
        verb = self.dice.choice(["COMMIT", "COMMIT", "ROLLBACK"])
        end(self._database, f"{verb} {self._open.pop(row)}")

    def end_all(self) -> None:
        for row in sorted(self._open):
            self._end(row)


@pytest.fixture
def own(new_mariadb: NewMariaDB) -> MySQLDatabase:
    """A source whose binlogs may be purged."""
    server = new_mariadb({**SOURCE_OPTIONS, "default_storage_engine": "InnoDB"})
    database = MySQLDatabase(server, "opendental", "readonly_user", "synthetic")
    database.create()
    with closing(server.connect()) as root:
        create_source_account(root, database.user, database.password)
        allow_source(root, database.user, database.name)
    return database


def test_a_source_that_died_between_prepare_and_commit_is_followed(
    new_leg: NewLeg, own: MySQLDatabase
) -> None:
    leg = new_leg(source=own)
    own.execute("CREATE TABLE t (id INT PRIMARY KEY, note TEXT)")
    leg.catch_up()
    prepare(own, "'a'", "INSERT INTO t VALUES (1, 'x')")
    prepare(own, "'b'", "INSERT INTO t VALUES (2, 'x')")
    leg.catch_up()
    own.server.kill()
    own.server.start()
    with suppress(pymysql.OperationalError):
        own.query("SELECT 'the connection is gone'")
    end(own, "COMMIT 'a'")
    end(own, "ROLLBACK 'b'")
    leg.restart()
    leg.catch_up()
    leg.assert_exact()


def test_a_commit_of_what_is_not_in_the_binlog_any_more_halts_with_the_remedy(
    new_leg: NewLeg, own: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(source=own)
    own.execute("CREATE TABLE t (id INT PRIMARY KEY, note TEXT)")
    leg.catch_up()
    prepare(own, "'a'", "INSERT INTO t VALUES (1, 'x')")
    own.execute("FLUSH BINARY LOGS")
    leg.catch_up()
    leg.restart()
    end(own, "COMMIT 'a'")
    # MariaDB keeps the file of a prepare that is not committed, but for those who copy it away.
    monkeypatch.setattr(source, "binlog_files", lambda _connection: [leg.source_position().file])
    with pytest.raises(PositionLost, match="XA transaction") as halt:
        leg.catch_up()
    assert "resync --all" in halt.value.hint
    leg.restart()
    leg.resync()
    leg.catch_up()
    leg.assert_exact()

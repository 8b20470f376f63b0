"""A copy's window on a source that logs parts of rows: whatever chunks had read, it ends exact."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pymysql
import pytest

from replicator import source as src
from replicator.binlog.position import SourcePosition
from replicator.copy_progress import CopyProgress
from replicator.sandbox.databases import MySQLDatabase
from replicator.snapshot import TableCopier
from tests.numbers import numbers

from .conftest import NewLeg
from .leg import Leg, crawl
from .test_row_images import (
    DEFAULTS,
    logging,
    pytest_generate_tests,  # noqa: F401 (its parameter image)
)

ENGINES = ["InnoDB", "MyISAM"]


def whenever_read(monkeypatch: pytest.MonkeyPatch, work: Callable[[], None]) -> list[str]:
    """Do `work` behind each chunk that is copied, and around each time that rows are read again.

    Gives the names of the tables whose rows were read again so far.
    """
    copy_chunk, read_again, again = TableCopier.copy_chunk, TableCopier.read_again, []

    def working_chunk(self: TableCopier, *arguments: Any) -> CopyProgress:
        after = copy_chunk(self, *arguments)
        work()
        return after

    def working_again(
        self: TableCopier, table: src.SourceTable, progress: CopyProgress, reached: SourcePosition
    ) -> CopyProgress:
        again.append(table.name)
        work()
        after = read_again(self, table, progress, reached)
        work()
        return after

    monkeypatch.setattr(TableCopier, "copy_chunk", working_chunk)
    monkeypatch.setattr(TableCopier, "read_again", working_again)
    return again


def in_turn(*works: Callable[[], None]) -> Callable[[], None]:
    """Each call does the next of them."""
    waiting = list(works)
    return lambda: waiting.pop(0)() if waiting else None


def statements(database: MySQLDatabase, image: str, *sql: str) -> Callable[[], None]:
    """Execute them in a session that logs with this image."""

    def work() -> None:
        with logging(database, image) as cursor:
            for one in sql:
                cursor.execute(one)

    return work


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_that_move_behind_the_copy_are_read_again(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch, image: str, engine: str
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    leg.source.execute(f"CREATE TABLE t {DEFAULTS} ENGINE={engine}")
    leg.source.execute(f"INSERT INTO t (id, note) SELECT seq * 10, 'x' FROM {numbers(1, 10)}")
    again = whenever_read(
        monkeypatch,
        in_turn(
            statements(
                leg.source, image,
                "UPDATE t SET number = 1 WHERE id IN (10, 100)",
                "UPDATE t SET id = 5 WHERE id = 90",  # not read yet, to where all is read
                "UPDATE t SET id = 95 WHERE id = 20",  # read, to where nothing is yet
                "UPDATE t SET photo = 'p', must = 3",
                "INSERT INTO t (word) VALUES ('w')",
                "DELETE FROM t WHERE id IN (30, 80)",
                "UPDATE t SET id = 30, word = 'y' WHERE id = 40",
            ),
            statements(
                leg.source, image,
                "UPDATE t SET id = 80 WHERE id = 5",
                "UPDATE t SET id = 6 WHERE id = 80",
                "UPDATE t SET id = id + 1 WHERE id > 50 ORDER BY id DESC",
                "UPDATE t SET note = CONCAT(IFNULL(note, ''), id)",
            ),
        ),
    )  # fmt: skip
    leg.catch_up()
    leg.assert_exact()
    assert (again != []) is (image != "FULL_NODUP")  # of that every row is whole
    assert leg.replica.query("SELECT * FROM etl_copy_again") == []


TABLES = {
    "number": "(id INT PRIMARY KEY, a INT DEFAULT 5, b INT NULL, u INT NULL,"
    " w INT NOT NULL DEFAULT 1, note TEXT, at TIMESTAMP NULL ON UPDATE CURRENT_TIMESTAMP,"
    " twice INT AS (a * 2), more INT AS (b + 1) STORED, CHECK (w > 0))",
    "unique": "(id INT PRIMARY KEY, a INT DEFAULT 5, b INT NULL, u INT NULL, w INT DEFAULT 1,"
    " note TEXT, UNIQUE (u), UNIQUE (b, w))",
    "words": "(id VARCHAR(8) CHARACTER SET latin1, a INT DEFAULT 5, b INT, u INT, w INT DEFAULT 1,"
    " note TEXT, PRIMARY KEY (w, id), UNIQUE (u))",
    "moment": "(id DATETIME PRIMARY KEY, a INT DEFAULT 5, b INT, u INT, w INT DEFAULT 1,"
    " note TEXT)",
    "awkward": "(id FLOAT PRIMARY KEY, a INT DEFAULT 5, b INT, u INT, w INT DEFAULT 1, note TEXT)",
}  # fmt: skip
KEYS: dict[str, Callable[[random.Random], str]] = {
    "words": lambda dice: f"'{''.join(dice.choices('abAB', k=dice.randint(0, 3)))}'",
    "moment": lambda dice: f"'2020-01-01 00:00:{dice.randrange(40):02d}'",
}  # fmt: skip


class Meddler:
    """Someone who changes the tables at random, in a session that logs parts of rows."""

    def __init__(self, database: MySQLDatabase, image: str, seed: int) -> None:
        self._database = database
        self._image = image
        self.dice = random.Random(seed)
        self.resting = False

    def __call__(self) -> None:
        if self.resting:
            return
        with logging(self._database, self._image) as cursor:
            for _ in range(self.dice.randint(1, 6)):
                if self._image != "FULL" and self.dice.random() < 0.1:
                    image = self.dice.choice(["FULL", self._image])
                    cursor.execute(f"SET SESSION binlog_row_image = '{image}'")
                with suppress(pymysql.IntegrityError):  # keys collide now and then
                    cursor.execute(self._change(self.dice.choice(sorted(TABLES))))

    def _change(self, table: str) -> str:
        dice = self.dice
        key = KEYS.get(table, lambda dice: str(dice.randrange(40)))
        n, m = dice.randrange(12), dice.randint(1, 9)
        changes = [
            f"INSERT INTO `{table}` (id) VALUES ({key(dice)})",
            f"INSERT INTO `{table}` (id, u, note) VALUES ({key(dice)}, {n}, 'n{m}'), ({key(dice)},"
            f" {n + 1}, NULL)",
            f"INSERT INTO `{table}` (id, u, b) VALUES ({key(dice)}, {n}, {m})"
            f" ON DUPLICATE KEY UPDATE a = a + 1, note = 'again'",
            f"UPDATE `{table}` SET a = a + {m} WHERE id = {key(dice)}",
            f"UPDATE `{table}` SET a = {m}, note = CONCAT(IFNULL(note, ''), 'x')"
            f" WHERE id > {key(dice)}",
            f"UPDATE `{table}` SET b = {m}, w = {m} WHERE id = {key(dice)}",
            f"UPDATE `{table}` SET w = {m} WHERE id = {key(dice)}",
            f"UPDATE `{table}` SET u = {n} WHERE id = {key(dice)}",
            f"UPDATE `{table}` SET u = u + 20 WHERE u = {n}",
            f"UPDATE `{table}` SET id = {key(dice)} WHERE id = {key(dice)}",
            f"UPDATE `{table}` SET id = {key(dice)}, u = {n}, b = NULL"
            f" WHERE id > {key(dice)} LIMIT 1",
            f"DELETE FROM `{table}` WHERE id = {key(dice)}",
            f"DELETE FROM `{table}` WHERE id > {key(dice)} LIMIT 2",
        ]
        if table == "number":
            changes.append(
                f"UPDATE `{table}` SET id = id + 100 WHERE id < {key(dice)} ORDER BY id DESC"
            )
            changes.append(f"UPDATE `{table}` SET id = id - 100 WHERE id > 105 ORDER BY id")
        return dice.choice(changes)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(3))
def test_random_changes_while_a_copy_is_made_and_made_again(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch, engine: str, seed: int
) -> None:
    image = ("MINIMAL", "MINIMAL", "NOBLOB")[seed]
    leg = new_leg(copy_chunk_rows=4)
    for name, definition in TABLES.items():
        leg.source.execute(f"CREATE TABLE `{name}` {definition} ENGINE={engine}")
    meddle = Meddler(leg.source, image, seed)
    for _ in range(40):
        meddle()
    whenever_read(monkeypatch, meddle)
    worked_on(leg, meddle)
    leg.assert_exact()
    if seed % 2:
        crawl(monkeypatch)
    leg.resync("number", "unique", "words")
    worked_on(leg, meddle)
    leg.assert_exact()
    assert leg.replica.query("SELECT * FROM etl_copy_again") == []


def worked_on(leg: Leg, meddle: Meddler) -> None:
    """Let the leg go its way while changes come in between its steps, then until it is done."""
    for _ in range(15):
        leg.step()
        meddle()
        if meddle.dice.random() < 0.1:
            leg.restart()
    leg.catch_up()  # copies that are under way then are worked on too
    meddle.resting = True
    leg.catch_up()
    meddle.resting = False

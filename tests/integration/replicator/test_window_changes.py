"""Schema changes right where a copy begins: each is in the copy or behind it, never in both.

Between the beginning of a table's window and the reading of its definition, and between that and
the moment of the only view or lock under which its rows were read, the source changes the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from replicator.sandbox.databases import MySQLDatabase
from replicator.schema_changes import SchemaChanges
from replicator.targets import Targets

from .conftest import NewLeg
from .leg import Crash, Leg, crashing

ENGINES = ["InnoDB", "MyISAM"]


def filled(leg: Leg, engine: str, key: str = "PRIMARY KEY (id)") -> None:
    leg.source.execute(
        f"CREATE TABLE patient (id INT, a INT, b INT DEFAULT 3, word VARCHAR(20), {key})"
        f" ENGINE={engine}"
    )
    leg.source.execute(f"INSERT INTO patient VALUES {rows(1)}")


def rows(start: int) -> str:
    return ", ".join(f"({n}, {n} * 10, {n} * 100, 'old')" for n in range(start, start + 9))


def around_the_definition(
    monkeypatch: pytest.MonkeyPatch,
    leg: Leg,
    statements: list[str],
    *,
    behind: bool = False,
    turn: int = 1,
) -> None:
    """Before or behind the `turn`th reading of a definition somebody runs these statements."""
    original: Callable[..., str] = Targets._definition
    turns = [0]

    def definition(self: Targets, *arguments: Any, **options: Any) -> str:
        turns[0] += 1
        now = turns[0] == turn
        if behind:
            found = original(self, *arguments, **options)
        if now:
            with closing(leg.source.connect(ssl_disabled=True)) as connection:
                for statement in statements:
                    connection.cursor().execute(statement)
        return found if behind else original(self, *arguments, **options)

    monkeypatch.setattr(Targets, "_definition", definition)


def definition(database: MySQLDatabase) -> str:
    text = database.query("SHOW CREATE TABLE patient")[0][1]
    return re.sub(r"ENGINE=\w+|AUTO_INCREMENT=\d+ ", "", text)


def assert_same(leg: Leg) -> None:
    leg.catch_up()
    leg.source.execute("INSERT INTO patient (id) VALUES (1000)")
    leg.catch_up()
    leg.assert_exact()
    assert definition(leg.replica) == definition(leg.source)
    assert set(leg.states().values()) == {"streaming"}
    assert leg.requests("failed") == []


CHANGES = {
    "a column less": "DROP COLUMN word",
    "a column more": "ADD COLUMN extra INT DEFAULT 7",
    "columns in another order": "MODIFY b INT AFTER id",
    "another type": "MODIFY a VARCHAR(20)",
    "another key": "DROP PRIMARY KEY, ADD PRIMARY KEY (a)",
    "an index": "ADD INDEX by_a (a)",
    "what must be": "ADD CONSTRAINT old CHECK (word <> 'new')",
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("emptied", [True, False], ids=["emptied", "not emptied"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_the_copy_was_made_behind_is_not_made_twice(
    new_leg: NewLeg, change: str, emptied: bool, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, engine)
    work = [
        "INSERT INTO patient VALUES (100, 100, 200, 'new')",
        *(["TRUNCATE TABLE patient"] if emptied else []),
        f"INSERT INTO patient VALUES {rows(200)}",
        "INSERT INTO patient VALUES (300, 1, 2, 'new')",
        "UPDATE patient SET id = 301, a = 7, word = 'old' WHERE id = 300",
        "UPDATE patient SET word = 'x' WHERE word = 'new'",
        f"ALTER TABLE patient {CHANGES[change]}",
        "UPDATE patient SET b = b + 1 WHERE id = 203",
    ]
    around_the_definition(monkeypatch, leg, work)
    assert_same(leg)


@pytest.mark.parametrize("emptied", [True, False], ids=["emptied", "not emptied"])
@pytest.mark.parametrize("change", ["a column less", "another type", "columns in another order"])
def test_a_change_that_a_reload_was_made_behind_is_not_made_twice(
    new_leg: NewLeg, change: str, emptied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, "MyISAM")
    leg.catch_up()
    work = [
        *(["TRUNCATE TABLE patient"] if emptied else []),
        f"INSERT INTO patient VALUES {rows(200)}",
        f"ALTER TABLE patient {CHANGES[change]}",
        "UPDATE patient SET b = b + 1 WHERE id = 203",
    ]
    around_the_definition(monkeypatch, leg, work)
    leg.resync("patient")
    assert_same(leg)
    assert leg.requests() == [("patient", "loading")]


def test_a_truncated_table_that_is_being_copied_stays_in_its_window_whoever_dies(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, "MyISAM")
    work = ["TRUNCATE TABLE patient", f"INSERT INTO patient VALUES {rows(200)}",
            "ALTER TABLE patient DROP COLUMN word"]  # fmt: skip
    around_the_definition(monkeypatch, leg, work)
    with crashing(monkeypatch, SchemaChanges, "_settle"), pytest.raises(Crash):
        leg.step_until(lambda: False)  # the table is emptied on the replica, and that is not noted
    leg.restart()
    assert_same(leg)


UNSEEN = {
    "an index": "CREATE INDEX by_a ON patient (a)",
    "a default": "ALTER TABLE patient ALTER b SET DEFAULT 5",
    "a comment": "ALTER TABLE patient COMMENT 'changed'",
    "a column": "ALTER TABLE patient ADD COLUMN extra INT DEFAULT 7",
}
"""Most of these move no row's image, and so no hash of the schema."""


@pytest.mark.parametrize("key", ["PRIMARY KEY (id)", "KEY (id)"], ids=["keyed", "keyless"])
@pytest.mark.parametrize("change", UNSEEN)
def test_a_change_between_the_definition_and_the_only_view_is_not_missed(
    new_leg: NewLeg, change: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg()
    filled(leg, "InnoDB", key)
    around_the_definition(monkeypatch, leg, [UNSEEN[change]], behind=True)
    assert_same(leg)


@pytest.mark.parametrize("change", UNSEEN)
def test_a_change_between_the_definition_and_the_lock_is_not_missed(
    new_leg: NewLeg, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_lock="short")
    filled(leg, "MyISAM", "KEY (id)")
    with closing(leg.source.server.connect(ssl_disabled=True)) as root:
        root.cursor().execute("SET sql_log_bin = 0")
        pattern = leg.source.name.replace("_", r"\_")
        root.cursor().execute(f"GRANT LOCK TABLES ON `{pattern}`.* TO '{leg.source.user}'@'%'")
    around_the_definition(monkeypatch, leg, [UNSEEN[change]], behind=True)
    assert_same(leg)
    assert leg.requests() == []

"""Rows are mended by key beside the stream: exact on the replica, and nothing else moves."""

from __future__ import annotations

from typing import Any

import pytest

from replicator import mend_requests, resync_requests
from replicator.mend_requests import RAW, REPLICA
from replicator.mending import Mending
from replicator.snapshot import TableCopier
from tests.numbers import numbers

from .conftest import NewLeg
from .leg import Crash, Leg, crashing, crawl

ENGINES = ["InnoDB", "MyISAM"]


def fill(leg: Leg, engine: str = "InnoDB") -> None:
    leg.source.execute(
        "CREATE TABLE patient (id INT PRIMARY KEY, n INT, word VARCHAR(20) NOT NULL,"
        f" twice INT AS (n * 2) STORED, UNIQUE KEY (n)) ENGINE={engine}"
    )
    leg.source.execute(
        f"INSERT INTO patient (id, n, word) SELECT seq, seq, 'w' FROM {numbers(1, 30)}"
    )
    leg.source.execute("CREATE TABLE other (id INT PRIMARY KEY) ENGINE=InnoDB")
    leg.catch_up()


def spoil(leg: Leg) -> list[tuple[str, ...]]:
    """Somebody wrote on the replica; the keys of what differs now."""
    leg.replica.execute("DELETE FROM patient WHERE id = 5")
    leg.replica.execute("UPDATE patient SET word = 'spoiled' WHERE id IN (4, 6)")
    leg.replica.execute("INSERT INTO patient (id, n, word) VALUES (1000, 1000, 'extra')")
    return [("4",), ("5",), ("6",), ("1000",)]


def ask(leg: Leg, table: str, keys: list[tuple[str, ...]], side: str = REPLICA) -> int:
    return mend_requests.queue_mend(leg.replica._connection(), table, side, keys)


def state(leg: Leg, number: int) -> str:
    ((found,),) = leg.replica.query("SELECT state FROM etl_mend_request WHERE id = %s", (number,))
    return str(found)


def finish(leg: Leg, *numbers: int) -> list[str]:
    leg.step_until(lambda: all(state(leg, n) != "queued" for n in numbers), "the mending")
    leg.catch_up()
    return [state(leg, n) for n in numbers]


def assert_clean(leg: Leg) -> None:
    leg.assert_exact()
    assert [t for t in leg.tables() if t.startswith("_")] == []


def while_rows_are_read(monkeypatch: pytest.MonkeyPatch, leg: Leg, *statements: str) -> None:
    """The source goes on before and behind the reading of rows, the stream not knowing yet."""
    original = TableCopier.read_rows

    def read_rows(self: TableCopier, *arguments: Any) -> Any:
        for statement in statements[::2]:
            leg.source.execute(statement)
        high = original(self, *arguments)
        for statement in statements[1::2]:
            leg.source.execute(statement)
        return high

    monkeypatch.setattr(TableCopier, "read_rows", read_rows)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("steps", ["at once", "one event at a time"])
def test_rows_that_differ_are_mended_while_the_source_changes_them(
    leg: Leg, engine: str, steps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(leg, engine)
    if steps != "at once":
        crawl(monkeypatch)
    keys = spoil(leg)
    while_rows_are_read(
        monkeypatch,
        leg,
        "UPDATE patient SET word = 'before' WHERE id IN (4, 7)",
        "UPDATE patient SET word = 'behind' WHERE id IN (6, 8)",
        "DELETE FROM patient WHERE id = 9",
        "INSERT INTO patient (id, n, word) VALUES (31, 9, 'new')",
        "UPDATE patient SET id = 500 WHERE id = 4",
        "INSERT INTO other VALUES (1)",
    )
    number = ask(leg, "patient", keys)
    assert finish(leg, number) == ["done"]
    assert leg.requests() == []
    assert_clean(leg)


def test_a_reader_of_the_replica_never_sees_rows_of_a_moment_to_come(
    leg: Leg, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(leg)
    crawl(monkeypatch)
    leg.replica.execute("UPDATE patient SET word = 'spoiled' WHERE id = 1")
    connection = leg.source.connect(ssl_disabled=True)
    original = TableCopier.read_rows

    def read_rows(self: TableCopier, *arguments: Any) -> Any:
        cursor = connection.cursor()
        for statement in (
            "BEGIN",
            "UPDATE patient SET word = 'both' WHERE id IN (1, 2)",
            "INSERT INTO other VALUES (7)",
            "COMMIT",
        ):
            cursor.execute(statement)
        return original(self, *arguments)

    monkeypatch.setattr(TableCopier, "read_rows", read_rows)
    number = ask(leg, "patient", [("1",)])
    seen = set()
    while state(leg, number) == "queued":
        leg.step()
        seen.add(
            leg.replica.query(
                "SELECT (SELECT word FROM patient WHERE id = 1), (SELECT word FROM patient"
                " WHERE id = 2), (SELECT COUNT(*) FROM other)"
            )[0]
        )
    connection.close()
    assert seen <= {("spoiled", "w", 0), ("both", "both", 1)}
    leg.catch_up()
    assert_clean(leg)


def test_only_the_rows_that_were_named_are_written(leg: Leg) -> None:
    fill(leg)
    keys = spoil(leg)
    leg.replica.execute("UPDATE patient SET word = 'not named' WHERE id = 20")
    assert finish(leg, ask(leg, "patient", keys)) == ["done"]
    assert leg.replica.query("SELECT id, word FROM patient WHERE word <> 'w'") == [
        (20, "not named")
    ]
    assert finish(leg, ask(leg, "patient", [("20",)])) == ["done"]
    assert_clean(leg)


def test_rows_that_are_right_on_the_replica_stay_what_they_are(leg: Leg) -> None:
    fill(leg)
    assert finish(leg, ask(leg, "patient", [("1",), ("777",)], RAW)) == ["done"]
    assert_clean(leg)


@pytest.mark.parametrize("place", ["queue", "read_rows", "_end", "end_mend"])
@pytest.mark.parametrize("done", [False, True])
def test_a_death_on_the_way_lets_it_begin_again(
    leg: Leg, place: str, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(leg)
    number = ask(leg, "patient", spoil(leg))
    owner = {
        "queue": (Mending, "_begin"),
        "read_rows": (TableCopier, "read_rows"),
        "_end": (Mending, "_put"),
        "end_mend": (mend_requests, "end_mend"),
    }[place]
    with crashing(monkeypatch, *owner, done=done), pytest.raises(Crash):
        leg.step_until(lambda: False)
    assert state(leg, number) == "queued"
    leg.source.execute("UPDATE patient SET word = 'later' WHERE id = 4")
    leg.restart()
    assert finish(leg, number) == ["done"]
    assert_clean(leg)


STATEMENTS = {
    "a column more": "ALTER TABLE patient ADD more INT NOT NULL DEFAULT 3",
    "emptied": "TRUNCATE TABLE patient",
    "renamed and back": "RENAME TABLE patient TO patient2",
    "another table's": "CREATE TABLE third (id INT PRIMARY KEY)",
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
@pytest.mark.parametrize("when", ["before", "behind"])
def test_a_schema_change_on_the_way_lets_it_begin_again(
    leg: Leg, statement: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(leg)
    keys = spoil(leg)
    original = TableCopier.read_rows
    told: list[str] = []
    reads = [0]

    def read_rows(self: TableCopier, *arguments: Any) -> Any:
        reads[0] += 1
        if not told and when == "before":
            told.append(statement)
            leg.source.execute(statement)
        high = original(self, *arguments)
        if not told:
            told.append(statement)
            leg.source.execute(statement)
        return high

    monkeypatch.setattr(TableCopier, "read_rows", read_rows)
    number = ask(leg, "patient", keys)
    finish(leg, number)
    if "third" in statement:
        assert reads == [1]
    if "RENAME" in statement:
        leg.resync("patient2")
    leg.catch_up()
    assert_clean(leg)


def test_a_reload_that_takes_the_tables_place_is_no_hindrance(leg: Leg) -> None:
    fill(leg)
    keys = spoil(leg)
    leg.resync("patient")
    numbers_ = [ask(leg, "patient", [key]) for key in keys]
    assert set(finish(leg, *numbers_)) == {"done"}
    assert_clean(leg)


def test_a_table_without_a_key_is_reloaded_as_a_whole(leg: Leg) -> None:
    leg.source.execute("CREATE TABLE loose (id INT, n INT) ENGINE=InnoDB")
    leg.source.execute("INSERT INTO loose VALUES (1, 1), (1, 1)")
    leg.source.execute("CREATE TABLE other (id INT PRIMARY KEY)")
    leg.catch_up()
    leg.replica.execute("DELETE FROM loose LIMIT 1")
    number = ask(leg, "loose", [])
    assert finish(leg, number) == ["reloading"]
    ((table, reload),) = leg.replica.query(
        "SELECT r.table_name, m.reload_id = r.id FROM etl_mend_request m, etl_resync_request r"
    )
    assert (table, reload) == ("loose", 1)
    assert_clean(leg)


def test_keys_that_are_no_literals_are_never_asked_for(leg: Leg) -> None:
    fill(leg)
    number = ask(leg, "patient", [("1) OR SLEEP(0",)])
    assert finish(leg, number) == ["reloading"]
    assert_clean(leg)


def test_a_row_that_another_key_keeps_out_reloads_the_table(leg: Leg) -> None:
    fill(leg)
    leg.replica.execute("DELETE FROM patient WHERE id = 5")
    leg.replica.execute("UPDATE patient SET n = 5 WHERE id = 6")
    number = ask(leg, "patient", [("5",)])  # and not the row that stands in its way
    assert finish(leg, number) == ["reloading"]
    assert_clean(leg)


@pytest.mark.parametrize("image", ["minimal", "noblob"])
def test_changes_that_tell_parts_of_rows_reload_the_table_or_mend_it(
    leg: Leg, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(leg)
    keys = spoil(leg)
    while_rows_are_read(
        monkeypatch,
        leg,
        f"SET SESSION binlog_row_image = {image}",
        "UPDATE patient SET word = 'behind' WHERE id = 6",
    )
    number = ask(leg, "patient", keys)
    assert finish(leg, number)[0] in ("done", "reloading")
    assert_clean(leg)


def test_a_table_that_is_not_carried_is_told(leg: Leg) -> None:
    fill(leg)
    assert finish(leg, ask(leg, "absent", [("1",)])) == ["failed"]


def test_text_keys_and_keys_of_several_columns(new_leg: NewLeg) -> None:
    leg = new_leg()
    leg.source.execute(
        "CREATE TABLE word (w VARCHAR(20), d DATE, m INT, PRIMARY KEY (w, d)) CHARACTER SET utf8mb4"
    )
    leg.source.execute(
        "INSERT INTO word VALUES ('Größe', '2020-01-02', 1), ('x, y', '0001-01-01', 2)"
    )
    leg.source.execute("CREATE TABLE other (id INT PRIMARY KEY)")
    leg.catch_up()
    leg.replica.execute("UPDATE word SET m = 9")
    keys = [
        ("_utf8mb4 x'" + "Größe".encode().hex() + "'", "'2020-01-02'"),
        ("_utf8mb4 x'" + b"x, y".hex() + "'", "'0001-01-01'"),
    ]
    assert finish(leg, ask(leg, "word", keys)) == ["done"]
    assert leg.replica.query("SELECT m FROM word ORDER BY m") == [(1,), (2,)]
    assert_clean(leg)


def test_requests_end_with_their_counts(leg: Leg) -> None:
    fill(leg)
    number = ask(leg, "patient", spoil(leg))
    finish(leg, number)
    (found,) = mend_requests.mends(leg.replica._connection(), [number])
    assert (found.state, found.rows, found.reload) == ("done", 4, None)
    assert resync_requests.open_requests(leg.replica._connection()) == set()

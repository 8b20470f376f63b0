"""Refused rows of loads and reloads, and what schema changes make of the quarantine."""

from __future__ import annotations

import random
import string
from typing import Any

import pytest

from loader.load import reload
from loader.quarantine import entries as entries_module
from tests.numbers import numbers

from ..conftest import Harness, Replica
from .held import MARKER, assert_all_but, entries, hold_back_copies, resync, unlogged

_LETTERS = random.Random(2)


def wide(length: int) -> str:
    """A text that does not compress."""
    return "".join(_LETTERS.choices(string.ascii_letters + string.digits, k=length))


@pytest.fixture
def table(replica: Replica, harness: Harness) -> Harness:
    replica.create("t", "id int PRIMARY KEY, v int, note text")
    replica.commit(f"INSERT INTO t SELECT seq, seq, '' FROM {numbers(1, 500)}")
    harness.catch_up()
    return harness


# --- first loads -------------------------------------------------------------------------


def test_a_first_load_leaves_out_a_key_that_no_index_holds(
    replica: Replica, harness: Harness, capfd: pytest.CaptureFixture[str]
) -> None:
    replica.create(
        "word", "w varchar(3000) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, v int"
    )
    long, longer = MARKER + wide(2900), MARKER + wide(2950)
    replica.commit(
        f"INSERT INTO word SELECT CONCAT('w', seq), seq FROM {numbers(1, 300)}",
        f"INSERT INTO word VALUES ('{long}', 1), ('{longer}', 2)",
    )
    harness.catch_up()
    assert harness.raw.query("SELECT count(*) FROM raw.word") == [(300,)]
    assert len(entries(harness, "word")) == 2
    held = harness.raw.query("SELECT key_values->>'w', reason FROM raw.etl_quarantine")
    assert {key for key, _ in held} == {long, longer}
    assert all("SQLSTATE 54000" in reason for _, reason in held)
    replica.commit(f"UPDATE word SET v = 3 WHERE w = '{long}'")
    harness.catch_up()
    [(image,)] = harness.raw.query(
        "SELECT row_image FROM raw.etl_quarantine WHERE key_values->>'w' = %s", (long,)
    )
    assert bytes(image) == f"{long}\t3".encode()
    replica.commit(f"DELETE FROM word WHERE w = '{long}'")
    replica.commit(f"UPDATE word SET w = 'short' WHERE w = '{longer}'")
    harness.catch_up()
    assert not entries(harness, "word")
    harness.assert_same("word")
    assert MARKER not in "".join(capfd.readouterr())


def test_a_key_that_no_index_holds_is_followed_while_its_table_is_loaded(
    replica: Replica, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The touched table must learn of it though no index holds it."""
    long, gone, there = wide(2950), wide(2960), wide(2970)
    replica.create(
        "word", "w varchar(3000) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, v int"
    )
    replica.commit(f"INSERT INTO word VALUES ('{gone}', 1), ('{there}', 1), ('a', 1)")
    held_back = hold_back_copies(monkeypatch, harness)
    harness.step_until(lambda: bool(held_back))
    replica.commit(
        f"INSERT INTO word VALUES ('{long}', 1), ('b', 2)",
        f"DELETE FROM word WHERE w = '{gone}'",
        f"UPDATE word SET v = 2 WHERE w = '{there}'",
    )
    harness.catch_up()
    held = harness.raw.query("SELECT key_values->>'w', row_image FROM raw.etl_quarantine")
    assert {key: bytes(image) for key, image in held} == {
        long: f"{long}\t1".encode(),
        there: f"{there}\t2".encode(),
    }
    assert harness.raw.query("SELECT w FROM raw.word ORDER BY w") == [("a",), ("b",)]


def test_a_row_that_is_wider_than_a_page_is_left_out_of_a_load(
    replica: Replica, harness: Harness
) -> None:
    """A TIME takes three bytes there and sixteen here."""
    columns = ", ".join(f"c{n} time" for n in range(600))
    replica.create("t", f"id int PRIMARY KEY, {columns}")
    values, nulls = ", ".join(["'01:02:03'"] * 600), ", ".join(["NULL"] * 600)
    replica.commit(f"INSERT INTO t VALUES (1, {nulls}), (2, {values}), (3, {nulls})")
    harness.catch_up()
    assert_all_but(harness, replica, 2, columns="id")
    assert "54000" in entries(harness)["2"][1]
    replica.commit("UPDATE t SET c0 = NULL WHERE id = 2", "UPDATE t SET c599 = 1 WHERE id = 3")
    harness.catch_up()
    assert_all_but(harness, replica, 2, columns="id, c0, c599")


# --- reloads -----------------------------------------------------------------------------


def test_a_reload_is_the_truth_of_the_quarantine_too(replica: Replica, table: Harness) -> None:
    table.raw.execute("ALTER TABLE raw.t ADD CHECK (v > 0) NOT VALID")
    replica.commit("UPDATE t SET v = -1 WHERE id IN (1, 2, 3)")
    table.catch_up()
    assert_all_but(table, replica, 1, 2, 3)
    unlogged(replica, "UPDATE t SET v = 1 WHERE id = 1")
    unlogged(replica, "DELETE FROM t WHERE id = 2")
    unlogged(replica, f"UPDATE t SET v = -7, note = '{MARKER}' WHERE id IN (3, 44, 45)")
    unlogged(replica, "INSERT INTO t VALUES (900, -9, 'x'), (901, 9, 'y')")
    resync(replica, "t")
    table.catch_up()
    assert_all_but(table, replica, 3, 44, 45, 900)
    [(image,)] = table.raw.query("SELECT row_image FROM raw.etl_quarantine WHERE key = '3'")
    assert bytes(image) == f"3\t-7\t{MARKER}".encode()
    assert not table.raw.query("SELECT FROM raw.etl_quarantine_copy")
    replica.commit("UPDATE t SET v = 5 WHERE id IN (3, 44, 900)", "DELETE FROM t WHERE id = 45")
    table.catch_up()
    assert_all_but(table, replica)


def test_a_reload_leaves_rows_where_their_deletion_is_refused(
    replica: Replica, table: Harness
) -> None:
    table.raw.execute("CREATE TABLE raw.notes (id int REFERENCES raw.t)")
    table.raw.execute("INSERT INTO raw.notes VALUES (3)")
    unlogged(replica, "DELETE FROM t WHERE id IN (2, 3, 4)")
    resync(replica, "t")
    table.catch_up()
    assert {key: one[0::3] for key, one in entries(table).items()} == {"3": ("delete", True)}
    assert table.raw.query("SELECT id FROM raw.t WHERE id < 6 ORDER BY 1") == [(1,), (3,), (5,)]


def test_what_the_stream_says_during_a_reload_wins(
    replica: Replica, table: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.raw.execute("ALTER TABLE raw.t ADD CHECK (v > 0) NOT VALID")
    replica.commit("UPDATE t SET v = -1 WHERE id IN (1, 2)")
    table.catch_up()
    hold_back_copies(monkeypatch, table)
    unlogged(replica, "UPDATE t SET v = -2 WHERE id IN (10, 11, 12)")
    resync(replica, "t")
    table.step_until(lambda: table.states()["t"] == "reloading")
    replica.commit(
        "UPDATE t SET v = 6 WHERE id IN (1, 10)",
        "UPDATE t SET v = -6 WHERE id IN (2, 20)",
        "DELETE FROM t WHERE id = 11",
    )
    table.catch_up()
    assert_all_but(table, replica, 2, 12, 20)


KEYS = {
    "double": ("double", "1e22", "-0.125"),
    "float": ("float", "0.1", "16777216"),
    "datetime(3)": ("datetime(3)", "'2024-02-29 10:00:00.5'", "'2024-02-29 10:00:00'"),
    "timestamp(6)": ("timestamp(6) NOT NULL", "'2024-07-01 10:00:00.25'", "'2024-01-01 00:00:00'"),
    "time(2)": ("time(2)", "'-101:02:03.5'", "'00:00:00'"),
    "date": ("date", "'0001-01-01'", "'2024-02-29'"),
    "decimal": ("decimal(10,4)", "1.5", "-0.25"),
    "text": ("varchar(40) CHARACTER SET utf8mb4", r"'a\\b\tc\nd%'", "'Größe\b\v'"),
    "bytes": ("varbinary(40)", "x'00ff5c09'", "'x'"),
    "bits": ("bit(9)", "b'101'", "b'0'"),
    "unsigned": ("bigint unsigned", "18446744073709551615", "0"),
    "two": ("varchar(20)", "'x'", "'y\tz'"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_is_called_the_same_by_stream_copy_and_merge(
    replica: Replica, harness: Harness, kind: str
) -> None:
    """Or a later good version would not find the entry."""
    column, one, two = KEYS[kind]
    key = "k, n" if kind == "two" else "k"
    replica.create("t", f"k {column}, n int, v int, PRIMARY KEY ({key})")
    replica.commit(f"INSERT INTO t VALUES ({one}, 1, 1), ({two}, 1, 1)")
    harness.catch_up()
    harness.raw.execute("ALTER TABLE raw.t ADD CONSTRAINT positive CHECK (v > 0) NOT VALID")
    replica.commit("UPDATE t SET v = -1")
    harness.catch_up()
    by_the_stream = entries(harness).keys()
    images = dict(harness.raw.query("SELECT key, row_image FROM raw.etl_quarantine"))
    assert len(by_the_stream) == 2
    resync(replica, "t")
    harness.catch_up()
    assert entries(harness).keys() == by_the_stream
    assert dict(harness.raw.query("SELECT key, row_image FROM raw.etl_quarantine")) == images
    replica.commit("UPDATE t SET v = 1")
    harness.catch_up()
    assert not entries(harness)
    harness.assert_same("t")


def test_a_table_without_a_key_is_loaded_around_refused_rows(
    replica: Replica, harness: Harness
) -> None:
    replica.create("loose", "a int, b text")
    replica.commit(
        "INSERT INTO loose VALUES (1, 'x'), (-1, 'q'), (-1, 'q'), (2, NULL), (-3, 'z'), (1, 'x')"
    )
    harness.catch_up()
    harness.raw.execute("ALTER TABLE raw.loose ADD CHECK (a > 0) NOT VALID")
    resync(replica, "loose")
    harness.catch_up()
    assert harness.raw.query("SELECT a FROM raw.loose ORDER BY a") == [(1,), (1,), (2,)]
    assert sorted(one[2] for one in entries(harness, "loose").values()) == [1, 2]
    replica.commit("DELETE FROM loose WHERE a < 0")
    harness.catch_up()
    assert not entries(harness, "loose")
    harness.assert_same("loose")


def test_an_image_that_is_too_large_is_left_to_the_replica(
    replica: Replica, table: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries_module, "MOST_IMAGE", 100)
    table.raw.execute("ALTER TABLE raw.t ADD CHECK (v > 0) NOT VALID")
    replica.commit("UPDATE t SET v = -1, note = REPEAT('x', 200) WHERE id = 3")
    table.catch_up()
    assert table.raw.query("SELECT row_image FROM raw.etl_quarantine") == [(None,)]
    assert_all_but(table, replica, 3)


def test_a_copy_is_read_a_second_time_in_the_same_snapshot(
    replica: Replica, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica.create(
        "word", "w varchar(3000) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, v int"
    )
    replica.commit(
        f"INSERT INTO word VALUES ('{wide(2950)}', 1)",
        f"INSERT INTO word SELECT CONCAT('w', seq), seq FROM {numbers(1, 3000)}",
    )
    opened: list[Any] = []
    really = reload.Copier.open

    def once(self: reload.Copier, tables: Any) -> Any:
        opened.append(tables)
        return really(self, tables)

    monkeypatch.setattr(reload.Copier, "open", once)
    harness.catch_up()
    assert len(opened) == 1
    assert len(entries(harness, "word")) == 1
    assert harness.raw.query("SELECT count(*) FROM raw.word") == [(3000,)]


# --- schema changes ----------------------------------------------------------------------


@pytest.fixture
def spoiled(replica: Replica, table: Harness) -> Harness:
    """Rows 1 and 2 are in quarantine."""
    table.raw.execute("ALTER TABLE raw.t ADD CHECK (v > 0) NOT VALID")
    replica.commit("UPDATE t SET v = -1 WHERE id IN (1, 2)")
    table.catch_up()
    return table


def test_truncate_and_drop_clear_the_entries(replica: Replica, spoiled: Harness) -> None:
    replica.ddl("TRUNCATE TABLE t")
    replica.commit("INSERT INTO t VALUES (2, -2, ''), (3, 3, '')")
    spoiled.catch_up()
    assert_all_but(spoiled, replica, 2)
    replica.ddl("DROP TABLE t")
    spoiled.catch_up()
    assert not entries(spoiled)


def test_a_column_that_comes_is_in_the_image_too(replica: Replica, spoiled: Harness) -> None:
    replica.ddl("ALTER TABLE t ADD COLUMN more int DEFAULT 5")
    spoiled.catch_up()
    assert_all_but(spoiled, replica, 1, 2, columns="id, v, note, more")
    images = spoiled.raw.query("SELECT row_image, image_columns FROM raw.etl_quarantine ORDER BY 1")
    assert [(bytes(i), c) for i, c in images] == [
        (b"1\t-1\t\t5", ["id", "v", "note", "more"]),
        (b"2\t-1\t\t5", ["id", "v", "note", "more"]),
    ]
    replica.commit("UPDATE t SET v = 1 WHERE id = 1")
    spoiled.catch_up()
    assert_all_but(spoiled, replica, 2, columns="id, v, note, more")


def test_entries_follow_a_table_that_is_renamed(replica: Replica, spoiled: Harness) -> None:
    spoiled.settings = spoiled.settings.model_copy(
        update={"loader": spoiled.settings.loader.model_copy(update={"rename_seconds": 0.1})}
    )
    spoiled.restart()
    replica.ddl("RENAME TABLE t TO u")
    spoiled.catch_up()
    assert not entries(spoiled)
    spoiled.assert_same("u")


def test_tables_that_change_places_under_a_constraint(replica: Replica, spoiled: Harness) -> None:
    replica.create("u", "id int PRIMARY KEY, v int, note text")
    replica.commit("INSERT INTO u VALUES (1, -5, 'u'), (2, 5, 'u'), (7, -7, 'u')")
    replica.commit("UPDATE t SET v = 1 WHERE id IN (1, 2)")
    spoiled.catch_up()
    assert_all_but(spoiled, replica)
    replica.ddl("RENAME TABLE t TO x, u TO t, x TO u")
    replica.commit(
        "INSERT INTO t VALUES (8, -8, ''), (9, 9, '')", "INSERT INTO u VALUES (999, -1, '')"
    )
    spoiled.catch_up()
    assert_all_but(spoiled, replica, 1, 7, 8)
    assert_all_but(spoiled, replica, table="u")


def test_opendentals_way_to_alter_with_rows_that_are_refused(
    replica: Replica, spoiled: Harness
) -> None:
    replica.ddl("RENAME TABLE t TO tempConv_t1")
    replica.ddl("CREATE TABLE t LIKE tempConv_t1")
    replica.ddl("ALTER TABLE t MODIFY v bigint")
    replica.commit("INSERT INTO t SELECT * FROM tempConv_t1 WHERE id % 2 = 0")
    replica.commit("INSERT INTO t SELECT * FROM tempConv_t1 WHERE id % 2 = 1")
    replica.ddl("DROP TABLE tempConv_t1")
    spoiled.catch_up()
    assert_all_but(spoiled, replica, 1, 2)

"""What the replica's catalog says belongs to a later place than the stream's: it is never lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from config.metrics import SCHEMA_DRIFTS
from config.settings import Settings
from loader import following
from loader.load import reload
from loader.load.worker import LoadWorker
from replicator.binlog.ahead import AheadStream

from ..conftest import Harness, Replica

COLUMNS = "id int PRIMARY KEY, v varchar(20)"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Names are let go at once, so that tests do not wait for it."""
    loader = settings.loader.model_copy(update={"rename_seconds": 1.5, "replacement_seconds": 2.0})
    return settings.model_copy(update={"loader": loader})


@pytest.fixture
def harness(replica: Replica, harness: Harness) -> Harness:
    """The loader stands where nothing has happened yet."""
    replica.commit()
    harness.catch_up()
    return harness


@pytest.fixture
def slow_stream(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """One event at a time, and none while a copy is under way, until one found no table."""
    found_none = threading.Event()
    held: list[bytes] = []
    read, results = AheadStream.read, LoadWorker.results

    def one(stream: AheadStream, timeout: float) -> list[bytes]:
        if "loading" in harness.states().values() and not found_none.is_set():
            return []
        if not held:
            held.extend(read(stream, timeout))
        return [held.pop(0)] if held else []

    def noted(worker: LoadWorker) -> Iterator[Any]:
        for loaded in results(worker):
            if loaded.schema is None:
                found_none.set()
            yield loaded

    monkeypatch.setattr(AheadStream, "read", one)
    monkeypatch.setattr(LoadWorker, "results", noted)
    yield found_none
    assert found_none.is_set()


WAYS = {
    "renamed": ["RENAME TABLE t TO x"],
    "renamed twice": ["RENAME TABLE t TO y", "ALTER TABLE y RENAME TO x"],
    "changed and renamed": ["ALTER TABLE t ADD more int DEFAULT 5", "RENAME TABLE t TO x"],
    "renamed and changed": ["ALTER TABLE t RENAME TO x, ADD more int DEFAULT 5"],
    "emptied and renamed": ["TRUNCATE t", "RENAME TABLE t TO x"],
}


@pytest.mark.usefixtures("slow_stream")
@pytest.mark.parametrize("statements", WAYS.values(), ids=WAYS)
def test_a_table_that_is_gone_when_it_is_to_be_copied_is_followed_to_where_it_went(
    replica: Replica, harness: Harness, statements: list[str]
) -> None:
    replica.create("t", COLUMNS)
    replica.commit("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    for statement in statements:
        replica.ddl(statement)
    replica.commit("INSERT INTO x (id, v) VALUES (3, 'c')")
    harness.catch_up()
    harness.assert_same("x")
    assert harness.raw.query("SELECT to_regclass('raw.t')") == [(None,)]


def test_a_table_that_is_gone_when_it_is_to_be_copied_is_there_again_when_it_is_made_again(
    replica: Replica, harness: Harness, slow_stream: threading.Event
) -> None:
    replica.create("t", COLUMNS)
    replica.ddl("DROP TABLE t")
    harness.step_until(slow_stream.is_set)
    replica.ddl(f"CREATE TABLE t ({COLUMNS})")
    replica.commit("INSERT INTO t VALUES (7, 'again')")
    replica.ddl("ALTER TABLE t ADD more int")
    replica.streams("t")
    harness.catch_up()
    harness.assert_same("t")


def test_a_table_that_went_behind_the_binlogs_back_is_dropped(
    replica: Replica, harness: Harness
) -> None:
    replica.create("t", COLUMNS)
    with closing(replica.database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute("DROP TABLE t")
    harness.catch_up()
    harness.step_until(lambda: harness.states() == {"t": "dropped"})


def test_a_table_that_a_list_of_the_catalogs_lacks_for_a_moment_is_copied(
    replica: Replica, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of an ALTER, or of a RENAME, neither of its names is in the list."""
    replica.create("t", COLUMNS)
    replica.commit("INSERT INTO t VALUES (1, 'a')")
    locked: set[str] = set()
    lock, sizes = reload.Copier._lock, reload.Copier.sizes

    def locking(copier: reload.Copier, tables: Any) -> bool:
        locked.update(tables)
        return lock(copier, tables)

    monkeypatch.setattr(reload.Copier, "_lock", locking)

    def listed(copier: reload.Copier, *tables: Any) -> dict[str, int]:
        return {table: size for table, size in sizes(copier, *tables).items() if table in locked}

    monkeypatch.setattr(reload.Copier, "sizes", listed)
    harness.catch_up()
    harness.assert_same("t")


@pytest.mark.only_on("mariadb", reason="MySQL has no such statement")
def test_a_table_made_in_anothers_place_does_not_take_its_rows_along(
    replica: Replica, harness: Harness
) -> None:
    replica.create("t", COLUMNS)
    replica.commit("INSERT INTO t VALUES (1, 'old'), (2, 'old')")
    harness.catch_up()
    replica.ddl(f"CREATE OR REPLACE TABLE t ({COLUMNS})")
    replica.commit("INSERT INTO t VALUES (7, 'new')")
    replica.ddl("RENAME TABLE t TO x")
    replica.commit("DELETE FROM etl_extract_status WHERE table_name = 't'")
    replica.streams("x")
    harness.catch_up()
    harness.assert_same("x")


def test_a_table_that_changes_places_with_one_we_never_had_is_loaded_anew(
    replica: Replica, harness: Harness
) -> None:
    replica.create("t", COLUMNS)
    replica.commit("INSERT INTO t VALUES (1, 't')")
    harness.catch_up()
    replica.ddl(f"CREATE TABLE v ({COLUMNS})")
    replica.commit("INSERT INTO v VALUES (2, 'v')")
    replica.ddl("RENAME TABLE t TO swap, v TO t, swap TO v")
    harness.catch_up()
    harness.assert_same("t", "v")


def test_a_table_without_a_key_that_goes_before_it_is_read_is_followed(
    replica: Replica, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    drifts = SCHEMA_DRIFTS._value.get()
    load = following.load_keyless

    def renamed_first(*arguments: Any) -> Any:
        monkeypatch.setattr(following, "load_keyless", load)
        replica.commit("INSERT INTO k VALUES ('b')")
        replica.ddl("RENAME TABLE k TO l")
        return load(*arguments)

    monkeypatch.setattr(following, "load_keyless", renamed_first)
    replica.create("k", "v varchar(20)")
    replica.commit("INSERT INTO k VALUES ('a')")
    harness.catch_up()
    harness.assert_same("l")
    assert SCHEMA_DRIFTS._value.get() == drifts


BEHIND = {
    "a column": "ALTER TABLE k ADD more int DEFAULT 5",
    "a wider column": "ALTER TABLE k MODIFY v varchar(40)",
    "a key": "CREATE UNIQUE INDEX by_id ON k (id)",
    "another type": "ALTER TABLE k MODIFY id varchar(9) NOT NULL",
    "no rows": "TRUNCATE k",
}


@pytest.mark.parametrize("inside", [False, True], ids=["behind the copy", "before the copy"])
@pytest.mark.parametrize("statement", BEHIND.values(), ids=BEHIND)
def test_a_statement_right_beside_a_copy_without_a_key_is_done_once(
    replica: Replica,
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
    inside: bool,
) -> None:
    """Leg 1's offset row says the same on both sides of the statement."""
    load = following.load_keyless

    def altered_too(copier: reload.Copier, *arguments: Any) -> Any:
        monkeypatch.setattr(following, "load_keyless", load)
        if inside:
            replica.database.execute(statement)
        found = load(copier, *arguments)
        if not inside:
            copier._rows.rollback()  # it has read everything, and keeps the table locked
            replica.database.execute(statement)
        replica.commit("INSERT INTO k (id, v) VALUES (7, 'c')")
        return found

    monkeypatch.setattr(following, "load_keyless", altered_too)
    replica.create("k", "id int NOT NULL, v varchar(20)")
    replica.commit("INSERT INTO k VALUES (1, 'a'), (2, 'b')")
    drifts = SCHEMA_DRIFTS._value.get()
    harness.step_until(lambda: following.load_keyless is load)
    harness.catch_up()
    harness.assert_same("k")
    keys = "SELECT FROM pg_constraint WHERE contype = 'p' AND conrelid = 'raw.k'::regclass"
    assert len(harness.raw.query(keys)) == ("UNIQUE" in statement)
    assert SCHEMA_DRIFTS._value.get() == drifts
    harness.restart()
    replica.commit("DELETE FROM k WHERE id = 7")
    harness.catch_up()
    harness.assert_same("k")

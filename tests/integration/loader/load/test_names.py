"""Names in raw's schema are nobody's twice: copies, tables that move, and somebody else's."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from config.errors import SchemaDrift
from config.settings import Settings
from loader import following
from loader.keyless import load_keyless
from loader.load.reload import Copier, LoadedTable, LoadRequest
from replicator.sandbox.waiting import wait_until

from ..conftest import Harness, Replica


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Names are let go at once, so that tests do not wait for it."""
    loader = settings.loader.model_copy(update={"rename_seconds": 0.5, "replacement_seconds": 0.5})
    return settings.model_copy(update={"loader": loader})


class Copies:
    """What happens before and behind each copy of `t`, by its number from 1."""

    def __init__(self) -> None:
        self.before: dict[int, Callable[[], None]] = {}
        self.behind: dict[int, Callable[[], None]] = {}
        self.made = 0

    def tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        copy, locked = Copier.copy, Copier._locked

        def told(copier: Copier, requests: Sequence[LoadRequest]) -> list[LoadedTable]:
            if [request.table for request in requests] != ["t"]:
                return copy(copier, requests)
            self.made += 1
            loaded = copy(copier, requests)
            self.behind.pop(self.made, bool)()
            return loaded

        def overtaken(copier: Copier, tables: Sequence[str]) -> Sequence[str]:
            """A change comes behind the copy's first look at the binlog."""
            if list(tables) == ["t"] and threading.current_thread() is not threading.main_thread():
                self.before.pop(self.made, bool)()
            return locked(copier, tables)

        monkeypatch.setattr(Copier, "copy", told)
        monkeypatch.setattr(Copier, "_locked", overtaken)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Copies:
    copies = Copies()
    copies.tell(monkeypatch)
    return copies


def _key(harness: Harness, table: str) -> list[str]:
    found = harness.raw.query(
        "SELECT conname FROM pg_constraint WHERE contype = 'p' AND conrelid = %s::regclass",
        [f'raw."{table}"'],
    )
    return [name for (name,) in found]


def _helpers(harness: Harness) -> list[str]:
    found = harness.raw.query(
        "SELECT relname FROM pg_class WHERE relnamespace = 'raw'::regnamespace"
        " AND relkind = 'r' AND relname ~ ' $' ORDER BY 1"
    )
    return [name for (name,) in found]


def _raw_tables(harness: Harness) -> dict[str, int]:
    """The raw tables by name, and which they are."""
    query = "SELECT relname, oid FROM pg_class WHERE relnamespace = 'raw'::regnamespace"
    return {name: oid for name, oid in harness.raw.query(query) if name in BESIDE}


def _followed(harness: Harness, replica: Replica) -> Callable[[], bool]:
    """Has the stream passed everything? For other threads than the one that steps it."""
    query = "SELECT source_binlog_position FROM raw.etl_binlog_offset"
    return lambda: harness.raw.query(query) == [(replica.position,)]


def test_a_key_that_comes_while_a_keyless_table_is_copied_finds_its_name_free(
    replica: Replica, harness: Harness, copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier copy of the table, overtaken by a change, had a key of that name."""
    replica.create("a", "id int PRIMARY KEY")
    harness.catch_up()

    def keyed_meanwhile(*arguments: Any) -> Any:
        replica.ddl("ALTER TABLE t ADD PRIMARY KEY (id)")
        return load_keyless(*arguments)

    monkeypatch.setattr(following, "load_keyless", keyed_meanwhile)
    copies.before[1] = lambda: replica.ddl("ALTER TABLE t ADD COLUMN w int")
    copies.behind[1] = lambda: replica.ddl("ALTER TABLE t DROP PRIMARY KEY")
    replica.create("t", "id int PRIMARY KEY, v int")
    replica.commit("INSERT INTO t (id, v) VALUES (1, 1), (2, 2)")
    harness.catch_up()
    assert copies.made >= 2  # the first was of no use
    replica.commit("UPDATE t SET w = 5 WHERE id = 2", "INSERT INTO t VALUES (3, 3, 3)")
    harness.catch_up()
    harness.assert_same("t")
    assert _key(harness, "t") == ["t_pkey"]
    assert _helpers(harness) == []


def test_a_table_that_comes_by_another_name_than_that_of_a_copy_can_change_its_key(
    replica: Replica, harness: Harness, copies: Copies
) -> None:
    """The copy of a table that was renamed away is of no use, and has the name's key."""
    replica.create("a", "id int PRIMARY KEY, v int NOT NULL")
    replica.commit("INSERT INTO a VALUES (1, 10), (2, 20)")
    harness.catch_up()

    def renamed() -> None:
        replica.ddl("RENAME TABLE t TO x")
        replica.ddl("RENAME TABLE a TO t")
        wait_until(_followed(harness, replica), 20, "the stream has passed the RENAME")

    copies.behind[1] = renamed
    replica.create("t", "id int PRIMARY KEY, v int")
    harness.catch_up()
    assert copies.made == 1
    replica.ddl("ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (v)")
    replica.commit("INSERT INTO t VALUES (1, 30)")
    harness.catch_up()
    harness.assert_same("t", "x")
    assert _helpers(harness) == []


def test_values_that_a_copy_of_no_use_noted_are_not_noted_twice(
    replica: Replica, harness: Harness, copies: Copies
) -> None:
    replica.create("a", "id int PRIMARY KEY")
    harness.catch_up()
    copies.before[1] = lambda: replica.ddl("ALTER TABLE t ADD COLUMN w int")
    replica.create("t", "id int PRIMARY KEY, v date")
    replica.commit("INSERT INTO t (id, v) VALUES (1, '0000-00-00'), (2, '2024-02-00')")
    harness.catch_up()
    assert copies.made >= 2
    noted = harness.raw.query("SELECT table_name, key FROM raw.etl_value_exceptions ORDER BY key")
    assert noted == sorted(set(noted))
    assert {table for table, _ in noted} == {"t"}


def test_tables_called_like_another_ones_key_come_and_go(
    replica: Replica, harness: Harness
) -> None:
    replica.create("t", "id int PRIMARY KEY, v int")
    harness.catch_up()
    replica.create("t_pkey", "id int PRIMARY KEY, v int")  # there is an index of this name
    replica.create("u_pkey", "id int PRIMARY KEY, v int")
    harness.catch_up()
    replica.create("u", "id int PRIMARY KEY, v int NOT NULL")  # its key cannot have its name
    replica.create("keyless_pkey", "id int")
    replica.create("keyless", "id int")
    replica.commit(*(f"INSERT INTO {t} VALUES (1, 1)" for t in ("t", "t_pkey", "u", "u_pkey")))
    harness.catch_up()
    replica.ddl("ALTER TABLE keyless ADD PRIMARY KEY (id)")
    replica.ddl("ALTER TABLE u DROP PRIMARY KEY, ADD PRIMARY KEY (v)")
    replica.ddl("RENAME TABLE t_pkey TO keyless_pkey_pkey, u TO s")
    replica.commit("INSERT INTO keyless_pkey_pkey VALUES (2, 2)", "INSERT INTO s VALUES (1, 2)")
    harness.catch_up()
    harness.assert_same("t", "s", "u_pkey", "keyless", "keyless_pkey", "keyless_pkey_pkey")
    assert _helpers(harness) == []


def test_a_view_that_has_a_new_tables_name_is_named_and_can_be_moved(
    replica: Replica, harness: Harness
) -> None:
    replica.create("a", "id int PRIMARY KEY, v int")
    harness.catch_up()
    harness.raw.execute("CREATE VIEW raw.t AS SELECT id FROM raw.a")
    replica.create("t", "id int PRIMARY KEY, v int")
    with pytest.raises(SchemaDrift, match="name of raw table t is taken: there is a view"):
        harness.catch_up()
    harness.raw.execute("ALTER VIEW raw.t RENAME TO of_a")
    replica.commit("INSERT INTO t VALUES (1, 1)")
    harness.catch_up()
    harness.assert_same("t")


BESIDE = (
    *("_load_t", "_reload_t", "_touched_t", "_swap_t", "_numbered"),
    *("_stage_t", "_stage_keys_t", "_stage_touched_t", "keys_t", "touched_t"),
)
"""Names that somebody may give to tables, and that helper tables of ours would like to have."""


def test_a_tables_name_is_its_own_whatever_helpers_another_one_has(
    replica: Replica, harness: Harness, copies: Copies
) -> None:
    for table in BESIDE:
        replica.create(table, "id int PRIMARY KEY, v int")
        replica.commit(f"INSERT INTO {table} VALUES (1, 1), (2, 2), (3, 3)")
    harness.catch_up()
    every, there = ("t", "u", *BESIDE), _raw_tables(harness)

    values = itertools.count(10)

    def change() -> None:
        """Each way to write, to more rows than are written one by one."""
        changes = [f"UPDATE {table} SET v = 20 WHERE id = 2" for table in every]
        changes += [f"DELETE FROM {table} WHERE id = 3" for table in every]
        v = next(values)  # rows that are there change
        more = ", ".join(f"({number}, {v})" for number in range(100, 500))
        replica.commit(*changes, *(f"REPLACE INTO {table} VALUES {more}" for table in every))
        replica.commit(*(f"DELETE FROM {table} WHERE id > 400" for table in every))
        replica.commit(*(f"REPLACE INTO {table} VALUES (3, 3), (4, 4)" for table in every))

    copies.behind[1] = copies.behind[2] = change  # the stream goes on beside the first copy
    for table in ("u", "t"):
        replica.create(table, "id int PRIMARY KEY, v int")
        replica.commit(f"INSERT INTO {table} VALUES (1, 1), (2, 2), (3, 3)")
    harness.catch_up()
    harness.assert_same(*every)
    replica.ddl("ALTER TABLE t MODIFY v varchar(20)")  # a reload, beside what is there
    change()
    harness.catch_up()
    replica.ddl("RENAME TABLE t TO aside, u TO t, aside TO u")
    change()
    harness.catch_up()
    harness.assert_same(*every)
    assert _helpers(harness) == []
    assert there.items() <= _raw_tables(harness).items()  # none had to be made again


def test_helpers_that_an_earlier_version_left_are_dropped_and_nothing_else(
    replica: Replica, harness: Harness
) -> None:
    for table in ("t", "_reload_t"):
        replica.create(table, "id int PRIMARY KEY, v int")
        replica.commit(f"INSERT INTO {table} VALUES (1, 1)")
    harness.catch_up()
    there = _raw_tables(harness)
    for name in ("_touched_t", "_touched_nobody"):
        harness.raw.execute(f"CREATE UNLOGGED TABLE raw.{name} (id int)")
    harness.raw.execute("CREATE TABLE raw._load_t (id int)")  # there is a raw.t: it is somebody's
    harness.restart()
    replica.commit("INSERT INTO t VALUES (2, 2)")
    harness.catch_up()
    harness.assert_same("t", "_reload_t")
    left = _raw_tables(harness)
    assert set(left) == {"_reload_t", "_load_t"}
    assert left["_reload_t"] == there["_reload_t"]
    assert harness.raw.query("SELECT * FROM raw._touched_nobody") == []

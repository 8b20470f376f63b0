"""RENAME TABLE and what stands behind it: names keep their tables, readers see whole ones."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest

from config.metrics import RELOADS
from config.settings import Settings
from loader import following
from loader.ddl import standing
from tests.numbers import numbers

from ..conftest import Harness, Replica


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Names are let go at once, so that tests do not wait for it."""
    loader = settings.loader.model_copy(update={"rename_seconds": 1.5, "replacement_seconds": 2.0})
    return settings.model_copy(update={"loader": loader})


@pytest.fixture
def patient(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is let go for its age alone."""
    monkeypatch.setattr(standing, "QUIET_SECONDS", 3600.0)
    object.__setattr__(settings.loader, "rename_seconds", 3600.0)
    object.__setattr__(settings.loader, "replacement_seconds", 3600.0)


def _loads() -> float:
    return sum(
        sample.value
        for metric in RELOADS.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )


@pytest.fixture
def tables(replica: Replica, harness: Harness) -> Harness:
    """t and u, each with a view, an index and a grant of the analysts'."""
    for name in ("t", "u"):
        replica.create(name, "id int PRIMARY KEY, v varchar(20)")
        replica.commit(f"INSERT INTO {name} VALUES (1, '{name}1'), (2, '{name}2')")
    harness.catch_up()
    for name in ("t", "u"):
        harness.raw.execute(f"CREATE VIEW public.of_{name} AS SELECT id, v FROM raw.{name}")
        harness.raw.execute(f"CREATE INDEX on_{name} ON raw.{name} (v)")
        harness.raw.execute(f"GRANT SELECT ON raw.{name} TO PUBLIC")
    return harness


def _view(harness: Harness, name: str) -> list[tuple[Any, ...]]:
    return harness.raw.query(f"SELECT v FROM public.of_{name} ORDER BY v")


def _oid(harness: Harness, name: str) -> Any:
    return harness.raw.query("SELECT to_regclass(%s)::oid", [f"raw.{name}"])[0][0]


@contextmanager
def _watched(harness: Harness, query: str) -> Iterator[set[Any]]:
    """Poll a query while the body runs; what was seen. An error of the reader's is one of ours."""
    seen: set[Any] = set()
    stop = threading.Event()
    errors: list[psycopg.Error] = []

    def poll() -> None:
        with closing(harness.raw.connect(autocommit=True, prepare_threshold=None)) as reader:
            while not stop.is_set():
                try:
                    seen.update(reader.execute(query.encode()).fetchall())
                except psycopg.Error as error:
                    errors.append(error)
                    return

    watcher = threading.Thread(target=poll)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()
    assert errors == []


def test_a_table_that_is_renamed_for_good_takes_everything_along(
    replica: Replica, tables: Harness
) -> None:
    loads, oid = _loads(), _oid(tables, "t")
    replica.ddl("RENAME TABLE t TO x")
    replica.streams("x")
    replica.commit("INSERT INTO x VALUES (3, 't3')", "DELETE FROM x WHERE id = 1")
    tables.catch_up()
    tables.step_until(lambda: _oid(tables, "x") == oid)
    tables.catch_up()
    tables.assert_same("x", "u")
    assert _view(tables, "t") == [("t2",), ("t3",)]
    assert _oid(tables, "t") is None
    assert _loads() == loads
    replica.commit("UPDATE x SET v = 'again'")
    tables.catch_up()
    tables.assert_same("x")
    replica.create("t", "id int PRIMARY KEY")
    tables.catch_up()
    tables.assert_same("t", "x")


@pytest.mark.parametrize("restarted", [False, True], ids=["at once", "after a restart"])
@pytest.mark.parametrize(
    "change",
    ["ADD c int DEFAULT 4", "ADD COLUMN c datetime DEFAULT CURRENT_TIMESTAMP, DROP COLUMN v"],
    ids=["in place", "by a reload"],
)
def test_a_table_that_changes_as_it_is_renamed_takes_its_views_along(
    replica: Replica, tables: Harness, change: str, *, restarted: bool
) -> None:
    oid = _oid(tables, "t")
    replica.ddl(f"ALTER TABLE t RENAME x, {change}")
    replica.streams("x")
    replica.commit("INSERT INTO x (id) VALUES (3)", "DELETE FROM x WHERE id = 1")
    if restarted:
        tables.catch_up_to_position()
        tables.restart()
    tables.catch_up()
    tables.assert_same("u")
    assert (_oid(tables, "t"), _oid(tables, "x")) == (None, oid)
    assert tables.raw.query("SELECT id FROM public.of_t ORDER BY id") == [(2,), (3,)]
    replica.commit("INSERT INTO x (id) VALUES (4)")
    tables.catch_up()
    assert tables.raw.query("SELECT id FROM public.of_t ORDER BY id") == [(2,), (3,), (4,)]


SWAPS = {
    "a swap": ["RENAME TABLE t TO tmp, u TO t, tmp TO u"],
    "a swap in three": ["RENAME TABLE t TO tmp", "RENAME TABLE u TO t", "RENAME TABLE tmp TO u"],
    "there and back": ["RENAME TABLE t TO tmp, u TO tmp2", "RENAME TABLE tmp2 TO u, tmp TO t"],
    "by ALTER": ["ALTER TABLE t RENAME TO tmp", "ALTER TABLE u RENAME t",
                 "ALTER TABLE tmp RENAME AS u"],
}  # fmt: skip


@pytest.mark.parametrize("statements", SWAPS.values(), ids=SWAPS)
def test_tables_that_change_places_leave_views_with_the_names(
    replica: Replica, tables: Harness, statements: list[str]
) -> None:
    loads, oids = _loads(), [_oid(tables, name) for name in ("t", "u")]
    replica.commit("UPDATE t SET v = 'changed' WHERE id = 1")
    for statement in statements:
        replica.commit(statement) if statement.startswith("INSERT") else replica.ddl(statement)
    replica.streams("t", "u")
    replica.commit("UPDATE t SET v = 'now t' WHERE id = 1", "UPDATE u SET v = 'now u' WHERE id = 2")
    tables.catch_up()
    tables.assert_same("t", "u")
    assert [_oid(tables, name) for name in ("t", "u")] == oids
    assert ("now t",) in _view(tables, "t")
    assert ("now u",) in _view(tables, "u")
    assert _loads() == loads
    assert len(tables.raw.query("SELECT 1 FROM pg_indexes WHERE indexname LIKE 'on\\__'")) == 2
    assert tables.raw.query("SELECT has_table_privilege('public', 'raw.t', 'SELECT')") == [(True,)]


def test_a_shadow_table_takes_the_place_of_the_one_it_grew_beside(
    replica: Replica, tables: Harness
) -> None:
    replica.ddl("CREATE TABLE t_new (id int PRIMARY KEY, v varchar(20), more int)")
    replica.streams("t_new")
    replica.commit("INSERT INTO t_new SELECT id, v, 5 FROM t")
    tables.catch_up()
    loads, oid = _loads(), _oid(tables, "t")
    with _watched(tables, "SELECT count(*) FROM public.of_t") as seen:
        replica.ddl("RENAME TABLE t TO t_old, t_new TO t")
        replica.streams("t", "t_old")
        replica.commit("INSERT INTO t VALUES (3, 't3', 3)")
        tables.catch_up()
        replica.ddl("DROP TABLE t_old")
        tables.catch_up()
    tables.assert_same("t")
    assert (_oid(tables, "t"), _oid(tables, "t_new"), _oid(tables, "t_old")) == (oid, None, None)
    assert seen <= {(2,), (3,)}
    assert _loads() == loads


def test_a_name_whose_rows_moved_on_is_not_emptied_before_it_is_taken_again(
    replica: Replica, tables: Harness
) -> None:
    loads, oid = _loads(), _oid(tables, "u")
    with _watched(tables, "SELECT count(*) FROM public.of_u") as seen:
        replica.ddl("RENAME TABLE t TO old, u TO t")
        replica.ddl("CREATE TABLE u LIKE t")
        replica.streams("t", "u", "old")
        replica.commit("INSERT INTO u SELECT * FROM old")
        replica.ddl("DROP TABLE old")
        tables.catch_up()
    tables.assert_same("t", "u")
    assert _view(tables, "u") == [("t1",), ("t2",)]
    assert seen == {(2,)}
    assert (_oid(tables, "u"), _loads()) == (oid, loads)


def _upgrade(replica: Replica, alter: Callable[[], None] = lambda: None, rows: int = 2000) -> None:
    """OpenDental's way to alter a large table."""
    replica.ddl("RENAME TABLE t TO tempConv_t1")
    replica.streams("tempConv_t1")
    replica.ddl("CREATE TABLE t LIKE tempConv_t1")
    replica.streams("t")
    replica.ddl("ALTER TABLE t MODIFY v varchar(200) NOT NULL, ADD z int NOT NULL DEFAULT 3")
    for start in range(0, rows, 500):
        replica.commit(
            f"INSERT INTO t (id, v) SELECT id, v FROM tempConv_t1 WHERE id > {start}"
            f" AND id <= {start + 500}"
        )
        alter()
    replica.ddl("DROP TABLE tempConv_t1")


@pytest.mark.parametrize("late", [False, True], ids=["step by step", "all at once"])
@pytest.mark.usefixtures("patient")
def test_opendentals_way_to_alter_is_never_seen_half_done(
    replica: Replica, tables: Harness, late: bool
) -> None:
    replica.commit(
        "DELETE FROM t", f"INSERT INTO t SELECT seq, CONCAT('v', seq) FROM {numbers(1, 2000)}"
    )
    tables.catch_up()
    loads, oid = _loads(), _oid(tables, "t")
    tables.raw.execute("UPDATE raw.t SET _loaded_at = '2001-01-01'")
    with (
        _watched(tables, "SELECT count(*) FROM raw.t") as rows,
        _watched(tables, "SELECT count(*) FROM public.of_t") as viewed,
    ):
        _upgrade(replica, (lambda: None) if late else tables.loader.step)
        tables.catch_up()
    tables.assert_same("t")
    assert rows == viewed == {(2000,)}
    assert _oid(tables, "t") == oid
    assert _loads() - loads <= 1
    assert _oid(tables, "tempConv_t1") is None
    replica.commit("UPDATE t SET z = 4 WHERE id = 7")
    tables.catch_up()
    tables.assert_same("t")


@pytest.mark.parametrize("again", [False, True], ids=["for good", "made again"])
def test_a_drop_of_a_name_that_has_no_table_takes_nothing_away(
    replica: Replica, tables: Harness, again: bool
) -> None:
    """RENAME t, DROP TABLE IF EXISTS t: careful people write that before they create it."""
    oid = _oid(tables, "t")
    replica.ddl("RENAME TABLE t TO x")
    replica.streams("x")
    replica.ddl("DROP TABLE IF EXISTS t, absent")
    replica.commit("INSERT INTO x VALUES (3, 't3')")
    tables.catch_up_to_position()
    assert _view(tables, "t") == [("t1",), ("t2",)]
    if again:
        replica.create("t", "id int PRIMARY KEY, v varchar(20)")
        replica.commit("INSERT INTO t SELECT * FROM x")
    tables.catch_up()
    tables.assert_same("x", *(["t"] if again else []))
    assert _oid(tables, "t" if again else "x") == oid


def test_a_growing_table_that_gets_a_partition_by_exchange_is_loaded(
    replica: Replica, tables: Harness
) -> None:
    replica.create("p", "id int PRIMARY KEY, v varchar(20)")
    replica.ddl("ALTER TABLE p PARTITION BY HASH (id) PARTITIONS 1")
    replica.commit("INSERT INTO p VALUES (8, 'of p'), (9, 'of p')")
    tables.catch_up()
    replica.ddl("RENAME TABLE t TO x")
    replica.ddl("CREATE TABLE t LIKE x")
    replica.streams("x", "t")
    replica.ddl("ALTER TABLE p EXCHANGE PARTITION p0 WITH TABLE t")
    replica.commit("INSERT INTO t VALUES (5, 'of t')")
    replica.ddl("DROP TABLE x")
    tables.catch_up()
    tables.assert_same("t", "p")


def test_a_changed_row_of_the_table_that_waits_is_not_lost(
    replica: Replica, tables: Harness
) -> None:
    replica.ddl("RENAME TABLE t TO x")
    replica.commit("UPDATE x SET v = 'x' WHERE id = 1")
    tables.catch_up_to_position()
    replica.ddl("RENAME TABLE x TO y")
    replica.commit("INSERT INTO y VALUES (9, 'y')")
    replica.ddl("RENAME TABLE y TO t")
    tables.catch_up()
    tables.assert_same("t")
    assert _view(tables, "t") == [("t2",), ("x",), ("y",)]


@pytest.mark.usefixtures("patient")
def test_an_alter_over_grown_rows_costs_one_reload(replica: Replica, tables: Harness) -> None:
    loads = _loads()
    _upgrade(replica, lambda: replica.ddl("ALTER TABLE t ADD INDEX (z), MODIFY z bigint"), 500)
    tables.catch_up()
    tables.assert_same("t")
    assert _loads() == loads + 1


@pytest.mark.usefixtures("patient")
def test_a_growing_table_that_is_emptied_or_dropped_begins_anew(
    replica: Replica, tables: Harness
) -> None:
    replica.ddl("RENAME TABLE t TO x")
    replica.ddl("CREATE TABLE t LIKE x")
    replica.commit("INSERT INTO t VALUES (5, 'wrong')")
    replica.ddl("TRUNCATE t")
    replica.commit("INSERT INTO t VALUES (6, 'wrong')")
    replica.ddl("DROP TABLE t")
    replica.ddl("CREATE TABLE t (id int PRIMARY KEY, v text)")
    replica.commit("INSERT INTO t VALUES (7, 'right')")
    tables.catch_up_to_position()
    assert _view(tables, "t") == [("t1",), ("t2",)]
    replica.ddl("DROP TABLE x")
    tables.catch_up()
    tables.assert_same("t")


def test_a_replacement_without_a_drop_is_shown_when_it_is_quiet(
    replica: Replica, tables: Harness
) -> None:
    replica.ddl("RENAME TABLE t TO x")
    replica.ddl("CREATE TABLE t LIKE x")
    replica.streams("x", "t")
    replica.commit("INSERT INTO t VALUES (5, 'new')")
    tables.catch_up()
    tables.assert_same("t", "x")


def test_a_table_in_use_beside_its_old_one_is_not_kept_from_readers(
    replica: Replica, tables: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log is put away, and a new one is written to without a pause: nothing is ever quiet."""
    monkeypatch.setattr(standing, "QUIET_SECONDS", 0.2)
    object.__setattr__(tables.settings.loader, "replacement_seconds", 3600.0)
    tables.restart()
    replica.commit(f"INSERT INTO t SELECT seq, CONCAT('v', seq) FROM {numbers(10, 900)}")
    tables.catch_up()
    replica.ddl("RENAME TABLE t TO old")
    replica.ddl("CREATE TABLE t LIKE old")
    replica.streams("t", "old")
    counter = itertools.count(1)

    def write_and_look() -> bool:
        replica.commit(f"INSERT INTO t VALUES ({next(counter)}, 'new')")
        return ("new",) in _view(tables, "t")

    tables.step_until(write_and_look)
    tables.catch_up()
    tables.assert_same("t", "old")


def test_a_table_that_is_being_filled_stays_unseen_however_long_it_takes(
    replica: Replica, tables: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "QUIET_SECONDS", 0.4)  # no pause is so long
    replica.commit(f"INSERT INTO t SELECT seq, CONCAT('v', seq) FROM {numbers(10, 60)}")
    tables.catch_up()
    with _watched(tables, "SELECT count(*) FROM public.of_t") as seen:
        replica.ddl("RENAME TABLE t TO old")
        replica.ddl("CREATE TABLE t LIKE old")
        replica.ddl("ALTER TABLE t ADD more int")
        replica.streams("t", "old")
        for number in [1, 2, *range(10, 61)]:
            replica.commit(
                f"INSERT INTO t (id, v) SELECT id, v FROM old WHERE id = {number}",
                f"INSERT INTO t (id, v) VALUES ({number + 1000}, 'meanwhile')",
            )
            tables.catch_up_to_position()
        replica.ddl("DROP TABLE old")
        tables.catch_up()
    tables.assert_same("t")
    assert seen <= {(53,), (106,)}


def test_a_late_start_finds_a_table_under_its_new_name_already(
    replica: Replica, tables: Harness
) -> None:
    """What is there at the start is asked for before the stream comes to the RENAME."""
    oid = _oid(tables, "t")
    tables.close()
    replica.ddl("RENAME TABLE t TO x")
    replica.streams("x")
    replica.commit("INSERT INTO x VALUES (3, 't3')")
    replica.ddl("RENAME TABLE u TO old")
    replica.ddl("CREATE TABLE u LIKE old")
    replica.streams("old", "u")
    replica.commit("INSERT INTO u SELECT * FROM old WHERE id = 1")
    tables.restart()
    tables.catch_up()
    tables.step_until(lambda: _oid(tables, "x") == oid)
    tables.catch_up()
    tables.assert_same("x", "u", "old")
    assert _view(tables, "t") == [("t1",), ("t2",), ("t3",)]
    replica.create("t", "id int PRIMARY KEY")
    tables.catch_up()
    tables.assert_same("t")


def test_a_kill_in_the_middle_loses_nothing(replica: Replica, tables: Harness) -> None:
    oid = _oid(tables, "t")
    replica.ddl("RENAME TABLE t TO x")
    replica.streams("x")
    replica.commit("UPDATE x SET v = 'x' WHERE id = 1")
    tables.catch_up_to_position()
    tables.restart()
    replica.ddl("CREATE TABLE t LIKE x")
    replica.streams("t")
    replica.commit("INSERT INTO t SELECT * FROM x WHERE id = 1")
    tables.catch_up_to_position()
    tables.restart()
    replica.commit("INSERT INTO t SELECT * FROM x WHERE id = 2")
    replica.ddl("DROP TABLE x")
    tables.catch_up()
    tables.assert_same("t")
    assert _oid(tables, "t") == oid


def test_a_keyless_copy_read_behind_a_swap_is_not_swapped_again(
    replica: Replica, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica.create("t", "id int PRIMARY KEY, v varchar(20)")
    replica.commit("INSERT INTO t VALUES (1, 'a')")
    harness.catch_up()
    load = following.load_keyless

    def swapped_first(*arguments: Any) -> Any:
        monkeypatch.setattr(following, "load_keyless", load)
        replica.ddl("RENAME TABLE k TO swap, t TO k, swap TO t")
        replica.commit("INSERT INTO k VALUES (37, 'b')", "INSERT INTO t VALUES ('c')")
        return load(*arguments)

    monkeypatch.setattr(following, "load_keyless", swapped_first)
    replica.create("k", "v varchar(20)")
    harness.step_until(lambda: following.load_keyless is load)
    harness.catch_up()
    harness.assert_same("t", "k")


def test_a_name_that_was_taken_away_before_it_was_loaded_is_loaded_anew(
    replica: Replica, harness: Harness
) -> None:
    replica.create("t", "id int PRIMARY KEY, v varchar(20)")
    replica.ddl("ALTER TABLE t RENAME TO u")  # before the loader has seen anything of it
    replica.create("t", "id int, v varchar(20), UNIQUE (id)")
    replica.commit("INSERT INTO t VALUES (1, 'a'), (NULL, 'b')", "INSERT INTO u VALUES (2, 'c')")
    replica.streams("u")
    harness.catch_up()
    harness.assert_same("t", "u")


def test_a_table_without_a_key_is_renamed_too(replica: Replica, harness: Harness) -> None:
    replica.create("k", "v varchar(20)")
    replica.commit("INSERT INTO k VALUES ('a'), ('a'), ('b')")
    harness.catch_up()
    replica.ddl("RENAME TABLE k TO l")
    replica.streams("l")
    replica.commit("DELETE FROM l WHERE v = 'b'")
    harness.catch_up()
    harness.assert_same("l")
    harness.step_until(lambda: _oid(harness, "k") is None)


def test_a_table_changed_and_renamed_before_it_is_looked_at_keeps_its_rows(
    replica: Replica, tables: Harness
) -> None:
    loads, oid = _loads(), _oid(tables, "t")
    replica.ddl("ALTER TABLE t ADD Note varchar(20) NOT NULL DEFAULT 'x'")
    replica.ddl("RENAME TABLE t TO x")
    replica.streams("x")
    tables.catch_up()
    doubtful = "SELECT count(*) FROM raw.etl_table_schema WHERE predicted"
    tables.step_until(lambda: tables.raw.query(doubtful) == [(0,)])
    tables.step_until(lambda: _oid(tables, "x") == oid)
    tables.assert_same("x")
    assert _view(tables, "t") == [("t1",), ("t2",)]
    assert _loads() == loads

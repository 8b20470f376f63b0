"""Tables are loaded and loaded again while the stream goes on."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest

from loader.load import reload
from replicator.sandbox.waiting import wait_until
from tests.numbers import numbers

from ..conftest import Harness, Replica

ROWS = 4000


def _request(replica: Replica, *tables: str) -> None:
    """Leg 1 has renewed these tables on the replica and asks for their reload."""
    replica.commit(
        *(
            (
                "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
                " VALUES (%s, UTC_TIMESTAMP(6), 'loading', UTC_TIMESTAMP(6))",
                (table,),
            )
            for table in tables
        )
    )


def _requests(replica: Replica) -> set[str]:
    return {state for (state,) in replica.database.query("SELECT state FROM etl_resync_request")}


def _unlogged(replica: Replica, statement: str) -> None:
    """Change the replica behind the stream's back, as a swapped-in copy does."""
    with closing(replica.database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute(statement)


class Writing:
    """Transactions on one table from another thread, until told to stop."""

    def __init__(self, replica: Replica, table: str) -> None:
        self._replica = replica
        self._table = table
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.error: BaseException | None = None

    def __enter__(self) -> Writing:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        assert self.error is None

    def _run(self) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                number += 1
                self._replica.commit(*self._changes(number))
        except BaseException as error:  # handed to the test's own thread
            self.error = error

    def _changes(self, number: int) -> list[str]:
        table, one, other = self._table, number * 37 % ROWS + 1, number * 91 % ROWS + 1
        return [
            f"UPDATE {table} SET v = {number} WHERE id IN ({one}, {other})",
            f"DELETE FROM {table} WHERE id = {number * 53 % ROWS + 1}",
            f"INSERT INTO {table} VALUES ({ROWS + number}, {number}, 'new')",
            f"UPDATE {table} SET id = id + 1000000 WHERE id = {number * 71 % ROWS + 1}",
        ]


def _fill(replica: Replica, table: str, key: str = "PRIMARY KEY") -> None:
    replica.create(table, f"id int {key}, v int, t varchar(50)")
    replica.commit(f"INSERT INTO {table} SELECT seq, seq, 'row' FROM {numbers(1, ROWS)}")


@pytest.mark.parametrize("key", ["PRIMARY KEY", "NOT NULL"], ids=["keyed", "keyless"])
def test_a_first_load_is_exact_while_the_table_is_written(
    replica: Replica, harness: Harness, key: str
) -> None:
    _fill(replica, "t", key)
    with Writing(replica, "t"):
        harness.step_until(lambda: harness.states().get("t") == "streaming")
        before = replica.position
        harness.step_until(lambda: replica.position > before + 100)
    harness.catch_up()
    harness.assert_same("t")


@pytest.mark.parametrize("key", ["PRIMARY KEY", "NOT NULL"], ids=["keyed", "keyless"])
def test_a_resync_finds_what_the_stream_never_told(
    replica: Replica, harness: Harness, key: str
) -> None:
    _fill(replica, "t", key)
    harness.catch_up()
    _unlogged(replica, "DELETE FROM t WHERE id % 10 = 0")
    _unlogged(replica, "UPDATE t SET t = 'silent' WHERE id % 7 = 0")
    _unlogged(replica, "INSERT INTO t VALUES (-5, 1, 'silent')")
    loaded_at = "SELECT max(_loaded_at) FROM raw.t WHERE id = 1"
    before = harness.raw.query(loaded_at)
    _request(replica, "t")
    harness.catch_up()
    harness.assert_same("t")
    harness.step_until(lambda: _requests(replica) == {"done"})
    if key == "PRIMARY KEY":
        assert harness.raw.query(loaded_at) == before


def test_a_resync_is_exact_while_the_table_is_written(replica: Replica, harness: Harness) -> None:
    _fill(replica, "t")
    harness.catch_up()
    with Writing(replica, "t"):
        for _ in range(3):
            _unlogged(replica, f"DELETE FROM t WHERE id BETWEEN {ROWS // 2} AND {ROWS // 2 + 20}")
            with closing(replica.database.connect()) as connection, connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
                    " VALUES ('t', UTC_TIMESTAMP(6), 'loading', UTC_TIMESTAMP(6))"
                )
            harness.step_until(lambda: _requests(replica) == {"done"})
    harness.catch_up()
    harness.assert_same("t")


def test_a_copy_does_not_wait_for_a_change_that_waits_for_it(
    replica: Replica, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A RENAME has locked one of its tables already when it comes to the one that is copied."""
    for name in ("a", "t"):
        replica.create(name, "id int PRIMARY KEY, v varchar(9)")
        replica.commit(f"INSERT INTO {name} VALUES (1, '{name}')")
    harness.catch_up()
    read_mark = reload.replica.read_mark
    rename = "RENAME TABLE a TO swap, t TO a, swap TO t"
    renaming = threading.Thread(target=replica.ddl, args=[rename])
    waiting = "SELECT 1 FROM information_schema.processlist WHERE info = %s AND state LIKE 'Wait%%'"

    def renamed_meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(reload.replica, "read_mark", read_mark)
        renaming.start()
        wait_until(lambda: replica.database.query(waiting, [rename]), what="RENAME to wait")
        return read_mark(*arguments)

    monkeypatch.setattr(reload.replica, "read_mark", renamed_meanwhile)
    _request(replica, "t")
    harness.step_until(lambda: bool(renaming.ident) and not renaming.is_alive())
    harness.catch_up()
    harness.assert_same("a", "t")


def test_a_reader_of_raw_never_sees_a_half_loaded_table(replica: Replica, harness: Harness) -> None:
    _fill(replica, "t")
    harness.catch_up()
    seen: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        with closing(harness.raw.connect(autocommit=True)) as connection:
            while not stop.is_set():
                seen.update(row[0] for row in connection.execute("SELECT count(*) FROM raw.t"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        _unlogged(replica, "DELETE FROM t WHERE id <= 100")
        _request(replica, "t")
        harness.catch_up()
    finally:
        stop.set()
        watcher.join()
    assert seen <= {ROWS, ROWS - 100}


def test_many_small_tables_are_loaded_together(replica: Replica, harness: Harness) -> None:
    names = [f"t{number}" for number in range(80)]
    with closing(replica.database.connect()) as connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, v text) ENGINE=InnoDB")
    replica.commit(*(f"INSERT INTO {name} VALUES (1, '{name}'), (2, NULL)" for name in names))
    replica.streams(*names)
    harness.catch_up()
    assert set(harness.states()) == set(names)
    harness.assert_same(*names[::20])


def test_a_killed_load_begins_again(replica: Replica, harness: Harness) -> None:
    _fill(replica, "t")
    for steps in range(1, 12):
        for _ in range(steps % 4 + 1):
            harness.loader.step()
        replica.commit(
            f"UPDATE t SET v = -{steps} WHERE id % {steps + 1} = 0",
            f"INSERT INTO t VALUES ({ROWS + steps}, 0, '')",
        )
        if steps in (5, 8):
            _unlogged(replica, f"UPDATE t SET t = 'x{steps}' WHERE id % 9 = 0")
            _request(replica, "t")
        harness.restart()
    harness.catch_up()
    harness.assert_same("t")
    helpers = harness.raw.query(
        "SELECT relname FROM pg_class WHERE relname ~ '^_(load|reload|touched)_' AND relkind = 'r'"
    )
    assert helpers == []

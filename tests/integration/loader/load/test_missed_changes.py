"""A raw table whose changes were missed stays as it was until its copy takes its place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from loader.load import reload

from ..conftest import Harness, Replica

_REQUEST = (
    "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
    " VALUES ('t', UTC_TIMESTAMP(6), 'loading', UTC_TIMESTAMP(6))"
)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Copies that are begun do not end before it is set."""
    let = threading.Event()
    let.set()
    read_mark = reload.replica.read_mark

    def held(*arguments: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():  # that is the stream's
            let.wait(30)
        return read_mark(*arguments)

    monkeypatch.setattr(reload.replica, "read_mark", held)
    yield let
    let.set()


def _state(replica: Replica, state: str) -> None:
    replica.commit(f"UPDATE etl_extract_status SET extraction_status = '{state}'")


def _copy_anew(replica: Replica) -> None:
    """What leg 1's own copy brings, of which the loader is told nothing."""
    with closing(replica.database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute("UPDATE t SET id = -1 WHERE id = 1")
        cursor.execute("DELETE FROM t WHERE id = 2")


def _paused(replica: Replica, harness: Harness) -> None:
    _state(replica, "copying")
    harness.catch_up_to_position()
    _copy_anew(replica)
    _state(replica, "streaming")


def _paused_and_killed(replica: Replica, harness: Harness) -> None:
    _state(replica, "copying")
    harness.catch_up_to_position()
    _copy_anew(replica)
    replica.commit("UPDATE t SET v = 8 WHERE id = -1")  # in the window: it follows on the new copy
    _state(replica, "streaming")
    harness.restart()


def _killed_while_loading(replica: Replica, harness: Harness) -> None:
    _paused(replica, harness)
    harness.step_until(lambda: harness.states() == {"t": "loading"})
    harness.restart()


def _position_lost(replica: Replica, harness: Harness) -> None:
    _copy_anew(replica)
    harness.raw.execute("DELETE FROM raw.etl_binlog_offset")
    harness.restart()


def _set_aside(replica: Replica, harness: Harness) -> None:
    """Leg 1 passes over a table until its reload has taken its place, and tells both at once."""
    _state(replica, "queued")
    _copy_anew(replica)
    replica.commit("UPDATE etl_extract_status SET extraction_status = 'streaming'", _REQUEST)


def _set_aside_and_killed(replica: Replica, harness: Harness) -> None:
    _state(replica, "queued")
    harness.catch_up_to_position()
    _copy_anew(replica)
    replica.commit("UPDATE etl_extract_status SET extraction_status = 'streaming'", _REQUEST)
    harness.restart()


def _replaced(replica: Replica, harness: Harness) -> None:
    """The table of these rows is gone: the new one's begin behind it."""
    columns = "(id int PRIMARY KEY, v int)"
    replica.commit(f"CREATE OR REPLACE TABLE t {columns}")
    replica.commit("INSERT INTO t VALUES (-1, 8), (3, 3), (4, 4)")


@pytest.mark.parametrize(
    "miss",
    [
        _paused,
        _paused_and_killed,
        _killed_while_loading,
        _position_lost,
        _set_aside,
        _set_aside_and_killed,
        pytest.param(_replaced, marks=pytest.mark.only_on("mariadb", reason="OR REPLACE")),
    ],
)
def test_later_changes_are_not_shown_on_earlier_rows(
    replica: Replica,
    harness: Harness,
    copies: threading.Event,
    miss: Callable[[Replica, Harness], None],
) -> None:
    replica.create("t", "id int PRIMARY KEY, v int")
    replica.commit("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3), (4, 4)")
    harness.catch_up()
    before = harness.raw_rows("t")
    same = "SELECT _loaded_at FROM raw.t WHERE id = 4"
    loaded_at = harness.raw.query(same)
    copies.clear()
    miss(replica, harness)
    harness.step_until(lambda: harness.states() == {"t": "loading"})
    replica.commit("UPDATE t SET v = 9 WHERE id IN (-1, 3)", "INSERT INTO t VALUES (5, 5)")
    harness.catch_up_to_position()
    assert harness.raw_rows("t") == before
    copies.set()
    harness.catch_up()
    harness.assert_same("t")
    assert harness.raw.query(same) == loaded_at  # what had not changed was not written


def test_a_table_that_was_followed_until_its_reload_is_followed_on(
    replica: Replica, harness: Harness, copies: threading.Event
) -> None:
    replica.create("t", "id int PRIMARY KEY, v int")
    replica.commit("INSERT INTO t VALUES (1, 1)")
    harness.catch_up()
    copies.clear()
    replica.commit(_REQUEST)
    harness.step_until(lambda: harness.states() == {"t": "reloading"})
    replica.commit("INSERT INTO t VALUES (2, 2)")
    harness.catch_up_to_position()
    harness.assert_same("t")
    copies.set()
    harness.catch_up()
    harness.assert_same("t")

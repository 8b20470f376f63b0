"""Rows whose key PostgreSQL cannot hold: nowhere in `raw`, never forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from ..conftest import Harness, Replica
from .held import entries, hold_back_copies, resync, unlogged

KEYS = {
    "a zero date": ("d date", "'0000-00-00'", "'2024-01-01'", "0000-00-00"),
    "a partly zero moment": (
        "d datetime(2)", "'2024-00-15 10:00:00.5'", "'2024-01-15'", "2024-00-15 10:00:00.50"
    ),
    "a NUL": ("d varchar(20) CHARACTER SET utf8mb4", "'a\\0b'", "'a\\\\0b'", "a\\0b"),
}  # fmt: skip


@pytest.fixture(params=KEYS)
def kind(request: pytest.FixtureRequest) -> tuple[str, str, str, str]:
    found: tuple[str, str, str, str] = KEYS[request.param]
    return found


def keys(harness: Harness) -> list[Any]:
    rows = harness.raw.query(
        "SELECT key_values->>'d', convert_from(row_image, 'UTF8') FROM raw.etl_quarantine"
        " ORDER BY key"
    )
    return list(rows)


def test_such_a_row_is_followed_by_its_original_key(
    replica: Replica, harness: Harness, kind: tuple[str, str, str, str]
) -> None:
    column, bad, good, shown = kind
    replica.create("t", f"n int, {column}, v int, PRIMARY KEY (n, d)")
    replica.commit(f"INSERT INTO t VALUES (1, {bad}, 1), (1, {good}, 1)")
    harness.catch_up()
    assert keys(harness) == [(shown, "1\t\\N\t1")]
    by_the_copy = entries(harness).keys()
    replica.commit(f"UPDATE t SET v = 2 WHERE n = 1 AND d = {bad}")
    harness.catch_up()
    assert keys(harness) == [(shown, "1\t\\N\t2")]
    assert entries(harness).keys() == by_the_copy
    harness.restart()
    replica.commit(f"INSERT INTO t VALUES (2, {bad}, 5), (3, {bad}, 5)")
    replica.commit("DELETE FROM t WHERE n = 1")
    replica.commit(f"UPDATE t SET d = {good} WHERE n = 2")
    harness.catch_up()
    assert keys(harness) == [(shown, "3\t\\N\t5")]
    assert harness.raw.query("SELECT n, v FROM raw.t") == [(2, 5)]
    replica.commit(f"UPDATE t SET d = {bad} WHERE n = 2", "DELETE FROM t WHERE n = 3")
    harness.catch_up()
    assert keys(harness) == [(shown, "2\t\\N\t5")]
    replica.commit("DELETE FROM t")
    harness.catch_up()
    assert not keys(harness)
    assert harness.raw.query("SELECT * FROM raw.t") == []


def test_a_reload_and_the_stream_beside_it_agree(
    replica: Replica,
    harness: Harness,
    kind: tuple[str, str, str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    column, bad, _good, shown = kind
    replica.create("t", f"n int, {column}, v int, PRIMARY KEY (n, d)")
    replica.commit(f"INSERT INTO t VALUES (1, {bad}, 1), (2, {bad}, 1), (3, {bad}, 1)")
    harness.catch_up()
    unlogged(replica, "DELETE FROM t WHERE n = 1")
    unlogged(replica, f"INSERT INTO t VALUES (4, {bad}, 1), (5, {bad}, 1)")
    hold_back_copies(monkeypatch, harness)
    resync(replica, "t")
    harness.step_until(lambda: harness.states()["t"] == "reloading")
    replica.commit("UPDATE t SET v = 7 WHERE n = 2", "DELETE FROM t WHERE n = 4")
    harness.catch_up()
    assert [image for _, image in keys(harness)] == ["2\t\\N\t7", "3\t\\N\t1", "5\t\\N\t1"]
    assert {key for key, _ in keys(harness)} == {shown}


def test_a_replay_says_that_it_is_in_vain(replica: Replica, harness: Harness) -> None:
    replica.create("t", "d date PRIMARY KEY")
    replica.commit("INSERT INTO t VALUES ('0000-00-00')")
    harness.catch_up()
    [(_, reason, _, _)] = entries(harness).values()
    assert reason == "its key cannot be held: no such date in PostgreSQL in column d"
    harness.raw.execute("UPDATE raw.etl_quarantine SET replay_requested_at = now()")
    query = "SELECT count(*) FROM raw.etl_quarantine WHERE replay_requested_at IS NOT NULL"
    harness.step_until(lambda: harness.raw.query(query) == [(0,)])
    assert [one[1] for one in entries(harness).values()] == ["its key cannot be held by PostgreSQL"]

"""Copies beside the stream: several at once, faults by the thousand, requests withdrawn."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from config.connections import connect_mysql, connect_postgres
from config.settings import Settings
from config.tables import TableRules
from loader.load import reload
from loader.load.reload import LoadRequest
from loader.load.worker import GROUP_BYTES, GROUP_TABLES, Groups, group_of
from loader.masking import Masker
from tests.numbers import numbers

from ..conftest import Harness, Replica


def _requests(*tables: str) -> list[LoadRequest]:
    return [LoadRequest(table, True, 1) for table in tables]


def _names(group: list[LoadRequest]) -> list[str]:
    return [request.table for request in group]


def test_small_tables_share_a_snapshot_and_large_ones_have_their_own() -> None:
    sizes = {"a": 5, "b": 1, "c": GROUP_BYTES - 6, "d": 1 << 40, "e": 2 << 40}
    requests = _requests(*sizes)
    assert _names(group_of(requests, sizes, large=False)) == ["b", "a", "c"]
    assert _names(group_of(requests, sizes, large=True)) == ["e"]
    assert _names(group_of(_requests("e"), sizes, large=False)) == ["e"]
    assert group_of([], sizes, large=False) == []
    many = _requests(*(str(number) for number in range(100)))
    assert len(group_of(many, {}, large=True)) == GROUP_TABLES


def test_a_table_is_copied_by_one_thread_at_a_time() -> None:
    groups = Groups()
    groups.add(_requests("a", "b"))
    with groups.taken({}, large=False) as first:
        assert _names(first) == ["a", "b"]
        groups.add([LoadRequest("a", True, 2), LoadRequest("c", True, 2)])
        with groups.taken({}, large=True) as second:
            assert _names(second) == ["c"]
    with groups.taken({}, large=True) as third:
        assert [(request.table, request.generation) for request in third] == [("a", 2)]


def test_withdrawn_requests_are_not_copied() -> None:
    groups = Groups()
    requests = _requests("a", "b")
    groups.add(requests)
    requests[0].cancelled.set()
    with groups.taken({}, large=False) as group:
        assert _names(group) == ["b"]
    groups.close()
    assert not groups.wait()


@pytest.mark.parametrize("stamp_from", [0, 1 << 60], ids=["stamped", "spelled"])
def test_every_row_of_a_copy_has_both_times(
    monkeypatch: pytest.MonkeyPatch, replica: Replica, harness: Harness, stamp_from: int
) -> None:
    monkeypatch.setattr(reload, "STAMP_FROM", stamp_from)
    replica.create("t", "id int PRIMARY KEY, v int")
    replica.commit(f"INSERT INTO t SELECT seq, seq FROM {numbers(1, 500)}")
    (stamp,) = replica.database.query("SELECT event_timestamp FROM etl_binlog_offset")[0]
    harness.catch_up()
    found = harness.raw.query(
        "SELECT count(*), count(_loaded_at), max(_source_ts AT TIME ZONE 'UTC'),"
        " count(DISTINCT _source_ts) FROM raw.t"
    )
    assert found == [(500, 500, stamp, 1)]
    defaults = harness.raw.query(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'raw.t'::regclass AND atthasdef"
    )
    assert ("_source_ts",) not in defaults


def test_faults_are_noted_while_the_copy_goes_on(
    monkeypatch: pytest.MonkeyPatch, replica: Replica, harness: Harness
) -> None:
    monkeypatch.setattr(reload, "HELD_FAULTS", 100)
    monkeypatch.setattr(reload, "BLOCK_BYTES", 1000)
    noted: list[int] = []
    original = reload.tracking.add_exceptions

    def add(connection: Any, table: str, faults: Any, source: Any) -> None:
        noted.append(len(faults))
        original(connection, table, faults, source)

    monkeypatch.setattr(reload.tracking, "add_exceptions", add)
    replica.create("t", "id int PRIMARY KEY, d date")
    replica.commit(
        "INSERT INTO t SELECT seq, IF(seq % 2, '0000-00-00', '2024-02-29')"
        f" FROM {numbers(1, 40_000)}"
    )
    harness.catch_up()
    assert sum(noted) == 20000
    assert max(noted) < 10000
    counts = "SELECT count(*), count(d), count(*) FILTER (WHERE id % 2 = 0) FROM raw.t"
    assert harness.raw.query(counts) == [(40000, 20000, 20000)]
    exceptions = "SELECT count(DISTINCT key), min(key) FROM raw.etl_value_exceptions"
    assert harness.raw.query(exceptions) == [(20000, "1")]


def test_a_copy_that_nobody_wants_any_more_ends_and_its_connection_goes_on(
    monkeypatch: pytest.MonkeyPatch, replica: Replica, settings: Settings, harness: Harness
) -> None:
    monkeypatch.setattr(reload, "BLOCK_BYTES", 1000)
    replica.create("t", "id int PRIMARY KEY, v varchar(200)")
    replica.commit(f"INSERT INTO t SELECT seq, REPEAT('x', 200) FROM {numbers(1, 20_000)}")
    harness.catch_up()
    server = settings.replication
    connections = reload.Connections(
        connect_mysql(server, **reload.raw_bytes_options()),
        connect_mysql(server),
        connect_postgres(settings.analytics),
    )
    with closing(connections):
        copier = reload.Copier(connections, server.db, Masker(TableRules(), None))
        unwanted, wanted = _requests("t")[0], LoadRequest("t", False, 2)
        looks = iter(range(3))

        def is_set() -> bool:
            return next(looks, None) is None

        monkeypatch.setattr(unwanted.cancelled, "is_set", is_set)
        assert copier.copy([unwanted]) == []
        (loaded,) = copier.copy([wanted])
        assert loaded.rows == 20000
    leftovers = "SELECT relname FROM pg_class WHERE relname ~ '^_(load|reload)_' AND relkind = 'r'"
    assert harness.raw.query(leftovers) == [("_reload_t ",)]

"""What only MySQL's binlog holds, on the way from source to replica."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from replicator.binlog.jsonencoding import selected
from replicator.sandbox.accounts import allow_source, create_source_account
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.servers import SOURCE_OPTIONS
from replicator.sandbox.waiting import wait_until
from replicator.snapshot import TableCopier
from tests.fix_servers import NewMariaDB
from tests.integration.binlog.random_tables import JSON_SCALARS
from tests.numbers import numbers

from .conftest import NewLeg
from .leg import Leg

pytestmark = pytest.mark.only_on("mysql", reason="MariaDB's binlog has nothing of the kind")


@pytest.fixture
def gtid_source(new_mariadb: NewMariaDB) -> Iterator[MySQLDatabase]:
    """A source with GTIDs, which a practice on MyISAM cannot have."""
    server = new_mariadb({**SOURCE_OPTIONS, "default_storage_engine": "InnoDB"})
    database = MySQLDatabase(server, "opendental", "readonly_user", "synthetic")
    database.create()
    with closing(server.connect()) as root:
        create_source_account(root, database.user, database.password)
        allow_source(root, database.user, database.name)
    yield database
    database.drop()


@pytest.fixture
def leg(new_leg: NewLeg, gtid_source: MySQLDatabase) -> Leg:
    """A table that streams."""
    leg = new_leg(source=gtid_source, batch_bytes=100_000)
    leg.source.execute("CREATE TABLE patient (id INT PRIMARY KEY, note TEXT)")
    leg.source.execute("INSERT INTO patient VALUES (1, 'one'), (2, NULL)")
    leg.catch_up()
    return leg


def work(database: MySQLDatabase, *settings: str) -> None:
    """Transactions of one row and of many, and one that is taken back, in one session."""
    with closing(database.connect(autocommit=False)) as connection:
        cursor = connection.cursor()
        for setting in settings:
            cursor.execute(setting)
        cursor.execute("UPDATE patient SET note = REPEAT('long ', 1000) WHERE id = 1")
        connection.commit()
        cursor.execute(
            f"INSERT INTO patient SELECT seq + 10, REPEAT('x', 90) FROM {numbers(1, 3000)}"
        )
        cursor.execute("DELETE FROM patient WHERE id % 3 = 0")
        connection.commit()
        cursor.execute("DELETE FROM patient")
        connection.rollback()
        cursor.execute("INSERT INTO patient VALUES (0, 'last')")
        connection.commit()


def test_compressed_transactions_arrive_and_can_be_resumed_between(leg: Leg) -> None:
    setting = "SET SESSION binlog_transaction_compression = ON"
    work(leg.source, setting)
    leg.catch_up()
    leg.assert_exact()
    leg.source.execute("DELETE FROM patient")
    leg.restart()
    work(leg.source, setting)
    leg.catch_up()
    leg.assert_exact()
    assert leg.position() == leg.source_position()


def test_a_json_value_changed_in_part_arrives_whole(leg: Leg) -> None:
    leg.source.execute("CREATE TABLE form (id INT PRIMARY KEY, body JSON)")
    leg.source.execute(
        """INSERT INTO form VALUES (1, '{"a": "aaaaaaaaaaaa", "b": [1, 2, 3], "c": {"d": null}}')"""
    )
    with closing(leg.source.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION binlog_row_value_options = 'PARTIAL_JSON'")
        cursor.execute("UPDATE form SET body = JSON_SET(body, '$.a', 'x', '$.b[1]', 7)")
        cursor.execute("UPDATE form SET body = JSON_REMOVE(body, '$.c.d')")
    leg.catch_up()
    leg.assert_exact()
    assert leg.replica.query("SELECT body->>'$.a', body->>'$.b[1]' FROM form") == [("x", "7")]


def documents(database: MySQLDatabase, table: str) -> list[tuple[int, str, str]]:
    """Each row's document as text, and the kinds of its elements, by the server's account."""
    database.execute("SET SESSION group_concat_max_len = 4294967295")
    return database.query(f"SELECT id, CAST(j AS CHAR), {selected('j')} FROM {table} ORDER BY id")


@pytest.mark.parametrize("key", ["PRIMARY KEY", ""])
def test_json_is_copied_with_the_kind_of_every_element(
    new_leg: NewLeg, gtid_source: MySQLDatabase, key: str
) -> None:
    leg = new_leg(source=gtid_source, copy_chunk_rows=7)
    leg.source.execute(f"CREATE TABLE form (id INT {key}, j JSON, n INT DEFAULT 0)")
    for number, one in enumerate(JSON_SCALARS):
        leg.source.execute(f"INSERT INTO form (id, j) SELECT {number}, JSON_ARRAY({one}, {one})")
    leg.source.execute("INSERT INTO form (id, j) VALUES (1000, NULL), (1001, 'null')")
    leg.catch_up()
    assert documents(leg.replica, "form") == documents(leg.source, "form")
    # What was copied is found by the source's own images of it.
    leg.source.execute("UPDATE form SET n = 1 WHERE id % 2")
    leg.source.execute("UPDATE form SET j = JSON_SET(j, '$[0]', CAST(1.50 AS DECIMAL(30,2)))")
    leg.source.execute("DELETE FROM form WHERE id % 3 = 0")
    leg.catch_up()
    assert documents(leg.replica, "form") == documents(leg.source, "form")
    leg.resync("form")
    leg.catch_up()
    assert documents(leg.replica, "form") == documents(leg.source, "form")
    leg.source.execute("DELETE FROM form")
    leg.catch_up()
    leg.assert_exact()


def test_a_document_with_holes_of_partial_updates_is_copied(
    new_leg: NewLeg, gtid_source: MySQLDatabase
) -> None:
    leg = new_leg(source=gtid_source)
    leg.source.execute("CREATE TABLE form (id INT PRIMARY KEY, j JSON)")
    leg.source.execute(
        """INSERT INTO form VALUES (1, '{"a": "aaaaaaaaaaaaaaaaaaaaaaa", "b": [1, 2, "cc"]}')"""
    )
    leg.source.execute("UPDATE form SET j = JSON_SET(j, '$.a', 'x')")
    assert leg.source.query("SELECT JSON_STORAGE_FREE(j) > 0 FROM form") == [(1,)]
    leg.catch_up()
    assert documents(leg.replica, "form") == documents(leg.source, "form")
    with closing(leg.source.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION binlog_row_value_options = 'PARTIAL_JSON'")
        cursor.execute("UPDATE form SET j = JSON_REPLACE(j, '$.b[0]', 7, '$.a', 'yy')")
        cursor.execute("UPDATE form SET j = JSON_REMOVE(j, '$.b[1]')")
    leg.catch_up()
    assert documents(leg.replica, "form") == documents(leg.source, "form")


def test_partial_updates_within_a_copys_window_are_reconciled(
    new_leg: NewLeg, gtid_source: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(source=gtid_source, copy_chunk_rows=2)
    leg.source.execute("CREATE TABLE form (id INT PRIMARY KEY, j JSON)")
    leg.source.execute(
        "INSERT INTO form SELECT seq, JSON_OBJECT('text', REPEAT('long ', 50), 'list',"
        f" JSON_ARRAY(seq, 2, 3)) FROM {numbers(1, 8)}"
    )
    original = TableCopier.copy_chunk

    def copy_chunk(self: TableCopier, *arguments: Any) -> Any:
        with closing(leg.source.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SET SESSION binlog_row_value_options = 'PARTIAL_JSON'")
            cursor.execute("UPDATE form SET j = JSON_ARRAY_APPEND(j, '$.list', 9) WHERE id < 7")
            cursor.execute("UPDATE form SET j = JSON_SET(j, '$.text', 'short') WHERE id = 3")
            cursor.execute("UPDATE form SET id = id + 100 WHERE id = 8")
        return original(self, *arguments)

    monkeypatch.setattr(TableCopier, "copy_chunk", copy_chunk)
    leg.catch_up()
    assert documents(leg.replica, "form") == documents(leg.source, "form")


@contextmanager
def hanging(database: MySQLDatabase, statement: str) -> Iterator[None]:
    """For a second, what the statement does is in the binlog, and nobody can see it."""
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        database.execute("SET GLOBAL binlog_group_commit_sync_delay = 1000000")
        thread = threading.Thread(target=lambda: cursor.execute(statement))
        thread.start()
        try:
            wait_until(
                lambda: database.query("SELECT @@GLOBAL.gtid_owned <> ''") == [(1,)],
                what="a transaction in the commit gap",
            )
            yield
        finally:
            thread.join()
            database.execute("SET GLOBAL binlog_group_commit_sync_delay = 0")


def test_a_copy_is_read_when_what_is_in_the_binlog_is_visible(
    new_leg: NewLeg, gtid_source: MySQLDatabase
) -> None:
    leg = new_leg(source=gtid_source, copy_gap_seconds=0.001)
    leg.source.execute("CREATE TABLE patient (id INT PRIMARY KEY, note TEXT)")
    leg.source.execute("INSERT INTO patient VALUES (1, 'one'), (2, 'two'), (3, 'three')")
    with hanging(leg.source, "UPDATE patient SET note = 'changed' WHERE id = 1"):
        assert leg.source.query("SELECT note FROM patient WHERE id = 1") == [("one",)]
        leg.catch_up()
    leg.assert_exact()
    leg.resync("patient")
    with hanging(leg.source, "DELETE FROM patient WHERE id = 2"):
        leg.catch_up()
    leg.assert_exact()
    assert leg.replica.query("SELECT id, note FROM patient") == [(1, "changed"), (3, "three")]


def test_the_offset_row_tells_the_gtids_executed(leg: Leg) -> None:
    leg.source.execute("INSERT INTO patient VALUES (9, 'nine')")
    leg.catch_up()
    offset = leg.offset()
    assert offset is not None
    ((done,),) = leg.source.query("SELECT @@GLOBAL.gtid_executed")
    assert offset.gtid == done


def test_a_tagged_gtid_is_followed(leg: Leg) -> None:
    with closing(leg.source.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION gtid_next = 'AUTOMATIC:practice'")
        cursor.execute("INSERT INTO patient VALUES (9, 'nine')")
        cursor.execute("ALTER TABLE patient ADD COLUMN n INT DEFAULT 4")
        cursor.execute("UPDATE patient SET n = 5 WHERE id = 1")
    leg.catch_up()
    leg.assert_exact()
    assert leg.position() == leg.source_position()

"""What only MySQL's binlog holds, on the way from source to replica."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from replicator.sandbox.accounts import allow_source, create_source_account
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.servers import SOURCE_OPTIONS
from tests.fix_servers import NewMariaDB
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


def test_the_offset_row_tells_the_transactions_gtid(leg: Leg) -> None:
    leg.source.execute("INSERT INTO patient VALUES (9, 'nine')")
    leg.catch_up()
    offset = leg.offset()
    assert offset is not None
    ((done,),) = leg.source.query("SELECT @@GLOBAL.gtid_executed")
    uuid, _, numbers_done = done.partition(":")
    assert offset.gtid == f"{uuid}:{numbers_done.rpartition('-')[2]}"


def test_a_tagged_gtid_is_followed(leg: Leg) -> None:
    with closing(leg.source.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION gtid_next = 'AUTOMATIC:practice'")
        cursor.execute("INSERT INTO patient VALUES (9, 'nine')")
        cursor.execute("ALTER TABLE patient ADD COLUMN n INT DEFAULT 4")
        cursor.execute("UPDATE patient SET n = 5 WHERE id = 1")
    leg.catch_up()
    leg.assert_exact()
    assert leg.position() == leg.source_position()

"""Rows larger than the replica's packets: by two variables, or a halt with table and remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from config.errors import ConfigError
from replicator.sandbox.accounts import allow_replica, create_replica_account
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.servers import REPLICA_OPTIONS
from tests.fix_servers import NewMariaDB

from .conftest import NewLeg
from .leg import Leg

PACKET = 2 << 20
TWO_PACKETS, TOO_MUCH = 2_500_000, 4_000_000
"""Bytes of a row: as base64 more than one packet, and more than two."""


@pytest.fixture
def narrow(new_mariadb: NewMariaDB) -> Iterator[MySQLDatabase]:
    """A replica that takes packets of 2 MiB."""
    server = new_mariadb({**REPLICA_OPTIONS, "max_allowed_packet": str(PACKET)}, server_id=2)
    database = MySQLDatabase(server, "replica", "replication_user", "synthetic")
    database.create()
    with closing(server.connect()) as root:
        create_replica_account(root, database.user, database.password)
        allow_replica(root, database.user, database.name)
    yield database
    database.close()


@pytest.fixture
def leg(new_leg: NewLeg, narrow: MySQLDatabase) -> Leg:
    leg = new_leg(replica=narrow, batch_bytes=1 << 16)
    leg.source.execute("CREATE TABLE letter (id INT PRIMARY KEY, body LONGBLOB)")
    return leg


def insert(leg: Leg, number: int, size: int) -> None:
    leg.source.execute("INSERT INTO letter VALUES (%s, REPEAT('x', %s))", (number, size))


def assert_halts(leg: Leg) -> None:
    """By name, at each start, in place of being tried for ever."""
    for _ in range(2):
        with pytest.raises(ConfigError, match="max_allowed_packet is 2,097,152") as halted:
            leg.step_until(lambda: False)
        assert "a row of letter takes" in str(halted.value)
        assert "SET GLOBAL max_allowed_packet" in halted.value.hint
        leg.restart()


def mend(leg: Leg) -> None:
    """What the hint says."""
    leg.replica.execute(f"SET GLOBAL max_allowed_packet = {64 << 20}")
    leg.restart()
    leg.catch_up()
    leg.assert_exact()


@pytest.mark.only_on("mariadb", reason="MySQL takes events in the statement alone")
def test_a_row_of_two_packets_is_copied_and_streamed(leg: Leg) -> None:
    insert(leg, 1, TWO_PACKETS)
    leg.catch_up()
    insert(leg, 2, TWO_PACKETS)
    leg.catch_up()
    leg.assert_exact()


def test_a_row_that_no_packet_takes_halts_the_copy_by_name(leg: Leg) -> None:
    insert(leg, 1, TOO_MUCH)
    assert_halts(leg)
    mend(leg)


def test_a_row_that_no_packet_takes_halts_the_stream_by_name(leg: Leg) -> None:
    insert(leg, 1, 10)
    leg.catch_up()
    insert(leg, 2, TOO_MUCH)
    assert_halts(leg)
    mend(leg)


def test_a_row_that_no_packet_takes_fails_the_reload_by_name(leg: Leg) -> None:
    leg.source.execute("CREATE TABLE other (id INT PRIMARY KEY)")
    insert(leg, 1, 10)
    leg.catch_up()
    leg.replica.execute(f"SET GLOBAL max_allowed_packet = {64 << 20}")
    leg.restart()
    insert(leg, 2, TOO_MUCH)
    leg.catch_up()
    leg.replica.execute(f"SET GLOBAL max_allowed_packet = {PACKET}")
    leg.restart()
    leg.resync("letter")
    leg.step_until(lambda: leg.requests("failed"))
    ((message,),) = leg.replica.query("SELECT message FROM etl_resync_request")
    assert "a row of letter takes" in message
    assert "SET GLOBAL max_allowed_packet" in message
    leg.assert_exact()

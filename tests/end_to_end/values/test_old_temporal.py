"""Columns in the temporal formats of before MySQL 5.6, which old tables keep for ever.

On the source they are the practice's. On the replica they are ours to avoid: leg 1 makes its
tables there anew, in the replica's own format. The replica's server converts what the stream
brings, and makes a zero date of a day that no calendar has (31 February), as it does when it
replicates by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from replicator.sandbox.accounts import allow_source, create_source_account
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.sandbox.servers import SOURCE_OPTIONS
from tests.end_to_end.values import catalogue
from tests.end_to_end.values.legs import Legs, Table
from tests.fix_servers import PASSWORD, SOURCE_USER, NewMariaDB, Pair

pytestmark = pytest.mark.only_on("mariadb", reason="MySQL has forgotten the formats")


@pytest.fixture
def old(
    new_mariadb: NewMariaDB, replica_db: MySQLDatabase, analytics_db: PostgresDatabase
) -> Iterator[Legs]:
    server = new_mariadb({**SOURCE_OPTIONS, "mysql56_temporal_format": "OFF"})
    with server.connect() as root:
        create_source_account(root, SOURCE_USER, PASSWORD)
        source = MySQLDatabase(server, "opendental_old", SOURCE_USER, PASSWORD)
        source.create()
        allow_source(root, SOURCE_USER, source.name)
    legs = Legs(source, replica_db, analytics_db)
    yield legs
    legs.close()
    source.close()


@pytest.mark.parametrize("name", ["days", "moments"])
def test_old_columns_of_the_source_are_exact_whichever_way_they_come(
    old: Legs, servers: Pair, name: str
) -> None:
    family = _of_the_calendar(catalogue.families(servers.mysql)[name])
    copied = Table(old, "copied", family, engine="InnoDB")
    copied.fill()
    old.catch_up()
    copied.assert_exact()
    streamed = Table(old, "streamed", family)
    old.catch_up()
    streamed.fill()
    old.catch_up()
    streamed.assert_exact()
    for table in (copied, streamed):
        table.move(1000)
        table.touch()
        table.thin_out()
    old.catch_up()
    for table in (copied, streamed):
        table.assert_exact()


NO_DAYS = ("2020-02-31", "2023-02-29", "0000-02-29")


def _of_the_calendar(family: catalogue.Family) -> catalogue.Family:
    return {
        name: replace(
            kind,
            unholdable=tuple(
                bad for bad in kind.unholdable if not any(day in bad.literal for day in NO_DAYS)
            ),
        )
        for name, kind in family.items()
    }

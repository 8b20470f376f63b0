"""A source and a replica of different families are refused by name, whichever is which."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.errors import ConfigError
from replicator.sandbox.accounts import (
    allow_replica,
    allow_source,
    create_replica_account,
    create_source_account,
)
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.servers import REPLICA_OPTIONS, SOURCE_OPTIONS, new_server

from .conftest import NewLeg

pytestmark = pytest.mark.only_on("mysql", reason="MariaDB is on every machine, MySQL here alone")


@pytest.fixture(params=["source", "replica"])
def mariadb(request: pytest.FixtureRequest, server_directory: Path) -> Iterator[MySQLDatabase]:
    """A MariaDB source or replica beside this run's MySQL servers."""
    source = request.param == "source"
    server = new_server(
        "mariadb",
        server_directory / f"mariadb-{request.param}",
        options=SOURCE_OPTIONS if source else REPLICA_OPTIONS,
        server_id=31,
    )
    server.start()
    database = MySQLDatabase(server, "opendental", f"{request.param}_user", "synthetic")
    database.create()
    with closing(server.connect()) as root:
        create, allow = (
            (create_source_account, allow_source)
            if source
            else (create_replica_account, allow_replica)
        )
        create(root, database.user, database.password)
        allow(root, database.user, database.name)
    yield database
    database.close()
    server.discard()


def test_a_pair_of_two_families_is_refused_by_name(
    new_leg: NewLeg, source_db: MySQLDatabase, mariadb: MySQLDatabase
) -> None:
    is_source = mariadb.user == "source_user"
    leg = new_leg(source=mariadb) if is_source else new_leg(source=source_db, replica=mariadb)
    with pytest.raises(ConfigError, match="different families") as refused:
        leg.step()
    ((ours,),), ((theirs,),) = (
        database.query("SELECT VERSION()") for database in (leg.source, leg.replica)
    )
    assert f"source ({ours}) and replica ({theirs})" in str(refused.value)
    assert "MySQL with MySQL" in refused.value.hint
    assert leg.replica.query("SHOW TABLES LIKE 'patient'") == []

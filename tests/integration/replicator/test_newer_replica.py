"""A replica of a newer series than its source, and the one thing that it does not take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.errors import ConfigError, UnsupportedStatement
from replicator.sandbox.accounts import allow_source, create_source_account
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.servers import SOURCE_OPTIONS, new_server

from .conftest import NewLeg

pytestmark = pytest.mark.only_on("mariadb-11.8", reason="an older MariaDB is on every machine")


@pytest.fixture(scope="module")
def older(server_directory: Path) -> Iterator[MySQLDatabase]:
    server = new_server(
        "mariadb", server_directory / "older-source", options=SOURCE_OPTIONS, server_id=31
    )
    server.start()
    database = MySQLDatabase(server, "opendental", "readonly_user", "synthetic")
    with closing(server.connect()) as root:
        create_source_account(root, database.user, database.password)
        allow_source(root, database.user, database.name)
    yield database
    server.discard()


@pytest.fixture
def source(older: MySQLDatabase) -> Iterator[MySQLDatabase]:
    older.create()
    yield older
    older.drop()


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE t ADD v int, ADD SYSTEM VERSIONING",
        "CREATE TABLE u (id int PRIMARY KEY) WITH SYSTEM VERSIONING",
        "CREATE TABLE u (id int PRIMARY KEY, v int WITH SYSTEM VERSIONING)",
    ],
)
def test_versions_of_rows_are_refused_and_all_else_is_carried(
    new_leg: NewLeg, source: MySQLDatabase, statement: str
) -> None:
    leg = new_leg(source=source)
    source.execute("CREATE TABLE t (id int PRIMARY KEY, n varchar(9)) CHARSET utf8mb4")
    leg.catch_up()
    source.execute("ALTER TABLE t ADD w varchar(20) CHARACTER SET utf8mb4 DEFAULT 'ä'")
    source.execute("INSERT INTO t VALUES (1, 'ö', 'ü')")
    leg.catch_up()
    leg.assert_exact()
    source.execute(statement)
    with pytest.raises(UnsupportedStatement, match=r"table [tu] is system-versioned") as refused:
        leg.catch_up()
    assert "tables.toml" in refused.value.hint


def test_versions_that_the_replica_had_before_it_was_upgraded_are_named(
    new_leg: NewLeg, source: MySQLDatabase
) -> None:
    leg = new_leg(source=source)
    leg.replica.execute("CREATE TABLE t (id int PRIMARY KEY) WITH SYSTEM VERSIONING")
    with pytest.raises(ConfigError, match="table t is system-versioned"):
        leg.step()

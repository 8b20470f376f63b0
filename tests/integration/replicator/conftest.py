"""`leg`: leg 1 on fresh databases; `new_leg(rules=…, copy_chunk_rows=3)` where it differs.

`lone_source` is a database on a source of the module's own, whose binlog may be begun anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from config.tables import TableRules
from replicator.sandbox.accounts import allow_source, create_source_account
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.servers import SOURCE_OPTIONS, BinlogServer, new_server
from tests.fix_servers import Pair

from .leg import Leg

NewLeg = Callable[..., Leg]


@pytest.fixture
def new_leg(source_db: MySQLDatabase, replica_db: MySQLDatabase) -> Iterator[NewLeg]:
    made: list[Leg] = []

    def make(
        rules: TableRules = TableRules(),  # noqa: B008 (frozen)
        source: MySQLDatabase | None = None,
        replica: MySQLDatabase | None = None,
        **tuning: Any,
    ) -> Leg:
        made.append(Leg(source or source_db, replica or replica_db, rules, **tuning))
        return made[-1]

    yield make
    for leg in made:
        leg.close()


@pytest.fixture
def leg(new_leg: NewLeg) -> Leg:
    return new_leg()


@pytest.fixture(scope="module")
def lone_server(server_directory: Path, servers: Pair) -> Iterator[BinlogServer]:
    """A source of this module's own: its binlogs are purged and begun anew."""
    place = server_directory / f"lone-{len(list(server_directory.iterdir()))}"
    server = new_server(servers.mysql, place, options=SOURCE_OPTIONS, server_id=1)
    server.start()
    with closing(server.connect()) as root:
        create_source_account(root, "readonly_user", "synthetic")
    yield server
    server.discard()


@pytest.fixture
def lone_source(lone_server: BinlogServer) -> Iterator[MySQLDatabase]:
    database = MySQLDatabase(lone_server, "opendental", "readonly_user", "synthetic")
    database.create()
    with closing(lone_server.connect()) as root:
        allow_source(root, database.user, database.name)
    yield database
    database.drop()

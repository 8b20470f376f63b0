"""The fixture of the tests of values: both legs between the session's servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from tests.end_to_end.values.legs import Legs


@pytest.fixture
def legs(
    source_db: MySQLDatabase, replica_db: MySQLDatabase, analytics_db: PostgresDatabase
) -> Iterator[Legs]:
    legs = Legs(source_db, replica_db, analytics_db)
    yield legs
    legs.close()

"""Rows copied by image are the rows of the source, by the server's own account."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pymysql
import pytest
from hypothesis import HealthCheck, given, note, settings

from config.errors import CopyRefused, SchemaDrift, UnknownEvent
from replicator.binlog.rowimage import (
    Kind,
    RowImageEncoder,
    RowSplitter,
    TableLayout,
    build_table_map,
    rows_event,
    split_rows,
)
from replicator.binlog.schema import (
    HIDDEN_HASH,
    schema_from_catalog,
    schema_from_table_map,
    schemas_from_catalog,
)
from replicator.sandbox.databases import MySQLDatabase
from tests.integration.binlog.logged import (
    Log,
    apply,
    catalog_of,
    copy_rows,
    differences,
    raw_rows,
)
from tests.integration.binlog.random_tables import RandomTable, tables

modest = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@pytest.fixture
def lenient(replica_db: MySQLDatabase) -> Iterator[MySQLDatabase]:
    """A database whose session lets zero dates and the like in, as OpenDental's server does."""
    replica_db.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
    yield replica_db


def fill(database: MySQLDatabase, table: RandomTable) -> None:
    """Make the table `original`, with its rows, and `copy`, without."""
    database.execute("DROP TABLE IF EXISTS original, copy")
    database.execute(f"CREATE TABLE original {table.definition}")
    database.execute("CREATE TABLE copy LIKE original")
    rows = ",".join(f"({', '.join(row)})" for row in table.rows)
    database.execute(f"INSERT IGNORE INTO original ({', '.join(table.names)}) VALUES {rows}")


def make(database: MySQLDatabase, definition: str, *rows: str) -> None:
    database.execute(f"CREATE TABLE original {definition}")
    database.execute("CREATE TABLE copy LIKE original")
    for row in rows:
        database.execute(f"INSERT INTO original VALUES {row}")


@modest
@given(table=tables())
def test_random_tables_arrive_exactly_and_look_the_same_from_both_ends(
    lenient: MySQLDatabase, table: RandomTable
) -> None:
    log = Log(lenient)
    fill(lenient, table)
    note(table.definition)
    ((table_map, event),) = log.rows()
    catalog = catalog_of(lenient, "original")

    streamed = schema_from_table_map(table_map)
    assert streamed == schema_from_catalog(catalog)
    assert streamed.hash == schema_from_catalog(catalog).hash

    ours = build_table_map(table_map.table_id, lenient.name, TableLayout.of(catalog))
    assert table_map.raw[27:].startswith(ours[27:])

    made = copy_rows(lenient, "original", "copy")
    assert differences(lenient, "original", "copy") == []
    logged = [after for _before, after in split_rows(event, table_map)]
    if not catalog.hidden_hashes and "compressed" not in table.definition:
        assert sorted(made) == sorted(image for image in logged if image is not None)


@modest
@given(table=tables())
def test_split_images_sent_again_one_by_one_make_the_same_rows(
    lenient: MySQLDatabase, table: RandomTable
) -> None:
    log = Log(lenient)
    fill(lenient, table)
    ((table_map, event),) = log.rows()
    target = build_table_map(9, lenient.name, TableLayout.of(catalog_of(lenient, "copy")))
    for _before, after in split_rows(event, table_map):
        assert after is not None
        assert b"".join(v for v in RowSplitter.of(table_map).values(after) if v) in after
        apply(lenient, target, rows_event(9, len(table_map.column_types), [after]))
    assert differences(lenient, "original", "copy") == []

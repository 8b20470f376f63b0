"""The compiled row encoder makes the images that the Python encoder makes, of any table."""

from __future__ import annotations

import os
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, note, settings

from replicator.binlog.resultset import ResultSet
from replicator.binlog.rowimage import RowImageEncoder, TableLayout, build_table_map, rows_event
from replicator.binlog.rowplan import RowPlan
from replicator.sandbox.databases import MySQLDatabase
from tests.integration.binlog.logged import apply, catalog_of, differences, raw_connection, raw_rows
from tests.integration.binlog.random_tables import RandomTable, tables

pytest.importorskip("replicator.binlog.rowkernel", reason="the row kernel was not built")

EXAMPLES = int(os.environ.get("ROW_KERNEL_EXAMPLES", "60"))
thorough = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@pytest.fixture
def lenient(replica_db: MySQLDatabase) -> MySQLDatabase:
    """A database whose session lets zero dates and the like in, as OpenDental's server does."""
    replica_db.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
    return replica_db


def by_kernel(
    database: MySQLDatabase, source: str, target: str, *, block_bytes: int = 1 << 20
) -> list[tuple[bytes, int]]:
    """The events that the kernel makes of a table's rows in their first column's order."""
    catalog = catalog_of(database, target)
    layout = TableLayout.of(catalog)
    plan = RowPlan(catalog, layout)
    head = rows_event(77, layout.width, [])
    query = f"SELECT {', '.join(plan.select_list)} FROM `{source}` ORDER BY 1"
    events = []
    with (
        closing(raw_connection(database)) as connection,
        ResultSet(connection, query, binary=True, block_bytes=block_bytes) as result,
    ):
        kernel = plan.kernel(result.fields)
        for block in result.blocks():
            event, rows, _last = kernel.encode(block, head)
            events.append((event, rows))
    return events


def by_python(database: MySQLDatabase, source: str, target: str) -> bytes:
    encoder = RowImageEncoder(TableLayout.of(catalog_of(database, target)))
    return encoder.rows_event(77, raw_rows(database, source, encoder.select_list))


def fill(database: MySQLDatabase, table: RandomTable) -> None:
    database.execute("DROP TABLE IF EXISTS original, copy")
    database.execute(f"CREATE TABLE original {table.definition}")
    database.execute("CREATE TABLE copy LIKE original")
    rows = ",".join(f"({', '.join(row)})" for row in table.rows)
    database.execute(f"INSERT IGNORE INTO original ({', '.join(table.names)}) VALUES {rows}")


@thorough
@given(table=tables())
def test_rows_of_random_tables_become_the_same_bytes_and_arrive_exactly(
    lenient: MySQLDatabase, table: RandomTable
) -> None:
    fill(lenient, table)
    note(table.definition)
    ((event, rows),) = by_kernel(lenient, "original", "copy")
    assert rows == lenient.query("SELECT COUNT(*) FROM original")[0][0]
    assert event == by_python(lenient, "original", "copy")
    layout = TableLayout.of(catalog_of(lenient, "copy"))
    apply(lenient, build_table_map(77, lenient.name, layout), event)
    assert differences(lenient, "original", "copy") == []

"""Blocks of a real server's rows and what readers make of them, for tests of the copy's kernel.

From the left comes a table on a server; to the right go its schema, its rows as `ResultSet`
gives them to a copy, and the outcome of reading them, an error included.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from config.errors import ReplicatorError
from loader.load import selected
from loader.load.reload import raw_bytes_options
from loader.load.tablereader import Fault, RowReader, select_list
from replicator.binlog.resultset import ResultSet
from replicator.binlog.schema import TableSchema, schemas_from_catalog
from replicator.sandbox.databases import MySQLDatabase

ENDING = b"\t2024-01-01 00:00:00+00\t\\N"
NewReader = Callable[[TableSchema, bytes], RowReader]


def schema_of(database: MySQLDatabase, table: str) -> TableSchema:
    with closing(database.connect()) as connection:
        return schemas_from_catalog(connection, database.name, [table])[table]


def blocks_of(
    database: MySQLDatabase, schema: TableSchema, block_bytes: int = 1 << 20, where: str = ""
) -> list[bytes]:
    """A table's rows as a copy reads them."""
    with closing(database.connect(**raw_bytes_options())) as connection:
        with connection.cursor() as cursor:
            for statement in selected.SESSION:
                cursor.execute(statement)
        query = f"SELECT {select_list(schema)} FROM `{schema.name}` {where}"
        with ResultSet(connection, query, block_bytes=block_bytes) as rows:
            return list(rows.blocks())


def outcome(
    reader: NewReader, schema: TableSchema, blocks: list[bytes]
) -> tuple[bytes, list[Fault], int] | list[str]:
    """The text, the faults and the count of rows, or what the error tells."""
    made = reader(schema, ENDING)
    try:
        text = b"".join(map(made.convert, blocks))
    except ReplicatorError as error:
        return [type(error).__name__, str(error)]
    return text, made.take_faults(), made.rows

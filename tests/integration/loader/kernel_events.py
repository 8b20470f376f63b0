"""Rows events of a real server, each with its table map, for tests of the row kernel.

From the left come tables filled on a server; to the right go the events that inserting,
changing and deleting their rows logged, as the server wrote them (v1) and as MySQL would
(v2), and what a decoder makes of one, its error included.
"""

from __future__ import annotations

from config.errors import ReplicatorError
from loader.rows import RowChange, RowDecoder, TablePlan
from replicator.binlog.events import TableMap
from replicator.sandbox.databases import MySQLDatabase
from tests.integration.binlog.logged import Log
from tests.integration.binlog.random_tables import RandomTable

Logged = tuple[TableMap, bytes]
CHANGES = (
    "UPDATE original SET other = other - 1",
    "UPDATE original SET id = id + 7, code = REPLACE(code, 'k', 'z')",
    "DELETE FROM original",
)
"""Of a random table: rows that stay where they are, rows that move, rows that go."""


def events_of(database: MySQLDatabase, table: RandomTable) -> list[Logged]:
    """Make the table, fill it, change its rows and delete them."""
    log = Log(database)
    database.execute("DROP TABLE IF EXISTS original")
    database.execute(f"CREATE TABLE original {table.definition}")
    rows = ",".join(f"({', '.join(row)})" for row in table.rows)
    database.execute(f"INSERT IGNORE INTO original ({', '.join(table.names)}) VALUES {rows}")
    for statement in CHANGES:
        database.execute(statement)
    return log.rows()


def as_v2(event: bytes) -> bytes:
    """A v1 rows event as the v2 event that says the same."""
    if event[4] >= 30:
        return event
    return event[:4] + bytes([event[4] + 7]) + event[5:27] + b"\x02\x00" + event[27:]


def outcome(decoder: RowDecoder, event: bytes, plan: TablePlan) -> list[RowChange] | list[str]:
    """The changes, or what the error tells."""
    try:
        return decoder.decode(event, plan)
    except ReplicatorError as error:
        return [type(error).__name__, str(error), error.hint]

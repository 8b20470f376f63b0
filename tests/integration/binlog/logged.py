"""What a test needs to read a real server's binlog and to write through BINLOG.

From the left comes a database on a running server; to the right go the events
that its server logged since a mark, rows as the first copy reads them, and a
way to apply events.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import closing

import pymysql
from pymysql.cursors import Cursor

from replicator.binlog.catalog import CatalogTable, read_catalog
from replicator.binlog.events import (
    ROWS_EVENTS,
    EventType,
    TableMap,
    format_description_without_checksums,
    parse_table_map,
    table_id_of,
)
from replicator.binlog.rowimage import RowImageEncoder, TableLayout, build_table_map
from replicator.sandbox.databases import MySQLDatabase
from replicator.session import RAW_SESSION

_MAGIC = 4
_CHECKSUM = 4


class Log:
    """A database's server's binlog, read from its file."""

    def __init__(self, database: MySQLDatabase) -> None:
        self.database = database
        self.mark()

    def mark(self) -> None:
        """Later events only."""
        self.file, self.at = self.database.binlog_end()

    def events(self) -> list[bytes]:
        """Events since the mark, without checksums."""
        with (self.database.server.data / self.file).open("rb") as file:
            file.seek(self.at)
            data = file.read()
        found = []
        while data:
            length = int.from_bytes(data[9:13], "little")
            found.append(data[: length - _CHECKSUM])
            data = data[length:]
        return found

    def rows(self) -> list[tuple[TableMap, bytes]]:
        """Rows events since the mark in this database, each with its table map."""
        maps: dict[int, TableMap] = {}
        found = []
        for event in self.events():
            if event[4] == EventType.TABLE_MAP:
                mariadb = not self.database.server.installation.is_mysql
                maps[table_id_of(event)] = parse_table_map(event, mariadb=mariadb)
            elif event[4] in ROWS_EVENTS:
                table_map = maps[table_id_of(event)]
                if table_map.database == self.database.name:
                    found.append((table_map, event))
        return found

    def format_description(self) -> bytes:
        return format_description_without_checksums(self.own_description())

    def own_description(self) -> bytes:
        """The FORMAT_DESCRIPTION event as a stream hands it over."""
        with (self.database.server.data / self.file).open("rb") as file:
            file.seek(_MAGIC)
            data = file.read(4096)
        length = int.from_bytes(data[9:13], "little")
        return data[: length - _CHECKSUM]


def catalog_of(database: MySQLDatabase, table: str) -> CatalogTable:
    with closing(database.connect()) as connection:
        return read_catalog(connection, database.name, [table])[table]


def raw_connection(database: MySQLDatabase) -> pymysql.Connection[Cursor]:
    """A session that hands over what is stored: bytes of every column, unconverted."""
    connection = database.connect(use_unicode=False, conv={})
    with connection.cursor() as cursor:
        for statement in RAW_SESSION:
            cursor.execute(statement)
    return connection


def raw_rows(
    database: MySQLDatabase, table: str, expressions: Sequence[str]
) -> list[tuple[bytes | None, ...]]:
    with closing(raw_connection(database)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(expressions)} FROM `{table}` ORDER BY 1")
        return list(cursor.fetchall())


def apply(database: MySQLDatabase, *events: bytes) -> None:
    """Send events through BINLOG, the server's own format description before them."""
    first = base64.b64encode(Log(database).format_description()).decode()
    mysql = database.server.installation.is_mysql
    text = base64.b64encode(b"".join(map(as_v2, events) if mysql else events)).decode()
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"BINLOG '{first}'")
        if mysql:
            cursor.execute("SET SESSION gtid_next = 'AUTOMATIC'")
        cursor.execute(f"BINLOG '{text}'")


def as_v2(event: bytes) -> bytes:
    """A rows event of version 1 as MySQL takes it; any other event as it is."""
    if not EventType.WRITE_ROWS_V1 <= event[4] <= EventType.DELETE_ROWS_V1:
        return event
    length = (len(event) + 2).to_bytes(4, "little")
    kind = bytes([event[4] + EventType.WRITE_ROWS - EventType.WRITE_ROWS_V1])
    return event[:4] + kind + event[5:9] + length + event[13:27] + b"\2\0" + event[27:]


def copy_rows(database: MySQLDatabase, source: str, target: str) -> list[bytes]:
    """Copy a table's rows as the first copy does; the images that were made."""
    encoder = RowImageEncoder(TableLayout.of(catalog_of(database, target)))
    rows = raw_rows(database, source, encoder.select_list)
    apply(
        database,
        build_table_map(77, database.name, encoder.layout),
        encoder.rows_event(77, rows),
    )
    return [encoder.encode(row) for row in rows]


def differences(database: MySQLDatabase, one: str, other: str) -> list[str]:
    """Columns in which two tables differ by the server's own account; 'checksum' for any."""
    catalog = catalog_of(database, one)
    encoder = RowImageEncoder(TableLayout.of(catalog))
    checksums = database.query(f"CHECKSUM TABLE `{one}`, `{other}` EXTENDED")
    found = [] if checksums[0][1] == checksums[1][1] else ["checksum"]
    shown = [f"`{catalog.columns[0].name}`"]
    for column, expression in zip(catalog.columns, encoder.select_list, strict=True):
        shown += [expression, f"`{column.name}`", f"HEX(`{column.name}`)"]
    for left, right in zip(
        raw_rows(database, one, shown), raw_rows(database, other, shown), strict=True
    ):
        found += [shown[at] for at, value in enumerate(left) if value != right[at]]
    return found

"""What the loader asks the replica, and the one thing that it writes there.

Left: leg 1's tracking tables and the binlog's end, read on plain connections.
Right: values for the daemon and the reload. The only write is the end of a
resync request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pymysql

from config.connections import MySQLConnection, quote_mysql_identifier
from config.errors import ConfigError
from replicator.binlog.position import ReplicaPosition, SourcePosition

OFFSET_TABLE, STATUS_TABLE, REQUEST_TABLE = (
    "etl_binlog_offset",
    "etl_extract_status",
    "etl_resync_request",
)
NOTICE_TABLES = frozenset({OFFSET_TABLE, STATUS_TABLE, REQUEST_TABLE})
MAIN_STREAM = "main"

_MISSING = (1049, 1146)
_SYNTAX = 1064


@dataclass(frozen=True, slots=True)
class SourceMark:
    """What leg 1's offset row says: the source position applied, and its commit time (UTC)."""

    position: SourcePosition
    source_ts: str | None
    applied_at: str | None = None
    """When leg 1 sent it to the replica, by its own host's clock (UTC); None where not told."""


def mark_from(row: Mapping[str, str | None]) -> SourceMark | None:
    """The mark in an offset row; None when it belongs to another stream."""
    file, offset = row.get("binlog_file"), row.get("binlog_position")
    if row.get("stream") != MAIN_STREAM or file is None or offset is None:
        return None
    stamp = row.get("event_timestamp")
    # MariaDB knows whole seconds; without its fraction PostgreSQL reads the stamp twice as fast,
    # which is a sixth of all that a narrow row costs it.
    when = f"{stamp.removesuffix('.000000')}+00" if stamp else None
    return SourceMark(SourcePosition(file, int(offset)), when, row.get("updated_at"))


def binlog_end(connection: MySQLConnection) -> ReplicaPosition:
    """Where the replica's binlog ends now."""
    with connection.cursor() as cursor:
        try:
            cursor.execute("SHOW MASTER STATUS")
        except pymysql.err.ProgrammingError as error:
            if error.args[0] != _SYNTAX:
                raise
            cursor.execute("SHOW BINARY LOG STATUS")
        row = cursor.fetchone()
    if row is None:
        raise ConfigError(
            "the replica writes no binlog",
            hint="Start it with log_bin, binlog_format=ROW, binlog_row_image=FULL and"
            " binlog_row_metadata=FULL (config/replica.cnf).",
        )
    return ReplicaPosition(_text(row[0]), int(row[1]))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


_SETTINGS = {
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_row_metadata": "FULL",
}


def check_settings(connection: MySQLConnection) -> int:
    """Check that the replica's binlog says all we need; return its server id."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.server_id")
        row = cursor.fetchone()
        for variable, wanted in _SETTINGS.items():
            cursor.execute("SHOW GLOBAL VARIABLES LIKE %s", (variable,))
            found = cursor.fetchone()
            value = _text(found[1]) if found else "not there"
            if value.upper() != wanted:
                raise ConfigError(
                    f"the replica's {variable} is {value}; it must be {wanted}",
                    hint=f"On the replica: SET GLOBAL {variable} = '{wanted}'; and"
                    f" {variable}={wanted} in its my.cnf, then restart replicator.",
                )
    return int(row[0]) if row else 0


def read_mark(connection: MySQLConnection, database: str) -> SourceMark | None:
    """Leg 1's offset row as this connection's snapshot shows it; None before leg 1 ever ran."""
    table = f"{quote_mysql_identifier(database)}.{OFFSET_TABLE}"
    names = ("stream", "binlog_file", "binlog_position", "event_timestamp")
    rows = _rows(connection, f"SELECT {', '.join(names)} FROM {table} WHERE stream = 'main'")
    if not rows:
        return None
    values = [None if value is None else _text(value) for value in rows[-1]]
    return mark_from(dict(zip(names, values, strict=True)))


def streaming_tables(connection: MySQLConnection, database: str) -> set[str]:
    """Tables that leg 1 has copied and now streams."""
    table = f"{quote_mysql_identifier(database)}.{STATUS_TABLE}"
    rows = _rows(
        connection, f"SELECT table_name FROM {table} WHERE extraction_status = 'streaming'"
    )
    return {_text(name) for (name,) in rows}


def unfinished_tables(connection: MySQLConnection, database: str) -> set[str]:
    """Tables that leg 1 knows and does not stream: it copies them, or will."""
    table = f"{quote_mysql_identifier(database)}.{STATUS_TABLE}"
    rows = _rows(
        connection, f"SELECT table_name FROM {table} WHERE extraction_status <> 'streaming'"
    )
    return {_text(name) for (name,) in rows}


def copied_tables(connection: MySQLConnection, database: str) -> set[str]:
    """Tables that leg 1 copies anew: what it writes to them is not whole yet."""
    table = f"{quote_mysql_identifier(database)}.{STATUS_TABLE}"
    rows = _rows(
        connection,
        f"SELECT table_name FROM {table} WHERE extraction_status IN ('copying', 'reconciling')",
    )
    return {_text(name) for (name,) in rows}


def loading_requests(connection: MySQLConnection, database: str) -> dict[int, str]:
    """Resync requests that wait for the loader: id to table."""
    table = f"{quote_mysql_identifier(database)}.{REQUEST_TABLE}"
    rows = _rows(connection, f"SELECT id, table_name FROM {table} WHERE state = 'loading'")
    return {int(_text(number)): _text(name) for number, name in rows}


def finish_requests(connection: MySQLConnection, database: str, requests: list[int]) -> None:
    """Mark resync requests as done."""
    table = f"{quote_mysql_identifier(database)}.{REQUEST_TABLE}".replace("%", "%%")
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET state = 'done', updated_at = UTC_TIMESTAMP(6)"
            " WHERE state = 'loading' AND id IN %s",
            (tuple(requests),),
        )


def _rows(connection: MySQLConnection, query: str) -> list[tuple[object, ...]]:
    """The rows of a query on a tracking table; none where leg 1 has not made it yet."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())
    except pymysql.err.MySQLError as error:
        if error.args[0] in _MISSING:
            return []
        raise

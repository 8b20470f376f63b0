"""What leg 1 asks the source, beside its binlog: identity, position, definitions.

Left: a read-only connection. Right: plain values. Nothing here writes or locks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pymysql
from pymysql.cursors import DictCursor

from config.connections import quote_mysql_identifier as quote
from config.errors import ConfigError, CopyRefused
from replicator.binlog.catalog import CatalogTable
from replicator.binlog.position import SourcePosition
from replicator.tracking import execute, fetch

_TELLS_JSON_KINDS = 80014
_NO_TABLE = (1146, 1356)
"""There is none; there is a view, of something that is not there."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which server this is."""

    server_id: int
    uuid: str
    version: str

    @property
    def mariadb(self) -> bool:
        """Is it of the MariaDB family?"""
        return "mariadb" in self.version.lower()

    @property
    def family(self) -> str:
        """Its family as people spell it."""
        return "MariaDB" if self.mariadb else "MySQL"

    @property
    def series(self) -> tuple[int, int]:
        """The release series: (10, 11) of 10.11.19."""
        return self.number // 10000, self.number // 100 % 100

    @property
    def number(self) -> int:
        """The version as versioned comments count it: 101119 for 10.11.19, 90704 for 9.7.4."""
        parts = [*self.version.split("-")[0].split("."), "0", "0"][:3]
        major, minor, patch = (int("".join(filter(str.isdigit, p)) or 0) for p in parts)
        return major * 10000 + minor * 100 + patch


def identify(connection: Any) -> Identity:
    """Read a server's identity; MariaDB has no uuid, so its is empty."""
    server_id, version = fetch(connection, "SELECT @@server_id, VERSION()")[0]
    uuid = "" if "mariadb" in version.lower() else fetch(connection, "SELECT @@server_uuid")[0][0]
    return Identity(int(server_id), str(uuid), str(version))


def current_position(connection: Any, identity: Identity) -> SourcePosition:
    """The end of the source's binlog now."""
    new_words = not identity.mariadb and identity.number >= 80200
    rows = fetch(connection, "SHOW BINARY LOG STATUS" if new_words else "SHOW MASTER STATUS")
    if not rows:
        raise ConfigError(
            "the source writes no binlog",
            hint="Add to the source's my.cnf, section [mysqld], and restart it:"
            " log_bin=mysql-bin, binlog_format=ROW, binlog_row_image=FULL,"
            f" server_id={identity.server_id or 1}, binlog_expire_logs_seconds=604800",
        )
    return SourcePosition(rows[0][0], int(rows[0][1]))


def binlog_files(connection: Any) -> list[str]:
    """The binlog files that the source still has, the oldest first."""
    return [str(row[0]) for row in fetch(connection, "SHOW BINARY LOGS")]


def require_row_format(connection: Any) -> None:
    """`ConfigError` where the source would log changes as statements.

    Whole rows or parts of them (`binlog_row_image`) are the same to us: each event says which.
    """
    values = dict(
        fetch(
            connection,
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format')",
        )
    )
    faults = []
    if values.get("log_bin", "OFF").upper() not in ("ON", "1"):
        faults.append("log_bin is OFF (add log_bin=mysql-bin)")
    if values.get("binlog_format", "ROW").upper() != "ROW":
        faults.append(f"binlog_format is {values['binlog_format']} (set binlog_format=ROW)")
    if faults:
        raise ConfigError(
            "the source does not log rows: " + "; ".join(faults),
            hint="Put these lines into the source's my.cnf, section [mysqld], and restart it.",
        )


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A base table of the source as its catalog describes it."""

    name: str
    engine: str
    rows: int
    average_row_bytes: int

    @property
    def transactional(self) -> bool:
        """Does a consistent snapshot hold for it?"""
        return self.engine.lower() == "innodb"


def base_tables(connection: Any, database: str) -> list[SourceTable]:
    """All base tables of the database; row counts are the engine's estimates."""
    return [
        SourceTable(name, engine or "", int(rows or 0), int(width or 0))
        for name, engine, rows, width in fetch(
            connection,
            "SELECT table_name, engine, table_rows, avg_row_length FROM information_schema.tables"
            " WHERE table_schema=%s AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
            " ORDER BY table_name",
            [database],
        )
    ]


def base_table(connection: Any, database: str, table: str) -> SourceTable | None:
    """One base table of the connection's database; None where there is none.

    In the midst of an ALTER or a RENAME the catalog may lack a table that is there before and
    after. Who reads from it waits for such a change to end, and it ends when it is in the binlog.
    """
    found = _listed(connection, database, table)
    if found is not None:
        return found
    try:
        execute(connection, "BEGIN")
        fetch(connection, f"SELECT 1 FROM {quote(table)} LIMIT 0")
        return _listed(connection, database, table)
    except pymysql.MySQLError as error:
        if error.args[0] not in _NO_TABLE:
            raise
        return None
    finally:
        execute(connection, "ROLLBACK")


def _listed(connection: Any, database: str, table: str) -> SourceTable | None:
    return next((t for t in base_tables(connection, database) if t.name == table), None)


def create_statement(connection: Any, table: str) -> str:
    """The table's own CREATE TABLE."""
    return str(fetch(connection, f"SHOW CREATE TABLE {quote(table)}")[0][1])


_BEYOND_UTF8MB3 = ("utf8mb4", "utf16", "utf16le", "utf32", "gb18030")


def require_whole_definition(connection: Any, table: str, create: str) -> None:
    """`CopyRefused` where `create` lacks characters that the table's values are made of.

    SHOW CREATE TABLE and the catalog are in utf8mb3: of a character beyond it, in a member of
    ENUM or SET or in what a generated column is made from, they show question marks, and so
    the replica's column would have them. The rows tell a member of such a character from a
    question mark; MySQL shows a character of an expression as four of them.
    """
    if "?" not in create:
        return
    for column in _columns(connection, table):
        name = column["COLUMN_NAME"]
        made = "????" in create and "GENERATED" in column["EXTRA"].upper()
        listed = (
            column["DATA_TYPE"] in ("enum", "set")
            and column["CHARACTER_SET_NAME"] in _BEYOND_UTF8MB3
            and "?" in column["COLUMN_TYPE"]
        )
        if made or (listed and _has_rows_beyond(connection, table, name)):
            raise CopyRefused(
                f"column {table}.{name} is defined with characters beyond utf8mb3, which the"
                " source's SHOW CREATE TABLE does not tell",
                hint="On the source: define the column without them (an ENUM as a VARCHAR), or"
                f' exclude "{table}" in tables.toml.',
            )


def _columns(connection: Any, table: str) -> list[dict[str, Any]]:
    with connection.cursor(DictCursor) as cursor:
        cursor.execute(
            "SELECT * FROM information_schema.columns WHERE table_schema = DATABASE()"
            " AND table_name = %s",
            [table],
        )
        return [{key.upper(): value for key, value in row.items()} for row in cursor.fetchall()]


def _has_rows_beyond(connection: Any, table: str, column: str) -> bool:
    text = f"CONVERT({quote(column)} USING utf8mb4)"
    shown = f"CONVERT(CONVERT({text} USING utf8mb3) USING utf8mb4)"
    differ = f"CAST({text} AS BINARY) <> CAST({shown} AS BINARY)"
    return bool(fetch(connection, f"SELECT 1 FROM {quote(table)} WHERE {differ} LIMIT 1"))


def has_foreign_key(create: str) -> bool:
    """Does a table's CREATE TABLE refer to another table?"""
    return "FOREIGN KEY" in create.upper() and " REFERENCES " in create.upper()


def require_readable(identity: Identity, table: str, catalog: CatalogTable) -> None:
    """`CopyRefused` where the source cannot tell the values of the table's columns exactly.

    JSON alone needs more than a SELECT: JSON_TABLE over a column of the row (`jsonencoding`).
    """
    json = [column.name for column in catalog.columns if column.data_type == "json"]
    if json and not identity.mariadb and identity.number < _TELLS_JSON_KINDS:
        raise CopyRefused(
            f"column {table}.{json[0]} is JSON, whose exact values the source"
            f" ({identity.version}) cannot tell: that takes MySQL 8.0.14 or newer",
            hint=f'Upgrade the source, or exclude "{table}" in tables.toml.',
        )

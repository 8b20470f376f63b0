"""What the doctor reads: one look at each server, as plain values.

Left: connections of the two legs' own accounts, since their privileges are what
counts. Right: `MySQLFacts` and `PostgresFacts`. Only catalogs are read, never rows,
but for OpenDental's version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

import pymysql

from config.connections import PostgresConnection
from config.connections import quote_mysql_identifier as quote
from replicator import source as src
from replicator.tracking import fetch, utc_now

_GRANT = re.compile(r"^GRANT (?P<words>.+?) ON (?P<scope>\S+|`.*`\.\S+) TO ", re.IGNORECASE)
_COLUMNS = re.compile(r"\([^)]*\)")


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A base table: its engine, size in bytes, and whether it has a primary key."""

    name: str
    engine: str
    bytes: int
    has_key: bool
    has_foreign_key: bool


@dataclass(frozen=True, slots=True)
class MySQLFacts:
    """A server of the MySQL family as one account sees it."""

    identity: src.Identity
    account: str
    variables: Mapping[str, str]
    grants: Mapping[str, frozenset[str]]
    """Scope as the server writes it, such as *.*: the privileges held on it, upper case."""
    skew_seconds: float
    encrypted: bool
    databases: tuple[str, ...]
    tables: tuple[TableFacts, ...] = ()
    opendental_version: str | None = None
    binlog_bytes: int = 0

    def variable(self, name: str) -> str:
        """A global variable's value, upper case; empty where the server has none of the name."""
        return self.variables.get(name, "").upper()

    def holds(self, privilege: str, database: str | None = None) -> bool:
        """Has the account this privilege, everywhere or on `database`?"""
        scopes = ["*.*"]
        if database is not None:
            scopes += [s for s in self.grants if _database_of(s) == database]
        return any(self.grants.get(s, frozenset()) & {privilege, "ALL PRIVILEGES"} for s in scopes)

    def held(self) -> set[str]:
        """All privileges that the account holds anywhere."""
        return set().union(*self.grants.values()) if self.grants else set()


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """The analytics server as the loader's account sees it."""

    version: int
    account: str
    encoding: str
    may_create_schema: bool
    schema_exists: bool
    may_create_in_schema: bool
    superuser: bool
    encrypted: bool
    read_only: bool
    skew_seconds: float
    settings: Mapping[str, str] = field(default_factory=dict)


def read_mysql(connection: Any, database: str, *, with_tables: bool) -> MySQLFacts:
    """Look at a server; `with_tables`, at the database's tables as well."""
    here = utc_now()
    there = fetch(connection, "SELECT UTC_TIMESTAMP(6), CURRENT_USER()")[0]
    cipher = fetch(connection, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    databases = tuple(str(row[0]) for row in fetch(connection, "SHOW DATABASES"))
    wanted = with_tables and database in databases
    return MySQLFacts(
        identity=src.identify(connection),
        account=_quoted_account(str(there[1])),
        variables=dict(fetch(connection, "SHOW GLOBAL VARIABLES")),
        grants=parse_grants(str(row[0]) for row in fetch(connection, "SHOW GRANTS")),
        skew_seconds=_skew(there[0], here),
        encrypted=bool(cipher and cipher[0][1]),
        databases=databases,
        tables=_tables(connection, database) if wanted else (),
        opendental_version=_opendental_version(connection, database) if wanted else None,
        binlog_bytes=_binlog_bytes(connection),
    )


def parse_grants(lines: Any) -> dict[str, frozenset[str]]:
    """SHOW GRANTS as scope → privileges; grants on columns count for their table. Pure."""
    found: dict[str, frozenset[str]] = {}
    for line in lines:
        match = _GRANT.match(line)
        if match:
            words = _COLUMNS.sub("", match["words"]).upper().split(",")
            scope = match["scope"]
            found[scope] = found.get(scope, frozenset()) | {word.strip() for word in words}
    return found


def _database_of(scope: str) -> str | None:
    """The database that a scope such as `open\\_dental`.* names."""
    match = re.match(r"^`((?:[^`]|``)+)`\.\*$", scope)
    return re.sub(r"\\([_%\\])", r"\1", match[1].replace("``", "`")) if match else None


def _quoted_account(account: str) -> str:
    user, _, host = account.rpartition("@")
    return f"'{user}'@'{host}'"


def _skew(there: datetime, here: datetime) -> float:
    return (there - here).total_seconds()


def _tables(connection: Any, database: str) -> tuple[TableFacts, ...]:
    """Constraints are hidden from an account that may only read; columns and DDL are not."""
    keyed = {
        row[0]
        for row in fetch(
            connection,
            "SELECT DISTINCT table_name FROM information_schema.columns"
            " WHERE table_schema = %s AND column_key = 'PRI'",
            [database],
        )
    }
    rows = fetch(
        connection,
        "SELECT table_name, engine, COALESCE(data_length + index_length, 0)"
        " FROM information_schema.tables WHERE table_schema = %s"
        " AND table_type = 'BASE TABLE' ORDER BY table_name",
        [database],
    )
    return tuple(
        TableFacts(
            name, engine or "", int(size), name in keyed, _refers(connection, database, name)
        )
        for name, engine, size in rows
    )


def _refers(connection: Any, database: str, table: str) -> bool:
    try:
        create = fetch(connection, f"SHOW CREATE TABLE {quote(database)}.{quote(table)}")[0][1]
    except pymysql.MySQLError:
        return False  # unreadable or gone: not what this look is about
    return src.has_foreign_key(create)


def _opendental_version(connection: Any, database: str) -> str | None:
    try:
        rows = fetch(
            connection,
            f"SELECT ValueString FROM {quote(database)}.preference"
            " WHERE PrefName = 'ProgramVersion'",
        )
    except pymysql.MySQLError:
        return None
    return str(rows[0][0]) if rows else None


def _binlog_bytes(connection: Any) -> int:
    try:
        return sum(int(row[1]) for row in fetch(connection, "SHOW BINARY LOGS"))
    except pymysql.MySQLError:
        return 0


def read_postgres(connection: PostgresConnection, schema: str) -> PostgresFacts:
    """Look at the analytics server; the transaction that this opens is left to the caller."""
    here = utc_now()
    row = connection.execute(
        "SELECT current_setting('server_version_num')::int, current_user::text,"
        " pg_encoding_to_char(d.encoding), has_database_privilege(d.oid, 'CREATE'),"
        " n.oid IS NOT NULL, COALESCE(has_schema_privilege(n.oid, 'CREATE'), false),"
        " r.rolsuper, COALESCE(s.ssl, false),"
        " current_setting('transaction_read_only') = 'on', clock_timestamp() AT TIME ZONE 'UTC'"
        " FROM pg_database d JOIN pg_roles r ON r.rolname = current_user"
        " LEFT JOIN pg_namespace n ON n.nspname = %s"
        " LEFT JOIN pg_stat_ssl s ON s.pid = pg_backend_pid()"
        " WHERE d.datname = current_database()",
        [schema],
    ).fetchone()
    assert row is not None
    wanted = connection.execute(
        "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes')"
    )
    names = [field.name for field in fields(PostgresFacts)[:9]]
    return PostgresFacts(
        **dict(zip(names, row, strict=False)),
        skew_seconds=_skew(row[9], here),
        settings=dict(wanted.fetchall()),
    )

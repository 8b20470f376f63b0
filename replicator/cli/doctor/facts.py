"""What the doctor reads: one look at each server, as plain values.

Left: connections of the two legs' own accounts, since their privileges are what
counts. Right: `MySQLFacts`; PostgreSQL's are in `facts_analytics`. Only catalogs are
read, never rows, but for OpenDental's version.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pymysql

from config.connections import quote_mysql_identifier as quote
from config.errors import ReplicatorError
from replicator import source as src
from replicator.cli.doctor.held import Grants, Held, read_held
from replicator.tracking import fetch, utc_now

Began = Callable[[str], int]
"""The second in which a server began the binlog file of that name."""

_DATABASE = re.compile(r"^`((?:[^`]|``)+)`\.\*$")
_FOREIGN_KEY = re.compile(r"CONSTRAINT `((?:[^`]|``)+)` FOREIGN KEY")
_PREFERENCES = ("ProgramVersion", "DataBaseVersion", "UpdateInProgressOnComputerName")


_KNOWN_COLLATIONS = "SELECT * FROM information_schema.collation_character_set_applicability"
"""A collation, its character set, and on MariaDB from 10.10 on the name that has both."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A base table: its engine, size in bytes, and whether it has a primary key.

    `columns`: names to types, as information_schema has them (data_type).
    """

    name: str
    engine: str
    bytes: int
    has_key: bool
    has_foreign_key: bool
    foreign_keys: tuple[str, ...] = ()
    """The names of its foreign key constraints."""
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenDental:
    """What OpenDental says of itself in table preference."""

    program: str
    database: str = ""
    updating: bool = False
    """Does it say that an update is under way?"""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where leg 1 stands in the source's binlog, as its offset row tells."""

    file: str
    age_seconds: float | None
    """How old the source's newest applied change is; None where there was none yet."""


@dataclass(frozen=True, slots=True)
class MySQLFacts:
    """A server of the MySQL family as one account sees it."""

    identity: src.Identity
    account: str
    variables: Mapping[str, str]
    held: Held
    skew_seconds: float
    encrypted: bool
    databases: tuple[str, ...]
    tables: tuple[TableFacts, ...] = ()
    opendental: OpenDental | None = None
    binlog_files: tuple[str, ...] = ()
    binlog_bytes: int = 0
    binlog_age_seconds: float | None = None
    """How long ago the oldest of its binlog files was begun."""
    disk_free_bytes: int | None = None
    """Where its data lies; None where that cannot be seen from here."""
    collations: frozenset[str] = frozenset()
    """Those that its tables use; of a replica: all that the server knows."""
    standing: Standing | None = None

    def variable(self, name: str) -> str:
        """A global variable's value, upper case; empty where the server has none of the name."""
        return self.variables.get(name, "").upper()

    def holds(self, privilege: str, database: str | None = None) -> bool:
        """Has the account this privilege, everywhere or on `database`?"""
        return self._among(self.held.active, privilege, database)

    def might_hold(self, privilege: str, database: str | None = None) -> bool:
        """Would it have the privilege if all its roles were active?"""
        return self._among(self.held.all(), privilege, database)

    def _among(self, held: Grants, privilege: str, database: str | None) -> bool:
        scopes = ["*.*"]
        if database is not None:
            scopes += [s for s in held if self.names(s) == database]
        return any(held.get(s, frozenset()) & {privilege, "ALL PRIVILEGES"} for s in scopes)

    @staticmethod
    def names(scope: str) -> str | None:
        """The database that a scope such as `open\\_dental`.* names; None for any other scope."""
        match = _DATABASE.match(scope)
        return re.sub(r"\\([_%\\])", r"\1", match[1].replace("``", "`")) if match else None


def read_source(
    connection: Any, database: str, *, here: bool = False, began: Began | None = None
) -> MySQLFacts:
    """Look at the source. `here`: it runs on this machine, where its disk can be looked at."""
    facts = _read(connection, here=here, began=began)
    if database not in facts.databases:
        return facts
    return replace(
        facts,
        tables=_tables(connection, database),
        opendental=_opendental(connection, database),
        collations=_collations(connection, database),
    )


def read_replica(
    connection: Any, database: str, *, here: bool = False, began: Began | None = None
) -> MySQLFacts:
    """Look at the replica's server, and at what leg 1 has left there."""
    facts = _read(connection, here=here, began=began)
    known = fetch(connection, _KNOWN_COLLATIONS)
    there = database in facts.databases
    return replace(
        facts,
        tables=_tables(connection, database) if there else (),
        standing=_standing(connection, database) if there else None,
        collations=frozenset(str(name) for row in known for name in row[:3] if name),
    )


def _read(connection: Any, *, here: bool, began: Began | None) -> MySQLFacts:
    now = utc_now()
    there = fetch(connection, "SELECT UTC_TIMESTAMP(6), CURRENT_USER()")[0]
    cipher = fetch(connection, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    identity, variables = src.identify(connection), dict(fetch(connection, "SHOW GLOBAL VARIABLES"))
    files = _binlog_files(connection)
    return MySQLFacts(
        identity=identity,
        account=_quoted_account(str(there[1])),
        variables=variables,
        held=read_held(connection, mariadb=identity.mariadb),
        skew_seconds=skew(there[0], now),
        encrypted=bool(cipher and cipher[0][1]),
        databases=tuple(str(row[0]) for row in fetch(connection, "SHOW DATABASES")),
        binlog_files=tuple(files),
        binlog_bytes=sum(files.values()),
        binlog_age_seconds=_age_of(next(iter(files)), began, there[0]) if files and began else None,
        disk_free_bytes=free_bytes(variables.get("datadir", "")) if here else None,
    )


def _quoted_account(account: str) -> str:
    user, _, host = account.rpartition("@")
    return f"'{user}'@'{host}'"


def skew(there: datetime, here: datetime) -> float:
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
    columns: dict[str, dict[str, str]] = {}
    for name, column, kind in fetch(
        connection,
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = %s ORDER BY table_name, ordinal_position",
        [database],
    ):
        columns.setdefault(name, {})[column] = str(kind).lower()
    rows = fetch(
        connection,
        "SELECT table_name, engine, COALESCE(data_length + index_length, 0)"
        " FROM information_schema.tables WHERE table_schema = %s"
        " AND table_type = 'BASE TABLE' ORDER BY table_name",
        [database],
    )
    found = []
    for name, engine, size in rows:
        create = _create_statement(connection, database, name)
        refers, constraints = src.has_foreign_key(create), tuple(_FOREIGN_KEY.findall(create))
        found.append(
            TableFacts(
                name,
                engine or "",
                int(size),
                name in keyed,
                refers,
                constraints,
                columns.get(name, {}),
            )
        )
    return tuple(found)


def _create_statement(connection: Any, database: str, table: str) -> str:
    try:
        rows = fetch(connection, f"SHOW CREATE TABLE {quote(database)}.{quote(table)}")
    except pymysql.MySQLError:
        return ""  # unreadable or gone: not what this look is about
    return str(rows[0][1])


def _opendental(connection: Any, database: str) -> OpenDental | None:
    """Only these three preferences are read; the third names a computer, which is not told."""
    try:
        found = dict(
            fetch(
                connection,
                f"SELECT PrefName, ValueString FROM {quote(database)}.preference"
                " WHERE PrefName IN (%s, %s, %s)",
                _PREFERENCES,
            )
        )
    except pymysql.MySQLError:
        return None
    program, version, updating = (str(found.get(name) or "").strip() for name in _PREFERENCES)
    return OpenDental(program, version, bool(updating)) if program else None


def _collations(connection: Any, database: str) -> frozenset[str]:
    """What the database, its tables and their columns are sorted by."""
    rows = fetch(
        connection,
        "SELECT collation_name FROM information_schema.columns WHERE table_schema = %s"
        " UNION SELECT table_collation FROM information_schema.tables WHERE table_schema = %s"
        " UNION SELECT default_collation_name FROM information_schema.schemata"
        " WHERE schema_name = %s",
        [database] * 3,
    )
    return frozenset(str(row[0]) for row in rows if row[0])


def _standing(connection: Any, database: str) -> Standing | None:
    try:
        rows = fetch(
            connection,
            "SELECT binlog_file, TIMESTAMPDIFF(MICROSECOND, event_timestamp, UTC_TIMESTAMP(6))"
            f" FROM {quote(database)}.etl_binlog_offset WHERE stream = 'main'",
        )
    except pymysql.MySQLError:
        return None  # leg 1 was never here
    if not rows:
        return None
    return Standing(str(rows[0][0]), None if rows[0][1] is None else int(rows[0][1]) / 1e6)


def _binlog_files(connection: Any) -> dict[str, int]:
    try:
        return {str(row[0]): int(row[1]) for row in fetch(connection, "SHOW BINARY LOGS")}
    except pymysql.MySQLError:
        return {}


def _age_of(file: str, began: Began, now: datetime) -> float | None:
    try:
        return (now - datetime(1970, 1, 1)).total_seconds() - began(file)
    except (pymysql.MySQLError, ReplicatorError):
        return None  # may not be read: another finding says so


def free_bytes(directory: str) -> int | None:
    try:
        found = os.statvfs(directory)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize

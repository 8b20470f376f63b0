"""The replica's server as leg 1 uses it: its sessions, its database, its lock.

Left: settings. Right: connections in one neutral session state, to a database
that exists and has the tracking tables.

Never two writers: the main connection holds the lock that keeps a second replicator out; the
lock dies with the connection, and outlives a killed process for as long as the server still
works on its last statement. But copies and swaps are written on other connections, which may
outlive the main one. So each of those holds a lock of its own, a *place*: first it takes the
place, then it looks whether the main lock is still ours. Whoever takes the main lock afterwards
finds the place taken, and waits until no place is. A process that was asleep meanwhile wakes up
with connections that are closed, or with a lock that nobody else has.

A host that vanishes leaves its sessions behind, and the server may not learn of it for hours. But
a main connection is never left alone for long: it looks for requests, and a first copy pings it.
So whoever wants its lock and finds that it has said nothing for SILENT_SECONDS ends it (KILL, which
an account may do to its own), and then the places of which that is true. Were it a process that
slept so long, it would find its connections closed, as ever.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

import pymysql
import structlog

from config.connections import connect_mysql, quote_mysql_identifier
from config.errors import AlreadyRunning, ConfigError, ConnectionLost, ServerBusy, translated
from config.settings import MySQLServer, Settings
from replicator import tracking
from replicator.tracking import execute, fetch

log = structlog.get_logger(__name__)

LOCK_PATIENCE = 15
"""Seconds to wait for a lock whose holder may be dying."""
SILENT_SECONDS = 60
"""Whoever holds a lock and has said nothing for so long is gone."""
_NO_SUCH_SESSION = 1094
PLACES = 48
"""Connections beside the main one that may write at the same time: three for each copy worker."""

_NEUTRAL = (
    "SET SESSION sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'",
    "SET SESSION time_zone='+00:00'",
    "SET SESSION foreign_key_checks=0",
    "SET SESSION innodb_strict_mode=OFF",
    # A transaction reads scratch tables that are younger than it; a view as old as it is would
    # not know them (error 1412). Nobody else writes what we read.
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION lock_wait_timeout=3600",
    "SET SESSION wait_timeout=28800",
)


def make_neutral(connection: Any) -> None:
    """The session state that everything but a source's DDL runs in."""
    for statement in _NEUTRAL:
        execute(connection, statement)


def connect(server: MySQLServer) -> Any:
    """A connection whose changes are in the replica's binlog, so that leg 2 sees them."""
    connection = connect_mysql(server, database=server.db)
    with translated(server.label):
        make_neutral(connection)
    return connection


def connect_hidden(server: MySQLServer) -> Any:
    """A connection whose changes leg 2 must not see: copies that are not whole yet."""
    connection = connect(server)
    with translated(server.label):
        execute(connection, "SET SESSION sql_log_bin=0")
    return connection


def prepare_database(settings: Settings, charset: str, collation: str) -> None:
    """Create the replica's database like the source's where it is missing."""
    server = settings.replication
    connection = connect_mysql(server)
    try:
        with translated(server.label):
            known = "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s"
            if not fetch(connection, known, [server.db]):  # LIKE would take its signs for others
                execute(connection, "SET SESSION sql_log_bin=0")  # leg 2 need not follow this
                execute(
                    connection,
                    f"CREATE DATABASE {quote_mysql_identifier(server.db)}"
                    f" CHARACTER SET {charset} COLLATE {collation}",
                )
    finally:
        connection.close()


def take_charset(hidden: Any, main: Any, database: str, charset: str, collation: str) -> None:
    """Give a database that was there already the source's defaults: tables to come name none.

    A session keeps what it knew of its database until it has used another one.
    """
    name = quote_mysql_identifier(database)
    execute(hidden, f"ALTER DATABASE {name} CHARACTER SET {charset} COLLATE {collation}")
    execute(main, "USE information_schema")
    execute(main, f"USE {name}")


def take_lock(connection: Any, database: str, role: str) -> None:
    """Hold the one lock of this role, or raise `AlreadyRunning`."""
    name = lock_name(database, role)
    if _locked(connection, name, LOCK_PATIENCE):
        return
    if not _end_silent(connection, [name]) or not _locked(connection, name, LOCK_PATIENCE):
        raise _already_running(database)


def _locked(connection: Any, name: str, patience: int) -> bool:
    return bool(fetch(connection, "SELECT GET_LOCK(%s, %s)", [name, patience])[0][0] == 1)


def _end_silent(connection: Any, locks: list[str]) -> bool:
    """End the sessions that hold these locks, if all have been silent for long; were there any?

    Of another account's sessions an account sees nothing: those are left alone.
    """
    holders = set(
        fetch(connection, "SELECT " + ", ".join(["IS_USED_LOCK(%s)"] * len(locks)), locks)[0]
    )
    silent = {
        int(session[0]): int(session[5])
        for session in fetch(connection, "SHOW PROCESSLIST")
        if session[4] == "Sleep" and int(session[5] or 0) >= SILENT_SECONDS
    }
    sessions = {int(holder) for holder in holders if holder is not None}
    if not sessions or not sessions <= silent.keys():
        return False
    for session in sessions:
        log.warning("silent_predecessor_ended", session=session, seconds=silent[session])
        try:
            execute(connection, f"KILL {session}")
        except pymysql.OperationalError as error:
            if error.args[0] != _NO_SUCH_SESSION:
                raise
    return True


def _already_running(database: str) -> AlreadyRunning:
    return AlreadyRunning(
        f"another replicator already writes to {database} on the replica",
        hint="Stop it first (systemctl status replicator on every host that may run it);"
        " SHOW PROCESSLIST on the replica names its host.",
    )


def lock_name(database: str, role: str) -> str:
    """The name of a role's lock; servers know 64 characters of one."""
    name = f"opendental-replicator/{role}/{database}"
    if len(name) <= 64:
        return name
    digest = hashlib.sha256(database.encode()).hexdigest()[:16]
    return f"opendental-replicator/{role}/{digest}"


def open_side(server: MySQLServer, main: Any) -> Any:
    """A hidden connection that may write for as long as `main` has the main lock."""
    connection = connect_hidden(server)
    try:
        with translated(server.label):
            _take_place(connection, server.db, int(main.thread_id()))
    except BaseException:
        connection.close()
        raise
    return connection


def _take_place(connection: Any, database: str, main: int) -> None:
    """Hold a place, and only then see that the main lock is still that connection's."""
    for place in _places(database):
        if fetch(connection, "SELECT GET_LOCK(%s, 0)", [place])[0][0] == 1:
            break
    else:
        raise ServerBusy("all places for connections that write to the replica are taken")
    holder = fetch(connection, "SELECT IS_USED_LOCK(%s)", [lock_name(database, "main")])[0][0]
    if holder is None or int(holder) != main:
        raise ConnectionLost("the replica no longer knows this replicator's lock")


def _places(database: str) -> list[str]:
    return [lock_name(database, f"place-{number}") for number in range(PLACES)]


def _await_predecessor(connection: Any, database: str) -> None:
    """Wait until nobody writes who wrote under an earlier holder of the main lock."""
    places = _places(database)
    query = "SELECT COALESCE(" + ", ".join(["IS_USED_LOCK(%s)"] * len(places)) + ")"
    deadline = time.monotonic() + LOCK_PATIENCE
    while fetch(connection, query, places)[0][0] is not None:
        if time.monotonic() > deadline:
            if not _end_silent(connection, places):
                raise _already_running(database)
            deadline = time.monotonic() + LOCK_PATIENCE
        time.sleep(0.2)


def open_main(settings: Settings) -> Any:
    """The connection of the main stream: locked, with tracking tables."""
    connection = connect(settings.replication)
    try:
        with translated(settings.replication.label):
            take_lock(connection, settings.replication.db, "main")
            _await_predecessor(connection, settings.replication.db)
            _require_usable(connection)
            tracking.ensure(connection)
    except BaseException:
        connection.close()
        raise
    return connection


_NEEDED = {
    "log_bin": "ON",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_row_metadata": "FULL",
}
_PATCHES = "binlog_row_value_options"
"""MySQL: PARTIAL_JSON would log changes of documents, and the loader needs them whole."""
_NEW_MOMENTS = "mysql56_temporal_format"
"""MariaDB: without it the replica's tables would get the times of old, which the source's rows
do not fit: TIME, DATETIME and TIMESTAMP are stored otherwise, and so they are logged."""


def _require_usable(connection: Any) -> None:
    """`ConfigError` where leg 2 could not read this server's binlog."""
    names = ", ".join(f"'{name}'" for name in (*_NEEDED, _PATCHES, _NEW_MOMENTS))
    found = dict(fetch(connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})"))
    wrong = [
        f"{name}={found.get(name, 'absent')} (needed: {value})"
        for name, value in _NEEDED.items()
        if found.get(name, "").upper() not in (value, "1" if value == "ON" else value)
    ]
    if found.get(_PATCHES):
        wrong.append(f"{_PATCHES}={found[_PATCHES]} (needed: empty)")
    if found.get(_NEW_MOMENTS, "ON").upper() not in ("ON", "1"):
        wrong.append(f"{_NEW_MOMENTS}={found[_NEW_MOMENTS]} (needed: ON)")
    if wrong:
        raise ConfigError(
            "the replica's server is not set up for the loader: " + "; ".join(wrong),
            hint="Put into the replica's my.cnf, section [mysqld], and restart it: log_bin,"
            " binlog_format=ROW, binlog_row_image=FULL, binlog_row_metadata=FULL;"
            " and no binlog_row_value_options, nor mysql56_temporal_format=OFF",
        )

"""Before leg 1 starts: can it reach both servers, and may it do there what it must?

Left: settings. Right: nothing, or one `ConfigError` with the line to paste. Only
the very start is this strict: a link that breaks later is waited out. So a wrong
host is told to whoever typed it instead of being retried in silence; a service
manager that starts us before the servers types nothing, and there it is waited for.
"""

from __future__ import annotations

from typing import Any

import pymysql

from config.connections import MySQLConnection, connect_mysql
from config.connections import quote_mysql_identifier as quote
from config.errors import ConfigError, ConnectionLost, ServerBusy, translated
from config.settings import MySQLServer, Settings
from replicator import source as src
from replicator.binlog.position import SourcePosition
from replicator.binlog.stream import BinlogStream
from replicator.pair import require_fitting
from replicator.tracking import execute, fetch

_DENIED = frozenset({1044, 1142, 1143, 1227})
_NO_DATABASE = 1049
_ANSWER_SECONDS = 5.0
_OTHER_ID = 0x2000_0000
"""Turns our server id into one that nobody else uses: a second reader of one id ends the first."""


def check(settings: Settings, *, patient: bool = False) -> None:
    """Raise ConfigError for the first thing that would keep leg 1 from working.

    `patient`: a server that cannot be reached will be waited for, as at a machine's start.
    """
    try:
        require_fitting(_check_source(settings), _replica(settings.replication))
    except ConnectionLost as error:
        if not patient:
            raise ConfigError(str(error), error.hint) from None
    except ServerBusy:
        return  # it is there, and will be ready soon: the daemon's own retry sees to that


def _replica(server: MySQLServer) -> src.Identity:
    connection = connect_mysql(server)
    try:
        with translated(server.label):
            return src.identify(connection)
    finally:
        connection.close()


def _check_source(settings: Settings) -> src.Identity:
    server = settings.source
    connection = connect_mysql(server)
    try:
        with translated(server.label):
            src.require_row_format(connection)
            identity = src.identify(connection)
            position = _position(connection, identity, server)
            _enter_database(connection, server)
    finally:
        connection.close()
    _check_stream(settings, position)
    return identity


def _position(
    connection: MySQLConnection, identity: src.Identity, server: MySQLServer
) -> SourcePosition:
    try:
        return src.current_position(connection, identity)
    except pymysql.MySQLError as error:
        word = "BINLOG MONITOR" if identity.mariadb else "REPLICATION CLIENT"
        raise _denied(connection, server, error, word, "*.*") or error from None


def _enter_database(connection: MySQLConnection, server: MySQLServer) -> None:
    database = quote(server.db)
    try:
        execute(connection, f"USE {database}")
        for table, _kind in fetch(connection, "SHOW FULL TABLES WHERE Table_type='BASE TABLE'")[:1]:
            execute(connection, f"SELECT 1 FROM {quote(table)} LIMIT 0")
    except pymysql.MySQLError as error:
        if error.args and error.args[0] == _NO_DATABASE:
            raise ConfigError(
                f"{server.label}: there is no database {server.db}",
                "Set OPENDENTAL_SOURCE_DB to the name of OpenDental's database.",
            ) from None
        denied = _denied(connection, server, error, "SELECT", f"{database}.*")
        if denied is None:
            raise
        hint = f"{denied.hint} (or OPENDENTAL_SOURCE_DB={server.db} is not OpenDental's database)"
        raise ConfigError(str(denied), hint) from None


def _check_stream(settings: Settings, position: SourcePosition) -> None:
    server = settings.source
    stream = BinlogStream(
        lambda: connect_mysql(server),
        server_id=settings.replicator.server_id ^ _OTHER_ID,
        heartbeat_seconds=settings.replicator.heartbeat_seconds,
        name=server.label,
    )
    try:
        stream.open(position)
        stream.read(_ANSWER_SECONDS)
    except ConfigError as error:
        # Logging in worked a moment ago: what is refused is the binlog.
        raise ConfigError(
            f"{server.label}: the account {server.user} may not read the binlog",
            _grant("REPLICATION SLAVE", "*.*", f"'{server.user}'@'%'"),
        ) from error
    finally:
        stream.close()


def _denied(
    connection: MySQLConnection, server: MySQLServer, error: pymysql.MySQLError, word: str, on: str
) -> ConfigError | None:
    if not error.args or error.args[0] not in _DENIED:
        return None
    return ConfigError(
        f"{server.label}: the account {server.user} lacks the privilege {word} on {on}",
        _grant(word, on, _account(connection)),
    )


def _account(connection: Any) -> str:
    """The account as the server matched it, quoted for GRANT."""
    user, _, host = str(fetch(connection, "SELECT CURRENT_USER()")[0][0]).rpartition("@")
    return f"'{user}'@'{host}'"


def _grant(word: str, on: str, account: str) -> str:
    return f"On the source, as an administrator: GRANT {word} ON {on} TO {account};"

"""Fresh databases on running servers, one for each test that asks.

From the left come a server and the account that a process under test would
use; to the right goes a handle: the database's name, connections as superuser
or as that account, and two shorthands. Dropping one ends whoever still uses it.
"""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
import pymysql
from psycopg import sql
from pymysql.cursors import Cursor

from config.connections import quote_mysql_identifier
from replicator.sandbox.accounts import create_analytics_database, unlogged
from replicator.sandbox.postgres import PostgreSQLServer
from replicator.sandbox.servers import BinlogServer


class MySQLDatabase:
    """A database on a MariaDB or MySQL server. `execute` and `query` speak as root, autocommit."""

    def __init__(self, server: BinlogServer, name: str, user: str, password: str) -> None:
        self.server = server
        self.name = name
        self.user = user
        self.password = password
        self._shared: pymysql.Connection[Cursor] | None = None

    def connect(self, **options: Any) -> pymysql.Connection[Cursor]:
        """A new connection as root, in this database; the caller closes it."""
        return self.server.connect(database=self.name, **options)

    def connect_as_account(self, **options: Any) -> pymysql.Connection[Cursor]:
        """A new connection as the process under test: `user` with its narrow grants."""
        return self.server.connect(self.user, self.name, self.password, **options)

    def execute(self, statement: str, arguments: object = None) -> int:
        """Run one statement as root; the number of rows that it changed or returned."""
        with self._connection().cursor() as cursor:
            return cursor.execute(statement, arguments)

    def query(self, statement: str, arguments: object = None) -> list[tuple[Any, ...]]:
        with self._connection().cursor() as cursor:
            cursor.execute(statement, arguments)
            return list(cursor.fetchall())

    def binlog_end(self) -> tuple[str, int]:
        """Where the server's binlog ends now: file and offset."""
        mysql = self.server.installation.is_mysql
        statement = "SHOW BINARY LOG STATUS" if mysql else "SHOW MASTER STATUS"
        file, offset = self.query(statement)[0][:2]
        return str(file), int(offset)

    def forget_binlogs(self) -> None:
        """Begin the server's binlog anew, as a server that was set up afresh."""
        what = "BINARY LOGS AND GTIDS" if self.server.installation.is_mysql else "MASTER"
        self.execute(f"RESET {what}")

    def create(self, charset: str | None = None) -> None:
        """Make the database, unlogged; `charset` None takes the server's default."""
        tail = f" CHARACTER SET {charset}" if charset else ""
        with contextlib.closing(self.server.connect()) as root, unlogged(root) as cursor:
            cursor.execute(f"CREATE DATABASE {quote_mysql_identifier(self.name)}{tail}")

    def drop(self) -> None:
        """End every session that uses the database and drop it, unlogged."""
        self.close()
        with contextlib.closing(self.server.connect()) as root, unlogged(root) as cursor:
            users = "SELECT id FROM information_schema.processlist WHERE db = %s"
            cursor.execute(users, (self.name,))
            for (session,) in cursor.fetchall():
                with contextlib.suppress(pymysql.MySQLError):  # gone by itself meanwhile
                    cursor.execute("KILL %s", (session,))
            cursor.execute(f"DROP DATABASE IF EXISTS {quote_mysql_identifier(self.name)}")

    def close(self) -> None:
        """Close the connection behind `execute` and `query`."""
        if self._shared is not None:
            with contextlib.suppress(pymysql.MySQLError):
                self._shared.close()
            self._shared = None

    def _connection(self) -> pymysql.Connection[Cursor]:
        if self._shared is None or not self._shared.open:
            self._shared = self.connect()
        return self._shared


class PostgresDatabase:
    """A database on a PostgreSQL server, for `user`, as whom `execute` and `query` speak."""

    def __init__(self, server: PostgreSQLServer, name: str, user: str, password: str) -> None:
        self.server = server
        self.name = name
        self.user = user
        self.password = password
        self._shared: psycopg.Connection[tuple[Any, ...]] | None = None

    def connect(
        self, *, autocommit: bool = False, **options: Any
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """A new connection as `user`, as the process under test has; the caller closes it."""
        return self.server.connect(
            self.user, self.name, self.password, autocommit=autocommit, **options
        )

    def execute(self, statement: str, arguments: Any = None) -> int:
        """Run one statement, autocommit; the number of rows that it changed or returned."""
        return self._connection().execute(statement.encode(), arguments).rowcount

    def query(self, statement: str, arguments: Any = None) -> list[tuple[Any, ...]]:
        return self._connection().execute(statement.encode(), arguments).fetchall()

    def create(self) -> None:
        with self.server.connect() as root:
            create_analytics_database(root, self.name, self.user)

    def drop(self) -> None:
        """Drop the database under whoever still uses it."""
        self.close()
        with self.server.connect() as root:
            statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            root.execute(statement.format(sql.Identifier(self.name)))

    def close(self) -> None:
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def _connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._shared is None or self._shared.closed:
            self._shared = self.connect(autocommit=True)
        return self._shared

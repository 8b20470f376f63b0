"""What PostgreSQL needs: roles, the database, its schemas, who reads them, the loader's tables.

Left: a superuser's credentials. Right: `Step`s, out of `replicator.grants_analytics`. Passwords
reach the server in the form in which it stores them (SCRAM), so that none can stand in its log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import psycopg
from pydantic import SecretStr

from config.connections import PostgresConnection, connect_postgres
from config.errors import ConfigError, ReplicatorError, translated
from config.settings import PostgresServer
from loader import tracking as loader_tracking
from loader.ddl import shapes
from loader.quarantine import entries
from replicator.cli.init.steps import Statement, Step
from replicator.grants_analytics import Layout, Need, new_password, schema_needs, server_needs

ANALYTICS: Final = "analytics"
MAINTENANCE_DATABASE: Final = "postgres"
_MASK: Final = "***"
_LEAST: Final = 130000
_OWN: Final = "tracking tables of the loader"


@dataclass(frozen=True, slots=True)
class Superuser:
    """Credentials for the occasion; `socket` is a directory, where they come by a local socket."""

    user: str
    password: str
    socket: str | None = None

    def connect(self, server: PostgresServer, database: str) -> PostgresConnection:
        """An autocommit connection to one database."""
        chosen = server.model_copy(
            update={
                "user": self.user,
                "password": SecretStr(self.password),
                "db": database,
                **({"host": self.socket} if self.socket else {}),
            }
        )
        try:
            return connect_postgres(
                chosen, autocommit=True, application_name="replicator init", schema="pg_catalog"
            )
        except ReplicatorError as error:
            raise ConfigError(
                str(error),
                "Check --analytics-admin and its password (POSTGRES_ANALYTICS_ADMIN_PASSWORD, or"
                " --analytics-admin-password-file); or give --analytics-socket, and run it as an"
                " account that PostgreSQL lets in there.",
            ) from None


def analytics_steps(
    superuser: Superuser, server: PostgresServer, layout: Layout, dbt_password: str | None
) -> Iterator[Step]:
    """In order; each looks at the server when it is asked for."""
    with (
        closing(superuser.connect(server, MAINTENANCE_DATABASE)) as admin,
        translated(server.label),
    ):
        if admin.info.server_version < _LEAST:
            raise ConfigError(
                f"{server.label}: PostgreSQL {admin.info.server_version // 10000} is too old",
                "Install 13 or newer.",
            )
        stored = _scram(admin, layout.loader, server.password.get_secret_value())
        dbt = None if dbt_password is None else _scram(admin, layout.dbt, dbt_password)
        yield from _steps(admin, server_needs(layout, stored, dbt))
        yield _password(admin, server, stored)
        _require_utf8(admin, server)
        there = _one(admin, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s)",
                     (layout.database,))  # fmt: skip
    if not there:  # a dry run: what is in it cannot be looked at
        for need in schema_needs(layout):
            yield Step(ANALYTICS, need.what, (Statement(need.statement),))
        yield Step(ANALYTICS, _OWN, _UNSEEN)
        return
    with closing(superuser.connect(server, layout.database)) as admin, translated(server.label):
        yield from _steps(admin, schema_needs(layout))
        yield _own_tables(admin, server)


def _steps(admin: PostgresConnection, needs: Iterable[Need]) -> Iterator[Step]:
    for need in needs:
        if _one(admin, need.met, need.arguments):
            yield Step(ANALYTICS, need.what)
        else:
            statement = Statement(need.statement, need.shown)
            yield Step(ANALYTICS, need.what, (statement,), _runs_on(admin))


def _runs_on(admin: PostgresConnection) -> Callable[[Statement], object]:
    """Run statements there, as they stand: no parameters, no percent signs that mean something."""
    return lambda statement: admin.execute(statement.sql.encode())


def _one(admin: PostgresConnection, query: str, arguments: tuple[object, ...]) -> bool:
    row = admin.execute(query.encode(), arguments).fetchone()
    return bool(row and row[0])


def _scram(admin: PostgresConnection, user: str, password: str) -> str:
    made = admin.pgconn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256")
    return made.decode("ascii")


def _password(admin: PostgresConnection, server: PostgresServer, stored: str) -> Step:
    """The settings' password; PostgreSQL is asked by logging in, where it can be."""
    what = f"{server.user} has the settings' password"
    if _logs_in(server):
        return Step(ANALYTICS, what)
    anew = Statement(new_password(server.user, stored), new_password(server.user, _MASK))
    return Step(ANALYTICS, what, (anew,), _runs_on(admin))


def _logs_in(server: PostgresServer) -> bool:
    for database in (server.db, MAINTENANCE_DATABASE):
        with suppress(ReplicatorError):
            connect_postgres(server.model_copy(update={"db": database})).close()
            return True
    return False


def _require_utf8(admin: PostgresConnection, server: PostgresServer) -> None:
    row = admin.execute(
        "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = %s", [server.db]
    ).fetchone()
    if row is not None and row[0] != "UTF8":
        raise ConfigError(
            f"{server.label}: database {server.db} is in {row[0]}, which cannot hold every text",
            "Name another one, which init then makes: POSTGRES_ANALYTICS_DB=…",
        )


_UNSEEN: Final = (Statement("-- as the loader's role: its tables, etl_binlog_offset and others"),)
_LOOKS: Final = ("SELECT", "SET")


class _Rehearsal:
    """A connection that remembers what is executed, and never commits."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        self.statements: list[str] = []

    def execute(self, query: Any, arguments: Any = None) -> Any:
        """Execute and remember."""
        text = query if isinstance(query, str) else query.as_string(self._connection)
        if not text.lstrip().startswith(_LOOKS):
            self.statements.append(text.strip())
        return self._connection.execute(query, arguments)

    def commit(self) -> None:
        """It is only a rehearsal."""


def _own_tables(admin: PostgresConnection, server: PostgresServer) -> Step:
    """They are the loader's own: made by its account, in the words of its own code."""
    name = f'"{server.schema_name.replace(chr(34), chr(34) * 2)}".etl_binlog_offset'
    if _one(admin, "SELECT to_regclass(%s) IS NOT NULL", (name,)):
        return Step(ANALYTICS, _OWN)

    def make(statement: Statement) -> None:
        with closing(connect_postgres(server, application_name="replicator init")) as connection:
            connection.execute(statement.sql.encode())
            connection.commit()

    return Step(ANALYTICS, _OWN, _rehearsed(server) or _UNSEEN, make)


def _rehearsed(server: PostgresServer) -> tuple[Statement, ...]:
    """What the loader would run at its first start; nothing where it cannot log in yet."""
    try:
        connection = connect_postgres(server, application_name="replicator init")
    except ReplicatorError:
        return ()
    with closing(connection):
        rehearsal = _Rehearsal(connection)
        stage = cast("PostgresConnection", rehearsal)
        try:
            loader_tracking.create_tables(stage, server.schema_name)
            shapes.create_tables(stage)
            entries.create_tables(stage)
        except psycopg.Error:
            return ()  # a dry run: the schema is not there yet
        return tuple(map(Statement, rehearsal.statements))

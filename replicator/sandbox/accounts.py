"""The three accounts of the data flow, each with exactly what its process needs.

From the left comes a superuser's connection; to the right stands an account
with the grants that the documentation asks an operator to give: so every run
of the demo and of the tests shows that they suffice.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pymysql
from psycopg import sql
from pymysql.cursors import Cursor

SOURCE_GRANTS = ("REPLICATION SLAVE", "BINLOG MONITOR")
REPLICA_GRANTS = ("BINLOG REPLAY", "BINLOG ADMIN", "REPLICATION SLAVE", "BINLOG MONITOR", "PROCESS")
MYSQL_SOURCE_GRANTS = ("REPLICATION SLAVE", "REPLICATION CLIENT")
MYSQL_REPLICA_GRANTS = (
    *("BINLOG_ADMIN", "SYSTEM_VARIABLES_ADMIN", "SESSION_VARIABLES_ADMIN"),
    *("REPLICATION SLAVE", "REPLICATION CLIENT", "PROCESS"),
)


def create_source_account(root: pymysql.Connection[Cursor], user: str, password: str) -> None:
    """The account that reads the binlog; `allow_source` lets it read a database."""
    _create(root, user, password, SOURCE_GRANTS if _mariadb(root) else MYSQL_SOURCE_GRANTS)


def create_replica_account(root: pymysql.Connection[Cursor], user: str, password: str) -> None:
    """The account that applies to the replica; `allow_replica` gives it its database."""
    _create(root, user, password, REPLICA_GRANTS if _mariadb(root) else MYSQL_REPLICA_GRANTS)


def allow_source(root: pymysql.Connection[Cursor], user: str, database: str) -> None:
    _grant(root, "SELECT", user, database)


def allow_replica(root: pymysql.Connection[Cursor], user: str, database: str) -> None:
    _grant(root, "ALL PRIVILEGES", user, database)


def create_analytics_account(
    root: psycopg.Connection[tuple[Any, ...]], user: str, password: str
) -> None:
    """The account that writes `raw`: it owns its database and nothing else."""
    root.execute(
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
            sql.Identifier(user), sql.Literal(password)
        )
    )


def create_analytics_database(
    root: psycopg.Connection[tuple[Any, ...]], database: str, owner: str
) -> None:
    root.execute(
        sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0").format(
            sql.Identifier(database), sql.Identifier(owner)
        )
    )


def _mariadb(root: Any) -> bool:
    return "mariadb" in str(root.server_version).lower()


def _create(
    root: pymysql.Connection[Cursor], user: str, password: str, grants: tuple[str, ...]
) -> None:
    with unlogged(root) as cursor:
        cursor.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (user, password))
        cursor.execute(f"GRANT {', '.join(grants)} ON *.* TO %s@'%%'", (user,))


def _grant(root: pymysql.Connection[Cursor], what: str, user: str, database: str) -> None:
    pattern = database.replace("_", r"\_").replace("%", r"\%").replace("`", "``")
    with unlogged(root) as cursor:
        cursor.execute(f"GRANT {what} ON `{pattern.replace('%', '%%')}`.* TO %s@'%%'", (user,))


def unlogged(root: pymysql.Connection[Cursor]) -> Cursor:
    """A cursor whose session stays out of the binlog: administration is not data."""
    cursor = root.cursor()
    cursor.execute("SET SESSION sql_log_bin = 0")
    return cursor

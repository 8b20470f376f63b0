"""The three accounts of the data flow, made with the very SQL that `check --grants` prints.

From the left comes a superuser's connection; to the right stands an account
with the privileges of `replicator.grants` and no others: so every run of the demo and
of the tests shows that they suffice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
import pymysql
from pymysql.cursors import Cursor

from replicator import grants
from replicator.grants import Privilege
from replicator.source import identify


def create_source_account(root: pymysql.Connection[Cursor], user: str, password: str) -> None:
    """The account that reads the binlog; `allow_source` lets it read a database."""
    _create(root, user, password, grants.source_privileges(identify(root)))


def create_replica_account(root: pymysql.Connection[Cursor], user: str, password: str) -> None:
    """The account that applies to the replica; `allow_replica` gives it its database."""
    _create(root, user, password, grants.replica_privileges(identify(root)))


def allow_source(root: pymysql.Connection[Cursor], user: str, database: str) -> None:
    _allow(root, user, database, grants.source_privileges(identify(root)))


def allow_replica(root: pymysql.Connection[Cursor], user: str, database: str) -> None:
    _allow(root, user, database, grants.replica_privileges(identify(root)))


def create_analytics_account(
    root: psycopg.Connection[tuple[Any, ...]], user: str, password: str
) -> None:
    """The account that writes `raw`."""
    root.execute(grants.postgres_role(user, password).encode())


def create_analytics_database(
    root: psycopg.Connection[tuple[Any, ...]], database: str, user: str
) -> None:
    """A database in which `user` may create schemas, and owns only those."""
    for statement in grants.postgres_database(user, database):
        root.execute(statement.encode())


def _create(
    root: pymysql.Connection[Cursor], user: str, password: str, privileges: Iterable[Privilege]
) -> None:
    """Everything but what is about a database, which comes later."""
    name = grants.account(user)
    everywhere = [privilege for privilege in privileges if privilege.everywhere]
    with unlogged(root) as cursor:
        cursor.execute(grants.create_user(name, password))
        for statement in grants.grant_statements(name, "", everywhere):
            cursor.execute(statement)


def _allow(
    root: pymysql.Connection[Cursor], user: str, database: str, privileges: Iterable[Privilege]
) -> None:
    there = [privilege for privilege in privileges if not privilege.everywhere]
    with unlogged(root) as cursor:
        for statement in grants.grant_statements(grants.account(user), database, there):
            cursor.execute(statement)


def unlogged(root: pymysql.Connection[Cursor]) -> Cursor:
    """A cursor whose session stays out of the binlog: administration is not data."""
    cursor = root.cursor()
    cursor.execute("SET SESSION sql_log_bin = 0")
    return cursor

"""`replicator check --grants`: what it prints suffices, and nothing of it may be missing.

That it suffices every other test shows: the accounts of all fixtures and of the sandbox are made
with these statements.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError
from typer.testing import Result

from config.errors import ReplicatorError
from config.settings import Settings
from config.tables import TableRules
from loader import tracking as loader_tracking
from replicator import grants
from replicator.cli.doctor import Verdict, examine
from replicator.grants import PLACEHOLDER, Privilege, replica_privileges, source_privileges
from replicator.pipeline import ELTPipeline
from replicator.sandbox.accounts import unlogged
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.source import Identity
from tests.fix_servers import family

Invoke = Callable[..., Result]
_ANY = Identity(0, "", "10.11.0-MariaDB" if family() == "mariadb" else "9.7.0")


def shown_grants(connection: Any, account: str) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW GRANTS FOR {account}")
        found = [line.partition(" IDENTIFIED")[0] for (line,) in cursor.fetchall()]
    return {line.replace(account.replace("'", "`"), "?") for line in found}


@pytest.fixture
def spare_user(source_db: MySQLDatabase, replica_db: MySQLDatabase) -> Iterator[str]:
    """A name that no server has an account of."""
    name = f"spare_{secrets.token_hex(4)}"
    yield name
    for database in (source_db, replica_db):
        with closing(database.server.connect()) as root, unlogged(root) as cursor:
            cursor.execute(f"DROP USER IF EXISTS '{name}'@'%'")


def test_what_is_printed_makes_the_accounts_that_all_tests_run_under(
    invoke: Invoke,
    environment: dict[str, str],
    spare_user: str,
    source_db: MySQLDatabase,
    replica_db: MySQLDatabase,
    analytics_db: PostgresDatabase,
) -> None:
    for prefix in ("OPENDENTAL_SOURCE", "MYSQL_REPLICATION", "POSTGRES_ANALYTICS"):
        environment[f"{prefix}_USER"] = spare_user
    environment["POSTGRES_ANALYTICS_DB"] = f"{analytics_db.name}_spare"
    result = invoke("check", "--grants", "--json")
    assert result.exit_code == 0
    printed = {s["server"]: s["statements"] for s in json.loads(result.output)["grants"]}
    for database, server in ((source_db, "source"), (replica_db, "replica")):
        with closing(database.server.connect()) as root, unlogged(root) as cursor:
            for statement in printed[server]:
                cursor.execute(statement.replace(PLACEHOLDER, "synthetic"))
            made = shown_grants(root, f"'{spare_user}'@'%'")
            theirs = shown_grants(root, f"'{database.user}'@'%'")
        pattern = grants.database_scope(database.name)
        # The shared account holds a grant for each test's database that is alive.
        assert made == {g for g in theirs if "ON *.*" in g or pattern in g}
    with analytics_db.server.connect() as root:
        for statement in printed["analytics"]:
            root.execute(statement.replace(PLACEHOLDER, "synthetic").encode())
        try:
            with analytics_db.server.connect(
                spare_user,
                f"{analytics_db.name}_spare",
                "synthetic",
                options="-c search_path=raw",
            ) as writer:
                loader_tracking.create_tables(writer, "raw")
        finally:
            root.execute(f"DROP DATABASE {analytics_db.name}_spare WITH (FORCE)".encode())
            root.execute(f"DROP ROLE {spare_user}".encode())


def test_nothing_printed_is_a_secret_and_all_of_it_is_sql(
    invoke: Invoke, environment: dict[str, str]
) -> None:
    result = invoke("check", "--grants")
    secrets_of_ours = [v for n, v in environment.items() if n.endswith("PASSWORD")]
    assert [s for s in secrets_of_ours if s in result.output] == []
    lines = [line for line in result.output.splitlines() if line and not line.startswith("-- ")]
    assert all(line.endswith(";") for line in lines)
    assert len(lines) == 9


def test_servers_that_do_not_answer_are_answered_for_in_both_families_words(
    invoke: Invoke, environment: dict[str, str]
) -> None:
    environment["OPENDENTAL_SOURCE_PORT"] = environment["REPLICATOR_METRICS_PORT"]  # nobody there
    shown = invoke("check", "--grants").output
    assert "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.*" in shown
    assert "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.*" in shown
    assert shown.count("does not answer") == 2


# --- nothing of it may be missing --------------------------------------------------------------


class _Revoked:
    """Takes a privilege from a shared account, and gives it back."""

    def __init__(self, database: MySQLDatabase, privilege: Privilege) -> None:
        scope = "*.*" if privilege.everywhere else grants.database_scope(database.name)
        self._words = f"{privilege.word} ON {scope}"
        self._database = database

    def __enter__(self) -> None:
        self._run(f"REVOKE {self._words} FROM '{self._database.user}'@'%'")

    def __exit__(self, *_: object) -> None:
        self._run(f"GRANT {self._words} TO '{self._database.user}'@'%'")

    def _run(self, statement: str) -> None:
        with closing(self._database.server.connect()) as root, unlogged(root) as cursor:
            cursor.execute(statement)


@pytest.fixture
def charts(source_db: MySQLDatabase) -> MySQLDatabase:
    source_db.execute("CREATE TABLE keyless (a INT) ENGINE=MyISAM")
    source_db.execute("INSERT INTO keyless VALUES (1)")
    source_db.execute("CREATE TABLE t (a INT PRIMARY KEY, b INT) ENGINE=InnoDB")
    source_db.execute("INSERT INTO t VALUES (1, 1), (2, 2)")
    others = ", ".join(f"({number}, 0)" for number in range(100, 200))
    source_db.execute(f"INSERT INTO t VALUES {others}")  # enough for a batch that is staged
    return source_db


FIRST_ROWS = "SELECT a, b FROM t WHERE a < 100 ORDER BY a"
CHANGES = (
    "UPDATE t SET b = b + 1",
    "ALTER TABLE t ADD INDEX by_b (b)",
    "CREATE INDEX by_a ON t (a)",
    "CREATE TABLE u (a INT PRIMARY KEY, FOREIGN KEY (a) REFERENCES t (a)) ENGINE=InnoDB",
    "DROP TABLE u",
    "INSERT INTO t VALUES (3, 3)",
    "DELETE FROM t WHERE a = 1",
)


def carried(pipeline: ELTPipeline, charts: MySQLDatabase) -> bool:
    """Whether both legs carry a first copy, changes and DDL before they stop or give up."""
    if not shown(pipeline, [(1, 1), (2, 2)]):
        return False
    for statement in CHANGES:
        charts.execute(statement)
    return shown(pipeline, [(2, 3), (3, 3)])


def shown(pipeline: ELTPipeline, rows: list[tuple[int, int]]) -> bool:
    """Whether both legs, brought up to date, end in these rows."""
    try:
        for leg in (pipeline.extract, pipeline.load):
            given_up = threading.Event()
            patience = threading.Timer(20, given_up.set)
            patience.daemon = True
            patience.start()
            leg(given_up)
            patience.cancel()
        with pipeline.analytics_engine.connect() as connection:
            found = connection.exec_driver_sql(FIRST_ROWS).fetchall()
    except (ReplicatorError, SQLAlchemyError):
        return False
    finally:
        patience.cancel()
    return [tuple(row) for row in found] == rows


def _cases(privileges: tuple[Privilege, ...]) -> Any:
    ids = [privilege.word for privilege in privileges]
    return pytest.mark.parametrize("privilege", privileges, ids=ids)


def _lacks(settings: Settings, server: str, privilege: Privilege) -> bool:
    return any(
        (found.server, found.check, found.verdict)
        == (server, f"privilege {privilege.word}", Verdict.FAIL)
        for found in examine(settings, TableRules())
    )


def test_with_all_of_it_everything_is_carried(
    settings: Settings, environment: dict[str, str], charts: MySQLDatabase, pipeline: ELTPipeline
) -> None:
    assert carried(pipeline, charts)


@_cases(source_privileges(_ANY))
def test_without_one_on_the_source_something_fails_and_check_names_it(
    settings: Settings, charts: MySQLDatabase, pipeline: ELTPipeline, privilege: Privilege
) -> None:
    with _Revoked(charts, privilege):
        assert not carried(pipeline, charts), f"it does not need {privilege.word}"
        assert _lacks(settings, "source", privilege)


@_cases(replica_privileges(_ANY))
def test_without_one_on_the_replica_something_fails_and_check_names_it(
    settings: Settings,
    charts: MySQLDatabase,
    replica_db: MySQLDatabase,
    pipeline: ELTPipeline,
    privilege: Privilege,
) -> None:
    if privilege.word == "CREATE":
        replica_db.drop()  # which the replicator then creates
    with _Revoked(replica_db, privilege):
        assert not carried(pipeline, charts), f"it does not need {privilege.word}"
        if privilege.word != "CREATE":
            assert _lacks(settings, "replica", privilege)


@pytest.mark.parametrize("word", ["CONNECT", "CREATE", "TEMPORARY"])
def test_without_one_in_postgresql_something_fails_and_check_names_it(
    settings: Settings,
    charts: MySQLDatabase,
    analytics_db: PostgresDatabase,
    pipeline: ELTPipeline,
    word: str,
) -> None:
    analytics_db.close()
    with analytics_db.server.connect() as root:
        for statement in (
            f"REVOKE ALL ON DATABASE {analytics_db.name} FROM PUBLIC",
            f"REVOKE {word} ON DATABASE {analytics_db.name} FROM {analytics_db.user}",
        ):
            root.execute(statement.encode())
        assert not carried(pipeline, charts), f"it does not need {word}"
        found = [f for f in examine(settings, TableRules()) if f.verdict is Verdict.FAIL]
        named = {
            "CONNECT": "connection",
            "CREATE": "schema raw",
            "TEMPORARY": "privilege TEMPORARY",
        }
        assert [(f.server, f.check) for f in found] == [("analytics", named[word])]
        for line in found[0].sql:
            root.execute(line.encode())
    if word != "CONNECT":  # which says no more than that the door is shut
        assert shown(pipeline, [(2, 3), (3, 3)] if word == "TEMPORARY" else [(1, 1), (2, 2)])

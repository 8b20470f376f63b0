"""`replicator check` on real servers: sound, then wrong in turn, and mended as printed."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from typer.testing import Result

from config.connections import connect_postgres
from config.settings import Settings
from replicator.cli.doctor.facts_analytics import read_postgres
from replicator.cli.doctor.held import roles_in
from replicator.grants import database_scope
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from tests.fix_servers import family

Invoke = Callable[..., Result]


def findings(result: Result) -> dict[tuple[str, str], dict[str, Any]]:
    document = json.loads(result.output)
    return {(f["server"], f["check"]): f for f in document["findings"]}


def run_sql(database: MySQLDatabase, statement: str) -> None:
    with closing(database.server.connect()) as root, root.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute(statement)


@contextmanager
def global_variable(database: MySQLDatabase, name: str, value: str) -> Iterator[None]:
    with closing(database.server.connect()) as root, root.cursor() as cursor:
        cursor.execute(f"SELECT @@GLOBAL.{name}")
        before = (cursor.fetchone() or ("",))[0]
        cursor.execute(f"SET GLOBAL {name} = {value}")
    try:
        yield
    finally:
        with closing(database.server.connect()) as root, root.cursor() as cursor:
            cursor.execute(f"SET GLOBAL {name} = %s", [before])


@pytest.fixture(autouse=True)
def _tables(source_db: MySQLDatabase) -> None:
    source_db.execute("CREATE TABLE patient (PatNum BIGINT PRIMARY KEY, LName VARCHAR(100))")


def test_nothing_fails_on_the_sandbox_and_each_remedy_is_there(invoke: Invoke) -> None:
    result = invoke("check", "--json")
    found = findings(result)
    assert [f for f in found.values() if f["verdict"] == "fail"] == []
    assert result.exit_code == 0
    assert found["source", "binlog_format"]["found"] == "ROW"
    assert found["here", "row kernel"]["verdict"] in ("ok", "warn")
    assert all(f["remedy"] and f["needed"] for f in found.values() if f["verdict"] != "ok")


def test_people_see_lines_with_remedies(invoke: Invoke) -> None:
    shown = invoke("check").output
    assert "ok    source: binlog_format: ROW" in shown
    assert "    SET GLOBAL sync_binlog = 1;\n" in shown  # these servers wait for no disk
    assert "  my.cnf of the source, section [mysqld]:" in shown
    assert shown.rstrip().endswith("0 fail")


def test_a_warning_is_a_failure_where_that_is_asked_for(invoke: Invoke) -> None:
    assert invoke("check").exit_code == 0
    assert invoke("check", "--strict").exit_code == 1


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("source", "binlog_format", "'STATEMENT'"),
        ("replica", "binlog_row_metadata", "'MINIMAL'"),
        ("replica", "slave_exec_mode", "'IDEMPOTENT'"),
        ("replica", "max_allowed_packet", "1048576"),
        pytest.param(
            "replica",
            "mysql56_temporal_format",
            "0",
            marks=pytest.mark.only_on("mariadb", reason="MySQL has one format of times"),
        ),
    ],
)
def test_a_wrong_variable_fails(
    invoke: Invoke,
    source_db: MySQLDatabase,
    replica_db: MySQLDatabase,
    where: str,
    name: str,
    value: str,
) -> None:
    database = source_db if where == "source" else replica_db
    with global_variable(database, name, value):
        result = invoke("check", "--json")
    assert result.exit_code == 1
    assert findings(result)[where, name]["verdict"] == "fail"


def test_a_source_that_logs_parts_of_rows_is_no_failure(
    invoke: Invoke, source_db: MySQLDatabase
) -> None:
    with global_variable(source_db, "binlog_row_image", "'MINIMAL'"):
        found = findings(invoke("check", "--json"))["source", "binlog_row_image"]
    assert found["found"] == "MINIMAL"
    assert found["verdict"] == ("warn" if family() == "mariadb" else "ok")


@pytest.mark.only_on("mysql", reason="MariaDB has no partial JSON")
def test_a_replica_that_would_log_parts_of_documents_is_found_and_refused(
    invoke: Invoke, replica_db: MySQLDatabase
) -> None:
    with global_variable(replica_db, "binlog_row_value_options", "'PARTIAL_JSON'"):
        found = findings(invoke("check", "--json"))
        refused = invoke("run")
    assert found["replica", "binlog_row_value_options"]["verdict"] == "fail"
    assert refused.exit_code == 2
    assert "binlog_row_value_options=PARTIAL_JSON (needed: empty)" in refused.output


def test_tables_without_a_key_and_foreign_keys_are_named(
    invoke: Invoke, source_db: MySQLDatabase
) -> None:
    source_db.execute("CREATE TABLE screen (a INT) ENGINE=MyISAM")
    source_db.execute("CREATE TABLE parent (a INT PRIMARY KEY) ENGINE=InnoDB")
    source_db.execute(
        "CREATE TABLE child (a INT PRIMARY KEY, FOREIGN KEY (a) REFERENCES parent (a))"
        " ENGINE=InnoDB"
    )
    found = findings(invoke("check", "--json"))
    assert found["source", "tables without a key"]["found"] == "screen: copied as a whole"
    assert found["source", "tables that need a lock"]["found"] == "screen"
    assert found["source", "foreign keys"]["found"] == "child"


def test_a_server_out_of_reach_is_a_finding_and_the_others_are_looked_at(
    invoke: Invoke, environment: dict[str, str], analytics_db: PostgresDatabase
) -> None:
    environment["MYSQL_REPLICATION_PORT"] = environment["REPLICATOR_METRICS_PORT"]  # nobody there
    result = invoke("check", "--json")
    found = findings(result)
    assert result.exit_code == 1
    assert found["replica", "connection"]["verdict"] == "fail"
    assert found["source", "binlog_format"]["verdict"] == "ok"
    assert found["analytics", "encoding"]["found"] == "UTF8"
    assert analytics_db.password not in result.output


def test_what_opendental_says_of_itself_is_told(invoke: Invoke, source_db: MySQLDatabase) -> None:
    source_db.execute("CREATE TABLE preference (PrefName VARCHAR(255), ValueString TEXT)")
    source_db.execute(
        "INSERT INTO preference VALUES ('ProgramVersion', '24.1.9.0'),"
        " ('DataBaseVersion', '24.1.4.0'), ('UpdateInProgressOnComputerName', 'FRONTDESK')"
    )
    result = invoke("check", "--json")
    found = findings(result)
    assert found["source", "OpenDental"]["found"] == "program 24.1.9.0, database 24.1.4.0"
    assert found["source", "OpenDental's update"]["verdict"] == "warn"
    assert "FRONTDESK" not in result.output
    assert "docs/opendental.md" in found["source", "OpenDental with a binlog"]["found"]


@pytest.fixture
def clerk(source_db: MySQLDatabase) -> Iterator[str]:
    """An account on the source that holds what it needs by a role alone, and a second role."""
    names = tuple(f"{word}_{secrets.token_hex(4)}" for word in ("clerk", "reads", "writes"))
    user, reads, writes = names
    monitor = "BINLOG MONITOR" if family() == "mariadb" else "REPLICATION CLIENT"
    for statement in (
        f"CREATE USER '{user}'@'%' IDENTIFIED BY 'synthetic-password'",
        f"CREATE ROLE {reads}",
        f"CREATE ROLE {writes}",
        f"GRANT REPLICATION SLAVE, {monitor} ON *.* TO {reads}",
        f"GRANT SELECT ON {database_scope(source_db.name)} TO {reads}",
        f"GRANT FILE ON *.* TO {writes}",
        f"GRANT {reads} TO '{user}'@'%'",
        f"GRANT {writes} TO '{user}'@'%'",
    ):
        run_sql(source_db, statement)
    yield user
    for statement in (f"DROP USER '{user}'@'%'", f"DROP ROLE {reads}", f"DROP ROLE {writes}"):
        run_sql(source_db, statement)


def test_an_account_may_do_what_its_roles_give_and_too_much_by_them_is_found(
    invoke: Invoke, environment: dict[str, str], source_db: MySQLDatabase, clerk: str
) -> None:
    environment["OPENDENTAL_SOURCE_USER"] = clerk
    environment["OPENDENTAL_SOURCE_PASSWORD"] = "synthetic-password"
    reads = next(role for role in roles_of(source_db, clerk) if role.startswith("reads"))
    asleep = findings(invoke("check", "--json"))["source", "privilege REPLICATION SLAVE"]
    assert asleep["verdict"] == "fail"
    assert "only by a role that is not active at login" in asleep["found"]

    way = "FOR" if family() == "mariadb" else "TO"
    run_sql(source_db, f"SET DEFAULT ROLE {reads} {way} '{clerk}'@'%'")
    found = findings(invoke("check", "--json"))
    assert [f for f in found.values() if f["verdict"] == "fail"] == []
    extra = found["source", "too many privileges"]
    assert extra["verdict"] == "warn"
    assert extra["found"].startswith("FILE ON *.*")
    for statement in extra["sql"]:
        run_sql(source_db, statement)
    found = findings(invoke("check", "--json"))
    assert [f for f in found.values() if f["verdict"] == "fail"] == []
    assert found["source", "too many privileges"]["found"] == "none"
    assert roles_of(source_db, clerk) == []


def roles_of(database: MySQLDatabase, user: str) -> list[str]:
    with closing(database.server.connect()) as root, root.cursor() as cursor:
        cursor.execute(f"SHOW GRANTS FOR '{user}'@'%'")
        lines = [str(line) for (line,) in cursor.fetchall()]
    names = [name for line in lines for name in roles_in(line)]
    return [name.partition("@")[0].strip("`") for name in names]


def test_postgresqls_disk_is_seen_from_its_own_machine_alone(
    settings: Settings, analytics_db: PostgresDatabase
) -> None:
    with closing(connect_postgres(settings.analytics)) as connection:
        near = read_postgres(connection, "raw", here=True)
        far = read_postgres(connection, "raw")
    disk = os.statvfs(analytics_db.server.directory)
    assert near.disk_free_bytes == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.1)
    assert far.disk_free_bytes is None

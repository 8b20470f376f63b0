"""`replicator init`: from bare servers to a running pipeline, with nothing but what it made."""

from __future__ import annotations

import configparser
import json
import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from config.connections import ConnectionFactory, connect_postgres
from config.settings import load_settings
from config.tables import load_table_rules
from replicator.cli.doctor import Verdict, examine
from replicator.pipeline import ELTPipeline
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.postgres import PostgreSQLServer
from replicator.sandbox.processes import free_port
from replicator.sandbox.servers import BinlogServer, Options
from tests.fix_servers import NewMariaDB, NewPostgreSQL
from tests.integration.cli.conftest import Invoke

ROOT = Path(__file__).parents[3]
ENGINES = {
    "raw": "get_opendental_analytics_raw_connection",
    "public": "get_opendental_analytics_public_connection",
    "public_staging": "get_opendental_analytics_staging_connection",
    "public_intermediate": "get_opendental_analytics_intermediate_connection",
    "public_marts": "get_opendental_analytics_marts_connection",
}
NOT_HERE = {"port", "bind_address", "datadir", "socket", "pid_file", "innodb_buffer_pool_size",
            "innodb_log_file_size"}  # fmt: skip


def replica_cnf() -> Options:
    """What config/replica.cnf says, but for places and memory."""
    lines = configparser.ConfigParser(allow_no_value=True)
    lines.read(ROOT / "config/replica.cnf")
    return {name: value for name, value in lines["mysqld"].items() if name not in NOT_HERE}


@pytest.fixture
def replica(new_mariadb: NewMariaDB) -> BinlogServer:
    """A server as config/replica.cnf sets it up, with nobody but root."""
    return new_mariadb(replica_cnf(), server_id=2)


@pytest.fixture
def analytics(new_postgresql: NewPostgreSQL) -> PostgreSQLServer:
    return new_postgresql()


@pytest.fixture
def environment(
    source_db: MySQLDatabase, replica: BinlogServer, analytics: PostgreSQLServer
) -> dict[str, str]:
    return {
        "OPENDENTAL_SOURCE_HOST": "127.0.0.1",
        "OPENDENTAL_SOURCE_PORT": str(source_db.server.port),
        "OPENDENTAL_SOURCE_DB": source_db.name,
        "OPENDENTAL_SOURCE_USER": source_db.user,
        "OPENDENTAL_SOURCE_PASSWORD": source_db.password,
        "MYSQL_REPLICATION_HOST": "127.0.0.1",
        "MYSQL_REPLICATION_PORT": str(replica.port),
        "MYSQL_REPLICATION_USER": "replication_user",
        "MYSQL_REPLICATION_PASSWORD": secrets.token_urlsafe(12) + "'\\%s",
        "POSTGRES_ANALYTICS_HOST": "127.0.0.1",
        "POSTGRES_ANALYTICS_PORT": str(analytics.port),
        "POSTGRES_ANALYTICS_USER": "analytics_user",
        "POSTGRES_ANALYTICS_PASSWORD": secrets.token_urlsafe(12) + "'\\%s",
        "REPLICATOR_METRICS_PORT": str(free_port()),
        "LOADER_METRICS_PORT": str(free_port()),
        "REPLICATOR_COPY_GAP_SECONDS": "0.05",
        "REPLICATOR_POLL_SECONDS": "0.05",
        "LOADER_POLL_SECONDS": "0.05",
        "MYSQL_REPLICATION_ADMIN_PASSWORD": (replica.directory / "root.password").read_text(),
        "POSTGRES_ANALYTICS_ADMIN_PASSWORD": (
            analytics.directory / "postgres.password"
        ).read_text(),
        "DBT_PASSWORD": "dbt-" + secrets.token_urlsafe(12),
    }


@pytest.fixture
def factory(environment: dict[str, str]) -> Iterator[ConnectionFactory]:
    made = ConnectionFactory(load_settings(env_file=None, environ=environment))
    yield made
    made.dispose()


def allowed(connection: psycopg.Connection[Any], statement: str) -> bool:
    """Does the server let this account do that? What it did is taken back."""
    try:
        connection.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return False
    else:
        return True
    finally:
        connection.rollback()


def test_from_bare_servers_to_a_pipeline_whose_accounts_may_do_what_they_should(
    source_db: MySQLDatabase,
    replica: BinlogServer,
    analytics: PostgreSQLServer,
    environment: dict[str, str],
    factory: ConnectionFactory,
    invoke: Invoke,
) -> None:
    source_db.execute("CREATE TABLE patient (PatNum int PRIMARY KEY, LName varchar(20))")
    source_db.execute("INSERT INTO patient VALUES (1, 'Synthetic-1')")
    hidden = [value for name, value in environment.items() if "PASSWORD" in name]

    looked = invoke("init", "--dry-run")
    assert looked.exit_code == 1, looked.output
    assert "CREATE USER 'replication_user'@'%' IDENTIFIED BY '***';" in looked.output
    with analytics.connect() as root:
        assert root.execute("SELECT rolname FROM pg_roles WHERE rolcanlogin").fetchall() == [
            ("postgres",)
        ]
    done = invoke("init")
    assert done.exit_code == 0, done.output
    assert "CREATE TABLE IF NOT EXISTS etl_transform_status" in done.output
    for shown in (looked, done):
        assert not any(secret in shown.output for secret in hidden)
        assert "SCRAM-SHA-256" not in shown.output
    again = json.loads(invoke("init", "--json").stdout)
    assert {step["state"] for step in again["steps"]} == {"ok"}
    assert again["source"] == ""

    settings = load_settings(env_file=None, environ=environment)
    findings = [
        f
        for f in examine(settings, load_table_rules(settings.tables_file))
        if f.server in ("replica", "analytics")
    ]
    bad = [(f.check, f.found) for f in findings if f.verdict is not Verdict.OK]
    assert [check for check, _ in bad if check != "durability"] == [], bad
    with ELTPipeline(settings) as pipeline:
        pipeline.extract()
        pipeline.load()
        _roles(analytics, environment)
        _engines(factory, analytics)
        source_db.execute("CREATE TABLE appointment (AptNum int PRIMARY KEY)")
        pipeline.extract()
        pipeline.load()
    with analyst(analytics) as connection:  # readable at once, with no grant in between
        assert allowed(connection, "SELECT * FROM raw.appointment")


def analyst(analytics: PostgreSQLServer) -> psycopg.Connection[Any]:
    return analytics.connect("analyst", "opendental_analytics", "words", autocommit=False)


def _roles(analytics: PostgreSQLServer, environment: dict[str, str]) -> None:
    """Who may do what, asked of the server."""
    with analytics.connect() as root:
        root.execute("CREATE ROLE analyst LOGIN PASSWORD 'words' IN ROLE analytics_readers")
        root.execute("CREATE ROLE passer_by LOGIN PASSWORD 'words'")
    dbt = analytics.connect(
        "dbt_user", "opendental_analytics", environment["DBT_PASSWORD"], autocommit=False
    )
    settings = load_settings(env_file=None, environ=environment)
    with closing(dbt), closing(connect_postgres(settings.analytics)) as loader:
        dbt.execute("CREATE TABLE public_marts.dim_patient AS SELECT * FROM raw.patient")
        dbt.execute("CREATE VIEW public_staging.stg AS SELECT * FROM raw.patient")
        dbt.commit()
        with analyst(analytics) as reader:
            for account, may in (
                (reader, ()),
                (dbt, ("public_staging", "public_intermediate", "public_marts")),
                (loader, ("raw",)),
            ):
                for schema in ("raw", "public_staging", "public_intermediate", "public_marts"):
                    made = allowed(account, f"CREATE TABLE {schema}.other (id int)")
                    assert made is (schema in may), (account.info.user, schema)
                for table in ("raw.patient", "public_marts.dim_patient", "public_staging.stg"):
                    assert allowed(account, f"SELECT * FROM {table}"), (account.info.user, table)
                    schema = table.partition(".")[0]
                    wrote = allowed(account, f"DELETE FROM {table}")
                    # a view of dbt's leads to raw, which is not dbt's to write
                    assert wrote is (schema in may and table != "public_staging.stg")
                assert not allowed(account, "CREATE SCHEMA elsewhere")
                assert not allowed(account, "CREATE TABLE public.other (id int)")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        analytics.connect("passer_by", "opendental_analytics", "words")


def _engines(factory: ConnectionFactory, analytics: PostgreSQLServer) -> None:
    """Plain names mean the schema's own tables, on each of the five engines."""
    with analytics.connect(database="opendental_analytics") as root:
        for schema in ENGINES:
            root.execute(f"CREATE TABLE {schema}.place AS SELECT '{schema}' AS here".encode())
            root.execute(f"CREATE TABLE {schema}.only_{schema} (id int)".encode())
            root.execute(f"GRANT SELECT ON {schema}.place TO analytics_readers".encode())
    for schema, engine in ENGINES.items():
        with getattr(factory, engine)().connect() as connection:
            assert connection.execute(text("SELECT here FROM place")).scalar() == schema
            for other in ENGINES:
                found = connection.execute(text(f"SELECT to_regclass('only_{other}')")).scalar()
                assert (found is not None) is (other == schema)


def test_what_changed_is_set_and_the_sources_administrator_is_told_what_to_run(
    source_db: MySQLDatabase,
    analytics: PostgreSQLServer,
    environment: dict[str, str],
    invoke: Invoke,
) -> None:
    assert invoke("init").exit_code == 0
    with analytics.connect(database="opendental_analytics") as root:  # as dbt once left it
        root.execute('CREATE VIEW public_staging."O\'Hara" AS SELECT 1 AS one')
        root.execute('ALTER VIEW public_staging."O\'Hara" OWNER TO analytics_user')
    environment["MYSQL_REPLICATION_PASSWORD"] = "another-one"
    environment["POSTGRES_ANALYTICS_PASSWORD"] = "yet-another"
    environment["OPENDENTAL_SOURCE_USER"] = "somebody_new"
    told = json.loads(invoke("init", "--json").stdout)
    assert [step["what"] for step in told["steps"] if step["state"] == "done"] == [
        "replication_user@% has the settings' password",
        "analytics_user has the settings' password",
        "what is in public_staging is dbt_user's",
        "analytics_readers read the tables that are in public_staging",
    ]
    users = "SELECT COUNT(*) FROM mysql.user WHERE user = 'somebody_new'"
    assert source_db.query(users) == [(0,)]
    script = told["source"].replace("<password>", environment["OPENDENTAL_SOURCE_PASSWORD"])
    source_db.execute("SET SESSION sql_log_bin = 0")
    for statement in script.splitlines():
        if not statement.startswith("--") and statement:
            source_db.execute(statement)
    again = json.loads(invoke("init", "--json").stdout)
    assert {step["state"] for step in again["steps"]} == {"ok"}
    assert again["source"] == ""
    source_db.execute("DROP USER somebody_new")


def test_a_wrong_administrator_is_told_what_was_given(
    environment: dict[str, str], invoke: Invoke, replica: BinlogServer
) -> None:
    environment["MYSQL_REPLICATION_ADMIN_PASSWORD"] = "not-it"
    refused = invoke("init")
    assert refused.exit_code == 2
    assert "--replica-admin" in refused.stderr
    assert "not-it" not in refused.output
    environment["MYSQL_REPLICATION_ADMIN_PASSWORD"] = (
        replica.directory / "root.password"
    ).read_text()
    environment["POSTGRES_ANALYTICS_ADMIN_PASSWORD"] = "not-it"
    refused = invoke("init", "--only", "analytics")
    assert refused.exit_code == 2
    assert "--analytics-admin" in refused.stderr

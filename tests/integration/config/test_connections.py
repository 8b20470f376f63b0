"""Connections and engines against real servers: what may be written, and where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pymysql
import pytest
import sqlalchemy
from sqlalchemy.exc import DBAPIError

from config.connections import (
    ConnectionFactory,
    connect_mysql,
    connect_postgres,
    connect_source,
)
from config.errors import ConfigError, ConnectionLost, ReplicatorError
from config.settings import (
    LoaderTuning,
    MySQLServer,
    PostgresServer,
    ReplicatorTuning,
    Settings,
)
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.sandbox.servers import BinlogServer
from tests.fix_servers import Pair

READ_ONLY_TRANSACTION = 1792
ALL_ROWS = "SELECT * FROM t"


def mysql_server(role: str, database: MySQLDatabase, **changes: object) -> MySQLServer:
    fields: dict[str, object] = {
        "role": role,
        "host": "127.0.0.1",
        "port": database.server.port,
        "db": database.name,
        "user": database.user,
        "password": database.password,
    }
    return MySQLServer.model_validate({**fields, **changes})


def postgres_server(database: PostgresDatabase, **changes: object) -> PostgresServer:
    fields: dict[str, object] = {
        "host": "127.0.0.1",
        "port": database.server.port,
        "db": database.name,
        "user": database.user,
        "password": database.password,
    }
    return PostgresServer.model_validate({**fields, **changes})


@pytest.fixture
def all_powerful(source_server: BinlogServer, source_db: MySQLDatabase) -> Iterator[MySQLDatabase]:
    """The source's database for an account that nothing but the session keeps from writing."""
    with closing(source_server.connect()) as root, root.cursor() as cursor:
        cursor.execute("CREATE USER writer@'%' IDENTIFIED BY 'may write'")
        cursor.execute(f"GRANT ALL ON `{source_db.name}`.* TO writer@'%'")
        source_db.execute("CREATE TABLE t (id int PRIMARY KEY) ENGINE=MyISAM")
        source_db.execute("CREATE TABLE u (id int PRIMARY KEY) ENGINE=InnoDB")
        source_db.execute("INSERT INTO t VALUES (1)")
        yield MySQLDatabase(source_server, source_db.name, "writer", "may write")
        cursor.execute("DROP USER writer@'%'")


def settings_for(
    source: MySQLDatabase, replica: MySQLDatabase, analytics: PostgresDatabase
) -> Settings:
    return Settings(
        source=mysql_server("source", source),
        replication=mysql_server("replica", replica),
        analytics=postgres_server(analytics),
        replicator=ReplicatorTuning(server_id=77),
        loader=LoaderTuning(server_id=78),
        log_format="json",
    )


@pytest.fixture
def factory(
    all_powerful: MySQLDatabase, replica_db: MySQLDatabase, analytics_db: PostgresDatabase
) -> Iterator[ConnectionFactory]:
    made = ConnectionFactory(settings_for(all_powerful, replica_db, analytics_db))
    yield made
    made.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t VALUES (2)",
        "INSERT INTO u VALUES (2)",
        "UPDATE t SET id = 3",
        "DELETE FROM t",
        "TRUNCATE TABLE t",
        "CREATE TABLE v (id int)",
        "ALTER TABLE t ADD c int",
        "DROP TABLE u",
    ],
)
def test_a_write_through_the_source_engine_fails_at_the_server(
    factory: ConnectionFactory, statement: str
) -> None:
    engine = factory.get_opendental_source_connection()
    for _ in range(2):  # the second time on a connection that came back to the pool
        with engine.connect() as connection:
            with pytest.raises(DBAPIError) as caught:
                connection.execute(sqlalchemy.text(statement))
            assert isinstance(caught.value.orig, pymysql.MySQLError)
            assert caught.value.orig.args[0] == READ_ONLY_TRANSACTION
            connection.rollback()
            assert connection.execute(sqlalchemy.text(ALL_ROWS)).all() == [(1,)]


def test_every_pooled_source_connection_is_read_only(factory: ConnectionFactory) -> None:
    engine = factory.get_opendental_source_connection()
    first, second = engine.connect(), engine.connect()
    with first, second:
        for connection in (first, second):
            question = "SHOW SESSION VARIABLES WHERE Variable_name IN ('tx_read_only',"
            question += " 'transaction_read_only')"  # the newer name is not on every server
            found = connection.execute(sqlalchemy.text(question)).all()
            assert [value for _, value in found] == ["ON"] * len(found) != []


def test_a_raw_source_connection_is_read_only_in_autocommit_too(
    all_powerful: MySQLDatabase,
) -> None:
    server = mysql_server("source", all_powerful)
    with closing(connect_source(server)) as connection, connection.cursor() as cursor:
        with pytest.raises(pymysql.MySQLError) as caught:
            cursor.execute("INSERT INTO t VALUES (2)")
        assert caught.value.args[0] == READ_ONLY_TRANSACTION
        cursor.execute(ALL_ROWS)
        assert cursor.fetchall() == ((1,),)


def test_the_replication_engine_writes_and_commits(
    factory: ConnectionFactory, replica_db: MySQLDatabase
) -> None:
    engine = factory.get_mysql_replication_connection()
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t (id int PRIMARY KEY)"))
        connection.execute(sqlalchemy.text("INSERT INTO t VALUES (5)"))
    assert replica_db.query(ALL_ROWS) == [(5,)]


@pytest.mark.parametrize(
    ("method", "schema"),
    [
        ("get_postgres_analytics_connection", "raw"),
        ("get_opendental_analytics_raw_connection", "raw"),
        ("get_opendental_analytics_public_connection", "public"),
        ("get_opendental_analytics_staging_connection", "public_staging"),
        ("get_opendental_analytics_intermediate_connection", "public_intermediate"),
        ("get_opendental_analytics_marts_connection", "public_marts"),
    ],
)
def test_each_analytics_engine_sees_its_schema_and_no_other(
    factory: ConnectionFactory, analytics_db: PostgresDatabase, method: str, schema: str
) -> None:
    schemas = ("raw", "public", "public_staging", "public_intermediate", "public_marts")
    for name in schemas:
        analytics_db.execute(f'CREATE SCHEMA IF NOT EXISTS "{name}"')
        analytics_db.execute(f'CREATE TABLE "{name}".t (is_in text)')
        analytics_db.execute(f"INSERT INTO \"{name}\".t VALUES ('{name}')")
        analytics_db.execute(f'CREATE TABLE "{name}"."only_{name}" ()')
    with getattr(factory, method)().connect() as connection:
        assert connection.execute(sqlalchemy.text(ALL_ROWS)).all() == [(schema,)]
        connection.rollback()
        seen = "SELECT relname FROM pg_class WHERE pg_table_is_visible(oid) AND relname ~ '^only_'"
        assert connection.execute(sqlalchemy.text(seen)).all() == [(f"only_{schema}",)]


@pytest.mark.parametrize("schema", ["raw", "Raw Data", 'quo"te', "back\\slash", "a,b", "clinic é"])
def test_the_search_path_holds_whatever_the_schema_is_called(
    analytics_db: PostgresDatabase, schema: str
) -> None:
    server = postgres_server(analytics_db, schema_name=schema)
    with connect_postgres(server, autocommit=True) as connection:
        connection.execute(
            psycopg.sql.SQL("CREATE SCHEMA {}").format(psycopg.sql.Identifier(schema))
        )
        found = connection.execute("SELECT current_schema()").fetchone()
        connection.execute("DISCARD ALL")
        assert connection.execute("SELECT current_schema()").fetchone() == found == (schema,)


def test_an_engine_goes_on_after_its_connection_was_killed(
    factory: ConnectionFactory, replica_db: MySQLDatabase
) -> None:
    engine = factory.get_mysql_replication_connection()
    with engine.connect() as connection:
        session = connection.execute(sqlalchemy.text("SELECT CONNECTION_ID()")).scalar_one()
    replica_db.execute("KILL %s", (session,))
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT 1")).scalar() == 1


@pytest.mark.parametrize(
    ("change", "kind", "names"),
    [
        ({"password": "wrong"}, ConfigError, "MYSQL_REPLICATION_PASSWORD"),
        ({"user": "nobody_here"}, ConfigError, "MYSQL_REPLICATION_USER"),
        ({"db": "absent"}, ConfigError, "Grant"),
        ({"port": 1}, ConnectionLost, "MYSQL_REPLICATION_PORT"),
        ({"host": "no-such-host.invalid"}, ConnectionLost, "MYSQL_REPLICATION_HOST"),
        ({"ssl_mode": "required"}, ConfigError, "MYSQL_REPLICATION_SSL_MODE"),
    ],
)
def test_a_wrong_mysql_setting_is_told_with_its_variable_and_without_the_password(
    replica_db: MySQLDatabase,
    change: dict[str, object],
    kind: type[ReplicatorError],
    names: str,
    servers: Pair,
) -> None:
    server = mysql_server("replica", replica_db, **change)
    if "ssl_mode" in change and servers.mysql != "mariadb":  # the newer ones make a key themselves
        connect_mysql(server, database=server.db).close()
        return
    with pytest.raises(kind) as caught:
        connect_mysql(server, database=server.db)
    told = f"{caught.value}{caught.value.hint}"
    assert names in told
    assert told.startswith(server.label)
    assert replica_db.password not in told


@pytest.mark.parametrize(
    ("change", "kind", "names"),
    [
        ({"password": "wrong"}, ConfigError, "POSTGRES_ANALYTICS_PASSWORD"),
        ({"password": ""}, ConfigError, "POSTGRES_ANALYTICS_PASSWORD"),
        ({"user": "nobody_here"}, ConfigError, "POSTGRES_ANALYTICS_USER"),
        ({"db": "absent"}, ConfigError, "POSTGRES_ANALYTICS_DB"),
        ({"port": 1}, ConnectionLost, "POSTGRES_ANALYTICS_PORT"),
        ({"host": "no-such-host.invalid"}, ConnectionLost, "POSTGRES_ANALYTICS_HOST"),
        ({"ssl_mode": "require"}, ConfigError, "POSTGRES_ANALYTICS_SSL_MODE"),
    ],
)
def test_a_wrong_postgres_setting_is_told_with_its_variable_and_without_the_password(
    analytics_db: PostgresDatabase,
    change: dict[str, object],
    kind: type[ReplicatorError],
    names: str,
) -> None:
    server = postgres_server(analytics_db, **change)
    with pytest.raises(kind) as caught:
        connect_postgres(server)
    told = f"{caught.value}{caught.value.hint}"
    assert names in told
    assert told.startswith(server.label)
    assert analytics_db.password not in told

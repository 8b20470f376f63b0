"""The servers that all other tests stand on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pymysql
import pytest

from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.sandbox.postgres import PostgreSQLServer
from replicator.sandbox.reaper import started_at
from replicator.sandbox.servers import BinlogServer
from replicator.sandbox.waiting import DeadlineExpired, wait_until
from tests.fix_servers import NewMariaDB, NewPostgreSQL, Pair


@pytest.mark.parametrize("durable", [True, False])
def test_a_killed_mariadb_comes_back_on_its_port_with_its_data(
    new_mariadb: NewMariaDB, durable: bool
) -> None:
    server = new_mariadb(durable=durable)
    with server.connect() as root, root.cursor() as cursor:
        cursor.execute("CREATE DATABASE kept")
        for engine in ("InnoDB", "MyISAM"):
            cursor.execute(f"CREATE TABLE kept.{engine} (id int PRIMARY KEY) ENGINE={engine}")
            cursor.execute(f"INSERT INTO kept.{engine} VALUES (1), (2)")
    port, pid = server.port, server.pid
    server.kill()
    assert not server.running
    server.start()
    assert server.port == port
    assert server.pid != pid
    with server.connect() as root, root.cursor() as cursor:
        for engine in ("InnoDB", "MyISAM"):
            cursor.execute(f"SELECT id FROM kept.{engine} ORDER BY id")
            assert cursor.fetchall() == ((1,), (2,))


@pytest.mark.parametrize("durable", [True, False])
def test_a_killed_postgresql_comes_back_on_its_port_with_its_data(
    new_postgresql: NewPostgreSQL, durable: bool
) -> None:
    server = new_postgresql(durable=durable)
    with server.connect() as root:
        root.execute("CREATE TABLE kept AS SELECT 1 AS id")
    port, pid = server.port, server.pid
    server.kill()
    server.start()
    assert server.port == port
    assert server.pid != pid
    with server.connect() as root:
        assert root.execute("SELECT id FROM kept").fetchall() == [(1,)]


def test_durable_servers_wait_for_the_disk(
    new_mariadb: NewMariaDB, new_postgresql: NewPostgreSQL
) -> None:
    with new_mariadb(durable=True).connect() as root, root.cursor() as cursor:
        cursor.execute("SELECT @@innodb_flush_log_at_trx_commit, @@sync_binlog")
        assert cursor.fetchone() == (1, 1)
    with new_postgresql(durable=True).connect() as superuser:
        assert superuser.execute("SHOW fsync").fetchone() == ("on",)


def test_two_fresh_databases_have_different_names(
    source_db: MySQLDatabase, replica_db: MySQLDatabase, analytics_db: PostgresDatabase
) -> None:
    assert len({source_db.name, replica_db.name, analytics_db.name}) == 3
    assert source_db.query("SELECT DATABASE()") == [(source_db.name,)]
    assert analytics_db.query("SELECT current_database()") == [(analytics_db.name,)]


def test_the_source_account_may_read_its_database_and_the_binlog_and_nothing_else(
    source_db: MySQLDatabase, servers: Pair
) -> None:
    source_db.execute("CREATE TABLE t (id int)")
    pattern = source_db.name.replace("_", r"\_")
    assert _grants(source_db) == {
        "REPLICATION SLAVE, BINLOG MONITOR ON *.*"
        if servers.family == "mariadb"
        else "REPLICATION SLAVE, REPLICATION CLIENT ON *.*",
        f"SELECT ON `{pattern}`.*",
    }
    with source_db.connect_as_account() as account, account.cursor() as cursor:
        assert cursor.execute("SELECT * FROM t") == 0
        with pytest.raises(pymysql.MySQLError, match="command denied"):
            cursor.execute("INSERT INTO t VALUES (1)")


def test_the_replica_account_has_its_database_and_may_apply_events(
    replica_db: MySQLDatabase, servers: Pair
) -> None:
    pattern = replica_db.name.replace("_", r"\_")
    references = "" if servers.family == "mariadb" else "REFERENCES, "
    mariadb = {"PROCESS, REPLICATION SLAVE, BINLOG MONITOR, BINLOG ADMIN, BINLOG REPLAY ON *.*"}
    mysql = {
        "PROCESS, REPLICATION SLAVE, REPLICATION CLIENT ON *.*",
        "BINLOG_ADMIN,SESSION_VARIABLES_ADMIN ON *.*",
    }
    assert _grants(replica_db) == {
        *(mariadb if servers.family == "mariadb" else mysql),
        f"SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, {references}INDEX, ALTER ON `{pattern}`.*",
    }


def test_the_analytics_account_owns_what_it_creates_and_is_no_superuser(
    analytics_db: PostgresDatabase,
) -> None:
    analytics_db.execute("CREATE SCHEMA raw")
    facts = "rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
    assert analytics_db.query(f"SELECT {facts} FROM pg_roles WHERE rolname=current_user") == [
        (False,)
    ]
    assert analytics_db.query(
        "SELECT count(*) FROM pg_database WHERE datdba=current_user::regrole"
    ) == [(0,)]
    assert analytics_db.query(
        "SELECT nspname FROM pg_namespace WHERE nspowner=current_user::regrole"
    ) == [("raw",)]


def test_a_wrong_password_is_refused_by_both_kinds_of_server(
    source_server: BinlogServer, analytics_server: PostgreSQLServer
) -> None:
    with pytest.raises(pymysql.OperationalError, match="1045"):
        source_server.connect(password="wrong")
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        analytics_server.connect(password="wrong")


def test_servers_end_and_their_data_goes_when_the_process_that_started_them_is_killed(
    tmp_path: Path,
) -> None:
    place = tmp_path / "server"
    program = f"""
import os, signal
from replicator.sandbox.reaper import Reaper
from replicator.sandbox.servers import MariaDBServer
server = MariaDBServer({str(place)!r})
Reaper.ours().remove(server.directory)
server.start()
print(server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    pid = int(ended.stdout)
    wait_until(lambda: started_at(pid) is None, what="the orphaned server to end")
    wait_until(lambda: not place.exists(), what="its directory to be removed")


def test_postgresql_runs_from_a_directory_that_its_own_account_cannot_reach(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o700)
    server = PostgreSQLServer(tmp_path / "private")
    server.start()
    with server.connect() as superuser:
        assert superuser.execute("SELECT 1").fetchone() == (1,)
    data = server.data.resolve()
    server.discard()
    assert not data.exists()


def test_a_server_that_cannot_start_says_why(new_mariadb: NewMariaDB) -> None:
    with pytest.raises(RuntimeError, match="no_such_option=1"):
        new_mariadb({"no_such_option": "1"})


def test_a_deadline_names_what_never_happened() -> None:
    with pytest.raises(DeadlineExpired, match="a blue moon"):
        wait_until(lambda: False, deadline=0.05, what="a blue moon")


def _grants(database: MySQLDatabase) -> set[str]:
    """The account's grants on databases that there are, without the words that say for whom."""
    with database.connect_as_account() as account, account.cursor() as cursor:
        cursor.execute("SHOW GRANTS")
        lines = [line for (line,) in cursor.fetchall()]
    there = {name.replace("_", r"\_") for (name,) in database.query("SHOW DATABASES")}
    scopes = ("*.*", *(f"`{name}`.*" for name in there))
    found = {line.removeprefix("GRANT ").partition(" TO ")[0] for line in lines}
    return {one for one in found if one.endswith(scopes)} - {"USAGE ON *.*"}

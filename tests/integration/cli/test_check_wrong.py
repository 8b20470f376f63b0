"""A setup in which nearly everything is wrong: `check` finds each fault, and its remedies mend it.

The servers are real. Remedies are applied as they are printed: SQL by an administrator, lines of
my.cnf by starting the server again with them, lines of ours in the environment; and nothing else
is done.
"""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest
from typer.testing import CliRunner

from config.settings import known_variables, load_settings
from replicator.cli import app, preflight
from replicator.sandbox.accounts import (
    allow_replica,
    allow_source,
    create_analytics_account,
    create_replica_account,
    create_source_account,
    unlogged,
)
from replicator.sandbox.postgres import PostgreSQLServer
from replicator.sandbox.processes import free_port
from replicator.sandbox.servers import BinlogServer
from tests.fix_servers import NewMariaDB, NewPostgreSQL, family

PASSWORD = "synthetic-password"
MARIADB = family() == "mariadb"

WRONG_SOURCE: dict[str, str | None] = {
    **({} if MARIADB else {"skip_log_bin": None}),
    "binlog_format": "MIXED",
    "binlog_row_image": "MINIMAL",
    "binlog_checksum": "NONE",
    "binlog_expire_logs_seconds": "3600",
    "sync_binlog": "0",
}
WRONG_REPLICA: dict[str, str | None] = {
    "log_bin": "replica-bin",
    "binlog_format": "STATEMENT",
    "binlog_row_image": "MINIMAL",
    "binlog_row_metadata": "NO_LOG" if MARIADB else "MINIMAL",
    "binlog_checksum": "NONE",
    "binlog_expire_logs_seconds": "3600",
    "slave_exec_mode": "IDEMPOTENT",
    "max_allowed_packet": "1048576",
    "innodb_flush_log_at_trx_commit": "2",
    "read_only": "ON",
    **(
        {"mysql56_temporal_format": "OFF"}
        if MARIADB
        else {"binlog_row_value_options": "PARTIAL_JSON"}
    ),
}
ON_EITHER = {
    ("source", "log_bin"),
    ("source", "binlog_format"),
    ("source", "binlog_checksum"),
    ("source", "binlog retention"),
    ("source", "sync_binlog"),
    ("source", "server_id"),
    ("source", "privilege REPLICATION SLAVE"),
    ("source", "privilege BINLOG MONITOR" if MARIADB else "privilege REPLICATION CLIENT"),
    ("source", "too many privileges"),
    ("source", "tables that need a lock"),
    ("source", "foreign keys"),
    ("source", "engines"),
    ("source", "backup databases"),
    ("replica", "binlog_format"),
    ("replica", "binlog_row_image"),
    ("replica", "binlog_row_metadata"),
    ("replica", "binlog_checksum"),
    ("replica", "binlog retention"),
    ("replica", "slave_exec_mode"),
    ("replica", "max_allowed_packet"),
    ("replica", "durability"),
    ("replica", "read_only"),
    ("replica", "server_id"),
    ("replica", "privilege BINLOG REPLAY" if MARIADB else "privilege BINLOG_ADMIN"),
    ("replica", "privilege PROCESS"),
    ("replica", "privilege INSERT"),
    ("replica", "too many privileges"),
    ("analytics", "schema raw"),
    ("analytics", "writable"),
    ("analytics", "durability"),
    ("analytics", "privilege TEMPORARY"),
    ("analytics", "encoding"),
}
PLANTED = ON_EITHER | (
    {("source", "binlog_row_image"), ("replica", "mysql56_temporal_format")}
    if MARIADB
    else {("replica", "binlog_row_value_options")}
)


class Setup:
    """Three servers of the test's own, and our settings."""

    def __init__(
        self, source: BinlogServer, replica: BinlogServer, analytics: PostgreSQLServer
    ) -> None:
        self.servers = {"source": source, "replica": replica}
        self.analytics = analytics
        self.environment = {
            "OPENDENTAL_SOURCE_HOST": "127.0.0.1",
            "OPENDENTAL_SOURCE_PORT": str(source.port),
            "OPENDENTAL_SOURCE_USER": "reader",
            "OPENDENTAL_SOURCE_PASSWORD": PASSWORD,
            "MYSQL_REPLICATION_HOST": "127.0.0.1",
            "MYSQL_REPLICATION_PORT": str(replica.port),
            "MYSQL_REPLICATION_USER": "writer",
            "MYSQL_REPLICATION_PASSWORD": PASSWORD,
            "POSTGRES_ANALYTICS_HOST": "127.0.0.1",
            "POSTGRES_ANALYTICS_PORT": str(analytics.port),
            "POSTGRES_ANALYTICS_USER": "loader",
            "POSTGRES_ANALYTICS_PASSWORD": PASSWORD,
            "REPLICATOR_SERVER_ID": "1",  # the source's
            "REPLICATOR_METRICS_PORT": str(free_port()),
            "LOADER_METRICS_PORT": str(free_port()),
        }

    def sql(self, server: str, *statements: str) -> None:
        """As an administrator, each in a transaction of its own."""
        if server == "analytics":
            with closing(self.analytics.connect()) as root:
                for statement in statements:
                    root.execute(statement.encode())
            return
        with closing(self.servers[server].connect()) as root, unlogged(root) as cursor:
            for statement in statements:
                cursor.execute(statement)

    def my_cnf(self, server: str, lines: list[str]) -> None:
        """Start a server again with these lines in its my.cnf."""
        one = self.servers[server]
        for line in lines:
            name, _, value = line.partition("=")
            if name == "server_id":
                one.server_id = int(value)
            else:
                one.options[name] = value
        if any(line.startswith("log_bin=") for line in lines):
            one.options.pop("skip_log_bin", None)
        one.stop()
        one.start()

    def set(self, lines: list[str]) -> None:
        self.environment.update(line.split("=", 1) for line in lines)


def plant(setup: Setup) -> None:
    """Accounts and tables as somebody made them who knew half of it."""
    for name, create, allow, database in (
        ("source", create_source_account, allow_source, "opendental"),
        ("replica", create_replica_account, allow_replica, "opendental_replication"),
    ):
        user = "reader" if name == "source" else "writer"
        with closing(setup.servers[name].connect()) as root:
            create(root, user, PASSWORD)
            allow(root, user, database)
    setup.sql(
        "source",
        "CREATE DATABASE opendental",
        "CREATE DATABASE opendentalbackup_01_31_2026",
        "CREATE TABLE opendental.preference (PrefNum bigint PRIMARY KEY, PrefName varchar(255),"
        " ValueString text) ENGINE=InnoDB",
        "INSERT INTO opendental.preference VALUES (1, 'ProgramVersion', '24.1.1.0')",
        "CREATE TABLE opendental.screen (a int) ENGINE=MyISAM",
        "CREATE TABLE opendental.board (a int PRIMARY KEY) ENGINE=MEMORY",
        "CREATE TABLE opendental.parent (a int PRIMARY KEY) ENGINE=InnoDB",
        "CREATE TABLE opendental.child (a int PRIMARY KEY, CONSTRAINT of_parent FOREIGN KEY (a)"
        " REFERENCES opendental.parent (a)) ENGINE=InnoDB",
        f"REVOKE {'BINLOG MONITOR' if MARIADB else 'REPLICATION CLIENT'}, REPLICATION SLAVE"
        " ON *.* FROM reader",
        "GRANT DELETE, FILE ON *.* TO reader",
    )
    setup.sql(
        "replica",
        "CREATE DATABASE opendental_replication",
        f"REVOKE {'BINLOG REPLAY' if MARIADB else 'BINLOG_ADMIN'}, PROCESS ON *.* FROM writer",
        r"REVOKE INSERT ON `opendental\_replication`.* FROM writer",
        "GRANT SHUTDOWN ON *.* TO writer",
    )
    with closing(setup.analytics.connect()) as root:
        create_analytics_account(root, "loader", PASSWORD)
    setup.sql(
        "analytics",
        "CREATE DATABASE opendental_analytics ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
        " TEMPLATE template0",
        "REVOKE ALL ON DATABASE opendental_analytics FROM PUBLIC",
        "GRANT CONNECT ON DATABASE opendental_analytics TO loader",
        "ALTER DATABASE opendental_analytics SET default_transaction_read_only = on",
        "ALTER SYSTEM SET fsync = off",
        "SELECT pg_reload_conf()",
    )


def report(setup: Setup, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    for name in known_variables():
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(app, ["check", "--json", *words], env=setup.environment)
    assert result.output.startswith("{"), result.output
    document: dict[str, Any] = json.loads(result.output)
    wanted = {"ok": 0, "warn": int("--strict" in words), "fail": 1}[document["verdict"]]
    assert result.exit_code == wanted
    return document


def wrong(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (found["server"], found["check"]): found
        for found in document["findings"]
        if found["verdict"] != "ok" and found["server"] != "here"
    }


def mend(setup: Setup, faults: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Everything that was printed, as it was printed; each server is restarted once at most."""
    for server in ("source", "replica", "analytics"):
        ours = [found for (where, _), found in faults.items() if where == server]
        for found in ours:
            assert found["sql"] or found["my_cnf"] or found["settings"], found
            setup.sql(server, *found["sql"])
            setup.set(found["settings"])
        lines = [line for found in ours for line in found["my_cnf"]]
        if lines:
            setup.my_cnf(server, lines)


def test_every_planted_fault_is_found_and_the_printed_remedies_mend_it(
    new_mariadb: NewMariaDB, new_postgresql: NewPostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(
        new_mariadb(WRONG_SOURCE, server_id=1, durable=True),
        new_mariadb(WRONG_REPLICA, server_id=1, durable=True),
        new_postgresql(durable=True),
    )
    plant(setup)
    first = wrong(report(setup, monkeypatch))
    assert set(first) == PLANTED
    assert len(PLANTED) >= 20
    for fault in first.values():
        assert fault["needed"], fault
        assert PASSWORD not in json.dumps(fault)
    mend(setup, first)
    left = wrong(report(setup, monkeypatch, "--strict"))
    assert set(left) <= UNSEEN_BEFORE
    mend(setup, left)
    assert wrong(report(setup, monkeypatch, "--strict")) == {}
    preflight.check(load_settings(None, setup.environment))  # the replicator would begin


UNSEEN_BEFORE: set[tuple[str, str]] = set()
"""Faults that can be seen only when others are mended."""

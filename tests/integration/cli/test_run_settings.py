"""Every setting wrong in turn: `replicator run` tells the remedy, exits with 2, keeps secrets."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from replicator.grants import source_privileges
from replicator.sandbox.accounts import (
    allow_source,
    create_source_account,
    unlogged,
)
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.processes import free_port
from replicator.sandbox.servers import SOURCE_OPTIONS, BinlogServer
from replicator.source import identify

Run = Callable[..., subprocess.CompletedProcess[str]]
WRONG_SECRET = "not-the-password"


def refused(answer: subprocess.CompletedProcess[str], environment: dict[str, str]) -> str:
    """The message, once it is sure that it is one, without a traceback and without a secret."""
    said = answer.stdout + answer.stderr
    assert answer.returncode == 2, said
    assert "Traceback" not in said
    assert [n for n, v in environment.items() if n.endswith("PASSWORD") and v in said] == []
    messages = [line for line in answer.stderr.splitlines() if line.startswith("replicator: ")]
    assert len(messages) == 1, said
    return answer.stderr


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("OPENDENTAL_SOURCE_PORT", "fish", "OPENDENTAL_SOURCE_PORT=fish"),
        ("MYSQL_REPLICATION_PORT", "99999", "MYSQL_REPLICATION_PORT=99999"),
        ("OPENDENTAL_SOURCE_PASSWORD", "", "OPENDENTAL_SOURCE_PASSWORD is missing"),
        ("POSTGRES_ANALYTICS_HOST", "", "POSTGRES_ANALYTICS_HOST is missing"),
        ("OPENDENTAL_SOURCE_PASSWORD", WRONG_SECRET, "OPENDENTAL_SOURCE_PASSWORD"),
        ("MYSQL_REPLICATION_PASSWORD", WRONG_SECRET, "MYSQL_REPLICATION_PASSWORD"),
        ("OPENDENTAL_SOURCE_HOST", "no-such-host.invalid", "OPENDENTAL_SOURCE_HOST"),
        ("OPENDENTAL_SOURCE_DB", "elsewhere", "OPENDENTAL_SOURCE_DB"),
        ("REPLICATOR_TABLES", "/no/such/tables.toml", "REPLICATOR_TABLES=/no/such/tables.toml"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(
    variable: str, value: str, told: str, environment: dict[str, str], run_process: Run
) -> None:
    environment[variable] = value
    if not value:
        del environment[variable]
    assert told in refused(run_process(environment, "run"), environment)


@pytest.mark.parametrize("server", ["OPENDENTAL_SOURCE", "MYSQL_REPLICATION"])
def test_a_server_that_is_not_there_at_the_start_is_told_at_once(
    server: str, environment: dict[str, str], run_process: Run
) -> None:
    environment[f"{server}_PORT"] = str(free_port())
    said = refused(run_process(environment, "run"), environment)
    assert f"{server}_HOST and {server}_PORT" in said
    assert '"halted"' in said


def test_a_metrics_port_in_use_is_named(environment: dict[str, str], run_process: Run) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        environment["REPLICATOR_METRICS_PORT"] = str(taken.getsockname()[1])
        said = refused(run_process(environment, "run"), environment)
    assert "REPLICATOR_METRICS_PORT" in said


@pytest.fixture
def account(source_db: MySQLDatabase) -> Iterator[Callable[..., str]]:
    """Make an account with these grants only; the password is its name."""
    made: list[str] = []

    def make(name: str, grants: dict[str, str]) -> str:
        with closing(source_db.server.connect()) as root, unlogged(root) as cursor:
            cursor.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (name, f"pw-{name}"))
            made.append(name)
            for what, where in grants.items():
                cursor.execute(f"GRANT {what} ON {where} TO {name}@'%'")
        return name

    yield make
    with closing(source_db.server.connect()) as root, unlogged(root) as cursor:
        for name in made:
            cursor.execute("DROP USER %s@'%%'", (name,))


@pytest.mark.parametrize("at", [0, 1, 2], ids=["to read", "to follow", "to monitor"])
def test_a_missing_grant_is_named_with_the_line_to_paste(
    at: int,
    environment: dict[str, str],
    source_db: MySQLDatabase,
    account: Callable[..., str],
    run_process: Run,
) -> None:
    source_db.execute("CREATE TABLE patient (PatNum int PRIMARY KEY)")
    with closing(source_db.server.connect()) as root:
        everywhere = [p.word for p in source_privileges(identify(root)) if p.everywhere]
    grants = {"SELECT": f"`{source_db.name}`.*", **dict.fromkeys(everywhere, "*.*")}
    lacking = list(grants)[at]
    del grants[lacking]
    name = account(f"lacks_{at}", grants)
    environment["OPENDENTAL_SOURCE_USER"] = name
    environment["OPENDENTAL_SOURCE_PASSWORD"] = f"pw-{name}"
    said = refused(run_process(environment, "run"), environment)
    assert f"GRANT {lacking} ON" in said
    assert f"TO '{name}'@'%'" in said


def test_a_source_that_logs_statements_is_refused_with_the_line_to_change(
    environment: dict[str, str], new_mariadb: Callable[..., BinlogServer], run_process: Run
) -> None:
    server = new_mariadb(options={**SOURCE_OPTIONS, "binlog_format": "STATEMENT"})
    with closing(server.connect()) as root:
        create_source_account(root, "readonly_user", environment["OPENDENTAL_SOURCE_PASSWORD"])
        root.cursor().execute("CREATE DATABASE opendental")
        allow_source(root, "readonly_user", "opendental")
    environment["OPENDENTAL_SOURCE_PORT"] = str(server.port)
    environment["OPENDENTAL_SOURCE_DB"] = "opendental"
    said = refused(run_process(environment, "run"), environment)
    assert "binlog_format is STATEMENT (set binlog_format=ROW)" in said

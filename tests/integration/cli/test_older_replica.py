"""A replica of an older series than its source: told by `check`, refused by `run`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from replicator.sandbox.accounts import allow_replica, create_replica_account
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.servers import REPLICA_OPTIONS, BinlogServer, new_server

pytestmark = pytest.mark.only_on("mariadb-11.8", reason="an older MariaDB is on every machine")


@pytest.fixture
def older(server_directory: Path) -> Iterator[BinlogServer]:
    server = new_server(
        "mariadb", server_directory / "older-replica", options=REPLICA_OPTIONS, server_id=32
    )
    server.start()
    yield server
    server.discard()


def test_it_is_named_with_both_versions_and_the_remedy(
    older: BinlogServer,
    source_db: MySQLDatabase,
    environment: dict[str, str],
    run_process: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    user, password = (
        environment["MYSQL_REPLICATION_USER"],
        environment["MYSQL_REPLICATION_PASSWORD"],
    )
    with closing(older.connect()) as root, root.cursor() as cursor:
        create_replica_account(root, user, password)
        allow_replica(root, user, environment["MYSQL_REPLICATION_DB"])
        cursor.execute("SELECT VERSION()")
        ((here,),) = cursor.fetchall()
    ((there,),) = source_db.query("SELECT VERSION()")
    environment["MYSQL_REPLICATION_PORT"] = str(older.port)

    refused = run_process(environment, "run")
    assert refused.returncode == 2
    assert f"the replica ({here}) is older than its source ({there})" in refused.stderr
    assert "MariaDB 11.8 or newer" in refused.stderr
    assert "Traceback" not in refused.stderr
    with closing(older.connect()) as root, root.cursor() as cursor:
        cursor.execute("SHOW DATABASES LIKE 'opendental%%'")
        assert cursor.fetchall() == ()  # nothing was begun there

    checked = run_process(environment, "check", "--json")
    found = [f for f in json.loads(checked.stdout)["findings"] if f["verdict"] == "fail"]
    version = next(f for f in found if (f["server"], f["check"]) == ("replica", "version"))
    assert version["found"] == here
    assert there in version["needed"]

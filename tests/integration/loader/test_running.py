"""The loader as a process: killed, cut off, started twice, started wrongly."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import Any

import pytest

from config.errors import AlreadyRunning
from config.settings import Settings
from loader import session
from loader.daemon import Loader
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.sandbox.servers import BinlogServer
from tests.numbers import numbers

from .conftest import Harness, Replica, Start

Wait = Callable[..., Any]


def _reached(replica: Replica, raw: PostgresDatabase) -> bool:
    found = raw.query(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = 'raw'"
        " AND table_name = 'etl_binlog_offset'"
    ) and raw.query("SELECT source_binlog_position FROM raw.etl_binlog_offset")
    loading = found and raw.query(
        "SELECT 1 FROM raw.etl_transform_status WHERE transformation_status <> 'streaming'"
    )
    return bool(found) and found[0][0] == replica.position and not loading


def test_killed_at_random_moments_nothing_is_lost_or_doubled(
    replica: Replica, harness: Harness, start: Start, wait_until: Wait
) -> None:
    choose = random.Random(7)
    replica.create("t", "id int PRIMARY KEY, v int, t varchar(100)")
    replica.create("k", "v int")
    replica.commit(f"INSERT INTO t SELECT seq, seq, REPEAT('x', 50) FROM {numbers(1, 3000)}")
    for number in range(20):
        process = start()
        for step in range(choose.randrange(5, 40)):
            row = choose.randrange(1, 4000)
            replica.commit(
                f"UPDATE t SET v = {number * 100 + step} WHERE id = {row}",
                f"REPLACE INTO t (id, v, t) VALUES ({choose.randrange(1, 9000)}, 1, 'new')",
                f"DELETE FROM t WHERE id = {choose.randrange(1, 9000)}",
                f"INSERT INTO k VALUES ({step % 3})",
                "DELETE FROM k WHERE v = 1 LIMIT 1",
            )
        if number == 10:
            replica.ddl("ALTER TABLE t ADD COLUMN extra int DEFAULT 3")
        if number % 4:
            process.kill()
        else:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    start()
    wait_until(lambda: _reached(replica, harness.raw), deadline=60, what="raw at the end")
    wait_until(lambda: _reached(replica, harness.raw), deadline=60, what="raw at the end")
    harness.assert_same("t", "k")


def test_sigterm_ends_the_process_cleanly(
    replica: Replica, harness: Harness, start: Start, wait_until: Wait
) -> None:
    process = start()
    wait_until(lambda: _reached(replica, harness.raw), deadline=30, what="raw is reached")
    process.send_signal(signal.SIGTERM)
    _out, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in said


def test_a_second_loader_is_told_that_it_is_one_too_many(
    replica: Replica, harness: Harness, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.catch_up()
    monkeypatch.setattr(session, "LOCK_WAIT_SECONDS", 0.5)
    second = Loader(settings)
    with pytest.raises(AlreadyRunning, match="another loader"):
        second.step()


def test_a_lost_connection_to_postgresql_is_waited_out(
    replica: Replica, harness: Harness, start: Start, wait_until: Wait
) -> None:
    replica.create("t", "id int PRIMARY KEY")
    start()
    wait_until(lambda: _reached(replica, harness.raw), deadline=30, what="raw is reached")
    for number in range(3):
        with harness.raw.server.connect() as root:
            root.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND application_name LIKE 'loader%%'",
                [harness.raw.name],
            )
        replica.commit(f"INSERT INTO t VALUES ({number})")
        wait_until(lambda: _reached(replica, harness.raw), deadline=30, what="raw goes on")
    harness.assert_same("t")


def test_a_purged_replica_binlog_ends_in_a_reload_of_everything(
    replica: Replica, harness: Harness
) -> None:
    replica.create("t", "id int PRIMARY KEY, v int")
    replica.commit("INSERT INTO t VALUES (1, 1), (2, 2)")
    harness.catch_up()
    harness.loader.close()
    replica.commit("DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (3, 3)")
    replica.database.execute("FLUSH BINARY LOGS")
    last = replica.database.binlog_end()[0]
    replica.database.execute(f"PURGE BINARY LOGS TO '{last}'")
    harness.restart()
    harness.step_until(lambda: harness.raw_rows("t") == harness.replica_rows("t"))
    replica.commit("UPDATE t SET v = 9")
    harness.catch_up()
    harness.assert_same("t")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"POSTGRES_ANALYTICS_PASSWORD": "wrong-Secret7"}, "POSTGRES_ANALYTICS_PASSWORD"),
        ({"MYSQL_REPLICATION_PASSWORD": "wrong-Secret7"}, "MYSQL_REPLICATION_PASSWORD"),
        ({"POSTGRES_ANALYTICS_DB": "no_such_db"}, "no_such_db"),
        ({"MYSQL_REPLICATION_PORT": "port"}, "MYSQL_REPLICATION_PORT"),
        ({"LOADER_BATCH_ROWS": "0"}, "LOADER_BATCH_ROWS"),
        ({"MYSQL_REPLICATION_PASSWORD": ""}, "MYSQL_REPLICATION_PASSWORD"),
    ],
)
def test_a_wrong_setting_is_one_message_and_exit_code_2(
    start: Start, replica: Replica, overrides: dict[str, str], said: str
) -> None:
    process = start(**overrides)
    _out, error = process.communicate(timeout=30)
    assert process.returncode == 2
    assert said in error
    assert "Traceback" not in error
    assert "wrong-Secret7" not in error


def test_a_replica_with_minimal_metadata_is_refused(
    replica: Replica,
    start: Start,
    replica_db: MySQLDatabase,
    new_mariadb: Callable[..., BinlogServer],
) -> None:
    server = new_mariadb(server_id=3)
    with server.connect() as root, root.cursor() as cursor:
        cursor.execute("CREATE USER plain IDENTIFIED BY 'plain'")
        cursor.execute("GRANT ALL ON *.* TO plain")
    process = start(
        MYSQL_REPLICATION_PORT=str(server.port),
        MYSQL_REPLICATION_USER="plain",
        MYSQL_REPLICATION_PASSWORD="plain",
    )
    _out, error = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "binlog_row_metadata" in error

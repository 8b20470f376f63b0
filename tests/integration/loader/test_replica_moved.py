"""The replica is not what it was: noticed, and reloaded without a hand."""

from __future__ import annotations

import time
from contextlib import closing, suppress

from structlog.testing import capture_logs

from config.errors import Transient

from .conftest import Harness, Replica


def _begin_anew(harness: Harness) -> None:
    second = int(time.time())
    end = time.monotonic() + 5
    while int(time.time()) == second:
        assert time.monotonic() < end
    harness.replica.database.forget_binlogs()


def test_a_replica_whose_binlog_began_anew_is_reloaded_though_the_position_is_there(
    replica: Replica, harness: Harness
) -> None:
    replica.create("t", "id int PRIMARY KEY, v int")
    _begin_anew(harness)
    replica.commit("INSERT INTO t VALUES (1, 1), (2, 2)")
    harness.catch_up()
    harness.loader.close()
    before = replica.database.binlog_end()
    _begin_anew(harness)
    replica.commit("INSERT INTO t VALUES (3, 3), (4, 4)")
    assert replica.database.binlog_end() == before
    replica.commit("UPDATE t SET v = 9 WHERE id < 3")
    harness.restart()
    with capture_logs() as logs:
        harness.catch_up()
    harness.assert_same("t")
    assert [line["event"] for line in logs].count("replica_position_lost") == 1


def test_a_replica_whose_binlog_begins_anew_under_the_stream_is_reloaded(
    replica: Replica, harness: Harness
) -> None:
    replica.create("t", "id int PRIMARY KEY, v int")
    _begin_anew(harness)
    replica.commit("INSERT INTO t VALUES (1, 1), (2, 2)")
    harness.catch_up()
    _begin_anew(harness)
    harness.step_until(lambda: harness.raw_rows("t") == harness.replica_rows("t"))
    replica.commit("UPDATE t SET v = 9 WHERE id < 2")
    end = time.monotonic() + 30
    while harness.raw_rows("t") != harness.replica_rows("t"):
        assert time.monotonic() < end
        with suppress(Transient):  # the daemon waits and tries again
            harness.loader.step()


def test_a_transaction_that_the_replicas_binlog_lost_is_noticed_and_reloaded(
    replica: Replica, harness: Harness
) -> None:
    """What a replica leaves that is killed without sync_binlog=1: rows, and no trace of them."""
    replica.create("t", "id int PRIMARY KEY, v int")
    replica.create("keyless", "v int")
    replica.commit("INSERT INTO t VALUES (1, 1), (2, 2)")
    harness.catch_up()
    replica.commit("INSERT INTO keyless VALUES (1)")
    harness.catch_up()
    with closing(replica.database.connect(autocommit=False)) as connection:
        cursor = connection.cursor()
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute("UPDATE t SET v = 5 WHERE id = 1")
        cursor.execute("INSERT INTO keyless VALUES (7)")
        replica.move(cursor)
        connection.commit()
    replica.commit("INSERT INTO t VALUES (3, 3)")
    with capture_logs() as logs:
        harness.catch_up()
    harness.assert_same("t", "keyless")
    (lost,) = [line for line in logs if line["event"] == "replica_position_lost"]
    assert "leaves out" in lost["reason"]
    with capture_logs() as logs:
        replica.commit("INSERT INTO t VALUES (4, 4)", "INSERT INTO keyless VALUES (8)")
        harness.restart()
        replica.commit("INSERT INTO t VALUES (5, 5)")
        harness.catch_up()
    harness.assert_same("t", "keyless")
    assert "replica_position_lost" not in [line["event"] for line in logs]


def test_a_replica_set_up_again_is_reloaded(replica: Replica, harness: Harness) -> None:
    replica.create("t", "id int PRIMARY KEY, v int")
    replica.commit("INSERT INTO t VALUES (1, 1), (2, 2)")
    harness.catch_up()
    harness.raw.execute("UPDATE raw.etl_binlog_offset SET replica_server_id = 99")
    replica.commit("UPDATE t SET v = 3")
    harness.restart()
    with capture_logs() as logs:
        harness.catch_up()
    harness.assert_same("t")
    assert "replica_changed" in [line["event"] for line in logs]


def test_positions_of_an_older_version_are_taken_over(replica: Replica, harness: Harness) -> None:
    replica.create("t", "id int PRIMARY KEY, v int")
    replica.commit("INSERT INTO t VALUES (1, 1), (2, 2)")
    harness.catch_up()
    harness.loader.close()
    for column in ("binlog_created", "chained"):
        harness.raw.execute(f"ALTER TABLE raw.etl_binlog_offset DROP COLUMN {column}")
    replica.commit("UPDATE t SET v = 3")
    replica.database.execute(
        "ALTER TABLE etl_binlog_offset ADD COLUMN binlog_created bigint unsigned NOT NULL DEFAULT 0"
    )
    replica.commit("UPDATE t SET v = 4 WHERE id = 2")
    harness.restart()
    with capture_logs() as logs:
        harness.catch_up()
    harness.assert_same("t")
    assert "replica_position_lost" not in [line["event"] for line in logs]
    ((created, chained),) = harness.raw.query(
        "SELECT binlog_created, chained FROM raw.etl_binlog_offset"
    )
    assert created > 0
    assert chained

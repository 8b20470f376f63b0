"""`wait`, `status`, `resync` and `ELTPipeline` on real servers, with daemons up, down and away."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing

import pytest
from typer.testing import Result

from config.connections import connect_postgres
from config.settings import Settings
from loader.tracking import lock_writer
from replicator.cli.observation import Observer
from replicator.pipeline import ELTPipeline
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.sandbox.processes import free_port
from replicator.sandbox.waiting import wait_until

Invoke = Callable[..., Result]


@pytest.fixture
def practice(source_db: MySQLDatabase) -> MySQLDatabase:
    source_db.execute("CREATE TABLE patient (PatNum int PRIMARY KEY, LName varchar(20))")
    source_db.execute("INSERT INTO patient VALUES (1, 'Synthetic-1'), (2, 'Synthetic-2')")
    return source_db


def test_a_pipeline_in_one_process_extracts_loads_and_resyncs(
    practice: MySQLDatabase, analytics_db: PostgresDatabase, pipeline: ELTPipeline
) -> None:
    pipeline.extract()
    pipeline.load()
    names = 'SELECT "PatNum", "LName" FROM raw.patient ORDER BY 1'
    assert analytics_db.query(names) == practice.query("SELECT * FROM patient ORDER BY 1")
    practice.execute("UPDATE patient SET LName = 'Synthetic-new' WHERE PatNum = 2")
    analytics_db.execute('UPDATE raw.patient SET "LName" = \'wrong\' WHERE "PatNum" = 1')
    pipeline.resync(["patient"])
    pipeline.extract()
    pipeline.load()
    assert analytics_db.query(names) == practice.query("SELECT * FROM patient ORDER BY 1")
    assert pipeline.status()["resyncs"] == []
    assert pipeline.source_engine.url.database == pipeline.source_db
    assert pipeline.analytics_schema == "raw"


def test_extract_returns_when_it_is_told_to_stop(
    practice: MySQLDatabase, pipeline: ELTPipeline
) -> None:
    stop = threading.Event()
    stop.set()
    pipeline.extract(stop)
    assert pipeline.status()["replicator"]["running"] is False


def test_both_daemons_are_seen_awaited_and_end_in_good_order(
    practice: MySQLDatabase,
    analytics_db: PostgresDatabase,
    daemons: Callable[..., subprocess.Popen[bytes]],
    invoke: Invoke,
) -> None:
    replicator, loader = daemons("replicator.cli"), daemons("loader.cli")
    assert invoke("wait", "--timeout", "60").exit_code == 0

    (table,) = json.loads(invoke("status", "--json").stdout)["tables"]
    assert table["raw"] == "streaming"  # a position alone would not have told
    practice.execute("INSERT INTO patient VALUES (3, 'Synthetic-3')")
    answer = invoke("wait", "--json", "--timeout", "30")
    assert json.loads(answer.stdout)["arrived"] is True
    assert analytics_db.query("SELECT count(*) FROM raw.patient") == [(3,)]

    found = invoke("status", "--json")
    assert found.exit_code == 0, found.output
    status = json.loads(found.stdout)
    assert status["healthy"] is True
    assert status["replicator"]["lag_bytes"] == 0
    assert status["loader"]["lag_seconds"] == 0
    assert status["loader"]["transactions_per_second"] is not None

    (before,) = status["tables"]
    assert before["replica_schema_hash"] == before["raw_schema_hash"] is not None
    practice.execute("RENAME TABLE patient TO patient_old")

    def stands() -> bool:
        tables = {t["name"]: t for t in json.loads(invoke("status", "--json").stdout)["tables"]}
        return tables["patient"].get("renamed_to") == "patient_old"

    wait_until(stands, 30, "the old name to stand")
    assert "was renamed" in invoke("status").stdout.replace("\n", " ")
    practice.execute("RENAME TABLE patient_old TO patient")
    practice.execute("ALTER TABLE patient ADD Note varchar(20) NOT NULL DEFAULT ''")
    assert invoke("wait", "--timeout", "30").exit_code == 0
    (after,) = (
        table
        for table in json.loads(invoke("status", "--json").stdout)["tables"]
        if table["name"] == "patient"
    )
    assert after["replica_schema_hash"] == after["raw_schema_hash"] != before["raw_schema_hash"]
    assert after["schema_changed_at"] > before["schema_changed_at"]
    everything = invoke("status", "--tables").stdout
    assert after["raw_schema_hash"][:8] in everything

    renewed = invoke("resync", "patient", "--wait", "--timeout", "60")
    assert renewed.exit_code == 0, renewed.output
    assert "patient: done" in renewed.stdout
    assert "not running" not in renewed.stdout

    for process in (replicator, loader):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_second_replicator_is_refused_while_one_runs(
    practice: MySQLDatabase, environment: dict[str, str], settings: Settings
) -> None:
    connection = practice.server  # the lock's name is what matters: see replica.take_lock
    assert connection.running
    with Observer(settings) as observer:
        assert observer.replicator_runs() is False
        with closing(observer.replica.__class__(**_same(settings))) as other:
            name = f"opendental-replicator/main/{settings.replication.db}"[:64]
            other.cursor().execute("SELECT GET_LOCK(%s, 0)", (name,))
            assert observer.replicator_runs() is True
        wait_until(lambda: not observer.replicator_runs(), 5, "the lock to be given back")


def _same(settings: Settings) -> dict[str, object]:
    server = settings.replication
    return {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password.get_secret_value(),
    }


def test_the_loaders_lock_is_seen(settings: Settings, analytics_db: PostgresDatabase) -> None:
    server = settings.analytics
    with Observer(settings) as observer:
        assert observer.loader_runs() is False
        with closing(connect_postgres(server)) as connection:
            lock_writer(connection, server.db, server.schema_name, 1)
            assert observer.loader_runs() is True
        wait_until(lambda: not observer.loader_runs(), 5, "the lock to be given back")


def test_waiting_in_vain_says_which_leg_lags_and_that_it_is_down(
    practice: MySQLDatabase, pipeline: ELTPipeline, invoke: Invoke
) -> None:
    before = invoke("wait", "--timeout", "0.1")
    assert before.exit_code == 1
    assert "the replicator has never copied anything yet and is not running" in before.stderr
    pipeline.extract()
    pipeline.load()
    practice.execute("INSERT INTO patient VALUES (3, 'Synthetic-3')")
    pipeline.extract()
    after = invoke("wait", "--timeout", "0.1")
    assert after.exit_code == 1
    assert "the loader is not running; raw shows" in after.stderr
    assert "the replicator" not in after.stderr


def test_status_is_honest_about_what_is_down_or_away(
    practice: MySQLDatabase, environment: dict[str, str], pipeline: ELTPipeline, invoke: Invoke
) -> None:
    pipeline.extract()
    pipeline.load()
    down = invoke("status")
    assert down.exit_code == 1
    assert down.stdout.count("DOWN") == 2
    environment["OPENDENTAL_SOURCE_PORT"] = str(free_port())
    away = json.loads(invoke("status", "--json").stdout)
    assert away["source_position"] is None
    assert away["replicator"]["lag_bytes"] is None
    assert away["replicator"]["position"] is not None
    assert [table["raw"] for table in away["tables"]] == ["streaming"]
    assert len(away["unreachable"]) == 1
    assert "source 127.0.0.1" in away["unreachable"][0]


def test_a_resync_without_daemons_is_queued_once_and_says_so(
    practice: MySQLDatabase, pipeline: ELTPipeline, invoke: Invoke
) -> None:
    pipeline.extract()
    for _ in range(2):
        answer = invoke("resync", "patient")
        assert answer.exit_code == 0
        assert "not running: replicator, loader; the request is queued" in answer.stdout
    resyncs = json.loads(invoke("status", "--json").stdout)["resyncs"]
    assert [(r["table"], r["state"]) for r in resyncs] == [("patient", "queued")]
    late = invoke("resync", "patient", "--wait", "--timeout", "0.5")
    assert late.exit_code == 1
    assert "not done in time: patient" in late.stderr


def test_a_resync_of_an_unknown_table_names_near_ones(
    practice: MySQLDatabase, pipeline: ELTPipeline, invoke: Invoke
) -> None:
    pipeline.extract()
    answer = invoke("resync", "pateint")
    assert answer.exit_code == 2
    assert "no table pateint is carried; did you mean patient?" in answer.stderr


def test_a_resync_of_a_table_that_vanished_fails_with_the_reason(
    practice: MySQLDatabase, replica_db: MySQLDatabase, pipeline: ELTPipeline, invoke: Invoke
) -> None:
    pipeline.extract()
    invoke("resync", "patient")
    replica_db.execute(
        "UPDATE etl_resync_request SET state = 'failed', message = 'not on the source any more'"
    )
    shown = invoke("status").stdout
    assert "resync patient" in shown
    assert "not on the source any more" in shown


def test_a_resync_before_the_first_start_says_that_everything_is_copied_anyway(
    practice: MySQLDatabase, invoke: Invoke
) -> None:
    answer = invoke("resync", "patient")
    assert answer.exit_code == 2
    assert "its first start copies every table anyway" in answer.stderr

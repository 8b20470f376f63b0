"""`pause`, `resume` and `throttle` on real daemons: positions are kept, and nothing flows."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from config.settings import Settings
from replicator.cli.observation import Observer
from replicator.pipeline import ELTPipeline
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.sandbox.waiting import wait_until
from tests.integration.cli.conftest import Invoke

Daemons = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def practice(source_db: MySQLDatabase) -> MySQLDatabase:
    source_db.execute("CREATE TABLE patient (PatNum int PRIMARY KEY, LName varchar(20))")
    source_db.execute("INSERT INTO patient VALUES (1, 'Synthetic-1')")
    return source_db


def ask(environment: dict[str, str], leg: str, path: str) -> tuple[int, str]:
    port = int(environment[f"{leg.upper()}_METRICS_PORT"])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def metric(environment: dict[str, str], leg: str, name: str) -> float | None:
    _, text = ask(environment, leg, "/metrics")
    found = [line for line in text.splitlines() if line.startswith(name)]
    return float(found[0].rpartition(" ")[2]) if found else None


def connections_of(database: MySQLDatabase, name: str) -> list[tuple[object, ...]]:
    """The account's, as its server has them; it notices a closed one in its own time."""
    return database.query(
        "SELECT id, command, time, state FROM information_schema.processlist WHERE user = %s",
        (name,),
    )


def test_paused_daemons_rest_through_a_restart_and_go_on_where_they_were(
    practice: MySQLDatabase,
    analytics_db: PostgresDatabase,
    environment: dict[str, str],
    daemons: Daemons,
    invoke: Invoke,
) -> None:
    replicator, _loader = daemons("replicator.cli"), daemons("loader.cli")
    assert invoke("wait", "--timeout", "60").exit_code == 0
    wait_until(lambda: _states(invoke) == {("streaming", "streaming")}, 30, "patient to stream")
    paused = invoke("pause", "--json")
    assert paused.exit_code == 0, paused.output
    told = json.loads(paused.stdout)
    assert {leg["working"] for leg in told["legs"].values()} == {False}
    positions = {name: leg["source_position"] for name, leg in told["legs"].items()}
    practice.execute("INSERT INTO patient VALUES (2, 'Synthetic-2')")
    account = environment["OPENDENTAL_SOURCE_USER"]
    wait_until(
        lambda: not connections_of(practice, account),
        30,
        what=lambda: f"the source to be left alone: {connections_of(practice, account)}",
    )

    for leg in ("replicator", "loader"):
        assert metric(environment, leg, "replicator_paused{") == 1
        assert ask(environment, leg, "/healthz")[0] == 200
        status, said = ask(environment, leg, "/readyz")
        assert (status, "paused since" in said) == (503, True)
    replicator.terminate()
    assert replicator.wait(20) == 0
    daemons("replicator.cli")
    wait_until(
        lambda: _answers(environment) and metric(environment, "replicator", "replicator_paused{"),
        30,
        "the new daemon to know",
    )
    late = invoke("wait", "--timeout", "1")
    assert late.exit_code == 1
    assert "the replicator is paused (replicator resume)" in late.output
    found = json.loads(invoke("status", "--json").stdout)
    for name, position in positions.items():
        assert found[name]["running"] is False
        assert found[name]["paused_since"] is not None
        assert found[name]["source_position"] == position
    assert "paused since" in invoke("status").output

    assert invoke("resume").exit_code == 0
    assert invoke("wait", "--timeout", "30").exit_code == 0
    assert analytics_db.query("SELECT count(*) FROM raw.patient") == [(2,)]
    assert metric(environment, "loader", "replicator_paused{") == 0


def _states(invoke: Invoke) -> set[tuple[str, str]]:
    tables = json.loads(invoke("status", "--json").stdout)["tables"]
    return {(table["replica"], table["raw"]) for table in tables}


def _answers(environment: dict[str, str]) -> bool:
    try:
        return ask(environment, "replicator", "/healthz")[0] == 200
    except OSError:
        return False


def test_one_leg_may_be_paused_alone_and_a_script_is_told(
    practice: MySQLDatabase, pipeline: ELTPipeline, invoke: Invoke, replica_db: MySQLDatabase
) -> None:
    assert "replicator init" in invoke("pause").stderr
    pipeline.extract()
    replica_db.execute("DROP TABLE etl_control")  # as an older version left it
    assert invoke("pause", "--leg", "loader").exit_code == 0
    with pytest.raises(Exception, match="the loader is paused"):
        pipeline.load()
    pipeline.extract()
    idle = invoke("resume", "--leg", "loader", "--timeout", "0")
    assert idle.exit_code == 1
    assert "systemctl start loader" in idle.stderr
    pipeline.load()


def test_a_copy_is_let_go_while_it_is_under_way(
    practice: MySQLDatabase, environment: dict[str, str], daemons: Daemons, invoke: Invoke
) -> None:
    practice.execute("CREATE TABLE document (DocNum int PRIMARY KEY, RawBase64 mediumtext)")
    for number in range(24):
        practice.execute("INSERT INTO document VALUES (%s, REPEAT('x', 1000000))", (number,))
    environment["REPLICATOR_COPY_BYTES_PER_SECOND"] = "2KB"  # it would take hours
    daemons("replicator.cli")
    wait_until(
        lambda: (
            _answers(environment)
            and (metric(environment, "replicator", "replicator_copy_ceiling_bytes") == 2000)
            and (metric(environment, "replicator", "replicator_copied_rows_total") or 0) > 0
        ),
        30,
        "the copy to begin",
    )
    assert "at most 2,000 bytes" in invoke("throttle").output
    assert invoke("pause", "--leg", "replicator").exit_code == 0  # it waits, within the ceiling
    assert metric(environment, "replicator", "replicator_stream_up{") == 0
    assert invoke("resume", "--leg", "replicator").exit_code == 0
    told = invoke("throttle", "off", "--json")
    assert json.loads(told.stdout) == {"bytes_per_second": 0, "asked": 0, "configured": 2000}

    def copied() -> bool:
        states = json.loads(invoke("status", "--json").stdout)["tables"]
        return bool(states) and {table["replica"] for table in states} == {"streaming"}

    wait_until(copied, 60, "the copy to end")
    assert json.loads(invoke("throttle", "default", "--json").stdout)["asked"] is None


def test_ctrl_c_says_what_goes_on(
    practice: MySQLDatabase, pipeline: ELTPipeline, settings: Settings, environment: dict[str, str]
) -> None:
    pipeline.extract()
    process = subprocess.Popen(
        [sys.executable, "-m", "replicator.cli", "resync", "patient", "--wait"],
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("resync requested")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert "goes on in the daemons" in said
    with Observer(settings) as observer:
        pipeline.extract()
        assert observer.replica_offset() is not None

"""`replicator quarantine`, and how `verify` and `status` speak of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from config.daemon import run
from config.settings import Settings
from loader.daemon import Loader
from replicator.pipeline import ELTPipeline
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase

Invoke = Callable[..., Result]
SECRET = "Synthetic-Zebra"
TOOTH = "CREATE TABLE tooth (Id int, Side varchar(9), Note text, PRIMARY KEY (Id, Side))"


@pytest.fixture
def charts(
    source_db: MySQLDatabase, pipeline: ELTPipeline, analytics_db: PostgresDatabase
) -> MySQLDatabase:
    """Rows 2 and 3 of `chart` and one of `tooth` are in quarantine."""
    source_db.execute("CREATE TABLE chart (Id int PRIMARY KEY, Fee int, Note text)")
    source_db.execute("INSERT INTO chart VALUES (1, 1, ''), (2, 2, ''), (3, 3, ''), (4, 4, '')")
    source_db.execute(TOOTH)
    source_db.execute("INSERT INTO tooth VALUES (1, 'left', ''), (1, 'right', '')")
    pipeline.extract()
    pipeline.load()
    for table, column, least in (("chart", "Fee", 0), ("tooth", "Id", 0)):
        analytics_db.execute(
            f'ALTER TABLE raw.{table} ADD CONSTRAINT no_less CHECK ("{column}" > {least}) NOT VALID'
        )
    source_db.execute(f"UPDATE chart SET Fee = -1, Note = '{SECRET}' WHERE Id IN (2, 3)")
    source_db.execute("INSERT INTO tooth VALUES (-1, 'Größe, up', '')")
    pipeline.extract()
    pipeline.load()
    return source_db


def listed(invoke: Invoke, *words: str) -> list[dict[str, Any]]:
    result = invoke("quarantine", "list", *words, "--json")
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)["rows"]
    return rows


def test_list_names_keys_and_reasons_and_no_values(charts: MySQLDatabase, invoke: Invoke) -> None:
    shown = invoke("quarantine", "list")
    assert shown.exit_code == 0, shown.output
    assert "check violation (SQLSTATE 23514, constraint no_less)" in shown.stdout
    assert shown.stdout.rstrip().endswith("in quarantine: 2 rows of chart, 1 row of tooth")
    assert SECRET not in shown.stdout
    assert [(row["table"], row["shown"]) for row in listed(invoke)] == [
        ("chart", "2"),
        ("chart", "3"),
        ("tooth", "-1, Größe, up"),
    ]
    (row,) = listed(invoke, "tooth")
    assert row["key"] == {"Id": "-1", "Side": "Größe, up"}
    assert SECRET not in json.dumps(listed(invoke))


def test_verify_says_that_rows_are_in_quarantine(charts: MySQLDatabase, invoke: Invoke) -> None:
    result = invoke("verify", "--json")
    assert result.exit_code == 1
    tables = {table["name"]: table for table in json.loads(result.stdout)["tables"]}
    assert tables["chart"]["replica"]["verdict"] == "same"
    raw = tables["chart"]["raw"]
    assert raw["verdict"] == "different"
    assert raw["reasons"] == ["2 rows in quarantine (replicator quarantine list chart)"]
    assert sorted(raw["keys"]) == ["2 missing (in quarantine)", "3 missing (in quarantine)"]
    assert tables["tooth"]["raw"]["keys"] == ["-1, Größe, up missing (in quarantine)"]
    assert "2 rows in quarantine" in invoke("verify", "chart").stdout


def test_verify_tells_rows_that_postgresql_takes_nowhere(
    source_db: MySQLDatabase,
    pipeline: ELTPipeline,
    analytics_db: PostgresDatabase,
    invoke: Invoke,
) -> None:
    """A TIME takes three bytes there and sixteen here, where a row must fit on a page."""
    columns = ", ".join(f"c{n} time" for n in range(600))
    source_db.execute(f"CREATE TABLE wide (Id int PRIMARY KEY, {columns})")
    source_db.execute("INSERT INTO wide (Id) VALUES (1), (2), (3)")
    values = ", ".join(f"c{n} = '01:02:03'" for n in range(600))
    source_db.execute(f"UPDATE wide SET {values} WHERE Id = 2")
    pipeline.extract()
    pipeline.load()
    result = invoke("verify", "wide", "--json")
    assert result.exit_code == 1, result.output
    (table,) = json.loads(result.stdout)["tables"]
    assert table["raw"]["keys"] == ["2 missing (in quarantine)"]
    assert table["raw"]["reasons"] == ["1 row in quarantine (replicator quarantine list wide)"]
    analytics_db.execute("DELETE FROM raw.etl_quarantine")
    (table,) = json.loads(invoke("verify", "wide", "--json").stdout)["tables"]
    assert (table["verdict"], table["raw"]["keys"]) == ("different", ["2 missing"])


def test_status_counts_them(charts: MySQLDatabase, invoke: Invoke) -> None:
    tables = {t["name"]: t for t in json.loads(invoke("status", "--json").stdout)["tables"]}
    assert (tables["chart"]["quarantined"], tables["tooth"]["quarantined"]) == (2, 1)
    assert "in quarantine: 2 rows of chart, 1 row of tooth" in invoke("status").stdout


def test_a_replay_waits_for_the_loader_and_then_is_done(
    charts: MySQLDatabase, pipeline: ELTPipeline, analytics_db: PostgresDatabase, invoke: Invoke
) -> None:
    analytics_db.execute("ALTER TABLE raw.chart DROP CONSTRAINT no_less")
    asked = invoke("quarantine", "replay", "chart", "--key", "3")
    assert asked.exit_code == 0, asked.output
    assert "replay requested: 1 row of chart" in asked.stdout
    assert "not running: loader" in asked.stdout
    late = invoke("quarantine", "replay", "tooth", "--wait", "--timeout", "0")
    assert late.exit_code == 1
    assert "not done in time: 1 row of tooth" in late.stderr
    pipeline.load()
    assert [(row["table"], row["shown"]) for row in listed(invoke)] == [
        ("chart", "2"),
        ("tooth", "-1, Größe, up"),
    ]
    assert analytics_db.query('SELECT "Fee" FROM raw.chart WHERE "Id" = 3') == [(-1,)]
    assert listed(invoke, "tooth")[0]["attempts"] == 2


def test_a_running_loader_answers_whoever_waits(
    charts: MySQLDatabase, settings: Settings, analytics_db: PostgresDatabase, invoke: Invoke
) -> None:
    analytics_db.execute("ALTER TABLE raw.chart DROP CONSTRAINT no_less")
    stop = threading.Event()
    loader = threading.Thread(target=run, args=(Loader(settings), stop))
    loader.start()
    try:
        done = invoke("quarantine", "replay", "chart", "--wait", "--timeout", "60")
        refused = invoke("quarantine", "replay", "--all", "--wait", "--timeout", "60")
    finally:
        stop.set()
        loader.join(30)
    assert done.exit_code == 0, done.output
    assert "written: 2 rows" in done.stdout
    assert refused.exit_code == 1
    assert "refused again: tooth -1, Größe, up: check violation" in refused.stderr
    assert SECRET not in done.output + refused.output
    fees = analytics_db.query('SELECT "Fee" FROM raw.chart ORDER BY "Id"')
    assert fees == [(1,), (-1,), (-1,), (4,)]


def test_wrong_words_are_refused_with_the_remedy(charts: MySQLDatabase, invoke: Invoke) -> None:
    unknown = invoke("quarantine", "replay", "chart", "--key", "99")
    assert unknown.exit_code == 2
    assert "not in quarantine: chart 99" in unknown.stderr
    assert "replicator quarantine list chart" in unknown.stderr
    assert not any(row["replay_requested"] for row in listed(invoke))
    assert invoke("quarantine", "replay").exit_code == 2
    assert invoke("quarantine", "drop", "chart", "--all").exit_code == 2
    assert invoke("quarantine", "drop", "--all", "--key", "1").exit_code == 2


def test_drop_wants_to_be_sure(charts: MySQLDatabase, invoke: Invoke) -> None:
    unsure = invoke("quarantine", "drop", "chart")
    assert unsure.exit_code == 2
    assert "--yes" in unsure.stderr
    assert len(listed(invoke)) == 3
    assert invoke("quarantine", "drop", "chart", "--key", "2", "--yes").exit_code == 0
    assert [row["shown"] for row in listed(invoke, "chart")] == ["3"]
    (table,) = json.loads(invoke("verify", "chart", "--json").stdout)["tables"]
    assert sorted(table["raw"]["keys"]) == ["2 missing", "3 missing (in quarantine)"]
    assert invoke("quarantine", "drop", "--all", "--yes").exit_code == 0
    assert "nothing in quarantine" in invoke("quarantine", "list").stdout


def test_before_the_first_start_nothing_is_in_quarantine(invoke: Invoke) -> None:
    assert "nothing in quarantine" in invoke("quarantine", "list").stdout
    assert invoke("quarantine", "replay", "--all").exit_code == 0

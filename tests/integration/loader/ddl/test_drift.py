"""Raw tables that somebody else changed, or that their rows do not fit, are loaded anew."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from config.errors import SchemaDrift
from config.metrics import SCHEMA_DRIFTS
from loader.ddl import drift

from ..conftest import Harness, Replica


@pytest.fixture
def table(replica: Replica, harness: Harness) -> str:
    replica.create("t", "id int PRIMARY KEY, v varchar(20), n int")
    replica.commit("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2)")
    harness.catch_up()
    return "t"


def _drifts() -> float:
    ((sample, *_),) = (metric.samples for metric in SCHEMA_DRIFTS.collect())
    return sample.value


DONE_TO_RAW = {
    "a column dropped": "ALTER TABLE raw.t DROP COLUMN v",
    "a column of another type": "ALTER TABLE raw.t ALTER COLUMN n TYPE text",
    "the key dropped": "ALTER TABLE raw.t DROP CONSTRAINT t_pkey",
    "the table dropped": "DROP TABLE raw.t",
    "both": "ALTER TABLE raw.t DROP COLUMN v, ALTER COLUMN n TYPE bigint",
}


@pytest.mark.parametrize("statement", DONE_TO_RAW.values(), ids=DONE_TO_RAW)
def test_a_raw_table_that_somebody_altered_is_loaded_anew(
    replica: Replica, harness: Harness, table: str, statement: str
) -> None:
    replica.commit("UPDATE t SET v = 'warm' WHERE id = 2")
    harness.catch_up()
    harness.raw.execute(statement)
    replica.commit("INSERT INTO t VALUES (3, 'c', 3)", "UPDATE t SET n = 7 WHERE id = 1")
    harness.catch_up()
    if "TYPE text" in statement or "CONSTRAINT" in statement:
        harness.restart()  # PostgreSQL took the rows all the same: a start looks for itself
        replica.commit("INSERT INTO t VALUES (4, 'd', 4)")
        harness.catch_up()
    harness.assert_same(table)
    kinds = harness.raw.query(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'raw.t'::regclass AND attname IN ('id', 'v', 'n') ORDER BY 1"
    )
    assert kinds == [("id", "integer"), ("n", "integer"), ("v", "text")]


def test_a_shape_that_no_statement_explains_reloads_the_one_table_and_is_counted(
    replica: Replica, harness: Harness, table: str
) -> None:
    replica.create("u", "id int PRIMARY KEY")
    replica.commit("INSERT INTO u VALUES (1)")
    harness.catch_up()
    untouched = harness.raw.query("SELECT ctid, _loaded_at FROM raw.u")
    before = _drifts()
    with replica.database.connect() as connection:  # what the binlog does not hold
        cursor = connection.cursor()
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute("ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (n)")
    replica.commit("INSERT INTO t (id, n) VALUES (1, 9)", "INSERT INTO u VALUES (2)")
    with capture_logs() as logs:
        harness.catch_up()
    harness.assert_same(table, "u")
    assert _drifts() == before + 1
    (said,) = [line for line in logs if line["event"] == "schema_drift"]
    assert said["table"] == "t"
    assert "another shape" in said["reason"]
    assert harness.raw.query("SELECT ctid, _loaded_at FROM raw.u WHERE id = 1") == untouched


def test_what_a_reload_does_not_heal_halts(
    replica: Replica, harness: Harness, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "TRIES", 0)
    harness.raw.execute("ALTER TABLE raw.t DROP COLUMN v")
    replica.commit("INSERT INTO t VALUES (3, 'c', 3)")
    with pytest.raises(SchemaDrift) as caught:
        harness.catch_up()
    assert caught.value.hint
    assert "'c'" not in str(caught.value)

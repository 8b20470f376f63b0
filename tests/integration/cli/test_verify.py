"""`replicator verify` against real servers: it sees every planted difference, and only those."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from replicator.pipeline import ELTPipeline
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase

Invoke = Callable[..., Result]


TABLE = """
CREATE TABLE chart (
  ChartNum bigint NOT NULL PRIMARY KEY, Note varchar(40) NULL, Long_note mediumtext NULL,
  Fee double NOT NULL, Dose float NOT NULL, Done tinyint NOT NULL, Seen datetime NOT NULL,
  Span time NULL, Kind enum('a','b') NULL, Image blob NULL) CHARACTER SET utf8mb3
"""
SECRET = "Synthetic-Zebra"


@pytest.fixture
def charts(
    pipeline: ELTPipeline, source_db: MySQLDatabase, replica_db: MySQLDatabase
) -> MySQLDatabase:
    """Three tables, copied and loaded: one with a key, one with a text key, one without."""
    source_db.execute(TABLE)
    rows = ",".join(
        f"({n}, '{SECRET}', NULL, {n % 10} / 3, {n % 10} / 3, 1, '0001-01-01', '-01:00:00', 'a',"
        " 'é')"
        for n in range(1, 31)
    )
    source_db.execute(f"INSERT INTO chart VALUES {rows}")
    source_db.execute("CREATE TABLE word (Word varchar(20) NOT NULL PRIMARY KEY, Meaning text)")
    source_db.execute("INSERT INTO word VALUES ('alpha', 'one'), ('Größe', 'two'), ('z', NULL)")
    source_db.execute("CREATE TABLE loose (A int, B varchar(10))")
    source_db.execute("INSERT INTO loose VALUES (1, 'x'), (1, 'x'), (2, NULL)")
    source_db.execute("CREATE TABLE nothing (Id int PRIMARY KEY)")
    pipeline.extract()
    pipeline.load()
    return replica_db


def plant(replica_db: MySQLDatabase, statement: str) -> None:
    """Change the replica behind everybody's back."""
    connection = replica_db.connect()
    with connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute(statement)
    connection.close()


def faults(result: Result, table: str, side: str) -> dict[str, Any]:
    document = json.loads(result.stdout)
    assert document["exact"] is False
    (found,) = [t for t in document["tables"] if t["name"] == table]
    others = [t["name"] for t in document["tables"] if t["verdict"] != "same" and t is not found]
    assert others == []
    other = found["raw" if side == "replica" else "replica"]
    return {"found": found[side], "other": other}


def test_everything_is_the_same_after_a_copy(charts: MySQLDatabase, invoke: Invoke) -> None:
    result = invoke("verify")
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith("exact: yes")
    assert "chart" in result.stdout
    assert SECRET not in result.output


def test_small_chunks_give_the_same_answer(charts: MySQLDatabase, invoke: Invoke) -> None:
    charts.query("ANALYZE TABLE chart")
    result = invoke("verify", "chart", "--json", "--chunk-rows", "7")
    (table,) = json.loads(result.stdout)["tables"]
    assert (table["rows"], table["chunks"], table["verdict"]) == (30, 5, "same")


IN_REPLICA = {
    "1 changed": "UPDATE chart SET Dose = 0.33333337 WHERE ChartNum = 1",  # a float's last bit
    "2 changed": f"UPDATE chart SET Note = '{SECRET.lower()}' WHERE ChartNum = 2",
    "3 changed": "UPDATE chart SET Span = '00:00:00' WHERE ChartNum = 3",
    "4 changed": "UPDATE chart SET Fee = Fee + 2.220446049250313e-16 WHERE ChartNum = 4",
    "5 changed": "UPDATE chart SET Kind = 'b' WHERE ChartNum = 5",
    "6 changed": "UPDATE chart SET Image = x'E9' WHERE ChartNum = 6",  # é in another charset
    "7 changed": "UPDATE chart SET Note = 'other' WHERE ChartNum = 7",
    "8 changed": f"UPDATE chart SET Note = '{SECRET} ' WHERE ChartNum = 8",
    "9 changed": "UPDATE chart SET Long_note = '' WHERE ChartNum = 9",  # it is NULL
    "11 changed": "UPDATE chart SET Note = NULL, Long_note = Note WHERE ChartNum = 11",
    "30 missing": "DELETE FROM chart WHERE ChartNum = 30",
    "31 extra": "INSERT INTO chart SELECT 31, Note, Long_note, Fee, Dose, Done, Seen, Span, Kind,"
    " Image FROM chart WHERE ChartNum = 12",
}


def test_every_difference_on_the_replica_is_found_by_its_key(
    charts: MySQLDatabase, invoke: Invoke
) -> None:
    for statement in IN_REPLICA.values():
        plant(charts, statement)
    result = invoke("verify", "--json", "--chunk-rows", "10")
    assert result.exit_code == 1, result.output
    assert sorted(faults(result, "chart", "replica")["found"]["keys"]) == sorted(IN_REPLICA)
    assert SECRET not in result.output


IN_RAW = {
    "4 changed": 'SET "Fee" = "Fee" + 2.220446049250313e-16::float8 WHERE "ChartNum" = 4',
    "5 changed": 'SET "Dose" = 1.6666669 WHERE "ChartNum" = 5',  # a float's last bit
    "7 changed": 'SET "Note" = \'other\' WHERE "ChartNum" = 7',
    "9 changed": 'SET "Long_note" = \'\' WHERE "ChartNum" = 9',
    "10 changed": 'SET "Fee" = \'-0\' WHERE "ChartNum" = 10',  # it is 0
    "30 missing": "",
    "31 extra": "",
}


def test_every_difference_in_raw_is_found_by_its_key(
    charts: MySQLDatabase, analytics_db: PostgresDatabase, invoke: Invoke
) -> None:
    for change in filter(None, IN_RAW.values()):
        analytics_db.execute(f"UPDATE raw.chart {change}")
    analytics_db.execute('DELETE FROM raw.chart WHERE "ChartNum" = 30')
    analytics_db.execute('INSERT INTO raw.chart ("ChartNum") VALUES (31)')
    result = invoke("verify", "--json", "--chunk-rows", "10")
    assert result.exit_code == 1, result.output
    found = faults(result, "chart", "raw")
    assert sorted(found["found"]["keys"]) == sorted(IN_RAW)
    assert found["other"]["verdict"] == "same"
    assert SECRET not in result.output


def test_when_a_row_was_written_is_no_difference(
    charts: MySQLDatabase, analytics_db: PostgresDatabase, invoke: Invoke
) -> None:
    analytics_db.execute("UPDATE raw.chart SET _loaded_at = now(), _source_ts = NULL")
    assert invoke("verify").exit_code == 0


def test_keys_of_text_are_named(charts: MySQLDatabase, invoke: Invoke) -> None:
    plant(charts, "DELETE FROM word WHERE Word = 'Größe'")
    result = invoke("verify", "word")
    assert result.exit_code == 1
    assert "word, source and replica: row 'Größe' missing" in result.stdout
    assert "two" not in result.stdout


def test_a_duplicate_row_of_a_table_without_key_counts(
    charts: MySQLDatabase, analytics_db: PostgresDatabase, invoke: Invoke
) -> None:
    analytics_db.execute('INSERT INTO raw.loose ("A", "B") VALUES (2, NULL)')
    result = invoke("verify", "--json")
    assert result.exit_code == 1
    assert faults(result, "loose", "raw")["found"]["keys"] == ["(table without usable key) changed"]


def test_another_column_type_in_raw_is_a_difference(
    charts: MySQLDatabase, analytics_db: PostgresDatabase, invoke: Invoke
) -> None:
    analytics_db.execute('ALTER TABLE raw.chart ALTER "Done" TYPE integer')
    result = invoke("verify", "chart")
    assert result.exit_code == 1
    assert "raw has another type for column Done" in result.stdout


def test_a_table_that_is_not_streaming_is_not_called_exact(
    charts: MySQLDatabase, replica_db: MySQLDatabase, invoke: Invoke
) -> None:
    plant(
        replica_db,
        "UPDATE etl_extract_status SET extraction_status = 'copying' WHERE table_name = 'chart'",
    )
    result = invoke("verify", "chart")
    assert result.exit_code == 1
    assert "not streaming on the replica: copying" in result.stdout
    assert result.stdout.rstrip().endswith("exact: no")


def test_an_unknown_table_is_refused_with_near_ones(charts: MySQLDatabase, invoke: Invoke) -> None:
    result = invoke("verify", "Chert")
    assert result.exit_code == 2
    assert "no table Chert is carried; did you mean chart?" in result.stderr


def test_a_leg_that_stands_still_ends_the_comparison_with_its_name(
    charts: MySQLDatabase, source_db: MySQLDatabase, invoke: Invoke
) -> None:
    source_db.execute("INSERT INTO word VALUES ('later', NULL)")
    result = invoke("verify", "word", "--timeout", "1")
    assert result.exit_code == 1
    assert "the replicator stayed at" in result.stdout


SHAPES = {
    "a wider type": ("ALTER TABLE chart MODIFY Note varchar(60)", "schema differs: Note"),
    "a column more": ("ALTER TABLE chart ADD Extra int", "schema differs: Extra"),
    "another order": ("ALTER TABLE chart MODIFY Kind enum('a','b') FIRST", "order of columns"),
    "another key": ("ALTER TABLE chart DROP PRIMARY KEY", "schema differs: ChartNum"),
}


@pytest.mark.parametrize(("statement", "reason"), SHAPES.values(), ids=SHAPES)
def test_another_schema_on_the_replica_is_a_difference(
    charts: MySQLDatabase, invoke: Invoke, statement: str, reason: str
) -> None:
    plant(charts, statement)
    result = invoke("verify", "--json")
    assert result.exit_code == 1
    (table,) = [t for t in json.loads(result.stdout)["tables"] if t["name"] == "chart"]
    assert table["replica"]["verdict"] == "different"
    assert reason in json.dumps(table["replica"])


def test_what_no_row_depends_on_is_no_difference(charts: MySQLDatabase, invoke: Invoke) -> None:
    plant(charts, "ALTER TABLE chart COMMENT = 'x', ADD INDEX (Done), MODIFY Note varchar(40)"
                  " DEFAULT 'y' COMMENT 'z'")  # fmt: skip
    result = invoke("verify")
    assert result.exit_code == 0, result.output


RAW_SHAPES = {
    "another type": ('ALTER TABLE raw.chart ALTER COLUMN "Done" TYPE integer', "another type"),
    "a column less": ('ALTER TABLE raw.chart DROP COLUMN "Span"', "lacks column Span"),
    "a column more": ("ALTER TABLE raw.chart ADD COLUMN mine int", "has column mine"),
    "no key": ("ALTER TABLE raw.chart DROP CONSTRAINT chart_pkey", "another primary key"),
}


@pytest.mark.parametrize(("statement", "reason"), RAW_SHAPES.values(), ids=RAW_SHAPES)
def test_another_schema_in_raw_is_a_difference(
    charts: MySQLDatabase,
    analytics_db: PostgresDatabase,
    invoke: Invoke,
    statement: str,
    reason: str,
) -> None:
    analytics_db.execute(statement)
    result = invoke("verify", "--json")
    assert result.exit_code == 1
    (table,) = [t for t in json.loads(result.stdout)["tables"] if t["name"] == "chart"]
    assert table["raw"]["verdict"] == "different"
    assert reason in json.dumps(table["raw"])

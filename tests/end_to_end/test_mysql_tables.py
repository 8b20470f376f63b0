"""What only MySQL's tables have, on the way from the source through the replica into `raw`."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from tests.fix_pipeline import NewPipeline, Pipeline
from tests.integration.binlog.random_tables import JSON_SCALARS
from tests.numbers import numbers

pytestmark = pytest.mark.only_on("mysql", reason="MariaDB has none of these")

TABLES = {
    "functional": (
        "CREATE TABLE functional (id INT PRIMARY KEY, a VARCHAR(20), j JSON, n INT,"
        " KEY low ((LOWER(a))), KEY many ((CAST(j->'$.list' AS UNSIGNED ARRAY))), KEY ((n * 2)))",
        "(id, a, j, n) SELECT seq, CONCAT('A', seq), JSON_OBJECT('list', JSON_ARRAY(seq, 7)), seq",
        "UPDATE functional SET a = CONCAT(a, 'x'), n = n + 1 WHERE id % 2",
    ),
    "instant": (
        "CREATE TABLE instant (id INT PRIMARY KEY, a INT, b VARCHAR(9) DEFAULT 'b')",
        "(id, a) SELECT seq, seq",
        "UPDATE instant SET a = a + 1 WHERE id % 2",
    ),
    "without_a_key": (
        "CREATE TABLE without_a_key (a INT, b VARCHAR(9))",  # gets a hidden one
        "(a, b) SELECT seq, 'b'",
        "UPDATE without_a_key SET a = a + 1 WHERE a % 2",
    ),
    "invisible": (
        "CREATE TABLE invisible (id INT PRIMARY KEY INVISIBLE AUTO_INCREMENT, a INT,"
        " c CHAR(5) CHARACTER SET latin1 INVISIBLE, d CHAR(5) CHARACTER SET gb18030,"
        " v INT AS (a + 1) VIRTUAL INVISIBLE, s INT AS (a + 2) STORED)",
        "(a, c, d) SELECT seq, 'é', '中'",
        "UPDATE invisible SET a = a + 1 WHERE a % 2",
    ),
    "placed": (
        "CREATE TABLE placed (id BIGINT UNSIGNED PRIMARY KEY, g POINT NOT NULL SRID 4326,"
        " SPATIAL KEY (g), m GEOMETRY, e ENUM('a', 'ß') CHARACTER SET latin1, z VARBINARY(30))",
        "(id, g, e, z) SELECT seq, ST_GeomFromText('POINT(1 2)', 4326), 'ß', RANDOM_BYTES(20)",
        "UPDATE placed SET e = 'a' WHERE id % 2",
    ),
}


@pytest.fixture
def pipe(pipeline: NewPipeline) -> Pipeline:
    pipe = pipeline("InnoDB")
    source = pipe.sandbox.source_db
    for table, (create, rows, _change) in TABLES.items():
        hidden_key = "ON" if table == "without_a_key" else "OFF"
        source.execute(f"SET SESSION sql_generate_invisible_primary_key = {hidden_key}")
        source.execute(create)
        source.execute(f"INSERT INTO {table} {rows} FROM {numbers(1, 50)}")
    source.execute("ALTER TABLE instant ADD c INT DEFAULT 7 FIRST, ALGORITHM=INSTANT")
    source.execute("ALTER TABLE instant DROP COLUMN b, ALGORITHM=INSTANT")
    return pipe


def test_tables_of_every_kind_are_copied_and_followed(pipe: Pipeline) -> None:
    source = pipe.sandbox.source_db
    pipe.start()
    pipe.catch_up()
    assert pipe.differences() == {}
    for table, (_create, _rows, change) in TABLES.items():
        source.execute(change)
        source.execute(f"DELETE FROM {table} LIMIT 5")
    pipe.catch_up()
    assert pipe.differences() == {}


def test_their_schemas_change_on_the_way(pipe: Pipeline) -> None:
    source = pipe.sandbox.source_db
    pipe.start()
    pipe.catch_up()
    for statement in (
        "ALTER TABLE functional ADD COLUMN later INT DEFAULT 3, ADD KEY sum ((id + later))",
        "INSERT INTO functional (id, a, later) VALUES (100, 'a', 1)",
        "ALTER TABLE functional DROP KEY low, ADD COLUMN first INT FIRST",
        "UPDATE functional SET first = id",
        "ALTER TABLE instant ADD d DATETIME DEFAULT '2020-01-01', ALGORITHM=INSTANT",
        "UPDATE instant SET d = NULL WHERE id < 9",
        "ALTER TABLE instant RENAME COLUMN a TO b, ALGORITHM=INSTANT",
        "ALTER TABLE invisible ALTER COLUMN c SET VISIBLE",
        "UPDATE invisible SET c = 'ü' WHERE a < 20",
        "ALTER TABLE invisible DROP COLUMN v",
        "INSERT INTO invisible (a) VALUES (1000)",
        "CREATE INDEX twice ON invisible ((a * 2))",
        "INSERT INTO invisible (a) VALUES (2000)",
        "ALTER TABLE without_a_key ALTER COLUMN my_row_id SET VISIBLE",
        "INSERT INTO without_a_key (a) VALUES (1000)",
        "ANALYZE TABLE placed UPDATE HISTOGRAM ON e WITH 4 BUCKETS",
        "ALTER TABLE placed ADD v JSON NOT NULL",
        "UPDATE placed SET v = '[1.0, 2]' WHERE id < 9",
    ):
        source.execute(statement)
    pipe.catch_up()
    assert pipe.differences() == {}
    for table in TABLES:
        assert pipe.run("resync", table).returncode == 0
    pipe.catch_up()
    assert pipe.differences() == {}


def test_json_has_the_sources_text_in_raw_whichever_way_it_came(pipe: Pipeline) -> None:
    source = pipe.sandbox.source_db
    source.execute("CREATE TABLE form (id INT PRIMARY KEY, j JSON)")

    def add(first: int) -> None:
        for number, one in enumerate(JSON_SCALARS):
            source.execute(f"INSERT INTO form SELECT {first + number}, JSON_ARRAY({one})")

    def compared() -> dict[str, Any]:
        there = dict(source.query("SELECT id, CAST(j AS CHAR) FROM form"))
        here = dict(pipe.sandbox.analytics_db.query("SELECT id, j::text FROM raw.form"))
        return {
            text: here.get(key)
            for key, text in there.items()
            if _in_jsonb(here.get(key)) != _in_jsonb(text)
        }

    add(0)
    pipe.start()
    pipe.catch_up()
    assert compared() == {}
    add(1000)
    pipe.catch_up()
    assert compared() == {}
    assert pipe.run("resync", "form").returncode == 0
    pipe.catch_up()
    assert compared() == {}


def _in_jsonb(text: str | None) -> object:
    """A document with its numbers as jsonb spells them: no exponents, and no sign before zero."""
    return None if text is None else json.loads(text, parse_float=_spelled, parse_int=str)


def _spelled(number: str) -> str:
    value = Decimal(number)
    return f"{value if value else abs(value):f}"

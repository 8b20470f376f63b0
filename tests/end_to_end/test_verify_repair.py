"""`replicator verify --repair` beside running daemons: what differs is mended, and said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fix_pipeline import Pipeline
from tests.fix_servers import Pair
from tests.numbers import numbers

SECRET = "Synthetic-Zebra"


@pytest.fixture(scope="module")
def pipe(server_directory: Path, servers: Pair) -> Iterator[Pipeline]:
    """A pipeline that runs, with tables of every kind; each test leaves it exact."""
    place = server_directory / "pipeline-repair"
    pipe = Pipeline(place, servers.engine, servers, REPLICATOR_POLL_SECONDS="0.1",
                    LOADER_POLL_SECONDS="0.1")  # fmt: skip
    try:
        for statement in (
            "CREATE TABLE patient (PatNum BIGINT PRIMARY KEY, LName VARCHAR(40), Fee DOUBLE,"
            " Ref INT NULL, UNIQUE KEY (Ref))",
            f"INSERT INTO patient SELECT seq, '{SECRET}', seq / 3, seq FROM {numbers(1, 5000)}",
            "CREATE TABLE word (Word VARCHAR(20) PRIMARY KEY, Meaning INT) CHARACTER SET utf8mb4",
            "INSERT INTO word VALUES ('alpha', 1), ('Größe', 2), ('z', 3)",
            "CREATE TABLE loose (A INT, B VARCHAR(40))",
            f"INSERT INTO loose VALUES (1, '{SECRET}'), (1, '{SECRET}'), (2, NULL)",
            "CREATE TABLE steady (Id INT PRIMARY KEY)",
        ):
            pipe.sandbox.source_db.execute(statement)
        pipe.start()
        pipe.catch_up()
        yield pipe
    finally:
        pipe.close()


def on_replica(pipe: Pipeline, *statements: str, logged: bool = False) -> None:
    """Someone writes there; `logged`: so that `raw` gets it too."""
    with closing(pipe.sandbox.replica_db.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute(f"SET sql_log_bin = {int(logged)}")
        for statement in statements:
            cursor.execute(statement)


def in_raw(pipe: Pipeline, *statements: str) -> None:
    with pipe.sandbox.analytics.connect(database=pipe.sandbox.analytics_db.name) as connection:
        for statement in statements:
            connection.execute(statement)


def repair(pipe: Pipeline, *words: str) -> dict[str, Any]:
    result = pipe.run("verify", "--repair", "--json", *words)
    assert SECRET not in result.stdout + result.stderr
    assert result.returncode == 0, result.stdout + result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    assert document["exact"] is True
    assert pipe.differences() == {}
    return document


def mended(document: dict[str, Any]) -> list[tuple[Any, ...]]:
    return sorted((m["table"], m["side"], m["rows"], m["whole"]) for m in document["mended"])


REPLICA_WRONG = (
    "UPDATE patient SET LName = 'other' WHERE PatNum IN (7, 8)",
    "DELETE FROM patient WHERE PatNum = 9",
    "INSERT INTO patient VALUES (9001, 'extra', 0, NULL)",
)


def resyncs(pipe: Pipeline) -> int:
    ((count,),) = pipe.sandbox.replica_db.query("SELECT COUNT(*) FROM etl_resync_request")
    return int(count)


@pytest.mark.parametrize("logged", [False, True])
def test_rows_that_are_wrong_on_the_replica_are_mended_by_key(pipe: Pipeline, logged: bool) -> None:
    before = resyncs(pipe)
    on_replica(pipe, *REPLICA_WRONG, logged=logged)
    document = repair(pipe)
    assert mended(document) == [("patient", "replica", 4, False)]
    assert resyncs(pipe) == before


def test_rows_that_are_wrong_in_raw_alone_are_mended_by_key(pipe: Pipeline) -> None:
    before = resyncs(pipe)
    in_raw(
        pipe,
        'UPDATE raw.patient SET "LName" = \'other\' WHERE "PatNum" IN (17, 18)',
        'DELETE FROM raw.patient WHERE "PatNum" = 19',
        "INSERT INTO raw.patient (\"PatNum\", \"LName\") VALUES (9002, 'extra'), (9003, 'extra')",
    )
    loaded = _loaded_at(pipe, 20)
    assert mended(repair(pipe)) == [("patient", "raw", 5, False)]
    assert resyncs(pipe) == before
    assert _loaded_at(pipe, 20) == loaded  # nobody wrote it again


def _loaded_at(pipe: Pipeline, key: int) -> Any:
    return pipe.sandbox.analytics_db.query(
        f'SELECT _loaded_at FROM raw.patient WHERE "PatNum" = {key}'
    )


def test_many_rows_on_both_sides_are_mended_while_the_source_works(pipe: Pipeline) -> None:
    on_replica(pipe, "DELETE FROM patient WHERE PatNum BETWEEN 1000 AND 2199")
    in_raw(pipe, 'DELETE FROM raw.patient WHERE "PatNum" BETWEEN 3000 AND 4099')
    source = pipe.sandbox.source_db
    for number in range(20):
        source.execute("UPDATE patient SET Fee = Fee + 1 WHERE PatNum = %s", (10 + number,))
    document = repair(pipe, "--chunk-rows", "1500")
    assert mended(document) == [
        ("patient", "raw", 1100, False),
        ("patient", "replica", 1200, False),
    ]


def test_what_has_no_usable_key_is_reloaded_as_a_whole_and_that_is_said(pipe: Pipeline) -> None:
    on_replica(pipe, "DELETE FROM word WHERE Word = 'Größe'", "UPDATE loose SET A = 9 LIMIT 1")
    document = repair(pipe)
    assert [(t, s, w) for t, s, _, w in mended(document)] == [
        ("loose", "replica", True),
        ("word", "replica", False),
    ]
    in_raw(pipe, "DELETE FROM raw.word WHERE \"Word\" = 'z'",
           'INSERT INTO raw.loose ("A") VALUES (5)')  # fmt: skip
    document = repair(pipe)
    assert [(t, s, w) for t, s, _, w in mended(document)] == [
        ("loose", "raw", True),
        ("word", "raw", True),
    ]
    result = pipe.run("verify", "--repair")
    assert "mended" not in result.stdout  # nothing was


def test_a_table_that_is_gone_from_the_replica_or_from_raw_is_reloaded(pipe: Pipeline) -> None:
    on_replica(pipe, "ALTER TABLE patient ADD Nobodys INT")
    in_raw(pipe, 'ALTER TABLE raw.word ALTER "Meaning" TYPE bigint')
    document = repair(pipe)
    assert {(t, s, w) for t, s, _, w in mended(document)} >= {
        ("patient", "replica", True),
        ("word", "raw", True),
    }


def test_nothing_is_mended_while_a_daemon_does_not_run(pipe: Pipeline) -> None:
    pipe.loader.stop()
    try:
        result = pipe.run("verify", "--repair")
        assert result.returncode == 2
        assert "nothing can be mended while these do not run: loader" in result.stderr
    finally:
        pipe.loader.start()
        pipe.catch_up()

"""An upgrade in OpenDental's manner, while people work and analysts read.

Large tables are converted by RENAME, CREATE TABLE … LIKE, ALTER, re-INSERT from several
connections and DROP; others by hundreds of plain ALTERs. Beside that, run-time tables come
and go. A reader polls `raw` and views on it all the time, materialised ones too: it sees no
error, no empty and no half-loaded table. The plain ALTERs cost no reload, a conversion one
at most.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pymysql
import pytest

from tests.fix_pipeline import NewPipeline, Pipeline, Practice
from tests.numbers import numbers

ROWS = 3000
CONVERTED = ("claimarchive", "notearchive")
CONVERSIONS = {f"tempConv_{table}1" for table in CONVERTED}
ALTERED = tuple(f"upgrade{number}" for number in range(6))
ALTERS = (
    "ADD Extra{n} bigint NOT NULL",
    "ADD Text{n} varchar(255) NOT NULL DEFAULT 'none'",
    "ADD Day{n} date NOT NULL DEFAULT '0001-01-01' AFTER Num",
    "ADD INDEX by_extra{n} (Extra{n})",
    "CHANGE Text{n} Note{n} text NOT NULL",
    "MODIFY Amount double NOT NULL DEFAULT 0",
    "DROP COLUMN Day{n}",
    "MODIFY Kind int NOT NULL",
    "DROP INDEX by_extra{n}, DROP COLUMN Extra{n}",
)


ROUNDS = 4
VIEWS = ("of", "over", "kept")


class Readers:
    """Poll `raw` until told to stop; what went wrong is kept."""

    def __init__(self, pipe: Pipeline) -> None:
        self._pipe = pipe
        self._stop = threading.Event()
        self.wrong: list[str] = []
        self.polls = 0
        self._threads = [threading.Thread(target=self._poll, args=(name,)) for name in CONVERTED]
        self._threads += [threading.Thread(target=self._poll, args=(name,)) for name in ALTERED[:1]]

    def _poll(self, table: str) -> None:
        name = self._pipe.sandbox.analytics_db.name
        with closing(
            self._pipe.sandbox.analytics.connect(
                database=name, autocommit=True, prepare_threshold=None
            )
        ) as reader:
            while not self._stop.is_set():
                for relation in (f"raw.{table}", *(f"marts.{v}_{table}" for v in VIEWS)):
                    self._look(reader, relation)

    def _look(self, reader: Any, relation: str) -> None:
        self.polls += 1
        try:
            count = reader.execute(f'SELECT count("Num") FROM {relation}').fetchone()[0]
        except psycopg.Error as error:
            self.wrong.append(f"{relation}: {error}")
            return
        if count != ROWS:  # nobody else adds or takes away any
            self.wrong.append(f"{relation}: {count} rows")

    @contextmanager
    def watching(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()


def _create(pipe: Pipeline) -> None:
    source = pipe.sandbox.source_db
    for table in (*CONVERTED, *ALTERED):
        source.execute(
            f"CREATE TABLE {table} (Num bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,"
            " Kind tinyint NOT NULL, Amount float NOT NULL, Note varchar(50) NOT NULL)"
        )
        source.execute(
            f"INSERT INTO {table} SELECT seq, seq % 7, seq / 4, CONCAT('note ', seq)"
            f" FROM {numbers(1, ROWS)}"
        )


def _analysts(pipe: Pipeline) -> None:
    """Views, nested, as dbt makes them; an index and a grant of somebody's."""
    raw = pipe.sandbox.analytics_db
    raw.execute("CREATE SCHEMA marts")
    for table in (*CONVERTED, *ALTERED):
        raw.execute(f'CREATE VIEW marts.of_{table} AS SELECT "Num", "Kind" FROM raw.{table}')
        raw.execute(f'CREATE VIEW marts.over_{table} AS SELECT "Num" FROM marts.of_{table}')
        raw.execute(f'CREATE MATERIALIZED VIEW marts.kept_{table} AS SELECT "Num", "Amount"'
                    f" FROM raw.{table}")  # fmt: skip
        raw.execute(f'CREATE INDEX on_{table} ON raw.{table} ("Kind")')


def _come_and_go(pipe: Pipeline, name: str) -> None:
    """What a dashboard does while people look at it."""
    for table in (f"tempdash{name}", f"TempEhrMeasure{name}"):
        pipe.sandbox.source_db.execute(f"CREATE TABLE {table} (Num bigint PRIMARY KEY)")
        pipe.sandbox.source_db.execute(f"INSERT INTO {table} VALUES (1), (2)")
        pipe.sandbox.source_db.execute(f"DROP TABLE {table}")


def _convert(pipe: Pipeline, table: str) -> None:
    """As OpenDental alters a large table."""
    source = pipe.sandbox.source_db
    old = f"tempConv_{table}1"
    source.execute(f"RENAME TABLE {table} TO {old}")
    source.execute(f"CREATE TABLE {table} LIKE {old}")
    source.execute(f"ALTER TABLE {table} MODIFY Note text NOT NULL, ADD Since datetime NOT NULL"
                   " DEFAULT '0001-01-01 00:00:00', ADD INDEX (Kind)")  # fmt: skip
    parts = [
        threading.Thread(target=_insert_part, args=(pipe, table, old, part, 4)) for part in range(4)
    ]
    for thread in parts:
        thread.start()
    for thread in parts:
        thread.join()
    source.execute(f"DROP TABLE {old}")


def _insert_part(pipe: Pipeline, table: str, old: str, part: int, parts: int) -> None:
    with closing(pipe.sandbox.source.connect(database="opendental")) as connection:
        for low in range(part * 250, ROWS, parts * 250):
            _insert(
                connection.cursor(),
                f"INSERT INTO {table} (Num, Kind, Amount, Note) SELECT Num, Kind, Amount, Note"
                f" FROM {old} WHERE Num > {low} AND Num <= {low + 250}",
            )


def _insert(cursor: Any, statement: str) -> None:
    """Retried as OpenDental does when several connections meet."""
    for _ in range(20):
        try:
            cursor.execute(statement)
            return
        except pymysql.MySQLError as error:
            if error.args[0] not in (1205, 1213):
                raise
    raise AssertionError("the source never took the statement")


@pytest.mark.timeout(420)
@pytest.mark.parametrize("engine", ["InnoDB", "MyISAM"])
def test_an_upgrade_is_exact_and_no_reader_notices(pipeline: NewPipeline, engine: str) -> None:
    pipe = pipeline(engine)
    _create(pipe)
    practice = Practice(pipe, size=10, people=2)
    pipe.start()
    pipe.catch_up(120)
    _analysts(pipe)
    readers = Readers(pipe)
    with practice, readers.watching():
        for number in range(ROUNDS):
            for table in ALTERED:
                _come_and_go(pipe, f"{number}{table}")
                for alter in ALTERS:
                    pipe.sandbox.source_db.execute(f"ALTER TABLE {table} {alter.format(n=number)}")
            if number % 2:
                _convert(pipe, CONVERTED[number // 2])
        practice.work(20)
    pipe.catch_up(180)
    assert readers.wrong == []
    assert readers.polls > 100
    assert pipe.differences() == {}
    loads = Counter(re.findall(r'"table": "(\w+)", .*"event": "table_loaded"', pipe.loader.output))
    loads += Counter(re.findall(r'"event": "table_loaded".*"table": "(\w+)"', pipe.loader.output))
    assert all(1 <= loads[table] <= 2 for table in CONVERTED), _reasons(pipe)
    assert all(loads[table] == 1 for table in ALTERED), _reasons(pipe)
    assert not [table for table in loads if table.lower().startswith("temp")], _reasons(pipe)
    known = "SELECT table_name FROM raw.etl_transform_status WHERE table_name ILIKE 'temp%%'"
    assert {name for (name,) in pipe.sandbox.analytics_db.query(known)} <= CONVERSIONS
    indexes = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'on\\_%%'"
    assert pipe.sandbox.analytics_db.query(indexes) == [(len(CONVERTED) + len(ALTERED),)]


def _reasons(pipe: Pipeline) -> str:
    """Why tables were loaded."""
    return "\n".join(line for line in pipe.loader.output.splitlines() if "reload" in line)

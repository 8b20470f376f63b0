"""A practice whose server logs parts of rows: exact through copies, reloads and kill -9."""

from __future__ import annotations

import random
from contextlib import closing, suppress

import pymysql
import pytest

from replicator import resync_requests
from replicator.sandbox.cluster import Engine
from tests.fix_pipeline import NewPipeline, Pipeline, Practice

from .test_kills import _first_copy, _kill_when, _random_moment, _resync


@pytest.mark.timeout(420)
@pytest.mark.parametrize(("image", "engine"), [("MINIMAL", "InnoDB"), ("NOBLOB", "MyISAM")])
def test_a_practice_that_logs_parts_of_rows_arrives_exactly(
    pipeline: NewPipeline, image: str, engine: Engine
) -> None:
    pipe = pipeline(engine, REPLICATOR_COPY_CHUNK_ROWS="50", REPLICATOR_COPY_GAP_SECONDS="0.2")
    with closing(pipe.sandbox.source.connect()) as root, root.cursor() as cursor:
        cursor.execute(f"SET GLOBAL binlog_row_image = '{image}'")
    dice = random.Random(image)
    with Practice(pipe, size=40, people=2) as practice:
        pipe.start()
        _kill_when(pipe, "replicator", _first_copy)
        practice.work(100)
        for tables in (["patient", "preference"], ["appointment", "paysplit"]):
            _reload(pipe, tables)
            _kill_when(pipe, "replicator", _resync("copying", "catching_up"))
            _kill_when(pipe, "loader", _random_moment(dice))
            practice.work(100)
    pipe.catch_up(180)
    assert pipe.differences() == {}
    assert pipe.sandbox.replica_db.query("SELECT * FROM etl_copy_again") == []


def test_virtual_columns_that_the_source_leaves_out_are_in_raw(pipeline: NewPipeline) -> None:
    pipe = pipeline()
    pipe.start()
    with closing(pipe.sandbox.source_db.connect()) as connection, connection.cursor() as cursor:
        for table in ("MINIMAL", "NOBLOB"):
            cursor.execute(
                f"CREATE TABLE {table} (id int PRIMARY KEY, v int, note varchar(9), w int AS"
                " (v + id) VIRTUAL, x text AS (REPEAT(note, v)) VIRTUAL) ENGINE=InnoDB"
            )
        pipe.catch_up(60)  # what comes now is streamed
        for table in ("MINIMAL", "NOBLOB"):
            cursor.execute(f"SET SESSION binlog_row_image = '{table}'")
            cursor.execute(f"INSERT INTO {table} (id, v, note) VALUES (1, 5, 'a'), (2, 6, 'b')")
            cursor.execute(f"UPDATE {table} SET v = 7 WHERE id = 2")
            cursor.execute(f"INSERT INTO {table} (id, v) VALUES (3, 8), (4, 9), (5, 10)")
            cursor.execute(f"UPDATE {table} SET note = 'c' WHERE id = 3")
            cursor.execute(f"UPDATE {table} SET id = 6 WHERE id = 4")
    pipe.catch_up(60)
    assert pipe.differences() == {}


def _reload(pipe: Pipeline, tables: list[str]) -> None:
    with suppress(pymysql.MySQLError), closing(pipe.sandbox.replica_db.connect()) as connection:
        resync_requests.queue_resync(connection, tables)

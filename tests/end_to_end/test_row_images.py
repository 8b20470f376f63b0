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


def _reload(pipe: Pipeline, tables: list[str]) -> None:
    with suppress(pymysql.MySQLError), closing(pipe.sandbox.replica_db.connect()) as connection:
        resync_requests.queue_resync(connection, tables)

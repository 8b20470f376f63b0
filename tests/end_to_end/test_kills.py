"""kill -9 at any moment: nothing lost, nothing doubled, no hand needed."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pymysql
import pytest

from replicator.sandbox.cluster import Engine
from tests.fix_pipeline import NewPipeline, Pipeline, Practice

KILLS = 24


@contextmanager
def _meddling(pipe: Pipeline, practice: Practice, seed: int) -> Iterator[None]:
    """Schema changes, reloads, and two tables in which a doubled change would show."""
    stop = threading.Event()
    dice = random.Random(seed)

    def meddle() -> None:
        connection = practice.connect()
        cursor = connection.cursor()
        added = 0
        while not stop.wait(0.02):
            cursor.execute("UPDATE counter SET n = n + 1")
            cursor.execute("INSERT INTO tally VALUES ('synthetic')")
            if dice.random() < 0.04:
                added += 1
                cursor.execute(
                    f"ALTER TABLE commlog ADD COLUMN Extra{added} INT NOT NULL DEFAULT 7"
                )
            if dice.random() < 0.03:
                table = dice.choice(["patient", "procedurelog", "tally", "commlog"])
                _request(pipe, table)
        connection.close()

    thread = threading.Thread(target=meddle, daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join(timeout=30)


def _request(pipe: Pipeline, table: str) -> None:
    """Queue a reload as `replicator resync` does; before the first start there is no queue."""
    with suppress(pymysql.MySQLError):
        pipe.sandbox.replica_db.execute(
            "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
            " VALUES (%s, NOW(), 'queued', NOW())",
            (table,),
        )


@pytest.mark.timeout(420)
@pytest.mark.parametrize("engine", ["MyISAM", "InnoDB"])
def test_kills_at_random_moments_lose_nothing_and_double_nothing(
    pipeline: NewPipeline, engine: Engine
) -> None:
    pipe = pipeline(engine, REPLICATOR_COPY_CHUNK_ROWS="200", REPLICATOR_COPY_GAP_SECONDS="0.2")
    pipe.sandbox.source_db.execute("CREATE TABLE counter (id INT PRIMARY KEY, n INT)")
    pipe.sandbox.source_db.execute("INSERT INTO counter VALUES (1, 0)")
    pipe.sandbox.source_db.execute("CREATE TABLE tally (word VARCHAR(20)) ENGINE=InnoDB")
    dice = random.Random(engine)
    moment = threading.Event()
    with Practice(pipe, size=60) as practice, _meddling(pipe, practice, 7):
        pipe.start()
        for _ in range(KILLS):
            moment.wait(dice.uniform(0.1, 2.5))  # a random moment is the point
            victim = dice.choice([pipe.replicator, pipe.loader])
            assert victim.running, victim.output[-3000:]
            victim.kill()
            victim.start()
    pipe.catch_up(120)
    assert pipe.differences() == {}

"""kill -9 at any moment: nothing lost, nothing doubled, no hand needed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import psycopg
import pymysql
import pytest

from replicator import resync_requests
from replicator.sandbox.cluster import Engine
from replicator.sandbox.waiting import wait_until
from tests.fix_pipeline import NewPipeline, Pipeline, Practice


@contextmanager
def _meddling(pipe: Pipeline, practice: Practice, seed: int) -> Iterator[None]:
    """Schema changes, reloads, and two tables in which a doubled change would show."""
    stop = threading.Event()
    dice = random.Random(seed)

    def meddle() -> None:
        connection = practice.connect()
        cursor = connection.cursor()
        added = 0
        while not stop.wait(0.05):
            cursor.execute("UPDATE counter SET n = n + 1")
            cursor.execute("INSERT INTO tally VALUES ('synthetic')")
            if dice.random() < 0.08 and not (_copying(pipe, "commlog") and dice.random() < 0.8):
                added += 1
                cursor.execute(
                    f"ALTER TABLE commlog ADD COLUMN Extra{added} INT NOT NULL DEFAULT 7"
                )
            if dice.random() < 0.07:
                table = dice.choice(["patient", "procedurelog", "tally", "commlog"])
                _request(pipe, table)
        connection.close()

    thread = threading.Thread(target=meddle, daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join(timeout=30)


def _request(pipe: Pipeline, table: str) -> None:
    """Queue a reload as `replicator resync` does, once; at first there is no queue to stand in."""
    with suppress(pymysql.MySQLError), closing(pipe.sandbox.replica_db.connect()) as connection:
        resync_requests.queue_resync(connection, [table])


def _copying(pipe: Pipeline, table: str) -> bool:
    """Is it copied anew? An ALTER makes that begin again, for ever where they come too fast."""
    with suppress(pymysql.MySQLError), closing(pipe.sandbox.replica_db.connect()) as connection:
        cursor = connection.cursor()
        return bool(
            cursor.execute(
                "SELECT 1 FROM etl_resync_request WHERE table_name = %s"
                " AND state IN ('copying', 'catching_up')",
                (table,),
            )
        )
    return False


def _requests(pipe: Pipeline) -> list[tuple[object, ...]]:
    return pipe.sandbox.replica_db.query(
        "SELECT state, count(*) FROM etl_resync_request GROUP BY state"
    )


def _offsets(pipe: Pipeline) -> list[tuple[object, ...]]:
    return pipe.sandbox.replica_db.query(
        "SELECT stream, binlog_file, binlog_position FROM etl_binlog_offset"
    )


def _first_copy(pipe: Pipeline) -> bool:
    return bool(
        pipe.sandbox.replica_db.query("SELECT 1 FROM etl_copy_progress WHERE rows_copied > 0")
    )


def _schema_change(pipe: Pipeline) -> bool:
    return bool(
        pipe.sandbox.replica_db.query(
            "SELECT 1 FROM etl_binlog_offset WHERE pending_ddl LIKE '%%ddl%%'"
        )
    )


def _resync(*states: str) -> Callable[[Pipeline], bool]:
    words = ", ".join(f"'{state}'" for state in states)

    def there(pipe: Pipeline) -> bool:
        return bool(
            pipe.sandbox.replica_db.query(
                f"SELECT 1 FROM etl_resync_request WHERE state IN ({words})"
            )
        )

    return there


def _loading(pipe: Pipeline) -> bool:
    return bool(
        pipe.sandbox.analytics_db.query(
            "SELECT 1 FROM raw.etl_transform_status"
            " WHERE transformation_status IN ('loading', 'reloading')"
        )
    )


def _random_moment(dice: random.Random) -> Callable[[Pipeline], bool]:
    moment = threading.Event()
    return lambda _: not moment.wait(dice.uniform(0.05, 1.5))  # a random moment is the point


def _victims(dice: random.Random) -> list[tuple[str, Callable[[Pipeline], bool]]]:
    """Who dies, and what is under way then; the first copy comes first."""
    later = [
        *[("replicator", _schema_change)] * 4,
        *[("replicator", _resync("copying"))] * 3,
        *[("replicator", _resync("catching_up", "loading"))] * 3,
        *[("loader", _loading)] * 4,
        *[("replicator", _random_moment(dice))] * 4,
        *[("loader", _random_moment(dice))] * 4,
    ]
    dice.shuffle(later)
    return [*[("replicator", _first_copy)] * 3, *later]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("engine", ["MyISAM", "InnoDB"])
def test_kills_at_random_moments_lose_nothing_and_double_nothing(
    pipeline: NewPipeline, engine: Engine
) -> None:
    pipe = pipeline(engine, REPLICATOR_COPY_CHUNK_ROWS="100", REPLICATOR_COPY_GAP_SECONDS="0.2")
    pipe.sandbox.source_db.execute("CREATE TABLE counter (id INT PRIMARY KEY, n INT)")
    pipe.sandbox.source_db.execute("INSERT INTO counter VALUES (1, 0)")
    pipe.sandbox.source_db.execute("CREATE TABLE tally (word VARCHAR(20)) ENGINE=InnoDB")
    dice = random.Random(engine)
    # Not so fast that a busy machine never catches up: a reload ends only where the stream does.
    with Practice(pipe, size=60, pace=15) as practice, _meddling(pipe, practice, 7):
        pipe.start()
        for program, under_way in _victims(dice):
            _kill_when(pipe, program, under_way)
    pipe.catch_up(120)
    assert pipe.differences() == {}


def _kill_when(pipe: Pipeline, program: str, under_way: Callable[[Pipeline], bool]) -> None:
    victim = pipe.replicator if program == "replicator" else pipe.loader

    def now() -> bool:
        assert victim.running, f"{program} has ended:\n{victim.output[-3000:]}"
        with suppress(pymysql.MySQLError, psycopg.Error):  # its tables may not be there yet
            return under_way(pipe)
        return False

    def where() -> str:
        return (
            f"the moment to kill the {program}; requests: {_requests(pipe)},"
            f" offsets: {_offsets(pipe)}, source: {pipe.sandbox.source_db.binlog_end()}\n"
            f"replicator: {pipe.replicator.output[-1500:]}\nloader: {pipe.loader.output[-1500:]}"
        )

    wait_until(now, 120, what=where, every=0.001)
    victim.kill()
    victim.start()

"""Schema, synthetic rows and the workload on a real server, with both engines."""

from __future__ import annotations

import re
from contextlib import closing
from threading import Event, Thread

import pytest

from replicator.sandbox.data import BIGGEST_KEY, RowMaker, load, row_counts
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.schema import TABLES, create_tables
from replicator.sandbox.waiting import wait_until
from replicator.sandbox.workload import Workload
from tests.fix_servers import Pair

ENGINES = ["MyISAM", "InnoDB"]


@pytest.fixture(params=ENGINES)
def practice(request: pytest.FixtureRequest, source_db: MySQLDatabase) -> MySQLDatabase:
    """A small practice on each engine in turn."""
    with closing(source_db.connect()) as connection:
        create_tables(connection, request.param)
        load(connection, size=40)
    return source_db


@pytest.mark.parametrize("engine", ENGINES)
def test_the_schema_loads_with_the_types_that_its_notation_promises(
    source_db: MySQLDatabase, servers: Pair, engine: str
) -> None:
    with closing(source_db.connect()) as connection:
        create_tables(connection, engine)
    columns = source_db.query(
        "SELECT table_name, column_name, column_type FROM information_schema.columns"
        " WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position"
    )
    promised = [(t.name, c.name, c.type) for t in TABLES.values() for c in t.columns]
    if servers.family == "mysql":  # which shows no width but that of a boolean
        promised = [
            (t, c, kind if kind == "tinyint(1)" else re.sub(r"int\(\d+\)", "int", kind))
            for t, c, kind in promised
        ]
    assert columns == sorted(promised, key=lambda line: line[0])
    assert source_db.query(
        "SELECT DISTINCT engine, SUBSTRING_INDEX(table_collation, '_', 1)"
        " FROM information_schema.tables WHERE table_schema = DATABASE()"
    ) == [(engine, "utf8mb3")]


def test_all_promised_rows_are_loaded(practice: MySQLDatabase) -> None:
    loaded = {name: practice.query(f"SELECT COUNT(*) FROM {name}")[0][0] for name in TABLES}
    assert loaded == row_counts(40)


def test_the_rows_hold_what_makes_copies_go_wrong(practice: MySQLDatabase) -> None:
    def count(table: str, condition: str) -> int:
        return int(practice.query(f"SELECT COUNT(*) FROM {table} WHERE {condition}")[0][0])

    assert count("patient", "Birthdate = '0001-01-01'")
    assert count("patient", "Title IS NULL")
    assert count("patient", "LName NOT LIKE 'Synthetic-%'") == 0
    assert count("clockevent", "OTimeHours = '-01:00:00' OR Adjust = '-01:00:00'")
    assert count("commlog", "Note LIKE '%東京%'")
    assert count("paysplit", f"SplitNum > {2**60}")
    assert count("sheetfield", "FontSize = CAST(0.1 AS FLOAT)")


def test_rows_survive_the_server_exactly_as_they_were_made(practice: MySQLDatabase) -> None:
    """Nothing is truncated or rounded on the way in: strict mode takes the same rows."""
    with closing(practice.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = 'TRADITIONAL,NO_ENGINE_SUBSTITUTION'")
        cursor.execute("SET SESSION sql_mode = REPLACE(@@sql_mode, 'NO_ZERO_DATE,', '')")
        for table in TABLES:
            cursor.execute(f"TRUNCATE TABLE {table}")
        load(connection, size=20, seed=9)


def test_the_same_seed_makes_the_same_rows_and_another_seed_others() -> None:
    def rows(seed: int) -> list[list[str]]:
        maker = RowMaker(TABLES["patient"], seed=seed, patients=10)
        return [maker.row(key) for key in maker.keys(20)]

    assert rows(1) == rows(1)
    assert rows(1) != rows(2)


def test_random_keys_are_distinct_and_leave_room_for_the_next_auto_increment() -> None:
    keys = list(RowMaker(TABLES["securitylog"], seed=1, patients=1).keys(1000))
    assert len(set(keys)) == 1000
    assert max(keys) <= BIGGEST_KEY


def test_three_hundred_steps_of_the_workload_meet_no_error(practice: MySQLDatabase) -> None:
    with closing(Workload(practice.connect, seed=3)) as workload:
        for _ in range(300):
            workload.step()
    assert sum(workload.done.values()) == 300
    assert len(workload.done) >= 15
    assert not workload.contended


def test_a_second_run_with_the_same_seed_soon_finds_keys_of_its_own(
    practice: MySQLDatabase,
) -> None:
    for _ in range(2):
        with closing(Workload(practice.connect, seed=3)) as workload:
            for _ in range(100):
                workload.step()
    assert 0 < workload.contended["duplicate key"] < 10


@pytest.mark.parametrize("shared", [False, True])
def test_several_workers_run_side_by_side_until_told_to_stop(
    practice: MySQLDatabase, shared: bool
) -> None:
    stop = Event()
    workers = [Workload(practice.connect, seed=5, worker=i, shared=shared) for i in range(4)]
    failures: list[BaseException] = []

    def work(worker: Workload) -> None:
        try:
            worker.run(stop)
        except BaseException as error:
            failures.append(error)

    threads = [Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    wait_until(
        lambda: failures or all(sum(worker.done.values()) >= 60 for worker in workers),
        deadline=60,
        what="every worker to do sixty steps",
    )
    stop.set()
    for thread in threads:
        thread.join(timeout=30)
    assert not failures


def test_a_workload_keeps_to_its_rate(practice: MySQLDatabase) -> None:
    stop = Event()
    workload = Workload(practice.connect)
    thread = Thread(target=workload.run, args=(stop, 1.0))
    thread.start()
    wait_until(lambda: workload.done, what="a first step")
    stop.set()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert sum(workload.done.values()) < 10

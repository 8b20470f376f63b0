"""How batches reach `raw`: straight, staged, in parts of a transaction; what a reader sees."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from config.errors import Transient
from config.settings import Settings
from loader import upsert, writer
from loader.writer import Writer
from tests.numbers import numbers

from .conftest import Harness, Replica


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Batches so small that an ordinary transaction is a large one."""
    tuning = settings.loader.model_copy(update={"batch_bytes": 256 << 10, "batch_rows": 2_000})
    return settings.model_copy(update={"loader": tuning})


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each part that is written without a commit."""
    found: list[int] = []
    really = Writer.write_part

    def counted(self: Writer, batch: Any, offset: Any) -> None:
        if batch.rows:
            found.append(batch.rows)
        really(self, batch, offset)

    monkeypatch.setattr(Writer, "write_part", counted)
    return found


def filled(first: int, last: int) -> str:
    return f"INSERT INTO big SELECT seq, seq, REPEAT('x', 300) FROM {numbers(first, last)}"


def large(replica: Replica) -> None:
    """A transaction of some MB that touches each row that was there, and keyless rows too."""
    replica.commit(
        filled(1001, 9000),
        "UPDATE big SET v = v + 1 WHERE id % 3 = 0",
        "DELETE FROM big WHERE id % 5 = 0",
        "UPDATE big SET id = id + 100000 WHERE id % 7 = 0",
        f"INSERT INTO k SELECT seq % 10 FROM {numbers(1, 300)}",
        "DELETE FROM k WHERE v = 3 LIMIT 20",
        "REPLACE INTO etl_extract_status (table_name, extraction_status)"
        " VALUES ('late', 'streaming')",
    )


def prepared(replica: Replica, harness: Harness) -> None:
    replica.create("big", "id int PRIMARY KEY, v int, t text")
    replica.create("k", "v int")
    replica.ddl("CREATE TABLE late (id int PRIMARY KEY)")
    replica.commit(filled(1, 1000), "INSERT INTO k VALUES (3), (3)")
    harness.catch_up()


def test_a_transaction_larger_than_memory_appears_at_once(
    replica: Replica, harness: Harness, parts: list[int]
) -> None:
    prepared(replica, harness)
    large(replica)
    seen = set()

    def watched() -> bool:
        seen.add(harness.raw.query("SELECT count(*), sum(v) FROM raw.big")[0])
        return harness._caught_up()

    harness.step_until(watched, 60)
    assert len(parts) > 3
    assert len(seen) == 2, "a reader saw it before, or after, and nothing between"
    harness.assert_same("big", "k", "late")
    replica.commit("INSERT INTO big VALUES (0, 0, '')", "INSERT INTO late VALUES (1)")
    harness.catch_up()
    harness.assert_same("big", "k", "late")


def test_a_loader_that_dies_between_two_parts_leaves_nothing_of_them(
    replica: Replica, harness: Harness, parts: list[int]
) -> None:
    prepared(replica, harness)
    before = harness.raw_rows("big")
    large(replica)
    harness.step_until(lambda: len(parts) >= 2)
    harness.restart()
    assert harness.raw_rows("big") == before
    harness.catch_up()
    harness.assert_same("big", "k", "late")


def test_a_row_that_is_there_already_makes_new_rows_go_by_upsert(
    replica: Replica, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(replica, harness)
    straight: list[bool] = []
    really = upsert.FoldWriter._copy_in

    def copied(self: upsert.FoldWriter, fold: Any) -> None:
        straight.append(False)
        really(self, fold)
        straight[-1] = True

    monkeypatch.setattr(upsert.FoldWriter, "_copy_in", copied)
    replica.commit(filled(2001, 2200))
    harness.catch_up()
    harness.raw.execute("INSERT INTO raw.big (id, v) VALUES (3100, 1)")
    replica.commit(filled(3001, 3200))
    harness.catch_up()
    assert straight == [True, False]
    harness.assert_same("big")
    [(loaded, stamped)] = harness.raw.query(
        "SELECT count(*) FILTER (WHERE _loaded_at IS NULL), count(DISTINCT _source_ts)"
        " FROM raw.big WHERE id > 2000"
    )
    assert (loaded, stamped) == (0, 2)


def test_rows_copied_straight_in_are_not_seen_before_their_position(
    replica: Replica, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the batch holds nothing else, so that the COPY opens the transaction."""
    prepared(replica, harness)
    replica.commit(filled(2001, 2200))
    harness.catch_up()
    seen: list[int] = []
    really = Writer._commit

    def looked(self: Writer, batch: Any, *rest: Any) -> None:
        if batch.rows:
            seen.append(harness.raw.query("SELECT count(*) FROM raw.big WHERE id > 3000")[0][0])
        really(self, batch, *rest)

    monkeypatch.setattr(Writer, "_commit", looked)
    replica.commit(filled(3001, 3200))
    harness.catch_up()
    assert seen == [0]
    harness.assert_same("big")


def test_many_batches_leave_the_catalog_as_it_was(replica: Replica, harness: Harness) -> None:
    prepared(replica, harness)

    def batches(first: int) -> None:
        for start in range(first, first + 300, 100):
            replica.commit(f"UPDATE big SET v = v + 1 WHERE id BETWEEN {start} AND {start + 99}")
            harness.catch_up()

    def relations() -> list[tuple[Any, ...]]:
        return harness.raw.query("SELECT max(oid::bigint) FROM pg_class")

    batches(1)
    before = relations()
    batches(301)
    assert relations() == before
    harness.assert_same("big")


def test_what_breaks_in_the_writing_thread_reaches_the_loop(
    replica: Replica, harness: Harness
) -> None:
    prepared(replica, harness)
    replica.commit("UPDATE big SET v = -1")
    with harness.raw.server.connect() as root:
        root.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'loader' AND datname = %s",
            [harness.raw.name],
        )
    with pytest.raises((Transient, psycopg.Error)):
        harness.catch_up()
    harness.catch_up()
    harness.assert_same("big")


def test_what_is_prepared_for_tables_is_forgotten_when_it_has_too_many_columns(
    replica: Replica, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "KEPT_COLUMNS", 40)
    tables = [f"leaf{number}" for number in range(30)]
    for name in tables:
        replica.create(name, "id int PRIMARY KEY, a int, b int, c int")
    harness.catch_up()
    session = harness.loader._session
    assert session is not None
    assert session._ledger is not None
    most, connection = 0, session._postgres
    for value in range(2):
        for name in tables:
            replica.commit(f"REPLACE INTO {name} VALUES (1, {value}, 2, 3), (2, 1, 2, 3)")
            harness.catch_up()
            session._ledger.drain()  # then nobody else uses the connection
            names = connection.execute("SELECT statement FROM pg_prepared_statements").fetchall()
            most = max(most, sum("INSERT INTO" in text and "leaf" in text for (text,) in names))
            connection.commit()
    harness.assert_same(*tables)
    assert 5 < most <= 15

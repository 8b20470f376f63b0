"""deletes = "soft": rows that the source deleted stay in `raw`, marked, as they last were.

`raw`'s live rows are compared with the replica's own SELECT, and the marked ones with an account
that the test keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from config.errors import ConfigError
from config.settings import Settings

from ..conftest import Harness, Replica
from .rules import change_rules, with_rules

SOFT = '[table.t]\ndeletes = "soft"\n'
COLUMNS = "id int PRIMARY KEY, v int, w varchar(40)"
Row = tuple[Any, ...]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_rules(settings, tmp_path, SOFT)


def marked(harness: Harness, table: str = "t", columns: str = "id, v, w") -> list[Row]:
    return harness.raw.query(
        f'SELECT {columns} FROM raw."{table}" WHERE _deleted_at IS NOT NULL ORDER BY 1'
    )


def live(harness: Harness, table: str = "t", columns: str = "id, v, w") -> list[Row]:
    return harness.raw.query(
        f'SELECT {columns} FROM raw."{table}" WHERE _deleted_at IS NULL ORDER BY 1'
    )


def source(harness: Harness, table: str = "t", columns: str = "id, v, w") -> list[Row]:
    return [tuple(row) for row in harness.replica.database.query(
        f"SELECT {columns} FROM `{table}` ORDER BY 1"
    )]  # fmt: skip


def assert_kept(harness: Harness, *rows: Row) -> None:
    assert live(harness) == source(harness)
    assert marked(harness) == list(rows)


def resync(replica: Replica, table: str = "t") -> None:
    replica.commit(
        "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
        f" VALUES ('{table}', UTC_TIMESTAMP(6), 'loading', UTC_TIMESTAMP(6))"
    )


@pytest.fixture
def small(harness: Harness, replica: Replica) -> Callable[[int], None]:
    """Fill t with so many rows by the stream."""

    def fill(rows: int) -> None:
        replica.create("t", COLUMNS)
        harness.catch_up()
        values = ", ".join(f"({n}, {n * 10}, 'synthetic')" for n in range(1, rows + 1))
        replica.commit(f"INSERT INTO t VALUES {values}")
        harness.catch_up()

    return fill


@pytest.mark.parametrize("rows", [5, 200])
def test_a_deleted_row_stays_as_it_last_was(
    harness: Harness, replica: Replica, small: Callable[[int], None], rows: int
) -> None:
    small(rows)
    began = datetime.now(UTC)
    stamps = harness.raw.query("SELECT _loaded_at, _source_ts FROM raw.t WHERE id = 2")
    replica.commit("DELETE FROM t WHERE id = 2")
    replica.commit(f"UPDATE t SET v = -1 WHERE id > {rows - 2}", f"DELETE FROM t WHERE id = {rows}")
    replica.commit("INSERT INTO t VALUES (1000, 1, 'came and went')")
    replica.commit("DELETE FROM t WHERE id = 1000")
    replica.commit(f"DELETE FROM t WHERE id BETWEEN 10 AND {rows // 2}")
    harness.catch_up()
    between = [(n, n * 10, "synthetic") for n in range(10, rows // 2 + 1)]
    assert_kept(
        harness, (2, 20, "synthetic"), *between, (rows, -1, "synthetic"),
        (1000, 1, "came and went"),
    )  # fmt: skip
    found = harness.raw.query("SELECT _loaded_at, _source_ts, _deleted_at FROM raw.t WHERE id = 2")
    assert found[0][0] > stamps[0][0]  # dbt sees it
    assert found[0][1] == stamps[0][1]  # the version is what it was
    assert timedelta(0) < found[0][2] - began < timedelta(seconds=20)  # the source's time


@pytest.mark.parametrize("rows", [5, 200])
def test_a_row_comes_back_and_goes_again(
    harness: Harness, replica: Replica, small: Callable[[int], None], rows: int
) -> None:
    small(rows)
    replica.commit("DELETE FROM t")
    harness.catch_up()
    assert live(harness) == []
    replica.commit("INSERT INTO t VALUES (1, 11, 'again'), (2, 22, 'again')")
    if rows > 30:  # many new keys at once, some of which are there, marked
        replica.commit(*(f"INSERT INTO t VALUES ({n}, 0, 'again')" for n in range(150, 250)))
    harness.catch_up()
    assert live(harness) == source(harness)
    assert live(harness)[:2] == [(1, 11, "again"), (2, 22, "again")]
    replica.commit("DELETE FROM t WHERE id = 1")
    replica.commit("INSERT INTO t VALUES (1, 12, 'third')")
    replica.commit("DELETE FROM t WHERE id = 1")
    harness.catch_up()
    assert marked(harness)[0] == (1, 12, "third")


def test_a_changed_key_leaves_the_old_one_marked(
    harness: Harness, replica: Replica, small: Callable[[int], None]
) -> None:
    small(3)
    replica.commit("UPDATE t SET id = 30 WHERE id = 3")
    replica.commit("UPDATE t SET id = 40, v = 7 WHERE id = 2", "UPDATE t SET id = 2 WHERE id = 1")
    harness.catch_up()
    assert_kept(harness, (1, 10, "synthetic"), (3, 30, "synthetic"))


def test_truncate_marks_all_and_drop_takes_all(
    harness: Harness, replica: Replica, small: Callable[[int], None]
) -> None:
    small(4)
    replica.commit("DELETE FROM t WHERE id = 1")
    harness.catch_up()
    first = harness.raw.query("SELECT _deleted_at FROM raw.t WHERE id = 1")
    replica.ddl("TRUNCATE t")
    replica.commit("INSERT INTO t VALUES (3, 33, 'behind it')")
    harness.catch_up()
    assert_kept(harness, *((n, n * 10, "synthetic") for n in (1, 2, 4)))
    assert harness.raw.query("SELECT _deleted_at FROM raw.t WHERE id = 1") == first
    replica.ddl("DROP TABLE t")
    harness.catch_up()
    assert harness.raw.query("SELECT to_regclass('raw.t')") == [(None,)]


def test_a_reload_marks_what_it_lacks_and_leaves_marked_rows_alone(
    harness: Harness, replica: Replica, small: Callable[[int], None]
) -> None:
    small(6)
    replica.commit("DELETE FROM t WHERE id = 1")
    harness.catch_up()
    # What nobody told: rows that are gone, changed, and back, without an event.
    with_nothing = "SET SESSION sql_log_bin = 0"
    with harness.replica.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(with_nothing)
        cursor.execute("DELETE FROM t WHERE id = 2")
        cursor.execute("UPDATE t SET v = 0 WHERE id = 3")
        connection.commit()
    before = harness.raw.query("SELECT id, xmin::text FROM raw.t WHERE id IN (1, 4, 5) ORDER BY 1")
    resync(replica)
    replica.commit("DELETE FROM t WHERE id = 6")
    replica.commit("INSERT INTO t VALUES (7, 70, 'new')", "UPDATE t SET v = 71 WHERE id = 7")
    replica.commit("DELETE FROM t WHERE id = 7")
    harness.catch_up()
    assert_kept(
        harness, (1, 10, "synthetic"), (2, 20, "synthetic"), (6, 60, "synthetic"), (7, 71, "new")
    )
    after = harness.raw.query("SELECT id, xmin::text FROM raw.t WHERE id IN (1, 4, 5) ORDER BY 1")
    assert after == before  # what is the same was not written
    moments = harness.raw.query(
        "SELECT _deleted_at <= (SELECT source_event_timestamp FROM raw.etl_binlog_offset)"
        " FROM raw.t WHERE id = 2"
    )
    assert moments == [(True,)]


def test_missed_changes_are_marked_when_the_copy_is_whole(
    harness: Harness, replica: Replica, small: Callable[[int], None]
) -> None:
    small(5)
    replica.commit("DELETE FROM t WHERE id = 1")
    replica.commit("REPLACE INTO etl_extract_status (table_name, extraction_status)"
                   " VALUES ('t', 'copying')")  # fmt: skip
    harness.step_until(lambda: harness.states()["t"] == "waiting")
    replica.commit("DELETE FROM t WHERE id = 2", "UPDATE t SET v = 0 WHERE id = 3")
    replica.streams("t")
    replica.commit("DELETE FROM t WHERE id = 4", "INSERT INTO t VALUES (1, 1, 'back')")
    replica.commit("DELETE FROM t WHERE id = 5", "INSERT INTO t VALUES (5, 5, 'back')")
    harness.catch_up()
    assert live(harness) == source(harness)
    assert marked(harness, columns="id, v") == [(2, 20), (4, 40)]


def test_the_rule_is_switched_both_ways_without_a_reload(
    harness: Harness, replica: Replica, small: Callable[[int], None]
) -> None:
    small(4)
    replica.commit("DELETE FROM t WHERE id = 1")
    harness.catch_up()
    rows = harness.raw.query("SELECT id, xmin::text FROM raw.t WHERE id > 1 ORDER BY 1")
    harness.raw.execute("CREATE VIEW raw.looks AS SELECT id, _deleted_at FROM raw.t")
    with capture_logs() as logs:
        change_rules(harness, "")
    assert [e["rows"] for e in logs if e["event"] == "deleted_rows_let_go"] == [1]
    assert not [e for e in logs if e["event"] == "table_loaded"]
    assert harness.raw.query("SELECT id, xmin::text FROM raw.t ORDER BY 1") == rows
    assert harness.raw.query("SELECT count(*) FROM raw.looks") == [(3,)]
    replica.commit("DELETE FROM t WHERE id = 2")
    harness.catch_up()
    assert harness.raw.query("SELECT id FROM raw.t ORDER BY 1") == [(3,), (4,)]
    with capture_logs() as logs:
        change_rules(harness, SOFT)
    assert not [e for e in logs if e["event"] == "table_loaded"]
    replica.commit("DELETE FROM t WHERE id = 3")
    harness.catch_up()
    assert_kept(harness, (3, 30, "synthetic"))


@pytest.mark.parametrize(
    ("alter", "expected"),
    [
        ("ADD COLUMN x int NOT NULL DEFAULT 7", [(1, 10, "synthetic", 7)]),
        ("ADD COLUMN x int", [(1, 10, "synthetic", None)]),
        ("ADD COLUMN x timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP",
         [(1, 10, "synthetic", None)]),
        ("DROP COLUMN v", [(1, "synthetic")]),
        ("CHANGE v u int", [(1, 10, "synthetic")]),
        ("MODIFY v bigint", [(1, 10, "synthetic")]),
        ("MODIFY w text CHARACTER SET latin1", [(1, 10, "synthetic")]),
        ("MODIFY w varbinary(40)", [(1, 10, None)]),
        ("DROP PRIMARY KEY, ADD PRIMARY KEY (id, v)", [(1, 10, "synthetic")]),
        ("ADD INDEX (v)", [(1, 10, "synthetic")]),
    ],
)  # fmt: skip
def test_deleted_rows_outlive_an_alter(
    harness: Harness,
    replica: Replica,
    small: Callable[[int], None],
    alter: str,
    expected: list[Row],
) -> None:
    small(4)
    replica.commit("DELETE FROM t WHERE id = 1")
    harness.catch_up()
    replica.ddl(f"ALTER TABLE t {alter}")
    harness.catch_up()
    columns = ", ".join(
        name for (name,) in replica.database.query(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = %s"
            " AND table_name = 't' ORDER BY ordinal_position", (replica.database.name,)
        )
    )  # fmt: skip
    assert marked(harness, columns=columns) == expected
    replica.commit("DELETE FROM t WHERE id = 2")
    harness.catch_up()
    assert len(marked(harness, columns="id")) == 2
    assert [row[0] for row in live(harness, columns="id")] == [3, 4]


def test_a_key_that_kept_rows_do_not_fit_lets_them_go_by_name(
    harness: Harness, replica: Replica, small: Callable[[int], None]
) -> None:
    small(4)
    replica.commit("DELETE FROM t WHERE id = 1")
    replica.commit("INSERT INTO t VALUES (9, 10, 'its v is that of a deleted row')")
    harness.catch_up()
    with capture_logs() as logs:
        replica.ddl("ALTER TABLE t MODIFY v int NOT NULL, DROP PRIMARY KEY, ADD PRIMARY KEY (v)")
        harness.catch_up()
    assert_kept(harness)
    assert [e["rows"] for e in logs if e["event"] == "deleted_rows_let_go"] == [1]


def test_opendentals_way_to_alter_keeps_the_deleted_rows(
    harness: Harness, replica: Replica, small: Callable[[int], None]
) -> None:
    small(4)
    replica.commit("DELETE FROM t WHERE id = 1")
    harness.catch_up()
    replica.ddl("RENAME TABLE t TO tempConv_t1")
    replica.ddl("CREATE TABLE t LIKE tempConv_t1")
    replica.ddl("ALTER TABLE t ADD COLUMN x int NOT NULL DEFAULT 3")
    replica.streams("t")
    replica.commit("INSERT INTO t SELECT id, v, w, 4 FROM tempConv_t1")
    replica.commit("DELETE FROM t WHERE id = 2")
    replica.ddl("DROP TABLE tempConv_t1")
    harness.catch_up()
    assert live(harness, columns="id, v, w, x") == source(harness, columns="id, v, w, x")
    assert marked(harness, columns="id, v, x") == [(1, 10, None), (2, 20, 4)]


def test_a_table_that_is_renamed_for_good_takes_its_deleted_rows_along(
    harness: Harness, replica: Replica, small: Callable[[int], None]
) -> None:
    harness.settings.tables_file.write_text('[table."[tu]"]\ndeletes = "soft"\n')
    harness.restart()
    small(3)
    replica.commit("DELETE FROM t WHERE id = 1")
    harness.catch_up()
    replica.ddl("RENAME TABLE t TO u")
    replica.streams("u")
    harness.catch_up()
    assert live(harness, "u") == source(harness, "u")
    assert marked(harness, "u") == [(1, 10, "synthetic")]


def test_masked_rows_stay_masked(harness: Harness, replica: Replica) -> None:
    harness.settings.tables_file.write_text(SOFT + '[mask.t]\nw = "redact"\nv = "drop"\n')
    harness.restart()
    replica.create("t", COLUMNS)
    replica.commit("INSERT INTO t VALUES (1, 1, 'marigold'), (2, 2, 'marigold')")
    harness.catch_up()
    replica.commit("DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (3, 3, 'marigold')")
    replica.commit("UPDATE t SET w = 'foxglove' WHERE id = 3", "DELETE FROM t WHERE id = 3")
    harness.catch_up()
    assert marked(harness, columns="id, w") == [(1, "[redacted]"), (3, "[redacted]")]
    change_rules(harness, SOFT + '[mask.t]\nw = "drop"\n')
    assert marked(harness, columns="id, v") == [(1, None), (3, None)]
    assert live(harness, columns="id, v") == [(2, 2)]


def test_a_stricter_mask_reaches_deleted_rows(
    harness: Harness, replica: Replica, small: Callable[[int], None]
) -> None:
    small(3)
    replica.commit("UPDATE t SET w = 'marigold'", "DELETE FROM t WHERE id = 1")
    harness.catch_up()
    change_rules(harness, SOFT + '[mask.t]\nw = "redact"\n')
    assert marked(harness) == [(1, 10, None)]
    assert live(harness, columns="w") == [("[redacted]",)] * 2


def test_another_key_to_hash_keys_by_leaves_no_row_under_the_old(
    harness: Harness, replica: Replica, small: Callable[[int], None]
) -> None:
    keyed = SOFT + '[mask.t]\nid = "hash"\n'
    harness.settings.tables_file.write_text(keyed)
    tuning = harness.settings.loader
    for number in (1, 2):
        key = SecretStr(f"key number {number}, which is long enough")
        settings = tuning.model_copy(update={"privacy_key": key})
        harness.settings = harness.settings.model_copy(update={"loader": settings})
        harness.restart()
        if number == 1:
            small(3)
            replica.commit("DELETE FROM t WHERE id = 1")
        harness.loader.step()
        harness.catch_up()
        assert len(marked(harness)) == (1 if number == 1 else 0)
        assert len(live(harness)) == 2


def test_a_refused_row_is_neither_live_nor_deleted(
    harness: Harness, replica: Replica, small: Callable[[int], None]
) -> None:
    small(4)
    replica.commit("DELETE FROM t WHERE id = 1")
    harness.catch_up()
    harness.raw.execute("ALTER TABLE raw.t ADD CONSTRAINT small CHECK (v < 1000) NOT VALID")
    replica.commit("UPDATE t SET v = 2000 WHERE id = 2", "INSERT INTO t VALUES (1, 3000, 'back')")
    harness.catch_up()
    assert live(harness, columns="id") == [(3,), (4,)]
    assert marked(harness, columns="id, v") == [(1, 10)]  # what it was when it was deleted
    replica.commit("UPDATE t SET v = 20 WHERE id = 2", "DELETE FROM t WHERE id = 1")
    replica.commit("UPDATE t SET v = 5000 WHERE id = 3", "DELETE FROM t WHERE id = 3")
    harness.catch_up()
    assert harness.raw.query("SELECT count(*) FROM raw.etl_quarantine") == [(0,)]
    assert live(harness) == source(harness)
    assert marked(harness, columns="id, v") == [(1, 10), (3, 30)]  # the last that raw took


def test_value_exceptions_of_a_deleted_row_stay_with_it(
    harness: Harness, replica: Replica, small: Callable[[int], None]
) -> None:
    small(2)
    replica.commit("UPDATE t SET w = 'a\\0b' WHERE id = 1")
    harness.catch_up()
    replica.commit("DELETE FROM t WHERE id = 1")
    replica.commit("INSERT INTO t VALUES (8, 8, 'c\\0d')", "DELETE FROM t WHERE id = 8")
    harness.catch_up()
    asked = "SELECT key, original FROM raw.etl_value_exceptions ORDER BY 1"
    kept = [("1", b"a\0b"), ("8", b"c\0d")]
    assert [(key, bytes(was)) for key, was in harness.raw.query(asked)] == kept
    resync(replica)
    harness.catch_up()
    assert [(key, bytes(was)) for key, was in harness.raw.query(asked)] == kept
    replica.commit("INSERT INTO t VALUES (1, 1, 'fine')")
    harness.catch_up()
    assert [key for key, _ in harness.raw.query(asked)] == ["8"]


@pytest.mark.parametrize("word", ['deletes = "soft"', "history = true"])
def test_a_table_without_a_key_is_refused_by_name(
    harness: Harness, replica: Replica, word: str
) -> None:
    replica.create("t", "id int, v int")
    harness.settings.tables_file.write_text(f"[table.t]\n{word}\n")
    harness.restart()
    with pytest.raises(ConfigError, match=r"t: .* needs a primary key"):
        harness.catch_up()


def test_a_pattern_passes_over_tables_without_a_key(harness: Harness, replica: Replica) -> None:
    harness.settings.tables_file.write_text('[table."*"]\ndeletes = "soft"\n')
    replica.create("t", COLUMNS)
    replica.create("log", "v int")
    replica.commit("INSERT INTO t VALUES (1, 1, 'x')", "INSERT INTO log VALUES (1), (1), (2)")
    with capture_logs() as logs:
        harness.restart()
        harness.catch_up()
    assert [e["tables"] for e in logs if e["event"] == "keyless_tables_are_mirrored"] == [["log"]]
    replica.commit("DELETE FROM t", "DELETE FROM log WHERE v = 1")
    harness.catch_up()
    assert_kept(harness, (1, 1, "x"))
    assert harness.raw.query("SELECT v FROM raw.log") == [(2,)]

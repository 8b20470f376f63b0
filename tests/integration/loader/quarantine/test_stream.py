"""Rows that PostgreSQL refuses go to the quarantine; their tables stream on."""

from __future__ import annotations

import random
import string
from typing import Any

import pytest
import structlog

from config.metrics import REGISTRY
from config.settings import Settings
from loader.quarantine import careful as careful_module
from loader.upsert import FoldWriter
from loader.writer import Writer
from tests.numbers import numbers

from ..conftest import Harness, Replica
from .held import MARKER, assert_all_but, entries

_LETTERS = random.Random(1)
WIDE = MARKER + "".join(_LETTERS.choices(string.ascii_letters + string.digits, k=9000))
"""More than an index row holds, and nothing that compresses."""

TRIGGER = """
CREATE FUNCTION raw.judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.v = 13 THEN RAISE EXCEPTION 'row % has the note %', NEW.id, NEW.note; END IF;
  RETURN NEW; END $$;
CREATE TRIGGER judge BEFORE INSERT OR UPDATE ON raw.t FOR EACH ROW EXECUTE FUNCTION raw.judge();
"""
OBSTACLES = {
    "a check": ("ALTER TABLE raw.t ADD CONSTRAINT no_13 CHECK (v <> 13)", "23514"),
    "not null": ("ALTER TABLE raw.t ALTER v SET NOT NULL", "23502"),
    "a unique index": ("CREATE UNIQUE INDEX on_v ON raw.t (v) WHERE v = 13", "23505"),
    "a deferred constraint": (
        "ALTER TABLE raw.t ADD CONSTRAINT once UNIQUE (v) DEFERRABLE INITIALLY DEFERRED",
        "23505",
    ),
    "a trigger": (TRIGGER, "P0001"),
    "an index row's size": ("CREATE INDEX on_note ON raw.t (note)", "54000"),
    "an exclusion": (
        "ALTER TABLE raw.t ADD CONSTRAINT apart EXCLUDE USING btree (v WITH =)",
        "23P01",
    ),
}
"""What an analyst may put on a raw table, and how PostgreSQL calls what it refuses then."""


@pytest.fixture
def table(replica: Replica, harness: Harness) -> Harness:
    """Two tables, one of which will have something on it."""
    replica.create("t", "id int PRIMARY KEY, v int, note text")
    replica.create("other", "id int PRIMARY KEY, v int, note text")
    replica.commit(f"INSERT INTO t SELECT seq, seq + 1000, '' FROM {numbers(1, 60)}")
    replica.commit("UPDATE t SET v = 13 WHERE id = 60")
    harness.catch_up()
    return harness


def _spoiled(obstacle: str) -> str:
    """Assignments that make a row one that the obstacle refuses."""
    if obstacle == "not null":
        return f"v = NULL, note = '{MARKER}'"
    if obstacle == "an index row's size":
        return f"note = '{WIDE}'"
    return f"v = 13, note = '{MARKER}'"


def _put_up(harness: Harness, obstacle: str) -> None:
    if "unique" not in obstacle and obstacle not in ("a deferred constraint", "an exclusion"):
        harness.raw.execute("UPDATE raw.t SET v = 0 WHERE id = 60")
    harness.raw.execute(OBSTACLES[obstacle][0])


@pytest.mark.parametrize("rows", [3, 400], ids=["a few rows", "many rows"])
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_refused_rows_are_kept_aside_and_everything_else_streams_on(
    replica: Replica, table: Harness, obstacle: str, rows: int, capfd: pytest.CaptureFixture[str]
) -> None:
    replica.commit("UPDATE t SET v = 0 WHERE id = 60 AND " + str(obstacle in _ROWWISE))
    table.catch_up()
    _put_up(table, obstacle)
    spoiled = _spoiled(obstacle)
    replica.commit(
        f"INSERT INTO t SELECT seq, seq + 1000, 'new' FROM {numbers(101, 100 + rows)}",
        f"UPDATE t SET {spoiled} WHERE id IN (5, 102)",
        "UPDATE t SET note = 'changed' WHERE id IN (4, 6)",
        "DELETE FROM t WHERE id = 7",
        "INSERT INTO other VALUES (1, 1, 'x')",
    )
    table.catch_up()
    assert_all_but(table, replica, 5, 102)
    table.assert_same("other")
    for operation, reason, copies, stale in entries(table).values():
        assert (operation, copies, stale) == ("upsert", 1, False)
        assert f"SQLSTATE {OBSTACLES[obstacle][1]}" in reason
        assert MARKER not in reason
    replica.commit(
        "INSERT INTO t VALUES (9001, 9001, 'later')", "INSERT INTO other VALUES (2, 2, '')"
    )
    table.catch_up()
    assert_all_but(table, replica, 5, 102)
    replica.commit("UPDATE t SET v = 5, note = 'good' WHERE id = 5", "DELETE FROM t WHERE id = 102")
    table.catch_up()
    assert_all_but(table, replica)
    said = capfd.readouterr()
    assert MARKER not in said.out + said.err
    assert "rows_quarantined" in said.out


_ROWWISE = ("a check", "not null", "a trigger", "an index row's size")


def test_a_row_that_is_refused_again_keeps_one_entry_and_its_last_version(
    replica: Replica, table: Harness
) -> None:
    table.raw.execute("ALTER TABLE raw.t ADD CHECK (v > 0) NOT VALID")
    for version in (1, 2, 3):
        replica.commit(f"UPDATE t SET v = -{version}, note = '{MARKER}{version}' WHERE id = 9")
        table.catch_up()
    [(image, columns, values)] = table.raw.query(
        "SELECT row_image, image_columns, key_values FROM raw.etl_quarantine"
    )
    assert bytes(image) == f"9\t-3\t{MARKER}3".encode()
    assert (columns, values) == (["id", "v", "note"], {"id": "9"})
    assert_all_but(table, replica, 9)


def test_the_place_of_a_refused_row_is_told(replica: Replica, table: Harness) -> None:
    table.raw.execute("ALTER TABLE raw.t ADD CHECK (v > 0) NOT VALID")
    position = replica.commit("UPDATE t SET v = -1 WHERE id = 9")
    table.catch_up()
    moment = replica.database.query("SELECT event_timestamp FROM etl_binlog_offset")[0][0]
    [found] = table.raw.query(
        "SELECT source_binlog_position, source_event_timestamp AT TIME ZONE 'UTC',"
        " replica_binlog_file, schema_hash = (SELECT schema_hash FROM raw.etl_table_schema"
        " WHERE table_name = 't') FROM raw.etl_quarantine"
    )
    assert found[:2] == (position, moment)
    assert found[2]
    assert found[3] is True


def test_an_update_of_the_key_moves_the_entry(replica: Replica, table: Harness) -> None:
    table.raw.execute("ALTER TABLE raw.t ADD CHECK (v > 0) NOT VALID")
    replica.commit("UPDATE t SET v = -1 WHERE id = 9")
    table.catch_up()
    replica.commit("UPDATE t SET id = 900 WHERE id = 9")
    table.catch_up()
    assert_all_but(table, replica, 900)
    replica.commit("UPDATE t SET id = 9, v = 1 WHERE id = 900")
    table.catch_up()
    assert_all_but(table, replica)


@pytest.mark.parametrize("count", [2, 100])
def test_values_that_change_places_under_an_analysts_unique_index_are_no_fault(
    replica: Replica, table: Harness, count: int
) -> None:
    """On the source no two rows ever have the same; a fold has forgotten in which order."""
    replica.commit("DELETE FROM t", f"INSERT INTO t SELECT seq, seq, '' FROM {numbers(1, count)}")
    table.catch_up()
    table.raw.execute("CREATE UNIQUE INDEX on_v ON raw.t (v)")
    replica.commit("UPDATE t SET v = v % 1000000 + 1000000", f"UPDATE t SET v = {count} - id")
    table.catch_up()
    assert_all_but(table, replica)


def test_a_foreign_key_is_kept_whichever_table_comes_first(
    replica: Replica, table: Harness
) -> None:
    table.raw.execute("ALTER TABLE raw.t ADD CONSTRAINT whose FOREIGN KEY (v) REFERENCES raw.other"
                      " NOT VALID")  # fmt: skip
    replica.commit("INSERT INTO t VALUES (500, 77, '')", "INSERT INTO other VALUES (77, 0, '')")
    table.catch_up()
    assert_all_but(table, replica)
    replica.commit("INSERT INTO t VALUES (501, 78, '')")
    table.catch_up()
    assert_all_but(table, replica, 501)
    replica.commit("DELETE FROM other", "DELETE FROM t WHERE id IN (500, 501)")
    table.catch_up()
    assert_all_but(table, replica)
    table.assert_same("other")


def test_a_deletion_that_is_refused_says_that_the_row_is_still_there(
    replica: Replica, table: Harness
) -> None:
    table.raw.execute("CREATE TABLE raw.notes (id int REFERENCES raw.t)")
    table.raw.execute("INSERT INTO raw.notes VALUES (3)")
    replica.commit("DELETE FROM t WHERE id IN (2, 3, 4)", "INSERT INTO other VALUES (1, 1, '')")
    table.catch_up()
    assert entries(table).keys() == {"3"}
    operation, reason, _copies, stale = entries(table)["3"]
    assert (operation, stale) == ("delete", True)
    assert "23503" in reason
    assert table.raw.query("SELECT id FROM raw.t WHERE id < 6 ORDER BY id") == [(1,), (3,), (5,)]
    table.assert_same("other")
    replica.commit("INSERT INTO t VALUES (3, 33, 'again')")
    table.catch_up()
    assert_all_but(table, replica)


def test_an_old_version_that_cannot_go_is_told(replica: Replica, table: Harness) -> None:
    table.raw.execute("CREATE TABLE raw.notes (id int REFERENCES raw.t)")
    table.raw.execute("INSERT INTO raw.notes VALUES (3)")
    table.raw.execute("ALTER TABLE raw.t ADD CHECK (v > 0) NOT VALID")
    replica.commit("UPDATE t SET v = -1 WHERE id IN (3, 4)")
    table.catch_up()
    assert {key: stale for key, (_o, _r, _c, stale) in entries(table).items()} == {
        "3": True,
        "4": False,
    }


@pytest.mark.parametrize(("rows", "bad"), [(4096, [1]), (4096, [7, 8, 3000, 4096])])
def test_bad_rows_are_found_by_halves(
    replica: Replica, table: Harness, rows: int, bad: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    table.raw.execute("ALTER TABLE raw.t ADD CHECK (v > 0) NOT VALID")
    replica.commit("DELETE FROM t")
    table.catch_up()
    sizes: list[int] = []
    really = FoldWriter.write

    def counted(self: FoldWriter, fold: Any) -> None:
        sizes.append(fold.size)
        really(self, fold)

    monkeypatch.setattr(FoldWriter, "write", counted)
    listed = ", ".join(map(str, bad))
    replica.commit(
        f"INSERT INTO t SELECT seq, IF(seq IN ({listed}), -1, seq), '' FROM {numbers(1, rows)}"
    )
    table.catch_up()
    assert_all_but(table, replica, *bad)
    halvings = 12  # of 4096
    most = 2 + len(bad) * (2 * halvings + 1)  # twice the whole; both halves, and the removal
    assert len(sizes) <= most


def test_a_healthy_batch_is_written_without_a_look_at_the_quarantine(
    replica: Replica, table: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where another table has rows in it."""
    table.raw.execute("ALTER TABLE raw.t ADD CHECK (v > 0) NOT VALID")
    replica.commit("UPDATE t SET v = -1 WHERE id = 1")
    table.catch_up()
    sent: list[str] = []
    watched = table.loader._session._postgres  # type: ignore[union-attr]
    really = watched.execute

    def execute(query: Any, *rest: Any, **options: Any) -> Any:
        sent.append(str(query))
        return really(query, *rest, **options)

    batches: list[list[str]] = []
    write = Writer.write_batch

    def write_batch(self: Writer, batch: Any, offset: Any) -> None:
        sent.clear()
        write(self, batch, offset)
        batches.append(list(sent))

    monkeypatch.setattr(watched, "execute", execute)
    monkeypatch.setattr(Writer, "write_batch", write_batch)
    for number in range(3):
        replica.commit(f"INSERT INTO other VALUES ({number}, 1, '')")
        table.catch_up()
    statements = batches[-1]
    assert len(statements) == 3, statements  # the row, the table's state, the offset


def test_entries_appear_with_the_position_that_they_belong_to(
    replica: Replica, table: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.raw.execute("ALTER TABLE raw.t ADD CHECK (v > 0) NOT VALID")
    seen: list[bool] = []
    really = Writer._commit

    def commit(self: Writer, *rest: Any) -> None:
        seen.append(bool(entries(table)) or not table.raw.query("SELECT 1 FROM raw.t WHERE id = 9"))
        really(self, *rest)

    monkeypatch.setattr(Writer, "_commit", commit)
    replica.commit("UPDATE t SET v = -1 WHERE id = 9")
    table.catch_up()
    assert seen[0] is False
    assert_all_but(table, replica, 9)


def test_a_loader_that_dies_before_the_commit_finds_the_same_rows_again(
    replica: Replica, table: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.raw.execute("ALTER TABLE raw.t ADD CHECK (v > 0) NOT VALID")
    really = careful_module.CarefulWriter.write
    dead: list[int] = []

    def die_once(self: careful_module.CarefulWriter, writer: Any, fold: Any) -> Any:
        found = really(self, writer, fold)
        if not dead:
            dead.append(len(found))
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(careful_module.CarefulWriter, "write", die_once)
    replica.commit("UPDATE t SET v = -1 WHERE id IN (9, 11)")
    with pytest.raises(KeyboardInterrupt):
        table.catch_up()
    assert dead == [2]
    assert not entries(table)
    table.restart()
    table.catch_up()
    assert_all_but(table, replica, 9, 11)
    table.restart()
    replica.commit("UPDATE t SET v = 9 WHERE id = 9")
    table.catch_up()
    assert_all_but(table, replica, 11)


def test_rows_in_quarantine_are_counted_by_table(replica: Replica, table: Harness) -> None:
    def gauge() -> dict[str, float]:
        return {
            sample.labels["table"]: sample.value
            for metric in REGISTRY.collect()
            if metric.name == "loader_quarantined_rows"
            for sample in metric.samples
        }

    table.raw.execute("ALTER TABLE raw.t ADD CHECK (v > 0) NOT VALID")
    assert gauge() == {}
    replica.commit("UPDATE t SET v = -1 WHERE id IN (9, 10)")
    table.step_until(lambda: gauge() == {"t": 2})
    table.restart()
    table.catch_up()
    table.loader.step()
    assert gauge() == {"t": 2}
    replica.commit("UPDATE t SET v = 1 WHERE id IN (9, 10)")
    table.step_until(lambda: gauge() == {})  # which follows the commit


# --- tables without a key ----------------------------------------------------------------


def _loose(harness: Harness) -> list[tuple[Any, ...]]:
    return harness.raw.query("SELECT a, b FROM raw.loose ORDER BY a, b")


def test_copies_of_a_row_without_a_key_are_counted(replica: Replica, harness: Harness) -> None:
    replica.create("loose", "a int, b text")
    replica.commit("INSERT INTO loose VALUES (1, 'x'), (-2, 'y')")
    harness.catch_up()
    harness.raw.execute("ALTER TABLE raw.loose ADD CHECK (a > 0) NOT VALID")
    replica.commit(
        "INSERT INTO loose VALUES (-1, 'q'), (-1, 'q'), (-2, 'y'), (5, 'e'), (-1, 'q'), (1, 'x')"
    )
    harness.catch_up()
    assert _loose(harness) == [(-2, "y"), (1, "x"), (1, "x"), (5, "e")]
    assert sorted(copies for _, _, copies, _ in entries(harness, "loose").values()) == [1, 3]
    replica.commit(
        "DELETE FROM loose WHERE a = -1 LIMIT 2", "DELETE FROM loose WHERE a = -2 LIMIT 1"
    )
    harness.catch_up()
    assert _loose(harness) == [(-2, "y"), (1, "x"), (1, "x"), (5, "e")]
    assert [copies for _, _, copies, _ in entries(harness, "loose").values()] == [1]
    harness.raw.execute("ALTER TABLE raw.loose DROP CONSTRAINT loose_a_check")
    replica.commit("INSERT INTO loose VALUES (-1, 'q')", "DELETE FROM loose WHERE a = -2")
    harness.catch_up()
    harness.assert_same("loose")
    assert not entries(harness, "loose")


# --- large transactions ------------------------------------------------------------------


@pytest.fixture
def small_batches(settings: Settings) -> Settings:
    """Batches so small that an ordinary transaction is a large one."""
    tuning = settings.loader.model_copy(update={"batch_bytes": 128 << 10, "batch_rows": 1_000})
    return settings.model_copy(update={"loader": tuning})


def test_bad_rows_of_a_large_transaction(
    replica: Replica, small_batches: Settings, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.settings = small_batches
    harness.restart()
    replica.create("t", "id int PRIMARY KEY, v int, note text")
    replica.commit(f"INSERT INTO t SELECT seq, seq, REPEAT('x', 300) FROM {numbers(1, 2000)}")
    harness.catch_up()
    harness.raw.execute("ALTER TABLE raw.t ADD CHECK (v <> -77)")
    harness.raw.execute("CREATE UNIQUE INDEX on_v ON raw.t (v)")
    parts: list[int] = []
    really = Writer.write_part

    def counted(self: Writer, batch: Any, offset: Any) -> None:
        parts.append(batch.rows)
        really(self, batch, offset)

    monkeypatch.setattr(Writer, "write_part", counted)
    replica.commit(
        f"INSERT INTO t SELECT seq, seq, REPEAT('y', 300) FROM {numbers(3001, 6000)}",
        "UPDATE t SET v = -77 WHERE id IN (17, 3500)",
        "UPDATE t SET v = -2 WHERE id = 2000",
        "UPDATE t SET v = 2000 WHERE id = 1999",
        f"INSERT INTO t SELECT seq, seq, REPEAT('z', 300) FROM {numbers(7001, 9000)}",
        "UPDATE t SET v = -v WHERE id = 3001",
        "UPDATE t SET v = 3001 WHERE id = 1998",
        f"INSERT INTO t SELECT seq, seq, REPEAT('z', 300) FROM {numbers(10001, 12000)}",
        "UPDATE t SET v = 50000 WHERE id = 1997",
        "UPDATE t SET v = 1997 WHERE id = 1996",
        "UPDATE t SET v = 10500 WHERE id = 1997",  # whose place is given up in a later part
        f"INSERT INTO t SELECT seq, seq, REPEAT('z', 300) FROM {numbers(20001, 23000)}",
        "UPDATE t SET v = -1 WHERE id = 10500",
    )
    harness.catch_up()
    assert len(parts) > 3
    assert_all_but(harness, replica, 17, 3500)


def test_reasons_hold_nothing_of_a_row_that_a_routine_raises(
    replica: Replica, table: Harness
) -> None:
    table.raw.execute(
        "CREATE FUNCTION raw.leak() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION"
        " USING ERRCODE = '23514', MESSAGE = NEW.note, CONSTRAINT = NEW.note, COLUMN = NEW.note,"
        " DETAIL = NEW.note; END $$; CREATE TRIGGER leak BEFORE UPDATE ON raw.t FOR EACH ROW"
        " EXECUTE FUNCTION raw.leak()"
    )
    with structlog.testing.capture_logs() as logs:
        replica.commit(f"UPDATE t SET note = '{MARKER}' WHERE id = 9")
        table.catch_up()
    assert entries(table)["9"][1] == "check violation (SQLSTATE 23514)"
    assert MARKER not in repr(logs)

"""Rows in quarantine are written again when somebody asks for it."""

from __future__ import annotations

import pytest

from loader.quarantine import entries as entries_module
from loader.quarantine import replaying
from tests.numbers import numbers

from ..conftest import Harness, Replica
from .held import MARKER, assert_all_but, entries


@pytest.fixture
def spoiled(replica: Replica, harness: Harness) -> Harness:
    """Some rows are in quarantine; the constraint is called `positive`."""
    replica.create("t", "id int PRIMARY KEY, v int, note text")
    replica.commit(f"INSERT INTO t SELECT seq, seq, 'a\\tb\\\\' FROM {numbers(1, 100)}")
    harness.catch_up()
    harness.raw.execute("ALTER TABLE raw.t ADD CONSTRAINT positive CHECK (v > 0) NOT VALID")
    replica.commit("UPDATE t SET v = -id, note = CONCAT(note, '\\n', id) WHERE id <= 50")
    harness.catch_up()
    assert_all_but(harness, replica, *range(1, 51))
    return harness


def ask(harness: Harness, where: str = "true") -> None:
    """As `replicator quarantine replay` does."""
    harness.raw.execute(
        f"UPDATE raw.etl_quarantine SET replay_requested_at = clock_timestamp() WHERE {where}"
    )


def answered(harness: Harness) -> None:
    """Step until nothing is asked for any more."""
    query = "SELECT count(*) FROM raw.etl_quarantine WHERE replay_requested_at IS NOT NULL"
    harness.step_until(lambda: harness.raw.query(query) == [(0,)])


def test_what_no_longer_hurts_is_written(
    replica: Replica, spoiled: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "MOST_ROWS", 7)
    spoiled.raw.execute("ALTER TABLE raw.t DROP CONSTRAINT positive")
    ask(spoiled, "key <> '9'")
    answered(spoiled)
    assert_all_but(spoiled, replica, 9)
    stamps = spoiled.raw.query("SELECT DISTINCT _source_ts FROM raw.t WHERE v < 0")
    assert stamps == spoiled.raw.query("SELECT source_event_timestamp FROM raw.etl_quarantine")
    assert spoiled.raw.query("SELECT count(*) FROM raw.t WHERE _loaded_at IS NULL") == [(0,)]


def test_what_still_hurts_stays_with_the_reason_of_this_time(
    replica: Replica, spoiled: Harness, capfd: pytest.CaptureFixture[str]
) -> None:
    spoiled.raw.execute("ALTER TABLE raw.t DROP CONSTRAINT positive")
    spoiled.raw.execute("ALTER TABLE raw.t ADD CONSTRAINT above CHECK (v > -49) NOT VALID")
    replica.commit(f"UPDATE t SET note = '{MARKER}' WHERE id = 50")
    spoiled.catch_up()
    ask(spoiled)
    answered(spoiled)
    assert_all_but(spoiled, replica, 49, 50)
    found = spoiled.raw.query("SELECT key, reason, attempts FROM raw.etl_quarantine ORDER BY 1")
    reason = "check violation (SQLSTATE 23514, constraint above)"
    assert found == [("49", reason, 2), ("50", reason, 2)]
    assert MARKER not in "".join(capfd.readouterr())


def test_a_wish_stands_until_the_loader_runs(replica: Replica, spoiled: Harness) -> None:
    spoiled.loader.close()
    spoiled.raw.execute("ALTER TABLE raw.t DROP CONSTRAINT positive")
    ask(spoiled)
    replica.commit("UPDATE t SET v = 5 WHERE id = 5", "DELETE FROM t WHERE id = 6")
    spoiled.restart()
    answered(spoiled)
    spoiled.catch_up()
    assert_all_but(spoiled, replica)


def test_rows_without_a_key_and_refused_deletions_are_replayed(
    replica: Replica, spoiled: Harness
) -> None:
    replica.create("loose", "a int, b text")
    replica.commit("INSERT INTO loose VALUES (3, 'x')")
    spoiled.catch_up()
    spoiled.raw.execute("ALTER TABLE raw.loose ADD CONSTRAINT small CHECK (a < 0) NOT VALID")
    spoiled.raw.execute("CREATE TABLE raw.notes (id int REFERENCES raw.t)")
    spoiled.raw.execute("INSERT INTO raw.notes VALUES (70)")
    replica.commit("INSERT INTO loose VALUES (1, NULL), (1, NULL)", "DELETE FROM t WHERE id = 70")
    spoiled.catch_up()
    assert set(entries(spoiled)) == {"70", *(str(n) for n in range(1, 51))}
    assert [one[2] for one in entries(spoiled, "loose").values()] == [2]
    spoiled.raw.execute("ALTER TABLE raw.loose DROP CONSTRAINT small")
    spoiled.raw.execute("DROP TABLE raw.notes")
    spoiled.raw.execute("ALTER TABLE raw.t DROP CONSTRAINT positive")
    ask(spoiled)
    answered(spoiled)
    assert_all_but(spoiled, replica)
    assert not entries(spoiled, "loose")
    spoiled.assert_same("loose")


def test_a_row_whose_image_is_too_large_says_what_brings_it_back(
    replica: Replica, spoiled: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries_module, "MOST_IMAGE", 30)
    replica.commit("UPDATE t SET note = REPEAT('x', 100) WHERE id = 4")
    spoiled.catch_up()
    spoiled.raw.execute("ALTER TABLE raw.t DROP CONSTRAINT positive")
    ask(spoiled)
    answered(spoiled)
    assert_all_but(spoiled, replica, 4)
    assert entries(spoiled)["4"][1] == replaying.TOO_LARGE


def test_entries_that_somebody_drops_are_forgotten(replica: Replica, spoiled: Harness) -> None:
    spoiled.raw.execute("DELETE FROM raw.etl_quarantine WHERE key <> '1'")
    replica.commit("UPDATE t SET v = 1 WHERE id IN (1, 2)")
    spoiled.catch_up()
    assert not entries(spoiled)
    assert spoiled.raw.query("SELECT id FROM raw.t WHERE id <= 50 ORDER BY 1") == [(1,), (2,)]

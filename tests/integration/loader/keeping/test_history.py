"""history = true: every version of every row, with the source's times, whatever happens."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from config.errors import ConfigError
from config.settings import Settings
from loader.writer import Writer

from ..conftest import Harness, Replica
from .account import Account, assert_open_versions_are_live_rows, kept
from .rules import change_rules, with_rules

HISTORY = "[table.t]\nhistory = true\n"
BOTH = HISTORY + 'deletes = "soft"\n'
COLUMNS = "id int PRIMARY KEY, v int, w varchar(400)"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return with_rules(settings, tmp_path, HISTORY)


@pytest.fixture
def account(harness: Harness, replica: Replica) -> Account:
    """t is followed, and empty."""
    replica.create("t", COLUMNS)
    harness.catch_up()
    return Account(replica)


def resync(replica: Replica, table: str = "t") -> None:
    replica.commit(
        "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
        f" VALUES ('{table}', UTC_TIMESTAMP(6), 'loading', UTC_TIMESTAMP(6))"
    )


def exactness(harness: Harness) -> set[tuple[Any, ...]]:
    return set(harness.raw.query("SELECT DISTINCT _from_exact, _to_exact FROM raw.t_history"))


def test_every_version_is_kept_also_within_a_transaction_and_a_batch(
    harness: Harness, account: Account
) -> None:
    account.put(1)
    account.put(1)
    account.delete(1)
    account.put(1)
    account.put(2)
    account.delete(2)
    account.commit()
    account.put(1)
    account.commit()
    account.put(3)
    account.move(1, 4)
    account.commit()
    harness.catch_up()
    assert kept(harness) == account.expected()
    assert [len(versions) for _, versions in sorted(account.versions.items())] == [4, 1, 1, 1]
    assert exactness(harness) == {(True, True), (True, None)}
    assert_open_versions_are_live_rows(harness)


@pytest.mark.parametrize("rules", [HISTORY, BOTH], ids=["hard", "soft"])
@pytest.mark.parametrize("seed", [1, 2])
def test_it_is_exact_over_batches_restarts_and_resyncs(
    harness: Harness, account: Account, replica: Replica, rules: str, seed: int
) -> None:
    change_rules(harness, rules)
    dice = random.Random(seed)
    for number in range(60):
        account.some(dice, keys=60, most=dice.choice([3, 80]))
        if dice.random() < 0.3:
            harness.loader.step()
        if dice.random() < 0.1:
            if rules == BOTH:  # see the limits in docs/decisions/0022
                harness.catch_up()
            harness.restart()
        if number % 15 == 7:
            resync(replica)
    harness.catch_up()
    resync(replica)
    with capture_logs() as logs:
        harness.catch_up()
    assert [e for e in logs if e["event"] == "table_loaded"]
    assert not [e for e in logs if e["event"] == "history_reconciled"]  # nothing had changed
    assert kept(harness) == account.expected()
    # A start while a resync is asked for cannot know that nothing was missed.
    assert exactness(harness) <= {(True, True), (True, None), (True, False)}
    assert_open_versions_are_live_rows(harness, soft=rules == BOTH)
    rows = harness.raw.query("SELECT id, v, w FROM raw.t ORDER BY 1")
    everything = account.rows | (account.gone if rules == BOTH else {})
    assert rows == [row for _, row in sorted(everything.items())]


def test_a_large_transaction_in_parts(
    harness: Harness, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = harness.settings.loader.model_copy(update={"batch_bytes": 32 << 10, "batch_rows": 200})
    harness.settings = harness.settings.model_copy(update={"loader": tuning})
    harness.restart()
    parts: list[int] = []
    really = Writer.write_part

    def counted(self: Writer, batch: Any, offset: Any) -> None:
        parts.append(batch.rows)
        really(self, batch, offset)

    monkeypatch.setattr(Writer, "write_part", counted)
    for turn in range(3):
        for key in range(1, 600):
            account.put(key, f"{turn}" * 399)
    account.commit()
    harness.catch_up()
    assert len([rows for rows in parts if rows]) > 1
    assert kept(harness) == account.expected()


def test_a_reload_that_finds_a_difference_says_that_the_time_is_its_own(
    harness: Harness, account: Account, replica: Replica
) -> None:
    for key in (1, 2, 3, 4):
        account.put(key)
    account.commit()
    harness.catch_up()
    with closing(replica.database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute("DELETE FROM t WHERE id = 1")
        cursor.execute("UPDATE t SET v = -2 WHERE id = 2")
        cursor.execute("INSERT INTO t VALUES (5, 5, 'unheard of')")
        connection.commit()
    resync(replica)
    harness.catch_up()
    found = harness.raw.query(
        "SELECT id, v, _from_exact, _to_exact, _valid_to IS NULL FROM raw.t_history"
        " ORDER BY id, _version"
    )
    assert found == [
        (1, 1, True, False, False), (2, 2, True, False, False), (2, -2, False, None, True),
        (3, 3, True, None, True), (4, 4, True, None, True), (5, 5, False, None, True),
    ]  # fmt: skip
    meets = harness.raw.query(
        "SELECT count(DISTINCT t) FROM (SELECT unnest(ARRAY[_valid_from, _valid_to]) AS t"
        " FROM raw.t_history WHERE id = 2) AS times WHERE t IS NOT NULL"
    )
    assert meets == [(2,)]  # the first ends where the second begins


@pytest.mark.parametrize("rules", [HISTORY, BOTH], ids=["hard", "soft"])
def test_what_came_and_went_before_a_copy_is_whole_is_in_the_history_and_not_live(
    harness: Harness, account: Account, replica: Replica, rules: str
) -> None:
    change_rules(harness, rules)
    for key in (1, 2):
        account.put(key)
    account.commit()
    harness.catch_up()
    replica.commit("REPLACE INTO etl_extract_status (table_name, extraction_status)"
                   " VALUES ('t', 'copying')")  # fmt: skip
    harness.step_until(lambda: harness.states()["t"] == "waiting")
    replica.streams("t")
    account.put(1)
    account.delete(1)
    account.put(3)
    account.put(3)
    account.commit()
    account.delete(2)
    account.commit()
    harness.catch_up()
    assert kept(harness) == account.expected()
    assert_open_versions_are_live_rows(harness, soft=rules == BOTH)
    everything = account.rows | (account.gone if rules == BOTH else {})
    rows = harness.raw.query("SELECT id, v, w FROM raw.t ORDER BY 1")
    assert rows == [row for _, row in sorted(everything.items())]


def test_it_begins_with_the_rows_there_are_and_ends_with_the_rule(
    harness: Harness, account: Account
) -> None:
    change_rules(harness, "")
    account.put(1)
    account.put(2)
    account.commit()
    account.put(2)
    account.commit()
    harness.catch_up()
    change_rules(harness, HISTORY)
    assert [(row[0][:2], row[1]) for row in kept(harness)] == [
        ((1, 1), account.versions[1][0].since), ((2, 3), account.versions[2][1].since)
    ]  # fmt: skip
    assert exactness(harness) == {(False, None)}
    account.put(1)
    account.commit()
    harness.catch_up()
    change_rules(harness, "")
    account.put(1)
    account.commit()
    harness.catch_up()
    assert harness.raw.query("SELECT count(*) FROM raw.t_history WHERE _valid_to IS NULL") == [(0,)]
    change_rules(harness, HISTORY)
    assert_open_versions_are_live_rows(harness)
    assert len(kept(harness)) == 5


def test_truncate_and_drop_end_all_versions_at_their_own_time(
    harness: Harness, account: Account, replica: Replica
) -> None:
    account.put(1)
    account.put(2)
    account.commit()
    replica.ddl("TRUNCATE t")
    replica.commit("INSERT INTO t VALUES (1, 100, 'behind it')")
    harness.catch_up()
    assert_open_versions_are_live_rows(harness)
    assert exactness(harness) == {(True, True), (True, None)}
    replica.ddl("DROP TABLE t")
    harness.catch_up()
    assert exactness(harness) == {(True, True)}
    replica.create("t", COLUMNS)
    replica.commit("INSERT INTO t VALUES (1, 200, 'anew')")
    harness.catch_up()
    assert [row[0][1] for row in kept(harness)] == [1, 100, 200, 2]
    assert_open_versions_are_live_rows(harness)


@pytest.mark.parametrize(
    ("alter", "columns", "versions"),
    [
        ("ADD COLUMN x int NOT NULL DEFAULT 7", "id, v, x", [(1, 1, 7), (1, 2, 7), (2, 3, 7)]),
        ("ADD COLUMN x int", "id, v, x", [(1, 1, None), (1, 2, None), (2, 3, None)]),
        ("DROP COLUMN v", "id, v", [(1, 1), (1, 2), (2, 3)]),
        ("CHANGE v u int", "id, u", [(1, 1), (1, 2), (2, 3)]),
        ("MODIFY v bigint", "id, v", [(1, 1), (1, 2), (2, 3)]),
    ],
)
def test_an_alter_in_place_ends_no_version(
    harness: Harness, account: Account, replica: Replica, alter: str, columns: str,
    versions: list[Any],
) -> None:  # fmt: skip
    account.put(1)
    account.put(1)
    account.put(2)
    account.commit()
    harness.catch_up()
    replica.ddl(f"ALTER TABLE t {alter}")
    harness.catch_up()
    asked = f"SELECT {columns} FROM raw.t_history ORDER BY id, _version"
    assert harness.raw.query(asked) == versions
    assert exactness(harness) == {(True, True), (True, None)}
    replica.commit("DELETE FROM t WHERE id = 2", "UPDATE t SET w = 'x' WHERE id = 1")
    harness.catch_up()
    assert len(harness.raw.query(asked)) == 4
    assert harness.raw.query("SELECT id FROM raw.t_history WHERE _valid_to IS NULL") == [(1,)]


@pytest.mark.parametrize(
    "alter",
    [
        "MODIFY v smallint",
        "MODIFY w varbinary(40)",
        "ADD COLUMN x timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP",
        "DROP PRIMARY KEY, ADD PRIMARY KEY (id, v)",
        "DROP COLUMN v, ADD COLUMN v varchar(10) DEFAULT 'new'",
    ],
)
def test_what_old_versions_do_not_fit_is_kept_beside_it(
    harness: Harness, account: Account, replica: Replica, alter: str
) -> None:
    replica.commit("INSERT INTO t VALUES (1, 40000, 'a')")
    replica.commit("UPDATE t SET v = 4 WHERE id = 1", "INSERT INTO t VALUES (2, 2, 'b')")
    harness.catch_up()
    replica.ddl(f"ALTER TABLE t {alter}")
    replica.commit("UPDATE t SET w = 'c' WHERE id = 2")
    replica.commit("UPDATE t SET w = 'd' WHERE id = 2")
    harness.catch_up()
    assert_open_versions_are_live_rows(harness)
    columns = [
        name for (name,) in harness.raw.query(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'raw.t_history'::regclass"
            " AND attnum > 0 AND NOT attisdropped AND (attname = 'v' OR attname LIKE '%former%v')"
        )
    ]  # fmt: skip
    value = ", ".join(f"{name}::text" for name in columns)
    assert harness.raw.query(
        f"SELECT coalesce({value}) FROM raw.t_history WHERE id = 1 ORDER BY _version LIMIT 1"
    ) == [("40000",)]
    if alter.startswith("ADD"):  # what came ends no version; the key changes do
        assert exactness(harness) <= {(True, True), (True, None)}
    words = harness.raw.query(
        "SELECT count(*) FROM raw.t_history WHERE id = 2 AND _from_exact AND _to_exact"
    )
    assert words[0][0] >= 1, "a version that came and went during the reload is there"


def test_tables_that_change_names(harness: Harness, replica: Replica) -> None:
    harness.settings.tables_file.write_text('[table."[tu]"]\nhistory = true\n')
    harness.restart()
    for name in ("t", "u"):
        replica.create(name, COLUMNS)
        replica.commit(f"INSERT INTO {name} VALUES (1, 1, '{name}'), (2, 2, 'both')")
    harness.catch_up()
    replica.ddl("RENAME TABLE t TO x, u TO t, x TO u")
    replica.commit("UPDATE t SET v = 9 WHERE id = 2")
    harness.catch_up()
    assert_open_versions_are_live_rows(harness)
    found = harness.raw.query("SELECT id, v, w FROM raw.t_history ORDER BY id, _version")
    assert found == [(1, 1, "t"), (1, 1, "u"), (2, 2, "both"), (2, 9, "both")]
    replica.ddl("DROP TABLE u")
    harness.catch_up()
    replica.ddl("RENAME TABLE t TO u")
    replica.streams("u")
    harness.catch_up()
    assert harness.raw.query(
        "SELECT id, v, w FROM raw.u_history WHERE _valid_to IS NULL ORDER BY 1"
    ) == harness.raw.query("SELECT id, v, w FROM raw.u ORDER BY 1")


def test_opendentals_way_to_alter_ends_no_version_that_did_not(
    harness: Harness, account: Account, replica: Replica
) -> None:
    for key in (1, 2, 3):
        account.put(key)
    account.commit()
    harness.catch_up()
    replica.ddl("RENAME TABLE t TO tempConv_t1")
    replica.ddl("CREATE TABLE t LIKE tempConv_t1")
    replica.streams("t")
    replica.commit("INSERT INTO t SELECT * FROM tempConv_t1")
    replica.commit("UPDATE t SET v = 20 WHERE id = 2", "DELETE FROM t WHERE id = 3")
    replica.ddl("DROP TABLE tempConv_t1")
    harness.catch_up()
    assert_open_versions_are_live_rows(harness)
    assert [row[0][:2] for row in kept(harness)] == [(1, 1), (2, 2), (2, 20), (3, 3)]
    assert harness.raw.query("SELECT to_regclass('raw.\"tempConv_t1_history\"')") == [(None,)]


def test_a_refused_row_has_a_version_from_when_it_is_written(
    harness: Harness, account: Account, replica: Replica
) -> None:
    account.put(1)
    account.put(2)
    account.commit()
    harness.catch_up()
    harness.raw.execute("ALTER TABLE raw.t ADD CONSTRAINT fine CHECK (w <> 'bad') NOT VALID")
    account.put(1, "between")
    account.put(1, "bad")
    account.put(2)
    account.commit()
    harness.catch_up()
    assert_open_versions_are_live_rows(harness)
    harness.raw.execute("ALTER TABLE raw.t DROP CONSTRAINT fine")
    harness.raw.execute("UPDATE raw.etl_quarantine SET replay_requested_at = now()")
    harness.step_until(lambda: harness.raw.query("SELECT 1 FROM raw.etl_quarantine") == [])
    assert kept(harness) == account.expected()


def test_rows_that_exchange_unique_values_are_all_there(
    harness: Harness, account: Account, replica: Replica
) -> None:
    account.put(1, "a")
    account.put(2, "b")
    account.commit()
    harness.catch_up()
    harness.raw.execute("CREATE UNIQUE INDEX ON raw.t (w)")
    account.put(1, "c")
    account.put(2, "a")
    account.put(1, "b")
    account.commit()
    harness.catch_up()
    assert kept(harness) == account.expected()


def test_stricter_masks_reach_earlier_versions(
    harness: Harness, account: Account, replica: Replica
) -> None:
    account.put(1, "marigold")
    account.put(1, "foxglove")
    account.put(2, "marigold")
    account.commit()
    harness.catch_up()
    replica.ddl("ALTER TABLE t DROP COLUMN w, ADD COLUMN w varbinary(40) DEFAULT 'marigold'")
    harness.catch_up()
    change_rules(harness, HISTORY + '[mask.t]\nw = "redact"\n')
    for (row,) in harness.raw.query("SELECT h::text FROM raw.t_history AS h"):
        assert "marigold" not in row
        assert "foxglove" not in row
        assert "\\x6d61" not in row
    replica.commit("INSERT INTO t (id, v) VALUES (8, 8)")
    harness.catch_up()
    assert harness.raw.query("SELECT count(*) FROM raw.t_history WHERE _valid_to IS NULL") == [(3,)]


def test_a_lost_history_begins_anew(harness: Harness, account: Account) -> None:
    account.put(1)
    account.commit()
    harness.catch_up()
    harness.raw.execute("DROP TABLE raw.t_history")
    harness.restart()
    account.put(2)
    account.commit()
    harness.catch_up()
    assert_open_versions_are_live_rows(harness)


@pytest.mark.parametrize("name", ["t_history", "t_history_open", "t_history_key"])
def test_a_source_table_of_its_name_is_refused(
    harness: Harness, replica: Replica, name: str
) -> None:
    """Or of the name of one of its indexes, which could not be found any more."""
    replica.create("t", COLUMNS)
    replica.create(name, COLUMNS)
    harness.restart()
    with pytest.raises(ConfigError, match=f"{name}: the history of t has this name in raw"):
        harness.catch_up()


def test_a_column_of_its_own_name_is_refused(harness: Harness, replica: Replica) -> None:
    replica.create("t", "id int PRIMARY KEY, _valid_to int")
    with pytest.raises(ConfigError, match="t: a history has a column _valid_to of its own"):
        harness.catch_up()

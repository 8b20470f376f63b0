"""Rows follow the replica's stream into raw."""

from __future__ import annotations

from tests.numbers import numbers

from .conftest import Harness, Replica


def test_first_start_loads_every_streaming_table_and_then_follows_it(
    replica: Replica, harness: Harness
) -> None:
    replica.create("patient", "PatNum bigint PRIMARY KEY, LName varchar(100), Balance double")
    replica.commit("INSERT INTO patient VALUES (1, 'A\\tb', 1.5), (2, NULL, -0.1), (3, '\\\\N', 0)")
    harness.catch_up()
    harness.assert_same("patient")
    replica.commit("UPDATE patient SET LName = 'later' WHERE PatNum = 2")
    replica.commit("DELETE FROM patient WHERE PatNum = 1", "INSERT INTO patient VALUES (9, '', 9)")
    harness.catch_up()
    harness.assert_same("patient")
    assert harness.states() == {"patient": "streaming"}


def test_a_table_that_leg_1_still_copies_is_loaded_when_it_streams(
    replica: Replica, harness: Harness
) -> None:
    replica.commit("INSERT INTO etl_extract_status VALUES ('late', NULL, 0, 'copying', NULL)")
    replica.ddl("CREATE TABLE late (id int PRIMARY KEY, v int)")
    harness.catch_up()
    replica.commit("INSERT INTO late VALUES (1, 1)")
    harness.catch_up()
    assert not harness.raw.query("SELECT to_regclass('raw.late')")[0][0]
    replica.streams("late")
    replica.commit("INSERT INTO late VALUES (2, 2)")
    harness.catch_up()
    harness.assert_same("late")


def test_an_update_of_the_primary_key_moves_the_row(replica: Replica, harness: Harness) -> None:
    replica.create("item", "a int, b varchar(20), v int, PRIMARY KEY (b, a)")
    replica.commit("INSERT INTO item VALUES (1, 'x', 1), (2, 'y', 2), (3, 'z', 3)")
    harness.catch_up()
    replica.commit(
        "UPDATE item SET a = 20 WHERE a = 2",
        "UPDATE item SET b = 'X' WHERE a = 1",
        "UPDATE item SET a = 2, b = 'y' WHERE a = 3",
    )
    harness.catch_up()
    harness.assert_same("item")


def test_rows_carry_when_the_source_committed_them(replica: Replica, harness: Harness) -> None:
    replica.create("t", "id int PRIMARY KEY, v int")
    harness.catch_up()
    replica.commit("INSERT INTO t VALUES (1, 1)")
    harness.catch_up()
    stamp = replica.database.query("SELECT event_timestamp FROM etl_binlog_offset")[0][0]
    found = harness.raw.query("SELECT _source_ts AT TIME ZONE 'UTC', _loaded_at FROM raw.t")
    assert found[0][0] == stamp
    assert found[0][1] is not None


def test_a_table_without_a_key_counts_its_copies(replica: Replica, harness: Harness) -> None:
    replica.create("k", "a int, b varchar(10)")
    replica.commit("INSERT INTO k VALUES (1, 'x'), (1, 'x'), (1, 'x'), (NULL, NULL), (2, 'y')")
    harness.catch_up()
    harness.assert_same("k")
    replica.commit("DELETE FROM k WHERE a = 1 LIMIT 2", "INSERT INTO k VALUES (NULL, NULL)")
    replica.commit("UPDATE k SET b = 'z' WHERE a IS NULL LIMIT 1")
    harness.catch_up()
    harness.assert_same("k")
    harness.restart()
    replica.commit("INSERT INTO k VALUES (2, 'y'), (5, 'q')")
    harness.catch_up()
    harness.assert_same("k")


def test_a_large_batch_goes_through_staging(replica: Replica, harness: Harness) -> None:
    replica.create("big", "id int PRIMARY KEY, t text, b blob, bits bit(5)")
    harness.catch_up()
    replica.commit(
        "INSERT INTO big SELECT seq, CONCAT('a\\tb\\\\', seq), X'00ff09', 5"
        f" FROM {numbers(1, 3000)}"
    )
    harness.catch_up()
    replica.commit(
        "UPDATE big SET t = REPEAT('ü', 3) WHERE id % 3 = 0",
        "DELETE FROM big WHERE id % 5 = 0",
        "UPDATE big SET id = id + 100000 WHERE id % 7 = 0",
    )
    harness.catch_up()
    count = harness.raw.query("SELECT count(*), count(DISTINCT t) FROM raw.big")
    assert count == replica.database.query("SELECT count(*), count(DISTINCT BINARY t) FROM big")


def test_truncate_empties_the_table_in_stream_order(replica: Replica, harness: Harness) -> None:
    replica.create("famaging", "PatNum bigint PRIMARY KEY, Bal double")
    replica.commit("INSERT INTO famaging VALUES (1, 1), (2, 2)")
    harness.catch_up()
    replica.commit("INSERT INTO famaging VALUES (3, 3)")
    replica.ddl("TRUNCATE TABLE famaging")
    replica.commit("INSERT INTO famaging VALUES (4, 4)")
    harness.catch_up()
    harness.assert_same("famaging")


def test_names_are_kept_exactly(replica: Replica, harness: Harness) -> None:
    replica.create('We"ird %s', '`Pat%Num` int PRIMARY KEY, `a"b` int, `Größe` text')
    replica.commit('INSERT INTO `We"ird %%s` VALUES (1, 2, "x")'.replace("%%", "%"))
    harness.catch_up()
    replica.commit('UPDATE `We"ird %s` SET `a"b` = 3')
    replica.commit('INSERT INTO `We"ird %s` VALUES (5, 5, "")')
    harness.catch_up()
    names = '"Pat%Num", "a""b", "Größe"'
    rows = harness.raw.query(f'SELECT {names} FROM raw."We""ird %s" ORDER BY 1')
    assert rows == [(1, 3, "x"), (5, 5, "")]

"""Schema changes of the replica reach raw, its rows exact afterwards."""

from __future__ import annotations

import pytest

from ..conftest import Harness, Replica


@pytest.fixture
def table(replica: Replica, harness: Harness) -> str:
    replica.create("t", "id int PRIMARY KEY, v varchar(20), n smallint")
    replica.commit("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, '33', 3)")
    harness.catch_up()
    return "t"


ALTERS = {
    "a column added": "ALTER TABLE t ADD COLUMN extra int NOT NULL DEFAULT 7",
    "a column added first": "ALTER TABLE t ADD COLUMN extra datetime DEFAULT '2020-01-01' FIRST",
    "a column dropped": "ALTER TABLE t DROP COLUMN v",
    "a column renamed": "ALTER TABLE t CHANGE v w varchar(20)",
    "a column widened": "ALTER TABLE t MODIFY n bigint",
    "a column moved": "ALTER TABLE t MODIFY n smallint AFTER id",
    "a type changed": "ALTER TABLE t MODIFY n varchar(10)",
    "the key changed": "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (n)",
    "the key dropped": "ALTER TABLE t DROP PRIMARY KEY",
    "the charset changed": "ALTER TABLE t CONVERT TO CHARACTER SET latin1",
    "an index added": "CREATE INDEX by_v ON t (v)",
}


@pytest.mark.parametrize("statement", ALTERS.values(), ids=ALTERS)
def test_raw_follows_an_alter(
    replica: Replica, harness: Harness, table: str, statement: str
) -> None:
    replica.commit("UPDATE t SET v = 'before' WHERE id = 1")
    replica.ddl(statement)
    replica.commit("UPDATE t SET n = n + 10 WHERE id = 2", "DELETE FROM t WHERE id = 3")
    replica.commit("INSERT INTO t (id, n) VALUES (4, 4)")
    harness.catch_up()
    harness.assert_same(table)
    replica.commit("UPDATE t SET n = n + 1")
    harness.catch_up()
    harness.assert_same(table)


def test_several_alters_between_rows(replica: Replica, harness: Harness, table: str) -> None:
    replica.ddl("ALTER TABLE t ADD COLUMN a int DEFAULT 1")
    replica.commit("UPDATE t SET a = 5 WHERE id = 1")
    replica.ddl("ALTER TABLE t DROP COLUMN a")
    replica.ddl("ALTER TABLE t ADD COLUMN a varchar(5) DEFAULT 'x'")
    replica.commit("UPDATE t SET a = 'y' WHERE id = 2")
    replica.ddl("ALTER TABLE t MODIFY v text, MODIFY n int")
    replica.commit("INSERT INTO t (id, v) VALUES (9, 'nine')")
    harness.catch_up()
    harness.assert_same(table)


def test_tables_come_and_go(replica: Replica, harness: Harness, table: str) -> None:
    replica.create("other", "id int PRIMARY KEY")
    replica.commit("INSERT INTO other VALUES (1)")
    replica.ddl("DROP TABLE t")
    harness.catch_up()
    assert harness.raw.query("SELECT to_regclass('raw.t')") == [(None,)]
    harness.assert_same("other")
    replica.create("t", "id bigint PRIMARY KEY, fresh text")
    replica.commit("INSERT INTO t VALUES (1, 'x')")
    harness.catch_up()
    harness.assert_same("t", "other")


def test_a_renamed_table_is_loaded_under_its_new_name(
    replica: Replica, harness: Harness, table: str
) -> None:
    replica.ddl("RENAME TABLE t TO tempConv_t1")
    replica.ddl("CREATE TABLE t LIKE tempConv_t1")
    replica.ddl("ALTER TABLE t ADD COLUMN z int DEFAULT 3")
    replica.commit("INSERT INTO t (id, v, n) SELECT id, v, n FROM tempConv_t1")
    replica.ddl("DROP TABLE tempConv_t1")
    harness.catch_up()
    harness.assert_same("t")


def test_a_view_keeps_the_column_and_the_table_that_it_reads(
    replica: Replica, harness: Harness, table: str
) -> None:
    harness.raw.execute("CREATE VIEW public.reader AS SELECT id, v FROM raw.t")
    replica.ddl("ALTER TABLE t DROP COLUMN v, ADD COLUMN w int DEFAULT 4")
    replica.commit("INSERT INTO t (id, n) VALUES (8, 8)")
    harness.catch_up()
    assert harness.raw.query("SELECT id, w FROM raw.t ORDER BY id") == [
        (1, 4),
        (2, 4),
        (3, 4),
        (8, 4),
    ]
    replica.ddl("DROP TABLE t")
    harness.catch_up()
    assert harness.raw.query("SELECT * FROM public.reader") == []


def test_an_excluded_table_never_reaches_raw(replica: Replica, harness: Harness) -> None:
    replica.create("tempdash7", "id int PRIMARY KEY")
    replica.create("plain", "id int PRIMARY KEY")
    replica.commit("INSERT INTO tempdash7 VALUES (1)", "INSERT INTO plain VALUES (1)")
    harness.catch_up()
    replica.commit("INSERT INTO tempdash7 VALUES (2)")
    replica.ddl("DROP TABLE tempdash7")
    harness.catch_up()
    assert set(harness.states()) == {"plain"}

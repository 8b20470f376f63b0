"""ALTERs that are done in place: raw shows at once what the replica has, without a reload."""

from __future__ import annotations

from typing import Any

import pytest

from config.metrics import RELOADS
from tests.fix_servers import family

from ..conftest import Harness, Replica

COLUMNS = (
    "id int PRIMARY KEY, tiny tinyint NOT NULL, n smallint, big bigint NOT NULL, u int unsigned,"
    " d decimal(8,2), f float, g double, v varchar(20), w varchar(50) NOT NULL, x text,"
    " day date NOT NULL, at datetime, spent time"
)


def _reloads() -> float:
    found = [
        sample.value
        for metric in RELOADS.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels.get("leg", "loader") == "loader"
    ]
    return sum(found)


@pytest.fixture
def table(replica: Replica, harness: Harness) -> str:
    replica.create("t", COLUMNS)
    replica.commit(
        "INSERT INTO t VALUES (1, 127, -5, 9007199254740993, 4294967295, 123456.78, 0.1, 0.1,"
        " 'é日', 'w w ', 'text', '0001-01-01', '2024-02-29 12:34:56', '-01:00:00')",
        "INSERT INTO t VALUES (2, -128, NULL, 0, NULL, NULL, NULL, NULL, NULL, '', NULL,"
        " '2020-01-01', NULL, NULL)",
        "INSERT INTO t VALUES (3, 0, 7, 3, 3, -0.01, 1.5, -1.5, '33', '3', '', '9999-12-31',"
        " '0001-01-01', '838:59:59')",
    )
    harness.catch_up()
    return "t"


IN_PLACE = {
    "an int": "ADD extra int",
    "an int that is not null": "ADD COLUMN extra bigint NOT NULL",
    "ints with defaults": "ADD COLUMN (extra int NOT NULL DEFAULT 7, o tinyint DEFAULT '-3')",
    "a first column": "ADD extra smallint unsigned NOT NULL DEFAULT 65535 FIRST",
    "a text": "ADD extra text NOT NULL",
    "a varchar": "ADD extra varchar(255) NOT NULL DEFAULT 'it''s {a} 100%' AFTER id",
    "a varchar without default": "ADD extra varchar(255) NOT NULL, ADD INDEX (extra)",
    "a date": "ADD extra date NOT NULL DEFAULT '0001-01-01'",
    "a moment": "ADD extra datetime(3) NOT NULL DEFAULT '0001-01-01 00:00:00.120'",
    "a time": "ADD extra time NOT NULL DEFAULT '-01:00:00', ADD more time NOT NULL",
    "a decimal": "ADD extra decimal(6,3) NOT NULL DEFAULT 1.25, ADD o decimal(5,1) NOT NULL",
    "a double": "ADD extra double NOT NULL DEFAULT 0.1, ADD o float NOT NULL DEFAULT -1",
    "an enum": "ADD extra enum('a','b') NOT NULL, ADD o enum('x','y') DEFAULT 'y'",
    "a blob": "ADD extra mediumblob NOT NULL",
    "a boolean": "ADD extra boolean NOT NULL DEFAULT TRUE COMMENT 'note'",
    "a drop": "DROP COLUMN v, DROP x",
    "a rename": "CHANGE v `v 2` varchar(20)",
    "a rename by its own words": "RENAME COLUMN v TO w2, RENAME COLUMN n TO n2",
    "a wider int": "MODIFY n int, MODIFY tiny int NOT NULL, MODIFY u bigint unsigned",
    "a wider int renamed": "CHANGE n number bigint",
    "a wider key": "MODIFY id bigint NOT NULL AUTO_INCREMENT",
    "a narrower int that fits": "MODIFY n tinyint",
    "an unsigned int that fits": "MODIFY big bigint unsigned NOT NULL",
    "an int as decimal": "MODIFY n decimal(10,3)",
    "a wider decimal": "MODIFY d decimal(12,4)",
    "a float as double": "MODIFY f double",
    "a longer varchar": "MODIFY v varchar(200), MODIFY w text NOT NULL",
    "a shorter varchar that fits": "MODIFY x varchar(10)",
    "a date as a moment": "MODIFY day datetime NOT NULL",
    "finer moments": "MODIFY at datetime(6), MODIFY spent time(3)",
    "nullable": "MODIFY day date NULL, MODIFY w varchar(50)",
    "another order": "MODIFY n smallint AFTER id, MODIFY w varchar(50) NOT NULL FIRST",
    "another key": "DROP PRIMARY KEY, ADD PRIMARY KEY (big)",
    "a key of two": "DROP PRIMARY KEY, ADD PRIMARY KEY (w, id)",
    "no key": "DROP PRIMARY KEY",
    "indexes": "ADD INDEX by_v (v), ADD FULLTEXT KEY (x), COMMENT = 'x', AUTO_INCREMENT = 100",
    "a default": "ALTER COLUMN n SET DEFAULT 5, ALTER v DROP DEFAULT",
    "much at once": "ADD a int NOT NULL DEFAULT 5 FIRST, DROP x, CHANGE v vv varchar(99) AFTER a,"
    " MODIFY n bigint, ADD b varchar(5) DEFAULT 'b' AFTER a",
}


@pytest.mark.parametrize("alteration", IN_PLACE.values(), ids=IN_PLACE)
def test_raw_follows_without_a_reload(
    replica: Replica, harness: Harness, table: str, alteration: str
) -> None:
    before = _reloads()
    oid = harness.raw.query("SELECT 'raw.t'::regclass::oid")
    replica.ddl(f"ALTER TABLE t {alteration}")
    harness.catch_up()
    harness.assert_same(table)
    replica.commit("UPDATE t SET tiny = 1 WHERE tiny = 0", "DELETE FROM t WHERE tiny = -128")
    harness.catch_up()
    harness.assert_same(table)
    assert _reloads() == before
    assert harness.raw.query("SELECT 'raw.t'::regclass::oid") == oid
    hashes = "SELECT schema_hash FROM raw.{} WHERE table_name = 't'"
    assert harness.raw.query(hashes.format("etl_transform_status")) == harness.raw.query(
        hashes.format("etl_table_schema")
    )
    assert harness.raw.query("SELECT predicted FROM raw.etl_table_schema") == [(False,)]


RELOADED = {
    "a swap of names": "RENAME COLUMN w TO v, RENAME COLUMN v TO w",
    "a timestamp": "ADD extra timestamp NOT NULL DEFAULT '2020-01-01 00:00:00'",
    "a moment of now": "ADD extra datetime DEFAULT CURRENT_TIMESTAMP",
    "a calculated column": "ADD extra int AS (id + 1) STORED",
    "a rounded default": "ADD extra decimal(4,1) DEFAULT 1.25",
    "a cut default": "ADD extra char(5) NOT NULL DEFAULT 'abc '",
    "a default out of range": "ADD extra tinyint NOT NULL DEFAULT 5 , MODIFY big int NOT NULL",
    "a shorter text": "MODIFY w varchar(2) NOT NULL",
    "nulls that become zeros": "MODIFY n smallint NOT NULL",
    "text of numbers": "MODIFY n varchar(10)",
    "numbers of text": "MODIFY v int",
    "another charset": "CONVERT TO CHARACTER SET latin1",
    "a coarser decimal": "MODIFY d decimal(8,1)",
    "a column anew": "DROP v, ADD v varchar(20) DEFAULT 'x'",
}


@pytest.mark.parametrize("alteration", RELOADED.values(), ids=RELOADED)
def test_what_only_the_server_can_know_is_reloaded(
    replica: Replica, harness: Harness, table: str, alteration: str
) -> None:
    before = _reloads()
    ignore = "IGNORE" if "w varchar(2)" in alteration and family() == "mariadb" else ""
    replica.ddl(f"ALTER {ignore} TABLE t {alteration}")
    harness.catch_up()
    harness.assert_same(table)
    assert _reloads() == before + 1


def test_views_indexes_grants_and_statistics_survive(
    replica: Replica, harness: Harness, table: str
) -> None:
    for statement in (
        "CREATE VIEW public.staging AS SELECT id, n, v FROM raw.t",
        "CREATE MATERIALIZED VIEW public.m AS SELECT sum(n) AS total FROM public.staging",
        "CREATE INDEX analyst ON raw.t (n)",
        "CREATE STATISTICS raw.together ON n, u FROM raw.t",
        "ALTER TABLE raw.t ALTER COLUMN n SET STATISTICS 700",
        "GRANT SELECT ON raw.t TO PUBLIC",
    ):
        harness.raw.execute(statement)
    replica.ddl("ALTER TABLE t MODIFY n bigint, CHANGE v w2 varchar(99), DROP x")
    harness.catch_up()
    replica.ddl("ALTER TABLE t MODIFY n decimal(20,0)")
    replica.ddl("ALTER TABLE t CONVERT TO CHARACTER SET latin1")
    replica.commit("UPDATE t SET n = 8 WHERE id = 2")
    harness.catch_up()
    harness.assert_same(table)
    assert harness.raw.query("SELECT * FROM public.staging WHERE id = 3") == [(3, 7, "33")]
    assert harness.raw.query("SELECT count(*) FROM pg_indexes WHERE indexname = 'analyst'") == [
        (1,)
    ]
    assert harness.raw.query("SELECT stxname FROM pg_statistic_ext") == [("together",)]
    allowed = "SELECT has_table_privilege('public', 'raw.t', 'SELECT')"
    assert harness.raw.query(allowed) == [(True,)]


def test_a_view_keeps_a_dropped_column_that_is_retired(
    replica: Replica, harness: Harness, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.raw.execute("CREATE VIEW public.staging AS SELECT id, v FROM raw.t")
    replica.ddl("ALTER TABLE t DROP COLUMN v")
    replica.commit("INSERT INTO t (id, tiny, big, w, day) VALUES (9, 9, 9, '9', '2020-01-01')")
    harness.catch_up()
    assert "public.staging" in capsys.readouterr().out
    view = "SELECT id, v FROM public.staging ORDER BY id"
    assert harness.raw.query(view) == [(1, "é日"), (2, None), (3, "33"), (9, None)]
    retired = "SELECT attname FROM pg_attribute WHERE attname LIKE '\\_retired%'"
    assert harness.raw.query(retired) == [("_retired_v",)]
    replica.ddl("ALTER TABLE t ADD COLUMN v int NOT NULL DEFAULT 4")
    harness.catch_up()
    assert harness.raw.query("SELECT id, v FROM raw.t WHERE id = 1") == [(1, 4)]
    assert harness.raw.query(view)[0] == (1, "é日")
    harness.raw.execute("DROP VIEW public.staging")
    replica.ddl("ALTER TABLE t DROP COLUMN v")
    harness.catch_up()
    assert harness.raw.query(retired) == []
    harness.assert_same(table)


def test_a_type_that_a_view_cannot_follow_retires_the_column(
    replica: Replica, harness: Harness, table: str
) -> None:
    harness.raw.execute("CREATE VIEW public.years AS SELECT id, day + 1 AS next FROM raw.t")
    replica.ddl("ALTER TABLE t MODIFY day datetime NOT NULL")
    replica.commit("UPDATE t SET day = '2021-05-05 05:05:05' WHERE id = 2")
    harness.catch_up()
    day: Any = harness.raw.query("SELECT day::text FROM raw.t ORDER BY id")
    assert day == [("0001-01-01 00:00:00",), ("2021-05-05 05:05:05",), ("9999-12-31 00:00:00",)]
    assert harness.raw.query("SELECT count(next) FROM public.years") == [(3,)]


def test_rows_between_alters_that_the_loader_reads_late(
    replica: Replica, harness: Harness, table: str
) -> None:
    replica.ddl("ALTER TABLE t ADD a int NOT NULL DEFAULT 1")
    replica.commit("UPDATE t SET a = 5 WHERE id = 1")
    replica.ddl("ALTER TABLE t ADD b varchar(5) NOT NULL DEFAULT 'x'")
    replica.commit("UPDATE t SET b = 'y', a = 6 WHERE id = 2")
    replica.ddl("ALTER TABLE t CHANGE a aa bigint NOT NULL, DROP v")
    replica.ddl("ALTER TABLE t RENAME COLUMN b TO v")
    replica.commit("UPDATE t SET aa = 9999999999 WHERE id = 3")
    before = _reloads()
    harness.catch_up()
    harness.assert_same(table)
    assert _reloads() == before


def test_value_exceptions_follow_their_columns(replica: Replica, harness: Harness) -> None:
    replica.create("e", "id int PRIMARY KEY, day date, more date")
    replica.commit("INSERT INTO e VALUES (1, '0000-00-00', '0000-00-00')")
    harness.catch_up()
    replica.ddl("ALTER TABLE e CHANGE day date_of date, DROP more")
    harness.catch_up()
    found = harness.raw.query("SELECT column_name FROM raw.etl_value_exceptions")
    assert found == [("date_of",)]

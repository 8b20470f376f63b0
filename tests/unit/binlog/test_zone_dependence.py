"""Which statements need more than the offset of their own moment."""

from __future__ import annotations

import pytest

from replicator.binlog.ddl import Dialect
from replicator.binlog.zone_dependence import depends_on_zone, stored_by_clock

MARIADB, MYSQL = Dialect(), Dialect(server_version=90704)
MOMENTS = {"Ts": 0, "fine": 3}

INDEPENDENT = [
    "ALTER TABLE t ADD d DATETIME DEFAULT CURRENT_TIMESTAMP",
    "ALTER TABLE t ADD d DATETIME NOT NULL DEFAULT '0001-01-01 00:00:00', ADD e DATE",
    "ALTER TABLE a.t ADD x TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP() ON UPDATE NOW()",
    "ALTER TABLE t ADD x TIMESTAMP(6) DEFAULT NOW(6) COMMENT '2020-01-01', ADD y TIMESTAMP",
    "ALTER TABLE t ADD x TIMESTAMP DEFAULT '0000-00-00 00:00:00', ADD y TIMESTAMP DEFAULT 0",
    "ALTER TABLE t ADD x TIMESTAMP DEFAULT NULL FIRST",
    "ALTER TABLE t ADD (x TIMESTAMP NULL, n INT), ADD INDEX (ts), ADD KEY k (ts, fine)",
    "ALTER TABLE t MODIFY ts TIMESTAMP NULL AFTER fine",
    "ALTER TABLE t CHANGE `TS` seen TIMESTAMP NOT NULL, MODIFY COLUMN fine TIMESTAMP(3)",
    "ALTER TABLE t CHANGE a b DATETIME DEFAULT '2020-01-01', MODIFY d DATETIME(6)",
    "ALTER TABLE t ALTER ts DROP DEFAULT, ALTER COLUMN fine SET DEFAULT 0, ALTER d SET DEFAULT 5",
    "ALTER TABLE t ADD n INT DEFAULT (UNIX_TIMESTAMP()), ADD timestamp DATETIME AFTER ts",
    "ALTER TABLE t DROP ts, ORDER BY fine, DROP INDEX ts, RENAME COLUMN fine TO finer",
    "CREATE TABLE IF NOT EXISTS t (id INT, ts TIMESTAMP, PRIMARY KEY (id), KEY k (ts))",
    "CREATE TABLE t LIKE u",
    "SET STATEMENT max_statement_time = 1 FOR ALTER ONLINE TABLE t ENGINE = InnoDB",
]
DEPENDENT = [
    "ALTER TABLE t MODIFY d TIMESTAMP",
    "ALTER IGNORE TABLE t MODIFY COLUMN IF EXISTS ts DATETIME",
    "ALTER TABLE t CHANGE COLUMN ts ts VARCHAR(30)",
    "ALTER TABLE t MODIFY ts TIMESTAMP(3)",
    "ALTER TABLE t MODIFY fine TIMESTAMP",
    "ALTER TABLE t ADD x TIMESTAMP NOT NULL DEFAULT '2020-07-01'",
    "ALTER TABLE t ADD COLUMN IF NOT EXISTS x TIMESTAMP DEFAULT TIMESTAMP'2020-07-01 00:00:00'",
    "ALTER TABLE t ADD (n INT, x TIMESTAMP DEFAULT 20200701000000)",
    "ALTER TABLE t ADD x TIMESTAMP DEFAULT (NOW() + INTERVAL 6 MONTH)",
    "ALTER TABLE t ADD x TIMESTAMP DEFAULT NOW() + INTERVAL 6 MONTH",
    "ALTER TABLE t MODIFY ts TIMESTAMP DEFAULT '2020-07-01'",
    "ALTER TABLE t ALTER COLUMN ts SET DEFAULT '2020-07-01'",
    "ALTER TABLE t ADD day DATE DEFAULT (DATE(ts))",
    "ALTER TABLE t ADD day DATE AS (DATE(`FINE`)) STORED",
    "ALTER TABLE t ADD x TIMESTAMP, ADD y DATETIME DEFAULT (x)",
    "ALTER TABLE t ADD d DATETIME DEFAULT '2020-01-01 10:00:00+02:00'",
    "ALTER TABLE t ADD d DATETIME DEFAULT (FROM_UNIXTIME(n))",
    "ALTER TABLE t ADD d DATETIME DEFAULT (CONVERT_TZ(d, 'SYSTEM', '+00:00'))",
    "ALTER TABLE t ADD PARTITION (PARTITION p VALUES LESS THAN (UNIX_TIMESTAMP('2020-01-01')))",
    "CREATE TABLE t (id INT, a TIMESTAMP DEFAULT 0, b TIMESTAMP DEFAULT '2020-01-01')",
    "CREATE OR REPLACE TABLE t (ts TIMESTAMP) PARTITION BY RANGE (UNIX_TIMESTAMP(ts)) (PARTITION"
    " p VALUES LESS THAN (UNIX_TIMESTAMP('2020-01-01')))",
    "ANALYZE something else",
]


@pytest.mark.parametrize("statement", INDEPENDENT)
def test_one_offset_tells_it_all(statement: str) -> None:
    assert not depends_on_zone(statement, MARIADB, MOMENTS)
    assert not depends_on_zone(statement.lower(), MYSQL, MOMENTS)


@pytest.mark.parametrize("statement", DEPENDENT)
def test_each_value_has_an_offset_of_its_own(statement: str) -> None:
    assert depends_on_zone(statement, MARIADB, MOMENTS)
    assert depends_on_zone(f"/* c */ {statement};", MYSQL, MOMENTS)


STORED = {
    "ALTER TABLE t ADD day DATE AS (DATE(ts)) STORED": "day",
    "ALTER TABLE t ADD n INT, MODIFY `Day` DATE GENERATED ALWAYS AS (DATE(`fine`)) STORED": "Day",
    "CREATE TABLE t (a TIMESTAMP, b INT AS (1) STORED, c INT AS (YEAR(a)) PERSISTENT)": "c",
    "CREATE TABLE t (n INT, d DATETIME GENERATED ALWAYS AS (from_unixtime(`n`)) STORED)": "d",
    "CREATE TABLE t (a TIMESTAMP, d DATETIME AS (a) VIRTUAL, e DATETIME DEFAULT (a))": None,
    "ALTER TABLE t ADD n INT AS (id + 1) STORED AFTER ts, ADD d DATETIME DEFAULT (ts)": None,
    "CREATE TABLE t LIKE u": None,
    "DROP TABLE t": None,
}


@pytest.mark.parametrize("statement", STORED)
def test_columns_that_are_stored_as_a_clock_shows_them(statement: str) -> None:
    assert stored_by_clock(statement, MYSQL, MOMENTS) == STORED[statement]

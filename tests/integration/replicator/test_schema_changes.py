"""Schema changes of the source: carried, skipped or refused; and each exactly once."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pymysql
import pytest
from structlog.testing import capture_logs

from config.errors import StatementFormat, UnsupportedStatement
from replicator import schema_changes, tracking
from replicator.schema_changes import SchemaChanges

from .leg import Crash, Leg, crashing


@pytest.fixture
def pair(leg: Leg) -> Leg:
    """Three tables of one definition, told apart by their rows alone."""
    for number, table in enumerate(("one", "two", "three"), 1):
        leg.source.execute(f"CREATE TABLE {table} (id INT PRIMARY KEY, n INT)")
        leg.source.execute(f"INSERT INTO {table} VALUES (1, %s), (2, %s)", (number, number))
    leg.catch_up()
    return leg


CHANGES = {
    "add column": ["ALTER TABLE one ADD COLUMN extra VARCHAR(9) NOT NULL DEFAULT 'new' FIRST"],
    "two-phase alter": [
        "SET SESSION binlog_alter_two_phase = 1",
        "ALTER TABLE one ADD COLUMN extra INT DEFAULT 5",
        "ALTER TABLE one ADD UNIQUE KEY (id, extra)",
    ],
    "create select": ["CREATE TABLE four AS SELECT id, n + 10 AS m FROM one"],
    "create select in one transaction": [
        "CREATE TABLE four ENGINE=InnoDB AS SELECT id, n + 10 AS m FROM one",
        "INSERT INTO four VALUES (9, 9)",
    ],
    "create like": ["CREATE TABLE four LIKE one", "INSERT INTO four SELECT * FROM two"],
    "create like one that is copied": [
        "CREATE TABLE four AS SELECT id, n FROM one", "CREATE TABLE five LIKE four",
        "INSERT INTO five VALUES (5, 5)",
    ],
    "create like one that is copied anew": [
        "ALTER TABLE one ADD serial INT AUTO_INCREMENT UNIQUE", "ALTER TABLE one ADD more INT",
        "CREATE TABLE four LIKE one", "ALTER TABLE one DROP COLUMN more",
        "INSERT INTO four (id, more) VALUES (5, 5)",
    ],
    "swap": ["RENAME TABLE one TO tmp, two TO one, tmp TO two"],
    "rename by alter": ["ALTER TABLE one RENAME TO four", "INSERT INTO four VALUES (9, 9)"],
    "drop list": ["DROP TABLE one, two"],
    "drop if exists": ["DROP TABLE IF EXISTS absent, one"],
    "truncate": ["TRUNCATE TABLE one", "INSERT INTO one VALUES (7, 7)"],
    "drop and create": ["DROP TABLE one", "CREATE TABLE one (word VARCHAR(9) PRIMARY KEY)",
                        "INSERT INTO one VALUES ('x')"],
    "create or replace": ["CREATE OR REPLACE TABLE one (word VARCHAR(9) PRIMARY KEY)",
                          "INSERT INTO one VALUES ('x')"],
    "create again": ["CREATE TABLE IF NOT EXISTS one (id INT)", "INSERT INTO one VALUES (7, 7)"],
    "index": ["CREATE INDEX by_n ON one (n)", "DROP INDEX by_n ON one"],
    "charset": ["ALTER TABLE one ADD COLUMN word VARCHAR(9) CHARACTER SET latin1",
                "INSERT INTO one VALUES (7, 7, _latin1 x'e9')"],
    "nothing of ours": ["CREATE VIEW seen AS SELECT * FROM one", "DROP VIEW seen",
                        "ANALYZE TABLE one", "OPTIMIZE TABLE one",
                        "CREATE TRIGGER t BEFORE INSERT ON one FOR EACH ROW SET NEW.n = 1"],
}  # fmt: skip


def run(leg: Leg, statements: list[str]) -> None:
    with closing(leg.source.connect(ssl_disabled=True)) as connection:
        for statement in statements:
            connection.cursor().execute(statement)


MARIADB_ALONE = pytest.mark.only_on("mariadb", reason="MySQL has no such statement")


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(
            statements,
            id=name,
            marks=MARIADB_ALONE if name in ("two-phase alter", "create or replace") else (),
        )
        for name, statements in CHANGES.items()
    ],
)
def test_schema_changes_arrive_between_the_rows_they_stood_between(
    pair: Leg, statements: list[str]
) -> None:
    pair.source.execute("UPDATE one SET n = n + 100")
    run(pair, statements)
    pair.source.execute("UPDATE three SET n = n + 100")
    pair.catch_up()
    pair.assert_exact()
    assert pair.position() == pair.source_position()
    assert set(pair.states()) == set(pair.tables())
    assert set(pair.states().values()) == {"streaming"}
    assert pair.requests("failed") == []


CRASHES = ["add column", "create select", "swap", "drop list", "truncate", "drop and create"]
MOMENTS: dict[str, tuple[Any, str, bool]] = {
    "before the intent is recorded": (tracking, "set_pending", False),
    "when the intent is recorded": (tracking, "set_pending", True),
    "when the change is made": (SchemaChanges, "_settle", False),
    "when the offset is written but not committed": (tracking, "write_offset", True),
}


@pytest.mark.parametrize("change", CRASHES)
def test_a_change_cut_off_at_any_moment_is_made_exactly_once(
    pair: Leg, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (owner, name, done) in enumerate(MOMENTS.values()):
        if number:  # the tables as they were
            run(pair, ["DROP TABLE IF EXISTS one, two, three, four"])
            for value, table in enumerate(("one", "two", "three"), 1):
                run(pair, [f"CREATE TABLE {table} (id INT PRIMARY KEY, n INT)",
                           f"INSERT INTO {table} VALUES (1, {value}), (2, {value})"])  # fmt: skip
            pair.catch_up()
        run(pair, CHANGES[change])
        pair.source.execute("UPDATE three SET n = n + 100")
        with crashing(monkeypatch, owner, name, done=done), pytest.raises(Crash):
            pair.step_until(lambda: False)
        pair.restart()
        pair.catch_up()
        pair.assert_exact()
        assert set(pair.states()) == set(pair.tables())


def test_a_crash_between_two_tables_of_a_drop_is_made_up_for(
    pair: Leg, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.source.execute("DROP TABLE one, two")
    with crashing(monkeypatch, schema_changes, "execute_bytes"), pytest.raises(Crash):
        pair.step_until(lambda: False)
    pair.replica.execute("DROP TABLE one")  # as far as the server came before it was killed
    pair.restart()
    pair.catch_up()
    pair.assert_exact()


def test_a_table_that_left_is_dropped_though_a_crash_came_between(
    pair: Leg, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(pair, ["CREATE DATABASE away", "RENAME TABLE one TO away.one, two TO one"])
    with crashing(monkeypatch, schema_changes, "execute_bytes", done=True), pytest.raises(Crash):
        pair.step_until(lambda: False)
    assert [table for table in pair.tables() if table.startswith("_old_moved_")]
    pair.restart()
    pair.catch_up()
    pair.assert_exact()
    run(pair, ["DROP DATABASE away"])
    pair.catch_up()


def test_a_view_that_is_renamed_leaves_no_table_behind(pair: Leg) -> None:
    run(pair, ["CREATE VIEW seen AS SELECT * FROM one", "RENAME TABLE seen TO shown"])
    pair.step_until(lambda: pair.requests("failed"))
    run(pair, ["INSERT INTO one VALUES (8, 8)"])
    pair.catch_up()
    pair.step_until(lambda: set(pair.states()) == {"one", "two", "three"})
    run(pair, ["DROP VIEW shown"])
    pair.catch_up()
    pair.assert_exact()


REPLACEMENTS = {
    "its definition": "CREATE OR REPLACE TABLE one (id INT PRIMARY KEY, id INT)",
    "its model": "CREATE OR REPLACE TABLE one LIKE absent",
    "its rows": "CREATE OR REPLACE TABLE one (id INT PRIMARY KEY) SELECT 7 AS id FROM two",
}


@MARIADB_ALONE
@pytest.mark.parametrize("again", [False, True], ids=["for good", "made again"])
@pytest.mark.parametrize("statement", REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_a_replacement_that_fails_behind_its_drop_takes_the_table_away(
    pair: Leg, statement: str, again: bool
) -> None:
    with pytest.raises(pymysql.MySQLError):
        run(pair, [statement])
    if again:
        run(pair, ["CREATE TABLE IF NOT EXISTS one (word VARCHAR(9) PRIMARY KEY)"])
    run(pair, ["INSERT INTO two VALUES (9, 9)"])
    pair.catch_up()
    pair.step_until(lambda: "vanished" not in pair.states().values())
    pair.assert_exact()
    assert set(pair.states()) == set(pair.tables())


NUMBERED = {
    "made so": "CREATE TABLE four (id INT NOT NULL AUTO_INCREMENT, n INT, PRIMARY KEY (n, id))"
    " ENGINE=MyISAM AUTO_INCREMENT=7",
    "made like it": "CREATE TABLE five LIKE four",
    "changed so": "ALTER TABLE one ENGINE=MyISAM, DROP PRIMARY KEY, MODIFY id INT AUTO_INCREMENT,"
    " ADD PRIMARY KEY (n, id), ADD more INT COMMENT 'AUTO_INCREMENT'",
    "renamed so": "ALTER TABLE two ENGINE=MyISAM, DROP PRIMARY KEY, MODIFY id INT AUTO_INCREMENT,"
    " ADD PRIMARY KEY (n, id), RENAME TO six",
}


def test_rows_that_are_numbered_as_innodb_does_not_arrive_with_their_numbers(pair: Leg) -> None:
    """MyISAM numbers them within the parts of a key before the number's own."""
    pair.source.execute("UPDATE one SET id = 0 WHERE id = 1")
    run(pair, [*NUMBERED.values(), "INSERT INTO four (n) VALUES (1), (1), (2), (1)"])
    run(
        pair,
        [
            "INSERT INTO one (n) VALUES (1), (5)",
            "ALTER TABLE one ADD last INT",
            "INSERT INTO five (n) VALUES (3), (3)",
            "INSERT INTO six (n) VALUES (3)",
        ],
    )
    pair.catch_up()
    run(pair, ["INSERT INTO one (n) VALUES (1), (5)", "INSERT INTO four (n) VALUES (2)"])
    pair.catch_up()
    pair.assert_exact()
    assert pair.requests("failed") == []
    assert pair.replica.query("SHOW COLUMNS FROM one WHERE extra <> ''") == []


@MARIADB_ALONE
def test_values_of_a_sequence_arrive_without_it(pair: Leg) -> None:
    run(pair, ["CREATE SEQUENCE s", "ALTER TABLE one ADD c BIGINT NOT NULL DEFAULT NEXTVAL(s)",
               "INSERT INTO one (id) VALUES (60), (61)", "RENAME TABLE s TO r",
               "ALTER TABLE one ALTER COLUMN c SET DEFAULT (NEXT VALUE FOR r)",
               "INSERT INTO one (id) VALUES (62)",
               "CREATE TABLE four (id INT PRIMARY KEY DEFAULT NEXTVAL(r))",
               "INSERT INTO four VALUES ()", "SELECT NEXTVAL(r)"])  # fmt: skip
    pair.catch_up()
    pair.resync("four")
    pair.step_until(lambda: ("four", "loading") in pair.requests())
    pair.assert_exact(without=("r",))


def test_a_foreign_key_that_writes_rows_halts_by_name(pair: Leg) -> None:
    run(pair, ["SET default_storage_engine = InnoDB", "ALTER TABLE three ENGINE = InnoDB",
               "CREATE TABLE child (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES three (id)"
               " ON DELETE CASCADE)"])  # fmt: skip
    with pytest.raises(UnsupportedStatement) as caught:
        pair.step_until(lambda: False)
    assert "foreign key" in str(caught.value)
    assert "resync --all" in caught.value.hint


def test_a_statement_that_logs_rows_as_text_halts_with_position_and_remedy(pair: Leg) -> None:
    run(
        pair,
        ["SET SESSION binlog_format = STATEMENT", "UPDATE one SET n = 1999888777 WHERE id = 1"],
    )
    before = pair.source_position()
    with pytest.raises(StatementFormat) as caught:
        pair.step_until(lambda: False)
    assert before.file in str(caught.value)
    assert "1999888777" not in str(caught.value)
    assert "binlog_format" in caught.value.hint
    with pytest.raises(StatementFormat):  # nothing is skipped by trying again
        pair.step_until(lambda: False)


def test_a_statement_about_another_databases_rows_does_not_halt(pair: Leg) -> None:
    with closing(pair.source.server.connect(ssl_disabled=True)) as root:
        cursor = root.cursor()
        for statement in (
            "CREATE DATABASE elsewhere",
            "USE elsewhere",
            "CREATE TABLE t (id INT)",
            "SET SESSION binlog_format = STATEMENT",
            "INSERT INTO t VALUES (1)",
            "DROP DATABASE elsewhere",
        ):
            cursor.execute(statement)
    pair.catch_up()
    pair.assert_exact()
    assert pair.position() == pair.source_position()


def test_a_table_of_another_engine_becomes_innodb_and_that_is_announced(pair: Leg) -> None:
    pair.source.execute("CREATE TABLE four (id INT PRIMARY KEY) ENGINE=MyISAM")
    with capture_logs() as logs:
        pair.catch_up()
    pair.assert_exact()
    announced = [line for line in logs if line["event"] == "engine_replaced"]
    assert [(line["engine"], line["stored"]) for line in announced] == [("MyISAM", "InnoDB")]


def test_the_replicas_session_is_neutral_again_after_a_change(pair: Leg) -> None:
    run(pair, ["SET time_zone = '+05:00', sql_mode = 'ANSI_QUOTES'",
               'ALTER TABLE "one" ADD COLUMN "at" TIMESTAMP NULL'])  # fmt: skip
    pair.catch_up()
    found = tracking.fetch(
        pair.replicator._session.replica,
        "SELECT @@time_zone, @@sql_mode, @@foreign_key_checks, @@character_set_client",
    )
    assert found == [("+00:00", "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES", 0, "utf8mb4")]


def _noted(pair: Leg) -> Any:
    return pair.replica.query(
        "SELECT schema_hash FROM etl_extract_status WHERE table_name = 'one'"
    )[0][0]


SAME_SCHEMA = {
    "comments": "ALTER TABLE one COMMENT = 'x', MODIFY n INT COMMENT 'y'",
    "indexes": "ALTER TABLE one ADD INDEX by_n (n), ADD UNIQUE KEY (id, n)",
    "a default": "ALTER TABLE one ALTER COLUMN n SET DEFAULT 5",
    "an invisible column": "ALTER TABLE one MODIFY n INT INVISIBLE",
    "the table's options": "ALTER TABLE one ROW_FORMAT = DYNAMIC, AUTO_INCREMENT = 50, FORCE",
    "the charset of columns to come": "ALTER TABLE one DEFAULT CHARACTER SET latin1",
    "a display width": "ALTER TABLE one MODIFY n INT(5)",
    "partitions": "ALTER TABLE one ENGINE=InnoDB PARTITION BY HASH (id) PARTITIONS 2",
    "rows": "UPDATE one SET n = 8",
}
OTHER_SCHEMA = {
    "a column": "ALTER TABLE one ADD COLUMN extra INT",
    "no column": "ALTER TABLE one DROP COLUMN n, ADD COLUMN m INT",
    "a name": "ALTER TABLE one CHANGE n m INT",
    "a type": "ALTER TABLE one MODIFY n BIGINT",
    "a sign": "ALTER TABLE one MODIFY n INT UNSIGNED",
    "nullability": "ALTER TABLE one MODIFY n INT NOT NULL",
    "the order": "ALTER TABLE one MODIFY n INT FIRST",
    "the key": "ALTER TABLE one DROP PRIMARY KEY, ADD PRIMARY KEY (id, n)",
    "no key": "ALTER TABLE one DROP PRIMARY KEY",
}


@pytest.mark.parametrize("statement", SAME_SCHEMA.values(), ids=SAME_SCHEMA)
def test_the_schema_hash_stays_when_the_schema_does(pair: Leg, statement: str) -> None:
    before = _noted(pair)
    pair.source.execute(statement)
    pair.catch_up()
    assert _noted(pair) == before is not None
    pair.assert_exact()


@pytest.mark.parametrize("statement", OTHER_SCHEMA.values(), ids=OTHER_SCHEMA)
def test_the_schema_hash_moves_with_the_schema(pair: Leg, statement: str) -> None:
    before = _noted(pair)
    pair.source.execute(statement)
    pair.catch_up()
    assert _noted(pair) not in (None, before)

"""The first copy: in chunks, resumable, and exact whatever happens on the source meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from config.errors import CopyRefused
from replicator import source as src
from replicator.copy_progress import CopyProgress
from replicator.snapshot import TableCopier
from tests.fix_servers import Pair
from tests.numbers import numbers

from .conftest import NewLeg
from .leg import Crash, Leg, crashing

ENGINES = ["InnoDB", "MyISAM"]


def between_chunks(
    monkeypatch: pytest.MonkeyPatch, table: str, *works: Callable[[], Any]
) -> list[int]:
    """Run one of `works` behind each chunk of `table`; the chunks' sizes so far."""
    original, waiting, sizes = TableCopier.copy_chunk, list(works), []

    def copy_chunk(
        self: TableCopier, source: src.SourceTable, progress: CopyProgress
    ) -> CopyProgress:
        after = original(self, source, progress)
        if source.name == table:
            sizes.append(after.rows - progress.rows)
            if waiting:
                waiting.pop(0)()
        return after

    monkeypatch.setattr(TableCopier, "copy_chunk", copy_chunk)
    return sizes


def doing(leg: Leg, *statements: str) -> Callable[[], None]:
    def work() -> None:
        with closing(leg.source.connect(ssl_disabled=True)) as connection:
            for statement in statements:
                connection.cursor().execute(statement)

    return work


def filled(leg: Leg, engine: str, rows: int = 10) -> None:
    leg.source.execute(
        "CREATE TABLE patient (id INT PRIMARY KEY, n INT, word VARCHAR(20), UNIQUE (n))"
        f" ENGINE={engine}"
    )
    leg.source.execute(
        f"INSERT INTO patient SELECT seq * 10, seq, CONCAT('w', seq) FROM {numbers(1, rows)}"
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_that_change_while_their_table_is_copied_are_exact_afterwards(
    new_leg: NewLeg, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, engine)
    sizes = between_chunks(
        monkeypatch,
        "patient",
        doing(leg, "UPDATE patient SET word = 'behind' WHERE id = 10",
              "UPDATE patient SET word = 'ahead' WHERE id = 90",
              "DELETE FROM patient WHERE id IN (20, 80)",
              "INSERT INTO patient VALUES (5, 105, 'behind'), (95, 195, 'ahead')"),
        doing(leg, "UPDATE patient SET id = 7 WHERE id = 100",  # from ahead to behind
              "UPDATE patient SET id = 200 WHERE id = 10",  # from behind to ahead
              "UPDATE patient SET n = NULL WHERE id = 30"),
        doing(leg, "UPDATE patient SET n = 555 WHERE id = 40",
              "UPDATE patient SET n = 4 WHERE id = 200",  # a value that a copied row had
              "UPDATE patient SET n = 3 WHERE id = 40",
              "INSERT INTO patient VALUES (10, 901, 'again')",
              "UPDATE patient SET id = id + 1000 WHERE id IN (30, 40) ORDER BY id DESC"),
    )  # fmt: skip
    leg.catch_up()
    leg.source.execute("UPDATE patient SET word = 'later', id = id - 1")
    leg.catch_up()
    assert max(sizes) == 3
    assert len(sizes) >= 3
    leg.assert_exact()
    assert leg.requests() == []


@pytest.mark.parametrize("engine", ENGINES)
def test_unique_values_that_change_rows_while_they_are_copied_are_exact_afterwards(
    new_leg: NewLeg, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, engine)
    between_chunks(
        monkeypatch,
        "patient",
        doing(leg, "UPDATE patient SET n = NULL WHERE id = 10",
              "UPDATE patient SET n = 1 WHERE id = 50",
              "UPDATE patient SET n = 5 WHERE id = 10"),
        doing(leg, "DELETE FROM patient WHERE id = 20", "UPDATE patient SET n = 2 WHERE id = 90",
              "UPDATE patient SET id = id - 66, n = 77 WHERE id = 70"),
    )  # fmt: skip
    leg.catch_up()
    leg.assert_exact()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_copy_that_was_cut_off_goes_on_behind_its_last_chunk(
    new_leg: NewLeg, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, engine)
    with crashing(monkeypatch, TableCopier, "copy_chunk", after=2), pytest.raises(Crash):
        leg.step_until(lambda: False)
    assert leg.copied_rows() == {"patient": (6, '["60"]')}
    leg.source.execute("UPDATE patient SET word = 'meanwhile' WHERE id IN (20, 90)")
    leg.restart()
    sizes = between_chunks(monkeypatch, "patient")
    leg.catch_up()
    assert sum(sizes) == 4
    leg.assert_exact()
    assert leg.replica.query("SELECT rows_extracted FROM etl_extract_status") == [(10,)]
    assert leg.copied_rows() == {}


DDL = {
    "alter": ["ALTER TABLE patient ADD COLUMN extra INT DEFAULT 4", "DELETE FROM patient LIMIT 1"],
    "drop column": ["ALTER TABLE patient DROP COLUMN word"],
    "truncate": ["TRUNCATE TABLE patient", "INSERT INTO patient VALUES (1, 1, 'new')"],
    "drop": ["DROP TABLE patient"],
    "drop and create": ["DROP TABLE patient", "CREATE TABLE patient (word VARCHAR(9) PRIMARY KEY)",
                        "INSERT INTO patient VALUES ('a')"],
    "rename": ["RENAME TABLE patient TO person", "INSERT INTO person VALUES (1, 99, 'new')"],
    "swap": ["CREATE TABLE other LIKE patient", "INSERT INTO other VALUES (1, 1, 'other')",
             "RENAME TABLE patient TO tmp, other TO patient, tmp TO other"],
    "create": ["CREATE TABLE other (id INT PRIMARY KEY)", "INSERT INTO other VALUES (1), (2)"],
    "create and drop": ["CREATE TABLE other (id INT PRIMARY KEY)", "INSERT INTO other VALUES (1)",
                        "DROP TABLE other"],
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("change", DDL)
def test_a_schema_change_while_a_table_is_copied_is_exact_afterwards(
    new_leg: NewLeg, change: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, engine)
    leg.source.execute("CREATE TABLE zone (id INT PRIMARY KEY)")
    between_chunks(monkeypatch, "patient", doing(leg, *DDL[change]))
    leg.catch_up()
    leg.source.execute("CREATE TABLE IF NOT EXISTS patient (id INT PRIMARY KEY)")
    leg.source.execute("INSERT INTO zone VALUES (5)")
    leg.catch_up()
    leg.assert_exact()
    assert set(leg.states()) == set(leg.tables())


def test_a_table_that_is_dropped_before_its_turn_may_come_again(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, "InnoDB")
    leg.source.execute("CREATE TABLE zone (id INT PRIMARY KEY)")
    leg.source.execute("CREATE TABLE zoo (id INT PRIMARY KEY)")
    between_chunks(
        monkeypatch,
        "patient",
        doing(leg, "DROP TABLE zone", "RENAME TABLE zoo TO ark", "DROP TABLE patient"),
    )
    leg.catch_up()
    leg.assert_exact()
    doing(leg, "CREATE TABLE zone (word VARCHAR(9))", "CREATE TABLE patient (id INT)",
          "CREATE TABLE zoo (n INT)", "INSERT INTO zoo VALUES (1)")()  # fmt: skip
    leg.catch_up()
    leg.assert_exact()
    assert set(leg.states().values()) == {"streaming"}


@pytest.mark.parametrize(
    "meanwhile",
    [
        [],
        ["INSERT INTO hidden VALUES (3)"],
        ["ALTER TABLE hidden ADD n INT DEFAULT 7", "INSERT INTO hidden VALUES (3, 4)"],
        ["RENAME TABLE hidden TO seen, patient TO hidden"],
        ["DROP TABLE hidden"],
    ],
    ids=["untouched", "written", "altered", "renamed", "dropped"],
)
def test_a_table_that_the_catalog_hides_at_the_start_is_copied_later(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch, meanwhile: list[str]
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, "InnoDB")
    leg.source.execute("CREATE TABLE hidden (id INT PRIMARY KEY)")
    leg.source.execute("INSERT INTO hidden VALUES (1), (2)")
    listed, asked = src.base_tables, []

    def base_tables(connection: Any, database: str) -> list[src.SourceTable]:
        asked.append(database)
        found = listed(connection, database)
        return [table for table in found if len(asked) > 1 or table.name != "hidden"]

    monkeypatch.setattr(src, "base_tables", base_tables)
    between_chunks(monkeypatch, "patient", doing(leg, *meanwhile))
    leg.catch_up()
    leg.assert_exact()
    assert set(leg.states()) == set(leg.tables())


KEYS = {
    "composite": ("a INT, b VARCHAR(9), c DATE, PRIMARY KEY (a, b, c)",
                  "SELECT seq % 2, CONCAT('k', seq % 3), '2024-01-01' + INTERVAL seq DAY"),
    "case-insensitive": ("a VARCHAR(9) COLLATE utf8mb3_general_ci PRIMARY KEY, b INT",
                         "SELECT CONCAT(IF(seq % 2, 'AÄb', 'aß'), CHAR(64 + seq)), seq"),
    "latin1": ("a VARCHAR(9) CHARACTER SET latin1 PRIMARY KEY, b INT",
               "SELECT CONCAT(CONVERT(CHAR(0xe0 + seq) USING latin1), seq), seq"),
    "utf8mb4": ("a CHAR(9) CHARACTER SET utf8mb4 PRIMARY KEY, b INT",
                "SELECT CONCAT('😀', IF(seq % 2, ' ', ''), seq), seq"),
    "binary": ("a VARBINARY(9) PRIMARY KEY, b INT", "SELECT UNHEX(HEX(seq * 37 % 256)), seq"),
    "fixed binary": ("a BINARY(4) PRIMARY KEY, b INT", "SELECT CHAR(seq * 23 % 256), seq"),
    "negative": ("a INT, b INT UNSIGNED, PRIMARY KEY (a, b)",
                 "SELECT 5 - CAST(seq AS SIGNED), 4294967295 - seq"),
    "bigint unsigned": ("a BIGINT UNSIGNED PRIMARY KEY, b INT",
                        "SELECT 18446744073709551615 - seq, seq"),
    "dates": ("a DATETIME(3), b DATE, PRIMARY KEY (a, b)",
              "SELECT '2024-01-01 00:00:01' + INTERVAL seq SECOND,"
              " IF(seq > 3, '0000-00-00', 20240000)"),
    "decimal": ("a DECIMAL(20,3) PRIMARY KEY, b INT", "SELECT CAST(seq AS SIGNED) * -1.001, seq"),
    "enum and year": ("a ENUM('z','y'), b YEAR, c TIME, PRIMARY KEY (a, b, c)",
                      "SELECT 1 + seq % 2, 2000 + seq, SEC_TO_TIME(CAST(seq AS SIGNED) - 4)"),
    "unique without primary": ("a INT NOT NULL, b INT, UNIQUE (a)",
                               "SELECT -CAST(seq AS SIGNED), seq"),
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_keys_of_every_kind_are_walked_in_chunks(
    new_leg: NewLeg, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    tables = {name.replace(" ", "_").replace("-", "_"): made for name, made in KEYS.items()}
    for table, (columns, select) in tables.items():
        leg.source.execute(f"CREATE TABLE `{table}` ({columns}) ENGINE={engine}")
        leg.source.execute(f"INSERT INTO `{table}` {select} FROM {numbers(1, 10)}")
        between_chunks(
            monkeypatch,
            table,
            doing(
                leg,
                f"DELETE FROM `{table}` LIMIT 2",
                f"DELETE FROM `{table}` ORDER BY a DESC LIMIT 2",
            ),
            doing(leg, f"INSERT IGNORE INTO `{table}` {select} FROM {numbers(1, 12)}"),
        )
    leg.catch_up()
    leg.assert_exact()
    assert leg.requests() == []


def keyless(leg: Leg, engine: str) -> None:
    leg.source.execute(f"CREATE TABLE tally (word VARCHAR(9), n INT) ENGINE={engine}")
    leg.source.execute(f"INSERT INTO tally SELECT 'x', seq % 3 FROM {numbers(1, 30)}")
    leg.source.execute("CREATE TABLE able (id INT PRIMARY KEY)")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_table_without_a_key_is_copied_whole(new_leg: NewLeg, engine: str) -> None:
    leg = new_leg(copy_chunk_rows=3)
    keyless(leg, engine)
    leg.catch_up()
    leg.source.execute("INSERT INTO tally SELECT * FROM tally")
    leg.source.execute("DELETE FROM tally WHERE n = 1 LIMIT 5")
    leg.catch_up()
    leg.assert_exact()
    assert leg.requests() == []


@pytest.mark.parametrize(("engine", "again"), [("InnoDB", 0), ("MyISAM", 1)])
def test_a_table_without_a_key_that_is_written_to_meanwhile_is_copied_again_where_it_must(
    new_leg: NewLeg, servers: Pair, engine: str, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if servers.family == "mysql":
        again = 1  # no snapshot there tells its position
    leg = new_leg(copy_chunk_rows=3)
    keyless(leg, engine)
    original = TableCopier._write_whole
    works = [doing(leg, "INSERT INTO tally VALUES ('late', 1)", "DELETE FROM tally LIMIT 3")]

    def write_whole(self: TableCopier, *arguments: Any) -> CopyProgress:
        if works:
            works.pop()()
        return original(self, *arguments)

    monkeypatch.setattr(TableCopier, "_write_whole", write_whole)
    leg.catch_up()
    leg.assert_exact()
    assert len(leg.requests("loading")) == again


def test_a_table_without_a_key_is_copied_under_a_short_lock_where_that_is_allowed(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_lock="short")
    keyless(leg, "MyISAM")
    with closing(leg.source.server.connect(ssl_disabled=True)) as root:
        root.cursor().execute("SET sql_log_bin = 0")
        pattern = leg.source.name.replace("_", r"\_")
        root.cursor().execute(f"GRANT LOCK TABLES ON `{pattern}`.* TO '{leg.source.user}'@'%'")
    original = TableCopier._write_whole
    locked: list[bool] = []

    def write_whole(self: TableCopier, *arguments: Any) -> CopyProgress:
        with closing(leg.source.connect(ssl_disabled=True)) as other:
            other.cursor().execute("SET lock_wait_timeout = 0")
            try:
                other.cursor().execute("INSERT INTO tally VALUES ('late', 1)")
                locked.append(False)
            except Exception:
                locked.append(True)
        return original(self, *arguments)

    monkeypatch.setattr(TableCopier, "_write_whole", write_whole)
    leg.catch_up()
    leg.source.execute("INSERT INTO tally VALUES ('late', 1)")
    leg.catch_up()
    leg.assert_exact()
    assert locked == [True]
    assert leg.requests() == []


def test_a_table_with_a_foreign_key_is_refused_by_name(leg: Leg) -> None:
    leg.source.execute("CREATE TABLE parent (id INT PRIMARY KEY) ENGINE=InnoDB")
    leg.source.execute(
        "CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id)"
        " ON DELETE CASCADE) ENGINE=InnoDB"
    )
    with pytest.raises(CopyRefused, match="child") as caught:
        leg.step_until(lambda: False)
    assert "tables.toml" in caught.value.hint

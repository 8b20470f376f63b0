"""Virtual columns that a source leaves out of its images are in the replica's binlog as they are.

The oracle is the replica's own SELECT: what its binlog told last of each row is what it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import pytest

from config.errors import ApplyConflict
from replicator.binlog.catalog import CatalogTable
from replicator.binlog.position import ReplicaPosition
from replicator.binlog.rowsplit import RowSplitter, Values
from replicator.binlog.rowvalues import field_of
from replicator.sandbox.databases import MySQLDatabase
from replicator.virtual_columns import VirtualColumns
from tests.fix_servers import Pair, family
from tests.integration.binlog.logged import catalog_of, raw_connection

from .leg import Crash, Leg, crashing
from .test_row_images import logged, logging, pytest_generate_tests

__all__ = ["pytest_generate_tests"]

TABLES = {
    "plain": "(id int PRIMARY KEY, v int, note text, w bigint AS (v * 2) VIRTUAL)",
    "of_the_key": "(id int PRIMARY KEY, v int, w bigint AS (id * 2) VIRTUAL, note text)",
    "one_of_another": (
        "(id int PRIMARY KEY, v int, a int AS (v + 1) VIRTUAL, s int AS (a + 1) STORED,"
        " b int AS (s + a) VIRTUAL, note text, KEY (a))"
    ),
    "of_many_kinds": (
        "(id int PRIMARY KEY, v int, note text, `Ä``b` varchar(30) CHARACTER SET utf16"
        " AS (CONCAT(note, 'ü')) VIRTUAL, f float AS (v / 3) VIRTUAL, d double AS (-0e0 * v)"
        " VIRTUAL, n decimal(20,5) AS (v / 7) VIRTUAL, e enum('a','b') AS (IF(v, 'b', NULL))"
        " VIRTUAL, t datetime(3) AS (MAKEDATE(2024, v)) VIRTUAL, b bit(9) AS (v) VIRTUAL,"
        " y year AS (2020 + v) VIRTUAL, h time(2) AS (SEC_TO_TIME(-v)) VIRTUAL, x longblob AS"
        " (REPEAT(note, v * 1000)) VIRTUAL, l text AS (UPPER(`Ä``b`)) VIRTUAL)"
    ),
    "keys_of_two": (
        "(v int NOT NULL, note varchar(99), id varchar(20) CHARACTER SET latin1 COLLATE"
        " latin1_swedish_ci NOT NULL, w int AS (v * 2) VIRTUAL, u int AS (v + 2) VIRTUAL,"
        " UNIQUE (w), PRIMARY KEY (id, v))"
    ),
    "numbered": (
        "(id int AUTO_INCREMENT PRIMARY KEY, v int NOT NULL, note varchar(50) NOT NULL,"
        " w int AS (v * 2) VIRTUAL, u text AS (REPEAT(note, 3)) VIRTUAL, UNIQUE (v), UNIQUE (w))"
    ),
    "unique_alone": "(id int NOT NULL, v int, note text, w int AS (v + id) VIRTUAL, UNIQUE (id))",
    "without_a_key": (
        "(id int, v int, note text, w int AS (v + id) VIRTUAL, u text AS (note) VIRTUAL)"
    ),
    "parted": (
        "(id int PRIMARY KEY, v int, note text, w int AS (v * 2) VIRTUAL)"
        " PARTITION BY HASH (id) PARTITIONS 3"
    ),
}
if family() == "mariadb":
    TABLES |= {
        "with_a_hidden_hash": (
            "(id int PRIMARY KEY, v int, note text, w text AS (CONCAT(note, v)) VIRTUAL,"
            " UNIQUE (note))"
        ),
        "versioned_without_a_key": (
            "(id int, v int, note text, w int AS (v * 2) VIRTUAL) WITH SYSTEM VERSIONING"
        ),
        "versioned": (
            "(id int PRIMARY KEY, v int, note text, w int AS (v * 2) VIRTUAL)"
            " WITH SYSTEM VERSIONING"
        ),
    }
CHANGES = (
    "INSERT INTO {t} (id, v, note) VALUES (1, 10, 'one'), (2, 20, 'two'), (3, 30, 'three')",
    "INSERT INTO {t} (id, v, note) VALUES (4, 40, 'four')",
    "UPDATE {t} SET v = v + 1 ORDER BY v DESC",
    "UPDATE {t} SET note = CONCAT(note, '!') WHERE id > 2",
    "UPDATE {t} SET note = 'zwei', v = 22 WHERE id = 2",
    "UPDATE {t} SET id = id + 10 ORDER BY id DESC",
    "UPDATE {t} SET id = 5, v = 55 WHERE id = 12",
    "DELETE FROM {t} WHERE id = 13",
    "INSERT INTO {t} (id, v, note) VALUES (13, 33, 'again')",
    "INSERT INTO {t} (id, v, note) VALUES (6, 66, 'a'), (7, 77, 'b'), (8, 88, 'c')",
    "UPDATE {t} SET v = v",
)


@pytest.fixture
def newer(servers: Pair) -> bool:
    """Does the replica's server log virtual columns as they are, by itself?"""
    return servers.replica != "mariadb"


@pytest.fixture
def made(leg: Leg) -> Callable[[str], ReplicaPosition]:
    """Make the table; where the replica's binlog stood before."""

    def make(definition: str) -> ReplicaPosition:
        leg.catch_up()
        start = ReplicaPosition(*leg.replica.binlog_end())
        with logging(leg.source, "FULL", "default_storage_engine = InnoDB") as cursor:
            cursor.execute(f"CREATE TABLE t {definition}")
        return start

    return make


def assert_told(leg: Leg, start: ReplicaPosition, table: str = "t", *, every: bool = True) -> None:
    """The replica's binlog told last of each row, of `every` one, what the replica shows of it."""
    catalog = catalog_of(leg.replica, table)
    generated = leg.replica.query(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
        " AND table_name = %s AND generation_expression NOT IN ('', 'ROW START', 'ROW END')",
        (table,),
    )
    stored = [at for at, one in enumerate(catalog.columns) if (one.name,) not in generated]
    key = catalog.primary_key or stored
    told = last_told(leg, start, table, key, len(catalog.columns))
    shown = {str([row[at] for at in key]): row for row in shown_now(leg.replica, catalog)}
    assert told.keys() == shown.keys() if every else told.keys() <= shown.keys()
    for name, row in told.items():
        assert row.keys() >= set(stored)
        spelt = {at for at in row if catalog.columns[at].data_type != "json"}  # or with gaps in it
        assert {at: row[at] for at in spelt} == {at: shown[name][at] for at in spelt}, (table, name)


def last_told(
    leg: Leg, start: ReplicaPosition, table: str, key: Sequence[int], width: int
) -> dict[str, Values]:
    rows: dict[str, Values] = {}
    for change in logged(leg.replica, start, table):
        splitter = RowSplitter.of(change.table)
        cut = splitter.cut(change.event)
        for row in cut.rows:
            before: Values = {}
            if row.before is not None:
                before = splitter.values(row.before, cut.before_columns)
                rows.pop(str([before[at] for at in key]), None)
            if row.after is not None:
                after = splitter.values(row.after, cut.after_columns)
                name = str([(before | after)[at] for at in key])
                rows[name] = {at: value for at, value in after.items() if at < width}
    return rows


def shown_now(database: MySQLDatabase, catalog: CatalogTable) -> list[Values]:
    fields = [field_of(catalog.name, column) for column in catalog.columns]
    every = " FOR SYSTEM_TIME ALL" if catalog.system_versioned else ""
    with closing(raw_connection(database)) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(one.expression for one in fields)} FROM {catalog.name}{every}"
        )
        return [
            {
                at: None if value is None else fields[at].encode(value)
                for at, value in enumerate(row)
            }
            for row in cursor.fetchall()
        ]


def test_the_replica_logs_what_it_shows(leg: Leg, image: str) -> None:
    leg.catch_up()
    start = ReplicaPosition(*leg.replica.binlog_end())
    with logging(leg.source, image, "default_storage_engine = InnoDB") as cursor:
        for table, definition in TABLES.items():
            cursor.execute(f"CREATE TABLE {table} {definition}")
        for change in CHANGES:
            for table in TABLES:
                cursor.execute(change.format(t=table))
    leg.catch_up()
    leg.assert_exact()
    for table in TABLES:
        assert_told(leg, start, table)


PLAIN = "(id int PRIMARY KEY, v int NOT NULL, note text, w int AS (v * 2 + id) VIRTUAL)"


def assert_every_image_true(leg: Leg, start: ReplicaPosition) -> int:
    """Of `PLAIN`: whatever the replica logged of a row is true; how many images that were."""
    images = 0
    for change in logged(leg.replica, start, "t"):
        splitter = RowSplitter.of(change.table)
        cut = splitter.cut(change.event)
        for row in cut.rows:
            if row.after is not None and cut.after_columns >> 3 & 1:
                values = splitter.values(row.after, cut.after_columns)
                key, v, w = (int.from_bytes(values[at] or b"", "little") for at in (0, 1, 3))
                assert w == v * 2 + key
                images += 1
    return images


def test_a_row_that_changes_more_than_once_is_told_each_time(
    leg: Leg, made: Callable[[str], ReplicaPosition], image: str
) -> None:
    start = made(PLAIN)
    with logging(leg.source, image) as cursor:
        cursor.execute("BEGIN")
        again = "ON DUPLICATE KEY UPDATE v = v + VALUES(v), id = id + 1"
        cursor.execute(
            f"INSERT INTO t (id, v) VALUES (1, 1), (1, 2), (2, 3), (3, 4), (4, 5) {again}"
        )
        cursor.execute(f"INSERT INTO t (id, v) VALUES (5, 6), (9, 7), (6, 8), (9, 9) {again}")
        cursor.execute("SAVEPOINT s")
        cursor.execute("UPDATE t SET v = 0")
        cursor.execute("ROLLBACK TO s")
        cursor.execute("SET SESSION binlog_row_image = 'FULL'")
        cursor.execute("UPDATE t SET v = v + 1")
        cursor.execute(f"SET SESSION binlog_row_image = '{image}'")
        cursor.execute("UPDATE t SET v = v + 1, note = REPEAT('x', 9999)")
        cursor.execute("COMMIT")
        cursor.execute("XA START 'a'")
        cursor.execute("UPDATE t SET v = v + 1")
        cursor.execute("XA END 'a'")
        cursor.execute("XA PREPARE 'a'")
        cursor.execute("XA COMMIT 'a'")
    leg.catch_up()
    leg.assert_exact()
    assert assert_every_image_true(leg, start) >= 2
    assert_told(leg, start)


def test_what_is_virtual_is_known_at_each_place_of_the_stream(
    leg: Leg, made: Callable[[str], ReplicaPosition]
) -> None:
    start = made("(id int PRIMARY KEY, v int, n int AS (v + 1) STORED)")
    with logging(leg.source, "MINIMAL") as cursor:
        for number, change in enumerate(
            (
                "ALTER TABLE t ADD w int AS (v * 2) VIRTUAL FIRST",
                "ALTER TABLE t RENAME COLUMN w TO x, ADD id2 int",
                "ALTER TABLE t DROP COLUMN x, ADD y int AS (v * 3) VIRTUAL",
                "ALTER TABLE t DROP COLUMN y, ADD y int AS (v * 4) STORED",
                "ALTER TABLE t ADD z int AS (v + id) VIRTUAL AFTER id",
                "RENAME TABLE t TO u, u TO t",
                "DROP TABLE t",
                "CREATE TABLE t (v int, w int AS (id + 1) VIRTUAL, id int PRIMARY KEY)",
            )
        ):
            cursor.execute(change)
            if not change.startswith("DROP"):
                cursor.execute("INSERT INTO t (id, v) VALUES (%s, 5)", (number,))
                cursor.execute("UPDATE t SET v = v + 1, id = -id - 1 WHERE id = %s", (number,))
                leg.catch_up()
                assert_told(leg, start, every=False)
            start = ReplicaPosition(*leg.replica.binlog_end())
    leg.assert_exact()


@pytest.mark.only_on("mariadb", reason="MySQL's replica works virtual columns out")
@pytest.mark.parametrize("done", [False, True])
def test_a_death_in_between_leaves_nothing_behind(
    leg: Leg,
    made: Callable[[str], ReplicaPosition],
    monkeypatch: pytest.MonkeyPatch,
    newer: bool,
    done: bool,
) -> None:
    start = made(PLAIN)
    with logging(leg.source, "MINIMAL") as cursor:
        cursor.execute("INSERT INTO t (id, v) VALUES (1, 1), (2, 2)")
        cursor.execute("UPDATE t SET v = 5 WHERE id = 2")
    with crashing(monkeypatch, VirtualColumns, "_read", after=1, done=done):
        if not newer:
            with pytest.raises(Crash):
                leg.catch_up()
            assert leg.replica.query("SELECT * FROM t ORDER BY id") == [
                (1, 1, None, 3),
                (2, 2, None, 6),
            ]
            leg.restart()
    leg.catch_up()
    leg.assert_exact()
    assert_every_image_true(leg, start)


def test_whole_images_are_not_looked_into(
    leg: Leg, made: Callable[[str], ReplicaPosition], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = made(PLAIN)
    with crashing(monkeypatch, VirtualColumns, "completed"), logging(leg.source, "FULL") as cursor:
        cursor.execute("INSERT INTO t (id, v) VALUES (1, 1), (2, 2)")
        cursor.execute("UPDATE t SET v = 5 WHERE id = 2")
        cursor.execute("SET SESSION binlog_row_image = 'MINIMAL'")
        if family() == "mariadb":
            cursor.execute("UPDATE t SET note = 'n' WHERE id = 2")
        cursor.execute("DELETE FROM t WHERE id = 1")
        leg.catch_up()
    leg.assert_exact()
    assert_every_image_true(leg, start)


def test_a_row_that_the_replica_lacks_is_a_conflict(
    leg: Leg, made: Callable[[str], ReplicaPosition]
) -> None:
    made(PLAIN)
    with logging(leg.source, "MINIMAL") as cursor:
        cursor.execute("INSERT INTO t (id, v) VALUES (1, 1), (2, 2)")
        leg.catch_up()
        leg.replica.execute("DELETE FROM t WHERE id = 2")
        cursor.execute("UPDATE t SET v = v + 1")
    with pytest.raises(ApplyConflict) as caught:
        leg.catch_up()
    assert caught.value.tables == {"t"}


@pytest.mark.only_on("mysql", reason="MariaDB logs no parts of JSON values")
def test_parts_of_json_values_stay_parts(
    leg: Leg, made: Callable[[str], ReplicaPosition], image: str
) -> None:
    start = made(
        "(id int PRIMARY KEY, a json, v int, doc json, name text AS (doc ->> '$.name') VIRTUAL,"
        " w int AS (v * 2) VIRTUAL, j json AS (JSON_ARRAY(v)) VIRTUAL)"
    )
    document = """'{"name": "somebody of some length", "n": [1, 2, 3], "of": "the rest"}'"""
    with logging(leg.source, image, "binlog_row_value_options = PARTIAL_JSON") as cursor:
        cursor.execute(f"INSERT INTO t (id, v, doc) VALUES (1, 1, {document}), (2, 2, {document})")
        cursor.execute("UPDATE t SET doc = JSON_SET(doc, '$.name', 'another')")
        cursor.execute("UPDATE t SET doc = JSON_REPLACE(doc, '$.of', 'x'), v = v + 1 WHERE id = 2")
        cursor.execute("UPDATE t SET id = 3 WHERE id = 1")
    leg.catch_up()
    leg.assert_exact()
    assert_told(leg, start)

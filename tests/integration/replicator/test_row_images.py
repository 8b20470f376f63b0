"""A source that logs parts of rows: binlog_row_image MINIMAL, NOBLOB, FULL_NODUP.

Which image a change is logged with is its session's choice, and each event says for itself what
it holds; so most tests choose by session, on the server that all tests share.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from replicator.binlog.events import ROWS_EVENTS, UPDATE_EVENTS, read_lenenc
from replicator.binlog.position import ReplicaPosition
from replicator.binlog.stream import BinlogStream
from replicator.binlog.transactions import Commit, Rows, TransactionReader
from replicator.sandbox.accounts import allow_source, create_source_account
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.servers import SOURCE_OPTIONS
from tests.fix_servers import NewMariaDB, family

from .conftest import NewLeg
from .leg import Leg

IMAGES = ("MINIMAL", "NOBLOB")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every image that the source of this run knows beside FULL."""
    if "image" in metafunc.fixturenames:
        newer = metafunc.config.getoption("--servers") == "mariadb-11.8"
        metafunc.parametrize("image", [*IMAGES, *(["FULL_NODUP"] if newer else [])])


@contextmanager
def logging(database: MySQLDatabase, image: str, *settings: str) -> Iterator[Any]:
    """A cursor on the source in a session that logs with this image."""
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        for setting in (f"binlog_row_image = '{image}'", *settings):
            cursor.execute(f"SET SESSION {setting}")
        yield cursor


DEFAULTS = """(
  id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  number INT DEFAULT 7,
  word VARCHAR(20) CHARACTER SET utf8mb4 DEFAULT 'häß',
  moment TIMESTAMP NOT NULL DEFAULT '2020-01-02 03:04:05',
  changed DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  stamped TIMESTAMP NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP,
  drawn VARCHAR(40) DEFAULT (UUID()),
  chance DOUBLE DEFAULT (RAND()),
  twice INT AS (number * 2) VIRTUAL,
  thrice INT AS (number * 3) STORED,
  note TEXT,
  photo LONGBLOB,
  kind ENUM('p', 'q') NOT NULL,
  flags SET('a', 'b', 'c') DEFAULT 'a,c',
  bits BIT(5) DEFAULT b'10110',
  fee DECIMAL(12, 4) DEFAULT -0.5,
  day DATE DEFAULT '0001-01-01',
  must INT NOT NULL
)"""


def test_what_an_insert_leaves_out_has_its_default(leg: Leg, image: str) -> None:
    with logging(leg.source, image, "time_zone = '+05:30'") as cursor:
        cursor.execute(f"CREATE TABLE before_copy {DEFAULTS}")
        cursor.execute("INSERT INTO before_copy () VALUES ()")
    leg.catch_up()
    with logging(leg.source, image, "time_zone = '-03:00'") as cursor:
        cursor.execute(f"CREATE TABLE in_stream {DEFAULTS}")
        for table in ("before_copy", "in_stream"):
            cursor.execute(f"INSERT INTO {table} () VALUES ()")
            cursor.execute(f"INSERT INTO {table} () VALUES (), (), ()")
            cursor.execute(f"INSERT INTO {table} (number, note) VALUES (NULL, 'n'), (3, NULL)")
            cursor.execute(f"INSERT INTO {table} (id, photo) VALUES (90, REPEAT('x', 70000))")
            cursor.execute(f"INSERT INTO {table} (word) VALUES ('w')")
            cursor.execute(f"INSERT INTO {table} (kind, must) VALUES ('q', 5)")
            cursor.execute(
                f"INSERT INTO {table} (id, word) VALUES (90, 'v')"
                " ON DUPLICATE KEY UPDATE word = 'twice', number = number + 1"
            )
            cursor.execute(f"INSERT INTO {table} (number) SELECT number + 1 FROM {table}")
            cursor.execute(f"ALTER TABLE {table} ALTER COLUMN number SET DEFAULT 11")
            cursor.execute(f"ALTER TABLE {table} ADD COLUMN later INT DEFAULT 4")
            cursor.execute(f"INSERT INTO {table} () VALUES ()")
    leg.catch_up()
    leg.assert_exact()


@pytest.fixture
def away(new_mariadb: NewMariaDB) -> MySQLDatabase:
    """A source whose clock on the wall is not UTC's, and which logs parts of rows by itself."""
    options = {"binlog_row_image": "MINIMAL", "default_time_zone": "+05:30"}
    server = new_mariadb({**SOURCE_OPTIONS, **options})
    database = MySQLDatabase(server, "opendental", "readonly_user", "synthetic")
    database.create()
    with closing(server.connect()) as root:
        create_source_account(root, database.user, database.password)
        allow_source(root, database.user, database.name)
    return database


def test_defaults_are_moments_and_not_what_a_clock_shows(
    new_leg: NewLeg, away: MySQLDatabase
) -> None:
    leg = new_leg(source=away)
    away.execute(f"CREATE TABLE before_copy {DEFAULTS}")
    away.execute("INSERT INTO before_copy () VALUES ()")
    leg.catch_up()
    away.execute(f"CREATE TABLE in_stream {DEFAULTS}")
    away.execute("ALTER TABLE before_copy ADD w TIMESTAMP NOT NULL DEFAULT '2021-01-01 00:00:00'")
    for table in ("before_copy", "in_stream"):
        away.execute(f"INSERT INTO {table} () VALUES ()")
        away.execute(f"UPDATE {table} SET number = 3")
    leg.catch_up()
    leg.assert_exact()


def test_a_replace_that_names_every_column_arrives(leg: Leg, image: str) -> None:
    """One that leaves columns out is logged so by MySQL alone: see decision 15."""
    leg.source.execute(
        "CREATE TABLE t (id INT PRIMARY KEY, n INT DEFAULT 7, u INT UNIQUE, note TEXT)"
    )
    leg.catch_up()
    with logging(leg.source, image) as cursor:
        cursor.execute(
            "INSERT INTO t (id, u, note) VALUES (1, 1, 'one'), (2, 2, 'two'), (3, 3, 'x')"
        )
        cursor.execute(
            "REPLACE INTO t (id, n, u, note) VALUES (1, 5, 1, 'put'), (9, NULL, 2, NULL)"
        )
        cursor.execute("REPLACE INTO t (id, n, u, note) VALUES (3, 5, 9, DEFAULT), (4, 6, 3, 'n')")
        if image == "FULL_NODUP" or family() == "mysql":
            cursor.execute("REPLACE INTO t (id) VALUES (1)")
            cursor.execute("REPLACE INTO t (id, u) VALUES (7, 3)")
    leg.catch_up()
    leg.assert_exact()


def test_what_a_trigger_sets_arrives(leg: Leg, image: str) -> None:
    leg.source.execute("CREATE TABLE t (id INT PRIMARY KEY, n INT DEFAULT 1, seen INT, note TEXT)")
    leg.source.execute("CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW SET NEW.seen = NEW.n + 5")
    leg.source.execute(
        "CREATE TRIGGER b BEFORE UPDATE ON t FOR EACH ROW"
        " SET NEW.seen = OLD.seen + 1, NEW.note = CONCAT(IFNULL(OLD.note, ''), NEW.n)"
    )
    leg.catch_up()
    with logging(leg.source, image) as cursor:
        cursor.execute("INSERT INTO t (id) VALUES (1), (2)")
        cursor.execute("UPDATE t SET n = n + id")
        cursor.execute("UPDATE t SET id = id + 1 ORDER BY id DESC")
    leg.catch_up()
    leg.assert_exact()


def test_an_update_brings_what_it_changed_and_leaves_the_rest(leg: Leg, image: str) -> None:
    with logging(leg.source, image) as cursor:
        cursor.execute(f"CREATE TABLE t {DEFAULTS}")
        cursor.execute(
            "INSERT INTO t (note, photo) VALUES ('one', 'p1'), ('two', NULL), (NULL, '')"
        )
    leg.catch_up()
    with logging(leg.source, image) as cursor:
        for change in (
            "number = 1",
            "number = NULL, word = 'w' WHERE id = 2",
            "note = CONCAT(note, photo)",
            "photo = NULL WHERE id = 1",
            "photo = REPEAT('y', 70000), note = '' WHERE id = 3",
            "id = id + 10 ORDER BY id DESC",
            "id = 4, word = 'moved' WHERE id = 11",
            "number = number",
            "moment = moment, changed = changed, number = 5",
            "moment = '2021-05-05 00:00:00' WHERE id = 4",
            "kind = 'q', flags = '', bits = b'1', must = must - 1",
        ):
            cursor.execute(f"UPDATE t SET {change}")
        cursor.execute("DELETE FROM t WHERE id = 12")
    leg.catch_up()
    leg.assert_exact()


KEYS = {
    "none": "(a INT, b VARCHAR(10), c TEXT, d INT DEFAULT 3)",
    "unique": "(a INT NOT NULL, b VARCHAR(10) NOT NULL, c TEXT, d INT DEFAULT 3, UNIQUE (b, a))",
    "nullable": "(a INT NULL, b VARCHAR(10), c TEXT, d INT DEFAULT 3, UNIQUE (a))",
    "two": "(a INT, b VARCHAR(10), c TEXT, d INT DEFAULT 3, PRIMARY KEY (b, a), UNIQUE (a))",
    "prefix": "(a INT, b VARCHAR(10), c TEXT, d INT DEFAULT 3, PRIMARY KEY (c(4)))",
    "float": "(a FLOAT PRIMARY KEY, b VARCHAR(10), c TEXT, d INT DEFAULT 3)",
    "any_case": "(a INT, b VARCHAR(10) CHARACTER SET latin1 PRIMARY KEY, c TEXT, d INT DEFAULT 3)",
}  # fmt: skip


def change_keys(cursor: Any, table: str) -> None:
    """Changes of rows and of their keys that every table of `KEYS` can bear."""
    cursor.execute(
        f"INSERT INTO {table} (a, b, c) VALUES (1, 'x', 'cx'), (2, 'y', 'cy'), (3, 'z', 'cz')"
    )
    cursor.execute(f"UPDATE {table} SET d = 9 WHERE a = 2")
    cursor.execute(f"UPDATE {table} SET b = 'Y', c = 'CY' WHERE a = 2")
    cursor.execute(f"UPDATE {table} SET a = a + 10 ORDER BY a DESC")
    cursor.execute(f"UPDATE {table} SET a = 4, b = 'w', c = 'cw' WHERE a = 13")
    cursor.execute(f"DELETE FROM {table} WHERE a = 11")
    cursor.execute(f"INSERT INTO {table} (a, b, c) VALUES (11, 'x', 'again')")
    cursor.execute(f"UPDATE {table} SET d = NULL")


@pytest.mark.parametrize("engine", ["InnoDB", "MyISAM"])
def test_rows_are_found_by_whatever_key_there_is(leg: Leg, image: str, engine: str) -> None:
    for name, definition in KEYS.items():
        leg.source.execute(f"CREATE TABLE `{name}` {definition} ENGINE={engine}")
    leg.catch_up()
    with logging(leg.source, image) as cursor:
        for name in KEYS:
            change_keys(cursor, f"`{name}`")
    leg.catch_up()
    leg.assert_exact()


def test_the_image_may_change_with_each_transaction(leg: Leg) -> None:
    leg.source.execute("CREATE TABLE t (id INT PRIMARY KEY, n INT DEFAULT 1, note TEXT)")
    leg.catch_up()
    with logging(leg.source, "FULL") as cursor:
        for number in range(60):  # many of them in one batch, behind one table map
            image = ("FULL", *IMAGES)[number % 3]
            cursor.execute(f"SET SESSION binlog_row_image = '{image}'")
            cursor.execute("INSERT INTO t (id, note) VALUES (%s, 'x')", (number,))
            cursor.execute("UPDATE t SET n = n + 1 WHERE id = %s", (number // 2,))
            cursor.execute("UPDATE t SET note = CONCAT(note, n) WHERE id < %s", (number,))
            if number % 7 == 0:
                cursor.execute("DELETE FROM t WHERE id = %s", (number // 3,))
    leg.catch_up()
    leg.assert_exact()


def test_the_replica_logs_whole_rows_for_what_came_in_parts(new_leg: NewLeg, image: str) -> None:
    leg = new_leg()
    leg.source.execute(f"CREATE TABLE t {DEFAULTS}")
    leg.catch_up()
    file, offset = leg.replica.binlog_end()
    with logging(leg.source, image) as cursor:
        cursor.execute("INSERT INTO t () VALUES (), ()")
        cursor.execute("UPDATE t SET number = 5 WHERE id = 1")
        cursor.execute("UPDATE t SET id = 9 WHERE id = 2")
        cursor.execute("DELETE FROM t WHERE id = 9")
    leg.catch_up()
    generated = leg.replica.query(
        "SELECT ordinal_position FROM information_schema.columns WHERE table_schema = DATABASE()"
        " AND table_name = 't' AND generation_expression <> ''"
    )
    worked_out = sum(1 << (place - 1) for (place,) in generated)  # may be left out: decision 23
    kinds = set()
    for rows in logged(leg.replica, ReplicaPosition(file, int(offset)), "t"):
        kinds.add(rows.event[4])
        for bitmap, width in bitmaps(rows.event):
            assert bitmap | worked_out == (1 << width) - 1
    assert len(kinds) == 3


def logged(database: MySQLDatabase, start: ReplicaPosition, table: str) -> Iterator[Rows]:
    """The rows events of one table from a position to where the binlog ends now."""
    file, end = database.binlog_end()
    stream = BinlogStream(
        database.server.connect, server_id=2**31 + 77, heartbeat_seconds=1, name="replica"
    )
    stream.open(start)
    reader, here = TransactionReader(start), start
    try:
        while here < ReplicaPosition(file, int(end)):
            for event in stream.read(1.0):
                change = reader.feed(event)
                if isinstance(change, Rows) and change.table.table == table:
                    if change.table.database == database.name:
                        yield change
                elif isinstance(change, Commit):
                    assert isinstance(change.position, ReplicaPosition)
                    here = change.position
    finally:
        stream.close()


def bitmaps(event: bytes) -> list[tuple[int, int]]:
    """The columns that a rows event says it holds, before and after, and how many there are."""
    assert event[4] in ROWS_EVENTS
    at = 27 + (2 if event[4] >= 30 else 0)
    width, at = read_lenenc(event, at)
    size = (width + 7) // 8
    count = 2 if event[4] in UPDATE_EVENTS else 1
    mask = (1 << width) - 1
    return [
        (int.from_bytes(event[at + n * size : at + (n + 1) * size], "little") & mask, width)
        for n in range(count)
    ]

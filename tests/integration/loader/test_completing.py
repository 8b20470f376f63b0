"""Events that leave out generated columns: made whole, they are what the server had left whole.

INSERTs hold every column on every server. So the oracle is such an event, with its generated
columns cut out of the images as MariaDB leaves them out of UPDATEs and DELETEs from 11.8.9 on.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from config.connections import connect_mysql
from config.settings import Settings
from loader.completing import Completer, Incompletable
from loader.load.reload import raw_bytes_options
from loader.rows import TablePlan, plan_for
from replicator.binlog.events import EventType
from replicator.binlog.position import ReplicaPosition
from replicator.binlog.rowimage import Kind, rows_event
from replicator.binlog.rowsplit import Image, RowSplitter, image_of
from replicator.sandbox.databases import MySQLDatabase
from tests.integration.binlog.logged import Log

pytestmark = pytest.mark.only_on("mariadb", reason="MySQL leaves no column out of a full image")

TABLES = {
    "virtual": "(id int PRIMARY KEY, v text, twice bigint AS (id * 2) VIRTUAL)",
    "stored": "(id int PRIMARY KEY, twice bigint AS (id * 2) STORED, v text)",
    "of every kind": (
        "(id int PRIMARY KEY, v text, d double AS (-0e0 * id) STORED, f float AS (id / 3) STORED,"
        " n decimal(20,5) AS (id / 7) STORED, e enum('a','b') AS (IF(id, 'b', NULL)) STORED,"
        " t datetime(3) AS (MAKEDATE(2024, id)) STORED, b bit(9) AS (id) STORED,"
        " s varchar(30) CHARACTER SET utf16 AS (CONCAT(v, 'ü')) STORED, y year AS (2024) STORED,"
        " h time(2) AS (SEC_TO_TIME(-id)) STORED, x blob AS (UNHEX(MD5(v))) STORED)"
    ),
    "numbered": (
        "(id int AUTO_INCREMENT PRIMARY KEY, v text, w text AS (REVERSE(v)) VIRTUAL INVISIBLE,"
        " KEY (w(9)), UNIQUE KEY (v(20), id))"
    ),
    "without a key": "(id int, v text, twice bigint AS (id * 2) VIRTUAL) ENGINE=Aria",
    "parted": (
        "(id int PRIMARY KEY, v text, twice bigint AS (id * 2) VIRTUAL)"
        " PARTITION BY HASH (id) PARTITIONS 3"
    ),
    "with a hidden hash": "(id int PRIMARY KEY, v text, u text AS (UPPER(v)) STORED, UNIQUE (v))",
    "with a hidden hash alone": "(id int PRIMARY KEY, v text, UNIQUE (v))",
    "versioned": (
        "(id int PRIMARY KEY, v text, twice bigint AS (id * 2) VIRTUAL) WITH SYSTEM VERSIONING"
    ),
    "by a generated key": "(id int, v text, k bigint AS (id + 1) STORED, UNIQUE KEY (k))",
}


@pytest.fixture
def completer(replica_db: MySQLDatabase, settings: Settings) -> Iterator[Completer]:
    server = settings.replication
    made = Completer(
        lambda: (connect_mysql(server, **raw_bytes_options()), connect_mysql(server)),
        replica_db.name,
        format_description=Log(replica_db).own_description(),
    )
    yield made
    made.close()


class Logged:
    """An INSERT's rows, and events that tell of the same rows with columns left out."""

    def __init__(self, database: MySQLDatabase, definition: str, rows: int = 5) -> None:
        database.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
        database.execute(f"CREATE TABLE t {definition}")
        log = Log(database)
        values = ", ".join(f"({n + 3}, REPEAT('ä{n}', {n}))" for n in range(rows))
        database.execute(f"INSERT INTO t (id, v) VALUES {values}")
        ((self.table_map, self.event),) = log.rows()
        assert self.event[4] == EventType.WRITE_ROWS_V1
        self.plan: TablePlan = plan_for(self.table_map)
        self.splitter = RowSplitter.of(self.table_map)
        generated = database.query(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
            " AND table_name = 't' AND generation_expression NOT IN ('', 'ROW START', 'ROW END')"
        )
        shown = [column.name for column in self.plan.schema.columns]
        hidden = range(len(shown), self.splitter.width)
        self.left_out = {shown.index(name) for (name,) in generated} | set(hidden)
        assert self.left_out
        self.images = [image for _, image in self.splitter.split(self.event) if image is not None]

    def lacking(self, kind: Kind, also: frozenset[int] = frozenset()) -> bytes:
        """An event whose images, before and after alike, lack what the server leaves out."""
        width, images = self.splitter.width, []
        for image in self.images:
            values = self.splitter.values(image)
            kept = {at: v for at, v in values.items() if at not in self.left_out | also}
            columns, short = image_of(kept, width)
            images += [short] * (2 if kind is Kind.UPDATE else 1)
        return rows_event(7, width, images, kind=kind, columns=columns, server_id=3, timestamp=9)

    def visible(self, image: Image) -> dict[int, bytes | None]:
        """An image's values without the hidden columns', which nobody reads."""
        shown = len(self.plan.readers)
        return {at: v for at, v in self.splitter.values(image).items() if at < shown}


@pytest.mark.parametrize("definition", TABLES.values(), ids=TABLES.keys())
@pytest.mark.parametrize("kind", [Kind.UPDATE, Kind.DELETE])
def test_what_was_left_out_is_what_the_server_had_written(
    replica_db: MySQLDatabase, completer: Completer, definition: str, kind: Kind
) -> None:
    logged = Logged(replica_db, definition)
    before = replica_db.binlog_end()
    whole = completer.complete(logged.plan, logged.table_map, logged.lacking(kind))
    assert replica_db.binlog_end() == before
    assert whole[4] == kind.value[0]
    assert whole[:4] + whole[5:9] == (9).to_bytes(4, "little") + (3).to_bytes(4, "little")
    wanted = [logged.visible(image) for image in logged.images]
    rows = logged.splitter.split(whole)
    assert [logged.visible(image) for image, _ in rows if image is not None] == wanted
    if kind is Kind.UPDATE:
        assert [logged.visible(image) for _, image in rows if image is not None] == wanted


def test_an_event_that_is_whole_is_left_alone(
    replica_db: MySQLDatabase, completer: Completer
) -> None:
    logged = Logged(replica_db, TABLES["virtual"])
    assert completer.complete(logged.plan, logged.table_map, logged.event) is logged.event


def test_a_stored_column_that_is_left_out_is_none_of_this(
    replica_db: MySQLDatabase, completer: Completer
) -> None:
    logged = Logged(replica_db, TABLES["virtual"])
    lacking = logged.lacking(Kind.DELETE, also=frozenset([1]))
    with pytest.raises(Incompletable):
        completer.complete(logged.plan, logged.table_map, lacking)


def test_only_a_change_before_the_doubles_were_made_is_doubted(
    replica_db: MySQLDatabase, completer: Completer
) -> None:
    logged = Logged(replica_db, TABLES["virtual"])
    first = ReplicaPosition(*replica_db.binlog_end())
    completer.complete(logged.plan, logged.table_map, logged.lacking(Kind.UPDATE))
    replica_db.execute("ALTER TABLE t MODIFY twice bigint AS (id * 3) VIRTUAL")
    second = ReplicaPosition(*replica_db.binlog_end())
    assert completer.doubted(first) == {"t"}
    assert completer.doubted(second) == set()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE t ADD COLUMN more int",
        "ALTER TABLE t MODIFY v mediumtext",
        "ALTER TABLE t RENAME COLUMN v TO w",
        "ALTER TABLE t DROP COLUMN twice, ADD COLUMN twice int AS (id * 2)",
        "RENAME TABLE t TO u",
        "DROP TABLE t",
    ],
)
def test_a_table_that_has_changed_since_cannot_tell(
    replica_db: MySQLDatabase, completer: Completer, change: str
) -> None:
    logged = Logged(replica_db, TABLES["virtual"])
    replica_db.execute(change)
    with pytest.raises(Incompletable):
        completer.complete(logged.plan, logged.table_map, logged.lacking(Kind.UPDATE))


def test_nothing_is_left_behind(replica_db: MySQLDatabase, completer: Completer) -> None:
    logged = Logged(replica_db, TABLES["numbered"], rows=40)
    for _ in range(3):
        completer.complete(logged.plan, logged.table_map, logged.lacking(Kind.UPDATE))
        completer.forget()
    doubles = [name for (name,) in replica_db.query("SHOW TABLES LIKE '%whole%'")]
    assert [replica_db.query(f"SELECT COUNT(*) FROM `{name}`") for name in doubles] == [[(0,)]] * 2
    completer.close()
    assert replica_db.query("SHOW TABLES") == [("t",)]

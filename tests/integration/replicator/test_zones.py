"""A source whose clocks are put forward in spring: what its schema changes do to rows arrives.

The source's machine is in a zone with summer time, or its sessions name one that no other server
knows. The statements are made in winter and in summer, whenever this is run; and rows hold moments
of both, and of the hour of autumn that comes twice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from config.errors import CopyRefused
from replicator.sandbox.accounts import allow_source, create_source_account
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.servers import SOURCE_OPTIONS, BinlogServer
from replicator.source import identify
from tests.fix_servers import NewMariaDB

from .conftest import NewLeg
from .leg import Leg

CHICAGO = "CST6CDT,M3.2.0,M11.1.0"
"""As POSIX spells a zone, so that no files of zones are needed."""
PHOENIX = "MST7"
WINTER, SUMMER = 1_705_320_000, 1_720_958_400  # noon of 15 January and of 14 July 2024, UTC

NewSource = Callable[[str], MySQLDatabase]


@pytest.fixture
def source_in(new_mariadb: NewMariaDB, monkeypatch: pytest.MonkeyPatch) -> NewSource:
    """source_in(zone): a database on a server whose machine is in that zone.

    It logs parts of rows: so what an INSERT leaves out is known by the columns' defaults alone.
    """

    def make(zone: str) -> MySQLDatabase:
        with monkeypatch.context() as patched:
            patched.setenv("TZ", zone)
            server = new_mariadb({**SOURCE_OPTIONS, "binlog_row_image": "MINIMAL"})
        database = MySQLDatabase(server, "opendental", "readonly_user", "synthetic")
        database.create()
        with closing(server.connect()) as root:
            create_source_account(root, database.user, database.password)
            allow_source(root, database.user, database.name)
        return database

    return make


@contextmanager
def session(source: MySQLDatabase, when: int, zone: str = "SYSTEM") -> Iterator[Any]:
    """Someone's session at that moment."""
    with closing(source.connect(ssl_disabled=True)) as connection:
        cursor = connection.cursor()
        cursor.execute("SET time_zone = %s, timestamp = %s", (zone, when))
        yield cursor


TWICE = ["2024-11-03 06:30:00", "2024-11-03 07:30:00"]


def filled(leg: Leg, twice: bool | None = None) -> None:
    """Rows of winter, of summer; and of the hour that comes `twice`, which MySQL loses count of."""
    moments = ["2024-01-15 18:00:00", "2024-07-15 17:00:00", "1996-02-29 05:59:59"]
    mysql = leg.source.server.installation.is_mysql
    moments += TWICE if twice or (twice is None and not mysql) else []
    with closing(leg.source.connect(ssl_disabled=True)) as connection:
        cursor = connection.cursor()
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute(
            "CREATE TABLE visit (id INT PRIMARY KEY AUTO_INCREMENT, clock DATETIME NULL,"
            " moment TIMESTAMP NULL, fine TIMESTAMP(3) NULL)"
        )
        cursor.executemany(
            "INSERT INTO visit (clock, moment, fine) VALUES (%s, %s, %s)",
            [(moment,) * 3 for moment in moments],
        )
    leg.catch_up()


def definitions(database: MySQLDatabase) -> dict[str, str]:
    """What SHOW CREATE TABLE says, with moments in UTC, but for engines and numbers."""
    with closing(database.connect(ssl_disabled=True)) as connection:
        cursor = connection.cursor()
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute("SHOW TABLES")
        names = [name for (name,) in cursor.fetchall() if not name.startswith("etl_")]
        found = {}
        for name in names:
            cursor.execute(f"SHOW CREATE TABLE `{name}`")
            text = cursor.fetchone()[1]
            found[name] = re.sub(r"ENGINE ?= ?\w+|AUTO_INCREMENT=\d+ ", "", text)
    return found


def assert_arrives(leg: Leg) -> None:
    """Rows and definitions are the source's; and so they are behind an INSERT of defaults."""
    leg.catch_up()
    leg.assert_exact()
    assert definitions(leg.replica) == definitions(leg.source)
    for when in (WINTER, SUMMER):
        with session(leg.source, when) as cursor:
            for (table,) in leg.source.query("SHOW TABLES"):
                cursor.execute(f"INSERT INTO `{table}` (id) VALUES (NULL)")
    leg.catch_up()
    leg.assert_exact()


NOW = {
    "the clock's time": "ADD seen DATETIME DEFAULT CURRENT_TIMESTAMP",
    "the moment": "ADD seen TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP",
    "today": "ADD day DATE NOT NULL DEFAULT (CURRENT_DATE)",
    "nothing of it": "ADD seen TIMESTAMP NULL, MODIFY moment TIMESTAMP NULL AFTER id",
}


@pytest.mark.parametrize("when", [WINTER, SUMMER], ids=["winter", "summer"])
def test_what_a_change_takes_from_the_clock_is_its_own_seasons(
    new_leg: NewLeg, source_in: NewSource, when: int
) -> None:
    leg = new_leg(source=source_in(CHICAGO))
    filled(leg)
    for number, change in enumerate(NOW.values()):
        with session(leg.source, when) as cursor:
            cursor.execute(f"CREATE TABLE t{number} LIKE visit")
            cursor.execute(f"INSERT INTO t{number} SELECT * FROM visit")
            cursor.execute(f"ALTER TABLE t{number} {change}")
    assert_arrives(leg)
    assert leg.requests() == []  # not one of them was copied


MOMENTS = {
    "clocks become moments": "ALTER TABLE {} MODIFY clock TIMESTAMP NULL",
    "moments become clocks": "ALTER TABLE {} CHANGE moment seen DATETIME NULL",
    "moments become words": "ALTER TABLE {} MODIFY moment VARCHAR(30)",
    "rounded moments": "ALTER TABLE {} MODIFY fine TIMESTAMP NULL",
    "summer for all rows": "ALTER TABLE {} ADD x TIMESTAMP NOT NULL DEFAULT '2020-07-01 12:00:00'",
    "winter for rows to come": "ALTER TABLE {} ALTER moment SET DEFAULT '2020-12-01 12:00:00'",
    "clocks worked out from moments": "ALTER TABLE {} ADD seen DATETIME DEFAULT (moment)",
    "in half a year": "ALTER TABLE {} ADD x TIMESTAMP DEFAULT (NOW() + INTERVAL 6 MONTH)",
    "another name at once": "ALTER TABLE {0} MODIFY clock TIMESTAMP NULL, RENAME TO {0}_renamed",
    "a new table's defaults": "CREATE TABLE {}_new (id INT PRIMARY KEY AUTO_INCREMENT,"
    " since TIMESTAMP NOT NULL DEFAULT '2020-07-01 12:00:00')",
    "bounds of partitions": "CREATE TABLE {}_new (id INT AUTO_INCREMENT, at TIMESTAMP NOT NULL"
    " DEFAULT CURRENT_TIMESTAMP, KEY (id)) ENGINE=InnoDB PARTITION BY RANGE (UNIX_TIMESTAMP(at))"
    " (PARTITION p0 VALUES LESS THAN (UNIX_TIMESTAMP('2024-07-14 07:30:00')),"
    " PARTITION p1 VALUES LESS THAN MAXVALUE)",
}


@pytest.mark.parametrize("when", [WINTER, SUMMER], ids=["winter", "summer"])
def test_what_depends_on_other_moments_is_copied(
    new_leg: NewLeg, source_in: NewSource, when: int
) -> None:
    leg = new_leg(source=source_in(CHICAGO))
    filled(leg)
    for number, statement in enumerate(MOMENTS.values()):
        with session(leg.source, when) as cursor:
            cursor.execute(f"CREATE TABLE t{number} LIKE visit")
            cursor.execute(f"INSERT INTO t{number} SELECT * FROM visit")
            cursor.execute(statement.format(f"t{number}"))
    assert_arrives(leg)
    assert [state for _table, state in leg.requests()] == ["loading"] * len(MOMENTS)


def test_a_zone_without_summer_costs_no_copy(new_leg: NewLeg, source_in: NewSource) -> None:
    leg = new_leg(source=source_in(PHOENIX))
    filled(leg)
    leg.restart()  # the zone is as it was, and still known for the time before
    with session(leg.source, SUMMER) as cursor:
        for statement in (
            "ALTER TABLE visit MODIFY clock TIMESTAMP NULL, CHANGE moment seen DATETIME NULL",
            "ALTER TABLE visit ADD since TIMESTAMP NOT NULL DEFAULT '2020-07-01 12:00:00'",
            "CREATE TABLE stay (id INT PRIMARY KEY AUTO_INCREMENT,"
            " since TIMESTAMP NOT NULL DEFAULT '2020-12-01 12:00:00')",
        ):
            cursor.execute(statement)
    assert_arrives(leg)
    assert leg.requests() == []


@pytest.mark.only_on("mariadb", reason="MySQL has no versions of rows")
@pytest.mark.parametrize("zone", [CHICAGO, PHOENIX])
def test_versions_that_are_parted_by_the_clock_are_refused_where_clocks_are_put_forward(
    new_leg: NewLeg, source_in: NewSource, zone: str
) -> None:
    leg = new_leg(source=source_in(zone))
    leg.catch_up()
    with session(leg.source, WINTER) as cursor:
        cursor.execute(
            "CREATE TABLE visit (id INT PRIMARY KEY AUTO_INCREMENT) WITH SYSTEM VERSIONING"
            " PARTITION BY SYSTEM_TIME INTERVAL 1 DAY STARTS '2020-07-01 00:00:00'"
            " (PARTITION p0 HISTORY, PARTITION pn CURRENT)"
        )
        cursor.execute("INSERT INTO visit VALUES (1)")
    if zone == PHOENIX:
        assert_arrives(leg)
    else:
        leg.step_until(lambda: leg.requests() == [("visit", "failed")], "a copy is refused")


@pytest.mark.only_on("mysql", reason="MariaDB copies moments, and not what a clock shows")
@pytest.mark.parametrize("engine", ["InnoDB", "MyISAM"])
def test_an_hour_that_came_twice_is_copied_where_mysql_makes_the_table_anew(
    new_leg: NewLeg, source_in: NewSource, engine: str
) -> None:
    leg = new_leg(source=source_in(CHICAGO))
    filled(leg, twice=True)
    leg.source.execute(f"ALTER TABLE visit ENGINE={engine}")
    assert_arrives(leg)
    with session(leg.source, SUMMER) as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute("UPDATE visit SET moment = '2024-11-03 07:30:00' WHERE id = 4")
        cursor.execute("SET time_zone = 'SYSTEM'")
        cursor.execute("ALTER TABLE visit ADD n INT FIRST, ALGORITHM=COPY")
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute("UPDATE visit SET moment = '2024-11-03 07:30:00' WHERE id = 4")
        cursor.execute("SET time_zone = 'SYSTEM'")
        cursor.execute("CREATE INDEX by_moment ON visit (moment) ALGORITHM=COPY")
    assert_arrives(leg)
    assert leg.source.query("SELECT COUNT(DISTINCT moment) FROM visit WHERE id IN (4, 5)") == [(1,)]
    assert {state for _table, state in leg.requests()} == {"loading"}


STORED = "day DATE AS (DATE(moment)) STORED"


@pytest.mark.only_on("mysql", reason="MariaDB takes the source's values")
def test_a_column_that_mysql_would_generate_otherwise_is_refused_by_name(
    new_leg: NewLeg, source_in: NewSource
) -> None:
    leg = new_leg(source=source_in(PHOENIX))
    filled(leg)
    with session(leg.source, WINTER) as cursor:
        cursor.execute(f"ALTER TABLE visit ADD {STORED}")
        cursor.execute("CREATE TABLE stay (id INT PRIMARY KEY, n INT AS (id + 1) STORED)")
        cursor.execute("INSERT INTO stay (id) VALUES (1)")
    goal = leg.source_position()
    leg.step_until(lambda: leg.requests("failed") and leg.position() >= goal)
    ((message,),) = leg.replica.query("SELECT message FROM etl_resync_request")
    assert "column visit.day is generated in the session's time zone" in message
    assert leg.replica.query("SELECT id, n FROM stay") == [(1, 2)]  # the others go on
    leg.source.execute("ALTER TABLE visit DROP day, ADD day DATE AS (DATE(moment)) VIRTUAL")
    leg.resync("visit")
    leg.catch_up()
    leg.assert_exact()


def test_a_column_that_is_stored_by_the_clock_is_the_sources_or_is_refused_by_name(
    new_leg: NewLeg, source_in: NewSource
) -> None:
    leg = new_leg(source=source_in(PHOENIX))
    leg.source.execute(f"CREATE TABLE stay (id INT PRIMARY KEY, moment TIMESTAMP, {STORED})")
    leg.source.execute("INSERT INTO stay (id, moment) VALUES (1, '2024-01-15 20:00:00')")
    with closing(leg.source.connect()) as connection:
        server = identify(connection)
    if not server.mariadb or server.number >= 110_000:  # they generate it anew
        with pytest.raises(CopyRefused, match=r"column stay\.day is generated"):
            leg.catch_up()
        return
    filled(leg)
    leg.source.execute("INSERT INTO stay (id, moment) VALUES (2, '2024-01-15 20:00:00')")
    with session(leg.source, WINTER) as cursor:
        cursor.execute(f"ALTER TABLE visit ADD {STORED}")
        cursor.execute("INSERT INTO visit (moment) VALUES ('2024-01-15 20:00:00')")
    leg.catch_up()
    leg.assert_exact()


# --- zones that only the source knows ----------------------------------------------------


def teach(server: BinlogServer, name: str, offsets: dict[int, int]) -> None:
    """Put a zone into the server's tables: its offsets in seconds, from these moments on."""
    with closing(server.connect()) as root:
        cursor = root.cursor()
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute("SELECT COALESCE(MAX(Time_zone_id), 0) + 1 FROM mysql.time_zone_name")
        number = cursor.fetchone()[0]
        cursor.execute("INSERT INTO mysql.time_zone VALUES (%s, 'N')", (number,))
        cursor.execute("INSERT INTO mysql.time_zone_name VALUES (%s, %s)", (name, number))
        kinds = sorted(set(offsets.values()))
        for kind, offset in enumerate(kinds):
            cursor.execute(
                "INSERT INTO mysql.time_zone_transition_type VALUES (%s, %s, %s, %s, %s)",
                (number, kind, offset, int(kind > 0), f"P{kind}"),
            )
        cursor.executemany(
            "INSERT INTO mysql.time_zone_transition VALUES (%s, %s, %s)",
            [(number, moment, kinds.index(offset)) for moment, offset in offsets.items()],
        )


def seasons() -> dict[int, int]:
    """From 1990 to 2030: an hour forward in spring, and back in autumn."""

    def sunday(year: int, month: int, which: int, hour: int) -> int:
        first = datetime(year, month, 1, hour, tzinfo=UTC)
        return int((first + timedelta(days=(6 - first.weekday()) % 7 + 7 * which)).timestamp())

    offsets = {0: -21_600}
    for year in range(1990, 2030):
        offsets[sunday(year, 3, 1, 8)] = -18_000
        offsets[sunday(year, 11, 0, 7)] = -21_600
    return offsets


def test_a_zone_that_the_replica_does_not_know_is_told_by_the_source(
    new_leg: NewLeg, source_in: NewSource
) -> None:
    source = source_in(PHOENIX)
    teach(source.server, "Practice/Summer", seasons())
    teach(source.server, "Practice/Same", {0: 20_700})
    leg = new_leg(source=source)
    filled(leg)
    for when in (WINTER, SUMMER):
        with session(source, when, "Practice/Summer") as cursor:
            cursor.execute(f"ALTER TABLE visit ADD at{when} DATETIME DEFAULT CURRENT_TIMESTAMP")
    with session(source, SUMMER, "Practice/Same") as cursor:
        cursor.execute("ALTER TABLE visit ADD since TIMESTAMP NOT NULL DEFAULT '2020-07-01'")
    assert_arrives(leg)
    assert leg.requests() == []
    with session(source, WINTER, "Practice/Summer") as cursor:
        cursor.execute("ALTER TABLE visit MODIFY clock TIMESTAMP NULL")
    assert_arrives(leg)
    assert leg.requests() == [("visit", "loading")]


def test_a_source_that_was_started_again_in_another_zone_is_not_asked_of_the_old_one(
    new_leg: NewLeg, source_in: NewSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was changed before that is copied; what is changed from there on is executed."""
    leg = new_leg(source=source_in(CHICAGO))
    filled(leg)
    leg.source.execute("CREATE TABLE other LIKE visit")
    leg.source.execute("INSERT INTO other SELECT * FROM visit")
    leg.catch_up()
    leg.close()
    leg.source.execute("ALTER TABLE visit ADD seen DATETIME DEFAULT CURRENT_TIMESTAMP")
    leg.source.close()
    leg.source.server.stop()
    monkeypatch.setenv("TZ", PHOENIX)
    leg.source.server.start()
    leg.restart()
    leg.catch_up()
    leg.assert_exact()
    assert [table for table, _state in leg.requests()] == ["visit"]
    with session(leg.source, int(time.time()) + 60) as cursor:
        cursor.execute("ALTER TABLE other ADD seen DATETIME DEFAULT CURRENT_TIMESTAMP")
    leg.restart()
    leg.catch_up()
    leg.assert_exact()
    assert [table for table, _state in leg.requests()] == ["visit"]

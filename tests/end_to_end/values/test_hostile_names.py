"""Names that were chosen to break quoting, of databases, tables and columns, through everything:
copy, stream, ALTER, RENAME, resync, verify, quarantine and its replay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from psycopg import sql

from config.connections import quote_mysql_identifier as quote
from loader.types import raw_name
from replicator.sandbox.accounts import allow_replica, allow_source
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.sandbox.postgres import PostgreSQLServer
from replicator.sandbox.servers import BinlogServer
from tests.end_to_end.values.legs import Legs
from tests.fix_servers import ANALYTICS_USER, PASSWORD, REPLICA_USER, SOURCE_USER

SPITE = '`q\' "d" \\ %s %(x)s ? :a $$ ;-- /*☃*/'
TABLES = (
    SPITE, "'; DROP TABLE patient; --", "`", '"', "\\", "%", "?", "$$", "a\x01\x1f\x7fb",
    "x" * 64, "☃" * 40, "SELECT * FROM t", "raw", "public", "{0}", "a.b",
)  # fmt: skip
COLUMNS = ("id", SPITE, "`", '"', "%", "\\'", "?", ":a", "$1", "\x02", "☃" * 64, "NULL", "a,b")


@pytest.fixture
def hostile(
    source_server: BinlogServer, replica_server: BinlogServer, analytics_server: PostgreSQLServer
) -> Iterator[Legs]:
    source = MySQLDatabase(source_server, f"od {SPITE}", SOURCE_USER, PASSWORD)
    replica = MySQLDatabase(replica_server, f"re {SPITE}", REPLICA_USER, PASSWORD)
    raw = PostgresDatabase(analytics_server, f"an {SPITE}"[:60], ANALYTICS_USER, PASSWORD)
    for database in (source, replica, raw):
        database.create()
    with closing(source_server.connect()) as root:
        allow_source(root, SOURCE_USER, source.name)
    with closing(replica_server.connect()) as root:
        allow_replica(root, REPLICA_USER, replica.name)
    legs = Legs(source, replica, raw)
    yield legs
    legs.close()
    for database in (source, replica, raw):
        database.drop()


def run(legs: Legs, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A verb of the command line."""
    environ = {k: v for k, v in os.environ.items() if "_ANALYTICS_" not in k}
    for prefix, database in (
        ("OPENDENTAL_SOURCE", legs.source),
        ("MYSQL_REPLICATION", legs.replica),
        ("POSTGRES_ANALYTICS", legs.raw),
    ):
        environ |= {
            f"{prefix}_HOST": "127.0.0.1",
            f"{prefix}_PORT": str(database.server.port),
            f"{prefix}_DB": database.name,
            f"{prefix}_USER": database.user,
            f"{prefix}_PASSWORD": PASSWORD,
        }
    return subprocess.run(
        [sys.executable, "-m", "replicator.cli", *arguments],
        env=environ, cwd=directory, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def rows(legs: Legs, table: str) -> tuple[list[object], list[object]]:
    """What the source and `raw` hold, in one order."""
    named = legs.source.query(f"SHOW COLUMNS FROM {quote(table)}")
    columns = [str(row[0]) for row in named]
    there = legs.source.query(f"SELECT {', '.join(map(quote, columns))} FROM {quote(table)}")
    asked = sql.SQL("SELECT {} FROM raw.{}").format(
        sql.SQL(", ").join(sql.Identifier(raw_name(column)) for column in columns),
        sql.Identifier(raw_name(table)),
    )
    with legs.raw.server.connect(database=legs.raw.name) as connection:
        here = connection.execute(asked).fetchall()
    return sorted(map(tuple, there), key=repr), sorted(map(tuple, here), key=repr)


def assert_same(legs: Legs, *tables: str) -> None:
    for table in tables:
        there, here = rows(legs, table)
        assert there == here, table
        assert there, table


def test_names_that_break_quoting_break_nothing(hostile: Legs, tmp_path: Path) -> None:
    source = hostile.source
    shape = ", ".join(f"{quote(name)} VARCHAR(30)" for name in COLUMNS[1:])
    for table in TABLES:
        source.execute(f"CREATE TABLE {quote(table)} (id INT PRIMARY KEY, {shape}) ENGINE=InnoDB")
        source.execute(f"INSERT INTO {quote(table)} (id, {quote(SPITE)}) VALUES (1, 'a'), (2, 'b')")
    hostile.catch_up()
    assert_same(hostile, *TABLES)
    for table in TABLES:
        source.execute(f"UPDATE {quote(table)} SET {quote(SPITE)} = 'c' WHERE id = 1")
        source.execute(f"ALTER TABLE {quote(table)} ADD COLUMN {quote(SPITE + '2')} INT DEFAULT 3")
        source.execute(f"ALTER TABLE {quote(table)} DROP COLUMN {quote('`')}")
        source.execute(f"INSERT INTO {quote(table)} (id) VALUES (3)")
    source.execute(f"RENAME TABLE {quote(TABLES[1])} TO {quote(TABLES[1] + SPITE[:20])}")
    renamed = (TABLES[0], TABLES[1] + SPITE[:20], *TABLES[2:])
    hostile.catch_up()
    assert_same(hostile, *renamed)
    hostile.resync(renamed[:4])
    assert_same(hostile, *renamed)
    found = run(hostile, tmp_path, "verify")
    assert found.returncode == 0, found.stdout + found.stderr


def test_rows_of_tables_with_such_names_go_to_the_quarantine_and_come_back(
    hostile: Legs, tmp_path: Path
) -> None:
    table, column = SPITE, SPITE + "2"
    hostile.source.execute(
        f"CREATE TABLE {quote(table)} ({quote(column)} INT PRIMARY KEY, v INT) ENGINE=InnoDB"
    )
    hostile.source.execute(f"INSERT INTO {quote(table)} VALUES (1, 1)")
    hostile.catch_up()
    target = sql.Identifier("raw", raw_name(table))
    with hostile.raw.server.connect(database=hostile.raw.name, autocommit=True) as root:
        root.execute(sql.SQL("ALTER TABLE {} ADD CONSTRAINT c CHECK (v < 5)").format(target))
    hostile.source.execute(f"INSERT INTO {quote(table)} VALUES (2, 2), (3, 7)")
    hostile.catch_up()
    listed = run(hostile, tmp_path, "quarantine", "list", "--json")
    assert table in json.dumps(json.loads(listed.stdout), ensure_ascii=False).replace(
        "\\\\", "\\"
    ).replace('\\"', '"'), listed.stdout + listed.stderr
    with hostile.raw.server.connect(database=hostile.raw.name, autocommit=True) as root:
        root.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT c").format(target))
    replayed = run(hostile, tmp_path, "quarantine", "replay", table)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    hostile.source.execute(f"INSERT INTO {quote(table)} VALUES (4, 4)")
    hostile.catch_up()
    hostile.source.execute("FLUSH BINARY LOGS")
    hostile.catch_up()
    assert_same(hostile, table)

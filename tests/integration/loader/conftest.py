"""A replica, a PostgreSQL and a stand-in for leg 1, for tests of the loader.

`Replica` writes to the replica as leg 1 does: rows in a transaction, the offset row
last. `Harness` steps a real `Loader` until `raw` has reached the last of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from config.settings import (
    LoaderTuning,
    MySQLServer,
    PostgresServer,
    ReplicatorTuning,
    Settings,
)
from loader.daemon import Loader
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.sandbox.processes import free_port

TRACKING = (
    """CREATE TABLE etl_binlog_offset (
      stream varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
      binlog_file varchar(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
      binlog_position bigint unsigned NOT NULL,
      source_server_id bigint unsigned NOT NULL,
      source_server_uuid varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
      gtid_set longtext CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
      event_timestamp datetime(6) NULL,
      pending_ddl longtext CHARACTER SET utf8mb4 NULL,
      updated_at datetime(6) NOT NULL,
      PRIMARY KEY (stream, binlog_file, binlog_position)) ENGINE=InnoDB""",
    """CREATE TABLE etl_extract_status (
      table_name varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
      last_extracted datetime(6) NULL, rows_extracted bigint unsigned NOT NULL DEFAULT 0,
      extraction_status varchar(32) CHARACTER SET ascii NOT NULL,
      schema_hash char(64) CHARACTER SET ascii NULL) ENGINE=InnoDB""",
    """CREATE TABLE etl_resync_request (
      id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
      table_name varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
      requested_at datetime(6) NOT NULL, state varchar(16) CHARACTER SET ascii NOT NULL,
      rows_total bigint unsigned NOT NULL DEFAULT 0, rows_copied bigint unsigned NOT NULL DEFAULT 0,
      message text CHARACTER SET utf8mb4 NULL, updated_at datetime(6) NOT NULL) ENGINE=InnoDB""",
)
SOURCE_FILE = "source-bin.000001"
Start = Callable[..., "subprocess.Popen[str]"]


class Replica:
    """The replica as leg 1 leaves it: every transaction ends with the offset row."""

    def __init__(self, database: MySQLDatabase) -> None:
        self.database = database
        self.position = 100
        for statement in TRACKING:
            database.execute(statement)
        database.execute(
            "INSERT INTO etl_binlog_offset VALUES"
            " ('main', %s, 100, 1, '', '', UTC_TIMESTAMP(6), NULL, UTC_TIMESTAMP(6))",
            (SOURCE_FILE,),
        )

    def commit(self, *statements: str | tuple[str, Any]) -> int:
        """Run row changes and the offset's in one transaction; return the source position."""
        with closing(self.database.connect(autocommit=False)) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SET time_zone = '+00:00', sql_mode = ''")
                for statement in statements:
                    parts = (statement, None) if isinstance(statement, str) else statement
                    cursor.execute(*parts)
                self.move(cursor)
            connection.commit()
        return self.position

    def move(self, cursor: Any) -> None:
        self.position += 10
        cursor.execute(
            "UPDATE etl_binlog_offset SET binlog_position = %s, event_timestamp = %s,"
            " updated_at = UTC_TIMESTAMP(6) WHERE stream = 'main'",
            (self.position, datetime.now(UTC).replace(tzinfo=None)),
        )

    def ddl(self, statement: str) -> None:
        """A schema change, then its offset in a transaction of its own."""
        with closing(self.database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SET sql_mode = ''")
            cursor.execute(statement)
        self.commit()

    def streams(self, *tables: str) -> None:
        """Leg 1 has copied these tables."""
        self.commit(
            *(
                (
                    "REPLACE INTO etl_extract_status (table_name, extraction_status)"
                    " VALUES (%s, 'streaming')",
                    (table,),
                )
                for table in tables
            )
        )

    def create(self, table: str, columns: str) -> None:
        """A table that leg 1 streams."""
        self.ddl(f"CREATE TABLE `{table}` ({columns}) ENGINE=InnoDB")
        self.streams(table)


class Harness:
    """A loader between the two, stepped by the test."""

    def __init__(self, settings: Settings, replica: Replica, raw: PostgresDatabase) -> None:
        self.settings = settings
        self.replica = replica
        self.raw = raw
        self.loader = Loader(settings)

    def restart(self) -> None:
        """Throw the loader away as a kill would, without asking it, and begin a new one."""
        self.loader.close()
        self.loader = Loader(self.settings)

    def step_until(self, reached: Callable[[], bool], deadline: float = 20.0) -> None:
        """Step until `reached`; fail when it takes too long."""
        end = time.monotonic() + deadline
        while not reached():
            assert time.monotonic() < end, f"not reached in time; tables: {self.states()}"
            self.loader.step()

    def catch_up(self) -> None:
        """Step until `raw` shows the replica's last position and no table is being loaded."""
        self.step_until(self._caught_up)

    def catch_up_to_position(self) -> None:
        """Step until `raw` shows the replica's last position, whatever is being loaded."""
        self.step_until(self._arrived)

    def _arrived(self) -> bool:
        found = self.raw.query("SELECT source_binlog_position FROM raw.etl_binlog_offset")
        return bool(found) and found[0][0] == self.replica.position

    def _caught_up(self) -> bool:
        try:
            found = self.raw.query("SELECT source_binlog_position FROM raw.etl_binlog_offset")
        except psycopg.errors.UndefinedTable:
            return False
        loading = {"loading", "reloading", "standing"} & set(self.states().values())
        return bool(found) and found[0][0] == self.replica.position and not loading

    def states(self) -> dict[str, str]:
        """Each table's state as PostgreSQL has it."""
        try:
            return dict(
                self.raw.query(
                    "SELECT table_name, transformation_status FROM raw.etl_transform_status"
                )
            )
        except psycopg.errors.UndefinedTable:
            return {}

    def close(self) -> None:
        self.loader.close()

    def assert_same(self, *tables: str) -> None:
        """`raw` holds what the replica's own SELECT says."""
        for table in tables:
            assert self.raw_rows(table) == self.replica_rows(table), table

    def replica_rows(self, table: str) -> list[tuple[Any, ...]]:
        columns = self.replica.database.query(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = %s"
            " AND table_name = %s ORDER BY column_name",
            (self.replica.database.name, table),
        )
        with (
            closing(self.replica.database.connect()) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute(f"SELECT {', '.join(_mysql(n, t) for n, t in columns)} FROM `{table}`")
            return _sorted(cursor.fetchall())

    def raw_rows(self, table: str) -> list[tuple[Any, ...]]:
        columns = self.raw.query(
            "SELECT attname, atttypid::regtype::text FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attname NOT IN ('_loaded_at', '_source_ts') ORDER BY attname COLLATE \"C\"",
            (f'raw."{table}"',),
        )
        columns.sort(key=lambda column: column[0].lower())
        names = ", ".join(_postgres(n, t) for n, t in columns)
        return _sorted(self.raw.query(f'SELECT {names} FROM raw."{table}"'))


def _mysql(name: str, kind: str) -> str:
    if kind == "float":
        return f"CAST(`{name}` AS DOUBLE)"
    if kind == "bit":
        return f"TRIM(LEADING '0' FROM BIN(`{name}` + 0))"
    return f"`{name}`"


def _postgres(name: str, kind: str) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    if kind == "real":
        return f"{quoted}::float8"
    if kind == "bit":
        return f"ltrim({quoted}::text, '0')"
    if kind == "timestamp with time zone":
        return f"{quoted} AT TIME ZONE 'UTC'"
    if kind == "jsonb":  # both order keys and put spaces alike
        return f"{quoted}::text"
    return quoted


def _sorted(rows: Any) -> list[tuple[Any, ...]]:
    return sorted((tuple(row) for row in rows), key=repr)


@pytest.fixture
def replica(replica_db: MySQLDatabase) -> Replica:
    return Replica(replica_db)


@pytest.fixture
def settings(replica_db: MySQLDatabase, analytics_db: PostgresDatabase) -> Settings:
    return Settings(
        source=MySQLServer(role="source", host="127.0.0.1", port=1, db="x", user="x"),
        replication=MySQLServer(
            role="replica",
            host="127.0.0.1",
            port=replica_db.server.port,
            db=replica_db.name,
            user=replica_db.user,
            password=SecretStr(replica_db.password),
        ),
        analytics=PostgresServer(
            host="127.0.0.1",
            port=analytics_db.server.port,
            db=analytics_db.name,
            user=analytics_db.user,
            password=SecretStr(analytics_db.password),
        ),
        replicator=ReplicatorTuning(server_id=2**31 + 10),
        loader=LoaderTuning(server_id=2**31 + 11, heartbeat_seconds=1.0, poll_seconds=0.05),
        log_format="console",
    )


@pytest.fixture
def harness(
    settings: Settings, replica: Replica, analytics_db: PostgresDatabase
) -> Iterator[Harness]:
    harness = Harness(settings, replica, analytics_db)
    yield harness
    harness.close()


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """What a loader that is a process of its own is told."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPENDENTAL_", "MYSQL_", "POSTGRES_", "LOADER_", "REPLICATOR_"))
    }
    variables |= {"OPENDENTAL_SOURCE_HOST": "127.0.0.2", "OPENDENTAL_SOURCE_PASSWORD": "unused"}
    variables |= {"OPENDENTAL_SOURCE_USER": "unused", "LOADER_METRICS_PORT": "0"}
    for prefix, server in (
        ("MYSQL_REPLICATION", settings.replication),
        ("POSTGRES_ANALYTICS", settings.analytics),
    ):
        variables |= {
            f"{prefix}_HOST": server.host,
            f"{prefix}_PORT": str(server.port),
            f"{prefix}_DB": server.db,
            f"{prefix}_USER": server.user,
            f"{prefix}_PASSWORD": server.password.get_secret_value(),
        }
    return variables


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Starts loaders as processes, and ends what is left of them."""
    running: list[subprocess.Popen[str]] = []

    def begin(**overrides: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "loader.cli", "run", "--env-file", "/dev/null"],
            env=environment | {"LOADER_METRICS_PORT": str(free_port())} | overrides,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()

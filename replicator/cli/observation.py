"""Look at a running pipeline from outside: three servers in, positions and signs of life out.

An `Observer` connects to each server when it is first asked for and changes
nothing on any. What is not there yet (a database, a tracking table) is None, not
an error; a server that cannot be reached raises.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Self

from config.connections import (
    PostgresConnection,
    connect_mysql,
    connect_postgres,
    connect_source,
)
from config.control import Asked, read_asked
from config.errors import translated
from config.settings import Settings
from loader import tracking as raw_tracking
from replicator import source as src
from replicator import tracking
from replicator.binlog.position import ReplicaPosition, SourcePosition
from replicator.tracking import fetch


class Observer:
    """One observer's connections; close it, or use it as a context manager."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._source: Any = None
        self._replica: Any = None
        self._analytics: PostgresConnection | None = None
        self._identities: dict[str, src.Identity] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened."""
        for connection in (self._source, self._replica, self._analytics):
            if connection is not None:
                with suppress(Exception):
                    connection.close()
        self._source = self._replica = self._analytics = None

    # --- connections ---------------------------------------------------------------------

    @property
    def source(self) -> Any:
        """A read-only connection to the source's database."""
        if self._source is None:
            self._source = connect_source(self.settings)
        return self._source

    @property
    def replica(self) -> Any:
        """A connection to the replica's server, in the replica's database once that exists."""
        server = self.settings.replication
        if self._replica is None:
            self._replica = connect_mysql(server)
        if self._replica.db is None:
            with translated(server.label):
                if fetch(self._replica, "SHOW DATABASES LIKE %s", [_escaped(server.db)]):
                    self._replica.select_db(server.db)
                    self._replica.db = server.db
        return self._replica

    @property
    def analytics(self) -> PostgresConnection:
        """An autocommit connection to the analytics database, in the raw schema."""
        if self._analytics is None:
            self._analytics = connect_postgres(
                self.settings.analytics, autocommit=True, application_name="replicator observer"
            )
        return self._analytics

    # --- leg 1 ---------------------------------------------------------------------------

    def source_time(self) -> datetime:
        """What time the source's clock shows, in UTC, to the second as every version tells it."""
        with translated(self.settings.source.label):
            (now,) = fetch(self.source, "SELECT UTC_TIMESTAMP()")[0]
        return now.replace(tzinfo=UTC)  # type: ignore[no-any-return]

    def source_position(self) -> SourcePosition:
        """The end of the source's binlog now."""
        with translated(self.settings.source.label):
            return src.current_position(self.source, self._identity("source", self.source))

    def source_files(self) -> list[tuple[str, int]]:
        """The source's binlog files and their sizes in bytes."""
        with translated(self.settings.source.label):
            return binlog_files(self.source)

    def replica_offset(self) -> tracking.Offset | None:
        """Up to where the replica shows the source; None before leg 1 ever ran."""
        if not self.has_tracking():
            return None
        with translated(self.settings.replication.label):
            return tracking.read_offset(self.replica, tracking.MAIN)

    def has_tracking(self) -> bool:
        """Has leg 1 made its tracking tables?"""
        connection = self.replica
        if connection.db is None:
            return False
        with translated(self.settings.replication.label):
            found = fetch(connection, "SHOW TABLES LIKE 'etl\\_resync\\_request'")
        return bool(found)

    def asked(self) -> Asked:
        """What operators asked of the daemons: to pause, and how fast copies may read."""
        connection = self.replica
        with translated(self.settings.replication.label):
            return read_asked(connection, self.settings.replication.db)

    def replicator_runs(self) -> bool:
        """Does a process hold leg 1's lock?"""
        name = f"opendental-replicator/main/{self.settings.replication.db}"[:64]
        connection = self.replica
        with translated(self.settings.replication.label):
            return fetch(connection, "SELECT IS_USED_LOCK(%s)", [name])[0][0] is not None

    # --- leg 2 ---------------------------------------------------------------------------

    def replica_position(self) -> ReplicaPosition:
        """The end of the replica's binlog now."""
        with translated(self.settings.replication.label):
            identity = self._identity("replica", self.replica)
            end = src.current_position(self.replica, identity)
        return ReplicaPosition(end.file, end.offset)

    def replica_files(self) -> list[tuple[str, int]]:
        """The replica's binlog files and their sizes in bytes."""
        with translated(self.settings.replication.label):
            return binlog_files(self.replica)

    def raw_offset(self) -> raw_tracking.Offset | None:
        """Up to where `raw` shows the replica and the source; None before leg 2 ever ran."""
        connection = self.analytics
        with translated(self.settings.analytics.label):
            if not has_table(connection, "etl_binlog_offset"):
                return None
            return raw_tracking.read_offset(connection)

    def unsettled(self) -> list[str]:
        """Tables that a copy is under way of, or still to come, on either leg."""
        copied = tracking.TableState
        states = (copied.COPYING, copied.RECONCILING, copied.QUEUED)
        with translated(self.settings.replication.label):
            rows = fetch(
                self.replica,
                "SELECT table_name FROM etl_extract_status WHERE extraction_status IN (%s, %s, %s)",
                states,
            )
        with translated(self.settings.analytics.label):
            rows += self.analytics.execute(
                "SELECT table_name FROM etl_transform_status WHERE transformation_status = ANY(%s)",
                [[raw_tracking.LOADING, raw_tracking.RELOADING]],
            ).fetchall()
        return sorted({name for (name,) in rows})

    def loader_runs(self) -> bool:
        """Does a process hold leg 2's lock?"""
        server = self.settings.analytics
        key = raw_tracking.writer_lock_key(server.db, server.schema_name) % (1 << 64)
        high, low = divmod(key, 1 << 32)  # pg_locks shows it as two halves
        connection = self.analytics
        with translated(server.label):
            found = connection.execute(
                "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted"
                " AND classid = %s::bigint::oid AND objid = %s::bigint::oid AND database ="
                " (SELECT oid FROM pg_database WHERE datname = current_database())",
                [high, low],
            )
            return found.fetchone() is not None

    def _identity(self, role: str, connection: Any) -> src.Identity:
        if role not in self._identities:
            self._identities[role] = src.identify(connection)
        return self._identities[role]


def binlog_files(connection: Any) -> list[tuple[str, int]]:
    """A server's binlog files, oldest first, and their sizes in bytes."""
    return [(str(row[0]), int(row[1])) for row in fetch(connection, "SHOW BINARY LOGS")]


def has_table(connection: PostgresConnection, name: str) -> bool:
    """Is there such a table in the connection's schema?"""
    row = connection.execute("SELECT to_regclass(quote_ident(%s))", [name]).fetchone()
    return row is not None and row[0] is not None


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace("_", r"\_").replace("%", r"\%")

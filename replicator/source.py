"""What leg 1 asks the source, beside its binlog: identity, position, definitions.

Left: a read-only connection. Right: plain values. Nothing here writes or locks.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from config.connections import quote_mysql_identifier as quote
from config.errors import ConfigError, PositionLost
from replicator.binlog.position import SourcePosition
from replicator.tracking import fetch


@dataclass(frozen=True, slots=True)
class Identity:
    """Which server this is."""

    server_id: int
    uuid: str
    version: str

    @property
    def mariadb(self) -> bool:
        """Is it of the MariaDB family?"""
        return "mariadb" in self.version.lower()

    @property
    def number(self) -> int:
        """The version as versioned comments count it: 101119 for 10.11.19, 90704 for 9.7.4."""
        parts = [*self.version.split("-")[0].split("."), "0", "0"][:3]
        major, minor, patch = (int("".join(filter(str.isdigit, p)) or 0) for p in parts)
        return major * 10000 + minor * 100 + patch


def identify(connection: Any) -> Identity:
    """Read a server's identity; MariaDB has no uuid, so its is empty."""
    server_id, version = fetch(connection, "SELECT @@server_id, VERSION()")[0]
    uuid = "" if "mariadb" in version.lower() else fetch(connection, "SELECT @@server_uuid")[0][0]
    return Identity(int(server_id), str(uuid), str(version))


def current_position(connection: Any, identity: Identity) -> SourcePosition:
    """The end of the source's binlog now."""
    new_words = not identity.mariadb and identity.number >= 80200
    rows = fetch(connection, "SHOW BINARY LOG STATUS" if new_words else "SHOW MASTER STATUS")
    if not rows:
        raise ConfigError(
            "the source writes no binlog",
            hint="Add to the source's my.cnf, section [mysqld], and restart it:"
            " log_bin=mysql-bin, binlog_format=ROW, binlog_row_image=FULL,"
            f" server_id={identity.server_id or 1}, binlog_expire_logs_seconds=604800",
        )
    return SourcePosition(rows[0][0], int(rows[0][1]))


def require_file(connection: Any, position: SourcePosition) -> None:
    """`PositionLost` where the source has purged the file that we need next."""
    files = [row[0] for row in fetch(connection, "SHOW BINARY LOGS")]
    if position.file not in files:
        raise PositionLost(
            f"the source no longer has the binlog file {position.file}",
            hint="replicator resync --all; and keep binlogs longer on the source"
            " (binlog_expire_logs_seconds).",
        )


def require_row_format(connection: Any) -> None:
    """`ConfigError` where the source would log changes as statements or partly."""
    values = dict(
        fetch(
            connection,
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN"
            " ('log_bin', 'binlog_format', 'binlog_row_image')",
        )
    )
    faults = []
    if values.get("log_bin", "OFF").upper() not in ("ON", "1"):
        faults.append("log_bin is OFF (add log_bin=mysql-bin)")
    if values.get("binlog_format", "ROW").upper() != "ROW":
        faults.append(f"binlog_format is {values['binlog_format']} (set binlog_format=ROW)")
    if values.get("binlog_row_image", "FULL").upper() not in ("FULL", "FULL_NODUP"):
        faults.append(
            f"binlog_row_image is {values['binlog_row_image']} (set binlog_row_image=FULL)"
        )
    if faults:
        raise ConfigError(
            "the source does not log whole rows: " + "; ".join(faults),
            hint="Put these lines into the source's my.cnf, section [mysqld], and restart it.",
        )


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A base table of the source as its catalog describes it."""

    name: str
    engine: str
    rows: int
    average_row_bytes: int

    @property
    def transactional(self) -> bool:
        """Does a consistent snapshot hold for it?"""
        return self.engine.lower() == "innodb"


def base_tables(connection: Any, database: str) -> list[SourceTable]:
    """All base tables of the database; row counts are the engine's estimates."""
    return [
        SourceTable(name, engine or "", int(rows or 0), int(width or 0))
        for name, engine, rows, width in fetch(
            connection,
            "SELECT table_name, engine, table_rows, avg_row_length FROM information_schema.tables"
            " WHERE table_schema=%s AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
            " ORDER BY table_name",
            [database],
        )
    ]


def create_statement(connection: Any, table: str) -> str:
    """The table's own CREATE TABLE."""
    return str(fetch(connection, f"SHOW CREATE TABLE {quote(table)}")[0][1])


def has_foreign_key(create: str) -> bool:
    """Does a table's CREATE TABLE refer to another table?"""
    return "FOREIGN KEY" in create.upper() and " REFERENCES " in create.upper()


class PositionHistory:
    """Recent ends of the source's binlog, to find one that is surely visible in the engine.

    A transaction stands in the binlog before readers of its table see it. A copy
    window that starts at a position at least `gap` seconds old does not miss one.
    """

    _lock = threading.Lock()
    """Over the samples, which histories on several threads share."""

    def __init__(
        self,
        connection: Any,
        identity: Identity,
        gap: float,
        samples: list[tuple[float, SourcePosition]] | None = None,
    ) -> None:
        """`samples` may be shared by histories of one source, so that later ones need not wait."""
        self._connection = connection
        self._identity = identity
        self._gap = gap
        self._samples = [] if samples is None else samples

    def now(self) -> SourcePosition:
        """The binlog's end, remembered."""
        position = current_position(self._connection, self._identity)
        with self._lock:
            self._samples.append((time.monotonic(), position))
        return position

    @property
    def gap(self) -> float:
        """Seconds after which readers surely see what stands before a position."""
        return self._gap

    def ripening(self) -> tuple[SourcePosition, float]:
        """A remembered end, and the moment (`time.monotonic`) from which its readers may begin.

        The newest end for which that moment has come; else the one for which it comes first.
        """
        self.now()
        with self._lock:
            limit = time.monotonic() - self._gap
            old = [sample for sample in self._samples if sample[0] <= limit]
            del self._samples[: len(old) - 1]
            when, position = old[-1] if old else min(self._samples)
        return position, when + self._gap

    def forget(self) -> None:
        """The next settled position shall not be from before this moment."""
        self._samples.clear()

    def settled(self) -> SourcePosition:
        """The newest remembered end that is old enough, waiting for one where there is none."""
        position, ripe = self.ripening()
        time.sleep(max(0.0, ripe - time.monotonic()))
        return position

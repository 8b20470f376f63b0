"""The replica's binlog files: which the loader has passed, and who takes them away.

Left: the position that `raw` stands at, as PostgreSQL has it. Right: a row in the replica's
`etl_loader_position`, files purged behind all loaders that have one, and warnings where the
server may take files that a loader still needs.

A file is purged when, in the server's own list, it stands before the file of every loader that
has registered, and files of `LOADER_BINLOG_RESERVE_BYTES` or more, passed as well, stand between:
a PostgreSQL that is set back to yesterday's copy finds its position there. A loader's own row
is written before it purges, and only what PostgreSQL has committed is written there, so no file
goes that holds a change which is not in `raw`. A loader that never came this far has no row and
holds nothing; nor does anybody purge for it, since each purges only behind itself. A row
whose file the server has no longer holds nothing either: that loader reloads from the end.

The row is kept out of the binlog, or each write of it would be one more thing to read. All this
is done by a thread with a connection of its own, opened when a file was finished; what fails
is said once and tried again then. Nothing here ever stops the loader.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import pymysql
import structlog

from config.connections import MySQLConnection, quote_mysql_identifier
from config.errors import ReplicatorError, classify
from config.metrics import PURGED_BINLOG_FILES
from replicator.binlog.position import ReplicaPosition

log = structlog.get_logger()

POSITION_TABLE = "etl_loader_position"
LOOK_SECONDS = 600.0
"""How often the server's files are looked at when none is finished: others may have moved."""
RETRY_SECONDS = 60.0
LEAST_SECONDS = 86_400
"""A retention shorter than this does not outlast a stop of the loader over night."""
NEAR = 0.5
"""Warn when the loader's file is older (or what it must read is larger) than this share of it."""
_DENIED = frozenset({1044, 1142, 1227, 1370, 1419})
_SECONDS_IN: Mapping[str, int] = {"binlog_expire_logs_seconds": 1, "expire_logs_days": 86_400}
_LIMITS = (*_SECONDS_IN, "max_binlog_total_size")
_CREATE = (
    "CREATE TABLE IF NOT EXISTS {} (loader bigint unsigned NOT NULL PRIMARY KEY,"
    " binlog_file varchar(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,"
    " binlog_position bigint unsigned NOT NULL, updated_at datetime(6) NOT NULL) ENGINE=InnoDB"
)


@dataclass(frozen=True, slots=True)
class Stand:
    """Where `raw` stands, committed; `created`: when the replica began that file, 0 unknown."""

    position: ReplicaPosition
    created: int


@dataclass(frozen=True, slots=True)
class File:
    """A binlog file as the server lists it, oldest first; `size` in bytes."""

    name: str
    size: int


def first_to_keep(files: Sequence[File], needed: Sequence[str], reserve: int) -> str | None:
    """The file up to which, not including it, files may go; None where nothing may. Pure.

    `needed`: the file that each loader stands in, ours first. `reserve`: bytes of passed files
    that stay.
    """
    names = [file.name for file in files]
    if not needed or needed[0] not in names or reserve <= 0:
        return None
    keep = min(names.index(name) for name in needed if name in names)
    spared = 0
    while keep > 0 and spared < reserve:
        keep -= 1
        spared += files[keep].size
    return names[keep] if keep > 0 else None


def threats(
    variables: Mapping[str, str], files: Sequence[File], stand: Stand, now: float
) -> list[tuple[str, str]]:
    """(variable of the replica, why) for each that may take files that the loader needs. Pure."""
    names = [file.name for file in files]
    at = names.index(stand.position.file) if stand.position.file in names else 0
    unread = sum(file.size for file in files[at:])
    found: list[tuple[str, str]] = []
    for name, unit in _SECONDS_IN.items():
        kept = float(variables.get(name) or 0) * unit
        if kept <= 0 or any(said.startswith("keeps") for _, said in found):
            continue
        age = now - stand.created if stand.created and at < len(files) - 1 else 0.0
        if kept < LEAST_SECONDS:
            found.append((name, f"keeps binlogs for {kept / 3600:.1f} hours only"))
        elif age > kept * NEAR:
            found.append(
                (name, f"keeps {kept / 3600:.1f} hours; the loader is {age / 3600:.1f} behind")
            )
    most = int(variables.get("max_binlog_total_size") or 0)
    if most > 0 and unread > most * NEAR:
        found.append(
            ("max_binlog_total_size", f"keeps {most:,} bytes; the loader has {unread:,} to read")
        )
    return found


class Retention:
    """See the module; `passed` and `stop` are for the loader's thread."""

    def __init__(
        self,
        connect: Callable[[], MySQLConnection],
        database: str,
        *,
        loader: int,
        reserve: int,
        server: str,
    ) -> None:
        """`loader`: what tells us apart from other loaders of this replica, our server id."""
        self._connect = connect
        self._table = f"{quote_mysql_identifier(database)}.{POSITION_TABLE}"
        self._loader = loader
        self._reserve = reserve
        self._server = server
        self._stand: Stand | None = None
        self._due = threading.Event()
        self._stopped = threading.Event()
        self._said: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="binlog files", daemon=True)
        self._thread.start()

    def passed(self, position: ReplicaPosition, created: int) -> None:
        """PostgreSQL has committed all before `position`. Cheap: called often."""
        before, self._stand = self._stand, Stand(position, created)
        if before is None or before.position.file != position.file:
            self._due.set()

    def stop(self, wait: float = 5.0) -> None:
        """End the thread; a purge that has begun is the server's to end."""
        self._stopped.set()
        self._due.set()
        self._thread.join(wait)

    def _run(self) -> None:
        wait = LOOK_SECONDS
        while not self._stopped.is_set():
            self._due.wait(wait)
            self._due.clear()
            stand = self._stand
            if self._stopped.is_set() or stand is None:
                continue
            wait = LOOK_SECONDS if self._look(stand) else RETRY_SECONDS

    def _look(self, stand: Stand) -> bool:
        """Register, warn, purge; False where it is to be tried again soon."""
        try:
            with closing(self._connect()) as connection:
                return self._attend(connection, stand)
        except (ReplicatorError, pymysql.MySQLError, OSError) as error:
            told = classify(error, server=self._server)
            code = error.args[0] if error.args else None
            if code in _DENIED:
                self._say(
                    "binlog_files_stay",
                    reason=str(told),
                    remedy="On the replica: GRANT BINLOG ADMIN (MySQL: BINLOG_ADMIN and"
                    " SESSION_VARIABLES_ADMIN) ON *.* to the loader's account; or set"
                    " LOADER_BINLOG_RESERVE_BYTES=0, and let the server expire its binlogs.",
                )
            else:
                log.info("binlog_files_not_looked_at", reason=str(told))
            return False

    def _attend(self, connection: MySQLConnection, stand: Stand) -> bool:
        found = _fetch(connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN {_LIMITS}")
        variables = {row[0]: row[1] for row in found}
        files = [File(row[0], int(row[1])) for row in _fetch(connection, "SHOW BINARY LOGS")]
        for variable, why in threats(variables, files, stand, time.time()):
            self._say(
                "binlog_retention",
                variable=variable,
                reason=f"the replica's {variable} {why}",
                remedy="Keep more there; what is purged unread has every table reloaded.",
            )
        if self._reserve <= 0:
            return True
        keep = first_to_keep(files, self._registered(connection, stand), self._reserve)
        return keep is None or self._purge(connection, files, keep)

    def _registered(self, connection: MySQLConnection, stand: Stand) -> list[str]:
        """Write our row; the files that loaders stand in, ours first."""
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION sql_log_bin = 0")
            cursor.execute(_CREATE.format(self._table))
            cursor.execute(
                f"REPLACE INTO {self._table.replace('%', '%%')}"
                " VALUES (%s, %s, %s, UTC_TIMESTAMP(6))",
                (self._loader, stand.position.file, stand.position.offset),
            )
        others = _fetch(
            connection, f"SELECT binlog_file FROM {self._table} WHERE loader <> {self._loader:d}"
        )
        return [stand.position.file, *(row[0] for row in others)]

    def _purge(self, connection: MySQLConnection, files: Sequence[File], keep: str) -> bool:
        """Are they gone? A file that somebody is sent stays; a link that was cut counts a while."""
        with connection.cursor() as cursor:
            cursor.execute("PURGE BINARY LOGS TO %s", (keep,))
        left = {row[0] for row in _fetch(connection, "SHOW BINARY LOGS")}
        gone = [file for file in files if file.name not in left]
        if gone:
            PURGED_BINLOG_FILES.inc(len(gone))
            log.info(
                "binlog_files_purged",
                files=len(gone),
                bytes=sum(file.size for file in gone),
                first_kept=keep,
            )
        return files[len(gone)].name == keep

    def _say(self, event: str, **about: str) -> None:
        """A warning, once in this session's life."""
        if event + about.get("variable", "") not in self._said:
            self._said.add(event + about.get("variable", ""))
            log.warning(event, **about)


def _fetch(connection: MySQLConnection, query: str) -> list[tuple[str, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return [tuple(map(str, row)) for row in cursor.fetchall()]

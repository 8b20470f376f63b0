"""What both daemons note on the replica for whoever looks: the horizon, halts, the last verify.

Left: a connection to the replica that uses its database. Right: three small tables beside leg
1's tracking tables. Nothing that is carried rests on them; they are written without being
logged, and who cannot read them goes without. No value of a row is in them: positions, counts,
names of tables, and our own error messages.

The horizon is what leg 1 knows of the source: everything that the source had committed at
`fresh_at` is on the replica when the replica stands at the position. It is in the replica
server's clock, as everything here is, so that the clocks of the daemons' hosts do not matter.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pymysql

from config.connections import connect_mysql
from config.errors import ReplicatorError
from config.metrics import HALTS, LAST_HALT
from config.settings import MySQLServer

_ASCII = "CHARACTER SET ascii COLLATE ascii_bin"
_TEXT = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
DEFINITIONS: Final = (
    f"""CREATE TABLE IF NOT EXISTS etl_horizon (
      stream varchar(64) {_ASCII} NOT NULL PRIMARY KEY,
      binlog_file varchar(255) {_ASCII} NOT NULL,
      binlog_position bigint unsigned NOT NULL,
      fresh_at double NOT NULL,
      caught_up tinyint NOT NULL,
      source_ahead double NOT NULL,
      replicator_ahead double NOT NULL,
      written_at datetime(6) NOT NULL
    ) ENGINE=InnoDB""",
    f"""CREATE TABLE IF NOT EXISTS etl_halt (
      id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
      leg varchar(16) {_ASCII} NOT NULL,
      error varchar(64) {_ASCII} NOT NULL,
      message text {_TEXT} NOT NULL,
      remedy text {_TEXT} NOT NULL,
      halted_at datetime(6) NOT NULL
    ) ENGINE=InnoDB""",
    f"""CREATE TABLE IF NOT EXISTS etl_verify (
      id tinyint NOT NULL PRIMARY KEY,
      ended_at datetime(6) NOT NULL,
      verdicts text {_ASCII} NOT NULL
    ) ENGINE=InnoDB""",
)
KEPT_HALTS: Final = 500
"""Older ones are forgotten."""
LOOK_SECONDS: Final = 10.0
"""Between two looks at them."""
_MOST_TEXT: Final = 2000
_SECONDS: Final = 3
"""What noting a halt may take: the daemon is about to end."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """See the module; times in seconds since 1970 by the replica's clock, `*_ahead` against it."""

    file: str
    offset: int
    fresh_at: float
    caught_up: bool
    source_ahead: float
    replicator_ahead: float


@dataclass(frozen=True, slots=True)
class HaltNote:
    """A stop that needed an operator."""

    leg: str
    error: str
    message: str
    remedy: str
    at: float


@dataclass(frozen=True, slots=True)
class VerifyNote:
    """How `replicator verify` ended last: tables by verdict."""

    at: float
    verdicts: dict[str, int]


def _fetch(connection: Any, sql: str, arguments: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments or None)
        return list(cursor.fetchall())


def _seconds(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()


def write_horizon(connection: Any, horizon: Horizon) -> None:
    """Leg 1 alone does this; commits where the connection does."""
    _fetch(
        connection,
        "REPLACE INTO etl_horizon VALUES ('main', %s, %s, %s, %s, %s, %s, UTC_TIMESTAMP(6))",
        (
            horizon.file,
            horizon.offset,
            horizon.fresh_at,
            int(horizon.caught_up),
            horizon.source_ahead,
            horizon.replicator_ahead,
        ),
    )


def read_horizon(connection: Any) -> Horizon | None:
    """What leg 1 noted last; None where it never did."""
    with _absent_is_fine():
        rows = _fetch(
            connection,
            "SELECT binlog_file, binlog_position, fresh_at, caught_up, source_ahead,"
            " replicator_ahead FROM etl_horizon WHERE stream = 'main'",
        )
        for file, offset, fresh_at, caught_up, source, replicator in rows:
            return Horizon(
                file,
                int(offset),
                float(fresh_at),
                bool(caught_up),
                float(source),
                float(replicator),
            )
    return None


def note_halt(server: MySQLServer, leg: str, error: ReplicatorError) -> None:
    """Note why a daemon ends, if the replica can be reached at once; it ends anyway."""
    with suppress(Exception):
        connection = connect_mysql(
            server.model_copy(update={"connect_timeout": float(_SECONDS)}),
            database=server.db,
            read_timeout=_SECONDS,
            write_timeout=_SECONDS,
        )
        try:
            _fetch(connection, "SET SESSION sql_log_bin = 0")
            _fetch(
                connection,
                "INSERT INTO etl_halt (leg, error, message, remedy, halted_at)"
                " VALUES (%s, %s, %s, %s, UTC_TIMESTAMP(6))",
                (leg, type(error).__name__, str(error)[:_MOST_TEXT], error.hint[:_MOST_TEXT]),
            )
            _fetch(
                connection,
                "DELETE FROM etl_halt WHERE id <= (SELECT * FROM (SELECT MAX(id) FROM etl_halt) m)"
                f" - {KEPT_HALTS}",
            )
        finally:
            connection.close()


def read_halts(connection: Any) -> list[HaltNote]:
    """The halts that are remembered, the last first."""
    with _absent_is_fine():
        rows = _fetch(
            connection,
            "SELECT leg, error, message, remedy, halted_at FROM etl_halt ORDER BY id DESC",
        )
        return [
            HaltNote(leg, error, said, hint, _seconds(at)) for leg, error, said, hint, at in rows
        ]
    return []


class RememberedHalts:
    """The halts of both legs as one daemon knows them: read now and then, and counted once."""

    def __init__(self) -> None:
        self.all: list[HaltNote] = []
        """The last first."""
        self._counted: set[HaltNote] = set()
        self._next = 0.0

    def tell(self) -> None:
        """Answer for the metric from now on."""
        LAST_HALT.tell(lambda: {(note.leg,): note.at for note in reversed(self.all)})

    def look(self, connection: Any, now: float) -> bool:
        """Read them again, where that is due; was it?"""
        if now < self._next:
            return False
        self._next = now + LOOK_SECONDS
        self.all = read_halts(connection)
        for note in self.all:
            if note not in self._counted:
                self._counted.add(note)
                HALTS.labels(note.leg, note.error).inc()
        return True


def write_verify(connection: Any, verdicts: dict[str, int]) -> None:
    """Remember how a comparison of everything ended, where leg 1 has made its tables."""
    with _absent_is_fine():
        _fetch(connection, "SET SESSION sql_log_bin = 0")
        text = ",".join(f"{verdict}={count}" for verdict, count in sorted(verdicts.items()))
        _fetch(connection, "REPLACE INTO etl_verify VALUES (1, UTC_TIMESTAMP(6), %s)", (text,))


def read_verify(connection: Any) -> VerifyNote | None:
    """How the last one ended; None where there was none."""
    with _absent_is_fine():
        for ended_at, text in _fetch(connection, "SELECT ended_at, verdicts FROM etl_verify"):
            pairs = (part.rpartition("=") for part in str(text).split(",") if part)
            return VerifyNote(_seconds(ended_at), {name: int(count) for name, _, count in pairs})
    return None


_NO_SUCH = (1046, 1049, 1146)


class _absent_is_fine(suppress):  # noqa: N801  # reads as a phrase where it is used
    """Leg 1 has not made its tables yet, or is of an older version."""

    def __init__(self) -> None:
        super().__init__(pymysql.MySQLError)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        absent = isinstance(error, pymysql.MySQLError) and error.args[:1] and error.args[0]
        return absent in _NO_SUCH and super().__exit__(kind, error, trace)

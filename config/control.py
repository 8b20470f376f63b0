"""What an operator asks of the running daemons: to pause, and how fast copies may read.

Left: one small table on the replica, which `replicator pause`, `resume` and `throttle` write.
Right: a `Control` in each daemon, which looks there twice a second on a thread and a connection
of its own, so that nothing of it waits behind a long statement.

What is asked for is stored, so it outlives daemons and machines. A daemon that is paused has
closed every connection of its leg; its position stays where its rows are, in the database that
it writes to, so nothing is lost and nothing is done twice: it is as if it had been stopped, but
for its port and its signs of life. No step is taken before it is known whether it may be taken.
While the replica is away what was asked last holds; without the replica neither leg does anything.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from config.connections import connect_mysql, quote_mysql_identifier
from config.errors import ReplicatorError, translated
from config.metrics import COPY_CEILING, PAUSED, Leg
from config.settings import MySQLServer

LEGS: Final[tuple[Leg, ...]] = ("replicator", "loader")
LOOK_SECONDS: Final = 0.5
ANSWER_SECONDS: Final = 3.0
COPY_RATE: Final = "copy_bytes_per_second"
_PAUSE: Final = "pause."
_TABLE: Final = "etl_control"
_ASCII = "CHARACTER SET ascii COLLATE ascii_bin"
DEFINITIONS: Final = (
    f"""CREATE TABLE IF NOT EXISTS {_TABLE} (
      name varchar(64) {_ASCII} NOT NULL PRIMARY KEY,
      value varchar(64) {_ASCII} NOT NULL,
      asked_at datetime(6) NOT NULL
    ) ENGINE=InnoDB""",
)
_NO_SUCH: Final = (1046, 1049, 1146)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for; moments in UTC by the replica's clock."""

    paused: Mapping[str, datetime] = field(default_factory=dict)
    """Since when, of the legs that are to pause."""
    copy_rate: int | None = None
    """Bytes a second for copies, 0 for no ceiling; None: as the settings say."""


def read_asked(connection: Any, database: str) -> Asked:
    """What is asked for; nothing where leg 1 has not made its tables yet."""
    table = f"{quote_mysql_identifier(database)}.{_TABLE}"
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT name, value, asked_at FROM {table}")
            rows = cursor.fetchall()
    except Exception as error:
        if error.args[:1] and error.args[0] in _NO_SUCH:
            return Asked()
        raise
    rates = [int(value) for name, value, _ in rows if name == COPY_RATE]
    since = {n.removeprefix(_PAUSE): at for n, _, at in rows if n.startswith(_PAUSE)}
    return Asked(since, rates[0] if rates else None)


def ask_pause(connection: Any, legs: Sequence[str]) -> None:
    """Have legs pause; one that is paused already stays so since then."""
    _prepare(connection)
    for leg in legs:
        _write(connection, "INSERT IGNORE INTO", _PAUSE + leg, "1")


def ask_resume(connection: Any, legs: Sequence[str]) -> None:
    """Have legs go on."""
    _prepare(connection)
    for leg in legs:
        _forget(connection, _PAUSE + leg)


def ask_copy_rate(connection: Any, rate: int | None) -> None:
    """Bound what copies read, in bytes a second; 0: not at all, None: as the settings say."""
    _prepare(connection)
    if rate is None:
        _forget(connection, COPY_RATE)
    else:
        _write(connection, "REPLACE INTO", COPY_RATE, str(rate))


def _prepare(connection: Any) -> None:
    """The replica of an older version may lack the table; leg 2 is not to see what is written."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute("SHOW TABLES LIKE %s", (_TABLE.replace("_", r"\_"),))
        if not cursor.fetchall():
            for definition in DEFINITIONS:
                cursor.execute(definition)


def _write(connection: Any, verb: str, name: str, value: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"{verb} {_TABLE} VALUES (%s, %s, UTC_TIMESTAMP(6))", (name, value))


def _forget(connection: Any, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {_TABLE} WHERE name = %s", (name,))


class Control:
    """A daemon's view of what is asked; `watching` keeps it fresh."""

    def __init__(self, server: MySQLServer, leg: Leg, copy_rate: int = 0) -> None:
        """`copy_rate`: what the settings say."""
        self._server = server.model_copy(
            update={"connect_timeout": min(server.connect_timeout, ANSWER_SECONDS)}
        )
        self._leg = leg
        self._configured_rate = copy_rate
        self._asked: Asked | None = None
        self._connection: Any = None
        self._lock = threading.Lock()
        PAUSED.tell(lambda: {(leg,): float(bool(self.pause()))} if self._asked else None)
        if leg == "replicator":
            COPY_CEILING.tell(lambda: float(self.copy_rate()))

    def look(self) -> Asked:
        """Ask the replica; raises what keeps it from answering."""
        with self._lock:
            try:
                with translated(self._server.label):
                    if self._connection is None:
                        self._connection = connect_mysql(
                            self._server, read_timeout=ANSWER_SECONDS, write_timeout=ANSWER_SECONDS
                        )
                    self._asked = read_asked(self._connection, self._server.db)
            except BaseException:
                self._hang_up()
                raise
            return self._asked

    def pause(self) -> str:
        """Why this leg is not to work, in a few words; "" where it is to, or nobody knows yet."""
        since = self._asked.paused.get(self._leg) if self._asked else None
        return f"paused since {since:%Y-%m-%d %H:%M:%S} UTC (replicator resume)" if since else ""

    def hold(self) -> str:
        """The same for the loop; raises where it cannot be known yet."""
        if self._asked is None:
            self.look()
        return self.pause()

    def copy_rate(self) -> int:
        """What copies may read, in bytes a second, now; 0: as much as they can."""
        asked = self._asked.copy_rate if self._asked else None
        return self._configured_rate if asked is None else asked

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look again and again, on a thread, while inside."""
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,), name="control", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._hang_up()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(LOOK_SECONDS):
            with suppress(ReplicatorError):
                self.look()

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()

"""Look at a server from beside the stream: its binlog's end, its clock, the files it keeps.

Left: a connection of its own, on a thread of its own, so that a loop that hangs is no less
watched than one that runs. Right: the last `Sight`, for whoever computes a lag or draws a page.
Nothing that is carried rests on it: when the server does not answer, the sight grows old, and
that is all.

Asked are, once in `period`: the binlog's end (with what GTIDs it holds) and the clock; once a
minute: the names and sizes of its files, and how long it keeps them.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import pymysql

from config.clock import ServerClock
from config.errors import ReplicatorError
from replicator.binlog.gtidset import GtidSet
from replicator.binlog.position import BinlogPosition

FILES_SECONDS: Final = 60.0
_END_SECONDS: Final = 1.0
_PASSING: Final = (ReplicatorError, pymysql.MySQLError, OSError, LookupError, ValueError)
"""Whatever it was, the next look may be better; the sight grows old meanwhile."""
_STATUS, _NEW_STATUS = "SHOW MASTER STATUS", "SHOW BINARY LOG STATUS"
_SYNTAX: Final = 1064
_NO_MICROSECONDS: Final = (1064, 1426)


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen last. `end` is None before anything was."""

    end: BinlogPosition | None = None
    gtids: str = ""
    files: tuple[tuple[str, int], ...] = ()
    keeps_seconds: float | None = None
    """How long the server keeps a file that is not written any more; 0: for ever."""


@dataclass(slots=True)
class Rotations:
    """When files were seen to end: moments of our monotonic clock. Pure."""

    current: str = ""
    ended: dict[str, float] = field(default_factory=dict)

    def saw(self, file: str, now: float) -> None:
        """The binlog ends in this file."""
        if self.current and file != self.current:
            self.ended[self.current] = now
        self.current = file


class Lookout:
    """See the module; `connect` gives a connection on which no answer is waited for long."""

    def __init__(
        self,
        connect: Callable[[], Any],
        period: float,
        position: Callable[[str, int], BinlogPosition],
        also: Callable[[Any], None] = lambda _connection: None,
    ) -> None:
        """`also` is called with the connection behind each look."""
        self._connect = connect
        self._period = period
        self._position = position
        self._also = also
        self._stop = threading.Event()
        self._connection: Any = None
        self._next_files = 0.0
        self._status = _STATUS
        self._thread: threading.Thread | None = None
        self.clock = ServerClock(time.time() - time.monotonic())
        self.rotations = Rotations()
        self.sight = Sight()
        self.seen = threading.Event()
        """Was there ever a look that succeeded?"""

    def start(self) -> None:
        """Begin to look, where that is not done yet."""
        if self._thread is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name="lookout", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Look no more; what was seen stays. A connection that is being made ends by itself."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stop.set()
        with suppress(OSError, AttributeError):  # else it would wait for an answer
            self._connection._sock.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=_END_SECONDS)

    def _run(self, stop: threading.Event) -> None:
        connection: Any = None
        while not stop.is_set():
            try:
                if connection is None:
                    connection = self._connection = self._connect()
                self._look(connection)
            except _PASSING:
                _hang_up(connection)
                connection = None
            stop.wait(self._period)
        _hang_up(connection)

    def _look(self, connection: Any) -> None:
        self._read_clock(connection)
        file, offset, gtids = self._read_end(connection)
        now = time.monotonic()
        self.rotations.saw(file, now)
        before = self.sight
        files, keeps = before.files, before.keeps_seconds
        if now >= self._next_files or not files or files[-1][0] != file:
            files, keeps = self._read_files(connection)
            self._next_files = now + FILES_SECONDS
        self.sight = Sight(self._position(file, offset), gtids, files, keeps)
        self._also(connection)
        self.seen.set()

    def _read_clock(self, connection: Any) -> None:
        before = time.monotonic()
        try:
            row = _rows(connection, "SELECT UNIX_TIMESTAMP(NOW(6))")[0]
        except pymysql.MySQLError as error:
            if error.args[0] not in _NO_MICROSECONDS:
                raise
            before = time.monotonic()
            row = (float(_rows(connection, "SELECT UNIX_TIMESTAMP()")[0][0]) + 0.5,)
        self.clock.read(float(row[0]), before, time.monotonic())

    def _read_end(self, connection: Any) -> tuple[str, int, str]:
        try:
            row = _rows(connection, self._status)[0]
        except pymysql.MySQLError as error:
            if error.args[0] != _SYNTAX:
                raise
            self._status = _NEW_STATUS  # MySQL's word from 8.4 on
            row = _rows(connection, self._status)[0]
        told = len(row) > 4
        gtids = row[4] if told else _rows(connection, "SELECT @@GLOBAL.gtid_binlog_pos")[0][0]
        return str(row[0]), int(row[1]), str(gtids or "")

    def _read_files(self, connection: Any) -> tuple[tuple[tuple[str, int], ...], float | None]:
        files = tuple((str(row[0]), int(row[1])) for row in _rows(connection, "SHOW BINARY LOGS"))
        names = "'binlog_expire_logs_seconds', 'expire_logs_days', 'binlog_expire_logs_auto_purge'"
        found = _rows(connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
        return files, kept_seconds({str(name): str(value) for name, value in found})


def _rows(connection: Any, query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


def _hang_up(connection: Any) -> None:
    if connection is not None:
        with suppress(Exception):
            connection._force_close()


def kept_seconds(variables: dict[str, str]) -> float | None:
    """For how long a server's variables let it keep binlog files; 0: for ever. Pure."""
    if variables.get("binlog_expire_logs_auto_purge", "ON").upper() in ("OFF", "0"):
        return 0.0
    seconds = float(variables.get("binlog_expire_logs_seconds", 0) or 0)
    days = float(variables.get("expire_logs_days", 0) or 0)
    if not variables:
        return None
    return seconds or days * 86400


def bytes_behind(
    files: Sequence[tuple[str, int]], at: BinlogPosition, end: BinlogPosition
) -> int | None:
    """Bytes of binlog between two positions; None where a file between them is gone. Pure."""
    if at >= end:
        return 0
    sizes = {BinlogPosition(name, 0).file_number: size for name, size in files}
    numbers = range(at.file_number, end.file_number)
    if any(number not in sizes for number in numbers):
        return None
    return sum(sizes[number] for number in numbers) - at.offset + end.offset


def transactions_behind(have: str, there: str) -> int | None:
    """Transactions that one set of GTIDs has beyond another; None without GTIDs. Pure."""
    if not there or not have:
        return None
    try:
        return GtidSet.parse(there).beyond(GtidSet.parse(have))
    except ValueError:
        return None


def purge_in(
    sight: Sight, rotations: Rotations, at: BinlogPosition, began: float | None, now: float
) -> float | None:
    """Seconds until the server may purge the file that `at` stands in. Pure.

    `began` is when the server began that file, if that is known; `now` is of the same clock. The
    age of a file counts from when it was written last: the file that is being written has its
    whole time before it, one that we saw end counts from there, and of another it is known at
    least when it began. 0 where it is gone already; None where nothing can be told.
    """
    if sight.end is None or sight.keeps_seconds is None:
        return None
    if sight.files and at.file not in {name for name, _ in sight.files}:
        return 0.0
    if sight.keeps_seconds == 0:
        return float("inf")
    if at.file == sight.end.file:
        return sight.keeps_seconds
    ended = rotations.ended.get(at.file, began)
    return None if ended is None else max(0.0, ended + sight.keeps_seconds - now)

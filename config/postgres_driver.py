"""psycopg's connection, for servers that may say anything.

Left: bytes of whoever answers at that port. Right: psycopg's results, or a `Garbled`, which is
one more lost connection: neither an error out of its depths where a value is not what its type
says, nor an answer without bounds, which libpq would gather for as long as a server sends it, nor
a wait for a server that waits for us: a length that says too much makes libpq wait for more
(`_Silence`). Nor is the password handed to a server that asks for it in plain words, where TLS
is not required.

What makes sense and is wrong, nobody sees here: PostgreSQL's protocol has no checksums. TLS has.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg import pq
from psycopg.rows import TupleRow

from config.driver import ANSWER_BYTES, SENSELESS

_LOOK_EVERY: Final = 16
"""Waits for more of an answer; most answers take one or two, and cost nothing here."""
_RECEIVED: Final = struct.Struct("<Q")
_RECEIVED_AT: Final = 128
"""Of tcpi_bytes_received in <linux/tcp.h>'s tcp_info."""
_SOON: Final = 10.0
_WAITS_FOR_US: Final = (
    "SELECT 1 FROM pg_stat_activity"
    " WHERE pid = %s AND usename = current_user AND wait_event = 'ClientRead'"
)
_REQUIRE_AUTH: Final = 160000
"""The first libpq that knows `require_auth`."""
_ENCRYPTED: Final = ("require", "verify-ca", "verify-full")

_SENSELESS: Final = (*SENSELESS, psycopg.DataError)

Answer = TypeVar("Answer")
Rows: TypeAlias = list[TupleRow]


class Garbled(psycopg.OperationalError):
    """The server's answer made no sense; we hung up."""


class GuardedCursor(psycopg.Cursor[TupleRow]):
    """Values that are not what their type says end the connection."""

    def fetchone(self) -> TupleRow | None:
        try:
            return super().fetchone()
        except _SENSELESS as error:
            raise self._told(error) from None

    def fetchmany(self, size: int = 0) -> Rows:
        try:
            return super().fetchmany(size)
        except _SENSELESS as error:
            raise self._told(error) from None

    def fetchall(self) -> Rows:
        try:
            return super().fetchall()
        except _SENSELESS as error:
            raise self._told(error) from None

    def __next__(self) -> TupleRow:
        try:
            return super().__next__()
        except _SENSELESS as error:
            raise self._told(error) from None

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, psycopg.Error) and error.sqlstate:
            return error  # the server's own word, which comes late in a pipeline
        return _garbled(self.connection, error)


class GuardedPostgres(psycopg.Connection[TupleRow]):
    """See the module."""

    limit = ANSWER_BYTES
    patience = 15.0
    """Seconds of silence after which the server is asked whether it works for us: at two such
    looks a wait ends when TCP would end one for a host that is gone (`config.connections`)."""

    def wait(self, gen: Generator[Any, Any, Answer], *args: Any, **options: Any) -> Answer:
        return super().wait(self._bounded(gen), *args, **options)

    def _bounded(self, gen: Generator[Any, Any, Answer]) -> Generator[Any, Any, Answer]:
        """The same waits, but for those that have no end."""
        waits = began = 0
        silence: _Silence | None = None
        ready: Any = None
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            waits += 1
            if waits % _LOOK_EVERY == 0:
                received = _received(self.pgconn.socket)
                began = began or received
                if received - began > self.limit:
                    raise _garbled(self, OverflowError())
            ready = yield wanted
            if ready:
                silence = None
                continue
            silence = silence or _Silence(self, time.monotonic())
            if silence.is_stalemate(time.monotonic()):
                raise _garbled(self, TimeoutError())


class _Silence:
    """A server from which nothing comes: does it work for us, or wait for us as we for it?

    A statement may take hours, and an answer may be on its way; but who reads from its client at
    two looks, and sends nothing in between, has no answer left for us.
    """

    def __init__(self, connection: GuardedPostgres, now: float) -> None:
        self._connection = connection
        self._looked = now
        self._suspected = False

    def is_stalemate(self, now: float) -> bool:
        """Looked into by another connection, now and then."""
        if now - self._looked < self._connection.patience:
            return False
        suspected, self._suspected = self._suspected, self._waits_for_us()
        self._looked = now
        return suspected and self._suspected

    def _waits_for_us(self) -> bool:
        """Also where the question is not answered; not where that cannot be told.

        That is behind a pooler, or where nobody is let in any more.
        """
        info = self._connection.info
        options: dict[str, Any] = {**info.get_parameters(), "password": info.password}
        try:
            with _Asking.connect(**options) as other:
                return other.execute(_WAITS_FOR_US, [info.backend_pid]).fetchone() is not None
        except TimeoutError:
            return True
        except (psycopg.Error, *SENSELESS):
            return False


class _Asking(psycopg.Connection[TupleRow]):
    """Whose questions are answered soon, or not at all."""

    def wait(self, gen: Generator[Any, Any, Answer], *args: Any, **options: Any) -> Answer:
        return super().wait(_answered_by(gen, time.monotonic() + _SOON), *args, **options)


def _answered_by(gen: Generator[Any, Any, Answer], end: float) -> Generator[Any, Any, Answer]:
    """The same waits, until then."""
    ready: Any = None
    while time.monotonic() < end:
        try:
            wanted = gen.send(ready)
        except StopIteration as done:
            answer: Answer = done.value
            return answer
        ready = yield wanted
    raise TimeoutError


def no_plain_password(ssl_mode: str) -> dict[str, Any]:
    """libpq's argument by which the password is given in plain words through TLS alone."""
    if ssl_mode in _ENCRYPTED or pq.version() < _REQUIRE_AUTH:
        return {}
    return {"require_auth": "!password"}


def _received(descriptor: int) -> int:
    """Bytes that came by this socket so far; 0 where the system does not count them."""
    with suppress(OSError, AttributeError, struct.error):
        with socket.socket(fileno=os.dup(descriptor)) as counted:
            told = counted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(_RECEIVED.unpack_from(told, _RECEIVED_AT)[0])
    return 0


def _garbled(connection: psycopg.Connection[Any], error: BaseException) -> Garbled:
    connection.close()
    endless = isinstance(error, OverflowError | TimeoutError)
    what = "has no end" if endless else "makes no sense"
    return Garbled(f"connection lost: the server's answer {what}; hung up")

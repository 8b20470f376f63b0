"""A MySQL server from which nothing comes: does it work for us, or wait for us as we for it?

Left: a plain connection that awaits an answer. Right: its bytes; or `TimeoutError`, where server
and client wait for each other. A statement may take hours, so time alone tells nothing. But a
length that was damaged on its way, which no checksum tells without TLS, lets the one wait for bytes
that the other never had in mind, and for as long as both live. So after some seconds without a
byte the server is asked by another connection what it is at: where it awaits our next command, at
two looks in a row, nothing more will come. TLS notices damage itself, and is left alone.
"""

from __future__ import annotations

import io
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import pymysql

PATIENCE: Final = 15
"""Seconds of silence before each look; with the second a wait ends as TCP's would for a host that
is gone (`config.connections`)."""

_LOOKS: Final = 2


class Answers(io.RawIOBase):
    """What comes from the socket of a connection."""

    def __init__(self, connection: Any, another: Callable[[], Any]) -> None:
        """`another` gives a second connection, on which no answer is waited for long."""
        self._connection = connection
        self._stream: socket.socket = connection._sock
        self._another = another
        seconds, rest = divmod(PATIENCE, 1)
        self._stream.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), int(rest * 1e6))
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """At least a byte; 0 at the end. A time-out of the socket's own is raised as ever."""
        looks = 0
        while True:
            try:
                return self._stream.recv_into(buffer)
            except BlockingIOError:  # nothing for so long
                looks = looks + 1 if self._waits_for_us() else 0
                if looks == _LOOKS:
                    raise TimeoutError("the server has nothing more to say") from None

    def _waits_for_us(self) -> bool:
        """False where that cannot be told: it lets nobody in, or somebody stands in between."""
        try:
            with closing(self._another()) as other, other.cursor() as cursor:
                cursor.execute("SELECT CONNECTION_ID()")
                if cursor.fetchone()[0] != other.thread_id():
                    return False  # a proxy: what it calls us, the server does not
                cursor.execute("SHOW PROCESSLIST")
                states = {row[0]: row[4] for row in cursor.fetchall()}
        except (pymysql.MySQLError, OSError):
            return False
        return bool(states.get(self._connection.thread_id()) == "Sleep")


def listen(connection: Any, another: Callable[[], Any]) -> None:
    """Let a connection that is logged in wait for its answers so."""
    stream = connection._sock
    if not isinstance(stream, socket.socket) or isinstance(stream, ssl.SSLSocket):
        return
    connection._rfile = io.BufferedReader(Answers(connection, another))

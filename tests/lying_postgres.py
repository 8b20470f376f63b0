"""A PostgreSQL server that lies: a real one's answers, altered message by message on their way.

`LyingPostgres(port, lie)` listens on a free loopback port, passes on to `port` what clients say,
and gives each message of the server's to `lie`; what comes back is sent instead, as raw
bytes: so a length may be as wrong as what stands behind it. Clients that ask for encryption are
told that there is none.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_NO_ENCRYPTION = b"N"
_WISHES = (80877103, 80877104)
"""SSLRequest and GSSENCRequest."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the server's."""

    kind: bytes
    """Its letter."""
    payload: bytes
    logged_in: bool
    """Is it an answer to a query, rather than to the login?"""
    heard: bytes
    """What the client said last that has text in it: a query, or a part of its login."""


Lie = Callable[[Message], Iterator[bytes] | bytes | None]
"""None: the truth. An iterator may go on for as long as anybody listens."""


def framed(kind: bytes, payload: bytes, length: int | None = None) -> bytes:
    """A message; `length` is what it says of itself, when that is not the truth."""
    said = len(payload) + 4 if length is None else length
    return kind + said.to_bytes(4, "big") + payload


class LyingPostgres:
    """See the module."""

    def __init__(self, target: int, lie: Lie) -> None:
        self.target = target
        self.lie = lie
        self.lies = 0
        self.sent = 0
        """Bytes of lies that a client has taken."""
        self.heard = bytearray()
        """What clients said until they were logged in."""
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=20)
        self.port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                self._open += [client, server]
                _Talk(self, client, server)


class _Talk:
    """One connection, a thread each way."""

    def __init__(self, owner: LyingPostgres, client: socket.socket, server: socket.socket) -> None:
        self._owner, self._client, self._server = owner, client, server
        self._logged_in, self._heard = False, b""
        for way in (self._to_server, self._to_client):
            threading.Thread(target=self._until_gone, args=(way,), daemon=True).start()

    def _until_gone(self, way: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, EOFError):
            way()
        for side in (self._client, self._server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _to_server(self) -> None:
        while (wish := _first(self._client))[0] in _WISHES:
            self._client.sendall(_NO_ENCRYPTION)
        self._server.sendall(wish[1])
        while True:
            kind, payload = _read(self._client)
            if not self._logged_in:
                self._owner.heard += payload
            if kind in b"PQp":
                self._heard = payload
            self._server.sendall(framed(kind, payload))

    def _to_client(self) -> None:
        while True:
            kind, payload = _read(self._server)
            said = self._owner.lie(Message(kind, payload, self._logged_in, self._heard))
            self._logged_in = self._logged_in or kind == b"Z"
            if said is None:
                self._client.sendall(framed(kind, payload))
                continue
            self._owner.lies += 1
            for piece in (said,) if isinstance(said, bytes) else said:
                self._client.sendall(piece)
                self._owner.sent += len(piece)


def _first(side: socket.socket) -> tuple[int, bytes]:
    """A message without a letter: its code, and all of it."""
    length = _exactly(side, 4)
    rest = _exactly(side, int.from_bytes(length, "big") - 4)
    return int.from_bytes(rest[:4], "big"), length + rest


def _read(side: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(side, 5)
    return head[:1], _exactly(side, int.from_bytes(head[1:], "big") - 4)


def _exactly(side: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = side.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)

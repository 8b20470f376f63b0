"""What servers that lie have in common: they stand between a client and a real server.

A `Liar` listens on a free loopback port and opens a connection to `target` for each of its
clients'; a `Talk` is such a pair, with a thread each way, and ends both when one ends.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

Said = Iterator[bytes] | bytes
"""What is sent instead of the truth. An iterator may go on for as long as anybody listens."""


class Liar:
    """See the module."""

    talk: ClassVar[Callable[..., Talk]]

    def __init__(self, target: int) -> None:
        self.target = target
        self.lies = 0
        self.sent = 0
        """Bytes of lies that a client has taken."""
        self.heard = bytearray()
        """What clients said, as far as a `Talk` keeps it."""
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
                type(self).talk(self, client, server).start()


class Talk(ABC):
    """One connection, a thread each way."""

    def __init__(self, owner: Liar, client: socket.socket, server: socket.socket) -> None:
        self._owner, self._client, self._server = owner, client, server

    def start(self) -> None:
        for way in (self._to_server, self._to_client):
            threading.Thread(target=self._until_gone, args=(way,), daemon=True).start()

    @abstractmethod
    def _to_server(self) -> None:
        """Pass on what the client says."""

    @abstractmethod
    def _to_client(self) -> None:
        """Pass on what the server says, or a lie."""

    def _until_gone(self, way: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, EOFError):
            way()
        for side in (self._client, self._server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _tell(self, said: Said | None, truth: bytes) -> None:
        """Send what was said instead of the truth; the truth where that is None."""
        if said is None:
            self._client.sendall(truth)
            return
        self._owner.lies += 1
        for piece in (said,) if isinstance(said, bytes) else said:
            self._client.sendall(piece)
            self._owner.sent += len(piece)


def exactly(side: socket.socket, count: int) -> bytes:
    """So many bytes; EOFError where they do not come."""
    data = bytearray()
    while len(data) < count:
        piece = side.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)

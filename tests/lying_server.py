"""A MySQL server that lies: a real one's answers, altered packet by packet on their way.

`LyingServer(port, lie)` listens on a free loopback port, passes on to `port` what clients say,
and gives each packet of the server's to `lie`, with what it is an answer to; what comes
back is sent instead, as raw bytes: so a header may be as wrong as what stands behind it.
Without TLS, which a liar would not offer either.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LOGIN, QUERY, DUMP, EXECUTE = -1, 0x03, 0x12, 0x17
_SSL = 0x0800


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet of the server's."""

    command: int
    """What it answers: a command's number; LOGIN before the first."""
    text: bytes
    """That command's argument."""
    number: int
    """Which packet of the answer it is, from 0."""
    sequence: int
    payload: bytes


Lie = Callable[[Packet], Iterator[bytes] | bytes | None]
"""None: the truth. An iterator may go on for as long as anybody listens."""


def framed(payload: bytes, sequence: int, length: int | None = None) -> bytes:
    """A packet; `length` is what its header says, when it is not the truth."""
    said = len(payload) if length is None else length
    return said.to_bytes(3, "little") + bytes([sequence & 0xFF]) + payload


class LyingServer:
    """See the module."""

    def __init__(self, target: int, lie: Lie) -> None:
        self._target = target
        self.lie = lie
        self.lies = 0
        self.sent = 0
        """Bytes of lies that a client has taken."""
        self.heard = bytearray()
        """All that clients said."""
        self._listening = socket.create_server(("127.0.0.1", 0))
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
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                _Talk(self, client, server)


class _Talk:
    """One connection, a thread each way."""

    def __init__(self, owner: LyingServer, client: socket.socket, server: socket.socket) -> None:
        self._owner, self._client, self._server = owner, client, server
        self._command, self._text, self._number = LOGIN, b"", 0
        for way in (self._to_server, self._to_client):
            threading.Thread(target=self._until_gone, args=(way,), daemon=True).start()

    def _until_gone(self, way: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, EOFError):
            way()
        for side in (self._client, self._server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _to_server(self) -> None:
        while True:
            sequence, payload = _read(self._client)
            self._owner.heard += payload
            if sequence == 0 and payload:
                self._command, self._text, self._number = payload[0], payload[1:], 0
            self._server.sendall(framed(payload, sequence))

    def _to_client(self) -> None:
        while True:
            sequence, payload = _read(self._server)
            if self._command == LOGIN and self._number == 0:
                payload = _without_tls(payload)
            packet = Packet(self._command, self._text, self._number, sequence, payload)
            self._number += 1
            said = self._owner.lie(packet)
            if said is None:
                self._client.sendall(framed(payload, sequence))
                continue
            self._owner.lies += 1
            for piece in (said,) if isinstance(said, bytes) else said:
                self._client.sendall(piece)
                self._owner.sent += len(piece)


def _read(side: socket.socket) -> tuple[int, bytes]:
    header = _exactly(side, 4)
    return header[3], _exactly(side, int.from_bytes(header[:3], "little"))


def _exactly(side: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = side.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _without_tls(greeting: bytes) -> bytes:
    """The server's greeting, not offering TLS."""
    at = greeting.index(b"\0", 1) + 1 + 4 + 9
    flags = int.from_bytes(greeting[at : at + 2], "little") & ~_SSL
    return greeting[:at] + flags.to_bytes(2, "little") + greeting[at + 2 :]

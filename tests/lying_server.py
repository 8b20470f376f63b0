"""A MySQL server that lies: a real one's answers, altered packet by packet on their way.

`LyingServer(port, lie)` listens on a free loopback port, passes on to `port` what clients say,
and gives each packet of the server's to `lie`, with what it is an answer to; what comes
back is sent instead, as raw bytes: so a header may be as wrong as what stands behind it.
Without TLS, which a liar would not offer either.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from tests.liar import Liar, Said, Talk, exactly

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


Lie = Callable[[Packet], Said | None]
"""None: the truth."""


def framed(payload: bytes, sequence: int, length: int | None = None) -> bytes:
    """A packet; `length` is what its header says, when it is not the truth."""
    said = len(payload) if length is None else length
    return said.to_bytes(3, "little") + bytes([sequence & 0xFF]) + payload


class _Talk(Talk):
    """One connection: all that the client says is heard."""

    def __init__(self, owner: LyingServer, client: socket.socket, server: socket.socket) -> None:
        super().__init__(owner, client, server)
        self._liar = owner
        self._command, self._text, self._number = LOGIN, b"", 0

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
            self._tell(self._liar.lie(packet), framed(payload, sequence))


def _read(side: socket.socket) -> tuple[int, bytes]:
    header = exactly(side, 4)
    return header[3], exactly(side, int.from_bytes(header[:3], "little"))


def _without_tls(greeting: bytes) -> bytes:
    """The server's greeting, not offering TLS."""
    at = greeting.index(b"\0", 1) + 1 + 4 + 9
    flags = int.from_bytes(greeting[at : at + 2], "little") & ~_SSL
    return greeting[:at] + flags.to_bytes(2, "little") + greeting[at + 2 :]


class LyingServer(Liar):
    """See the module."""

    talk = _Talk

    def __init__(self, target: int, lie: Lie) -> None:
        self.lie = lie
        super().__init__(target)

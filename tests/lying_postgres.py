"""A PostgreSQL server that lies: a real one's answers, altered message by message on their way.

`LyingPostgres(port, lie)` listens on a free loopback port, passes on to `port` what clients say,
and gives each message of the server's to `lie`; what comes back is sent instead, as raw
bytes: so a length may be as wrong as what stands behind it. Clients that ask for encryption are
told that there is none.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from tests.liar import Liar, Said, Talk, exactly

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


Lie = Callable[[Message], Said | None]
"""None: the truth."""


def framed(kind: bytes, payload: bytes, length: int | None = None) -> bytes:
    """A message; `length` is what it says of itself, when that is not the truth."""
    said = len(payload) + 4 if length is None else length
    return kind + said.to_bytes(4, "big") + payload


class _Talk(Talk):
    """One connection: what the client says until it is logged in is heard."""

    def __init__(self, owner: LyingPostgres, client: socket.socket, server: socket.socket) -> None:
        super().__init__(owner, client, server)
        self._liar = owner
        self._logged_in, self._heard = False, b""

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
            said = self._liar.lie(Message(kind, payload, self._logged_in, self._heard))
            self._logged_in = self._logged_in or kind == b"Z"
            self._tell(said, framed(kind, payload))


def _first(side: socket.socket) -> tuple[int, bytes]:
    """A message without a letter: its code, and all of it."""
    length = exactly(side, 4)
    rest = exactly(side, int.from_bytes(length, "big") - 4)
    return int.from_bytes(rest[:4], "big"), length + rest


def _read(side: socket.socket) -> tuple[bytes, bytes]:
    head = exactly(side, 5)
    return head[:1], exactly(side, int.from_bytes(head[1:], "big") - 4)


class LyingPostgres(Liar):
    """See the module."""

    talk = _Talk

    def __init__(self, target: int, lie: Lie) -> None:
        self.lie = lie
        super().__init__(target)

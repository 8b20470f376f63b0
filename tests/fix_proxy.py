"""A network that misbehaves on demand: TCP proxies between the daemons and their servers.

`proxy(port)` listens on a free loopback port and passes bytes on to `port`. What it
does to them can be changed while connections are open, for both directions alike:

    pass_on      nothing (the beginning)
    hold         swallow everything, close nothing: a black hole, as a dropped route is
    hold_answers the same for what the server sends: it does what it is told, and nobody hears of it
    dribble      one byte at a time
    delay(s)     every piece waits for s seconds
    cut          reset all connections now; new ones are refused until `pass_on`
    corrupt(n)   flip one bit of the n-th byte from now that the server sends
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

NewProxy = Callable[[int], "Proxy"]

_PIECE = 1 << 16


class Proxy:
    """One listening port in front of another; a thread of its own moves the bytes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._from_server: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._holding = self._deafening = False
        self._dribbling = self._refusing = self._ended = False
        self._delay = 0.0
        self._spare_bytes: int | None = None
        self.corrupted = 0
        """Bytes that were changed so far."""
        self.connections = 0
        """Connections that were made so far."""
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def pass_on(self) -> None:
        with self._lock:
            self._holding = self._deafening = self._dribbling = self._refusing = False
            self._delay = 0.0
            self._spare_bytes = None

    def hold(self) -> None:
        with self._lock:
            self._holding = True

    def hold_answers(self) -> None:
        with self._lock:
            self._deafening = True

    def dribble(self) -> None:
        with self._lock:
            self._dribbling = True

    def delay(self, seconds: float) -> None:
        with self._lock:
            self._delay = seconds

    def corrupt(self, after: int = 0) -> None:
        with self._lock:
            self._spare_bytes = after

    def cut(self) -> None:
        with self._lock:
            self._refusing = True
            for each in list(self._peers):
                self._drop(each)

    def close(self) -> None:
        self._ended = True
        self._thread.join(timeout=10)
        with self._lock:
            for each in list(self._peers):
                self._drop(each)
        self._listening.close()
        self._selector.close()

    # --- the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(timeout=0.05):
                side = key.fileobj
                assert isinstance(side, socket.socket)
                if side is self._listening:
                    self._accept()
                else:
                    self._move(side)

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        with self._lock:
            if self._refusing:
                _reset(client)
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                _reset(client)
                return
            self.connections += 1
            self._peers[client], self._peers[server] = server, client
            self._from_server.add(server)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(each, selectors.EVENT_READ)

    def _move(self, side: socket.socket) -> None:
        with self._lock:
            peer = self._peers.get(side)
            if peer is None:
                return
            try:
                piece = side.recv(1 if self._dribbling else _PIECE)
                if not piece:
                    self._drop(side)
                elif not (self._holding or (self._deafening and side in self._from_server)):
                    self._pause()
                    peer.sendall(self._spoiled(side, piece))
            except OSError:
                self._drop(side)

    def _pause(self) -> None:
        if self._delay:
            time.sleep(self._delay)

    def _spoiled(self, side: socket.socket, piece: bytes) -> bytes:
        at = self._spare_bytes
        if at is None or side not in self._from_server:
            return piece
        if at >= len(piece):
            self._spare_bytes = at - len(piece)
            return piece
        self._spare_bytes = None
        self.corrupted += 1
        return piece[:at] + bytes([piece[at] ^ 0x10]) + piece[at + 1 :]

    def _drop(self, side: socket.socket) -> None:
        """Close both ends at once, with a reset instead of a good-bye."""
        for each in (side, self._peers.pop(side, None)):
            if each is not None:
                self._peers.pop(each, None)
                self._from_server.discard(each)
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(each)
                _reset(each)


def _reset(side: socket.socket) -> None:
    with contextlib.suppress(OSError):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()


@pytest.fixture
def proxy() -> Iterator[NewProxy]:
    """Makes proxies that end with the test."""
    made: list[Proxy] = []

    def make(target: int) -> Proxy:
        made.append(Proxy(target))
        return made[-1]

    yield make
    for each in made:
        each.close()

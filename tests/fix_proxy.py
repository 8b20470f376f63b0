"""A network that misbehaves on demand: TCP proxies between the daemons and their servers.

`proxy(port)` listens on a free loopback port and passes bytes on to `port`. What it
does to them can be changed while connections are open, for both directions alike:

    pass_on      nothing (the beginning)
    hold         swallow everything, close nothing: a black hole, as a dropped route is
    hold_answers the same for what the server sends: it does what it is told, and nobody hears of it
    dribble      one byte at a time
    delay(s)     every piece waits for s seconds
    cut          reset all connections now; new ones are refused until `pass_on`
    vanish       what a host does that loses its power: neither side hears of the other any more,
                 not even an acknowledgement; who connects gets no answer. `pass_on` brings it back
    corrupt(n)   flip one bit of the n-th byte from now that the server sends, or is sent
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

NewProxy = Callable[[int], "Proxy"]

_PIECE = 1 << 16
_LOOK = 0.02
"""Seconds after which a thread that waits for bytes, or for room, looks what has changed."""
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_KEEP_NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
"""A classic BPF program of one instruction, `ret 0` (<linux/filter.h>): drop the segment."""


class Proxy:
    """One listening port in front of another."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._listening.settimeout(_LOOK)
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self.holding = self.deafening = self.dribbling = False
        self.pause = 0.0
        self._refusing = self._ended = self._vanished = False
        self._spare_bytes: int | None = None
        self._answers = True
        self.corrupted = 0
        """Bytes that were changed so far."""
        self.connections = 0
        """Connections that were made so far."""
        self._thread = threading.Thread(target=self._accept_all, name="proxy", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def pass_on(self) -> None:
        if self._vanished:
            self.cut()  # a host that is back knows of no connection
            self._listening.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        with self._lock:
            self.holding = self.deafening = self.dribbling = self._refusing = False
            self._vanished = False
            self.pause = 0.0
            self._spare_bytes = None

    def hold(self) -> None:
        self.holding = True

    def hold_answers(self) -> None:
        self.deafening = True

    def dribble(self) -> None:
        self.dribbling = True

    def delay(self, seconds: float) -> None:
        self.pause = seconds

    def corrupt(self, after: int = 0, *, answers: bool = True) -> None:
        """`answers`: of what the server sends, rather than of what it is sent."""
        with self._lock:
            self._spare_bytes, self._answers = after, answers

    def cut(self) -> None:
        with self._lock:
            self._refusing = True
            links, self._links = self._links, set()
        for link in links:
            link.cut()

    def vanish(self) -> None:
        with self._lock:
            self._vanished = True
            _drop_all(self._listening)
            for link in self._links:
                link.vanish()

    def close(self) -> None:
        self._ended = True
        self._thread.join(timeout=10)
        self.cut()
        self._listening.close()

    def spoiled(self, piece: bytes, *, answer: bool) -> bytes:
        """What becomes of a piece on its way."""
        with self._lock:
            at = self._spare_bytes
            if at is None or answer != self._answers:
                return piece
            if at >= len(piece):
                self._spare_bytes = at - len(piece)
                return piece
            self._spare_bytes = None
            self.corrupted += 1
        return piece[:at] + bytes([piece[at] ^ 0x10]) + piece[at + 1 :]

    def _accept_all(self) -> None:
        while not self._ended:
            with contextlib.suppress(TimeoutError):
                client, _ = self._listening.accept()
                self._accept(client)

    def _accept(self, client: socket.socket) -> None:
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
            self._links = {link for link in self._links if not link.gone.is_set()}
            self._links.add(_Link(self, client, server))


class _Link:
    """One connection: a thread each way, so that one that is not read holds up no other."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._sides = client, server
        self.gone = threading.Event()
        self._silent = False
        for side in self._sides:
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            side.settimeout(_LOOK)
        ways = ((client, server, False), (server, client, True))
        self._threads = [
            threading.Thread(target=self._pump, args=way, name="link", daemon=True) for way in ways
        ]
        for thread in self._threads:
            thread.start()
        threading.Thread(target=self._bury, name="burial", daemon=True).start()

    def cut(self) -> None:
        """Reset both ends; nothing is open when this returns."""
        self.gone.set()
        for thread in self._threads:
            thread.join(timeout=10)

    def vanish(self) -> None:
        """Both kernels hear nothing any more of ours, which drops whatever they send."""
        self._silent = True
        for side in self._sides:
            with contextlib.suppress(OSError):
                _drop_all(side)

    def _bury(self) -> None:
        for thread in self._threads:
            thread.join()
        for side in self._sides:
            _reset(side)

    def _pump(self, side: socket.socket, peer: socket.socket, from_server: bool) -> None:
        proxy = self._proxy
        try:
            while not self.gone.is_set():
                try:
                    piece = side.recv(1 if proxy.dribbling else _PIECE)
                except TimeoutError:
                    continue
                if self._silent:
                    self.gone.wait()
                if not piece:
                    break
                if proxy.holding or (proxy.deafening and from_server):
                    continue
                if proxy.pause:
                    self.gone.wait(proxy.pause)
                self._send(peer, proxy.spoiled(piece, answer=from_server))
        except OSError:
            pass
        finally:
            self.gone.set()

    def _send(self, peer: socket.socket, piece: bytes) -> None:
        left = memoryview(piece)
        while left and not self.gone.is_set():
            with contextlib.suppress(TimeoutError):
                left = left[peer.send(left) :]


def _drop_all(listener: socket.socket) -> None:
    """Let the kernel drop every segment for this socket before it is looked at, or acknowledged."""
    program = struct.pack("HL", 1, ctypes.addressof(_KEEP_NOTHING))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _reset(side: socket.socket) -> None:
    """Close it with a reset instead of a good-bye."""
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

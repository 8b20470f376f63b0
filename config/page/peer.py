"""The other daemon's account, from its port: soon, or not at all.

Left: where it listens. Right: its account, or None: it may be down, or on another machine.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

from config.page.account import Account, from_json

_ANSWER_SECONDS: Final = 1.0
_MOST_BYTES: Final = 4 << 20
Value = TypeVar("Value")


class Cached(Generic[Value]):
    """A value that is read at most once in `seconds`, by one thread at a time.

    Whoever comes while another reads gets what there is; the first of all waits.
    """

    def __init__(self, seconds: float, read: Callable[[], Value]) -> None:
        self._seconds = seconds
        self._read = read
        self._reading = threading.Lock()
        self._first = threading.Event()
        self._value: Value
        self._until = 0.0

    def get(self) -> Value:
        """The value, at most so old, unless the next one is just being read."""
        if time.monotonic() >= self._until and self._reading.acquire(
            blocking=not self._first.is_set()
        ):
            try:
                if time.monotonic() >= self._until:
                    self._value = self._read()
                    self._until = time.monotonic() + self._seconds
                    self._first.set()
            finally:
                self._reading.release()
        return self._value


def ask_peer(host: str, port: int) -> Account | None:
    """The account of the daemon that listens there."""
    with suppress(OSError, http.client.HTTPException, ValueError):
        return from_json(_get(_reachable(host), port))
    return None


def _reachable(host: str) -> str:
    """An address that listens on all is asked on loopback."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # asked, not bound


def _get(host: str, port: int) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
    deadline = time.monotonic() + 2 * _ANSWER_SECONDS
    try:
        connection.request("GET", "/account.json")
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError("it is not one of ours")
        body = b""
        while piece := answer.read1(1 << 16):
            body += piece
            if len(body) > _MOST_BYTES or time.monotonic() > deadline:
                raise ValueError("too long an answer")
        return body.decode()
    except socket.gaierror as error:
        raise OSError(str(error)) from None
    finally:
        connection.close()

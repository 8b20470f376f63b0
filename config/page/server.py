"""HTTP for a few readers on loopback: GET and HEAD, small requests, short patience.

Left: a function from path and query to an answer. Right: connections, each of one request, on a
thread of its own. The daemon's loop is never waited for and never waits: a reader that is slow,
silent or greedy holds one of a few places, for a bounded time.

The names in a page are nobody else's business, and a browser is easily led to this address under
another name (DNS rebinding): on loopback, only an address or `localhost` is answered to.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import structlog

log = structlog.get_logger()

MOST_CONNECTIONS: Final = 16
MOST_REQUEST_BYTES: Final = 8192
REQUEST_SECONDS: Final = 5.0
"""Within which a request must have come whole."""
ANSWER_SECONDS: Final = 10.0
"""Within which an answer must have been taken."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to a request."""

    body: str | bytes
    kind: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)


Answering = Callable[[str, dict[str, str]], Answer]


class _Refused(Exception):
    """A request that is not answered as it wishes."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class Server:
    """Listens from construction on; `serve` answers until `close`."""

    def __init__(self, host: str, port: int, answer: Answering) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, port), family=family, backlog=32)
        self._answer = answer
        self._closing = False
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._on_loopback = _is_loopback(self._listening.getsockname()[0])
        self._thread = threading.Thread(target=self._serve, name="page", daemon=True)

    @property
    def port(self) -> int:
        """The port, also where 0 was asked for."""
        return int(self._listening.getsockname()[1])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def close(self) -> None:
        """Listen no more; answers under way end by themselves."""
        self._closing = True
        with suppress(OSError):  # wakes the thread
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                if not self._closing:
                    time.sleep(0.05)  # no descriptor is free, say
                continue
            if not self._places.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(
                target=self._attend, args=(connection,), name="page reader", daemon=True
            ).start()

    def _attend(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):
                self._converse(connection)
        finally:
            self._places.release()

    def _converse(self, connection: socket.socket) -> None:
        method = "GET"
        try:
            method, path, query = self._request(connection)
            answer = self._answer(path, query)
        except _Refused as refused:
            extra = {"Allow": "GET, HEAD"} if refused.status is HTTPStatus(405) else {}
            answer = Answer(f"{refused}\n", status=refused.status, headers=extra)
        except Exception as error:
            log.warning("page_failed", error=type(error).__name__)
            answer = Answer(
                "Something went wrong here; the log has a line.\n", status=HTTPStatus(500)
            )
        _send(connection, _response(answer, head=method == "HEAD"))

    def _request(self, connection: socket.socket) -> tuple[str, str, dict[str, str]]:
        head, _, _ = _receive(connection).partition(b"\r\n\r\n")
        try:
            first, *lines = head.decode("ascii").split("\r\n")
            method, target, version = first.split(" ")
        except (UnicodeDecodeError, ValueError):
            raise _Refused(HTTPStatus.BAD_REQUEST) from None
        if not version.startswith("HTTP/1."):
            raise _Refused(HTTPStatus.BAD_REQUEST)
        if method not in ("GET", "HEAD"):
            raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED)
        headers = {
            name.strip().lower(): value for name, _, value in (h.partition(":") for h in lines)
        }
        self._require_our_name(headers.get("host", "").strip())
        try:
            parts = urlsplit(target)
            return method, parts.path, dict(parse_qsl(parts.query, max_num_fields=20))
        except ValueError:
            raise _Refused(HTTPStatus.BAD_REQUEST) from None

    def _require_our_name(self, host: str) -> None:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]").lower()
        if self._on_loopback and name not in ("", "localhost") and not _is_address(name):
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def _receive(connection: socket.socket) -> bytes:
    """A request up to the empty line behind its headers."""
    deadline = time.monotonic() + REQUEST_SECONDS
    received = b""
    while b"\r\n\r\n" not in received:
        left = deadline - time.monotonic()
        if left <= 0:
            raise _Refused(HTTPStatus.REQUEST_TIMEOUT)
        if len(received) >= MOST_REQUEST_BYTES:
            raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        connection.settimeout(left)
        try:
            piece = connection.recv(MOST_REQUEST_BYTES - len(received))
        except TimeoutError:
            raise _Refused(HTTPStatus.REQUEST_TIMEOUT) from None
        if not piece:
            raise _Refused(HTTPStatus.BAD_REQUEST)
        received += piece
    return received


def _response(answer: Answer, *, head: bool) -> bytes:
    body = answer.body.encode() if isinstance(answer.body, str) else answer.body
    headers = {
        "Content-Type": answer.kind,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Connection": "close",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if head else body)


def _send(connection: socket.socket, response: bytes) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    view = memoryview(response)
    while view:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        connection.settimeout(left)
        view = view[connection.send(view) :]
    with suppress(OSError):  # what the reader still says must not make a reset of our good-bye
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(0.2)
        connection.recv(MOST_REQUEST_BYTES)


@contextmanager
def serving(host: str, port: int, answer: Answering) -> Iterator[int]:
    """Answer while inside; yields the port. Raises OSError where it cannot listen there."""
    server = Server(host, port, answer)
    server.start()
    try:
        yield server.port
    finally:
        server.close()

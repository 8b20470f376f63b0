"""What a daemon tells the service manager that started it, and what it asks of it.

Left: the environment that systemd gives a unit with Type=notify. Right: datagrams on
its socket (READY, STATUS, WATCHDOG, RELOADING, STOPPING), in the words of
sd_notify(3). Without a service manager all of it does nothing.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

WATCHDOG_SHARE: Final = 4
"""So many looks are taken, and signs of life sent, within one watchdog time."""
STATUS_SECONDS: Final = 1.0
_DRIVERS: Final = ("/pymysql/", "/psycopg/")


class ServiceManager:
    """The manager's socket; `watchdog_seconds` is its patience, None where it has no end."""

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        self._address = "\0" + address[1:] if address and address[0] == "@" else address
        self.watchdog_seconds = watchdog_seconds
        self._status = ""
        self._next_status = 0.0
        self._steps = 0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> ServiceManager:
        """The manager that started this process, if one did."""
        found = os.environ if environ is None else environ
        patience = found.get("WATCHDOG_USEC", "")
        ours = found.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        seconds = int(patience) / 1e6 if patience.isdigit() and ours else None
        return cls(found.get("NOTIFY_SOCKET") or None, seconds)

    @property
    def present(self) -> bool:
        """Is there a manager that listens?"""
        return self._address is not None

    def ready(self) -> None:
        """Started: settings are sound, and the loop begins."""
        self._send("READY=1")

    def stepped(self, describe: Callable[[], str]) -> None:
        """The loop has come round; `describe` is asked for the status once a second."""
        self._steps += 1
        now = time.monotonic()
        if self.present and now >= self._next_status:
            self._next_status = now + STATUS_SECONDS
            self.status(describe())

    def status(self, words: str) -> None:
        """What `systemctl status` shows; sent when it changes."""
        if words != self._status:
            self._status = words
            self._send("STATUS=" + words.replace("\n", " "))

    def reloading(self) -> None:
        """Settings are read again; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The loop has ended; what is left is closing."""
        self._send("STOPPING=1")

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Ready, watched, and at the end stopping: around the loop."""
        self.ready()
        try:
            with self.watchdog():
                yield
        finally:
            self.stopping()

    # --- the watchdog --------------------------------------------------------------------

    @contextmanager
    def watchdog(self) -> Iterator[None]:
        """Give signs of life from a thread of its own while the calling thread gets on.

        It gets on when its loop comes round, or when it waits for a server's answer: a schema
        change may take an hour there, and a server that is gone is noticed by TCP.
        """
        if not self.present or self.watchdog_seconds is None:
            yield
            return
        over = threading.Event()
        watched = threading.get_ident()
        thread = threading.Thread(
            target=self._watch,
            args=(watched, self.watchdog_seconds / WATCHDOG_SHARE, over),
            name="watchdog",
            daemon=True,
        )
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch(self, watched: int, pause: float, over: threading.Event) -> None:
        seen = -1
        while not over.wait(pause):
            steps = self._steps
            if steps != seen or waits_for_server(sys._current_frames().get(watched)):
                self._send("WATCHDOG=1")
            seen = steps

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        # A manager that does not listen is no reason to stop replicating.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(1.0)
            sender.connect(self._address)
            sender.sendall(message.encode())


def waits_for_server(frame: FrameType | None) -> bool:
    """Is this thread within a database driver's call?"""
    while frame is not None:
        if any(driver in frame.f_code.co_filename for driver in _DRIVERS):
            return True
        frame = frame.f_back
    return False

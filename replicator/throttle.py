"""A ceiling on the bytes that copies read from the source.

Left: how many bytes were read. Right: a wait, where they came faster than allowed. A
bucket that holds a second's worth fills at the rate allowed; reading may overdraw it, for
nobody knows a chunk's size before it came, and whoever comes next waits until the debt is
paid. So the wait falls between two chunks, when nothing is held on the source.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Ceiling:
    """At most `bytes_per_second` over all that share it; zero means no ceiling."""

    def __init__(
        self,
        bytes_per_second: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """`wait` may return early; time alone tells when to go on."""
        self._rate = bytes_per_second
        self._clock = clock
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._lock = threading.Lock()
        self._credit = float(bytes_per_second)
        self._filled = clock()

    def took(self, count: int) -> None:
        """So many bytes have been read."""
        if self._rate:
            with self._lock:
                self._fill()
                self._credit -= count

    def wait(self) -> None:
        """Return when there is no debt, or after `close`."""
        while self._rate and not self._stopped.is_set():
            with self._lock:
                self._fill()
                debt = -self._credit
            if debt < 1:  # less than a byte; time may be too coarse to wait for it
                return
            self._wait(debt / self._rate)

    def close(self) -> None:
        """Nobody waits any more: what reads is being closed."""
        self._stopped.set()

    def _fill(self) -> None:
        now = self._clock()
        self._credit = min(self._rate, self._credit + (now - self._filled) * self._rate)
        self._filled = now

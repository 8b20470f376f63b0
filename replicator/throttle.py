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
from typing import Final

LOOK_SECONDS: Final = 0.5
"""How long somebody waits at most before the rate is asked for again."""


class Ceiling:
    """At most `bytes_per_second` over all that share it; zero means no ceiling."""

    def __init__(
        self,
        bytes_per_second: int | Callable[[], int],
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """`wait` may return early; time alone tells when to go on.

        A function is asked each time, so that the rate may change while somebody waits.
        """
        self._ask = bytes_per_second
        self._rate = self._rate_now()
        self._clock = clock
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._lock = threading.Lock()
        self._credit = float(self._rate)
        self._filled = clock()

    def took(self, count: int) -> None:
        """So many bytes have been read."""
        with self._lock:
            self._fill()
            if self._rate:
                self._credit -= count

    def wait(self) -> None:
        """Return when there is no debt, or after `close`."""
        while not self._stopped.is_set():
            with self._lock:
                self._fill()
                rate, debt = self._rate, -self._credit
            if not rate or debt < 1:  # less than a byte; time may be too coarse to wait for it
                return
            fixed = isinstance(self._ask, int)
            self._wait(debt / rate if fixed else min(debt / rate, LOOK_SECONDS))

    def close(self) -> None:
        """Nobody waits any more: what reads is being closed."""
        self._stopped.set()

    def _rate_now(self) -> int:
        return self._ask if isinstance(self._ask, int) else self._ask()

    def _fill(self) -> None:
        """What has flowed in since; under a new rate, up to its own measure from now on.

        A debt stays a debt, paid at the new rate; only where there was no ceiling there is none.
        """
        now, rate, before = self._clock(), self._rate_now(), self._rate
        credit = self._credit + (now - self._filled) * before
        self._credit = min(rate, credit if before else float(rate))
        self._rate, self._filled = rate, now

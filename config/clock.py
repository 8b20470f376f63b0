"""A server's wall clock, read from afar. Pure.

Left: what the server's clock showed, and our monotonic clock before and after the question.
Right: moments of that server as readings of our monotonic clock, and how far two clocks are
apart. No wall clock of this machine is in it, so setting that one changes no lag.

The answer lies somewhere between question and arrival: half of that time is the error. Of the
last few readings the quickest counts, until one cannot be of the same clock: somebody set it.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

KEPT = 8
SET_SECONDS = 1.0
"""What two readings may differ by beyond their errors; less is drift, or a clock of seconds."""


class _Reading(NamedTuple):
    took: float
    offset: float


class ServerClock:
    """`offset` is the server's time, in seconds since 1970, less our monotonic clock's."""

    def __init__(self, guess: float) -> None:
        """`guess`: an offset to begin with, this machine's own."""
        self._readings: deque[_Reading] = deque(maxlen=KEPT)
        self.offset = guess

    @property
    def known(self) -> bool:
        """Has the server's clock been read?"""
        return bool(self._readings)

    def read(self, wall: float, before: float, after: float) -> None:
        """It showed `wall` at some moment between `before` and `after`."""
        reading = _Reading(after - before, wall - (before + after) / 2)
        errors = (reading.took + min(self._readings, default=reading).took) / 2
        if self._readings and abs(reading.offset - self.offset) > errors + SET_SECONDS:
            self._readings.clear()
        self._readings.append(reading)
        self.offset = min(self._readings).offset

    def moment(self, wall: float) -> float:
        """Our monotonic clock's reading when the server's clock showed `wall`."""
        return wall - self.offset

    def wall(self, moment: float) -> float:
        """What the server's clock shows at one of our moments."""
        return moment + self.offset

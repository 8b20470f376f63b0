"""Hold still until the right-hand side has seen what the left-hand side has shown.

Left: an `Observer`. Right: nothing but the passing of time, or `NotCaughtUp` when a
leg does not come as far within the patience given.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from replicator.binlog.position import SourcePosition
from replicator.cli.observation import Observer


class NotCaughtUp(Exception):
    """A leg did not reach the wanted position in time; the message says which, and where it is."""


class Barrier:
    """Waits for either leg; `patience` in seconds for each wait."""

    def __init__(self, observer: Observer, patience: float) -> None:
        self._observer = observer
        self._patience = patience
        self._replica: SourcePosition | None = None
        self._raw: SourcePosition | None = None

    def replica_shows_source(self) -> None:
        """Return when the replica shows all that the source's binlog holds at the call."""
        wanted = self._observer.source_position()
        if self._replica is None or self._replica < wanted:
            self._replica = self._wait(self._replica_now, wanted, "replicator")

    def raw_shows(self, wanted: SourcePosition) -> None:
        """Return when `raw` shows the source at `wanted`."""
        if self._raw is None or self._raw < wanted:
            self._raw = self._wait(self._raw_now, wanted, "loader")

    def _replica_now(self) -> SourcePosition | None:
        offset = self._observer.replica_offset()
        return offset.position if offset else None

    def _raw_now(self) -> SourcePosition | None:
        offset = self._observer.raw_offset()
        return offset.source if offset else None

    def _wait(
        self, read: Callable[[], SourcePosition | None], wanted: SourcePosition, leg: str
    ) -> SourcePosition:
        deadline = time.monotonic() + self._patience
        interval = 0.005
        while True:
            shown = read()
            if shown is not None and shown >= wanted:
                return shown
            if time.monotonic() >= deadline:
                raise NotCaughtUp(
                    f"the {leg} stayed at {shown or 'its beginning'} for {self._patience:.0f} s;"
                    f" {wanted} was waited for"
                )
            time.sleep(interval)
            interval = min(interval * 1.5, 0.1)

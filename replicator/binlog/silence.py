"""Is a server silent because nothing happens, or does it keep what happens to itself? Pure.

Left: when something was heard, where the reader stands, where the server says that its binlog
ends. Right: when to ask it, and what the answer means.

A server whose binlog is begun anew (RESET MASTER) keeps up the streams of the old one as if
nothing were, heartbeats and all, until the new one is longer.
"""

from __future__ import annotations

from config.errors import ConnectionLost, SourceReset
from replicator.binlog.position import BinlogPosition


class Silence:
    """`patience`: seconds of it after which to ask, and to ask again."""

    def __init__(self, server: str, patience: float, now: float) -> None:
        self._server = server
        self._patience = patience
        self._since = now
        self._end: BinlogPosition | None = None

    def broken(self, now: float) -> None:
        """Something was heard."""
        self._since = now
        self._end = None

    def due(self, now: float) -> bool:
        """Is it time to ask the server where its binlog ends?"""
        return now - self._since >= self._patience

    def judge(self, here: BinlogPosition, end: BinlogPosition, now: float) -> None:
        """Judge its answer, `end`; `here` is up to where its events have come.

        Raises SourceReset where its binlog ends before that, ConnectionLost where it has held
        back events since it was asked before.
        """
        if end < here:
            raise SourceReset(
                f"the {self._server}'s binlog ends at {end}, before {here}, which was read already:"
                " it was begun anew (RESET MASTER)"
            )
        if self._end is not None and here < self._end:
            raise ConnectionLost(
                f"the {self._server}'s binlog goes on behind {here}, but nothing of it comes",
                hint="",
            )
        self._since, self._end = now, end

"""Read views of the source's tables, and the positions that bound what each can have shown.

Left: tables that a copy reads, and the binlog's end, now and a while ago (`settling`). Right:
where a copy's window begins, when its rows may be read, and a view with the position behind
which it shows nothing: InnoDB on MariaDB tells the exact one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from replicator import source as src
from replicator.binlog.position import SourcePosition
from replicator.settling import PositionHistory, Wait, snapshot_position
from replicator.tracking import execute


def _no_wait() -> None:
    """What a table's later chunks wait for."""


class View:
    """What is read in it is of one moment where `position` tells that; else of several."""

    def __init__(self, position: SourcePosition | None, history: PositionHistory) -> None:
        self.position = position
        self._history = history

    def end(self) -> SourcePosition:
        """A position that is not before anything that this view can have shown."""
        return self.position or self._history.now()


class Views:
    """Of one connection to the source, `reader`."""

    def __init__(self, reader: Any, history: PositionHistory, *, mariadb: bool) -> None:
        self._reader = reader
        self._history = history
        self._mariadb = mariadb
        self._waits: dict[str, Wait] = {}
        self._inherited = history.wait_for_all()
        """For copies that another process has begun: their windows are older than this one."""

    def begin(self, tables: Sequence[src.SourceTable], targets: Sequence[str]) -> SourcePosition:
        """Where their windows begin; `ripen` waits until their rows may be read."""
        if all(self.exact(table) for table in tables):
            return self._history.now()
        low, wait = self._history.ripening()
        self._waits.update(dict.fromkeys(targets, wait))
        return low

    def ripen(self, table: src.SourceTable, target: str) -> None:
        """Wait until all that stands before the window is seen by whoever reads."""
        if not self.exact(table):
            self._waits.get(target, self._inherited)()
            self._waits[target] = _no_wait

    def exact(self, table: src.SourceTable) -> bool:
        """Does a view of it tell its position?"""
        return table.transactional and self._mariadb

    @contextmanager
    def open(self, table: src.SourceTable, low: SourcePosition | None = None) -> Iterator[View]:
        """Read the table at one moment; with its exact position where the server tells it.

        That is not before `low`: what stands before the window must be in the view, even where
        the source holds its commit back for long (see `settling`).
        """
        if not self.exact(table):
            yield View(None, self._history)
            return
        if low is not None:
            self._history.wait_for_commits(low)
        execute(self._reader, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
        try:
            yield View(snapshot_position(self._reader), self._history)
        finally:
            execute(self._reader, "COMMIT")

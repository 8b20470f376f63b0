"""Where each table's changes go: straight through, through a copy's window, or nowhere.

Left: a table's name and the position at which its transaction starts. Right: a
`Route`. A table that was copied between the positions `low` and `high` already
holds everything before `low`; what lies between must be reconciled, since some
of its chunks hold it and some do not; from `high` on changes pass as they are.
A table is *held* while rows of it must be read again: then its changes are
reconciled beyond `high` too. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from replicator.binlog.position import SourcePosition


class Via(Enum):
    """How a table's row changes reach their target."""

    PASS = "pass"
    RECONCILE = "reconcile"
    SKIP = "skip"
    COMPLETE = "complete"
    """As it is, and with the virtual columns that it leaves out."""
    MEND = "mend"
    """As it is, and into a copy of some of the table's rows too."""


@dataclass(frozen=True, slots=True)
class Route:
    """The way of one table's changes at one position."""

    via: Via
    target: str
    settled: bool = False
    """Behind the copy's own window: what was not read again since is exact."""
    aside: bool = False
    """Is the target not what its readers know, but a copy of some rows of it?"""
    copy: str = ""
    """MEND: where that copy is."""

    @property
    def ways(self) -> tuple[Route, ...]:
        """The routes that rows take, one after the other."""
        if self.via is not Via.MEND:
            return (self,)
        aside = Route(Via.RECONCILE, self.copy, aside=True)
        return Route(Via.PASS, self.target), aside


_SKIP = Route(Via.SKIP, "")


@dataclass(frozen=True, slots=True)
class Window:
    """The positions between which a table was copied."""

    low: SourcePosition
    high: SourcePosition
    copied: SourcePosition | None = None
    """Where the copy itself ended, if rows were read again behind it; else that is `high`."""

    @property
    def settled(self) -> SourcePosition:
        """From here on the table's rows are exact but for those that were read again since."""
        return self.copied or self.high


class Routes:
    """The tables of one stream.

    `carries` is the operator's filter; `targets` gives known tables and the names
    they bear on the replica (their own, or a hidden copy's).
    """

    def __init__(self, carries: Callable[[str], bool], *, strict: bool = True) -> None:
        self._carries = carries
        self._strict = strict
        self._fast: dict[str, Route] = {}
        self._windows: dict[str, Window] = {}
        self._held: set[str] = set()
        self.unknown: set[str] = set()
        """Tables to be carried that have no route: passed over, and to be copied."""

    def stream(self, table: str, target: str | None = None, window: Window | None = None) -> None:
        """Carry the table; from its window's high end on where one is given."""
        self._fast[table] = Route(Via.PASS, target or table)
        self._held.discard(table)
        if window is None:
            self._windows.pop(table, None)
        else:
            self._windows[table] = window

    def skip(self, table: str) -> None:
        """Pass over the table's changes: its copy is still to come."""
        self._fast[table] = _SKIP
        self._windows.pop(table, None)
        self._held.discard(table)

    def mend(self, table: str, copy: str) -> None:
        """Bring a copy of some rows along with the table that is streamed, until told otherwise."""
        self._fast[table] = Route(Via.MEND, table, copy=copy)

    def mends(self, table: str) -> bool:
        """Is a copy of some rows of the table brought along?"""
        route = self._fast.get(table)
        return route is not None and route.via is Via.MEND

    def streams(self, table: str) -> bool:
        """Do the table's changes pass as they are, wherever they begin?"""
        route = self._fast.get(table)
        return route is not None and route.via is Via.PASS and table not in self._windows

    def hold(self, table: str) -> None:
        """Reconcile the table's changes beyond its window too, until `stream` is called again."""
        if table in self._windows:
            self._held.add(table)

    def forget(self, table: str) -> None:
        """The table is gone."""
        self._fast.pop(table, None)
        self._windows.pop(table, None)
        self._held.discard(table)

    def known(self, table: str) -> bool:
        """Is there a route for this table?"""
        return table in self._fast

    def skips(self, table: str) -> bool:
        """Is the table known and passed over?"""
        return self._fast.get(table) is _SKIP

    def window(self, table: str) -> Window | None:
        """The table's copy window while the stream has not passed it."""
        return self._windows.get(table)

    def inside(self, table: str, start: SourcePosition) -> bool:
        """Are the table's changes reconciled in a transaction that starts at `start`?"""
        window = self._windows.get(table)
        if window is None or start < window.low:
            return False
        return start < window.high or table in self._held

    def windowed(self) -> set[str]:
        """Tables whose window the stream has not passed."""
        return set(self._windows)

    def windows_passed(self, position: SourcePosition) -> list[str]:
        """Tables whose window ends at or before `position`."""
        return [t for t, w in self._windows.items() if w.high <= position]

    def route(self, table: str, start: SourcePosition) -> Route:
        """The route of `table` for a transaction that starts at `start`."""
        route = self._fast.get(table)
        if route is None:
            return self._unknown(table)
        window = self._windows.get(table) if self._windows else None
        if window is None or (start >= window.high and table not in self._held):
            return route
        if start < window.low:
            return _SKIP
        return Route(Via.RECONCILE, route.target, settled=start >= window.settled)

    def _unknown(self, table: str) -> Route:
        self._fast[table] = _SKIP
        if self._strict and self._carries(table):
            self.unknown.add(table)
        return _SKIP

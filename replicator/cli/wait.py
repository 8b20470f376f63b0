"""`replicator wait`: return when what the source holds now is visible in `raw`.

Left: the source's position, read once at the start. Right: an `Arrival`, which says
when `raw` had passed it and every table with it, or what is behind and whether its daemon runs.
A position says nothing of tables that are copied, on either leg: they are waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from config.errors import ReplicatorError, Transient
from replicator.binlog.position import SourcePosition
from replicator.cli.observation import Observer

SHORTEST, LONGEST = 0.02, 0.2
"""Seconds between two looks: the first ones soon, for the answer is usually near."""
NAMED = 5
"""Tables that a message names."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """How waiting ended; `missing` says why it did not end well."""

    wanted: SourcePosition
    raw: SourcePosition | None
    seconds: float
    missing: tuple[str, ...] = ()
    unsettled: tuple[str, ...] = ()
    """Tables that are behind the position, for they are being copied."""

    @property
    def arrived(self) -> bool:
        """Does `raw` show the wanted position, in every table?"""
        return not self.missing


def wait(
    observer: Observer,
    timeout: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Arrival:
    """Wait until `raw` shows what is committed on the source now, at most `timeout` seconds."""
    began = clock()
    wanted = observer.source_position()
    shown: SourcePosition | None = None
    interval = SHORTEST
    while True:
        shown = _shown(observer) or shown
        there = shown is not None and shown >= wanted
        unsettled = _unsettled(observer) if there else None
        spent = clock() - began
        if unsettled == ():
            return Arrival(wanted, shown, spent)
        if spent >= timeout:
            said = missing(observer, wanted, unsettled or ())
            return Arrival(wanted, shown, spent, said, unsettled or ())
        pause(min(interval, timeout - spent))
        interval = min(interval * 1.3, LONGEST)


def _shown(observer: Observer) -> SourcePosition | None:
    """What `raw` shows; None while PostgreSQL is away, which may pass before the time is up."""
    try:
        offset = observer.raw_offset()
    except Transient:
        observer.close()
        return None
    return offset.source if offset else None


def _unsettled(observer: Observer) -> tuple[str, ...] | None:
    """Tables that are being copied; None while a server is away that knows."""
    try:
        return tuple(observer.unsettled())
    except Transient:
        observer.close()
        return None


def missing(
    observer: Observer, wanted: SourcePosition, unsettled: Sequence[str] = ()
) -> tuple[str, ...]:
    """What stands between the source and `raw`, in words."""
    said: list[str] = []
    if unsettled:
        others = f" and {len(unsettled) - NAMED} more" if len(unsettled) > NAMED else ""
        said.append(f"being copied: {', '.join(unsettled[:NAMED])}{others}")
    for look in (_leg_1, _leg_2):
        try:
            said += look(observer, wanted)
        except ReplicatorError as error:
            said.append(str(error))
    return tuple(said) or ("raw was about to show it",)


def _leg_1(observer: Observer, wanted: SourcePosition) -> list[str]:
    offset = observer.replica_offset()
    runs = _word(observer, "replicator", running=observer.replicator_runs())
    if offset is None:
        return [f"the replicator has never copied anything yet and {runs}"]
    if offset.position >= wanted:
        return []
    return [f"the replicator {runs}; the replica shows {offset.position}, wanted {wanted}"]


def _leg_2(observer: Observer, wanted: SourcePosition) -> list[str]:
    offset = observer.raw_offset()
    runs = _word(observer, "loader", running=observer.loader_runs())
    if offset is None or offset.source is None:
        return [f"the loader has never written anything yet and {runs}"]
    if offset.source >= wanted:
        return []
    return [f"the loader {runs}; raw shows {offset.source}, wanted {wanted}"]


def _word(observer: Observer, leg: str, *, running: bool) -> str:
    if leg in observer.asked().paused:
        return "is paused (replicator resume)"
    return "runs" if running else "is not running"

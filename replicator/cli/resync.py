"""`replicator resync`: ask for tables to be reloaded, and watch it happen.

Left: names of tables. Right: rows of `etl_resync_request`, which leg 1 takes up
whether it runs now or later, and what became of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from config.errors import ConfigError, ReplicatorError, Transient, translated
from config.tables import TableRules
from replicator import resync_requests, tracking
from replicator import source as src
from replicator.cli.observation import Observer
from replicator.resync_requests import RequestState
from replicator.tracking import fetch

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """One request as it stands."""

    id: int
    table: str
    state: str
    copied: int
    total: int
    message: str | None

    @property
    def ended(self) -> bool:
        """Is it done, for better or worse?"""
        return self.state in (RequestState.DONE, RequestState.FAILED)


def known_tables(observer: Observer, rules: TableRules) -> set[str]:
    """Tables that could be resynced: of the source, and of the replica's own list.

    The source may be out of reach at the moment; the replica's list then stands alone.
    """
    known: set[str] = set()
    if observer.has_tracking():
        with translated(observer.settings.replication.label):
            known.update(tracking.table_states(observer.replica))
    try:
        with translated(observer.settings.source.label):
            tables = src.base_tables(observer.source, observer.settings.source.db)
            known.update(table.name for table in tables)
    except Transient:
        if not known:
            raise
    return {name for name in known if rules.carries(name)}


def chosen(names: Sequence[str], known: Collection[str]) -> list[str]:
    """`names` without repeats; a ConfigError that helps with those that are not `known`."""
    faults = [_unknown(name, known) for name in names if name not in known]
    if faults:
        raise ConfigError(
            "\n".join(faults), "replicator status lists the tables; nothing was asked for."
        )
    return list(dict.fromkeys(names))


def _unknown(name: str, known: Collection[str]) -> str:
    lowered = {table.lower(): table for table in known}
    near = [lowered[n] for n in get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)]
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"no table {name} is carried{meant}"


def queue(observer: Observer, tables: Iterable[str]) -> list[int]:
    """Enter the requests; those that wait already keep their numbers."""
    if not observer.has_tracking():
        raise ConfigError(
            f"the replica has no {observer.settings.replication.db} with tracking tables yet",
            "Start replicator run once: its first start copies every table anyway.",
        )
    with translated(observer.settings.replication.label):
        connection = observer.replica
        numbers = resync_requests.queue_resync(connection, tables)
        connection.commit()
    return numbers


def progress(observer: Observer, numbers: Sequence[int]) -> list[Progress]:
    """The requests with these numbers."""
    with translated(observer.settings.replication.label):
        rows = fetch(
            observer.replica,
            "SELECT id, table_name, state, rows_copied, rows_total, message"
            " FROM etl_resync_request WHERE id IN %s ORDER BY id",
            [tuple(numbers)],
        )
    return [Progress(*row) for row in rows]


def follow(
    observer: Observer,
    numbers: Sequence[int],
    timeout: float | None,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[list[Progress]]:
    """The requests' progress, again and again, until all have ended or the time is up."""
    deadline = None if timeout is None else clock() + timeout
    while True:
        try:
            now = progress(observer, numbers)
        except Transient:
            observer.close()  # the replica restarts, perhaps: look again until the time is up
            now = []
        if now:
            yield now
        if now and all(request.ended for request in now):
            return
        if deadline is not None and clock() >= deadline:
            return
        pause(POLL_SECONDS)


def daemons_down(observer: Observer) -> list[str]:
    """Which daemons do not run, as far as can be told."""
    down = []
    for name, runs in (("replicator", observer.replicator_runs), ("loader", observer.loader_runs)):
        try:
            if not runs():
                down.append(name)
        except ReplicatorError as error:
            down.append(f"{name} (cannot tell: {error})")
    return down

"""`replicator quarantine`: look at rows that PostgreSQL refused, and work them off.

Left: names of tables and keys. Right: entries of `raw.etl_quarantine` read, marked for the
loader to try again, or forgotten. Only the loader writes to raw tables, so a replay is a wish
that stands in the entry: it is taken up within a second or so, or when the loader next runs.
Keys are told, never values.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from config.errors import ConfigError, Transient, translated
from replicator.cli.observation import Observer, has_table

POLL_SECONDS = 0.2
_TABLE = "etl_quarantine"


@dataclass(frozen=True, slots=True)
class Entry:
    """A row in quarantine, without what it holds."""

    table: str
    name: str
    """What the tracking table calls it."""
    key: dict[str, str | None] | None
    operation: str
    reason: str
    copies: int
    raw_has_old_row: bool
    source_position: str | None
    source_commit_time: str | None
    replica_position: str | None
    quarantined_at: str
    attempts: int
    replay_requested: bool
    image_bytes: int | None

    @property
    def shown(self) -> str:
        """The key as people write it; a digest of a row without one."""
        if self.key is None:
            return self.name
        return ", ".join("NULL" if value is None else value for value in self.key.values())

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "shown": self.shown}


def read_entries(
    observer: Observer, table: str | None = None, keys: Sequence[str] = ()
) -> list[Entry]:
    """The entries in the order of their coming; ConfigError for a key that has none."""
    connection = observer.analytics
    with translated(observer.settings.analytics.label):
        if not has_table(connection, _TABLE):
            return []
        rows = connection.execute(
            "SELECT table_name, key, key_values, operation, reason, copies, raw_has_old_row,"
            " source_binlog_file, source_binlog_position, source_event_timestamp,"
            " replica_binlog_file, replica_binlog_position, quarantined_at, attempts,"
            " replay_requested_at IS NOT NULL, octet_length(row_image) FROM etl_quarantine"
            " WHERE %s::text IS NULL OR table_name = %s ORDER BY quarantined_at, table_name, key",
            [table, table],
        ).fetchall()
    found = [_entry(row) for row in rows]
    if not keys:
        return found
    missing = [k for k in keys if not any(k in (one.shown, one.name) for one in found)]
    if missing:
        raise ConfigError(
            f"not in quarantine: {table} {'; '.join(missing)}",
            f"replicator quarantine list {table} shows what is there; nothing was done.",
        )
    return [one for one in found if one.shown in keys or one.name in keys]


def _entry(row: Sequence[Any]) -> Entry:
    table, name, key, operation, reason, copies, stale, *positions, attempts, asked, size = row
    source_file, source_at, committed, replica_file, replica_at, since = positions
    return Entry(
        table,
        name,
        key,
        operation,
        reason,
        copies,
        stale,
        f"{source_file}:{source_at}" if source_file else None,
        _moment(committed),
        f"{replica_file}:{replica_at}" if replica_file else None,
        _moment(since) or "",
        attempts,
        asked,
        size,
    )


def _moment(when: datetime | None) -> str | None:
    return when.astimezone(UTC).isoformat() if when else None


def counted(entries: Sequence[Entry]) -> str:
    """How many rows of which tables, in words."""
    counts: Counter[str] = Counter()
    for one in entries:
        counts[one.table] += one.copies
    return ", ".join(f"{rows(count)} of {table}" for table, count in sorted(counts.items()))


def rows(count: int) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def rows_by_table(observer: Observer) -> dict[str, int]:
    """Rows in quarantine, of tables that have any."""
    connection = observer.analytics
    with translated(observer.settings.analytics.label):
        if not has_table(connection, _TABLE):
            return {}
        found = connection.execute("SELECT table_name, sum(copies) FROM etl_quarantine GROUP BY 1")
        return {name: int(count) for name, count in found}


def request(observer: Observer, entries: Sequence[Entry]) -> None:
    """Ask the loader to try these again."""
    _each(
        observer,
        entries,
        "UPDATE etl_quarantine SET replay_requested_at = clock_timestamp()"
        " WHERE (table_name, key) IN (SELECT * FROM unnest(%s::text[], %s::text[]))",
    )


def forget(observer: Observer, entries: Sequence[Entry]) -> int:
    """Drop the entries as they were looked at; how many that were.

    One whose row has been refused again since is another row's, and stays.
    """
    return _each(
        observer,
        entries,
        "DELETE FROM etl_quarantine WHERE (table_name, key, quarantined_at) IN"
        " (SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[]))",
        [one.quarantined_at for one in entries],
    )


def _each(
    observer: Observer, entries: Sequence[Entry], statement: str, *more: Sequence[str]
) -> int:
    with translated(observer.settings.analytics.label):
        return observer.analytics.execute(
            statement, [[one.table for one in entries], [one.name for one in entries], *more]
        ).rowcount


def follow(
    observer: Observer,
    asked: Sequence[Entry],
    timeout: float | None,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[list[Entry]]:
    """What is left of the entries, again and again, until all were tried or the time is up."""
    wanted = {(one.table, one.name) for one in asked}
    deadline = None if timeout is None else clock() + timeout
    while True:
        try:
            left = [one for one in read_entries(observer) if (one.table, one.name) in wanted]
            yield left
            if not any(one.replay_requested for one in left):
                return
        except Transient:
            observer.close()  # PostgreSQL restarts, perhaps: look again until the time is up
        if deadline is not None and clock() >= deadline:
            return
        pause(POLL_SECONDS)

"""The first copy: every table of the source, one chunk after another, before streaming.

Left: the tables whose state is `copying`. Right: the same tables as `reconciling`,
each with the window in which it was read; the stream, which starts at the position
from before the first chunk, takes them through it. Every chunk is a resumable place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from config import metrics
from config.connections import quote_mysql_identifier as quote
from replicator import source as src
from replicator import tracking
from replicator.snapshot import TableChanged, TableCopier, TableGone
from replicator.tracking import CopyProgress, Offset, TableState, execute

log = structlog.get_logger(__name__)

LOG_SECONDS = 5.0
"""Between two lines about a copy under way."""


def begin_first_copy(replica: Any, offset: Offset, tables: Sequence[src.SourceTable]) -> None:
    """Record what is to be copied, and where streaming will start, in one transaction.

    Also the way past a position that cannot be reached any more: whatever was known before
    is copied anew, and requests that wait are answered by it.
    """
    for engine in sorted({t.engine for t in tables} - {"InnoDB"}):
        count = sum(t.engine == engine for t in tables)
        log.info("engine_replaced", engine=engine, tables=count, stored="InnoDB")
    gone = sorted(set(tracking.table_states(replica)) - {t.name for t in tables})
    hidden = sorted(t for t in tracking.copy_progresses(replica) if t.startswith("_resync_"))
    for table_name in [*gone, *hidden]:
        execute(replica, f"DROP TABLE IF EXISTS {quote(table_name)}")
    execute(replica, "BEGIN")
    for table_name in gone:
        tracking.forget_table(replica, table_name)
    for target in tracking.copy_progresses(replica):
        tracking.forget_progress(replica, target)
    for table in tables:
        tracking.set_state(replica, table.name, TableState.COPYING)
    tracking.restart_requests(replica)
    for table_name in gone:
        tracking.fail_restarted(replica, table_name)
    tracking.forget_offset(replica, tracking.RESYNC)
    tracking.write_offset(replica, offset)
    execute(replica, "COMMIT")
    log.info("first_copy_started", tables=len(tables), position=str(offset.position))


@dataclass(frozen=True, slots=True)
class CopyStage:
    """How far the first copy is; `rows_expected` rests on the engine's estimates."""

    table: str
    tables_done: int
    tables: int
    rows: int
    rows_expected: int


Watch = Callable[[CopyStage], None]


def log_stages() -> Watch:
    """A watcher that logs now and then."""
    last = time.monotonic()

    def watch(stage: CopyStage) -> None:
        nonlocal last
        if time.monotonic() - last >= LOG_SECONDS:
            last = time.monotonic()
            log.info("first_copy_goes_on", **asdict(stage))

    return watch


class FirstCopy:
    """Copies the tables named; `step` does one chunk, and tells `watch`."""

    def __init__(
        self,
        copier: TableCopier,
        replica: Any,
        catalog: Any,
        source_db: str,
        tables: list[str],
        watch: Watch,
    ) -> None:
        self._watch = watch
        self._copier = copier
        self._replica = replica
        self._there = {t.name: t for t in src.base_tables(catalog, source_db)}
        self._waiting = sorted(tables, reverse=True)
        self._progress = tracking.copy_progresses(replica)
        self._current: CopyProgress | None = None
        self._done = 0
        self._tables = len(tables)
        self._rows = sum(p.rows for name, p in self._progress.items() if name in tables)
        self._expected = sum(t.rows for name, t in self._there.items() if name in tables)

    def step(self) -> bool:
        """Copy one more chunk; True when every table is copied."""
        if not self._waiting:
            log.info("first_copy_finished", tables=self._done)
            return True
        name = self._waiting[-1]
        table = self._there.get(name)
        try:
            if table is None:
                raise TableGone(name)
            self._chunk(table)
        except TableGone:
            log.info("table_vanished", table=name)
            tracking.set_state(self._replica, name, TableState.VANISHED)
            tracking.fail_restarted(self._replica, name)
            tracking.fail_restarted(self._replica, name)
            self._next()
        except TableChanged:
            log.info("copy_begins_again", tables=[name], reason="its definition changed")
            self._current = None
            self._progress.pop(name, None)
        return False

    def _chunk(self, table: src.SourceTable) -> None:
        progress = self._current or self._progress.get(table.name)
        if progress is None:
            progress = self._copier.begin(table, table.name)
        before = progress.rows
        if not progress.complete:
            progress = self._copier.copy_chunk(table, progress)
        metrics.COPIED_ROWS.labels("replicator").inc(progress.rows - before)
        self._rows += progress.rows - before
        self._current = progress
        if progress.complete:
            self._finish(progress)
        self._watch(
            CopyStage(
                table.name, self._done, self._tables, self._rows, max(self._expected, self._rows)
            )
        )

    def _finish(self, progress: CopyProgress) -> None:
        tracking.set_state(
            self._replica, progress.target, TableState.RECONCILING, rows=progress.rows
        )
        log.info(
            "table_copied",
            table=progress.target,
            rows=progress.rows,
            tables_left=len(self._waiting) - 1,
        )
        self._done += 1
        self._next()

    def _next(self) -> None:
        self._waiting.pop()
        self._current = None

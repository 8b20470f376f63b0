"""The first copy: every table of the source, several at once, before streaming.

Left: the tables whose state is `copying`. Right: the same tables as `reconciling`,
each with the window in which it was read; the stream, which starts at the position
from before the first chunk, takes them through it. Every chunk is a resumable place.

Each worker is a thread with connections of its own and copies one table at a time,
the large ones first, the small ones in groups. What they have done comes to the main
thread as news, and it alone writes what the loader sees.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import structlog

from config import metrics
from config.connections import connect_source
from config.connections import quote_mysql_identifier as quote
from config.errors import translated
from config.failpoints import reach
from replicator import copy_progress, resync_requests, tracking
from replicator import replica as rep
from replicator import source as src
from replicator.copy_progress import CopyProgress
from replicator.reconcile import Reconciler
from replicator.snapshot import TableCopier
from replicator.targets import TableChanged, TableGone
from replicator.tracking import Offset, TableState, execute

if TYPE_CHECKING:
    from replicator.session import Session

log = structlog.get_logger(__name__)

LOG_SECONDS = 5.0
"""Between two lines about a copy under way."""
NEWS_SECONDS = 0.5
"""How long a step waits for something to happen."""
SMALL_BYTES = 256 << 10
"""A table not larger than this, by the engine's estimate, is copied in company."""
GROUP_TABLES, GROUP_BYTES = 16, 4 << 20
CLOSE_SECONDS = 10.0


def begin_first_copy(replica: Any, offset: Offset, tables: Sequence[src.SourceTable]) -> None:
    """Record what is to be copied, and where streaming will start, in one transaction.

    Also the way past a position that cannot be reached any more: whatever was known before
    is copied anew, and requests that wait are answered by it.
    """
    for engine in sorted({t.engine for t in tables} - {"InnoDB"}):
        count = sum(t.engine == engine for t in tables)
        log.info("engine_replaced", engine=engine, tables=count, stored="InnoDB")
    known = set(tracking.table_states(replica)) | _half_made(replica)
    gone = sorted(known - {t.name for t in tables})
    hidden = sorted(t for t in copy_progress.copy_progresses(replica) if t.startswith("_resync_"))
    for table_name in [*gone, *hidden]:
        execute(replica, f"DROP TABLE IF EXISTS {quote(table_name)}")
    execute(replica, "BEGIN")
    for table_name in gone:
        tracking.forget_table(replica, table_name)
    for target in copy_progress.copy_progresses(replica):
        copy_progress.forget_progress(replica, target)
    tracking.set_states(replica, TableState.COPYING, [table.name for table in tables])
    resync_requests.restart_requests(replica)
    for table_name in gone:
        resync_requests.fail_restarted(replica, table_name)
    tracking.forget_offset(replica, tracking.RESYNC)
    tracking.write_offset(replica, offset)
    execute(replica, "COMMIT")
    reach("copy.begun")
    log.info("first_copy_started", tables=len(tables), position=str(offset.position))


def _half_made(replica: Any) -> set[str]:
    """Tables that a schema change may have made, which a death has left unnoted."""
    offset = tracking.read_offset(replica, tracking.MAIN)
    pending = json.loads(offset.pending_ddl or "{}") if offset is not None else {}
    return set(pending["signatures"]) if pending.get("what") == "ddl" else set()


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


Job = list[src.SourceTable]
"""Tables that one worker takes together."""


def jobs_of(tables: Iterable[src.SourceTable], begun: Iterable[str], workers: int) -> deque[Job]:
    """The large ones alone and first, so that none is left over for the end; then groups.

    A table whose copy has begun is alone too. Groups are so small that each worker has some.
    """
    begun = set(begun)
    alone: list[tuple[int, src.SourceTable]] = []
    small: list[tuple[int, src.SourceTable]] = []
    for table in tables:
        size = table.rows * table.average_row_bytes
        (alone if table.name in begun or size > SMALL_BYTES else small).append((size, table))
    alone.sort(key=lambda one: -one[0])
    jobs = deque([table] for _size, table in alone)
    most = max(1, min(GROUP_TABLES, -(-len(small) // workers)))
    group: Job = []
    together = 0
    for size, table in small:
        if group and (len(group) >= most or together + size > GROUP_BYTES):
            jobs.append(group)
            group, together = [], 0
        group.append(table)
        together += size
    if group:
        jobs.append(group)
    return jobs


@dataclass(frozen=True, slots=True)
class Copied:
    """A table's copy has come so far; None where the source has the table no more."""

    table: str
    progress: CopyProgress | None


class Worker(threading.Thread):
    """Takes jobs until there are none, or it is told to stop; tells what it does as news.

    The last news is None, or what went wrong.
    """

    def __init__(
        self,
        copier: TableCopier,
        jobs: deque[Job],
        begun: dict[str, CopyProgress],
        news: queue.SimpleQueue[Copied | BaseException | None],
        number: int,
    ) -> None:
        super().__init__(name=f"copy-{number}", daemon=True)
        self.copier = copier
        self._jobs = jobs
        self._begun = begun
        self._news = news
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End behind the chunk under way."""
        self._stopping.set()

    def run(self) -> None:
        """The thread's work."""
        try:
            while not self._stopping.is_set():
                try:
                    job = self._jobs.popleft()
                except IndexError:
                    break
                self._copy(job)
        except BaseException as error:
            self._news.put(error)
        else:
            self._news.put(None)

    def _copy(self, job: Job) -> None:
        if len(job) == 1:
            self._copy_table(job[0], self._begun.get(job[0].name))
            return
        for table, outcome in zip(job, self.copier.copy_small(job), strict=True):
            if isinstance(outcome, TableGone):
                self._tell(table, None)
            elif isinstance(outcome, CopyProgress):
                self._tell(table, outcome)
                if not outcome.complete:
                    self._copy_table(table, outcome)
            else:
                self._begin_again(table)
                self._copy_table(table, None)

    def _copy_table(self, table: src.SourceTable, progress: CopyProgress | None) -> None:
        while not self._stopping.is_set():
            try:
                if progress is None:
                    progress = self.copier.begin(table, table.name)
                if not progress.complete:
                    progress = self.copier.copy_chunk(table, progress)
                self._tell(table, progress)
                if progress.complete:
                    return
            except TableGone:
                self._tell(table, None)
                return
            except TableChanged:
                self._begin_again(table)
                progress = None

    def _begin_again(self, table: src.SourceTable) -> None:
        log.info("copy_begins_again", tables=[table.name], reason="its definition changed")

    def _tell(self, table: src.SourceTable, progress: CopyProgress | None) -> None:
        self._news.put(Copied(table.name, progress))


class FirstCopy:
    """Copies the tables named; `step` waits for news and records it, and tells `watch`."""

    def __init__(
        self,
        open_copier: Callable[[], TableCopier],
        workers: int,
        replica: Any,
        catalog: Any,
        source_db: str,
        tables: list[str],
        watch: Watch,
    ) -> None:
        """`open_copier` is called for each of at most so many workers."""
        self._watch = watch
        self._replica = replica
        there = {t.name: t for t in src.base_tables(catalog, source_db) if t.name in set(tables)}
        missing = [src.base_table(catalog, source_db, name) for name in set(tables) - set(there)]
        there |= {table.name: table for table in missing if table is not None}
        self._gone = sorted(set(tables) - set(there))
        begun = copy_progress.copy_progresses(replica)
        self._rows = {name: p.rows for name, p in begun.items() if name in there}
        self._expected = sum(t.rows for t in there.values())
        self._tables, self._done = len(tables), 0
        jobs = jobs_of(there.values(), begun, workers)
        self._news: queue.SimpleQueue[Copied | BaseException | None] = queue.SimpleQueue()
        self._workers = [
            Worker(open_copier(), jobs, begun, self._news, number)
            for number in range(min(workers, len(jobs)))
        ]
        self._busy = len(self._workers)
        for worker in self._workers:
            worker.start()

    def close(self) -> None:
        """Stop the workers; what they have written stays, and the next copy goes on from it."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.copier.sever()
        for worker in self._workers:
            worker.join(CLOSE_SECONDS)

    def step(self) -> bool:
        """Record what has been done since; True when every table is copied."""
        self._replica.ping(reconnect=False)  # it holds the lock, and has little else to do
        copied = self._heard()
        for name in self._gone:
            copied.append(Copied(name, None))
        self._gone = []
        self._record(copied)
        if self._busy:
            return False
        log.info("first_copy_finished", tables=self._done)
        return True

    def _heard(self) -> list[Copied]:
        """All news there are; waits a while for the first. Raises what a worker died of."""
        copied: list[Copied] = []
        wait = NEWS_SECONDS if self._busy and not self._gone else 0.0
        with suppress(queue.Empty):
            while True:
                one = self._news.get(timeout=wait)
                if one is None:
                    self._busy -= 1
                elif isinstance(one, BaseException):
                    raise one
                else:
                    copied.append(one)
                wait = 0.0
        return copied

    def _record(self, copied: list[Copied]) -> None:
        if not copied:
            return
        for one in copied:
            self._count(one)
        self._end([one for one in copied if one.progress is None or one.progress.complete])
        rows = sum(self._rows.values())
        last = copied[-1].table
        self._watch(CopyStage(last, self._done, self._tables, rows, max(self._expected, rows)))

    def _count(self, one: Copied) -> None:
        if one.progress is not None:
            before = self._rows.get(one.table, 0)
            metrics.COPIED_ROWS.labels("replicator").inc(max(0, one.progress.rows - before))
            self._rows[one.table] = one.progress.rows

    def _end(self, ended: list[Copied]) -> None:
        """These tables are done with, all in one transaction."""
        if not ended:
            return
        there = {one.table: one.progress.rows for one in ended if one.progress is not None}
        gone = [one.table for one in ended if one.progress is None]
        execute(self._replica, "BEGIN")
        tracking.set_states(self._replica, TableState.RECONCILING, there)
        tracking.set_states(self._replica, TableState.VANISHED, gone)
        for name in gone:
            resync_requests.fail_restarted(self._replica, name)
        execute(self._replica, "COMMIT")
        reach("copy.ended")
        for one in ended:
            self._done += 1
            if one.progress is None:
                log.info("table_vanished", table=one.table)
            else:
                left = self._tables - self._done
                log.info("table_copied", table=one.table, rows=one.progress.rows, tables_left=left)


def open_first_copy(session: Session, tables: list[str], watch: Watch) -> FirstCopy:
    """A first copy with connections of its own, which are closed with the session."""
    settings = session.settings

    def open_copier() -> TableCopier:
        hidden = session.kept(rep.open_side(settings.replication, session.replica))
        admin = session.kept(rep.open_side(settings.replication, session.replica))
        return session.copier(
            session.kept(connect_source(settings)),
            session.kept(session.raw_source()),
            hidden,
            Reconciler(hidden, admin, settings.replication.db),
        )

    with translated("source or replica"):
        copy = FirstCopy(
            open_copier,
            settings.replicator.copy_connections,
            session.replica,
            session.catalog,
            settings.source.db,
            tables,
            watch,
        )
    session.kept(copy)
    return copy

"""Copy tables from the source in primary-key chunks, without a lock, resumably.

Left: read-only connections to the source. Right: rows in tables on the replica,
written as row events like everything else, with each copy's place in the same
transaction. What changes on the source meanwhile is not this module's business:
it notes the window of positions (`low`, `high`) in which the chunks were read,
and the stream reconciles the table with its events of that window.

The hidden part of a window is the commit gap: a transaction is in the binlog
before readers see it. InnoDB on MariaDB tells a snapshot's exact position; for
anything else `settling` says how long to wait for what stands before the window: the
wait falls behind the table's creation. A copy that another process has begun is read
when all is visible that stood in the binlog as this copier was made.

While a chunk is written, the next one is read already. That moves no position: `low`
is from before the first read, `high` from behind the last, and what a transaction
of ours commits is a chunk and the key that ends it, in the order of keys. A chunk
that was read and not written is as if it had never been asked for.

A window begins before the table's definition is read, and a schema change in it means that the
table is copied again. So a window may shrink to the one moment of a view, or of a lock, only if
the definition was the same at that moment as when the table was created from it: all of it, for
a default, an index, a partition that is missed is missed for good. While a view is open that has
read from the table, and under a lock, no schema change ends; there the source is asked for it.

Small tables go in company: one look at the binlog's end before all of them and one
behind, one snapshot, one catalog query, one transaction. Their windows are wider for
it, never narrower.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pymysql
import structlog

from config.connections import quote_mysql_identifier as quote
from config.errors import SchemaDrift, ServerBusy
from config.failpoints import reach
from replicator import source as src
from replicator.binlog.catalog import CatalogTable, read_catalog
from replicator.binlog.events import TableMap
from replicator.binlog.position import SourcePosition
from replicator.binlog.schema import schemas_from_catalog
from replicator.binlog.statement import binlog_statement
from replicator.chunks import Chunk, Key, TablePlan, Writer
from replicator.copy_progress import (
    CopyProgress,
    forget_keys,
    keys_to_read,
    note_keys_read,
    save_progress,
    save_progresses,
)
from replicator.packets import execute_events, fits
from replicator.read_views import View, Views
from replicator.reconcile import Reconciler
from replicator.settling import PATIENCE, PositionHistory
from replicator.targets import TableChanged, TableGone, Targets
from replicator.throttle import Ceiling
from replicator.tracking import execute, execute_bytes

log = structlog.get_logger(__name__)

_NO_SUCH_TABLE, _DEFINITION_CHANGED, _UNKNOWN_COLUMN, _DUPLICATE_KEY = 1146, 1412, 1054, 1062
_TABLE_EXISTS, _NO_KEY_FOR_NUMBERS = 1050, 1075
_KEYS_AT_ONCE, _MOST_KEYS = 500, 10_000
"""Rows that are read again by one statement, and before the stream goes on."""
_POLL = 0.01


@dataclass(slots=True)
class _Read:
    """A chunk that was read, and what its view says of it."""

    chunk: Chunk
    high: SourcePosition | None
    """The end of the window, where this is the last chunk."""
    whole: SourcePosition | None
    """The one moment of which this is the whole table, where it is."""


@dataclass(slots=True)
class _Ahead:
    """The chunk behind `key` of `target`, on its way."""

    target: str
    key: Key | None
    read: Future[_Read]


class TableCopier:
    """Copies tables one chunk at a call; for one thread, and one of its own that reads ahead.

    `catalog` and `reader` are two connections to the source: one for definitions, one
    that gives every value as the bytes it is stored in. `replica` writes no binlog.
    """

    def __init__(
        self,
        catalog: Any,
        reader: Any,
        replica: Any,
        reconciler: Reconciler,
        *,
        source_db: str,
        replica_db: str,
        identity: src.Identity,
        replica_identity: src.Identity,
        history: PositionHistory,
        chunk_rows: int,
        lock: bool,
        ceiling: Ceiling | None = None,
    ) -> None:
        self.catalog = catalog
        self._reader = reader
        self._replica = replica
        self._reconciler = reconciler
        self._source_db = source_db
        self._replica_db = replica_db
        self._identity = identity
        self._writer = Writer(identity.server_id, 1 if replica_identity.mariadb else 2)
        self._history = history
        self._views = Views(reader, history, mariadb=identity.mariadb)
        self._targets = Targets(catalog, replica, identity, replica_identity, replica_db)
        self._chunk_rows = chunk_rows
        self._lock = lock
        self._ceiling = ceiling or Ceiling(0)
        self._plan: TablePlan | None = None
        self._ahead: _Ahead | None = None
        self._pool = ThreadPoolExecutor(1, "copy-reader")
        # Defaults of TIMESTAMP columns are spelled in the session's zone, and ours there is UTC.
        execute(catalog, "SET time_zone='+00:00'")

    def close(self) -> None:
        """Read ahead no more; the connections are the caller's."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def sever(self) -> None:
        """End what any thread waits for: its connections are cut, and not to be used again."""
        self._ceiling.close()
        for connection in (self.catalog, self._reader, self._replica):
            stream = vars(connection).get("_sock")
            with suppress(Exception):
                stream.shutdown(socket.SHUT_RDWR)
        self.close()

    # --- the target ----------------------------------------------------------------------

    def begin(self, table: src.SourceTable, target: str) -> CopyProgress:
        """Create the target, empty, with the source's definition; note where the window begins."""
        low = self._views.begin([table], [target])
        progress = self._create(table, target, low)
        save_progress(self._replica, progress)
        self._plan = None
        return progress

    def _create(self, table: src.SourceTable, target: str, low: SourcePosition) -> CopyProgress:
        self._targets.create(table.name, target)
        reach("copy.created")
        return CopyProgress(target, table.name, low=low, expected=table.rows)

    def begin_later(self) -> None:
        """The next window shall begin behind what has happened by now."""
        self._history.forget()

    # --- small tables in company ---------------------------------------------------------

    def copy_small(self, tables: Sequence[src.SourceTable]) -> list[CopyProgress | Exception]:
        """Begin tables that are about a chunk together at most, and copy each one's first chunk.

        For each its progress, which `copy_chunk` continues where it is not complete, or
        `TableGone` or `TableChanged`.
        """
        outcomes: dict[str, CopyProgress | Exception] = {}
        low = self._views.begin(tables, [table.name for table in tables])
        for table in tables:
            try:
                outcomes[table.name] = self._create(table, table.name, low)
            except TableGone as gone:
                outcomes[table.name] = gone
        catalog = read_catalog(
            self._replica,
            self._replica_db,
            [name for name, one in outcomes.items() if isinstance(one, CopyProgress)],
        )
        plans = {
            table.name: self._planned(table, catalog[table.name])
            for table in tables
            if table.name in catalog
        }
        alone = {table.name for table in tables if table.name in plans}
        read: list[tuple[TablePlan, Chunk, CopyProgress]] = []
        for exact in (True, False):
            some = [t for t in tables if t.name in alone and self._views.exact(t) == exact]
            some = [t for t in some if plans[t.name].chunked]
            read += self._read_small(some, plans, outcomes)
        self._write_small(read)
        outcomes.update({after.target: after for _plan, _chunk, after in read})
        begun = {after.target for _plan, _chunk, after in read}
        rest = [one for one in outcomes.values() if isinstance(one, CopyProgress)]
        save_progresses(self._replica, [one for one in rest if one.target not in begun])
        return [outcomes[table.name] for table in tables]

    def _read_small(
        self,
        tables: Sequence[src.SourceTable],
        plans: dict[str, TablePlan],
        outcomes: dict[str, CopyProgress | Exception],
    ) -> list[tuple[TablePlan, Chunk, CopyProgress]]:
        """Their first chunks out of one view; what fails is noted in `outcomes`."""
        if not tables:
            return []
        chunks: dict[str, Chunk] = {}
        self._ceiling.wait()
        self._views.ripen(tables[0], tables[0].name)
        begun = outcomes[tables[0].name]
        with self._views.open(
            tables[0], begun.low if isinstance(begun, CopyProgress) else None
        ) as view:
            for table in tables:
                try:
                    chunks[table.name] = self._first_chunk(table, plans[table.name])
                except (TableGone, TableChanged) as error:
                    outcomes[table.name] = error
            for name in [name for name, chunk in chunks.items() if chunk.last and view.position]:
                try:
                    self._targets.require_same(name, name)
                except (TableGone, TableChanged) as error:
                    del chunks[name]
                    outcomes[name] = error
            high = view.end()
        done = []
        for name, chunk in chunks.items():
            progress = outcomes[name]
            assert isinstance(progress, CopyProgress)
            after = replace(progress, key=chunk.key, rows=chunk.rows)
            if chunk.last and view.position is None:
                after = replace(after, high=high)
            elif chunk.last:
                after = replace(after, low=view.position, high=view.position)
            done.append((plans[name], chunk, after))
        return done

    def _first_chunk(self, table: src.SourceTable, plan: TablePlan) -> Chunk:
        with self._told(table, plan):
            return plan.read_chunk(self._reader, None)

    def _write_small(self, read: list[tuple[TablePlan, Chunk, CopyProgress]]) -> None:
        """One transaction; where that fails over a key, each table in its own."""
        if not read:
            return
        try:
            execute(self._replica, "BEGIN")
            for plan, chunk, _after in read:
                self._apply(plan, chunk.events)
            save_progresses(self._replica, [after for _plan, _chunk, after in read])
            execute(self._replica, "COMMIT")
            reach("copy.group_committed")
        except pymysql.IntegrityError as error:
            if error.args[0] != _DUPLICATE_KEY:
                raise
            execute(self._replica, "ROLLBACK")
            for plan, chunk, after in read:
                self._write(plan, chunk, after)

    # --- the rows ------------------------------------------------------------------------

    def copy_chunk(self, table: src.SourceTable, progress: CopyProgress) -> CopyProgress:
        """Copy the next chunk and save the place behind it; `complete` after the last."""
        if self._plan is None or self._plan.target != progress.target:
            catalog = read_catalog(self._replica, self._replica_db, [progress.target])
            self._plan = self._planned(table, catalog[progress.target])
        try:
            with self._told(table, self._plan):
                if self._plan.chunked:
                    return self._copy_next_keys(self._plan, table, progress)
                return self._copy_whole(self._plan, table, progress)
        except BaseException:
            self._plan = None
            self._forget_ahead()
            raise

    def _planned(self, table: src.SourceTable, catalog: CatalogTable) -> TablePlan:
        src.require_readable(self._identity, table.name, catalog)
        return TablePlan(catalog, table, self._writer, self._chunk_rows, self._ceiling)

    @contextmanager
    def _told(self, table: src.SourceTable, plan: TablePlan) -> Iterator[None]:
        """Say of the source's answers what they mean for the table."""
        try:
            yield
        except pymysql.MySQLError as error:
            code = error.args[0] if error.args else None
            if code == _NO_SUCH_TABLE:
                raise TableGone(table.name) from None
            if code in (_DEFINITION_CHANGED, _UNKNOWN_COLUMN):
                raise TableChanged(table.name) from None
            raise
        except SchemaDrift:
            if not self._same_shape(table, plan):
                raise TableChanged(table.name) from None
            raise

    def _same_shape(self, table: src.SourceTable, plan: TablePlan) -> bool:
        now = schemas_from_catalog(self.catalog, self._source_db, [table.name]).get(table.name)
        return now is not None and now.hash == plan.schema.hash

    def _copy_next_keys(
        self, plan: TablePlan, table: src.SourceTable, progress: CopyProgress
    ) -> CopyProgress:
        read = self._next_chunk(plan, table, progress.key, progress.low)
        reach("copy.read")
        chunk = read.chunk
        after = replace(progress, key=chunk.key, rows=progress.rows + chunk.rows, high=read.high)
        if read.whole is not None:
            after = replace(after, low=read.whole, high=read.whole)
        if not chunk.last:
            self._ahead = _Ahead(
                plan.target,
                chunk.key,
                self._pool.submit(self._read, plan, table, chunk.key, progress.low),
            )
        self._write(plan, chunk, after)
        return after

    def _next_chunk(
        self, plan: TablePlan, table: src.SourceTable, key: Key | None, low: SourcePosition | None
    ) -> _Read:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            read = ahead.read.result()
            if (ahead.target, ahead.key) == (plan.target, key):
                return read
        return self._read(plan, table, key, low)

    def _forget_ahead(self) -> None:
        """Nothing reads any more."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            with suppress(Exception):
                ahead.read.result()

    def _read(
        self, plan: TablePlan, table: src.SourceTable, key: Key | None, low: SourcePosition | None
    ) -> _Read:
        self._ceiling.wait()
        self._views.ripen(table, plan.target)
        with self._views.open(table, low) as view:
            chunk = plan.read_chunk(self._reader, key)
            if not chunk.last:
                return _Read(chunk, None, None)
            if key is None and view.position is not None:
                self._targets.require_same(table.name, plan.target)
                return _Read(chunk, view.position, view.position)
            return _Read(chunk, view.end(), None)

    def _copy_whole(
        self, plan: TablePlan, table: src.SourceTable, progress: CopyProgress
    ) -> CopyProgress:
        locked = self._lock and not self._views.exact(table)
        self._views.ripen(table, plan.target)
        if locked:
            execute(self.catalog, f"LOCK TABLES {quote(table.name)} READ")
        try:
            with self._views.open(table, progress.low) as view:
                return self._write_whole(plan, table, progress, view, locked)
        finally:
            if locked:
                execute(self.catalog, "UNLOCK TABLES")

    def _write_whole(
        self,
        plan: TablePlan,
        table: src.SourceTable,
        progress: CopyProgress,
        view: View,
        locked: bool,
    ) -> CopyProgress:
        rows = 0
        if locked or view.position is not None:
            self._targets.require_same(table.name, plan.target)
        execute(self._replica, "BEGIN")
        for chunk in self._one_ahead(plan.read_all(self._reader, paced=not locked)):
            rows += chunk.rows
            self._apply(plan, chunk.events)
        after = replace(progress, rows=rows, high=view.end())
        if locked:
            after = replace(after, low=after.high)
        elif view.position is not None:
            self._targets.require_same(table.name, plan.target)
            after = replace(after, low=view.position, high=view.position)
        save_progress(self._replica, after)
        execute(self._replica, "COMMIT")
        reach("copy.whole_committed")
        return after

    def _one_ahead(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """The same, each read while the one before is worked on."""
        waiting = self._pool.submit(next, chunks, None)
        try:
            while (chunk := waiting.result()) is not None:
                waiting = self._pool.submit(next, chunks, None)
                yield chunk
        finally:
            with suppress(Exception):
                waiting.result()

    def _write(self, plan: TablePlan, chunk: Chunk, after: CopyProgress) -> None:
        try:
            self._write_once(plan, chunk, after, replacing=False)
        except pymysql.IntegrityError as error:
            if error.args[0] != _DUPLICATE_KEY:
                raise
            # A second unique key moved between rows while chunks were read: the row that is
            # there is stale, and its own event in the window will set it right.
            execute(self._replica, "ROLLBACK")
            self._write_once(plan, chunk, after, replacing=True)
            self._reconciler.finish(plan.target)

    def _write_once(
        self, plan: TablePlan, chunk: Chunk, after: CopyProgress, *, replacing: bool
    ) -> None:
        execute(self._replica, "BEGIN")
        self._apply(plan, chunk.events, replacing=replacing)
        save_progress(self._replica, after)
        reach("copy.before_commit")
        execute(self._replica, "COMMIT")
        reach("copy.committed")

    def _apply(self, plan: TablePlan, events: list[bytes], *, replacing: bool = False) -> None:
        for event in events:
            if replacing:
                self._reconciler.put(plan.target, TableMap(plan.table_map), event)
            else:
                self._send(plan, event)

    def _send(self, plan: TablePlan, event: bytes) -> None:
        events = plan.table_map + event
        statement = binlog_statement(events)
        if fits(self._replica, len(statement)):
            execute_bytes(self._replica, statement)
        else:
            execute_events(self._replica, events, plan.source)

    # --- rows that must be read again ----------------------------------------------------

    def read_again(
        self, table: src.SourceTable, progress: CopyProgress, reached: SourcePosition
    ) -> CopyProgress:
        """Read rows anew whose keys the reconciliation has noted, some thousands at most.

        The stream has passed the table's window and stands at `reached`. What is read shows all
        that stands before that, and is a window of its own: the table's goes on to its end.
        """
        plan = self._planned(
            table, read_catalog(self._replica, self._replica_db, [progress.target])[progress.target]
        )
        forget_keys(self._replica, progress.target, read_again=True)  # their window is passed
        keys = keys_to_read(self._replica, progress.target, _MOST_KEYS)
        if not self._views.exact(table):
            self._history.wait_for_all()()
        with self._told(table, plan):
            while keys:
                chunk, some, end = self._read_keys(plan, table, keys, reached)
                keys = keys[len(some) :]
                progress = replace(progress, high=max(end, progress.high or end))
                self._write_again(plan, chunk, some, progress)
        if not self._same_shape(table, plan):
            raise TableChanged(table.name)
        return progress

    def _read_keys(
        self, plan: TablePlan, table: src.SourceTable, keys: list[str], reached: SourcePosition
    ) -> tuple[Chunk, list[str], SourcePosition]:
        """The rows of the first keys, which they were, and where they were read."""
        some = keys[: min(plan.limit, _KEYS_AT_ONCE)]
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self._ceiling.wait()
            with self._views.open(table) as view:
                if view.position is None or view.position >= reached:
                    chunk = plan.read_keys(self._reader, some)
                    if chunk.last:
                        return chunk, some, view.end()
                    some = some[: max(1, len(some) // 2)]
                    continue
            time.sleep(_POLL)  # the snapshot is behind the binlog: the commit gap is open
        raise ServerBusy(
            f"table {table.name}: readers of the source have not seen what stands before {reached}"
            f" in its binlog for {PATIENCE:.0f} seconds",
        )

    def _write_again(
        self, plan: TablePlan, chunk: Chunk, keys: list[str], progress: CopyProgress
    ) -> None:
        execute(self._replica, "BEGIN")
        execute(self._replica, f"DELETE FROM {quote(plan.target)} WHERE {plan.having(keys)}")
        for event in chunk.events:
            self._reconciler.put_again(plan.target, TableMap(plan.table_map), event)
        note_keys_read(self._replica, plan.target, keys)
        save_progress(self._replica, progress)
        reach("window.read_again")
        execute(self._replica, "COMMIT")

    def read_rows(
        self, table: src.SourceTable, target: str, keys: Sequence[str], reached: SourcePosition
    ) -> SourcePosition:
        """Copy the rows with these keys into the empty `target`.

        They show all that stands before `reached`, and nothing from behind the position that is
        returned. Raises `TableChanged` where the target has another shape than the source.
        """
        plan = self._planned(table, read_catalog(self._replica, self._replica_db, [target])[target])
        if not self._views.exact(table):
            self._history.wait_for_all()()
        high, left = reached, list(keys)
        with self._told(table, plan):
            while left:
                chunk, some, end = self._read_keys(plan, table, left, reached)
                left, high = left[len(some) :], max(high, end)
                execute(self._replica, "BEGIN")
                self._apply(plan, chunk.events)
                execute(self._replica, "COMMIT")
        if not self._same_shape(table, plan):
            raise TableChanged(table.name)
        return high

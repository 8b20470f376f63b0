"""Copy a table from the source in primary-key chunks, without a lock, resumably.

Left: a read-only connection to the source. Right: rows in a table on the replica,
written as row events like everything else, with the copy's place in the same
transaction. What changes on the source meanwhile is not this module's business:
it notes the window of positions (`low`, `high`) in which the chunks were read,
and the stream reconciles the table with its events of that window.

The hidden part of a window is the commit gap: a transaction is in the binlog
before readers see it. InnoDB on MariaDB tells a snapshot's exact position; for
anything else the window starts at a position that is old enough.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pymysql
from pymysql.cursors import SSCursor

from config.connections import quote_mysql_identifier as quote
from config.errors import CopyRefused, SchemaDrift
from replicator import source as src
from replicator.batch import binlog_statement
from replicator.binlog.catalog import read_catalog
from replicator.binlog.ddl import Dialect, Execute, decide
from replicator.binlog.events import TableMap
from replicator.binlog.position import SourcePosition
from replicator.binlog.rowimage import RowImageEncoder, TableLayout, build_table_map, rows_event
from replicator.binlog.schema import TableSchema, schemas_from_catalog
from replicator.reconcile import Reconciler
from replicator.tracking import CopyProgress, execute, execute_bytes, fetch, save_progress

CHUNK_BYTES = 4 << 20
"""Rows asked for at once are bounded by their expected size too."""
_COPY_TABLE_ID = 0xFFFF_FFFF_FFE0
_NO_SUCH_TABLE, _DEFINITION_CHANGED, _UNKNOWN_COLUMN, _DUPLICATE_KEY = 1146, 1412, 1054, 1062
_KEY_TYPES = frozenset(
    {"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "char", "varchar"}
    | {"binary", "varbinary", "date", "datetime"}
)


class TableGone(Exception):
    """The table is not on the source any more."""


class TableChanged(Exception):
    """The table's definition changed while it was copied: begin again."""


class TableCopier:
    """Copies tables one chunk at a call.

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
        history: src.PositionHistory,
        chunk_rows: int,
        lock: bool,
    ) -> None:
        self.catalog = catalog
        self._reader = reader
        self._replica = replica
        self._reconciler = reconciler
        self._source_db = source_db
        self._replica_db = replica_db
        self._identity = identity
        self._rows_v2 = not replica_identity.mariadb
        self._history = history
        self._chunk_rows = chunk_rows
        self._lock = lock
        self._plan: _Plan | None = None

    # --- the target ----------------------------------------------------------------------

    def begin(self, table: src.SourceTable, target: str) -> CopyProgress:
        """Create the target, empty, with the source's definition; note where the window begins."""
        exact = self._exact(table)
        low = self._history.now() if exact else self._history.settled()
        create = self._definition(table.name)
        execute(self._replica, f"DROP TABLE IF EXISTS {quote(target)}")
        execute(self._replica, self._create_on_replica(table.name, target, create))
        progress = CopyProgress(target, table.name, low=low, expected=table.rows)
        save_progress(self._replica, progress)
        self._plan = None
        return progress

    def begin_later(self) -> None:
        """The next window shall begin behind what has happened by now."""
        self._history.forget()

    def _definition(self, table: str) -> str:
        try:
            return src.create_statement(self.catalog, table)
        except pymysql.ProgrammingError as error:
            if error.args[0] == _NO_SUCH_TABLE:
                raise TableGone(table) from None
            raise

    def _create_on_replica(self, table: str, target: str, create: str) -> str:
        if "FOREIGN KEY" in create.upper() and " REFERENCES " in create.upper():
            raise CopyRefused(
                f"table {table} has a foreign key: changes that it cascades are not in the binlog",
                hint=f'Drop the constraint on the source, or exclude "{table}" in tables.toml.',
            )
        head = f"CREATE TABLE {quote(table)} "
        if not create.startswith(head):
            raise CopyRefused(
                f"the definition of {table} is not one of a base table",
                hint=f'Exclude "{table}" in tables.toml.',
            )
        verdict = decide(
            f"CREATE TABLE {quote(target)} " + create[len(head) :],
            default_database=self._replica_db,
            source_db=self._replica_db,
            replica_db=self._replica_db,
            carries=lambda _table: True,
            dialect=Dialect(server_version=self._identity.number),
        )
        if not isinstance(verdict, Execute):
            raise CopyRefused(
                f"the definition of {table} cannot be repeated on the replica",
                hint=f'Exclude "{table}" in tables.toml.',
            )
        return verdict.sql

    # --- the rows ------------------------------------------------------------------------

    def copy_chunk(self, table: src.SourceTable, progress: CopyProgress) -> CopyProgress:
        """Copy the next chunk and save the place behind it; `complete` after the last."""
        if self._plan is None or self._plan.target != progress.target:
            self._plan = _Plan(
                self._replica, self._replica_db, table, progress.target, self._chunk_rows
            )
        try:
            if self._plan.chunked:
                return self._copy_next_keys(self._plan, table, progress)
            return self._copy_whole(self._plan, table, progress)
        except pymysql.MySQLError as error:
            self._plan = None
            code = error.args[0] if error.args else None
            if code == _NO_SUCH_TABLE:
                raise TableGone(table.name) from None
            if code in (_DEFINITION_CHANGED, _UNKNOWN_COLUMN):
                raise TableChanged(table.name) from None
            raise

    def _copy_next_keys(
        self, plan: _Plan, table: src.SourceTable, progress: CopyProgress
    ) -> CopyProgress:
        with self._view(table) as view:
            rows = plan.read_chunk(self._reader, progress.key)
            last = len(rows) < plan.limit
            high = view.end(self._history) if last else None
        after = replace(
            progress,
            key=plan.key_of(rows[-1]) if rows else progress.key,
            rows=progress.rows + len(rows),
            high=high,
        )
        if last and progress.key is None and view.position is not None:
            after = self._narrowed(table, after, view.position, plan)
        self._write(plan, [rows], after)
        plan.learn(rows)
        return after

    def _copy_whole(
        self, plan: _Plan, table: src.SourceTable, progress: CopyProgress
    ) -> CopyProgress:
        locked = self._lock and not self._exact(table)
        if locked:
            execute(self.catalog, f"LOCK TABLES {quote(table.name)} READ")
        try:
            with self._view(table) as view:
                count = [0]
                after = self._write_whole(plan, table, progress, view, count, locked)
        finally:
            if locked:
                execute(self.catalog, "UNLOCK TABLES")
        return after

    def _write_whole(
        self,
        plan: _Plan,
        table: src.SourceTable,
        progress: CopyProgress,
        view: _View,
        count: list[int],
        locked: bool,
    ) -> CopyProgress:
        execute(self._replica, "BEGIN")
        for rows in plan.read_all(self._reader):
            count[0] += len(rows)
            self._apply(plan, rows)
        after = replace(progress, rows=count[0], high=view.end(self._history))
        if locked:
            after = replace(after, low=after.high)
        elif view.position is not None:
            after = self._narrowed(table, after, view.position, plan)
        save_progress(self._replica, after)
        execute(self._replica, "COMMIT")
        return after

    def _narrowed(
        self, table: src.SourceTable, progress: CopyProgress, position: SourcePosition, plan: _Plan
    ) -> CopyProgress:
        """One exact view held the whole table: its window is a point, unless its shape moved."""
        now = schemas_from_catalog(self.catalog, self._source_db, [table.name]).get(table.name)
        if now is None or now.hash != plan.schema.hash:
            raise TableChanged(table.name)
        return replace(progress, low=position, high=position)

    def _write(self, plan: _Plan, chunks: Sequence[list[Any]], after: CopyProgress) -> None:
        try:
            self._write_once(plan, chunks, after, replacing=False)
        except pymysql.IntegrityError as error:
            if error.args[0] != _DUPLICATE_KEY:
                raise
            # A second unique key moved between rows while chunks were read: the row that is
            # there is stale, and its own event in the window will set it right.
            execute(self._replica, "ROLLBACK")
            self._write_once(plan, chunks, after, replacing=True)
            self._reconciler.finish(plan.target)

    def _write_once(
        self, plan: _Plan, chunks: Sequence[list[Any]], after: CopyProgress, *, replacing: bool
    ) -> None:
        execute(self._replica, "BEGIN")
        for rows in chunks:
            if rows:
                self._apply(plan, rows, replacing=replacing)
        save_progress(self._replica, after)
        execute(self._replica, "COMMIT")

    def _apply(self, plan: _Plan, rows: list[Any], *, replacing: bool = False) -> None:
        for part in plan.images(rows):
            event = rows_event(
                _COPY_TABLE_ID,
                plan.encoder.layout.width,
                part,
                timestamp=int(time.time()),
                server_id=self._identity.server_id,
                version=2 if self._rows_v2 else 1,
            )
            if replacing:
                self._reconciler.apply(plan.target, TableMap(plan.table_map), event)
            else:
                execute_bytes(self._replica, binlog_statement(plan.table_map + event))

    # --- read views ----------------------------------------------------------------------

    def _exact(self, table: src.SourceTable) -> bool:
        return table.transactional and self._identity.mariadb

    @contextmanager
    def _view(self, table: src.SourceTable) -> Iterator[_View]:
        """Read the table at one moment; with its exact position where the server tells it."""
        if not self._exact(table):
            yield _View(None)
            return
        execute(self._reader, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
        try:
            status = dict(fetch(self._reader, "SHOW STATUS LIKE 'binlog_snapshot_%'"))
            file, offset = status[b"Binlog_snapshot_file"], status[b"Binlog_snapshot_position"]
            yield _View(SourcePosition(file.decode(), int(offset)))
        finally:
            execute(self._reader, "COMMIT")


class _View:
    def __init__(self, position: SourcePosition | None) -> None:
        self.position = position

    def end(self, history: src.PositionHistory) -> SourcePosition:
        """A position that is not before anything that this view can have shown."""
        return self.position or history.now()


class _Plan:
    """How one table is read and written; made from the replica's catalog."""

    def __init__(
        self, replica: Any, database: str, table: src.SourceTable, target: str, chunk_rows: int
    ) -> None:
        self.target = target
        layout = TableLayout.of(read_catalog(replica, database, [target])[target])
        self.encoder = RowImageEncoder(layout)
        self.table_map = build_table_map(_COPY_TABLE_ID, database, layout)
        self.schema: TableSchema = schemas_from_catalog(replica, database, [target])[target]
        self._rows_limit = chunk_rows
        self.limit = self._limit(table.average_row_bytes)
        self._table = quote(table.name)
        self._select = f"SELECT {', '.join(self.encoder.select_list)} FROM {self._table}"
        self._key = [self.schema.columns[i] for i in self.schema.primary_key]
        names = [field.name for field in layout.fields]
        self._key_index = [names.index(c.name) for c in self._key]
        self.chunked = bool(self._key) and all(c.type.base in _KEY_TYPES for c in self._key)

    def _limit(self, row_bytes: float) -> int:
        return max(1, min(self._rows_limit, int(CHUNK_BYTES / max(row_bytes, 1.0))))

    def learn(self, rows: list[Any]) -> None:
        """Size the next chunk by this one's rows."""
        if rows:
            total = sum(len(v) for row in rows[:100] for v in row if v is not None)
            self.limit = self._limit(total / min(len(rows), 100))

    def read_chunk(self, reader: Any, after: tuple[str, ...] | None) -> list[Any]:
        """The next `limit` rows in key order."""
        names = [quote(c.name) for c in self._key]
        where = f" WHERE {_behind(names, after)}" if after else ""
        sql = f"{self._select}{where} ORDER BY {', '.join(names)} LIMIT {self.limit}"
        return fetch(reader, sql)

    def read_all(self, reader: Any) -> Iterator[list[Any]]:
        """All rows in pieces, streamed."""
        with reader.cursor(SSCursor) as cursor:
            cursor.execute(self._select)
            while rows := cursor.fetchmany(self.limit):
                yield list(rows)

    def key_of(self, row: Sequence[bytes | None]) -> tuple[str, ...]:
        """A row's primary key as SQL literals."""
        return tuple(
            _literal(column.type.base, column.type.charset, row[index])
            for column, index in zip(self._key, self._key_index, strict=True)
        )

    def images(self, rows: list[Any]) -> Iterator[list[bytes]]:
        """Row images in parts that fit a statement."""
        part: list[bytes] = []
        size = 0
        for row in rows:
            image = self.encoder.encode(row)
            part.append(image)
            size += len(image)
            if size > CHUNK_BYTES:
                yield part
                part, size = [], 0
        if part:
            yield part


def _behind(names: list[str], after: tuple[str, ...]) -> str:
    """The rows behind a key, in a form that an index can serve."""
    terms = []
    for depth in range(len(names)):
        equal = [f"{n} = {v}" for n, v in zip(names[:depth], after[:depth], strict=True)]
        terms.append(" AND ".join([*equal, f"{names[depth]} > {after[depth]}"]))
    bound = f"{names[0]} >= {after[0]} AND " if len(names) > 1 else ""
    return f"{bound}({' OR '.join(terms)})"


def _literal(base: str, charset: str | None, value: bytes | None) -> str:
    if value is None:
        raise SchemaDrift("a primary key holds NULL", hint="Report the table's definition.")
    if base in ("char", "varchar"):
        return f"_{charset} x'{value.hex()}'"
    if base in ("binary", "varbinary"):
        return f"x'{value.hex()}'"
    text = value.decode("ascii")
    return f"'{text}'" if base in ("date", "datetime") else text

"""Copy tables from the replica into helper tables, each at a known watermark.

Left: requests naming tables. Right: `LoadedTable`s, whose rows stand complete in
helper tables of `raw` (`_load_…` for a table that `raw` does not have yet,
`_reload_…` beside one that it has), with the source position that they show. The
stream goes on meanwhile; `merge` puts the copies in place later.

Order matters. First the tables' metadata locks, so that their shape stands still;
then the snapshot, which the read of leg 1's offset row opens; then the binlog's
end. So the stream has passed everything in the copy, the schema changes before it
included, once it has passed `after`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pymysql
from psycopg import sql
from pymysql.converters import encoders
from pymysql.cursors import SSCursor

from config.connections import MySQLConnection, PostgresConnection, quote_mysql_identifier
from config.errors import ReplicatorError, ServerBusy, classify
from loader import replica, schema, selected, tracking
from loader.replica import SourceMark
from loader.schema import LOAD, RELOAD, RawTable, helper_name, quoted
from loader.types import CLOSING_COLUMNS, raw_columns, raw_name
from loader.upsert import blocks, exception_key
from loader.values import NULL, Faults, ValueFault, escaped
from replicator.binlog.position import ReplicaPosition
from replicator.binlog.schema import TableSchema, schemas_from_catalog

GROUP_TABLES = 64
GROUP_BYTES = 32 << 20
"""Small tables share a snapshot: so many at most, of so many bytes together."""
ANALYZE_FROM = 10_000
"""Copies of so many rows are analysed, so that the merge is planned with their size known."""
_CHANGED_UNDER_US = (1146, 1412)
_ATTEMPTS = 5

RAW_BYTES: dict[Any, Any] = dict(encoders)
"""PyMySQL's `conv` for a connection whose values shall come as bytes."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A table to copy. `first`: `raw` has no such table, the copy becomes it."""

    table: str
    first: bool
    generation: int
    cancelled: threading.Event = field(default_factory=threading.Event, compare=False)

    @property
    def helper(self) -> str:
        """The helper table that the rows go to."""
        return helper_name(LOAD if self.first else RELOAD, self.table)


@dataclass(frozen=True, slots=True)
class LoadedTable:
    """A copy that is whole. `schema` is None when the replica has no such table."""

    request: LoadRequest
    schema: TableSchema | None
    mark: SourceMark | None
    before: ReplicaPosition
    """The binlog's end before the snapshot: schema changes up to here are in the copy."""
    after: ReplicaPosition
    """The binlog's end behind the snapshot: nothing in the copy lies beyond it."""
    rows: int = 0
    faults: int = 0
    """Values that PostgreSQL cannot hold, noted under the helper table's name."""


def shape_of(table_schema: TableSchema) -> RawTable:
    """The raw table that a schema on the replica wants."""
    columns = raw_columns(table_schema)
    return RawTable(columns, tuple(columns[index].name for index in table_schema.primary_key))


@dataclass(slots=True)
class Connections:
    """What a copy needs: rows as bytes, the catalog as text, and PostgreSQL."""

    rows: MySQLConnection
    catalog: MySQLConnection
    postgres: PostgresConnection

    def close(self) -> None:
        """Close all three."""
        self.close_replica()
        with suppress(psycopg.Error, OSError):
            self.postgres.close()

    def close_replica(self) -> None:
        """Close the two that lead to the replica."""
        for connection in (self.rows, self.catalog):
            with suppress(pymysql.MySQLError, OSError):
                connection.close()


class CopyCancelled(Exception):
    """Nobody wants this copy any more."""


class Copier:
    """Copies groups of tables; used by the worker thread, and by the daemon for keyless tables."""

    def __init__(self, connections: Connections, database: str) -> None:
        self._rows = connections.rows
        self._catalog = connections.catalog
        self._postgres = connections.postgres
        self._database = database
        with self._rows.cursor() as cursor:
            for statement in selected.SESSION:
                cursor.execute(statement)

    def groups(self, requests: Sequence[LoadRequest]) -> Iterator[list[LoadRequest]]:
        """Small tables together, large ones alone, small ones first."""
        sizes = self._sizes()
        group: list[LoadRequest] = []
        held = 0
        for request in sorted(requests, key=lambda r: sizes.get(r.table, 0)):
            size = sizes.get(request.table, 0)
            if group and (len(group) >= GROUP_TABLES or held + size > GROUP_BYTES):
                yield group
                group, held = [], 0
            group.append(request)
            held += size
        if group:
            yield group

    def _sizes(self) -> dict[str, int]:
        with self._catalog.cursor() as cursor:
            cursor.execute(
                "SELECT table_name, COALESCE(data_length, 0) FROM information_schema.tables"
                " WHERE table_schema = %s AND table_type <> 'VIEW'",
                (self._database,),
            )
            return {name: int(size) for name, size in cursor.fetchall()}

    def copy(self, requests: Sequence[LoadRequest]) -> list[LoadedTable]:
        """Copy one group at one snapshot into its helper tables; commits them."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._attempt([r for r in requests if not r.cancelled.is_set()])
            except CopyCancelled:
                continue
            except pymysql.err.MySQLError as error:
                if error.args[0] not in _CHANGED_UNDER_US:
                    raise
                if attempt == _ATTEMPTS:
                    raise ServerBusy("tables on the replica change too fast to be copied") from None
            finally:
                self._end()
        raise AssertionError("unreachable")

    def _end(self) -> None:
        with suppress(pymysql.MySQLError, OSError), self._rows.cursor() as cursor:
            cursor.execute("ROLLBACK")
        with suppress(psycopg.Error):
            self._postgres.rollback()

    def _attempt(self, requests: Sequence[LoadRequest]) -> list[LoadedTable]:
        opened = self.open([request.table for request in requests])
        loaded = [self._one(request, opened) for request in requests]
        self._postgres.commit()
        return loaded

    def open(self, tables: Sequence[str]) -> Snapshot:
        """Lock the shapes of those tables that exist, and open a snapshot of their rows."""
        before = replica.binlog_end(self._catalog)
        present = [table for table in tables if table in self._sizes()]
        with self._rows.cursor() as cursor:
            cursor.execute("BEGIN")
            if present:
                cursor.execute(" UNION ALL ".join(map(self._locking, present)))
                cursor.fetchall()
        mark = replica.read_mark(self._rows, self._database)
        after = replica.binlog_end(self._catalog)
        schemas = schemas_from_catalog(self._catalog, self._database, present)
        return Snapshot(before, after, mark, schemas)

    def _locking(self, table: str) -> str:
        return f"(SELECT 1 FROM {self._qualified(table)} LIMIT 0)"

    def _qualified(self, table: str) -> str:
        return f"{quote_mysql_identifier(self._database)}.{quote_mysql_identifier(table)}"

    def _one(self, request: LoadRequest, opened: Snapshot) -> LoadedTable:
        table_schema = opened.schemas.get(request.table)
        result = LoadedTable(request, table_schema, opened.mark, opened.before, opened.after)
        if table_schema is None or not table_schema.primary_key:
            return result  # without a key: see `keyless`
        shape = shape_of(table_schema)
        schema.drop_helpers(self._postgres, [request.helper])
        schema.create_table(self._postgres, request.helper, shape, unlogged=not request.first)
        rows, faults = self.fill(
            request.helper, table_schema, opened.mark, request.cancelled.is_set
        )
        if request.first and shape.key:
            name = schema.key_name(raw_name(request.table))
            schema.add_key(self._postgres, request.helper, name, shape.key)
        if rows >= ANALYZE_FROM:
            self._postgres.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(request.helper)))
        return replace(result, rows=rows, faults=faults)

    def _cancelled(self) -> CopyCancelled:
        """End the running SELECT, so that closing its cursor need not read it to the end."""
        running: int = self._rows.thread_id()  # type: ignore[no-untyped-call]
        with self._catalog.cursor() as cursor:
            cursor.execute("KILL QUERY %s", (running,))
        return CopyCancelled()

    def fill(
        self,
        target: str,
        table_schema: TableSchema,
        mark: SourceMark | None,
        cancelled: Callable[[], bool],
    ) -> tuple[int, int]:
        """Copy the snapshot's rows into the table `target`; return (rows, faulty values).

        Value exceptions are kept under the name `target`, until the merge renames them.
        """
        reader = TableReader(table_schema)
        ending = b"\t" + _now(self._postgres) + b"\t" + _stamp(mark)
        copy = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(target), quoted((*shape_of(table_schema).names, *_CLOSING))
        )
        source = self._qualified(table_schema.name)
        with _unread(self._rows.cursor(SSCursor)) as rows:
            rows.execute(f"SELECT {reader.select_list} FROM {source}")
            with self._postgres.cursor() as cursor, cursor.copy(copy) as sink:
                lines = (line + ending for line in reader.lines(rows))
                for block in blocks(lines):
                    if cancelled():
                        raise self._cancelled()
                    sink.write(block)
        position = mark.position if mark else None
        if reader.faults:
            tracking.add_exceptions(self._postgres, target, reader.faults, position)
        return reader.rows, len(reader.faults)


@contextmanager
def _unread(cursor: SSCursor) -> Iterator[SSCursor]:
    """Close an unbuffered cursor; what is wrong with the rest of its rows is of no interest."""
    try:
        yield cursor
    finally:
        with suppress(pymysql.MySQLError, OSError):
            cursor.close()


_CLOSING = tuple(name for name, _ in CLOSING_COLUMNS)


def _now(connection: PostgresConnection) -> bytes:
    row = connection.execute("SELECT clock_timestamp()::text").fetchone()
    return str(row[0]).encode() if row else NULL


def _stamp(mark: SourceMark | None) -> bytes:
    return escaped(mark.source_ts.encode()) if mark and mark.source_ts else NULL


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An open snapshot of the replica: what it shows, and where it lies in the binlog."""

    before: ReplicaPosition
    after: ReplicaPosition
    mark: SourceMark | None
    schemas: dict[str, TableSchema]


class TableReader:
    """Turns a table's selected rows into COPY text, keeping faults and the count."""

    def __init__(self, table_schema: TableSchema) -> None:
        self.select_list = ", ".join(map(selected.expression, table_schema.columns))
        self._convert = [selected.converter(c) for c in table_schema.columns]
        self._key = table_schema.primary_key
        self.faults: list[tuple[str, ValueFault]] = []
        self.rows = 0

    def lines(self, rows: Iterable[Sequence[bytes | None]]) -> Iterator[bytes]:
        """COPY text of each row; a row whose key cannot be held only leaves its faults."""
        for row in rows:
            faults: Faults = []
            fields = [
                NULL
                if value is None
                else value
                if convert is None
                else NULL
                if (text := convert(value, faults)) is None
                else text
                for value, convert in zip(row, self._convert, strict=True)
            ]
            line = b"\t".join(fields)
            key = self._key_of(fields, line)
            if faults:
                name = exception_key(key, has_key=bool(self._key))
                self.faults += [(name, fault) for fault in faults]
            if key is not None:
                self.rows += 1
                yield line

    def _key_of(self, fields: list[bytes], line: bytes) -> bytes | None:
        if not self._key:
            return line
        key = [fields[index] for index in self._key]
        return None if NULL in key else b"\t".join(key)


class LoadWorker:
    """A thread with its own connections that copies what is submitted, group by group."""

    def __init__(self, connect: Callable[[], Connections], database: str, server: str) -> None:
        self._connect = connect
        self._database = database
        self._server = server
        self._requests: queue.Queue[list[LoadRequest] | None] = queue.Queue()
        self._results: queue.Queue[LoadedTable | ReplicatorError] = queue.Queue()
        self._submitted: list[LoadRequest] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loader-reload", daemon=True)
        self._thread.start()

    def submit(self, requests: list[LoadRequest]) -> None:
        """Copy these tables when their turn comes."""
        if requests:
            self._submitted += requests
            self._requests.put(requests)

    def results(self) -> Iterator[LoadedTable]:
        """Copies that became whole since the last call; raises what made the worker fail."""
        while True:
            try:
                result = self._results.get_nowait()
            except queue.Empty:
                return
            if isinstance(result, ReplicatorError):
                raise result
            yield result

    def stop(self, wait: float = 5.0) -> None:
        """Ask the thread to end, and wait a little for it."""
        self._stop.set()
        for request in self._submitted:
            request.cancelled.set()
        self._requests.put(None)
        self._thread.join(wait)

    def _run(self) -> None:
        while not self._stop.is_set():
            requests = self._requests.get() or []
            with suppress(queue.Empty):
                while True:
                    requests = requests + (self._requests.get_nowait() or [])
            if requests and not self._stop.is_set():
                self._work(requests)

    def _work(self, requests: list[LoadRequest]) -> None:
        try:
            with closing(self._connect()) as connections:
                copier = Copier(connections, self._database)
                for group in copier.groups(requests):
                    if self._stop.is_set():
                        return
                    wanted = [request for request in group if not request.cancelled.is_set()]
                    for loaded in copier.copy(wanted):
                        self._results.put(loaded)
        except Exception as error:  # the daemon raises it in its own thread
            self._results.put(classify(error, server=self._server))


def raw_bytes_options() -> dict[str, Any]:
    """PyMySQL's options for a connection that hands values over as bytes."""
    return {"conv": RAW_BYTES, "use_unicode": False}

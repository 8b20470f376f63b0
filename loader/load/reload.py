"""Copy tables from the replica into helper tables, each at a known watermark.

Left: requests naming tables. Right: `LoadedTable`s, whose rows stand complete in
helper tables of `raw` (`_load_…` for a table that `raw` does not have yet,
`_reload_…` beside one that it has), with the source position that they show. The
stream goes on meanwhile; `merge` puts the copies in place later.

Order matters. First the tables' metadata locks, so that their shape stands still;
then the snapshot, which the read of leg 1's offset row opens; then the binlog's
end. So the stream has passed everything in the copy, the schema changes before it
included, once it has passed `after`.

A helper is made and filled in one transaction, and nobody sees it before that commits. So its
rows may be written frozen: a reader with an older snapshot finds the whole table or none, and no
vacuum needs to look at them again. Where PostgreSQL refuses a row, the table's part is undone
and read again in the same snapshot, the helper's key first and nothing frozen, and refused rows
go to the quarantine (`carefully`). Rows go from the replica's packets to COPY text a block at a
time (`tablereader`); faults are noted between two COPYs whenever many are held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pymysql
from psycopg import sql
from pymysql.converters import encoders

from config.connections import MySQLConnection, PostgresConnection, quote_mysql_identifier
from config.errors import ServerBusy
from config.failpoints import reach
from loader import naming, replica, schema, tracking
from loader.keeping import keeping_of
from loader.load import selected
from loader.load.carefully import CarefulCopy, UnheldNoting
from loader.load.tablereader import Fault, RowReader, best_reader, select_list
from loader.masking import Masker, kept
from loader.naming import LOAD, RELOAD, helper_name
from loader.quarantine import entries
from loader.quarantine.entries import Refused
from loader.quarantine.refusals import attempt, refusal
from loader.replica import SourceMark
from loader.schema import RawTable, quoted
from loader.types import CLOSING_COLUMNS, raw_columns, raw_name
from loader.values import NULL, escaped
from replicator.binlog.position import ReplicaPosition
from replicator.binlog.resultset import ResultSet
from replicator.binlog.schema import TableSchema, schemas_from_catalog

ANALYZE_FROM = 10_000
"""Copies of so many rows are analysed, so that the merge is planned with their size known."""
BLOCK_BYTES = 256 << 10
"""Rows of about so many bytes are converted and sent at a time: less than what the sockets'
buffers hold, so that both servers work meanwhile."""
HELD_FAULTS = 10_000
"""So many values that PostgreSQL cannot hold are noted at a time, not at the copy's end."""
STAMP_FROM = 1 << 20
"""In a table of so many bytes, what is the same in every row is its column's default meanwhile:
PostgreSQL takes twice as many narrow rows a second when it need not read it from each."""
_NO_SUCH_TABLE = 1146
_CHANGED_UNDER_US = (_NO_SUCH_TABLE, 1213, 1412, 4124)
"""A table is gone, a schema change and our locks waited for each other, a shape has changed."""
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
    """A copy that is whole. `schema` is None where the replica had no such table.

    Then the stream, once it stands at `after`, has passed whatever took the table away.
    """

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
    refused: int = 0
    """Rows that it refused, in `etl_quarantine_copy`."""


def shape_of(table_schema: TableSchema) -> RawTable:
    """The raw table that a schema on the replica wants."""
    key = (raw_name(table_schema.columns[index].name) for index in table_schema.primary_key)
    return RawTable(raw_columns(table_schema), tuple(key), keeping_of(table_schema).soft)


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


VERSIONED, ALL_VERSIONS = "SYSTEM VERSIONED", " FOR SYSTEM_TIME ALL"
"""MariaDB's tables that keep their rows' old versions: the binlog has those as rows too."""


class CopyCancelled(Exception):
    """Nobody wants this copy any more."""


class Copier:
    """Copies groups of tables; used by the worker thread, and by the daemon for keyless tables."""

    def __init__(self, connections: Connections, database: str, masker: Masker) -> None:
        self._rows = connections.rows
        self._catalog = connections.catalog
        self._postgres = connections.postgres
        self._database = database
        self._masker = masker
        self._versioned: set[str] = set()
        with self._rows.cursor() as cursor:
            for statement in selected.SESSION:
                cursor.execute(statement)

    def sizes(self, tables: Sequence[str] | None = None) -> dict[str, int]:
        """Bytes of each table on the replica, about; only of `tables` unless that is None.

        Who holds locks must name the tables: to be told of another one may mean to wait for a
        change of it, which may be waiting for those locks.
        """
        names = "" if tables is None else " AND table_name IN %s"
        with self._catalog.cursor() as cursor:
            cursor.execute(
                "SELECT table_name, COALESCE(data_length, 0), table_type"
                " FROM information_schema.tables"
                f" WHERE table_schema = %s AND table_type <> 'VIEW'{names}",
                (self._database, *(() if tables is None else (tuple(tables),))),
            )
            found = cursor.fetchall()
        self._versioned = {name for name, _, kind in found if kind == VERSIONED}
        return {name: int(size) for name, size, _ in found}

    def copy(self, requests: Sequence[LoadRequest]) -> list[LoadedTable]:
        """Copy one group at one snapshot into its helper tables; commits them."""
        for turn in range(1, _ATTEMPTS + 1):
            try:
                return self._attempt([r for r in requests if not r.cancelled.is_set()])
            except CopyCancelled:
                continue
            except pymysql.err.MySQLError as error:
                if error.args[0] not in _CHANGED_UNDER_US:
                    raise
                if turn == _ATTEMPTS:
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
        reach("load.snapshot")
        loaded = [self._one(request, opened) for request in requests]
        reach("load.before_commit")
        self._postgres.commit()
        reach("load.committed")
        return loaded

    def open(self, tables: Sequence[str]) -> Snapshot:
        """Lock the shapes of those tables that exist, and open a snapshot of their rows."""
        before = replica.binlog_end(self._catalog)
        with self._rows.cursor() as cursor:
            cursor.execute("BEGIN")
        locked = self._locked(tables)
        mark = replica.read_mark(self._rows, self._database)
        after = replica.binlog_end(self._catalog)
        there = self.sizes(locked) if locked else {}
        present = [table for table in locked if table in there]
        schemas = schemas_from_catalog(self._catalog, self._database, present)
        return Snapshot(before, after, mark, self._masker.schemas(schemas), there)

    def _locked(self, tables: Sequence[str]) -> Sequence[str]:
        """Lock the shapes of the tables; those that there are.

        The catalog's list is no answer: in the midst of a RENAME or an ALTER it may lack a table
        that is there before and after. Who locks a table waits for such a change to end, and it
        ends when it is in the binlog.
        """
        if not tables or self._lock(tables):
            return tables
        return [table for table in tables if self._lock([table])]

    def _lock(self, tables: Sequence[str]) -> bool:
        """Lock the shapes of the tables; False where one of them is missing."""
        try:
            with self._rows.cursor() as cursor:
                cursor.execute(" UNION ALL ".join(map(self._locking, tables)))
                cursor.fetchall()
        except pymysql.err.ProgrammingError as error:
            if error.args[0] != _NO_SUCH_TABLE:
                raise
            return False
        return True

    def _locking(self, table: str) -> str:
        return f"(SELECT 1 FROM {self._qualified(table)} LIMIT 0)"

    def _qualified(self, table: str) -> str:
        return f"{quote_mysql_identifier(self._database)}.{quote_mysql_identifier(table)}"

    def _one(self, request: LoadRequest, opened: Snapshot) -> LoadedTable:
        table_schema = opened.schemas.get(request.table)
        result = LoadedTable(request, table_schema, opened.mark, opened.before, opened.after)
        if table_schema is None or not table_schema.primary_key:
            return result  # without a key: see `keyless`
        found: list[LoadedTable] = []
        if attempt(
            self._postgres, lambda: found.append(self._one_table(request, opened, table_schema))
        ):
            careful = self.careful(table_schema, opened, into=entries.COPY)
            found.append(self._one_table(request, opened, table_schema, careful))
        return found[-1]

    def careful(self, table_schema: TableSchema, opened: Snapshot, *, into: str) -> CarefulCopy:
        """What takes the rows of a table that are refused."""
        mark = opened.mark
        offset = tracking.Offset(
            opened.after,
            0,
            source=mark.position if mark else None,
            source_ts=mark.source_ts if mark else None,
        )
        return CarefulCopy(self._postgres, table_schema, shape_of(table_schema), offset, into=into)

    def _one_table(
        self,
        request: LoadRequest,
        opened: Snapshot,
        table_schema: TableSchema,
        careful: CarefulCopy | None = None,
    ) -> LoadedTable:
        result = LoadedTable(request, table_schema, opened.mark, opened.before, opened.after)
        shape = shape_of(table_schema)
        stamped = opened.sizes.get(request.table, 0) >= STAMP_FROM
        with self._postgres.pipeline():
            schema.drop_helpers(self._postgres, [request.helper])
            tracking.clear_all_exceptions(self._postgres, request.helper)
            entries.clear_copy(self._postgres, request.table)
            schema.create_table(self._postgres, request.helper, shape, unlogged=not request.first)
            if stamped:
                self._stamp(request.helper, opened.mark)
            if careful:
                self._add_key(request, shape)
        names, ending = shape.names, b""
        if not stamped:
            names, ending = (*names, SOURCE_TS), b"\t" + _stamp(opened.mark)
        options = "" if careful else " (FREEZE)"  # see the module
        copy = _copy_statement(request.helper, names, options)
        rows, faults, unheld = self._fill(
            copy, request.helper, ending, table_schema, opened.mark, request.cancelled.is_set,
            careful,
        )  # fmt: skip
        if unheld:
            aside = careful or self.careful(table_schema, opened, into=entries.COPY)
            aside.enter_unheld(unheld)
        with self._postgres.pipeline():
            if stamped:
                self._stamp(request.helper, None)
            if not careful:
                self._add_key(request, shape)
            if rows >= ANALYZE_FROM:
                self._postgres.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(request.helper)))
        refused = careful.end() if careful else 0
        return replace(result, rows=rows - refused, faults=faults, refused=refused + len(unheld))

    def _add_key(self, request: LoadRequest, shape: RawTable) -> None:
        if request.first and shape.key:
            naming.add_key(self._postgres, request.helper, shape.key)

    def _stamp(self, target: str, mark: SourceMark | None) -> None:
        """Let rows that are written without a source time have the mark's."""
        stamp = mark.source_ts if mark else None
        default = sql.SQL("SET DEFAULT {}").format(sql.Literal(stamp))
        self._postgres.execute(
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} {}").format(
                sql.Identifier(target),
                sql.Identifier(SOURCE_TS),
                default if stamp else sql.SQL("DROP DEFAULT"),
            )
        )

    def fill(
        self,
        target: str,
        table_schema: TableSchema,
        mark: SourceMark | None,
        cancelled: Callable[[], bool],
        careful: CarefulCopy | None = None,
    ) -> tuple[int, int]:
        """Copy the snapshot's rows into the table `target`; return (rows, faulty values).

        Value exceptions are kept under the name `target`, until the merge renames them.
        """
        ending = b"\t" + _now(self._postgres) + b"\t" + _stamp(mark)
        names = (*shape_of(table_schema).names, LOADED_AT, SOURCE_TS)
        copy = _copy_statement(target, names)
        rows, faults, _ = self._fill(copy, target, ending, table_schema, mark, cancelled, careful)
        return rows, faults

    def _fill(
        self,
        copy: sql.Composed,
        target: str,
        ending: bytes,
        table_schema: TableSchema,
        mark: SourceMark | None,
        cancelled: Callable[[], bool],
        careful: CarefulCopy | None,
    ) -> tuple[int, int, list[Refused]]:
        """Rows in `target`, faulty values, and rows whose key cannot be held."""
        read = kept(table_schema)  # a column that is dropped does not even leave the replica
        reader = UnheldNoting(best_reader(read, ending), read, _stamp(mark))
        name = table_schema.name
        versions = ALL_VERSIONS if name in self._versioned else ""
        query = f"SELECT {select_list(read)} FROM {self._qualified(name)}{versions}"
        position = mark.position if mark else None
        found = 0
        with ResultSet(self._rows, query, block_bytes=BLOCK_BYTES) as rows:
            left = self._wanted(rows, cancelled)
            try:
                while faults := self._copy_some(copy, reader, left, ending, careful):
                    tracking.add_exceptions(self._postgres, target, faults, position)
                    found += len(faults)
            except psycopg.Error as error:
                if refusal(error) is not None:
                    for _ in left:  # the connection, and so the snapshot, is needed again
                        pass
                raise
        return reader.rows, found, reader.unheld

    def _copy_some(
        self,
        copy: sql.Composed,
        reader: RowReader,
        blocks: Iterator[bytes],
        ending: bytes,
        careful: CarefulCopy | None,
    ) -> list[Fault]:
        """Copy until the blocks end or many faults are held; those, none only at the end."""
        faults: list[Fault] = []
        if careful is not None:
            for block in blocks:
                careful.put(copy, reader.convert(block), ending)
                faults += reader.take_faults()
                if len(faults) >= HELD_FAULTS:
                    break
            return faults
        with self._postgres.cursor() as cursor, cursor.copy(copy) as sink:
            for block in blocks:
                sink.write(reader.convert(block))
                faults += reader.take_faults()
                if len(faults) >= HELD_FAULTS:
                    break
        return faults

    def _wanted(self, rows: ResultSet, cancelled: Callable[[], bool]) -> Iterator[bytes]:
        """The rows' blocks, as long as somebody wants them."""
        for block in rows.blocks():
            if cancelled():
                self._end_query()
                with suppress(pymysql.MySQLError):
                    for _ in rows.blocks():
                        pass
                raise CopyCancelled
            yield block

    def _end_query(self) -> None:
        """End the running SELECT, so that the rest of it need not be read."""
        running: int = self._rows.thread_id()  # type: ignore[no-untyped-call]
        with self._catalog.cursor() as cursor:
            cursor.execute("KILL QUERY %s", (running,))


LOADED_AT, SOURCE_TS = (name for name, _ in CLOSING_COLUMNS)


def _copy_statement(target: str, names: Sequence[str], options: str = "") -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN{}").format(
        sql.Identifier(target), quoted(names), sql.SQL(options)
    )


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
    sizes: dict[str, int]
    """Bytes of each table there is, about."""


def raw_bytes_options() -> dict[str, Any]:
    """PyMySQL's options for a connection that hands values over as bytes."""
    return {"conv": RAW_BYTES, "use_unicode": False}

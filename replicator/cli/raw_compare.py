"""Replica against `raw`, value for value, in PostgreSQL.

Left: tables of the replica and their schemas. Right: suspects, as `source_compare`
has them. A look reads rows from one snapshot of the replica, together with leg 1's
offset row, which tells exactly which source position the snapshot shows; it writes
them as the loader would into temporary tables of the raw tables' own column types;
and once `raw` has passed that position, both are compared in one statement.

What PostgreSQL cannot hold (a zero date, a NUL in text) is replaced here by the
loader's own code, so a documented replacement is no difference, and what is masked is
masked here alike. A row that PostgreSQL
refuses altogether, here as in `raw`, is a row that `raw` lacks. Rows that `raw` keeps for
deleted ones are not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pymysql
from psycopg import sql
from pymysql.cursors import SSCursor

from config.connections import connect_mysql, connect_postgres
from config.connections import quote_mysql_identifier as quote
from config.errors import translated
from config.settings import Settings
from loader import replica as rep
from loader.copying import copy_around, copy_as_text
from loader.keeping import DELETED_AT
from loader.load import selected
from loader.load.reload import ALL_VERSIONS, VERSIONED, raw_bytes_options, shape_of
from loader.load.tablereader import TableReader
from loader.masking import kept
from loader.quarantine.refusals import attempt
from loader.schema import RawTable, quoted
from loader.types import raw_name
from loader.upsert import blocks
from loader.values import fields_of
from replicator.binlog.schema import TableSchema
from replicator.cli import keys
from replicator.cli.barrier import Barrier, NotCaughtUp
from replicator.cli.keys import Literals
from replicator.cli.settling import Sides
from replicator.cli.source_compare import (
    CHANGED_UNDER_US,
    WHOLE,
    Chunk,
    Suspect,
    TableChangedMeanwhile,
)
from replicator.tracking import execute, fetch

MOST_SUSPECTS = 10_000
"""Differing rows that are told of one chunk; more need no naming."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows of one table: which on the replica, which in `raw`, where they were put."""

    schema: TableSchema
    shape: RawTable
    where: str
    """On the replica."""
    raw_where: sql.Composable
    copy: str = ""
    """The temporary table's name; "" where the replica has no row."""
    refused: tuple[bytes, ...] = ()
    """Rows that the temporary table did not take either, as COPY text."""

    @property
    def table(self) -> str:
        return self.schema.name


class RawComparison:
    """The connections that a comparison of replica and `raw` needs."""

    def __init__(self, settings: Settings, barrier: Barrier, chunk_rows: int) -> None:
        self._replica = settings.replication
        self._analytics = settings.analytics
        self._barrier = barrier
        self._chunk_rows = chunk_rows
        self._soft: set[str] = set()
        self._rows = connect_mysql(self._replica, database=self._replica.db, **raw_bytes_options())
        with translated(self._replica.label):
            for statement in selected.SESSION:
                execute(self._rows, statement)
            self._versioned = _versioned(self._rows)
        self._postgres = connect_postgres(
            self._analytics, autocommit=True, application_name="replicator verify"
        )

    def close(self) -> None:
        """Close both connections; temporary tables go with them."""
        self._rows.close()
        with suppress(psycopg.Error):
            self._postgres.close()

    # --- first look ----------------------------------------------------------------------

    def chunks(self, schema: TableSchema, about: int) -> Iterator[Chunk]:
        """The table in ranges of its key, where both servers order it alike."""
        if about <= self._chunk_rows or not keys.integral(schema):
            yield Chunk(schema.name, schema, rows=about)
            return
        after: Literals | None = None
        while True:
            upto = self._boundary(schema, after)
            yield Chunk(schema.name, schema, after, upto, self._chunk_rows)
            if upto is None:
                return
            after = upto

    def _boundary(self, schema: TableSchema, after: Literals | None) -> Literals | None:
        names = keys.names(schema)
        listed = ", ".join(names)
        with self._replica_errors([schema.name]):
            rows = fetch(
                self._rows,
                f"SELECT {listed} FROM {quote(schema.name)}{keys.between(names, after, None)}"
                f" ORDER BY {listed} LIMIT {self._chunk_rows - 1}, 1",
            )
        return keys.literals(schema, rows[0]) if rows else None

    def compare(self, batch: Sequence[Chunk]) -> dict[Suspect, Sides]:
        """Suspects of several chunks, all read in one snapshot."""
        return self._compare([self._part(chunk) for chunk in batch])

    def look(self, schema: TableSchema, wanted: Sequence[Literals]) -> dict[Suspect, Sides]:
        """The given keys again; a table whose keys are not integers is read again as a whole."""
        if not keys.integral(schema):
            found = self._compare([self._part(Chunk(schema.name, schema))])
            among = set(wanted)
            return {suspect: sides for suspect, sides in found.items() if suspect[1] in among}
        shape = shape_of(schema)
        columns = quoted_list(shape.key)
        chosen = keys.among(columns, wanted)
        part = _Part(schema, shape, keys.among(keys.names(schema), wanted), _trusted(chosen))
        return self._compare([part])

    @staticmethod
    def _part(chunk: Chunk) -> _Part:
        shape = shape_of(chunk.schema)
        bounded = chunk.after is not None or chunk.upto is not None
        raw_where = keys.between(quoted_list(shape.key), chunk.after, chunk.upto) if bounded else ""
        return _Part(chunk.schema, shape, chunk.where if bounded else "", _trusted(raw_where))

    # --- one look ------------------------------------------------------------------------

    def _compare(self, parts: Sequence[_Part]) -> dict[Suspect, Sides]:
        tables = [part.table for part in parts]
        with self._replica_errors(tables), translated(self._analytics.label):
            try:
                copied = self._copy_all(parts)
                self._soft = self._keeping_deleted(parts)
                found: dict[Suspect, Sides] = {}
                for part in self._worth_comparing(copied):
                    found.update(self._differences(part))
                return found
            except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
                raise TableChangedMeanwhile(tables) from None
            finally:
                self._drop_copies()

    @contextmanager
    def _replica_errors(self, tables: Iterable[str]) -> Iterator[None]:
        with translated(self._replica.label):
            try:
                yield
            except pymysql.MySQLError as error:
                if error.args and error.args[0] in CHANGED_UNDER_US:
                    raise TableChangedMeanwhile(tables) from None
                raise

    def _copy_all(self, parts: Sequence[_Part]) -> list[_Part]:
        """Copy the parts' rows at one snapshot; return when `raw` has passed it."""
        execute(self._rows, "BEGIN")
        try:
            mark = rep.read_mark(self._rows, self._replica.db)  # opens the snapshot
            filled = self._filled(parts)
            copied = [
                self._copy(part, number) if number in filled else part
                for number, part in enumerate(parts)
            ]
        finally:
            with suppress(pymysql.MySQLError):
                execute(self._rows, "COMMIT")
        if mark is None:
            raise NotCaughtUp("the replicator has never copied anything")
        self._barrier.raw_shows(mark.position)
        return copied

    def _filled(self, parts: Sequence[_Part]) -> set[int]:
        """The numbers of those parts that have a row on the replica."""
        selects = (
            f"(SELECT {number} FROM {self._from(part)} LIMIT 1)"
            for number, part in enumerate(parts)
        )
        return {int(row[0]) for row in fetch(self._rows, " UNION ALL ".join(selects))}

    def _from(self, part: _Part) -> str:
        versions = ALL_VERSIONS if part.table in self._versioned else ""
        return f"{quote(part.table)}{versions}{part.where}"

    def _copy(self, part: _Part, number: int) -> _Part:
        name = f"_verify_{number}"
        copy = sql.Identifier("pg_temp", name)
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(column.name), _trusted(column.type))
            for column in part.shape.columns
        )
        self._postgres.execute(
            sql.SQL("CREATE TEMP TABLE {} ({})").format(sql.Identifier(name), columns)
        )
        into = sql.SQL("COPY {} ({}) FROM STDIN").format(copy, quoted(part.shape.names))
        left_out: list[bytes] = []
        postgres = self._postgres
        if attempt(postgres, lambda: copy_as_text(postgres, into, self._blocks(part))) is not None:
            for block in self._blocks(part):
                left_out += (line for line, _ in copy_around(postgres, into, block))
        return replace(part, copy=name, refused=tuple(left_out))

    def _blocks(self, part: _Part) -> Iterator[bytes]:
        reader = TableReader(kept(part.schema))
        with self._rows.cursor(SSCursor) as rows:
            rows.execute(f"SELECT {reader.select_list} FROM {self._from(part)}")
            yield from blocks(reader.lines(rows))

    def _drop_copies(self) -> None:
        with suppress(psycopg.Error):
            self._postgres.execute("DISCARD TEMP")

    def _worth_comparing(self, parts: Sequence[_Part]) -> list[_Part]:
        """Without those that have no row on either side: most tables of most practices."""
        absent = [part for part in parts if not part.copy]
        selects = [
            sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM {} AS r{})").format(
                sql.Literal(part.table), self._raw(part), part.raw_where
            )
            for part in absent
        ]
        extra: set[str] = set()
        if selects:
            rows = self._postgres.execute(sql.SQL(" UNION ALL ").join(selects))
            extra = {name for (name,) in rows}
        return [part for part in parts if part.copy or part.table in extra]

    def _raw(self, part: _Part) -> sql.Composable:
        """The raw table's rows, but for those that are kept of deleted ones."""
        table = sql.Identifier(self._analytics.schema_name, raw_name(part.table))
        if raw_name(part.table) not in self._soft:
            return table
        return sql.SQL("(SELECT * FROM {} WHERE {} IS NULL)").format(
            table, sql.Identifier(DELETED_AT)
        )

    def _keeping_deleted(self, parts: Sequence[_Part]) -> set[str]:
        """Raw tables that keep deleted rows, whatever the rules say by now."""
        rows = self._postgres.execute(
            "SELECT table_name FROM information_schema.columns WHERE table_schema = %s"
            " AND column_name = %s AND table_name = ANY(%s)",
            [self._analytics.schema_name, DELETED_AT, [raw_name(part.table) for part in parts]],
        )
        return {str(name) for (name,) in rows}

    def _differences(self, part: _Part) -> dict[Suspect, Sides]:
        left, right = self._copied(part), self._texts(part, self._raw(part), part.raw_where)
        if not part.shape.key:
            if part.refused:
                return {(part.table, WHOLE): ("refused", "")}
            return self._whole(part, left, right)
        columns = part.shape.key
        rows = self._postgres.execute(
            sql.SQL(
                "SELECT {}, md5(l.v), md5(r.v) FROM ({}) AS l FULL JOIN ({}) AS r ON {}"
                " WHERE l.v IS DISTINCT FROM r.v LIMIT {}"
            ).format(
                sql.SQL(", ").join(
                    sql.SQL("coalesce(l.{0}, r.{0})::text").format(sql.Identifier(f"k{n}"))
                    for n in range(len(columns))
                ),
                left,
                right,
                sql.SQL(" AND ").join(
                    sql.SQL("l.{0} = r.{0}").format(sql.Identifier(f"k{n}"))
                    for n in range(len(columns))
                ),
                sql.Literal(MOST_SUSPECTS),
            )
        )
        found: dict[Suspect, Sides] = {
            (part.table, tuple(row[:-2])): (row[-2], row[-1]) for row in rows
        }
        return {**found, **_refused(part)}

    def _copied(self, part: _Part) -> sql.Composed:
        if not part.copy:
            return self._texts(part, self._raw(part), sql.SQL(" LIMIT 0"))
        return self._texts(part, sql.Identifier("pg_temp", part.copy), sql.SQL(""))

    @staticmethod
    def _texts(part: _Part, table: sql.Composable, ending: sql.Composable) -> sql.Composed:
        """SELECT the key and all columns as one exact text, which tells -0.0 from 0.0 too."""
        columns = [
            sql.SQL("r.{} AS {}").format(sql.Identifier(name), sql.Identifier(f"k{n}"))
            for n, name in enumerate(part.shape.key)
        ]
        values = sql.SQL(", ").join(sql.Identifier("r", name) for name in part.shape.names)
        columns.append(sql.SQL("ROW({})::text AS v").format(values))
        listed = sql.SQL(", ").join(columns)
        return sql.SQL("SELECT {} FROM {} AS r{}").format(listed, table, ending)

    def _whole(self, part: _Part, left: sql.Composed, right: sql.Composed) -> dict[Suspect, Sides]:
        """A table without a key: its rows as a multiset."""
        digest = sql.SQL("SELECT coalesce(md5(string_agg(md5(v), '' ORDER BY md5(v))), '') FROM")
        sides = []
        for texts in (left, right):
            row = self._postgres.execute(sql.SQL("{} ({}) AS t").format(digest, texts)).fetchone()
            sides.append(str(row[0]) if row else "")
        return {} if sides[0] == sides[1] else {(part.table, WHOLE): (sides[0], sides[1])}


def _refused(part: _Part) -> dict[Suspect, Sides]:
    """Rows that are on the replica, and cannot be in `raw`."""
    found: dict[Suspect, Sides] = {}
    for row in part.refused:
        fields = fields_of(row)
        key = [fields[index] or b"" for index in kept(part.schema).primary_key]
        shown = tuple(field.decode() for field in key)
        found[part.table, shown] = (hashlib.md5(row, usedforsecurity=False).hexdigest(), None)
    return found


def quoted_list(names: Iterable[str]) -> list[str]:
    """PostgreSQL identifiers, quoted, as plain text."""
    return ['"' + name.replace('"', '""') + '"' for name in names]


def _trusted(text: str) -> sql.SQL:
    """SQL text of our own making: quoted identifiers, integers and types from our own table."""
    untyped: Any = text
    return sql.SQL(untyped)


def _versioned(connection: Any) -> set[str]:
    """Tables of which `raw` has old versions of rows as well."""
    rows = fetch(
        connection,
        "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
        " AND table_type = %s",
        [VERSIONED],
    )
    return {name.decode() for (name,) in rows}

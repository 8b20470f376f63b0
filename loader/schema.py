"""Tables of `raw`: what is there, what a schema on the replica wants, and the way between.

`diff` is pure; the other functions read the catalog or change it, always in the
caller's transaction. Names are kept exactly and quoted. A raw table has its key
as primary key and no other constraint: a batch is folded, so the order in which
other unique values changed hands is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import psycopg
import structlog
from psycopg import sql

from config.connections import PostgresConnection
from loader import naming
from loader.keeping import DELETED_AT
from loader.types import CLOSING_COLUMNS, RawColumn

log = structlog.get_logger()

RETIRED_MARK = "Retired by the loader"
"""How the comment of a column begins that only views keep in `raw` (see `altering`)."""

LOADED_AT, SOURCE_TS = (name for name, _ in CLOSING_COLUMNS)
MARK = RawColumn(DELETED_AT, "timestamp with time zone")


@dataclass(frozen=True, slots=True)
class RawTable:
    """A table's columns without the closing ones, and its key columns in key order."""

    columns: tuple[RawColumn, ...]
    key: tuple[str, ...]
    soft: bool = False
    """Do deleted rows stay, marked in a third closing column?"""

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    @property
    def carried(self) -> tuple[str, ...]:
        """What goes with a row from table to table: all but when it was written here."""
        return (*self.names, SOURCE_TS, *((DELETED_AT,) if self.soft else ()))


@dataclass(frozen=True, slots=True)
class TableDiff:
    """What must change to make one table like another."""

    added: tuple[RawColumn, ...] = ()
    dropped: tuple[str, ...] = ()
    retyped: tuple[RawColumn, ...] = ()
    key_changed: bool = False
    unsafe: tuple[str, ...] = field(default=())
    """Of `retyped`, those whose present values may not survive the change of type."""
    soft: bool | None = None
    """Are deleted rows to stay from now on, or not any more? None: as before."""

    def __bool__(self) -> bool:
        changed = self.added or self.dropped or self.retyped or self.key_changed
        return bool(changed) or self.soft is not None

    @property
    def in_place(self) -> bool:
        """Can the rows that are there stay?"""
        return not self.key_changed and not self.unsafe


def diff(current: RawTable, wanted: RawTable) -> TableDiff:
    """The way from `current` to `wanted`; the order of columns does not matter."""
    have = {column.name: column.type for column in current.columns}
    want = {column.name: column.type for column in wanted.columns}
    retyped = tuple(c for c in wanted.columns if have.get(c.name, c.type) != c.type)
    return TableDiff(
        added=tuple(c for c in wanted.columns if c.name not in have),
        dropped=tuple(name for name in have if name not in want),
        retyped=retyped,
        key_changed=current.key != wanted.key,
        soft=wanted.soft if wanted.soft != current.soft else None,
        unsafe=tuple(c.name for c in retyped if not widens(have[c.name], c.type)),
    )


def fits(change: TableDiff) -> bool:
    """Can rows of the wanted shape be written as it is? What there is beyond that stays empty."""
    changed = change.added or change.retyped or change.key_changed
    return not changed and change.soft is None


_INTEGERS = ("smallint", "integer", "bigint", "numeric(20,0)")
_FLOATS = ("real", "double precision")


def widens(old: str, new: str) -> bool:
    """Does every value of `old` stay the same in `new`?"""
    for ladder in (_INTEGERS, _FLOATS):
        if old in ladder and new in ladder:
            return ladder.index(new) >= ladder.index(old)
    return old.split("(", maxsplit=1)[0] == new.split("(", maxsplit=1)[0] in (
        "numeric",
        "timestamp",
    ) and (
        _numbers(old) <= _numbers(new)
        and old.rsplit(")", maxsplit=1)[-1] == new.rsplit(")", maxsplit=1)[-1]
        and _whole_digits(old) <= _whole_digits(new)
        and _numbers(old)[-1] <= _numbers(new)[-1]
    )


def _numbers(kind: str) -> list[int]:
    inside = kind.partition("(")[2].partition(")")[0]
    return [int(number) for number in inside.split(",")]


def _whole_digits(kind: str) -> int:
    numbers = _numbers(kind)
    return numbers[0] - numbers[1] if len(numbers) == 2 else 0


def quoted(names: Iterable[str]) -> sql.Composed:
    """Identifiers joined by commas."""
    return sql.SQL(", ").join(map(sql.Identifier, names))


_READ = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
       coalesce(array_position(i.indkey::int2[], a.attnum), -1)
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
  AND c.relkind IN ('r', 'p') AND c.relname = ANY(%s)
  AND coalesce(col_description(c.oid, a.attnum), '') NOT LIKE 'Retired by the loader%%'
ORDER BY c.relname, a.attnum
"""


def read_tables(connection: PostgresConnection, names: Iterable[str]) -> dict[str, RawTable]:
    """Those of the named raw tables that exist, in one query."""
    columns: dict[str, list[RawColumn]] = {}
    keys: dict[str, list[tuple[int, str]]] = {}
    soft: set[str] = set()
    closing = {name for name, _ in CLOSING_COLUMNS}
    for table, name, kind, place in connection.execute(_READ, [list(names)]):
        columns.setdefault(table, [])
        keys.setdefault(table, [])
        if name in closing:
            continue
        if (name, kind) == (MARK.name, MARK.type):
            soft.add(table)
            continue
        columns[table].append(RawColumn(name, kind))
        if place >= 0:
            keys[table].append((place, name))
    return {
        table: RawTable(tuple(found), tuple(name for _, name in sorted(keys[table])), table in soft)
        for table, found in columns.items()
    }


def create_table(
    connection: PostgresConnection, name: str, wanted: RawTable, *, unlogged: bool = False
) -> None:
    """Create a table with the closing columns and without a primary key (see `naming`).

    Rows that come without a `_loaded_at` get one: `stamps_itself`.
    """
    naming.make_room(connection, name)
    kind = sql.SQL("UNLOGGED ") if unlogged else sql.SQL("")
    closing = sql.SQL(
        "_loaded_at timestamp with time zone DEFAULT statement_timestamp(),"
        " _source_ts timestamp with time zone"
    )
    mark = [column_definition(MARK)] if wanted.soft else []
    definition = sql.SQL(", ").join([*map(column_definition, wanted.columns), closing, *mark])
    connection.execute(
        sql.SQL("CREATE {}TABLE {} ({})").format(kind, sql.Identifier(name), definition)
    )


def stamps_itself(connection: PostgresConnection, name: str) -> bool:
    """Has the raw table a default for `_loaded_at`? Tables of an early version have none."""
    row = connection.execute(
        "SELECT atthasdef FROM pg_attribute WHERE attname = '_loaded_at' AND attrelid ="
        " (SELECT oid FROM pg_class WHERE relname = %s AND relnamespace ="
        " (SELECT oid FROM pg_namespace WHERE nspname = current_schema()))",
        [name],
    ).fetchone()
    return bool(row and row[0])


def column_definition(column: RawColumn) -> sql.Composed:
    """`"name" type`."""
    # Types come from our own table of types, never from outside.
    return sql.SQL("{} {}").format(sql.Identifier(column.name), type_name(column.type))


def type_name(kind: str) -> sql.SQL:
    """A type of our own table of types, as it is spelled there."""
    return sql.SQL(kind)


_DEPENDANTS = """
SELECT DISTINCT coalesce(r.ev_class::regclass::text,
                       pg_describe_object(d.classid, d.objid, d.objsubid)) FROM pg_depend d
LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = (
  SELECT oid FROM pg_class WHERE relname = %(table)s AND relnamespace =
    (SELECT oid FROM pg_namespace WHERE nspname = current_schema()))
  AND (d.deptype = 'n' OR d.classid IN ('pg_policy'::regclass, 'pg_publication_rel'::regclass)
       OR d.classid = 'pg_attrdef'::regclass AND d.objsubid = 0 AND EXISTS (
         SELECT FROM pg_attrdef x JOIN pg_attribute a ON a.attrelid = x.adrelid
           AND a.attnum = x.adnum WHERE x.oid = d.objid AND a.attgenerated <> ''
           AND x.adnum <> d.refobjsubid)
       OR d.classid = 'pg_trigger'::regclass)
  AND d.objid <> d.refobjid
  AND (%(column)s::text IS NULL OR d.refobjsubid = (SELECT attnum FROM pg_attribute
       WHERE attrelid = d.refobjid AND attname = %(column)s AND NOT attisdropped))
"""


def dependants(connection: PostgresConnection, table: str, column: str | None = None) -> list[str]:
    """Views, and other objects, that read a raw table, or one column of it, directly."""
    found = connection.execute(_DEPENDANTS, {"table": table, "column": column})
    return sorted(name for (name,) in found)


def empty_table(connection: PostgresConnection, table: str) -> None:
    """Delete every row, as TRUNCATE did on the source, but without locking readers out."""
    connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))


def marking(table: sql.Identifier, alias: str, at: sql.Composable) -> sql.Composed:
    """`UPDATE table AS alias SET …`, which marks rows as deleted at `at`; the rest is to come."""
    return sql.SQL("UPDATE {} AS {} SET {} = {}, {} = statement_timestamp()").format(
        table,
        sql.Identifier(alias),
        sql.Identifier(DELETED_AT),
        at,
        sql.Identifier(LOADED_AT),
    )


def mark_all(connection: PostgresConnection, table: str, at: str | None) -> int:
    """Mark every row as deleted at `at` (None: now) that is not marked yet; how many."""
    marked = sql.SQL(" WHERE r.{} IS NULL").format(sql.Identifier(DELETED_AT))
    statement = marking(sql.Identifier(table), "r", moment(at)) + marked
    return connection.execute(statement).rowcount


def moment(at: str | None) -> sql.Composable:
    """A source's commit time, as text in UTC, for a statement; now where there is none."""
    return sql.SQL("{}::timestamptz").format(at) if at else sql.SQL("statement_timestamp()")


def live(shape: RawTable, alias: str) -> sql.Composable:
    """` AND …`: of rows that the source still has."""
    if not shape.soft:
        return sql.SQL("")
    return sql.SQL(" AND {} IS NULL").format(sql.Identifier(alias, DELETED_AT))


def drop_table(connection: PostgresConnection, table: str) -> bool:
    """Drop a raw table; where views need it, only empty it. True when it is gone."""
    target = sql.Identifier(table)
    try:
        with connection.transaction():
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(target))
        return True
    except psycopg.errors.DependentObjectsStillExist:
        connection.execute(sql.SQL("DELETE FROM {}").format(target))
        log.warning(
            "table_kept",
            table=table,
            dependants=dependants(connection, table),
            hint="The source dropped it; it is empty now. Drop these views, then the table.",
        )
        return False


def drop_helpers(connection: PostgresConnection, helpers: Iterable[str]) -> None:
    """Drop helper tables where they exist."""
    names = list(helpers)
    if names:
        connection.execute("SET LOCAL client_min_messages = warning")
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(quoted(names)))

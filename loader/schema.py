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
from loader.types import CLOSING_COLUMNS, MAX_NAME_BYTES, RawColumn, shortened

log = structlog.get_logger()

LOAD, RELOAD, TOUCHED, STAGE = "_load_", "_reload_", "_touched_", "_stage_"
"""Prefixes of the helper tables that accompany a table while it is loaded or written."""


@dataclass(frozen=True, slots=True)
class RawTable:
    """A table's columns without the closing two, and its key columns in key order."""

    columns: tuple[RawColumn, ...]
    key: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True, slots=True)
class TableDiff:
    """What must change to make one table like another."""

    added: tuple[RawColumn, ...] = ()
    dropped: tuple[str, ...] = ()
    retyped: tuple[RawColumn, ...] = ()
    key_changed: bool = False
    unsafe: tuple[str, ...] = field(default=())
    """Of `retyped`, those whose present values may not survive the change of type."""

    def __bool__(self) -> bool:
        return bool(self.added or self.dropped or self.retyped or self.key_changed)

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
        unsafe=tuple(c.name for c in retyped if not _widens(have[c.name], c.type)),
    )


_INTEGERS = ("smallint", "integer", "bigint", "numeric(20,0)")
_FLOATS = ("real", "double precision")


def _widens(old: str, new: str) -> bool:
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


def helper_name(prefix: str, table: str) -> str:
    """The helper table's name; unlike a table's own name it is shortened with its prefix."""
    return shortened(prefix + table, MAX_NAME_BYTES)


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
ORDER BY c.relname, a.attnum
"""


def read_tables(connection: PostgresConnection, names: Iterable[str]) -> dict[str, RawTable]:
    """Those of the named raw tables that exist, in one query."""
    columns: dict[str, list[RawColumn]] = {}
    keys: dict[str, list[tuple[int, str]]] = {}
    closing = {name for name, _ in CLOSING_COLUMNS}
    for table, name, kind, place in connection.execute(_READ, [list(names)]):
        columns.setdefault(table, [])
        keys.setdefault(table, [])
        if name in closing:
            continue
        columns[table].append(RawColumn(name, kind))
        if place >= 0:
            keys[table].append((place, name))
    return {
        table: RawTable(tuple(found), tuple(name for _, name in sorted(keys[table])))
        for table, found in columns.items()
    }


def create_table(
    connection: PostgresConnection, name: str, wanted: RawTable, *, unlogged: bool = False
) -> None:
    """Create a table with the closing columns and without a primary key (see `add_key`)."""
    kind = sql.SQL("UNLOGGED ") if unlogged else sql.SQL("")
    definition = sql.SQL(", ").join(_column(c) for c in (*wanted.columns, *_closing()))
    connection.execute(
        sql.SQL("CREATE {}TABLE {} ({})").format(kind, sql.Identifier(name), definition)
    )


def _closing() -> tuple[RawColumn, ...]:
    return tuple(RawColumn(name, kind) for name, kind in CLOSING_COLUMNS)


def _column(column: RawColumn) -> sql.Composed:
    # Types come from our own table of types, never from outside.
    return sql.SQL("{} {}").format(sql.Identifier(column.name), _type(column.type))


def _type(kind: str) -> sql.SQL:
    return sql.SQL(kind)


def key_name(table: str) -> str:
    """The name of a raw table's primary key."""
    return shortened(f"{table}_pkey", MAX_NAME_BYTES)


def add_key(
    connection: PostgresConnection, name: str, constraint: str, key: tuple[str, ...]
) -> None:
    """Give a table its primary key."""
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY ({})").format(
            sql.Identifier(name), sql.Identifier(constraint), quoted(key)
        )
    )


def apply_in_place(connection: PostgresConnection, table: str, change: TableDiff) -> None:
    """Alter a raw table that keeps its rows; `change.in_place` must hold."""
    actions = [sql.SQL("ADD COLUMN {}").format(_column(column)) for column in change.added]
    actions += [_retype(column, keep=True) for column in change.retyped]
    _alter(connection, table, actions)
    _drop_columns(connection, table, change.dropped)


def apply_emptied(
    connection: PostgresConnection, table: str, change: TableDiff, key: tuple[str, ...]
) -> None:
    """Empty a raw table and give it another shape, key included, under its dependants."""
    target = sql.Identifier(table)
    connection.execute(sql.SQL("DELETE FROM {}").format(target))
    if change.key_changed:
        _drop_key(connection, table)
    actions = [sql.SQL("ADD COLUMN {}").format(_column(column)) for column in change.added]
    actions += [_retype(column, keep=False) for column in change.retyped]
    _alter(connection, table, actions)
    _drop_columns(connection, table, change.dropped)
    if change.key_changed and key:
        add_key(connection, table, key_name(table), key)


def _drop_key(connection: PostgresConnection, table: str) -> None:
    row = connection.execute(
        "SELECT conname FROM pg_constraint WHERE contype = 'p' AND conrelid ="
        " (SELECT oid FROM pg_class WHERE relname = %s AND relnamespace ="
        " (SELECT oid FROM pg_namespace WHERE nspname = current_schema()))",
        [table],
    ).fetchone()
    if row is not None:
        connection.execute(
            sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                sql.Identifier(table), sql.Identifier(row[0])
            )
        )
        connection.execute(_drop_not_null(connection, table))


def _drop_not_null(connection: PostgresConnection, table: str) -> sql.Composed:
    """Dropping a primary key leaves NOT NULL on its columns: take that off as well."""
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attnotnull AND attnum > 0 AND NOT attisdropped"
        " AND attrelid = (SELECT oid FROM pg_class WHERE relname = %s AND relnamespace ="
        " (SELECT oid FROM pg_namespace WHERE nspname = current_schema()))",
        [table],
    )
    actions = [
        sql.SQL("ALTER COLUMN {} DROP NOT NULL").format(sql.Identifier(name)) for (name,) in rows
    ]
    return sql.SQL("ALTER TABLE {} {}").format(sql.Identifier(table), sql.SQL(", ").join(actions))


def _retype(column: RawColumn, *, keep: bool) -> sql.Composed:
    name, kind = sql.Identifier(column.name), _type(column.type)
    using = name if keep else sql.SQL("NULL")
    return sql.SQL("ALTER COLUMN {} TYPE {} USING {}::{}").format(name, kind, using, kind)


def _alter(connection: PostgresConnection, table: str, actions: list[sql.Composed]) -> None:
    if actions:
        connection.execute(
            sql.SQL("ALTER TABLE {} {}").format(sql.Identifier(table), sql.SQL(", ").join(actions))
        )


def _drop_columns(connection: PostgresConnection, table: str, names: Iterable[str]) -> None:
    """Drop columns; one that a view needs stays, and is NULL in rows written from now on."""
    for name in names:
        statement = sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
            sql.Identifier(table), sql.Identifier(name)
        )
        try:
            with connection.transaction():
                connection.execute(statement)
        except psycopg.errors.DependentObjectsStillExist:
            log.warning(
                "column_kept",
                table=table,
                column=name,
                dependants=dependants(connection, table),
                hint="The source dropped it; change these views, then drop the column.",
            )


_DEPENDANTS = """
SELECT DISTINCT v.oid::regclass::text FROM pg_depend d
JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = (
  SELECT oid FROM pg_class WHERE relname = %s AND relnamespace =
    (SELECT oid FROM pg_namespace WHERE nspname = current_schema()))
"""


def dependants(connection: PostgresConnection, table: str) -> list[str]:
    """Views that read a raw table directly."""
    return sorted(name for (name,) in connection.execute(_DEPENDANTS, [table]))


def empty_table(connection: PostgresConnection, table: str) -> None:
    """Delete every row, as TRUNCATE did on the source, but without locking readers out."""
    connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))


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

"""Move rows between raw tables, so that each name keeps its table. In the caller's transaction.

In PostgreSQL a view, an index, a grant belongs to a table's OID, not to its name: a
plain RENAME would carry the analysts' views of `t` away to `tempConv_t1`. So names keep
their OIDs here, and rows are exchanged; only a name that nobody takes again lets its
table go (`rename_for_good`).
"""

from __future__ import annotations

from psycopg import sql

from config.connections import PostgresConnection
from loader import history, naming, schema, tracking
from loader.ddl import shapes
from loader.ddl.rekeeping import follow_history
from loader.keeping import keeping_of
from loader.load.merge import bring_along, take_rows
from loader.naming import RELOAD, TOUCHED, helper_name
from loader.schema import RawTable, quoted
from loader.types import raw_name
from loader.upsert import LOADED_AT, SOURCE_TS, same_key
from replicator.binlog.schema import TableSchema


def shape_in_raw(connection: PostgresConnection, name: str) -> RawTable:
    """A raw table's shape; it must be there."""
    return schema.read_tables(connection, [name])[name]


def copy_table(connection: PostgresConnection, source: str, target: str) -> None:
    """Make `target` a copy of the raw table `source`: columns, rows, key."""
    shape = shape_in_raw(connection, source)
    schema.create_table(connection, target, shape)
    columns = quoted([*shape.carried, LOADED_AT])
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
            sql.Identifier(target), columns, columns, sql.Identifier(source)
        )
    )
    if shape.key:
        naming.add_key(connection, target, shape.key)


def replace_rows(connection: PostgresConnection, target: str, source: str, at: str | None) -> None:
    """Give a raw table the shape and rows of another; what is the same is not written."""
    take_rows(connection, target, source, shape_in_raw(connection, source), at)


def replay(connection: PostgresConnection, target: str, table: str) -> None:
    """Bring a copy up to date with the changes that `table`'s touched table holds."""
    bring_along(connection, target, helper_name(TOUCHED, table), shape_in_raw(connection, target))


def rename_for_good(connection: PostgresConnection, old: str, new: str) -> None:
    """Nobody took the old name again: the table goes with its views, indexes, grants."""
    naming.rename_table(connection, old, new)
    history.rename(connection, old, new)


def take_over(connection: PostgresConnection, old: str, new: str, at: str | None) -> None:
    """Let the raw table `old`, with its views, indexes and grants, be `new` from here on."""
    replace_rows(connection, old, new, at)
    schema.drop_table(connection, new)
    rename_for_good(connection, old, new)


def reveal(
    connection: PostgresConnection, table_schema: TableSchema, shape: RawTable, at: str | None
) -> None:
    """A table that grew unseen, all in its touched table, becomes what readers see."""
    table = table_schema.name
    grown, helper = helper_name(TOUCHED, table), helper_name(RELOAD, table)
    schema.drop_helpers(connection, [helper])
    connection.execute(
        sql.SQL(
            "CREATE UNLOGGED TABLE {} AS SELECT {}, NULL::timestamptz AS {} FROM {}"
            " WHERE NOT _deleted"
        ).format(
            sql.Identifier(helper),
            quoted(shape.carried),
            sql.Identifier(LOADED_AT),
            sql.Identifier(grown),
        )
    )
    connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(helper)))
    take_rows(connection, raw_name(table), helper, shape, at)
    schema.drop_helpers(connection, [helper, grown])
    count = connection.execute(
        sql.SQL("SELECT count(*) FROM {} AS r WHERE true{}").format(
            sql.Identifier(raw_name(table)), schema.live(shape, "r")
        )
    ).fetchone()
    tracking.note_loaded(connection, table, int(count[0]) if count else 0, table_schema.hash)
    shapes.store(connection, table_schema)
    follow_history(connection, table, keeping_of(table_schema), at)


def has_as_many_rows(connection: PostgresConnection, table: str) -> bool:
    """Has what grows unseen at least as many rows as what readers see?"""
    grown, raw = helper_name(TOUCHED, table), raw_name(table)
    there = schema.read_tables(connection, [grown, raw])
    row = connection.execute(
        sql.SQL(
            "SELECT (SELECT count(*) FROM {} AS x WHERE NOT _deleted{}) >= count(*) FROM {} AS r"
            " WHERE true{}"
        ).format(
            sql.Identifier(grown),
            schema.live(there[grown], "x"),
            sql.Identifier(raw),
            schema.live(there[raw], "r"),
        )
    ).fetchone()
    return row is not None and bool(row[0])


LATEST = 200
"""Rows that tell whether a growing table is being filled from the one that it replaces."""


def is_being_copied(connection: PostgresConnection, table: str) -> bool:
    """Is any of the rows that came last into what grows unseen one of those that readers see?

    They are compared where both have a column of one name and type. Where no key tells which
    rows to compare, the answer is yes.
    """
    old, grown = raw_name(table), helper_name(TOUCHED, table)
    shapes_there = schema.read_tables(connection, [old, grown])
    key = shapes_there[old].key
    shared = [c.name for c in shapes_there[old].columns if c in shapes_there[grown].columns]
    if not key or not set(key) <= set(shared):
        return True
    same = sql.SQL(" AND ").join(
        sql.SQL("{} IS NOT DISTINCT FROM {}").format(
            sql.Identifier("g", name), sql.Identifier("r", name)
        )
        for name in shared
    )
    row = connection.execute(
        sql.SQL(
            "SELECT EXISTS (SELECT FROM (SELECT * FROM {} AS x WHERE NOT _deleted{}"
            " ORDER BY {} DESC NULLS LAST LIMIT {}) AS g JOIN {} AS r ON {} WHERE {})"
        ).format(
            sql.Identifier(grown),
            schema.live(shapes_there[grown], "x"),
            sql.Identifier(SOURCE_TS),
            sql.Literal(LATEST),
            sql.Identifier(old),
            same_key(key, "g", "r"),
            same,
        )
    ).fetchone()
    return row is None or bool(row[0])

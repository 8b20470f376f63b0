"""Put a whole copy of a table in place, in the stream's own transaction.

Left: a copy in a helper table, and the keys that the stream touched since the
copying began. Right: the raw table as it is at the stream's position. A touched
key's last state came with its event, so the copy yields to it; for every other key
the copy is right. Rows that are the same already are not written, so they keep
their `_loaded_at`, and readers of `raw` see the old rows until this commits.
"""

from __future__ import annotations

from contextlib import nullcontext

from psycopg import sql

from config.connections import PostgresConnection
from loader import schema, tracking
from loader.ddl import altering, shapes
from loader.load.reload import LoadedTable, shape_of
from loader.schema import LOAD, RELOAD, TOUCHED, RawTable, helper_name, quoted
from loader.types import raw_name
from loader.upsert import LOADED_AT, SOURCE_TS, same_key
from replicator.binlog.schema import TableSchema


def helpers_of(table: str) -> list[str]:
    """Every helper table that a table may have."""
    return [helper_name(prefix, table) for prefix in (LOAD, RELOAD, TOUCHED)]


def merge(
    connection: PostgresConnection,
    loaded: LoadedTable,
    table_schema: TableSchema,
    *,
    hidden: bool,
    touched: bool,
    exceptions: bool,
) -> int:
    """Merge one copy; return the rows written.

    `hidden`: the stream wrote this table's changes only to the touched table.
    `touched`: there is such a table. `exceptions`: the table has or had value exceptions.
    """
    name = raw_name(loaded.request.table)
    helper = loaded.request.helper
    job = _Merge(connection, name, helper, helper_name(TOUCHED, loaded.request.table))
    shape = shape_of(table_schema)
    with connection.pipeline() if loaded.request.first else nullcontext():
        if exceptions:
            job.move_exceptions(loaded.request.table, touched=touched)
        if loaded.request.first:
            if touched:
                job.replay_touched(helper, shape)
            job.rename(helper)
            rows = loaded.rows
        elif hidden or not job.reshape(shape):
            job.replace(shape)
            if touched:
                job.replay_touched(name, shape)
            rows = loaded.rows
        else:
            rows = job.write_differences(shape, touched=touched)
        if touched or not loaded.request.first:
            schema.drop_helpers(connection, helpers_of(loaded.request.table))
        tracking.note_loaded(connection, loaded.request.table, rows, table_schema.hash)
        shapes.store(connection, table_schema)
    return rows


def take_rows(connection: PostgresConnection, name: str, source: str, shape: RawTable) -> None:
    """Give the raw table `name` the shape and the rows of the raw table `source`."""
    job = _Merge(connection, name, source, source)
    if shape.key and job.reshape(shape):
        job.write_differences(shape, touched=False)
    else:
        job.replace(shape)


def bring_along(connection: PostgresConnection, name: str, touched: str, shape: RawTable) -> None:
    """Bring the raw table `name` up to date with a touched table."""
    _Merge(connection, name, name, touched).replay_touched(name, shape)


class _Merge:
    """The statements of one merge."""

    def __init__(
        self, connection: PostgresConnection, name: str, helper: str, touched: str
    ) -> None:
        self._connection = connection
        self._name = name
        self._table = sql.Identifier(name)
        self._copy = sql.Identifier(helper)
        self._helper = helper
        self._touched = sql.Identifier(touched)

    def reshape(self, shape: RawTable) -> bool:
        """Alter the raw table in place where its rows can stay."""
        current = schema.read_tables(self._connection, [self._name]).get(self._name)
        change = schema.diff(current, shape) if current else None
        if change is None or (change and not change.in_place):
            return False
        if change:
            altering.apply_in_place(self._connection, self._name, change)
        return True

    def rename(self, helper: str) -> None:
        """Let the copy become the raw table."""
        self._connection.execute(
            sql.SQL("ALTER TABLE {} RENAME TO {}").format(sql.Identifier(helper), self._table)
        )

    def replace(self, shape: RawTable) -> None:
        """Give the raw table the copy's shape and rows instead of its own."""
        current = schema.read_tables(self._connection, [self._name]).get(self._name)
        if current is None:
            schema.create_table(self._connection, self._name, shape)
            if shape.key:
                schema.add_key(self._connection, self._name, schema.key_name(self._name), shape.key)
        else:
            change = schema.diff(current, shape)
            altering.apply_emptied(self._connection, self._name, change, shape.key)
        names = (*shape.names, SOURCE_TS)
        self._connection.execute(
            sql.SQL("INSERT INTO {} ({}, {}) SELECT {}, statement_timestamp() FROM {}").format(
                self._table, quoted(names), sql.Identifier(LOADED_AT), quoted(names), self._copy
            )
        )

    def replay_touched(self, target: str, shape: RawTable) -> None:
        """Bring a copy up to the stream's position."""
        table = sql.Identifier(target)
        self._connection.execute(
            sql.SQL("DELETE FROM {} AS r USING {} AS x WHERE {}").format(
                table, self._touched, same_key(shape.key, "r", "x")
            )
        )
        names = (*shape.names, SOURCE_TS)
        self._connection.execute(
            sql.SQL(
                "INSERT INTO {} ({}, {}) SELECT {}, statement_timestamp() FROM {}"
                " WHERE NOT _deleted"
            ).format(table, quoted(names), sql.Identifier(LOADED_AT), quoted(names), self._touched)
        )

    def write_differences(self, shape: RawTable, *, touched: bool) -> int:
        """Delete what the copy lacks, write what differs; touched keys are right already."""
        deleted = self._connection.execute(
            sql.SQL("DELETE FROM {} AS r WHERE NOT EXISTS (SELECT FROM {} AS l WHERE {}){}").format(
                self._table,
                self._copy,
                same_key(shape.key, "l", "r"),
                self._untouched(shape, "r", touched),
            )
        ).rowcount
        names = (*shape.names, SOURCE_TS)
        sets = sql.SQL(", ").join(
            sql.SQL("{} = EXCLUDED.{}").format(sql.Identifier(n), sql.Identifier(n))
            for n in (*names, LOADED_AT)
        )
        written = self._connection.execute(
            sql.SQL(
                "INSERT INTO {} ({}, {}) SELECT {}, statement_timestamp() FROM {} AS l"
                " WHERE NOT EXISTS (SELECT FROM {} AS r WHERE {} AND {}){}"
                " ON CONFLICT ({}) DO UPDATE SET {}"
            ).format(
                self._table,
                quoted(names),
                sql.Identifier(LOADED_AT),
                quoted(names),
                self._copy,
                self._table,
                same_key(shape.key, "r", "l"),
                _same_values(shape, "r", "l"),
                self._untouched(shape, "l", touched),
                quoted(shape.key),
                sets,
            )
        ).rowcount
        return deleted + written

    def _untouched(self, shape: RawTable, alias: str, touched: bool) -> sql.Composable:
        if not touched:
            return sql.SQL("")
        return sql.SQL(" AND NOT EXISTS (SELECT FROM {} AS x WHERE {})").format(
            self._touched, same_key(shape.key, "x", alias)
        )

    def move_exceptions(self, table: str, *, touched: bool) -> None:
        """The copy's exceptions take the old ones' place, but for touched keys."""
        spare: sql.Composable = (
            sql.SQL(" AND key NOT IN (SELECT _key FROM {})").format(self._touched)
            if touched
            else sql.SQL("")
        )
        self._connection.execute(
            sql.SQL("DELETE FROM etl_value_exceptions WHERE table_name = {}{}").format(
                sql.Literal(table), spare
            )
        )
        self._connection.execute(
            sql.SQL(
                "UPDATE etl_value_exceptions SET table_name = {} WHERE table_name = {}{}"
            ).format(sql.Literal(table), sql.Literal(self._helper), spare)
        )
        self._connection.execute(
            "DELETE FROM etl_value_exceptions WHERE table_name = %s", [self._helper]
        )


_BITWISE = {"real": "float4send", "double precision": "float8send"}


def _same_values(shape: RawTable, left: str, right: str) -> sql.Composed:
    """Are all columns the same, -0.0 and 0.0 told apart?"""
    parts = []
    for column in shape.columns:
        ours, theirs = sql.Identifier(left, column.name), sql.Identifier(right, column.name)
        template = "{} IS NOT DISTINCT FROM {}"
        send = _BITWISE.get(column.type)
        if send:
            template = f"{send}({{}}) IS NOT DISTINCT FROM {send}({{}})"
        parts.append(sql.SQL(template).format(ours, theirs))
    return sql.SQL(" AND ").join(parts)

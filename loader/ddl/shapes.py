"""Each table's MySQL schema at the stream's position, kept in PostgreSQL with the rows.

Left: the schema of a copy's snapshot, or the one that an ALTER led to. Right: the same
when the next ALTER comes, before and after a restart. A schema that was worked out from
a statement is `predicted` until the catalog or a table map has said the same. The names
whose raw tables stand for others (see `standing`) are kept here too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from config.connections import PostgresConnection
from config.keeping import Keeping
from config.privacy import Mask
from loader.keeping import with_keeping
from loader.masking import MaskedColumn
from replicator.binlog.schema import Column, ColumnType, TableSchema

_DDL = """
CREATE TABLE IF NOT EXISTS etl_table_schema (
  table_name text PRIMARY KEY,
  schema_hash text NOT NULL,
  predicted boolean NOT NULL,
  definition jsonb NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT statement_timestamp());
CREATE TABLE IF NOT EXISTS etl_standing (
  table_name text PRIMARY KEY,
  moved_to text,
  since timestamptz NOT NULL DEFAULT statement_timestamp());
ALTER TABLE etl_standing ADD COLUMN IF NOT EXISTS fresh boolean NOT NULL DEFAULT false;
"""


def create_tables(connection: PostgresConnection) -> None:
    """Create our tables where they are missing; commits."""
    connection.execute("SET LOCAL client_min_messages = warning")
    connection.execute(_DDL)
    connection.commit()


def store(connection: PostgresConnection, schema: TableSchema, *, predicted: bool = False) -> None:
    """Remember a table's schema; `changed_at` moves only when it is another one."""
    connection.execute(
        "INSERT INTO etl_table_schema VALUES (%s, %s, %s, %s) ON CONFLICT (table_name) DO UPDATE"
        " SET schema_hash = EXCLUDED.schema_hash, predicted = EXCLUDED.predicted,"
        " definition = EXCLUDED.definition, changed_at = CASE WHEN"
        " etl_table_schema.schema_hash = EXCLUDED.schema_hash THEN etl_table_schema.changed_at"
        " ELSE EXCLUDED.changed_at END",
        [schema.name, schema.hash, predicted, _held(schema)],
    )
    connection.execute(
        "UPDATE etl_transform_status SET schema_hash = %s WHERE table_name = %s"
        " AND schema_hash IS DISTINCT FROM %s",
        [schema.hash, schema.name, schema.hash],
    )


def read(connection: PostgresConnection, table: str) -> TableSchema | None:
    """A table's schema; None where none is known."""
    row = connection.execute(
        "SELECT definition FROM etl_table_schema WHERE table_name = %s", [table]
    ).fetchone()
    return _schema(row[0]) if row else None


def read_all(connection: PostgresConnection, tables: Iterable[str]) -> dict[str, TableSchema]:
    """The schemas of those tables that have one."""
    rows = connection.execute(
        "SELECT table_name, definition FROM etl_table_schema WHERE table_name = ANY(%s)",
        [list(tables)],
    )
    return {name: _schema(held) for name, held in rows}


_NUL, _HELD_NUL = "\0", "\uffff"
"""jsonb holds no NUL, which a member of an ENUM may have; what is no character stands for it."""


def _held(schema: TableSchema) -> str:
    columns = [
        replace(
            column,
            type=replace(
                column.type, values=tuple(v.replace(_NUL, _HELD_NUL) for v in column.type.values)
            ),
        )
        for column in schema.columns
    ]
    return json.dumps(asdict(replace(schema, columns=tuple(columns))))


def _members(held: list[str]) -> tuple[str, ...]:
    return tuple(member.replace(_HELD_NUL, _NUL) for member in held)


def _schema(held: dict[str, Any]) -> TableSchema:
    columns = tuple(map(_column, held["columns"]))
    schema = TableSchema(held["name"], columns, tuple(held["primary_key"]))
    return with_keeping(schema, Keeping(**held.get("keeping", {})))


def _column(held: dict[str, Any]) -> Column:
    kind = ColumnType(**{**held["type"], "values": _members(held["type"]["values"])})
    told = (held["name"], kind, held["nullable"], held["key_position"])
    mask = held.get("mask")
    if mask is None:
        return Column(*told)
    return MaskedColumn(*told, Mask(**{**mask, "zeroed": tuple(mask["zeroed"])}))


def predictions(connection: PostgresConnection) -> dict[str, str]:
    """Tables whose schema nothing has confirmed yet, with its hash."""
    rows = connection.execute(
        "SELECT table_name, schema_hash FROM etl_table_schema WHERE predicted"
    )
    return dict(rows.fetchall())


def confirm(connection: PostgresConnection, table: str) -> None:
    """The catalog, or a table map, has said the same."""
    connection.execute(
        "UPDATE etl_table_schema SET predicted = false WHERE table_name = %s", [table]
    )


def rename(connection: PostgresConnection, moved: Mapping[str, str | None]) -> None:
    """Tables are called otherwise from here on, all at once, for they may swap.

    `moved`: new name to old; None where a table has come that had no schema here.
    """
    olds = {old for old in moved.values() if old}
    waiting, known = predictions(connection), read_all(connection, olds)
    for name in {*olds, *moved} - {name for name, old in moved.items() if old in known}:
        forget(connection, name)
    for name, old in moved.items():
        if old in known:
            store(connection, replace(known[old], name=name), predicted=old in waiting)


def forget(connection: PostgresConnection, table: str) -> None:
    """A table is gone."""
    connection.execute("DELETE FROM etl_table_schema WHERE table_name = %s", [table])


def note_standing(
    connection: PostgresConnection, table: str, moved_to: str | None, *, fresh: bool = False
) -> None:
    """A raw table keeps its rows for its readers while its name has no table, or a growing one.

    `fresh`: `moved_to` had no raw table when its table came by that name.
    """
    connection.execute(
        "INSERT INTO etl_standing (table_name, moved_to, fresh) VALUES (%s, %s, %s)"
        " ON CONFLICT (table_name) DO UPDATE"
        " SET moved_to = EXCLUDED.moved_to, fresh = EXCLUDED.fresh",
        [table, moved_to, fresh],
    )


def forget_standing(connection: PostgresConnection, table: str) -> None:
    """A raw table shows its own rows again, or is gone."""
    connection.execute("DELETE FROM etl_standing WHERE table_name = %s", [table])


def read_standing(connection: PostgresConnection) -> list[tuple[str, str | None, bool]]:
    """Names that stand, where their tables went, and whether these had no raw table there."""
    return connection.execute("SELECT table_name, moved_to, fresh FROM etl_standing").fetchall()

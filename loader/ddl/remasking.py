"""Rules of privacy over time: what they mean for tables that `raw` has already.

Left: the masks that a table's rows were written under, as `etl_table_schema` has them, and
those that the rules give it now. Right: tables to reload, schema changes that must not be
worked out from a statement (a column's DEFAULT is a value too), and what is cleared when a
reload has brought the new masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog
from psycopg import sql

from config.connections import MySQLConnection, PostgresConnection
from loader import history_shape
from loader import schema as raw_schema
from loader.ddl import altering, shapes
from loader.ddl.alterations import Action, Add, AddKey, Drop, DropKey, Modify, Rename
from loader.masking import Masker, masks_of
from loader.tracking import STREAMING, TableStatus
from loader.types import raw_name
from replicator.binlog.schema import TableSchema, schemas_from_catalog

log = structlog.get_logger()


def check_rules(
    query: MySQLConnection, database: str, tables: Iterable[str], masker: Masker
) -> None:
    """Hold the rules against the replica's tables; raises ConfigError, tells what is idle."""
    names = list(tables)
    if not masker or not names:
        return
    found = schemas_from_catalog(query, database, names)
    counts = [len(masks_of(schema)) for schema in masker.schemas(found).values()]
    if any(counts):
        log.info("columns_masked", columns=sum(counts), tables=sum(map(bool, counts)))
    keyless = sorted(name for name, schema in found.items() if masker.is_keyless(schema))
    if keyless:
        log.warning(
            "keyless_tables_are_mirrored",
            tables=keyless,
            hint="Without a primary key no row is known again: of these nothing more is kept.",
        )
    idle = masker.idle(list(found.values()))
    if idle:
        log.warning(
            "mask_rules_match_nothing",
            rules=idle,
            hint="The replica has no such table, or column: mend their names in tables.toml.",
        )


def remasked(
    connection: PostgresConnection, statuses: dict[str, TableStatus], masker: Masker
) -> set[str]:
    """Streaming tables whose rows were written under other masks than the rules give."""
    streaming = [name for name, status in statuses.items() if status.state == STREAMING]
    known = shapes.read_all(connection, streaming)
    found = {name for name, schema in known.items() if masker.masks_differ(schema)}
    if found:
        log.warning("masks_differ", tables=sorted(found), remedy="reloading them")
    return found


def touches_masked(actions: Sequence[Action], known: TableSchema, masker: Masker) -> bool:
    """Does an ALTER name a column that is masked, before it or after?"""
    key = [known.columns[index].name for index in known.primary_key]
    named = {name for action in actions for name in _named(action, key)}
    masked = {name.lower() for name in masks_of(known)}
    return bool(masker.masks(known.name, named)) or any(name.lower() in masked for name in named)


def _named(action: Action, key: Sequence[str]) -> Iterable[str]:
    match action:
        case Add(column):
            return (column.name,)
        case Drop(name):
            return (name,)
        case Modify(old, column):
            return (old, column.name)
        case Rename(old, new):
            return (old, new)
        case AddKey(columns):
            return (*columns, *key)
        case DropKey():
            return key
        case _:
            return ()


def remasked_columns(before: TableSchema, now: TableSchema) -> set[str]:
    """The columns that have another mask, or none any more."""
    was, is_now = masks_of(before), masks_of(now)
    return {column for column in {*was, *is_now} if was.get(column) != is_now.get(column)}


def is_rekeyed(before: TableSchema | None, now: TableSchema) -> bool:
    """Is a column of the key masked otherwise, so that no row goes by the name that it had?"""
    if before is None:
        return False
    key = {now.columns[index].name for index in now.primary_key}
    return bool(key & remasked_columns(before, now))


def _forget_in_deleted_rows(
    connection: PostgresConnection, name: str, columns: Iterable[str]
) -> None:
    there = raw_schema.read_tables(connection, [name]).get(name)
    if there is None or not there.soft:
        return
    found = [c for c in columns if c in there.names and c not in there.key]
    if found:
        nothing = sql.SQL(", ").join(sql.SQL("{} = NULL").format(sql.Identifier(c)) for c in found)
        connection.execute(
            sql.SQL("UPDATE {} SET {} WHERE {} IS NOT NULL").format(
                sql.Identifier(name), nothing, sql.Identifier(raw_schema.MARK.name)
            )
        )


def settle_masks(
    connection: PostgresConnection, table: str, before: TableSchema | None, now: TableSchema
) -> None:
    """A copy is in place: where its masks are not those before, see to what they leave behind.

    Columns that views kept in `raw` when they were dropped keep their place and lose their values.
    So do the changed columns of deleted rows and of earlier versions that are kept: no copy has
    these, and they hold what masks hide now.
    """
    if before is None or masks_of(before) == masks_of(now):
        return
    name = raw_name(table)
    changed = {raw_name(column) for column in remasked_columns(before, now)}
    history_shape.forget_values(connection, name, changed)
    _forget_in_deleted_rows(connection, name, changed)
    retired = altering.retired_columns(connection, name)
    if retired:
        nothing = sql.SQL(", ").join(
            sql.SQL("{} = NULL").format(sql.Identifier(column)) for column in retired
        )
        connection.execute(sql.SQL("UPDATE {} SET {}").format(sql.Identifier(name), nothing))
    log.warning(
        "masks_changed",
        table=table,
        masked=len(masks_of(now)),
        remedy=f'what raw held before may stand on the disk still: VACUUM (FULL) "{name}"',
    )

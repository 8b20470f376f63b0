"""Names in `raw`: tables, indexes and views share one namespace, whoever made them.

Left: a table, and what it is to be called or to have as its key. Right: a name that nobody has,
given in the caller's transaction. Whoever makes, renames or keys a table there does it by what
stands here.

* A key is called after its table where that name is free, else numbered: nothing depends on it.
  A helper's key is called after the helper. So what a copy makes beside the stream never has a
  name that the stream wants; and one thread copies a table, and one writes, so that a name
  which is found free stays so.
* A helper's name ends in a space, as no name on a MySQL or MariaDB server may. So the source can
  have no table of that name, whatever it is called; nor has a table that shadows a raw table for
  our session, being temporary.
* A table's own name must be had. An index in its way (the key of `t`, where the source has a
  table `t_pkey` too) goes by another name; anything else there is somebody's, who is told.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import Final

from psycopg import sql

from config.connections import PostgresConnection
from config.errors import SchemaDrift
from loader.types import MAX_NAME_BYTES, raw_name, shortened

OURS: Final = " "
"""What names of tables end in that are ours alone."""
LOAD, RELOAD, TOUCHED, STAGE = "_load_", "_reload_", "_touched_", "_stage_"
"""Prefixes of the helper tables that accompany a table while it is loaded or written."""
_KINDS = {
    "r": "table", "p": "table", "v": "view", "m": "materialised view", "S": "sequence",
    "f": "foreign table", "c": "type",
}  # fmt: skip
_HOLDER = """
SELECT relkind::text FROM pg_class WHERE relname = %s AND relnamespace =
  (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
"""
_KEY = """
SELECT conname FROM pg_constraint WHERE contype = 'p' AND conrelid = (
  SELECT oid FROM pg_class WHERE relname = %s AND relnamespace =
    (SELECT oid FROM pg_namespace WHERE nspname = current_schema()))
"""


_FORMER = """
SELECT relname FROM pg_class WHERE relname = ANY(%s) AND relkind = 'r'
  AND (relpersistence = 'u' OR relname = ANY(%s)) AND relnamespace =
  (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
"""


def helper_name(prefix: str, table: str) -> str:
    """A helper table's name; unlike a table's own name it is shortened with its prefix."""
    return shortened(prefix + table, MAX_NAME_BYTES - len(OURS)) + OURS


def former_helpers(
    connection: PostgresConnection, tables: Collection[str], loading: Collection[str]
) -> list[str]:
    """Helpers that an earlier version left, whose names did not yet end as ours do.

    `tables`: all that are known; a raw table of theirs is no helper. `loading`: those that have
    no raw table yet. All other helpers were unlogged.
    """
    own = {raw_name(table) for table in tables}
    prefixes = (LOAD, RELOAD, TOUCHED)
    names = {shortened(prefix + table, MAX_NAME_BYTES) for prefix in prefixes for table in tables}
    first = {shortened(LOAD + table, MAX_NAME_BYTES) for table in loading}
    found = connection.execute(_FORMER, [list(names - own), list(first - own)])
    return [str(name) for (name,) in found]


def key_name(table: str) -> str:
    """What a table's primary key is called, where it may be."""
    return shortened(f"{table}_pkey", MAX_NAME_BYTES)


def key_of(connection: PostgresConnection, table: str) -> str | None:
    """What a table's primary key is called; None where it has none."""
    row = connection.execute(_KEY, [table]).fetchone()
    return str(row[0]) if row else None


def add_key(connection: PostgresConnection, table: str, key: tuple[str, ...]) -> None:
    """Give a table its primary key."""
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY ({})").format(
            sql.Identifier(table),
            sql.Identifier(_free_key_name(connection, table)),
            sql.SQL(", ").join(map(sql.Identifier, key)),
        )
    )


def rename_table(connection: PostgresConnection, old: str, new: str) -> None:
    """Let a table go by another name, and its key with it."""
    make_room(connection, new)
    table = sql.Identifier(new)
    connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(sql.Identifier(old), table))
    key = key_of(connection, new)
    if key is not None and key != key_name(new):
        connection.execute(
            sql.SQL("ALTER TABLE {} RENAME CONSTRAINT {} TO {}").format(
                table, sql.Identifier(key), sql.Identifier(_free_key_name(connection, new))
            )
        )


def make_room(connection: PostgresConnection, table: str) -> None:
    """Let a name be free for a table; raises SchemaDrift where somebody has it."""
    holder = _holder(connection, table)
    if holder is None:
        return
    if holder in ("i", "I"):
        aside = _free_name(connection, lambda number: f"{table}_{number + 1}")
        connection.execute(
            sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                sql.Identifier(table), sql.Identifier(aside)
            )
        )
        return
    kind = _KINDS.get(holder, "relation")
    raise SchemaDrift(
        f"the name of raw table {table} is taken: there is a {kind} of that name in its schema",
        hint=f"Rename that {kind} or move it to another schema; then start the loader again.",
    )


def _holder(connection: PostgresConnection, name: str) -> str | None:
    """The kind of whatever has a name, as pg_class tells it."""
    row = connection.execute(_HOLDER, [name]).fetchone()
    return str(row[0]) if row else None


def _free_key_name(connection: PostgresConnection, table: str) -> str:
    return _free_name(connection, lambda n: key_name(table if n == 1 else f"{table}_{n}"))


def _free_name(connection: PostgresConnection, name: Callable[[int], str]) -> str:
    """The first of these names, numbered from 1, that nothing has."""
    for number in itertools.count(1):
        found = shortened(name(number), MAX_NAME_BYTES)
        if _holder(connection, found) is None:
            return found
    raise AssertionError("unreachable")

"""`<table>_history`: every version of every row of a table, in a table beside it.

A version is a row of `raw` with the moments from and to which the source had it: `_valid_from`
and `_valid_to`, both times of source commits; without a `_valid_to` it is the present one.
Versions of one second, or of one transaction, are told apart by `_version`, which grows.

*The invariant*: the open versions are the live rows of the raw table, before and after every
commit. The stream keeps it (`recording`): what a batch brings closes and opens versions,
those that come and go within it included, in the transaction of the rows and the position.
Everything else that changes raw tables (copies, names that change places, schema changes) is
followed by `reconcile`, which compares both and writes only what differs: nothing, where a
reload found nothing. The moment of such a difference is not known but for an end of it, so
`_from_exact` and `_to_exact` say whether a time is the commit's own.

Closed versions are never changed, but for columns that come in place (they have there what the
source's own rows got), and where masks change, which take values away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog
from psycopg import sql

from config.connections import PostgresConnection
from loader import schema
from loader.history_shape import (
    add_column,
    fill_fresh,
    fit,
    history_name,
    history_table,
    index_name,
    read_columns,
    rename_column,
    set_aside,
)
from loader.keeping import DELETED_AT, KEY, OPEN
from loader.rawsql import same_key
from loader.sameness import same_values
from loader.schema import SOURCE_TS, RawTable, quoted
from loader.types import RawColumn

log = structlog.get_logger()


def evolve(
    connection: PostgresConnection,
    place: str,
    shape: RawTable,
    renamed: Sequence[tuple[str, str]],
    added: Sequence[tuple[RawColumn, str | None]],
    castable: Iterable[str],
    at: str | None,
) -> None:
    """Follow what an ALTER did to the raw table, whose shape is `shape` now."""
    there = read_columns(connection, place)
    moving = [(old, new) for old, new in renamed if old in there]
    for _, new in renamed:
        if new in there and new not in {old for old, _ in moving}:
            set_aside(connection, place, new)
    between = [f"_renaming_{number}" for number, _ in enumerate(moving)]
    for (old, _), name in zip(moving, between, strict=True):  # they may change places
        rename_column(connection, place, old, name)
    for (_, new), name in zip(moving, between, strict=True):
        rename_column(connection, place, name, new)
    for column, fill in added:
        if column.name in there:
            set_aside(connection, place, column.name)
        add_column(connection, place, column, fill)
    if fit(connection, place, shape, at, castable):
        reconcile(connection, place, shape, at)


def follow(connection: PostgresConnection, place: str, shape: RawTable, at: str | None) -> None:
    """A raw table was changed otherwise than by its rows' events: its history follows.

    `at`: the source's commit time at which it is what it is now.
    """
    fit(connection, place, shape, at)
    reconcile(connection, place, shape, at)


def reconcile(
    connection: PostgresConnection, place: str, shape: RawTable, at: str | None
) -> tuple[int, int]:
    """Let the open versions be the raw table's live rows; how many were closed and opened.

    A version ends where the next begins: with the row's own commit, unless that was before
    `at`; or where its row was deleted, if `raw` knows; or at `at`. A key's first version begins
    with its row's commit.
    """
    fill_fresh(connection, place, shape)
    history, table = history_table(place), sql.Identifier(place)
    now = schema.moment(at or _clock(connection))
    row_since = sql.SQL("greatest(r.{}, {})").format(sql.Identifier(SOURCE_TS), now)
    when = (
        sql.SQL("coalesce(r.{}, {})").format(sql.Identifier(DELETED_AT), row_since)
        if shape.soft
        else row_since
    )
    same = same_key(shape.key, "r", "h")
    values = same_values(RawTable(shape.columns, shape.key), "r", "h")
    alive = schema.live(shape, "r")
    # In two steps: rows that are there in another form, or marked; rows that are not there.
    changed = connection.execute(
        sql.SQL(
            "UPDATE {} AS h SET _valid_to = {}, _to_exact = false FROM {} AS r"
            " WHERE h._valid_to IS NULL AND {} AND NOT ({}{})"
        ).format(history, when, table, same, values, alive)
    ).rowcount
    gone = connection.execute(
        sql.SQL(
            "UPDATE {} AS h SET _valid_to = {}, _to_exact = false"
            " WHERE h._valid_to IS NULL AND NOT EXISTS (SELECT FROM {} AS r WHERE {})"
        ).format(history, now, table, same)
    ).rowcount
    names = quoted(shape.names)
    listed = sql.SQL(", ").join(sql.Identifier("r", name) for name in shape.names)
    opened = connection.execute(
        sql.SQL(
            "INSERT INTO {} ({}, _valid_from, _from_exact) SELECT {}, CASE WHEN EXISTS"
            " (SELECT FROM {} AS h WHERE {}) THEN {} ELSE coalesce(r.{}, {}) END, false"
            " FROM {} AS r WHERE NOT EXISTS"
            " (SELECT FROM {} AS h WHERE h._valid_to IS NULL AND {}){}"
        ).format(
            history, names, listed, history, same, row_since, sql.Identifier(SOURCE_TS), now,
            table, history, same, alive,
        )
    ).rowcount  # fmt: skip
    if changed or gone or opened:
        log.info("history_reconciled", table=place, closed=changed + gone, opened=opened)
    return changed + gone, opened


def _clock(connection: PostgresConnection) -> str:
    row = connection.execute("SELECT statement_timestamp()::text").fetchone()
    assert row is not None
    return str(row[0])


def rename(connection: PostgresConnection, old: str, new: str) -> None:
    """The raw table goes by another name; its history with it, unless that name has one."""
    if not read_columns(connection, old) or read_columns(connection, new):
        return
    connection.execute(
        sql.SQL("ALTER TABLE {} RENAME TO {}").format(
            history_table(old), sql.Identifier(history_name(new))
        )
    )
    for ending in (OPEN, KEY):
        connection.execute(
            sql.SQL("ALTER INDEX {} RENAME TO {}").format(
                sql.Identifier(index_name(old, ending)), sql.Identifier(index_name(new, ending))
            )
        )

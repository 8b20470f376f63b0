"""Rules of [table.…] over time, and histories of tables that change otherwise than by rows.

Left: what was kept of a table so far, as `etl_table_schema` has it, and what the rules keep of
it now; places where copies, names that move and schema changes are followed. Right: raw tables
that keep deleted rows or let them go, histories that begin and end, in the caller's transaction.

What is kept changes no row that the source has, so a changed rule needs no reload: a column
comes or goes, a history begins with the rows there are. Tables that are being loaded get to
the new rule with their copy.
"""

from __future__ import annotations

import structlog

from config.connections import PostgresConnection
from config.keeping import Keeping
from loader import history, history_shape, schema
from loader.ddl import altering, shapes
from loader.keeping import keeping_of, with_keeping
from loader.masking import Masker
from loader.tracking import STREAMING, TableStatus
from loader.types import raw_name
from replicator.binlog.schema import TableSchema

log = structlog.get_logger()


def rekeep(
    connection: PostgresConnection,
    statuses: dict[str, TableStatus],
    masker: Masker,
    at: str | None,
) -> None:
    """Let the rules hold for every table that streams; `at`: the source's time in `raw`."""
    streaming = [name for name, status in statuses.items() if status.state == STREAMING]
    known = shapes.read_all(connection, streaming)
    differing = {
        name: found
        for name, found in known.items()
        if masker.keeping_differs(found) and not masker.masks_differ(found)
    }
    predicted = shapes.predictions(connection) if differing else {}
    for name, found in differing.items():
        now = with_keeping(found, masker.keeping(found))
        if _rekeep(connection, name, found, now, at):
            shapes.store(connection, now, predicted=name in predicted)


def _rekeep(
    connection: PostgresConnection, table: str, was: TableSchema, now: TableSchema, at: str | None
) -> bool:
    place, keeping = raw_name(table), keeping_of(now)
    there = schema.read_tables(connection, [place]).get(place)
    if there is None:
        return False  # it is loaded anew, and then as the rules say
    if there.soft != keeping.soft:
        altering.keep_deleted(connection, place, soft=keeping.soft)
    settle_history(connection, table, was, now, at)
    follow_history(connection, table, keeping, at)
    log.warning(
        "keeping_changed",
        table=table,
        deletes="soft" if keeping.soft else "hard",
        history=keeping.history,
    )
    return True


def settle_history(
    connection: PostgresConnection,
    table: str,
    was: TableSchema | None,
    now: TableSchema,
    at: str | None,
) -> None:
    """End a history that is not to be kept any more; what it has stays for whoever wants it."""
    if was is None or not keeping_of(was).history or keeping_of(now).history:
        return
    place = raw_name(table)
    name = history_shape.history_name(place)
    history_shape.close_all(connection, place, at, exact=False)
    log.warning(
        "history_ended",
        table=table,
        remedy=f'it stands as it is; to be rid of it: DROP TABLE "{name}"',
    )


def follow_history(
    connection: PostgresConnection, table: str, keeping: Keeping, at: str | None
) -> None:
    """Let a table's history, where one is kept, be what its raw table is now."""
    if not keeping.history:
        return
    place = raw_name(table)
    there = schema.read_tables(connection, [place]).get(place)
    if there is not None and there.key:
        history.follow(connection, place, there, at)


def follow_moved(connection: PostgresConnection, table: str, at: str | None) -> None:
    """The same, by the rule that is stored with the rows."""
    known = shapes.read(connection, table)
    if known is not None:
        follow_history(connection, table, keeping_of(known), at)

"""Let an ALTER happen in `raw`: the stored schema, what becomes of it, the raw table.

Left: the actions of an ALTER in its place in the stream, and the catalog as it is now.
Right: the raw table and the stored schema changed in the open transaction, which the
caller commits with the position; or nothing changed and False: reload.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from config.connections import PostgresConnection
from config.metrics import SCHEMA_CHANGES
from loader import history
from loader.ddl import altering, shapes
from loader.ddl.alterations import Action
from loader.ddl.evolution import Evolution, evolve
from loader.ddl.literals import Uncertain
from loader.ddl.remasking import touches_masked
from loader.keeping import keeping_of
from loader.load.reload import shape_of
from loader.masking import Masker
from loader.quarantine import entries
from loader.types import raw_name
from replicator.binlog.schema import TableSchema

log = structlog.get_logger()


def evolve_table(
    connection: PostgresConnection,
    table: str,
    actions: Sequence[Action],
    catalog: TableSchema | None,
    masker: Masker,
    at: str,
) -> bool:
    """See the module; after False the caller rolls back. `at`: when the source did it."""
    known = shapes.read(connection, table)
    if known is None:
        return _refused(table, "its schema before the change is not known")
    if touches_masked(actions, known, masker):
        return _refused(table, "it changes a column that is masked")
    try:
        change = evolve(known, actions, catalog)
    except Uncertain as doubt:
        return _refused(table, str(doubt) or "the change is not one that is known to be exact")
    if keeping_of(known) and not change.schema.primary_key:
        return _refused(table, "it has no key any more")
    if change.renews_values and _has_exceptions(connection, table):
        return _refused(table, "it has value exceptions")
    if change and entries.any_of(connection, table):
        return _refused(table, "it has rows in quarantine")
    if change and not altering.evolve(connection, raw_name(table), change):
        return _refused(table, "its rows do not fit the change")
    _carry_exceptions(connection, table, change)
    if change and keeping_of(known).history:
        _evolve_history(connection, table, change, at)
    certain = catalog is not None and catalog.hash == change.schema.hash
    shapes.store(connection, change.schema, predicted=not certain)
    log.info("schema_changed_in_place", table=table, certain=certain)
    SCHEMA_CHANGES.labels("in_place").inc()
    return True


def _evolve_history(connection: PostgresConnection, table: str, change: Evolution, at: str) -> None:
    renamed = {new: old for old, new in change.renamed}
    looked_at = {check.column for check in change.checks}
    castable = [c.name for c in change.retyped if renamed.get(c.name, c.name) not in looked_at]
    shape = shape_of(change.schema)
    history.evolve(connection, raw_name(table), shape, change.renamed, change.added, castable, at)


def _refused(table: str, reason: str) -> bool:
    log.info("schema_change_reloads_table", table=table, reason=reason)
    SCHEMA_CHANGES.labels("reload").inc()
    return False


def _has_exceptions(connection: PostgresConnection, table: str) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM etl_value_exceptions WHERE table_name = %s)", [table]
    ).fetchone()
    return row is not None and bool(row[0])


def _carry_exceptions(connection: PostgresConnection, table: str, change: Evolution) -> None:
    """Value exceptions follow their columns."""
    if not (change.renamed or change.dropped):
        return
    connection.execute(
        "DELETE FROM etl_value_exceptions WHERE table_name = %s AND column_name = ANY(%s)",
        [table, list(change.dropped)],
    )
    connection.execute(
        "UPDATE etl_value_exceptions AS e SET column_name = r.new FROM"
        " unnest(%s::text[], %s::text[]) AS r(old, new)"
        " WHERE e.table_name = %s AND e.column_name = r.old",
        [[old for old, _ in change.renamed], [new for _, new in change.renamed], table],
    )

"""Raw tables that are not what their rows are: found, and loaded anew by themselves.

Left: a table map whose rows do not fit the raw table though no statement explains it, an
error of PostgreSQL's that says the same, or, at every start, raw tables that are not what
`etl_table_schema` says. Right: names of tables to reload, or the error again.

The stream is thrown away and begins anew at the stored position, so nothing was written
that did not fit; the reloaded table is exact as any reloaded table is. It halts only where
that does not help: what comes again after `TRIES` reloads within `FORGET_SECONDS` is not
a mishap, and what MySQL says of its own tables no reload of `raw` can mend.
"""

from __future__ import annotations

import time
from collections import defaultdict

import psycopg
import structlog

from config import metrics
from config.connections import PostgresConnection
from config.errors import SchemaDrift
from loader import schema
from loader.ddl import shapes
from loader.load.reload import shape_of
from loader.tracking import STREAMING, TableStatus
from loader.types import raw_name

log = structlog.get_logger()

TRIES, FORGET_SECONDS = 3, 600.0


class ShapeDrift(SchemaDrift):
    """A raw table has another shape than its rows, and no schema change explains it."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"raw table {table} has another shape than its rows, and no schema change in the"
            " stream explains it",
            hint=f"It was loaded anew and differs again: find out who alters raw.{table}, then:"
            f" replicator resync {table}",
        )
        self.table = table


class Drifts:
    """The drifts of one loader process, so that what never heals comes to an end."""

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = defaultdict(list)

    def heal(self, drift: SchemaDrift) -> frozenset[str]:
        """Tables to reload, beside those that a start finds; raises `drift` where that is vain."""
        table = drift.table if isinstance(drift, ShapeDrift) else ""
        if not table and not isinstance(drift.__context__, psycopg.Error):
            raise drift
        now = time.monotonic()
        lately = [when for when in self._seen[table] if now - when < FORGET_SECONDS]
        if len(lately) >= TRIES:
            raise drift
        self._seen[table] = [*lately, now]
        metrics.SCHEMA_DRIFTS.inc()
        log.warning(
            "schema_drift", reason=str(drift), table=table or None, remedy="reloading the table"
        )
        return frozenset([table] if table else [])


def drifted(connection: PostgresConnection, statuses: dict[str, TableStatus]) -> set[str]:
    """Streaming tables whose raw table is gone, or lacks what the stored schema has."""
    streaming = [name for name, status in statuses.items() if status.state == STREAMING]
    wanted = shapes.read_all(connection, streaming)
    there = schema.read_tables(connection, [raw_name(name) for name in wanted])
    found = set()
    for name, known in wanted.items():
        current = there.get(raw_name(name))
        change = schema.diff(current, shape_of(known)) if current else None
        if change is None or not schema.fits(change):
            found.add(name)
    if found:
        log.warning("raw_tables_differ", tables=sorted(found), remedy="reloading them")
    return found

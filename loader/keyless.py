"""Load a table without a primary key, at once, on the writing connection.

Its rows have no names by which the stream's changes and a copy could be told
apart. So its copy is made while the stream waits, and the table's changes are
skipped until the stream has passed the copy's watermark, which is stored.
"""

from __future__ import annotations

from config.connections import PostgresConnection
from config.failpoints import reach
from loader import naming, schema, tracking
from loader.ddl import altering, shapes
from loader.ddl.rekeeping import settle_history
from loader.ddl.remasking import settle_masks
from loader.load.carefully import CarefulCopy
from loader.load.merge import discard_copies
from loader.load.reload import Copier, Snapshot, shape_of
from loader.naming import TOUCHED, helper_name
from loader.quarantine import entries
from loader.quarantine.refusals import attempt
from loader.types import raw_name
from replicator.binlog.schema import TableSchema


def load_keyless(copier: Copier, postgres: PostgresConnection, table: str) -> Snapshot:
    """Replace a raw table's rows by the replica's; the caller commits. Returns what was read.

    Nothing is done where the replica has no such table. The snapshot's mark is the watermark.
    """
    opened = copier.open([table])
    table_schema = opened.schemas.get(table)
    if table_schema is None:
        return opened
    name, shape = raw_name(table), shape_of(table_schema)
    current = schema.read_tables(postgres, [name]).get(name)
    if current is None:
        schema.create_table(postgres, name, shape)
        if shape.key:
            naming.add_key(postgres, name, shape.key)
    else:
        altering.apply_emptied(postgres, name, schema.diff(current, shape), shape.key)
    discard_copies(postgres, table)  # it may have had a key when it was copied before
    schema.drop_helpers(postgres, [helper_name(TOUCHED, table)])
    tracking.clear_all_exceptions(postgres, table)
    entries.clear_all(postgres, table)
    rows = _fill(copier, postgres, name, table_schema, opened)
    tracking.rename_exceptions(postgres, name, table)
    tracking.set_watermark(postgres, table, opened.mark.position if opened.mark else None)
    before = shapes.read(postgres, table)
    settle_masks(postgres, table, before, table_schema)
    settle_history(postgres, table, before, table_schema, None)
    tracking.note_loaded(postgres, table, rows, table_schema.hash)
    shapes.store(postgres, table_schema)
    reach("load.keyless")
    return opened


def _fill(
    copier: Copier,
    postgres: PostgresConnection,
    name: str,
    table_schema: TableSchema,
    opened: Snapshot,
) -> int:
    """Copy the rows; refused ones go to the quarantine. How many stand in the table."""
    found: list[int] = []

    def fill(careful: CarefulCopy | None = None) -> None:
        rows, _faults = copier.fill(name, table_schema, opened.mark, lambda: False, careful)
        found.append(rows)

    if attempt(postgres, fill) is None:
        return found[-1]
    careful = copier.careful(table_schema, opened, into=entries.TABLE)
    fill(careful)
    return found[-1] - careful.end()

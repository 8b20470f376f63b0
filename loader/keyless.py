"""Load a table without a primary key, at once, on the writing connection.

Its rows have no names by which the stream's changes and a copy could be told
apart. So its copy is made while the stream waits, and the table's changes are
skipped until the stream has passed the copy's watermark, which is stored.
"""

from __future__ import annotations

from config.connections import PostgresConnection
from loader import schema, tracking
from loader.ddl import altering, shapes
from loader.load.reload import Copier, shape_of
from loader.replica import SourceMark
from loader.types import raw_name


def load_keyless(copier: Copier, postgres: PostgresConnection, table: str) -> SourceMark | None:
    """Replace a raw table's rows by the replica's; the caller commits. Returns the watermark."""
    opened = copier.open([table])
    table_schema = opened.schemas.get(table)
    if table_schema is None:
        return None
    name, shape = raw_name(table), shape_of(table_schema)
    current = schema.read_tables(postgres, [name]).get(name)
    if current is None:
        schema.create_table(postgres, name, shape)
        if shape.key:
            schema.add_key(postgres, name, schema.key_name(name), shape.key)
    else:
        altering.apply_emptied(postgres, name, schema.diff(current, shape), shape.key)
    tracking.clear_all_exceptions(postgres, table)
    rows, _faults = copier.fill(name, table_schema, opened.mark, lambda: False)
    tracking.rename_exceptions(postgres, name, table)
    tracking.set_watermark(postgres, table, opened.mark.position if opened.mark else None)
    tracking.note_loaded(postgres, table, rows, table_schema.hash)
    shapes.store(postgres, table_schema)
    return opened.mark

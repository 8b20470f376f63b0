"""Tables of which more is kept than the source has: a schema in, the same with its rule out. Pure.

A `KeptSchema` is a schema that says what stays of rows that are gone. Like masks (see `masking`)
a rule is a part of the schema: it comes in where schemas come in, is stored with the rows in
`etl_table_schema`, and all that follows from a schema follows from it. A rule that changes is a
schema that changes.

Without a key there is no row that could be told from its own earlier versions: such a table
is not kept, and refused where a rule calls it by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from config.keeping import Keeping
from replicator.binlog.schema import TableSchema

NOTHING = Keeping()
HISTORY = "_history"
"""What the name of a table's history ends in."""
OPEN, KEY = "_open", "_key"
"""What the names of a history's indexes end in, behind its own."""
DELETED_AT = "_deleted_at"
"""Closes the raw tables that keep deleted rows: when the source deleted the row, or NULL."""
HISTORY_COLUMNS = ("_version", "_valid_from", "_valid_to", "_from_exact", "_to_exact")
"""What a version of a row has in a history, beside its columns."""


@dataclass(frozen=True, slots=True)
class KeptSchema(TableSchema):
    """A table's schema, and what is kept of its rows."""

    keeping: Keeping


def keeping_of(schema: TableSchema) -> Keeping:
    """What is kept of a table."""
    return schema.keeping if isinstance(schema, KeptSchema) else NOTHING


def with_keeping(schema: TableSchema, keeping: Keeping) -> TableSchema:
    """The schema with another rule."""
    if keeping_of(schema) == keeping:
        return schema
    told = (schema.name, schema.columns, schema.primary_key)
    return KeptSchema(*told, keeping) if keeping else TableSchema(*told)


def kept_for(table: str) -> str | None:
    """The table whose history, or one of its indexes, would have this one's name."""
    for ending in (HISTORY, *(HISTORY + index for index in (OPEN, KEY))):
        if table.endswith(ending) and table != ending:
            return table.removesuffix(ending)
    return None


def faults_of(schema: TableSchema, keeping: Keeping, *, by_name: bool) -> list[str]:
    """Why a rule cannot hold for a table; `by_name`: it calls the table by its name."""
    if not keeping:
        return []
    if not schema.primary_key:
        asked = 'deletes = "soft"' if keeping.soft else "history"
        reason = f"{asked} needs a primary key, by which a row is known again"
        return [f"{schema.name}: {reason}"] if by_name else []
    taken = [c.name for c in schema.columns if c.name in HISTORY_COLUMNS]
    if keeping.history and taken:
        return [f"{schema.name}: a history has a column {name} of its own" for name in taken]
    return []

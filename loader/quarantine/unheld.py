"""Rows whose key PostgreSQL cannot hold: a zero date, a NUL, bytes that are no text. Pure.

Such a row cannot be written, nor told from others by its key as it would stand in `raw`. So it
is known by the original bytes of its key (`rows.unheld_key`), which a row event and a SELECT
give alike, and has its place in the quarantine until it is deleted or its key changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from loader import types
from loader.batch import Unheld
from loader.quarantine.entries import Refused
from loader.quarantine.refusals import Reason
from loader.rows import TablePlan, unheld_key
from loader.values import Faults, ValueFault
from replicator.binlog.schema import TableSchema

_TYPES = types.CHARACTER | {"date", "datetime", "timestamp", "enum", "set"}


def may_be_unheld(plan: TablePlan) -> bool:
    """Can there be a key of this table that PostgreSQL cannot hold?"""
    columns = plan.schema.columns
    return any(columns[index].type.base in _TYPES for index in plan.key)


def still_there(unheld: Mapping[bytes, Unheld]) -> list[Refused]:
    """Those of the rows that have not been deleted."""
    return [
        _refused(key, row, source_ts, faults)
        for key, ((_, row, faults), source_ts) in unheld.items()
        if row is not None
    ]


def selected_rows(
    table_schema: TableSchema,
    rows: Iterator[tuple[list[bytes], Faults]],
    source_ts: bytes,
) -> Iterator[Refused]:
    """Rows of a copy, as fields and faults, that cannot be held."""
    names = [types.raw_name(column.name) for column in table_schema.columns]
    for fields, faults in rows:
        key = [(names[index], fields[index]) for index in table_schema.primary_key]
        yield _refused(unheld_key(key, faults), b"\t".join(fields), source_ts, faults)


def _refused(key: bytes, row: bytes, source_ts: bytes, faults: Sequence[ValueFault]) -> Refused:
    said = ", ".join(dict.fromkeys(f"{fault.reason} in column {fault.column}" for fault in faults))
    return Refused(key, row, source_ts, Reason("", f"its key cannot be held: {said}"))

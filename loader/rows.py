"""The row decoder's seam: a ROWS event's bytes and a table's plan in, row changes out.

`RowDecoder` is what a compiled kernel will implement; `PythonDecoder` is the
reference and the fallback. A `TablePlan` is compiled once per shape of a table's
map. A row change carries COPY text, not values, so that the paths behind it
never look into a row. Pure.

Format of ROWS events: MariaDB `sql/log_event.h`, "class Rows_log_event".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from config.errors import ColumnsMissing, UnknownEvent
from loader import types, wire
from loader.masking import reading
from loader.types import RawColumn
from loader.values import NULL, Faults, ValueFault
from replicator.binlog.events import HEADER_LENGTH, TableMap, read_lenenc
from replicator.binlog.schema import TableSchema, schema_from_table_map

COLUMN_BYTES = 1 << 10
"""What a plan takes for each of its columns, with what is made of it."""
KEPT_COLUMNS = 16_000
"""Of all plans together that a cache keeps: some hundreds of tables."""

INSERT, UPDATE, DELETE = 0, 1, 2
_OPERATIONS = {23: INSERT, 24: UPDATE, 25: DELETE, 30: INSERT, 31: UPDATE, 32: DELETE}


class RowChange(NamedTuple):
    """One row's change.

    `key` is the COPY text of the key columns (of all columns in a table without a
    key); None when PostgreSQL cannot hold the key itself, so that the row cannot be
    written. `row` is the COPY text of all columns, None for a DELETE. An UPDATE that
    changes the key arrives as a DELETE and an INSERT.
    """

    operation: int
    key: bytes | None
    row: bytes | None
    faults: tuple[ValueFault, ...]


@dataclass(frozen=True, slots=True)
class TablePlan:
    """How a table's row images are read: everything that is the same for each row."""

    schema: TableSchema
    columns: tuple[RawColumn, ...]
    """Those of the raw table: all but the dropped ones."""
    key: tuple[int, ...]
    """Indexes of the key columns in key order; () where the table has none."""
    readers: tuple[wire.Reader | None, ...]
    """One for each column of the schema; None for one that is dropped."""
    skips: tuple[wire.Skip, ...]
    """One for each column of the row image: the server may hide columns behind the last."""

    @property
    def table(self) -> str:
        """The table's name on the replica."""
        return self.schema.name

    @property
    def width(self) -> int:
        """Columns of the row image."""
        return len(self.skips)

    @property
    def held_bytes(self) -> int:
        """Roughly what it takes to hold it."""
        return self.width * COLUMN_BYTES

    @property
    def key_columns(self) -> tuple[str, ...]:
        """Names of the key columns in `raw`, in key order."""
        return tuple(types.raw_name(self.schema.columns[index].name) for index in self.key)


def plan_for(
    table_map: TableMap, masked: Callable[[TableSchema], TableSchema] = lambda schema: schema
) -> TablePlan:
    """Compile a table map that carries full metadata; raises SchemaDrift where it does not.

    `masked`: see `masking.Masker.schema`.
    """
    schema = masked(schema_from_table_map(table_map))
    codes = list(zip(table_map.column_types, table_map.column_metadata, strict=True))
    try:
        return _compiled(schema, codes)
    except (LookupError, ValueError):  # a DECIMAL of no digits, say
        raise malformed(table_map.table) from None


def _compiled(schema: TableSchema, codes: list[tuple[int, int]]) -> TablePlan:
    return TablePlan(
        schema,
        types.raw_columns(schema),
        schema.primary_key,
        tuple(
            reading(column, wire.reader(column, code, metadata))
            for column, (code, metadata) in zip(schema.columns, codes, strict=False)
        ),
        tuple(wire.skipper(code, metadata) for code, metadata in codes),
    )


UNHELD = b"\\?"


class UnheldChange(NamedTuple):
    """A row whose key PostgreSQL cannot hold: `row` is its COPY text, None where it is gone."""

    key: bytes
    row: bytes | None
    faults: tuple[ValueFault, ...]


class RowDecoder(Protocol):
    """Turns a rows event into row changes, in the event's order."""

    def decode(self, event: bytes, plan: TablePlan) -> list[RowChange]:
        """Decode a whole, uncompressed rows event (types 23-25, 30-32) without its checksum."""
        ...


def malformed(table: str) -> UnknownEvent:
    """A rows event whose bytes do not fit its table map."""
    return UnknownEvent(
        f"a rows event of table {table} does not fit its table map",
        hint="Nothing behind it was written. Check the replica's binlog with mariadb-binlog"
        " --verify-binlog-checksum, or reload: replicator resync " + table,
    )


class PythonDecoder:
    """The reference: reads each column with `wire`'s readers."""

    def decode(self, event: bytes, plan: TablePlan) -> list[RowChange]:
        """See `RowDecoder`."""
        if len(event) <= HEADER_LENGTH:
            raise malformed(plan.table)
        operation = _OPERATIONS.get(event[4])
        if operation is None:
            raise UnknownEvent(
                f"a rows event of type {event[4]} for table {plan.table}",
                hint="On the replica: SET GLOBAL binlog_row_value_options = '';",
            )
        try:
            at = self._body(event, plan, operation)
            return list(_CHANGES[operation](_Images(event, at, plan)))
        except (IndexError, struct.error) as error:
            raise malformed(plan.table) from error

    def unheld(self, event: bytes, plan: TablePlan) -> Iterator[UnheldChange]:
        """Of a whole rows event that decodes, what became of rows whose key cannot be held."""
        operation = _OPERATIONS[event[4]]
        images = _Images(event, self._body(event, plan, operation), plan)
        while images.more():
            if operation != INSERT:
                key, faults = images.key_only()
                if key is None:
                    yield UnheldChange(images.unheld_key(faults), None, ())
            if operation != DELETE:
                key, row, faults = images.whole()
                if key is None:
                    yield UnheldChange(images.unheld_key(faults), row, tuple(faults))

    @staticmethod
    def _body(event: bytes, plan: TablePlan, operation: int) -> int:
        """Check the width and the columns present; return the first image's offset."""
        at = HEADER_LENGTH + 8
        if event[4] >= 30:
            at += int.from_bytes(event[at : at + 2], "little")
        width, at = read_lenenc(event, at)
        if width != len(plan.skips):
            raise malformed(plan.table)
        size = (width + 7) // 8
        for _ in range(2 if operation == UPDATE else 1):
            present = int.from_bytes(event[at : at + size], "little")
            if present & ((1 << width) - 1) != (1 << width) - 1:
                raise ColumnsMissing(
                    f"a row image of table {plan.table} lacks columns",
                    hint="On the replica: SET GLOBAL binlog_row_image = 'FULL'; then"
                    f" replicator resync {plan.table}",
                    table=plan.table,
                )
            at += size
        return at


class _Images:
    """Walks the row images of one event."""

    def __init__(self, data: bytes, at: int, plan: TablePlan) -> None:
        self.data = data
        self.at = at
        self.plan = plan
        self._bitmap = (len(plan.skips) + 7) // 8
        self._hidden = range(len(plan.readers), len(plan.skips))
        self._dropped = frozenset(index for index, read in enumerate(plan.readers) if read is None)
        self.last: list[bytes] = []
        self._wanted = frozenset(plan.key) if plan.key else frozenset(range(len(plan.readers)))

    def more(self) -> bool:
        """Does another image follow? Raises where the last ran past the end."""
        if self.at > len(self.data):
            raise IndexError
        return self.at < len(self.data)

    def whole(self) -> tuple[bytes | None, bytes, Faults]:
        """The next image: (key, row, faults)."""
        faults: Faults = []
        fields: list[bytes] = []
        nulls = self._nulls()
        data, at = self.data, self.at
        for index, read in enumerate(self.plan.readers):
            if nulls >> index & 1:
                fields.append(NULL)
                continue
            if read is None:
                at = self._behind(index, at)
                fields.append(NULL)
                continue
            value, at = read(data, at, faults)
            fields.append(NULL if value is None else value)
        for index in self._hidden:
            if not nulls >> index & 1:
                at = self._behind(index, at)
        self.at = at
        row = b"\t".join(self._kept(fields) if self._dropped else fields)
        return self._key(fields, row), row, faults

    def _kept(self, fields: list[bytes]) -> Iterator[bytes]:
        return (field for index, field in enumerate(fields) if index not in self._dropped)

    def key_only(self) -> tuple[bytes | None, Faults]:
        """The key of the next image, everything else stepped over."""
        plan = self.plan
        if not plan.key:
            key, _row, faults = self.whole()
            return key, faults
        faults = []
        fields: list[bytes] = [NULL] * len(plan.readers)
        nulls = self._nulls()
        data, at = self.data, self.at
        for index in range(len(plan.skips)):
            if nulls >> index & 1:
                continue
            read = plan.readers[index] if index in self._wanted else None
            if read is not None:
                value, at = read(data, at, faults)
                fields[index] = NULL if value is None else value
            else:
                at = self._behind(index, at)
        self.at = at
        return self._key(fields, b""), faults

    def _behind(self, index: int, at: int) -> int:
        """The offset behind a column's value at `at`, which is not read."""
        fixed, prefix = self.plan.skips[index]
        if fixed:
            return at + fixed
        return at + prefix + int.from_bytes(self.data[at : at + prefix], "little")

    def _nulls(self) -> int:
        end = self.at + self._bitmap
        nulls = int.from_bytes(self.data[self.at : end], "little")
        self.at = end
        return nulls

    def _key(self, fields: list[bytes], row: bytes) -> bytes | None:
        if not self.plan.key:
            return row
        self.last = fields
        key = [fields[index] for index in self.plan.key]
        return None if NULL in key else b"\t".join(key)

    def unheld_key(self, faults: Iterable[ValueFault]) -> bytes:
        """The last key, which PostgreSQL cannot hold, told from others all the same."""
        key = list(zip(self.plan.key_columns, (self.last[at] for at in self.plan.key), strict=True))
        return unheld_key(key, faults)


def unheld_key(key: Iterable[tuple[str, bytes]], faults: Iterable[ValueFault]) -> bytes:
    """A key's columns and fields, NULL where it cannot be held, as what tells its row from others.

    In the place of such a field stand `UNHELD`, which no COPY text holds, and the original's hex.
    """
    originals = {fault.column: fault.original for fault in faults}
    return b"\t".join(
        UNHELD + originals.get(name, b"").hex().encode() if field == NULL else field
        for name, field in key
    )


def _inserts(images: _Images) -> Iterator[RowChange]:
    while images.more():
        key, row, faults = images.whole()
        yield RowChange(INSERT, key, row, tuple(faults))


def _deletes(images: _Images) -> Iterator[RowChange]:
    while images.more():
        key, _faults = images.key_only()
        yield RowChange(DELETE, key, None, ())


def _updates(images: _Images) -> Iterator[RowChange]:
    while images.more():
        old_key, _faults = images.key_only()
        if not images.more():
            raise IndexError
        key, row, faults = images.whole()
        if key == old_key and images.plan.key:
            yield RowChange(UPDATE, key, row, tuple(faults))
        else:
            yield RowChange(DELETE, old_key, None, ())
            yield RowChange(INSERT, key, row, tuple(faults))


_CHANGES = {INSERT: _inserts, UPDATE: _updates, DELETE: _deletes}

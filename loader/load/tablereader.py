"""Rows of a SELECT on the replica in, COPY text of a raw table out; faults kept aside.

Two readers do the same, byte for byte: `copyrows.KernelReader`, compiled, and
`PythonReader`, which an install without a compiler uses and which the other is tested
against. `best_reader` chooses. `TableReader` is for rows that a driver has taken apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from loader.load import selected
from loader.upsert import exception_key
from loader.values import NULL, Faults, ValueFault
from replicator.binlog.resultset import is_giant
from replicator.binlog.schema import TableSchema

Fault = tuple[str, ValueFault]
"""A row's name in etl_value_exceptions, and one of its values."""


class RowReader(Protocol):
    """Turns blocks of a table's row packets (`resultset.ResultSet.blocks`) into COPY text."""

    @property
    def rows(self) -> int:
        """Rows converted so far."""
        ...

    def convert(self, block: bytes) -> bytes:
        """A line for each row, ending in the closing columns.

        A row whose key cannot be held only leaves its faults. Raises UnknownEvent for a block
        that no server sends.
        """
        ...

    def take_faults(self) -> list[Fault]:
        """The faults since the last call."""
        ...


def best_reader(table_schema: TableSchema, ending: bytes) -> RowReader:
    """The fastest reader there is; `ending` is what stands behind the table's own columns."""
    try:
        from loader.load.copyrows import KernelReader  # noqa: PLC0415 - may not have been built
    except ImportError:
        return PythonReader(table_schema, ending)
    return KernelReader(table_schema, ending)


def select_list(table_schema: TableSchema) -> str:
    """What to select for a table, in the columns' order."""
    return ", ".join(map(selected.expression, table_schema.columns))


class TableReader:
    """Turns a table's selected rows into COPY text, keeping faults and the count."""

    def __init__(self, table_schema: TableSchema) -> None:
        self.select_list = select_list(table_schema)
        self._convert = [selected.converter(c) for c in table_schema.columns]
        self._key = table_schema.primary_key
        self.faults: list[Fault] = []
        self.rows = 0

    def lines(self, rows: Iterable[Sequence[bytes | None]]) -> Iterator[bytes]:
        """COPY text of each row; a row whose key cannot be held only leaves its faults."""
        for row in rows:
            faults: Faults = []
            fields = self._fields(row, faults)
            line = b"\t".join(fields)
            key = self._key_of(fields, line)
            if faults:
                name = exception_key(key, has_key=bool(self._key))
                self.faults += [(name, fault) for fault in faults]
            if key is not None:
                self.rows += 1
                yield line

    def unheld(
        self, rows: Iterable[Sequence[bytes | None]]
    ) -> Iterator[tuple[list[bytes], Faults]]:
        """Fields and faults of the rows whose key cannot be held."""
        for row in rows:
            faults: Faults = []
            fields = self._fields(row, faults)
            if self._key_of(fields, b"") is None:
                yield fields, faults

    def _fields(self, row: Sequence[bytes | None], faults: Faults) -> list[bytes]:
        return [
            NULL if value is None or (text := convert(value, faults)) is None else text
            for value, convert in zip(row, self._convert, strict=True)
        ]

    def _key_of(self, fields: list[bytes], line: bytes) -> bytes | None:
        if not self._key:
            return line
        key = [fields[index] for index in self._key]
        return None if NULL in key else b"\t".join(key)


class PythonReader:
    """The `RowReader` in Python: a hundred times as slow, and the other's measure."""

    def __init__(self, table_schema: TableSchema, ending: bytes) -> None:
        self._table = table_schema.name
        self._ending = ending + b"\n"
        self._reader = TableReader(table_schema)

    @property
    def rows(self) -> int:
        """See `RowReader`."""
        return self._reader.rows

    def convert(self, block: bytes) -> bytes:
        """See `RowReader`."""
        try:
            return b"".join(line + self._ending for line in self._reader.lines(_rows(block)))
        except ValueError as error:
            raise selected.malformed(self._table) from error

    def take_faults(self) -> list[Fault]:
        """See `RowReader`."""
        faults, self._reader.faults = self._reader.faults, []
        return faults


def unheld_rows(table_schema: TableSchema, block: bytes) -> Iterator[tuple[list[bytes], Faults]]:
    """Of a block, fields and faults of the rows whose key cannot be held."""
    return TableReader(table_schema).unheld(_rows(block))


def _rows(block: bytes) -> Iterator[list[bytes | None]]:
    """The rows of a block; ValueError where it is not whole packets of whole values."""
    if is_giant(block):
        yield list(_values(block[4:]))
        return
    at = 0
    while at < len(block):
        start = at + 4
        at = start + int.from_bytes(block[at : at + 3], "little")
        if start > len(block) or at > len(block):
            raise ValueError
        yield list(_values(block[start:at]))


_WIDTH = {0xFC: 2, 0xFD: 3, 0xFE: 8}


def _values(packet: bytes) -> Iterator[bytes | None]:
    """The values of a row: each behind its length; see the manual on "Text Resultset Row"."""
    at = 0
    while at < len(packet):
        length = packet[at]
        at += 1
        if length == 0xFB:
            yield None
            continue
        if length > 0xFB:
            width = _WIDTH.get(length, len(packet))
            length = int.from_bytes(packet[at : at + width], "little")
            at += width
        if at + length > len(packet):
            raise ValueError
        yield packet[at : at + length]
        at += length

"""Row images and the events around them, made from rows that were selected.

A row image is what a rows event holds of one row: a bitmap of its NULLs, then
the other values in their stored form. From the left come a table of the
replica's catalog and rows in the text protocol, or images that `rowsplit` cut
out of an event; to the right go TABLE_MAP and rows events (header and body, no
checksum) that a BINLOG statement takes.

Virtual generated columns stand in row images like any other, with their values;
the hidden hashes of MariaDB's long unique keys stand there too, behind the
columns, and are worked out anew by the server that applies them.

Formats: MariaDB `sql/log_event.h`, `sql/rpl_record.cc`; MySQL `rows_event.h`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from config.errors import CopyRefused, SchemaDrift
from replicator.binlog.catalog import CatalogTable
from replicator.binlog.events import (
    STMT_END_FLAG,
    EventType,
    with_header,
)
from replicator.binlog.rowsplit import RowSplitter, split_rows
from replicator.binlog.rowvalues import Field, field_of

Row = Sequence[bytes | None]
_VECTOR_DIMENSIONS: Final = 13
"""A field of a TABLE_MAP's optional metadata."""
_TABLE_MAP_FLAGS: Final = 1  # TM_BIT_LEN_EXACT_F


class Kind(Enum):
    """What rows events do; the values are the type codes of versions 1 and 2."""

    WRITE = (23, 30)
    UPDATE = (24, 31)
    DELETE = (25, 32)


@dataclass(frozen=True)
class TableLayout:
    """How rows of one table stand in the binlog of the server that has it."""

    table: str
    fields: tuple[Field, ...]
    hidden_hashes: tuple[bool, ...] = ()
    width: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", len(self.fields) + len(self.hidden_hashes))

    @classmethod
    def of(cls, table: CatalogTable) -> TableLayout:
        """The layout of a table of the catalog.

        `CopyRefused` for tables whose rows a copy would change: system-versioned ones.
        """
        if table.system_versioned:
            raise CopyRefused(
                f"table {table.name} is system-versioned: a copy would lose its history",
                "Exclude the table in tables.toml.",
            )
        fields = tuple(field_of(table.name, column) for column in table.columns)
        return cls(table.name, fields, table.hidden_hashes)


def build_table_map(
    table_id: int, database: str, layout: TableLayout, *, server_id: int = 0, timestamp: int = 0
) -> bytes:
    """A TABLE_MAP event for `layout` in `database`, with minimal metadata."""
    fields = layout.fields
    types = bytes([one.type_code if one.type_code not in (247, 248) else 254 for one in fields])
    metadata = b"".join(one.metadata for one in fields)
    may_be_null = [*(one.nullable for one in fields), *layout.hidden_hashes]
    nullable = sum(1 << at for at, may in enumerate(may_be_null) if may)
    body = (
        table_id.to_bytes(6, "little")
        + struct.pack("<H", _TABLE_MAP_FLAGS)
        + _name(database)
        + _name(layout.table)
        + write_lenenc(layout.width)
        + types
        + bytes([8]) * len(layout.hidden_hashes)
        + write_lenenc(len(metadata))
        + metadata
        + nullable.to_bytes((layout.width + 7) // 8, "little")
        + _vector_metadata(fields)
    )
    return with_header(EventType.TABLE_MAP, timestamp, server_id, 0, body)


def _vector_metadata(fields: Sequence[Field]) -> bytes:
    """MySQL holds the dimensions of its VECTORs against the replica's columns."""
    vectors = b"".join(write_lenenc(one.dimensions) for one in fields if one.dimensions)
    return bytes([_VECTOR_DIMENSIONS]) + write_lenenc(len(vectors)) + vectors if vectors else b""


def _name(name: str) -> bytes:
    raw = name.encode()
    return bytes([len(raw)]) + raw + b"\0"


def write_lenenc(value: int) -> bytes:
    """A length-encoded integer."""
    if value < 0xFB:
        return bytes([value])
    if value < 1 << 16:
        return b"\xfc" + value.to_bytes(2, "little")
    if value < 1 << 24:
        return b"\xfd" + value.to_bytes(3, "little")
    return b"\xfe" + value.to_bytes(8, "little")


def rows_event(
    table_id: int,
    width: int,
    images: Iterable[bytes],
    *,
    kind: Kind = Kind.WRITE,
    flags: int = STMT_END_FLAG,
    version: int = 1,
    server_id: int = 0,
    timestamp: int = 0,
    columns: int | None = None,
) -> bytes:
    """A rows event for a table `width` columns wide.

    `images` follow each other as they are: for updates, before and after in turn. They hold every
    column, or those in the bitmap `columns`. Version 1 is what MariaDB writes, MySQL takes
    version 2 only.
    """
    every = _all_columns(width)
    present = every if columns is None else columns.to_bytes(len(every), "little")
    parts = [
        table_id.to_bytes(6, "little"),
        flags.to_bytes(2, "little"),
        b"\2\0" if version == 2 else b"",
        write_lenenc(width),
        present * (2 if kind is Kind.UPDATE else 1),
    ]
    parts.extend(images)
    return with_header(kind.value[version - 1], timestamp, server_id, 0, b"".join(parts))


def _all_columns(width: int) -> bytes:
    """A bitmap of `width` ones; as the servers do, the bits beyond are ones as well."""
    return b"\xff" * ((width + 7) // 8)


class RowImageEncoder:
    """Makes row images for one table of the replica out of rows selected from the source.

    `select_list` is what to select, in that order, in a session whose character_set_results is
    NULL; rows are the text protocol's bytes, None for NULL. TIMESTAMPs are selected as seconds,
    so that the session's time zone does not matter.
    """

    def __init__(self, layout: TableLayout) -> None:
        self.layout = layout
        self.select_list = tuple(one.expression for one in layout.fields)
        self._encoders = tuple(one.encode for one in layout.fields)
        self._bitmap_size = (layout.width + 7) // 8
        beyond = ((1 << 8 * self._bitmap_size) - 1) ^ ((1 << layout.width) - 1)
        self._no_nulls = beyond.to_bytes(self._bitmap_size, "little")
        self._beyond = beyond
        self._bits = tuple(1 << at for at in range(len(layout.fields)))
        self._tail = bytes(8 * len(layout.hidden_hashes))

    def encode(self, row: Row) -> bytes:
        """The image of one row; `SchemaDrift` if a value does not fit the replica's column."""
        try:
            if None not in row:
                values = [
                    encode(value)  # type: ignore[arg-type]  # none is None
                    for encode, value in zip(self._encoders, row, strict=True)
                ]
                return b"".join((self._no_nulls, *values, self._tail))
            return self._encode_with_nulls(row)
        except (ValueError, IndexError, OverflowError, OSError, struct.error):
            raise self._misfit(row) from None  # the cause would quote the value

    def _encode_with_nulls(self, row: Row) -> bytes:
        values = [b""]
        nulls = self._beyond
        for encode, value, bit in zip(self._encoders, row, self._bits, strict=True):
            if value is None:
                nulls |= bit
            else:
                values.append(encode(value))
        values[0] = nulls.to_bytes(self._bitmap_size, "little")
        values.append(self._tail)
        return b"".join(values)

    def _misfit(self, row: Row) -> SchemaDrift:
        table = self.layout.table
        if len(row) != len(self._encoders):
            return SchemaDrift(f"a row of {len(row)} columns for {len(self._encoders)} of {table}")
        for one, value in zip(self.layout.fields, row, strict=True):
            try:
                if value is not None:
                    one.encode(value)
            except (ValueError, IndexError, OverflowError, OSError, struct.error):
                return SchemaDrift(f"a value does not fit column {table}.{one.name} of the replica")
        return SchemaDrift(f"a row does not fit table {table} of the replica")

    def rows_event(
        self,
        table_id: int,
        rows: Iterable[Row],
        *,
        kind: Kind = Kind.WRITE,
        flags: int = STMT_END_FLAG,
        version: int = 1,
        server_id: int = 0,
        timestamp: int = 0,
    ) -> bytes:
        """A rows event of `rows`, encoded; arguments as for the function of that name."""
        images = map(self.encode, rows)
        return rows_event(
            table_id, self.layout.width, images, kind=kind, flags=flags, version=version,
            server_id=server_id, timestamp=timestamp,
        )  # fmt: skip


__all__ = [
    "Kind",
    "RowImageEncoder",
    "RowSplitter",
    "TableLayout",
    "build_table_map",
    "rows_event",
    "split_rows",
]

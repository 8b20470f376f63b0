"""How the binary protocol's rows become row images: one account for each column.

From the left come a table of the replica's catalog and the definitions of the columns
that a source sends; to the right go what to select, and the plan that `rowkernel` is
compiled with. The stored form itself is `rowvalues`': a column that the kernel does not
know is encoded there, from the same printed bytes.

Why the binary protocol: it sends integers, doubles and moments as they are, so that the
source does not print and we do not read them, and a FLOAT, which prints with six digits,
arrives as it is stored. A zero's sign is lost even so, and comes in a column of its own in
front of the number (the arc tangent has it, as in `rowvalues`). ENUM and SET are
selected by number, which no charset changes, and a TIMESTAMP as its seconds, which no time
zone changes. Strings come as they are stored where character_set_results is NULL.

Formats: MariaDB `sql/protocol.cc` (`Protocol_binary`), MySQL's manual, "Binary Protocol
Resultset Row".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from config.connections import quote_mysql_identifier
from config.errors import SchemaDrift
from replicator.binlog.catalog import CatalogColumn, CatalogTable
from replicator.binlog.jsonencoding import selected
from replicator.binlog.rowimage import TableLayout
from replicator.binlog.rowvalues import Encoder

UNSIGNED: Final = 32
"""The flag of a column definition."""


class Kind(IntEnum):
    """Ways to store a value, as `rowkernel` numbers them."""

    COPIED = 0
    NUMBERED = 1
    DECIMAL = 2
    FIXED = 3
    YEAR = 4
    DATE = 5
    DATETIME = 6
    SECONDS = 7
    TIME = 8
    PREFIXED = 9
    CALLED = 10
    SIGN = 11
    FLOATING = 12


ZEROS_STRIPPED, MARKED_PLAIN = 1, 2

_STRINGS: Final = frozenset({15, 16, 242, 245, 246, 0, 247, 248, 249, 250, 251, 252, 253, 254, 255})
_INTEGERS: Final = {
    "tinyint": (1, 1), "smallint": (2, 2), "mediumint": (9, 3), "int": (3, 4), "bigint": (8, 8),
}  # fmt: skip
_TEXTS: Final = {
    word + ending: (size, (1 << 8 * size) - 1 if size < 4 else 0x7FFFFFFF)
    for word, size in (("tiny", 1), ("", 2), ("medium", 3), ("long", 4))
    for ending in ("text", "blob")
}

PlanColumn = tuple[str, int, int, int, int, int, Encoder]
"""Name, wire type, kind, its three numbers, and the Python encoder."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How one column is selected, which types it may come as, and how it is stored."""

    name: str
    expression: str
    wires: frozenset[int]
    unsigned: bool | None
    """What an integer must come as; None where it does not matter."""
    kind: Kind
    a: int = 0
    b: int = 0
    c: int = 0


def stored(column: CatalogColumn) -> Stored:
    """The account of one column."""
    quoted, kind = quote_mysql_identifier(column.name), column.data_type

    def made(wires: Any, how: Kind, *numbers: int, unsigned: bool | None = None) -> Stored:
        return Stored(column.name, quoted, frozenset(wires), unsigned, how, *numbers)

    if kind in _INTEGERS:
        wire, size = _INTEGERS[kind]
        return made([wire], Kind.COPIED, size, unsigned=column.unsigned)
    if kind == "float":
        return made([4], Kind.FLOATING, 4)
    if kind == "double":
        return made([5], Kind.FLOATING, 8)
    if kind == "decimal":
        return made([0, 246], Kind.DECIMAL, column.precision or 0, column.scale or 0)
    if kind == "bit":
        return made([16], Kind.FIXED, ((column.precision or 1) + 7) // 8)
    if kind == "year" and not column.short_year:
        return made([13], Kind.YEAR)
    if kind == "year":  # two digits, as they are printed
        return Stored(column.name, f"CAST({quoted} AS CHAR)", _STRINGS, None, Kind.CALLED)
    if kind == "json":
        return Stored(column.name, selected(quoted), _STRINGS, None, Kind.CALLED)
    return _moment(column, quoted) or _string(column, made)


def signs(column: CatalogColumn) -> list[Stored]:
    """What is selected in front of a column that may hold a zero below zero."""
    if column.data_type not in ("float", "double"):
        return []
    quoted = quote_mysql_identifier(column.name)
    expression = f"({quoted} <=> 0 AND ATAN2({quoted}, -1) < 0)"
    return [Stored(column.name, expression, frozenset({3, 8}), None, Kind.SIGN)]


def _moment(column: CatalogColumn, quoted: str) -> Stored | None:
    name, fsp = column.name, column.fsp
    if column.data_type == "date":
        return Stored(name, quoted, frozenset({10}), None, Kind.DATE)
    if column.data_type == "datetime":
        return Stored(name, quoted, frozenset({12}), None, Kind.DATETIME, fsp)
    if column.data_type == "time":
        return Stored(name, quoted, frozenset({11}), None, Kind.TIME, fsp)
    if column.data_type == "timestamp":
        wires = {0, 246} if fsp else {3, 8}
        expression = f"UNIX_TIMESTAMP({quoted})"
        return Stored(name, expression, frozenset(wires), None, Kind.SECONDS, fsp)
    return None


def _string(column: CatalogColumn, made: Any) -> Stored:
    kind, octets, count = column.data_type, column.octets or 0, len(column.members)
    compressed = MARKED_PLAIN if column.compressed else 0
    if kind in ("enum", "set"):
        size = (1 if count < 256 else 2) if kind == "enum" else (count + 7) // 8
        size = 8 if size > 4 else size
        cast = f"CAST({quote_mysql_identifier(column.name)} AS UNSIGNED)"
        return Stored(column.name, cast, frozenset({3, 8}), None, Kind.NUMBERED, size)
    result: Stored
    if kind in ("char", "binary"):
        strip = ZEROS_STRIPPED if kind == "binary" else 0
        result = made(_STRINGS, Kind.PREFIXED, 1 if octets < 256 else 2, octets, strip)
    elif kind in ("varchar", "varbinary") or (kind == "vector" and not column.vector_type):
        most = octets + (compressed > 0)
        result = made(_STRINGS, Kind.PREFIXED, 1 if most < 256 else 2, most, compressed)
    elif kind in _TEXTS or kind == "vector":
        result = made(_STRINGS, Kind.PREFIXED, *_TEXTS.get(kind, _TEXTS["longblob"]), compressed)
    else:
        result = made(_STRINGS, Kind.CALLED)
    return result


class RowPlan:
    """All columns of one table, and the kernels made for what a source sends for them."""

    def __init__(self, table: CatalogTable, layout: TableLayout) -> None:
        self.layout = layout
        self._encoders: list[Encoder] = []
        columns: list[Stored] = []
        self.places: list[int] = []
        """Where each of the table's columns stands among those that are selected."""
        for column, field in zip(table.columns, layout.fields, strict=True):
            columns += signs(column)
            self.places.append(len(columns))
            columns.append(stored(column))
            self._encoders += [field.encode] * (len(columns) - len(self._encoders))
        self.columns = tuple(columns)
        self.select_list = tuple(one.expression for one in self.columns)
        self._kernels: dict[tuple[int, ...], Any] = {}

    def kernel(self, fields: Sequence[Any]) -> Any:
        """The kernel for rows of these column definitions; `SchemaDrift` where they do not fit.

        What a definition says is what its values are checked by: an integer of the column's own
        type and sign fits the column.
        """
        wires = tuple(int(field.type_code) for field in fields)
        if len(wires) != len(self.columns):
            raise SchemaDrift(
                f"{len(wires)} columns were sent for {len(self.columns)} of {self.layout.table}"
            )
        for one, field in zip(self.columns, fields, strict=True):
            sign = bool(field.flags & UNSIGNED)
            if field.type_code not in one.wires or one.unsigned not in (None, sign):
                raise SchemaDrift(
                    f"column {self.layout.table}.{one.name} comes in another type than the"
                    " replica's column has",
                    hint="Resync the table when its schema is at rest.",
                )
        kernel = self._kernels.get(wires)
        if kernel is None:
            kernel = self._kernels[wires] = self._compiled(wires)
        return kernel

    def _compiled(self, wires: tuple[int, ...]) -> Any:
        from replicator.binlog.rowkernel import RowKernel  # noqa: PLC0415 - may be missing

        layout = self.layout
        plan: list[PlanColumn] = [
            (one.name, wire, int(one.kind), one.a, one.b, one.c, encode)
            for one, wire, encode in zip(self.columns, wires, self._encoders, strict=True)
        ]
        return RowKernel(layout.table, plan, len(layout.hidden_hashes))

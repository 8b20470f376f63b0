"""Write rows in quarantine again: when somebody asked for it, or another row made way.

Left: entries of `raw.etl_quarantine`. Right: their rows in `raw` and the entries gone, or the
entries with the reason why not. An entry is the last version of its key that the stream has
brought so far (a later one takes its place, a deletion clears it, a reload replaces them all),
so to write it is to write what a healthy batch would have written.

It is done by the loader, which is the only one that writes to raw tables. Who asks sets
`replay_requested_at`; entries of tables that are being loaded wait for that to end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter, itemgetter

import structlog

from config.connections import PostgresConnection
from loader import schema
from loader.ddl import shapes
from loader.fold import Copies, State
from loader.keeping import keeping_of
from loader.lifecycle import Table, Tables
from loader.load.reload import shape_of
from loader.quarantine import entries
from loader.quarantine.careful import CarefulWriter
from loader.quarantine.entries import DELETE, Held, Refused
from loader.quarantine.parts import KeylessRows, Rows, Writable
from loader.rawsql import Target
from loader.recording import Recorder
from loader.schema import RawTable
from loader.staging import Stages
from loader.tracking import STREAMING
from loader.types import RawColumn, raw_name
from loader.upsert import FoldWriter
from loader.values import NULL
from loader.versions import Version, Versions

log = structlog.get_logger()

MOST_ROWS, MOST_BYTES = 500, 32 << 20
"""What is replayed at a time."""
OTHER_SHAPE = "its table has another shape now: replicator resync it"
NOT_HELD = "its key cannot be held by PostgreSQL"
TOO_LARGE = "too large to be kept here: replicator resync its table"


class Replayer:
    """See the module; works in the writer's transaction and leaves the commit to it."""

    def __init__(
        self,
        connection: PostgresConnection,
        tables: Tables,
        careful: CarefulWriter,
        stages: Stages,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._careful = careful
        self._stages = stages
        self._merged: set[str] = set()

    def replay(self) -> int:
        """Replay what is asked for, not too much at a time; how many entries that were."""
        streaming = [n for n, t in self._tables.by_name.items() if t.state == STREAMING]
        wanted = entries.requested(self._connection, streaming, MOST_ROWS, MOST_BYTES)
        for table, names in _by_table(wanted):
            refused = self._table(self._tables.get(table), names)
            log.info("rows_replayed", table=table, rows=len(names), refused=len(refused))
        return len(wanted)

    def lift(self, wanted: Sequence[tuple[str, str]], merged: Collection[Table]) -> None:
        """Try rows that others stood in the way of until no more of them can be written.

        `merged`: tables whose copy has been put in place in the open transaction.
        """
        self._merged = {table.name for table in merged}
        left = list(dict.fromkeys(wanted))
        while left:
            still = [
                (table, name)
                for table, names in _by_table(left)
                for name in self._table(self._tables.get(table), names)
            ]
            if len(still) == len(left):
                break
            left = still
        self._merged = set()

    def _table(self, table: Table, names: Sequence[str]) -> list[str]:
        """Try some rows of one table; the names of those that are refused for others' sake."""
        held = entries.read(self._connection, table.name, names)
        shape = self._shape(table, held)
        apart = {one.name: why for one in held if (why := _unfit(one, shape))}
        refused: list[Refused] = []
        ready = [one for one in held if one.name not in apart]
        for columns, alike in groupby(ready, key=attrgetter("columns")):
            assert shape is not None
            refused += self._write(table, _ordered(shape, columns), list(alike))
        again: list[tuple[str, str, bool | None]] = [
            *((one.name, one.reason.text, one.stale) for one in refused),
            *((name, why, None) for name, why in apart.items()),
        ]
        left = {name for name, _, _ in again}
        written = [one.name for one in held if one.name not in left]
        entries.clear(self._connection, table.name, written)
        entries.refuse_again(self._connection, table.name, again)
        return [one.name for one in refused if one.reason.liftable]

    def _shape(self, table: Table, held: Sequence[Held]) -> RawTable | None:
        """What the rows are written under."""
        if (
            table.hidden and table.name not in self._merged
        ):  # there is no raw table of that shape yet, only the touched one
            plan = table.writer[0] if table.writer else None
            return shape_of(plan.schema) if plan else None
        name = raw_name(table.name)
        return schema.read_tables(self._connection, [name]).get(name) if held else None

    def _target(self, table: Table) -> Target:
        if table.name in self._merged:
            return Target(table.name, into_raw=True, into_touched=False)
        return table.target()

    def _write(self, table: Table, shape: RawTable, held: Sequence[Held]) -> list[Refused]:
        writer = FoldWriter(
            self._connection,
            self._stages,
            self._target(table),
            shape,
            schema_hash="",
            stamps_itself=False,
            recorder=self._recorder(table, shape),
        )
        return self._careful.write(writer, _rows(shape, held))

    def _recorder(self, table: Table, shape: RawTable) -> Recorder | None:
        """A row that was refused has a version from when it is written, since its commit."""
        known = shapes.read(self._connection, table.name)
        target = self._target(table)
        if known is None or not keeping_of(known).history or not target.into_raw:
            return None
        return Recorder(self._connection, self._stages, target.raw, shape)


def _unfit(one: Held, shape: RawTable | None) -> str | None:
    """Why an entry's row cannot even be tried."""
    if shape is None or set(one.columns) != set(shape.names):
        return OTHER_SHAPE
    if shape.key and one.image is not None:
        fields = dict(zip(one.columns, one.image.split(b"\t"), strict=True))
        if any(fields[name] == NULL for name in shape.key):
            return NOT_HELD
    if one.image is None and not (one.operation == DELETE and one.key_values):
        return TOO_LARGE
    return None


def _by_table(wanted: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    ordered = sorted(wanted, key=itemgetter(0))
    return [(t, [name for _, name in some]) for t, some in groupby(ordered, key=itemgetter(0))]


def _ordered(shape: RawTable, names: Sequence[str]) -> RawTable:
    """The shape with its columns in the order of an image."""
    types = {column.name: column.type for column in shape.columns}
    return replace(shape, columns=tuple(RawColumn(name, types[name]) for name in names))


def _rows(shape: RawTable, held: Sequence[Held]) -> Writable:
    if shape.key:
        states = [
            State(
                one.key(shape) or b"", None if one.operation == DELETE else one.image, one.source_ts
            )
            for one in held
        ]
        return Rows(states, Versions([Version(*state[:3]) for state in states]))
    return KeylessRows(
        {
            one.image or b"": Copies(
                -one.copies if one.operation == DELETE else one.copies, one.source_ts, ()
            )
            for one in held
        }
    )

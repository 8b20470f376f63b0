"""Write one table's fold into `raw`: COPY, upsert, delete, in the caller's transaction.

From the left, a fold gives the last state of each key; to the right go rows in the
raw table. The caller adds the offset and commits, so that rows and position move
together. Few rows go as prepared statements in the caller's pipeline, which spares
round trips; many go by COPY: deleted keys first, then the rows of new keys straight
into the table, then all other rows through a stage.

Why rows of new keys need no upsert: the fold saw them begin with an insert, so the
replica did not have the key before the batch, and `raw`, which is where the replica
was then, has it not either. Where that does not hold (a table that is being reloaded
may be ahead of the stream) the COPY meets the key, is undone to its savepoint, and
the same rows are upserted.

While a table is being loaded its writes are also kept in its *touched* table (see
`reload`): every touched key's last state, so that the merge knows which rows of the
copy are out of date.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import psycopg

from config.connections import PostgresConnection
from loader import schema, tracking
from loader.batch import AnyFold
from loader.ddl import altering
from loader.fold import CHANGED, FRESH, GONE, Fold, KeylessFold, State, blocks
from loader.rawsql import LOADED_AT, SOURCE_TS, Statements, Target, same_key
from loader.schema import RawTable
from loader.staging import Stages
from loader.types import raw_name
from loader.values import ValueFault, escaped, fields_of
from replicator.binlog.position import SourcePosition

__all__ = ["LOADED_AT", "SOURCE_TS", "FoldWriter", "blocks", "exception_key", "same_key"]

FEW_ROWS = 30
"""Up to so many rows of a table are written by prepared statements."""


class FoldWriter:
    """Writes one table's folds; one for each table and plan, kept between batches.

    `stamps_itself`: the raw table gives `_loaded_at` to rows that come without one.
    `schema_hash` is the plan's: to work it out takes longer than to write a row.
    """

    def __init__(
        self,
        connection: PostgresConnection,
        stages: Stages,
        target: Target,
        shape: RawTable,
        *,
        schema_hash: str,
        stamps_itself: bool,
    ) -> None:
        self.schema_hash = schema_hash
        self._connection = connection
        self._stages = stages
        self._target = target
        self._shape = shape
        self._sql = Statements(connection, target, shape)
        self._straight = stamps_itself and not target.into_touched

    def is_small(self, fold: AnyFold) -> bool:
        """May the fold go by prepared statements in a pipeline?"""
        return fold.size <= FEW_ROWS

    def write_small(self, fold: AnyFold) -> None:
        """Send everything as prepared statements; errors surface when the pipeline ends."""
        if isinstance(fold, KeylessFold):
            self._write_copies(fold)
            return
        states = list(fold.states())
        if self._target.into_raw:
            for state in states:
                if state.row is None:
                    self._send(self._sql.delete, _parameters(state.key))
            for state in states:
                if state.row is not None:
                    self._send(self._sql.upsert, [*_parameters(state.row), _ts(state.source_ts)])
        if self._target.into_touched:
            for state in states:
                self._send(self._sql.touch, self._touch_parameters(state))

    def _touch_parameters(self, state: State) -> list[str | int | None]:
        values = _parameters(self._whole_row(state))
        return [state.key.decode(), state.row is None, *values, _ts(state.source_ts)]

    def _whole_row(self, state: State) -> bytes:
        """A deleted row's key columns, the others NULL; any other row as it is."""
        if state.row is not None:
            return state.row
        held = dict(zip(self._shape.key, state.key.split(b"\t"), strict=True))
        return b"\t".join(held.get(name, b"\\N") for name in self._shape.names)

    def _write_copies(self, fold: KeylessFold) -> None:
        self._remove_copies(fold)
        for row, copies in fold.copies.items():
            for _ in range(copies.net):
                self._send(self._sql.upsert, [*_parameters(row), _ts(copies.source_ts)])

    def _remove_copies(self, fold: KeylessFold) -> None:
        for row, copies in fold.copies.items():
            if copies.net < 0:
                self._send(self._sql.delete, [*_parameters(row), -copies.net])

    def _copy_copies(self, fold: KeylessFold) -> None:
        with self._connection.pipeline():
            self._remove_copies(fold)
        self._stages.fill(self._sql.rows, blocks(_copies(fold)))
        self._connection.execute(self._sql.staged_upsert)

    def _send(self, statement: bytes, parameters: Sequence[str | int | None]) -> None:
        self._connection.execute(statement, parameters, prepare=True)

    def write_large(self, fold: AnyFold) -> None:
        """Write by COPY."""
        if isinstance(fold, KeylessFold):
            self._copy_copies(fold)
            return
        if self._target.into_raw:
            if fold.count(GONE):
                self._stages.fill(self._sql.keys, fold.lines(GONE))
                self._connection.execute(self._sql.staged_delete)
            fresh, changed = fold.count(FRESH), fold.count(CHANGED)
            if fresh and self._straight and self._copied(fold):
                fresh = 0
            if fresh or changed:
                self._stages.fill(self._sql.rows, _rows(fold, fresh, changed))
                self._connection.execute(self._sql.staged_upsert)
        if self._target.into_touched:
            self._stages.fill(self._sql.states, blocks(self._touched_lines(fold)))
            self._connection.execute(self._sql.staged_touch)

    def _copied(self, fold: Fold) -> bool:
        """Copy the rows of new keys straight in; False where one is there already."""
        try:
            with (
                self._connection.transaction(),
                self._connection.cursor() as cursor,
                cursor.copy(self._sql.copy) as sink,
            ):
                for block in fold.lines(FRESH):
                    sink.write(block)
        except psycopg.errors.UniqueViolation:
            return False
        return True

    def _touched_lines(self, fold: Fold) -> Iterator[bytes]:
        for state in fold.states():
            deleted = b"t" if state.row is None else b"f"
            row = self._whole_row(state)
            yield b"\t".join((escaped(state.key), deleted, row, state.source_ts))


def _copies(fold: KeylessFold) -> Iterator[bytes]:
    for row, copies in fold.copies.items():
        for _ in range(copies.net):
            yield row + b"\t" + copies.source_ts


def _rows(fold: Fold, fresh: int, changed: int) -> Iterator[bytes]:
    if fresh:
        yield from fold.lines(FRESH)
    if changed:
        yield from fold.lines(CHANGED)


def _parameters(row: bytes) -> list[str | int | None]:
    return [None if field is None else field.decode() for field in fields_of(row)]


def _ts(source_ts: bytes) -> str | int | None:
    return _parameters(source_ts)[0]


def exception_key(key: bytes | None, *, has_key: bool) -> str:
    """How etl_value_exceptions names a row: its key's COPY text, or the whole row's digest."""
    if key is None:
        return ""
    return key.decode() if has_key else "sha256:" + hashlib.sha256(key).hexdigest()


def faults_of(fold: AnyFold) -> list[tuple[str, ValueFault]]:
    """Every fault that a fold leaves behind, with its row's name."""
    if isinstance(fold, KeylessFold):
        rows = {row: copies.faults for row, copies in fold.copies.items() if copies.net > 0}
    else:
        rows = fold.faults
    has_key = bool(fold.plan.key)
    found = [
        (exception_key(key, has_key=has_key), fault)
        for key, faults in rows.items()
        for fault in faults
    ]
    return found + [("", fault) for fault in fold.unwritable]


def write_exceptions(
    connection: PostgresConnection,
    fold: AnyFold,
    known: set[str],
    source: SourcePosition | None,
) -> None:
    """Bring etl_value_exceptions in line with a fold; `known` names the tables that have any."""
    table = fold.plan.table
    if table in known and not isinstance(fold, KeylessFold):
        keys = [exception_key(state.key, has_key=True) for state in fold.states()]
        tracking.clear_exceptions(connection, table, keys)
    faults = faults_of(fold)
    if faults:
        tracking.add_exceptions(connection, table, faults, source)
        known.add(table)


def ensure_shape(connection: PostgresConnection, table: str, shape: RawTable) -> bool:
    """Alter a raw table towards `shape` where its rows can stay; False where they cannot."""
    name = raw_name(table)
    current = schema.read_tables(connection, [name]).get(name)
    if current is None:
        return False
    change = schema.diff(current, shape)
    if change and not change.in_place:
        return False
    if change:
        altering.apply_in_place(connection, name, change)
    return True

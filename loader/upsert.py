"""Write one table's fold into `raw`: COPY, upsert, delete, in the caller's transaction.

From the left, a fold gives the last state of each key; to the right go rows in the
raw table. The caller adds the offset and commits, so that rows and position move
together. Few rows go as prepared statements in the caller's pipeline, which spares
round trips; many go by COPY: deleted keys first, then the rows of new keys straight
into the table, then all other rows through a stage.

Why rows of new keys need no upsert: the fold saw them begin with an insert, so the
replica did not have the key before the batch, and `raw`, which is where the replica
was then, has it not either. Should that not hold, the COPY meets the key and is refused;
the writer then does the whole batch again, carefully (see `quarantine`), and there every
row goes by upsert.

While a table is being loaded its writes are also kept in its *touched* table (see
`reload`): every touched key's last state, so that the merge knows which rows of the
copy are out of date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import psycopg

from config.connections import PostgresConnection
from config.failpoints import reach
from config.metrics import CONFLICTS
from loader import recording, schema, tracking
from loader.batch import AnyFold
from loader.copying import copy_into
from loader.fold import CHANGED, FRESH, GONE, KeylessFold, State, blocks
from loader.keeping import keeping_of
from loader.quarantine.entries import row_name
from loader.quarantine.parts import KeyedRows, Keyless, Writable
from loader.quarantine.refusals import pipeline
from loader.rawsql import LOADED_AT, SOURCE_TS, Statements, Target, same_key
from loader.recording import Recorder
from loader.schema import RawTable
from loader.staging import Stages
from loader.types import raw_name
from loader.values import NULL, ValueFault, escaped, fields_of
from loader.versions import Versions, versions_of
from replicator.binlog.position import SourcePosition

__all__ = ["LOADED_AT", "SOURCE_TS", "FoldWriter", "blocks", "exception_key", "same_key"]

FEW_ROWS = 30
"""Up to so many rows of a table are written by prepared statements."""
SMALL_BYTES = 16 << 20
"""... unless they are larger than this: PostgreSQL hangs up at a message of 1 GB."""

exception_key = row_name
"""How etl_value_exceptions names a row."""


class FoldWriter:
    """Writes one table's folds; one for each table and plan, kept between batches.

    `stamps_itself`: the raw table gives `_loaded_at` to rows that come without one.
    `schema_hash` is the plan's: to work it out takes longer than to write a row. `recorder`
    has the table's history, where one is kept.
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
        recorder: Recorder | None = None,
    ) -> None:
        self.schema_hash = schema_hash
        self.shape = shape
        self._connection = connection
        self._stages = stages
        self._target = target
        self._recorder = recorder
        self._sql = Statements(connection, target, shape)
        self._straight = stamps_itself and not target.into_touched

    @property
    def into_raw(self) -> bool:
        """Does readers' table get the rows?"""
        return self._target.into_raw

    def is_small(self, fold: Writable) -> bool:
        """May the fold go by prepared statements in a pipeline?"""
        versions = versions_of(fold)
        few = versions is None or len(versions.all) <= recording.FEW
        return few and fold.size <= FEW_ROWS and fold.held_bytes <= SMALL_BYTES

    def write(self, fold: Writable) -> None:
        """Write now, and new keys' rows like any others."""
        if self.is_small(fold):
            with pipeline(self._connection):
                self.write_small(fold)
        else:
            self.write_large(fold, straight=False)

    def write_small(self, fold: Writable) -> None:
        """Send everything as prepared statements; errors surface when the pipeline ends."""
        if isinstance(fold, Keyless):
            self._write_copies(fold)
            return
        states = list(fold.states())
        if self._target.into_raw:
            for state in states:
                if state.row is None:
                    self._send_gone(state)
            for state in states:
                if state.row is not None:
                    self._send(self._sql.upsert, self._values(state))
        self.write_touched(fold)
        versions = versions_of(fold)
        if self._recorder is not None and versions is not None:
            self._recorder.write_small(versions)

    def _send_gone(self, state: State) -> None:
        key = _parameters(state.key)
        if not self.shape.soft:
            self._send(self._sql.delete, key)
        elif state.last is None:
            self._send(self._sql.delete, [_deleted_at(state).decode(), *key])
        else:
            self._send(self._sql.upsert, self._values(state))

    def _values(self, state: State) -> list[str | int | None]:
        """A row, or a deleted one's last version, with all that goes with it."""
        row, stamp = (state.row, state.source_ts) if state.row is not None else state[3:]
        values = [*_parameters(row or b""), _ts(stamp)]
        if self.shape.soft:
            values.append(None if state.row is not None else _deleted_at(state).decode())
        return values

    def erase(self, state: State) -> None:
        """Let a key have no row that the source is said to have; what is marked stays."""
        with pipeline(self._connection):
            if self._target.into_raw:
                self._send(self._sql.erase, _parameters(state.key))
            self.touch_erased(state)

    def touch_erased(self, state: State) -> None:
        """Tell the touched table, where there is one, that a key has no row."""
        if self._target.into_touched:
            values = _parameters(self._whole_row(state))
            name = row_name(state.key, has_key=True)
            marked = [None] if self.shape.soft else []
            parameters = [name, True, *values, _ts(state.source_ts), *marked]
            self._send(self._sql.touch_erased, parameters)

    def write_touched(self, fold: KeyedRows) -> None:
        """Tell the touched table, where there is one, what became of a few keys."""
        if self._target.into_touched:
            for state in fold.states():
                self._send(self._sql.touch, self._touch_parameters(state))

    def touch_unheld(self, keys: Iterable[bytes]) -> None:
        """Tell the touched table of keys that only have a name: the copy yields to the stream."""
        if self._target.into_touched:
            for key in keys:
                self._send(self._sql.touch_name, [row_name(key, has_key=True)])

    def _touch_parameters(self, state: State) -> list[str | int | None]:
        name = row_name(state.key, has_key=True)
        if state.row is not None or (self.shape.soft and state.last is not None):
            return [name, False, *self._values(state)]
        values = _parameters(self._whole_row(state))
        if not self.shape.soft:
            return [name, True, *values, _ts(state.source_ts)]
        return [name, True, *values, None, _deleted_at(state).decode()]

    def _whole_row(self, state: State) -> bytes:
        """A deleted row's key columns, the others NULL; any other row as it is."""
        if state.row is not None:
            return state.row
        held = dict(zip(self.shape.key, state.key.split(b"\t"), strict=True))
        return b"\t".join(held.get(name, b"\\N") for name in self.shape.names)

    def _write_copies(self, fold: Keyless) -> None:
        self._remove_copies(fold)
        for row, copies in fold.copies.items():
            for _ in range(copies.net):
                self._send(self._sql.upsert, [*_parameters(row), _ts(copies.source_ts)])

    def _remove_copies(self, fold: Keyless) -> None:
        for row, copies in fold.copies.items():
            if copies.net < 0:
                self._send(self._sql.delete, [*_parameters(row), -copies.net])

    def _copy_copies(self, fold: Keyless, *, binary: bool) -> None:
        with pipeline(self._connection):
            self._remove_copies(fold)
        self._stages.fill(self._sql.rows, blocks(_copies(fold)), binary=binary)
        self._connection.execute(self._sql.staged_upsert)

    def _send(self, statement: bytes, parameters: Sequence[str | int | None]) -> None:
        self._connection.execute(statement, parameters, prepare=True)

    def write_large(self, fold: Writable, *, straight: bool = True) -> None:
        """Write by COPY; with `straight`, rows of new keys without a stage where that may be.

        And in binary: whoever writes carefully has rows judged by their text.
        """
        if isinstance(fold, Keyless):
            self._copy_copies(fold, binary=straight)
            return
        if self._target.into_raw and self.shape.soft:
            self._write_kept(fold, binary=straight)
        elif self._target.into_raw:
            if fold.count(GONE):
                self._stages.fill(self._sql.keys, fold.lines(GONE), binary=straight)
                self._connection.execute(self._sql.staged_delete)
            fresh, changed = fold.count(FRESH), fold.count(CHANGED)
            if fresh and straight and self._straight:
                self._copy_in(fold)
                fresh = 0
            if fresh or changed:
                rows = _rows(fold, fresh, changed)
                self._stages.fill(self._sql.rows, rows, binary=straight)
                self._connection.execute(self._sql.staged_upsert)
        if self._target.into_touched:
            states = blocks(self._touched_lines(fold))
            self._stages.fill(self._sql.states, states, binary=straight)
            self._connection.execute(self._sql.staged_touch)
        versions = versions_of(fold)
        if versions is not None:
            self.record(versions)

    def record(self, versions: Versions) -> None:
        """Write versions into the table's history, where one is kept."""
        if self._recorder is not None and versions.all:
            self._recorder.write_large(versions)

    def _write_kept(self, fold: KeyedRows, *, binary: bool) -> None:
        """Mark deleted keys; those whose last version is new here come before the live rows.

        In this order what a unique index of an analyst's asks of live rows holds all the time.
        """
        states = list(fold.states())
        known = [s for s in states if s.row is None and s.last is not None]
        marked = [s for s in states if s.row is None and s.last is None]
        live = [s for s in states if s.row is not None]
        if marked:
            lines = (state.key + b"\t" + _deleted_at(state) for state in marked)
            self._stages.fill(self._sql.keys, blocks(lines), binary=binary)
            self._connection.execute(self._sql.staged_delete)
        if known or live:
            rows = (_kept_line(state) for some in (known, live) for state in some)
            self._stages.fill(self._sql.rows, blocks(rows), binary=binary)
            self._connection.execute(self._sql.staged_upsert)

    def _copy_in(self, fold: KeyedRows) -> None:
        """Copy the rows of new keys straight in; refused where one is there already.

        Someone else put it there, then: the batch is undone and written by upserts.
        """
        try:
            copy_into(self._connection, self._sql.copy, fold.lines(FRESH))
        except psycopg.errors.UniqueViolation:
            CONFLICTS.labels("loader", "overwritten").inc()
            raise
        reach("batch.copied_in")

    def _touched_lines(self, fold: KeyedRows) -> Iterator[bytes]:
        for state in fold.states():
            name = escaped(row_name(state.key, has_key=True).encode())
            if not self.shape.soft:
                deleted = b"t" if state.row is None else b"f"
                yield b"\t".join((name, deleted, self._whole_row(state), state.source_ts))
            elif state.row is None and state.last is None:
                row, at = self._whole_row(state), _deleted_at(state)
                yield b"\t".join((name, b"t", row, NULL, at))
            else:
                yield b"\t".join((name, b"f", _kept_line(state)))


def _deleted_at(state: State) -> bytes:
    """When the source deleted a row, for PostgreSQL to read."""
    return b"now" if state.source_ts == NULL else state.source_ts


def _kept_line(state: State) -> bytes:
    """A row, or a deleted one's last version, as a line of a table that keeps deleted rows."""
    if state.row is not None:
        return b"\t".join((state.row, state.source_ts, NULL))
    return b"\t".join((state.last or b"", state.last_ts, _deleted_at(state)))


def _copies(fold: Keyless) -> Iterator[bytes]:
    for row, copies in fold.copies.items():
        for _ in range(copies.net):
            yield row + b"\t" + copies.source_ts


def _rows(fold: KeyedRows, fresh: int, changed: int) -> Iterator[bytes]:
    if fresh:
        yield from fold.lines(FRESH)
    if changed:
        yield from fold.lines(CHANGED)


def _parameters(row: bytes) -> list[str | int | None]:
    return [None if field is None else field.decode() for field in fields_of(row)]


def _ts(source_ts: bytes) -> str | int | None:
    return _parameters(source_ts)[0]


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
        soft = keeping_of(fold.plan.schema).soft
        keys = [
            exception_key(state.key, has_key=True)
            for state in fold.states()
            if not (soft and state.row is None and state.last is None)  # the row stays as it is
        ]
        tracking.clear_exceptions(connection, table, keys)
    faults = faults_of(fold)
    if faults:
        tracking.add_exceptions(connection, table, faults, source)
        known.add(table)


def has_shape(connection: PostgresConnection, table: str, shape: RawTable) -> bool:
    """Can the raw table take rows of this shape? What it has beyond that stays empty in them.

    Nothing is altered here: rows that are there already would lack what a new column says.
    """
    name = raw_name(table)
    current = schema.read_tables(connection, [name]).get(name)
    if current is None:
        return False
    return schema.fits(schema.diff(current, shape))

"""The one PostgreSQL transaction that moves `raw` forward: rows, merges, states, offset.

Left: a folded batch, the tables' lives, the offset behind the batch. Right: `raw`
committed, or untouched. Nothing else writes to raw tables.

A batch takes as few round trips as it can: what is small goes, with the offset and the
commit, in one pipeline. What belongs to a replica transaction that is too large for
one batch is written by `write_part` and commits with the batch that ends it.

A batch that PostgreSQL refuses for a row's sake is undone and written again, carefully: the
rows that it will not have go to the quarantine, the others are written, and all of that
commits with the same position (`quarantine`). Until that happens, a batch pays nothing for it.
What one row refused because of another (uniqueness, a foreign key) is tried once more at the
end of the transaction, when the other has had its turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import psycopg
import structlog
from psycopg.pq import TransactionStatus

from config.connections import PostgresConnection
from config.failpoints import reach
from config.keeping import Keeping
from config.metrics import COPIED_ROWS, RELOADS, ROWS, TRANSACTIONS, TableRows
from loader import history, history_shape, schema, tracking, upsert
from loader.batch import AnyFold, Batch
from loader.ddl.drift import ShapeDrift
from loader.keeping import keeping_of
from loader.lifecycle import Table, Tables
from loader.load.merge import merge
from loader.load.reload import shape_of
from loader.quarantine.careful import CarefulWriter
from loader.quarantine.entries import Refused, row_name
from loader.quarantine.keeping import Quarantine
from loader.quarantine.parts import Writable
from loader.quarantine.refusals import attempt, pipeline, refusal
from loader.quarantine.replaying import Replayer
from loader.quarantine.unheld import still_there
from loader.rawsql import Target, create_touched
from loader.recording import Recorder
from loader.rows import KEPT_COLUMNS
from loader.schema import RawTable
from loader.staging import Stages
from loader.tracking import LOADING, Offset
from loader.upsert import FoldWriter

log = structlog.get_logger()

Action = Callable[[PostgresConnection], None]
KEPT_STATEMENTS = 600
"""Statements that PostgreSQL keeps prepared for us, unless they have too many columns."""
_OPERATIONS = ("insert", "update", "delete")
Small = list[tuple[FoldWriter, Writable]]
"""Folds that go in one pipeline."""


@dataclass(slots=True)
class Written:
    """What a commit has brought."""

    merged: tuple[Table, ...] = ()


class Writer:
    """Writes through one connection, whose advisory lock makes it the only one."""

    def __init__(self, connection: PostgresConnection, tables: Tables) -> None:
        self._connection = connection
        self._tables = tables
        self._stages = Stages(connection)
        self.quarantine = Quarantine(connection)
        self._careful = CarefulWriter(connection, self._stages)
        self._replayer = Replayer(connection, tables, self._careful, self._stages)
        self._liftable: list[tuple[str, str]] = []
        """Tables and names of what was refused in the open transaction because of other rows."""
        connection.prepared_max = KEPT_STATEMENTS
        self._kept_columns = 0
        """Of the tables' writers, with what PostgreSQL prepared for them."""
        self._with_exceptions = tracking.tables_with_exceptions(connection)
        self._states = {n: s.state for n, s in tracking.read_statuses(connection).items()}
        self._noted: dict[str, tuple[int, str]] = {}
        """Rows written and schema hash of each table, in the open transaction."""
        self._changes: Counter[tuple[str, str]] = Counter()
        """Row changes by table and operation, in the open transaction."""
        self._table_rows = TableRows()
        connection.commit()

    def write(self, batch: Batch, offset: Offset, actions: Sequence[Action] = ()) -> Written:
        """Commit `actions`, a batch, and the merges that are due, with states and offset."""
        for action in actions:
            action(self._connection)
        self.write_part(batch, offset)
        merged = tuple(self._tables.mergeable(offset.replica))
        merged_rows = sum(self._merge(table, offset) for table in merged)
        states = self._write_states()
        if self.quarantine:
            self.quarantine.doubt()  # a table may be gone, or emptied, with its entries
        self._commit(batch, offset, [], merged)
        self._states.update(states)
        self._tables.unsaved.clear()
        self._count_merges(merged, merged_rows)
        return Written(merged)

    def write_batch(self, batch: Batch, offset: Offset) -> None:
        """Commit a batch with its offset. Looks at its own tables only."""
        reach("batch.begun")
        if self._connection.info.transaction_status is not TransactionStatus.IDLE:
            self.write_part(batch, offset)  # what is written already must not be undone with it
            self._commit(batch, offset, [])
            return
        try:
            small = self._write_large(batch, offset)
            self._note(batch)
            self._commit(batch, offset, small)
        except psycopg.Error as error:
            if refusal(error) is None:
                raise
            self._undo()
            self._write_carefully(batch, offset)
            self._note(batch)
            self._commit(batch, offset, [])

    def _commit(
        self, batch: Batch, offset: Offset, small: Small, merged: Sequence[Table] = ()
    ) -> None:
        if self._liftable:
            self._replayer.lift(self._liftable, merged)
        self.quarantine.before_commit()
        with pipeline(self._connection):
            for writer, fold in small:
                writer.write_small(fold)
            if self._noted:
                tracking.note_written(self._connection, self._noted)
            tracking.write_offset(self._connection, offset)
            reach("batch.before_commit")
            self._connection.commit()
            reach("batch.commit_sent")
        reach("batch.committed")
        self._committed(batch)

    def write_part(self, batch: Batch, offset: Offset) -> None:
        """Write a batch, or a part of one, and do not commit."""
        if not batch.tables:
            return
        plainly = partial(self._write_plainly, batch, offset)
        if attempt(self._connection, plainly, self._stages) is not None:
            self._write_carefully(batch, offset)
        self._note(batch)

    def _write_plainly(self, batch: Batch, offset: Offset) -> None:
        small = self._write_large(batch, offset)
        with pipeline(self._connection):
            for writer, fold in small:
                writer.write_small(fold)
            self._check_now()

    def _write_carefully(self, batch: Batch, offset: Offset) -> None:
        """Write all that PostgreSQL takes; the rest goes to the quarantine."""
        self._check_now()
        for name, fold in batch.tables.items():
            table = self._tables.get(name)
            table.writer = None  # what it had prepared is undone
            writer = self._prepared(table, fold, offset)
            if writer is None:
                continue
            refused = self._careful.write(writer, self.quarantine.settle(fold))
            self.keep(name, writer.shape, writer.schema_hash, refused, offset)
            self._keep_exceptions(fold, offset)
            self._keep_unheld(writer, batch, name, offset)

    def keep(
        self,
        table: str,
        shape: RawTable,
        schema_hash: str,
        refused: Sequence[Refused],
        offset: Offset | None,
    ) -> None:
        """Enter rows that were refused, in the open transaction."""
        self.quarantine.keep(table, shape, schema_hash, refused, offset)
        self._liftable += [(table, one.name) for one in refused if one.reason.liftable]

    def _check_now(self) -> None:
        """Let deferred constraints speak where it is still known which rows they mean."""
        self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def _undo(self) -> None:
        self._connection.rollback()
        self._stages.rolled_back()
        self.quarantine.rolled_back()
        self._noted.clear()
        self._changes.clear()

    def replay(self) -> bool:
        """Try again to write rows in quarantine that somebody asked for; commits. Were there any?

        Nothing may be written and not committed. The rows are older than what is not written
        yet, and are the last versions of their keys so far, so `raw` stays where it stands.
        """
        replayed = self._replayer.replay()
        self.quarantine.doubt()
        self.quarantine.before_commit()
        self._connection.commit()
        self._stages.committed()
        self.quarantine.committed()
        return replayed > 0

    def _write_large(self, batch: Batch, offset: Offset) -> Small:
        """Write what goes by COPY; what is left is small."""
        self._make_room()
        small: Small = []
        for name, fold in batch.tables.items():
            writer = self._prepared(self._tables.get(name), fold, offset)
            if writer is None:
                continue
            rows = self.quarantine.settle(fold)
            if writer.is_small(rows):
                small.append((writer, rows))
            else:
                writer.write_large(rows)
            self._keep_exceptions(fold, offset)
            if batch.unheld:
                self._keep_unheld(writer, batch, name, offset)
        return small

    def _keep_unheld(self, writer: FoldWriter, batch: Batch, table: str, offset: Offset) -> None:
        """Rows whose key PostgreSQL cannot hold have no place but the quarantine."""
        unheld = batch.unheld.get(table)
        if unheld:
            self.quarantine.clear(table, [row_name(key, has_key=True) for key in unheld])
            self.keep(table, writer.shape, writer.schema_hash, still_there(unheld), offset)
            writer.touch_unheld(unheld)

    def _keep_exceptions(self, fold: AnyFold, offset: Offset) -> None:
        upsert.write_exceptions(self._connection, fold, self._with_exceptions, offset.source)

    def _make_room(self) -> None:
        """Forget all tables' writers and statements, here and there, when they are too many.

        PostgreSQL takes more for a prepared statement than we do, and neither counts columns.
        """
        if self._kept_columns > KEPT_COLUMNS:
            for table in self._tables.by_name.values():
                table.writer = None
            self._connection.execute("DEALLOCATE ALL")  # psycopg sees it, and forgets them too
            self._kept_columns = 0

    def _prepared(self, table: Table, fold: AnyFold, offset: Offset) -> FoldWriter | None:
        """The writer for a table's present plan and target, its tables brought into shape."""
        plan = fold.plan
        if not table.wants(plan):
            return None
        known = table.writer
        if known is not None and known[0] is plan and known[1] == table.target():
            return known[2]
        shape = shape_of(plan.schema)
        if not table.hidden and not upsert.has_shape(self._connection, table.name, shape):
            if not table.loading:
                raise ShapeDrift(table.name)
            table.hidden = True
        target = table.target()
        if target.into_touched:
            create_touched(self._connection, target, shape)
            table.touched = True
        stamped = target.into_raw and schema.stamps_itself(self._connection, target.raw)
        writer = FoldWriter(
            self._connection,
            self._stages,
            target,
            shape,
            schema_hash=plan.schema.hash,
            stamps_itself=stamped,
            recorder=self._recorder(table, target, shape, keeping_of(plan.schema), offset),
        )
        table.writer = (plan, target, writer)
        self._kept_columns += plan.width
        return writer

    def _recorder(
        self, table: Table, target: Target, shape: RawTable, keeping: Keeping, offset: Offset
    ) -> Recorder | None:
        """What writes the table's history, where one is kept and what comes follows on it.

        So it does where a copy is on its way and readers see older rows meanwhile: each event has
        all of its row. What grows unseen is compared when it is shown.
        """
        if not keeping.history:
            return None
        connection, at = self._connection, offset.source_ts
        if target.into_raw:
            if not history_shape.fits(connection, target.raw, shape):
                history.follow(connection, target.raw, shape, at)
        elif table.request is not None:
            history_shape.fit(connection, target.raw, shape, at)
        else:
            return None
        behind = table.state == LOADING
        return Recorder(connection, self._stages, target.raw, shape, behind=behind)

    def _merge(self, table: Table, offset: Offset) -> int:
        loaded = table.loaded
        if loaded is None or loaded.schema is None:
            return 0
        reach("merge.before")
        if loaded.faults:
            self._with_exceptions.add(table.name)
        if loaded.refused:
            self.quarantine.doubt()
        job = partial(
            merge,
            self._connection,
            loaded,
            loaded.schema,
            hidden=table.hidden,
            behind=table.state == tracking.LOADING,
            touched=table.touched,
            exceptions=table.name in self._with_exceptions,
            quarantined=bool(loaded.refused) or self.quarantine.may_hold(table.name),
        )
        shape, schema_hash = shape_of(loaded.schema), loaded.schema.hash
        written: list[int] = []

        def plainly() -> None:
            written.append(job())
            self._check_now()

        if attempt(self._connection, plainly, self._stages) is not None:
            self._check_now()
            written.append(
                job(refuse=lambda rows: self.keep(table.name, shape, schema_hash, rows, offset))
            )
        rows = written[-1]
        reach("merge.done")
        log.info(
            "table_loaded",
            table=table.name,
            rows=loaded.rows,
            written=rows,
            source_position=str(loaded.mark.position) if loaded.mark else None,
        )
        return rows

    def _write_states(self) -> dict[str, str]:
        """Store what changed of the tables' states; merged ones are stored by the merge."""
        known = self._tables.by_name
        changed = {
            name: known[name].state
            for name in self._tables.unsaved
            if self._states.get(name) != known[name].state
        }
        for state in set(changed.values()):
            names = [name for name, its in changed.items() if its == state]
            tracking.set_state(self._connection, names, state)
        return changed

    def _note(self, batch: Batch) -> None:
        """Count what is written in the open transaction."""
        for name, fold in batch.tables.items():
            writer = self._tables.get(name).writer
            if fold.size and writer is not None:
                rows, _ = self._noted.get(name, (0, ""))
                self._noted[name] = (rows + fold.size, writer[2].schema_hash)
            for operation, count in zip(_OPERATIONS, fold.changes, strict=True):
                if count:
                    self._changes[name, operation] += count

    def _committed(self, batch: Batch) -> None:
        self._stages.committed()
        self.quarantine.committed()
        self._liftable.clear()
        TRANSACTIONS.labels("loader").inc(batch.transactions)
        for (table, operation), count in self._changes.items():
            ROWS.labels("loader", operation).inc(count)
            self._table_rows.add(table, operation, count)
        self._noted.clear()
        self._changes.clear()

    def _count_merges(self, merged: tuple[Table, ...], rows: int) -> None:
        for table in merged:
            self._states[table.name] = tracking.STREAMING
            RELOADS.labels(
                "loader", "reload" if table.state == tracking.RELOADING else "load"
            ).inc()
        if rows:
            COPIED_ROWS.labels("loader").inc(rows)

    def raw_tables(self, names: Sequence[str]) -> dict[str, RawTable]:
        """Which of these raw tables there are."""
        found = schema.read_tables(self._connection, names)
        self._connection.rollback()
        return found

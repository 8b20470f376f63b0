"""The one PostgreSQL transaction that moves `raw` forward: rows, merges, states, offset.

Left: a folded batch, the tables' lives, the offset behind the batch. Right: `raw`
committed, or untouched. Nothing else writes to raw tables.

A batch takes as few round trips as it can: what is small goes, with the offset and the
commit, in one pipeline. What belongs to a replica transaction that is too large for
one batch is written by `write_part` and commits with the batch that ends it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from config.connections import PostgresConnection
from config.errors import SchemaDrift
from config.metrics import COPIED_ROWS, RELOADS, ROWS, TRANSACTIONS
from loader import schema, tracking, upsert
from loader.batch import AnyFold, Batch
from loader.lifecycle import Table, Tables
from loader.load.merge import merge
from loader.rawsql import create_touched
from loader.schema import RawTable
from loader.staging import Stages
from loader.tracking import Offset
from loader.upsert import FoldWriter

log = structlog.get_logger()

Action = Callable[[PostgresConnection], None]
KEPT_STATEMENTS = 600
"""Statements that PostgreSQL keeps prepared for us."""
_OPERATIONS = ("insert", "update", "delete")


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
        connection.prepared_max = KEPT_STATEMENTS
        self._with_exceptions = tracking.tables_with_exceptions(connection)
        self._states = {n: s.state for n, s in tracking.read_statuses(connection).items()}
        self._noted: dict[str, tuple[int, str]] = {}
        """Rows written and schema hash of each table, in the open transaction."""
        self._changes: Counter[str] = Counter()
        connection.commit()

    def write(self, batch: Batch, offset: Offset, actions: Sequence[Action] = ()) -> Written:
        """Commit `actions`, a batch, and the merges that are due, with states and offset."""
        for action in actions:
            action(self._connection)
        self.write_part(batch, offset)
        merged = tuple(self._tables.mergeable(offset.replica))
        merged_rows = sum(self._merge(table) for table in merged)
        states = self._write_states()
        self._commit(batch, offset, [])
        self._states.update(states)
        self._tables.unsaved.clear()
        self._count_merges(merged, merged_rows)
        return Written(merged)

    def write_batch(self, batch: Batch, offset: Offset) -> None:
        """Commit a batch with its offset. Looks at its own tables only."""
        small = self._write_large(batch, offset)
        self._note(batch)
        self._commit(batch, offset, small)

    def _commit(
        self, batch: Batch, offset: Offset, small: list[tuple[FoldWriter, AnyFold]]
    ) -> None:
        with self._connection.pipeline():
            for writer, fold in small:
                writer.write_small(fold)
            if self._noted:
                tracking.note_written(self._connection, self._noted)
            tracking.write_offset(self._connection, offset)
            self._connection.commit()
        self._committed(batch)

    def write_part(self, batch: Batch, offset: Offset) -> None:
        """Write a batch, or a part of one, and do not commit."""
        small = self._write_large(batch, offset)
        if small:
            with self._connection.pipeline():
                for writer, fold in small:
                    writer.write_small(fold)
        self._note(batch)

    def _write_large(self, batch: Batch, offset: Offset) -> list[tuple[FoldWriter, AnyFold]]:
        """Write what goes by COPY; what is left is small."""
        small: list[tuple[FoldWriter, AnyFold]] = []
        for name, fold in batch.tables.items():
            writer = self._prepared(self._tables.get(name), fold)
            if writer is None:
                continue
            if writer.is_small(fold):
                small.append((writer, fold))
            else:
                writer.write_large(fold)
            self._keep_exceptions(fold, offset)
        return small

    def _keep_exceptions(self, fold: AnyFold, offset: Offset) -> None:
        upsert.write_exceptions(self._connection, fold, self._with_exceptions, offset.source)
        if fold.unwritable:
            log.warning(
                "row_not_written",
                table=fold.plan.table,
                values=len(fold.unwritable),
                reason="its key cannot be held by PostgreSQL",
            )

    def _prepared(self, table: Table, fold: AnyFold) -> FoldWriter | None:
        """The writer for a table's present plan and target, its tables brought into shape."""
        plan = fold.plan
        if not table.wants(plan):
            return None
        known = table.writer
        if known is not None and known[0] is plan and known[1] == table.target():
            return known[2]
        shape = RawTable(plan.columns, plan.key_columns)
        if not table.hidden and not upsert.ensure_shape(self._connection, table.name, shape):
            if not table.loading:
                raise SchemaDrift(
                    f"raw table {table.name} has another shape than its rows, and no schema"
                    " change in the stream explains it",
                    hint=f"Reload it: replicator resync {table.name}",
                )
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
        )
        table.writer = (plan, target, writer)
        return writer

    def _merge(self, table: Table) -> int:
        loaded = table.loaded
        if loaded is None or loaded.schema is None:
            return 0
        if loaded.faults:
            self._with_exceptions.add(table.name)
        rows = merge(
            self._connection,
            loaded,
            loaded.schema,
            hidden=table.hidden,
            touched=table.touched,
            exceptions=table.name in self._with_exceptions,
        )
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
                self._changes[operation] += count

    def _committed(self, batch: Batch) -> None:
        self._stages.committed()
        TRANSACTIONS.labels("loader").inc(batch.transactions)
        for operation, count in self._changes.items():
            if count:
                ROWS.labels("loader", operation).inc(count)
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

"""The one PostgreSQL transaction that moves `raw` forward: rows, merges, states, offset.

Left: a folded batch, the tables' lives, the offset behind the batch. Right: `raw`
committed, or untouched. Nothing else writes to raw tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from config.connections import PostgresConnection
from config.errors import SchemaDrift
from config.metrics import COPIED_ROWS, RELOADS, ROWS, TRANSACTIONS
from loader import schema, tracking, upsert
from loader.batch import Batch, TableFold
from loader.lifecycle import Table, Tables
from loader.merge import merge
from loader.schema import RawTable
from loader.tracking import Offset
from loader.upsert import FoldWriter

log = structlog.get_logger()

Action = Callable[[PostgresConnection], None]


@dataclass(slots=True)
class Written:
    """What a commit has brought."""

    rows: int = 0
    merged: tuple[Table, ...] = ()


class Writer:
    """Writes through one connection, whose advisory lock makes it the only one."""

    def __init__(self, connection: PostgresConnection, tables: Tables) -> None:
        self._connection = connection
        self._tables = tables
        connection.prepared_max = None
        self._with_exceptions = tracking.tables_with_exceptions(connection)
        self._states = {n: s.state for n, s in tracking.read_statuses(connection).items()}
        connection.commit()

    def write(self, batch: Batch, offset: Offset, actions: Sequence[Action] = ()) -> Written:
        """Commit a batch, then `actions`, then the merges that are due, with the offset."""
        written = Written(rows=sum(fold.size for fold in batch.tables.values()))
        for action in actions:
            action(self._connection)
        self._fold_writes(batch, offset)
        written.merged = tuple(self._tables.mergeable(offset.replica))
        merged_rows = sum(self._merge(table) for table in written.merged)
        states = self._write_states()
        with self._connection.pipeline():
            self._note(batch)
            tracking.write_offset(self._connection, offset)
            self._connection.commit()
        self._states.update(states)
        self._committed(batch, written, merged_rows)
        return written

    def _fold_writes(self, batch: Batch, offset: Offset) -> None:
        small: list[tuple[FoldWriter, TableFold]] = []
        for name, fold in batch.tables.items():
            writer = self._prepared(self._tables.get(name), fold)
            if writer is None:
                continue
            if writer.is_small(fold):
                small.append((writer, fold))
            else:
                writer.write_large(fold)
            self._keep_exceptions(fold, offset)
        if small:
            with self._connection.pipeline():
                for writer, fold in small:
                    writer.write_small(fold)

    def _keep_exceptions(self, fold: TableFold, offset: Offset) -> None:
        upsert.write_exceptions(self._connection, fold, self._with_exceptions, offset.source)
        if fold.unwritable:
            log.warning(
                "row_not_written",
                table=fold.plan.table,
                values=len(fold.unwritable),
                reason="its key cannot be held by PostgreSQL",
            )

    def _prepared(self, table: Table, fold: TableFold) -> FoldWriter | None:
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
            upsert.create_touched(self._connection, target, shape)
            table.touched = True
        writer = FoldWriter(self._connection, target, shape)
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
        changed: dict[str, str] = {}
        for table in self._tables.by_name.values():
            if self._states.get(table.name) != table.state:
                changed[table.name] = table.state
        for state in set(changed.values()):
            names = [name for name, its in changed.items() if its == state]
            tracking.set_state(self._connection, names, state)
        return changed

    def _note(self, batch: Batch) -> None:
        written = {
            name: (fold.size, fold.plan.schema.hash)
            for name, fold in batch.tables.items()
            if fold.size
        }
        if written:
            tracking.note_written(self._connection, written)

    def _committed(self, batch: Batch, written: Written, merged_rows: int) -> None:
        TRANSACTIONS.labels("loader").inc(batch.transactions)
        for fold in batch.tables.values():
            for operation, count in zip(("insert", "update", "delete"), fold.changes, strict=True):
                if count:
                    ROWS.labels("loader", operation).inc(count)
        for table in written.merged:
            self._states[table.name] = tracking.STREAMING
            RELOADS.labels(
                "loader", "reload" if table.state == tracking.RELOADING else "load"
            ).inc()
        if merged_rows:
            COPIED_ROWS.labels("loader").inc(merged_rows)

    def raw_tables(self, names: Sequence[str]) -> dict[str, RawTable]:
        """Which of these raw tables there are."""
        found = schema.read_tables(self._connection, names)
        self._connection.rollback()
        return found

"""The writer's account of the quarantine: which tables have rows there, and what changed.

Left: folds about to be written, rows that were refused. Right: `raw.etl_quarantine` brought in
line in the open transaction; once that is committed, the gauge and the log. While nothing is
in quarantine nothing here sends a statement: the writer is the only one that adds entries, so
it knows. (Somebody may delete some, or ask for a replay: `counts` are read again then.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import structlog

from config.connections import PostgresConnection
from config.metrics import QUARANTINED_ROWS
from loader.batch import AnyFold
from loader.fold import Copies, KeylessFold
from loader.quarantine import entries
from loader.quarantine.entries import Refused, row_name
from loader.quarantine.parts import KeylessRows, Writable
from loader.schema import RawTable
from loader.tracking import Offset

log = structlog.get_logger()


class Quarantine:
    """See the module."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        self.counts: dict[str, int] = {}
        """Rows by table, as last committed; those that have any."""
        self._may_hold: set[str] = set()
        self._changed = False
        self._now: dict[str, int] = {}
        self._news: list[tuple[str, Counter[str], str]] = []
        self.doubt()
        self.before_commit()
        self.committed()

    def __bool__(self) -> bool:
        return bool(self._may_hold)

    def may_hold(self, table: str) -> bool:
        """Has the table perhaps rows in quarantine?"""
        return table in self._may_hold

    def doubt(self) -> None:
        """Somebody else may have changed entries in the open transaction: count again."""
        self._changed = True

    # --- in the open transaction ---------------------------------------------------------

    def settle(self, fold: AnyFold) -> Writable:
        """Clear the entries of rows that a fold brings anew; what is to be written then.

        Copies of a keyless row that wait in quarantine are written, or fewer of them deleted,
        together with those that the fold brings.
        """
        table = fold.plan.table
        if table not in self._may_hold:
            return fold
        if isinstance(fold, KeylessFold):
            return self._with_waiting_copies(table, fold)
        self.clear(table, [row_name(state.key, has_key=True) for state in fold.states()])
        return fold

    def clear(self, table: str, names: Sequence[str]) -> None:
        """Clear entries, should there be any."""
        if table in self._may_hold and entries.clear(self._connection, table, names):
            self._changed = True

    def _with_waiting_copies(self, table: str, fold: KeylessFold) -> Writable:
        rows = {row_name(row, has_key=False): row for row in fold.copies}
        waiting = entries.take_copies(self._connection, table, list(rows))
        if not waiting:
            return fold
        self._changed = True
        copies = dict(fold.copies)
        for name, count in waiting.items():
            held = copies[rows[name]]
            copies[rows[name]] = Copies(held.net + count, held.source_ts, held.faults)
        return KeylessRows({row: held for row, held in copies.items() if held.net})

    def keep(
        self,
        table: str,
        shape: RawTable,
        schema_hash: str,
        refused: Sequence[Refused],
        offset: Offset | None,
    ) -> None:
        """Enter rows that were refused."""
        if not refused:
            return
        entries.add(self._connection, table, shape, schema_hash, refused, offset)
        self._may_hold.add(table)
        self._changed = True
        reasons = Counter(one.reason.text for one in refused)
        self._news.append((table, reasons, str(offset.replica) if offset else ""))

    def before_commit(self) -> None:
        """The transaction is about to be committed; reads the counts where any changed."""
        if self._changed:
            self._now = entries.counts(self._connection)

    # --- when it is over -----------------------------------------------------------------

    def committed(self) -> None:
        """Publish what changed."""
        if not self._changed:
            return
        QUARANTINED_ROWS.clear()
        for table, count in self._now.items():
            QUARANTINED_ROWS.labels(table).set(count)
        self.counts, self._may_hold, self._changed = self._now, set(self._now), False
        for table, reasons, position in self._news:
            log.warning(
                "rows_quarantined",
                table=table,
                rows=reasons.total(),
                reasons=dict(reasons),
                position=position,
                remedy=f"replicator quarantine list {table}",
            )
        self._news.clear()

    def rolled_back(self) -> None:
        """The transaction, or what was written in it, is undone and comes again."""
        self._news.clear()
        self._changed = False

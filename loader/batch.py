"""A batch: whole transactions of the replica, folded table by table. Pure.

From the left, the ledger hands us replica transactions in commit order; to the
right, `writer` writes what we hold in one PostgreSQL transaction. Nothing here
touches a clock or a socket: callers pass `now`. A batch is cut only between replica
transactions, and each of those is a state that the source committed, so a reader
of `raw` never sees half of one. (A transaction too large for memory is written in
several batches, which PostgreSQL commits together; see `passage`.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from loader.decoder import new_fold
from loader.fold import Fold, KeylessFold
from loader.rows import PythonDecoder, TablePlan, UnheldChange

AnyFold = Fold | KeylessFold


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is full."""

    rows: int
    bytes: int
    seconds: float


class Unheld(NamedTuple):
    """The last change of a row whose key PostgreSQL cannot hold, and its source time."""

    change: UnheldChange
    source_ts: bytes


class Batch:
    """Whole transactions, folded; `began` is when the first came in."""

    def __init__(self, make: Callable[[TablePlan], AnyFold] = new_fold) -> None:
        self.tables: dict[str, AnyFold] = {}
        self.bytes = 0
        self.rows = 0
        self.transactions = 0
        self.began: float | None = None
        self.unheld: dict[str, dict[bytes, Unheld]] = {}
        """By table and key: rows whose key PostgreSQL cannot hold, as they stand at the end."""
        self._make = make

    def __bool__(self) -> bool:
        return self.began is not None

    def fold(
        self,
        plan: TablePlan,
        events: Sequence[bytes],
        source_ts: bytes,
        now: float,
        *,
        watched: bool = False,
    ) -> bool:
        """Take in one table's rows events of a committed transaction, in order.

        `watched`: the table has, or may have, rows whose key PostgreSQL cannot hold, and their
        deletion must be noticed too; a fold only tells that there are some. True where it has.

        Raises ValueError when the table has changes under another plan already: the
        caller writes those first (`holds_other_plan`).
        """
        if self.began is None:
            self.began = now
        fold = self.tables.get(plan.table)
        if fold is None:
            fold = self.tables[plan.table] = self._make(plan)
            self.bytes += plan.held_bytes
        elif fold.plan is not plan:
            raise ValueError("a batch holds a table under one plan only")
        before, unheld = fold.held_bytes, len(fold.unwritable)
        self.rows += fold.take(events, source_ts)
        self.bytes += fold.held_bytes - before
        if watched or len(fold.unwritable) > unheld:
            return self._find_unheld(plan, events, source_ts)
        return False

    def _find_unheld(self, plan: TablePlan, events: Sequence[bytes], source_ts: bytes) -> bool:
        """Read the events again, as the fold kept nothing of such rows but their faults."""
        decoder = PythonDecoder()
        found = [change for event in events for change in decoder.unheld(event, plan)]
        if found:
            held = self.unheld.setdefault(plan.table, {})
            held.update((change.key, Unheld(change, source_ts)) for change in found)
            self.bytes += sum(len(change.row or b"") for change in found)
        return bool(found)

    def holds_other_plan(self, plan: TablePlan) -> bool:
        """Has this table changes in the batch that were read under another plan?"""
        fold = self.tables.get(plan.table)
        return fold is not None and fold.plan is not plan

    def end_transaction(self, now: float) -> None:
        """A transaction is whole; its position may be stored with the batch."""
        if self.began is None:
            self.began = now
        self.transactions += 1

    def full(self, limits: Limits, now: float) -> bool:
        """Must the batch be written before more is taken in?"""
        if self.began is None:
            return False
        return (
            self.rows >= limits.rows
            or self.bytes >= limits.bytes
            or now - self.began >= limits.seconds
        )

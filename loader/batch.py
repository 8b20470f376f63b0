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

from loader.decoder import new_fold
from loader.fold import Fold, KeylessFold
from loader.rows import TablePlan

AnyFold = Fold | KeylessFold


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is full."""

    rows: int
    bytes: int
    seconds: float


class Batch:
    """Whole transactions, folded; `began` is when the first came in."""

    def __init__(self, make: Callable[[TablePlan], AnyFold] = new_fold) -> None:
        self.tables: dict[str, AnyFold] = {}
        self.bytes = 0
        self.rows = 0
        self.transactions = 0
        self.began: float | None = None
        self._make = make

    def __bool__(self) -> bool:
        return self.began is not None

    def fold(self, plan: TablePlan, events: Sequence[bytes], source_ts: bytes, now: float) -> None:
        """Take in one table's rows events of a committed transaction, in order.

        Raises ValueError when the table has changes under another plan already: the
        caller writes those first (`holds_other_plan`).
        """
        if self.began is None:
            self.began = now
        fold = self.tables.get(plan.table)
        if fold is None:
            fold = self.tables[plan.table] = self._make(plan)
        elif fold.plan is not plan:
            raise ValueError("a batch holds a table under one plan only")
        before = fold.held_bytes
        self.rows += fold.take(events, source_ts)
        self.bytes += fold.held_bytes - before

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

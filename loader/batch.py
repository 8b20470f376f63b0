"""Fold a run of row changes into one final state per primary key. Pure.

From the left, the daemon hands us whole replica transactions in commit order; to
the right, `upsert` writes what we hold in one PostgreSQL transaction. Nothing here
touches a clock or a socket: callers pass `now`. A batch is cut only between replica
transactions, and each of those is a state that the source committed, so a reader
of `raw` never sees half of one.

A table without a key has no row to fold onto: there the fold is a count of copies
per distinct row, the net of what came and went.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from loader.rows import DELETE, RowChange, TablePlan
from loader.values import ValueFault


class Image(NamedTuple):
    """The last state of a key in the batch: `row` is None where it was deleted."""

    row: bytes | None
    source_ts: bytes
    faults: tuple[ValueFault, ...] = ()


@dataclass(slots=True)
class TableFold:
    """What a batch does to one table, under one plan."""

    plan: TablePlan
    images: dict[bytes, Image] = field(default_factory=dict)
    copies: dict[bytes, int] = field(default_factory=dict)
    """Tables without a key: copies to add (positive) or take away of each row."""
    copied_at: dict[bytes, Image] = field(default_factory=dict)
    unwritable: list[ValueFault] = field(default_factory=list)
    """Faults of rows whose key PostgreSQL cannot hold: the rows are not written."""
    changes: list[int] = field(default_factory=lambda: [0, 0, 0])
    """Row changes taken in, by operation: for the metrics."""

    def take(self, change: RowChange, source_ts: bytes) -> int:
        """Fold one change in; return the bytes that it newly holds."""
        self.changes[change.operation] += 1
        if change.key is None:
            self.unwritable.extend(change.faults)
            return 0
        if self.plan.key:
            return self._replace(change.key, Image(change.row, source_ts, change.faults))
        return self._count(change, source_ts)

    def _replace(self, key: bytes, image: Image) -> int:
        before = self.images.get(key)
        self.images[key] = image
        size = len(image.row or b"")
        return size - len(before.row or b"") if before else size + len(key)

    def _count(self, change: RowChange, source_ts: bytes) -> int:
        row = change.key or b""
        if change.operation == DELETE:
            net = self.copies.get(row, 0) - 1
        else:
            net = self.copies.get(row, 0) + 1
            self.copied_at[row] = Image(row, source_ts, change.faults)
        self.copies[row] = net
        if net == 0:
            del self.copies[row]
        return len(row)

    @property
    def size(self) -> int:
        """Rows to write or delete."""
        return len(self.images) + len(self.copies)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is full."""

    rows: int
    bytes: int
    seconds: float


class Batch:
    """Whole transactions, folded; `began` is when the first came in."""

    def __init__(self) -> None:
        self.tables: dict[str, TableFold] = {}
        self.bytes = 0
        self.rows = 0
        self.transactions = 0
        self.began: float | None = None

    def __bool__(self) -> bool:
        return self.began is not None

    def fold(
        self, plan: TablePlan, changes: Iterable[RowChange], source_ts: bytes, now: float
    ) -> None:
        """Take one table's changes of a committed transaction, in order.

        Raises ValueError when the table has changes under another plan already: the
        caller writes those first (`holds_other_plan`).
        """
        self._begin(now)
        fold = self.tables.get(plan.table)
        if fold is None:
            fold = self.tables[plan.table] = TableFold(plan)
        elif fold.plan is not plan:
            raise ValueError("a batch holds a table under one plan only")
        for change in changes:
            self.bytes += fold.take(change, source_ts)
            self.rows += 1

    def holds_other_plan(self, plan: TablePlan) -> bool:
        """Has this table changes in the batch that were read under another plan?"""
        fold = self.tables.get(plan.table)
        return fold is not None and fold.plan is not plan

    def end_transaction(self, now: float) -> None:
        """A transaction is whole; its position may be stored with the batch."""
        self._begin(now)
        self.transactions += 1

    def _begin(self, now: float) -> None:
        if self.began is None:
            self.began = now

    def full(self, limits: Limits, now: float) -> bool:
        """Must the batch be written before more is taken in?"""
        if self.began is None:
            return False
        return (
            self.rows >= limits.rows
            or self.bytes >= limits.bytes
            or now - self.began >= limits.seconds
        )

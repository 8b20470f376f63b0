"""Take changes of the replica's binlog in, transaction by transaction, however large they are.

Left: `Change`s in binlog order. Right: whole transactions to the `Ledger`, statements
and notices to the `Follower`.

A transaction's rows are kept until its end, where leg 1's offset row tells what they
stand for. When they are too many to be kept, the replica's binlog is where they are
kept: they are let go, the transaction is read to its end for the offset row's sake, and
then the stream is opened anew at the transaction's beginning. The second time its rows
are folded and written as they come, in parts that PostgreSQL commits together, so that
no reader sees some of them. The binlog's content does not change between the readings;
if it is not there any more, the position is lost as it would be after a restart, and
the tables are reloaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from config.errors import UnknownEvent
from config.failpoints import reach
from loader.following import Follower
from loader.intake import Intake, Transaction
from loader.ledger import Ledger
from loader.notices import Notices
from replicator.binlog.position import BinlogPosition, ReplicaPosition
from replicator.binlog.transactions import (
    Begin,
    Change,
    Commit,
    Moved,
    Rollback,
    Rows,
    Statement,
)

log = structlog.get_logger()

PIECE_BYTES = 1 << 20
"""Rows events of a transaction that is read a second time are folded in pieces of this size."""


@dataclass(frozen=True, slots=True)
class SecondReading:
    """What is known of a transaction whose rows come again."""

    end: BinlogPosition
    notices: Notices


class Taker:
    """See the module. `reopen` lets the stream begin anew at a position."""

    def __init__(
        self,
        intake: Intake,
        ledger: Ledger,
        follower: Follower,
        most_bytes: int,
        reopen: Callable[[ReplicaPosition], None],
    ) -> None:
        self._intake = intake
        self._ledger = ledger
        self._follower = follower
        self._most_bytes = most_bytes
        self._reopen = reopen
        self._again: SecondReading | None = None

    @property
    def reading_again(self) -> bool:
        """Is a transaction half written?"""
        return self._again is not None

    def take(self, change: Change) -> bool:
        """Take one change; False where the stream begins anew, so that what was read is void."""
        match change:
            case Rows(table, event):
                self._intake.rows(table, event)
                if self._intake.open.bytes >= PIECE_BYTES:
                    self._take_many()
            case Commit():
                return self._commit(change)
            case Statement():
                self._follower.statement(change)
            case Moved(position):
                self._ledger.advance(position)
            case Rollback(position):
                self._intake.begin()
                self._ledger.advance(position)
            case Begin():
                self._intake.begin()
        return True

    def _take_many(self) -> None:
        """The open transaction holds many rows."""
        if self._again is not None:
            self._ledger.make_room(plan for plan, _ in self._intake.open.events.values())
            self._fold(self._intake.open)
            self._intake.let_go()
            self._ledger.relieve()
        elif self._intake.open.bytes > self._most_bytes:
            self._intake.let_go(for_good=True)

    def _commit(self, commit: Commit) -> bool:
        transaction = self._intake.begin()
        if transaction.let_go:
            self._read_again(commit, transaction)
            return False
        notices = transaction.notices
        if self._again is None:
            self._follower.see(plan for plan, _ in transaction.events.values())
        if self._again is not None:
            notices = self._end_of(self._again, commit)
        else:
            self._ledger.make_room(plan for plan, _ in transaction.events.values())
            if notices.mark is not None:
                self._ledger.mark(notices.mark, notices.left)
        self._fold(transaction)
        self._ledger.end_transaction(commit.position, commit.gtid, time.monotonic())
        if notices:
            self._follower.heed(notices)
        else:
            self._ledger.relieve()
        return True

    def _fold(self, transaction: Transaction) -> None:
        now = time.monotonic()
        for plan, events in transaction.events.values():
            self._ledger.fold(plan, events, now)

    def _read_again(self, commit: Commit, transaction: Transaction) -> None:
        log.info("large_transaction", position=str(commit.position))
        self._ledger.write()
        notices = transaction.notices
        if notices.mark is not None:
            self._ledger.mark(notices.mark, notices.left)
        self._ledger.begin_parts()
        reach("parts.begun")
        self._again = SecondReading(commit.position, transaction.notices)
        self._reopen(self._ledger.offset.replica)

    def _end_of(self, again: SecondReading, commit: Commit) -> Notices:
        """The transaction is read again; its notices are those of the first reading."""
        if commit.position != again.end:
            raise UnknownEvent(
                f"a large transaction ended at {again.end} and, read again, at {commit.position}",
                hint="Check the replica's binlog there with mariadb-binlog; nothing of it was"
                " written.",
            )
        self._again = None
        return again.notices

"""What has been taken in and is not in `raw` yet, with the position that it ends at.

Left: committed transactions of the replica, folded, and the positions behind them.
Right: the `Writer`, which commits both together. Nothing here reads the stream.

There are two ways to the writer. `offer` lays the batch down for the writing thread,
which takes it as soon as it is free; until then more is folded into it. `write` is for
whoever must know that everything is committed: it waits for the thread, and then uses
the connection itself. States of tables, merges and other actions only go that way, so
the thread never sees a table's life change while it writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from config.connections import PostgresConnection
from config.errors import PositionLost, SourceReset, UnknownEvent, translated
from config.failpoints import reach
from config.metrics import BATCH_ROWS, BATCH_SECONDS
from config.settings import Settings
from loader.batch import Batch, Limits
from loader.handover import HandOver
from loader.lifecycle import Table, Tables
from loader.quarantine.unheld import may_be_unheld
from loader.replica import SourceMark
from loader.rows import TablePlan
from loader.schema import RawTable
from loader.tracking import Offset
from loader.values import stamp_text
from loader.writer import Action, Writer
from replicator.binlog.position import BinlogPosition, ReplicaPosition, SourcePosition

log = structlog.get_logger()

IDLE_OFFSET_SECONDS = 0.5
"""How often a position that moved without any change for us is stored: `wait` waits for it."""
REPLAY_SECONDS = 1.0
"""How often somebody's wish to replay rows in quarantine is looked for, where there are any."""
STOP_SECONDS = 20.0
"""How long a write that has begun may take to end when the loader is stopped."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What the thread writes at once. A part is not committed; its transaction goes on."""

    batch: Batch
    offset: Offset
    part: bool


class Ledger:
    """See the module. `finish` tells the replica that resync requests are through."""

    def __init__(
        self,
        settings: Settings,
        postgres: PostgresConnection,
        tables: Tables,
        offset: Offset,
        finish: Callable[[list[int]], None],
        written: Callable[[Offset], None] = lambda _offset: None,
    ) -> None:
        """`written` is told of each batch's offset when it is committed, by whoever wrote it."""
        tuning = settings.loader
        self.postgres = postgres
        self.tables = tables
        self.offset = offset
        self.committed: Offset | None = None
        """The last offset that this process has committed; any thread may look."""
        self.finish = finish
        self._tell_written = written
        self._label = settings.analytics.label
        self._writer = Writer(postgres, tables)
        self._batch = Batch()
        self._limits = Limits(tuning.batch_rows, tuning.batch_bytes, tuning.batch_seconds)
        self._stored_at = time.monotonic()
        self._moved = False
        self._replayed_at = 0.0
        self._watched = set(self._writer.quarantine.counts)
        """Tables that may have rows whose key PostgreSQL cannot hold."""
        self._in_parts = False
        self._thread: HandOver[Parcel] = HandOver(self._write_parcel)

    # --- taking in ------------------------------------------------------------------------

    def reclaim(self) -> None:
        """Take back the batch that waits, so that more can be folded into it."""
        parcel = self._thread.reclaim()
        if parcel is not None:
            self._batch = parcel.batch

    def advance(self, position: BinlogPosition) -> None:
        """The stream stands at `position`, and all before it is taken in."""
        if isinstance(position, ReplicaPosition):
            self.offset = replace(self.offset, replica=position)
            self._moved = True

    def mark(self, mark: SourceMark, left: SourcePosition | None) -> None:
        """What is taken in from here on shows the source at `mark`.

        `left` is where leg 1's offset row stood before: where the last transaction that we saw
        had put it, or else the replica's binlog lacks one. That is what a crash of a replica
        that runs without sync_binlog=1 leaves: rows in its tables that its binlog has lost.
        """
        if self.offset.chained and left is not None and left != self.offset.source:
            raise PositionLost(
                f"the replica's binlog leaves out what leg 1 did between the source's positions"
                f" {self.offset.source} and {left}",
                hint="It is reloaded. Set sync_binlog=1 on the replica, so that a crash of it loses"
                " nothing.",
            )
        self.offset = replace(
            self.offset,
            source=mark.position,
            source_ts=mark.source_ts,
            applied_at=mark.applied_at,
            chained=True,
        )

    def enter_file(self, file: str, created: int) -> None:
        """The stream is in this binlog file, which the replica began at this second."""
        offset = self.offset
        if file == offset.replica.file and offset.created not in (0, created):
            raise SourceReset(
                f"the replica's binlog file {file} is not the one that position {offset.replica} is"
                " in: the replica was set up again, or its binlog was begun anew (RESET MASTER)"
            )
        self.offset = replace(offset, created=created)

    def make_room(self, plans: Iterable[TablePlan]) -> None:
        """Hand over first what was read under another plan of the same table."""
        if any(self._batch.holds_other_plan(plan) for plan in plans):
            self._hand_over()

    def fold(self, plan: TablePlan, events: Sequence[bytes], now: float) -> None:
        """Take in one table's rows events of a committed transaction."""
        table = self.tables.get(plan.table)
        if not table.wants(plan) or self.is_behind_watermark(table):
            return
        table.seen_at = now
        stamp = stamp_text(self.offset.source_ts)
        watched = (table.loading or plan.table in self._watched) and may_be_unheld(plan)
        if self._batch.fold(plan, events, stamp, now, watched=watched):
            self._watched.add(plan.table)

    def end_transaction(self, position: BinlogPosition, gtid: str, now: float) -> None:
        """A transaction is whole."""
        self._in_parts = False
        if isinstance(position, ReplicaPosition):
            self.offset = replace(self.offset, replica=position, gtid=gtid)
            self._moved = True
        self._batch.end_transaction(now)

    def begin_parts(self) -> None:
        """What is folded until the next `end_transaction` belongs to one transaction."""
        self._in_parts = True

    def is_behind_watermark(self, table: Table) -> bool:
        """Is what comes now in a keyless table's copy already?"""
        source = self.offset.source
        if table.watermark is None or source is None:
            return False
        if source <= table.watermark:
            return True
        table.watermark = None
        return False

    def is_in_copy(self, table: Table) -> bool:
        """Is a statement that ends at the present position in a keyless table's copy already?

        Leg 1 moves its offset row behind the statement, not with it. So where that row says what it
        said in the copy, the copy may lie on either side, and the replica's own position tells.
        Where that was forgotten the answer is no, for to do it twice is no harm: the table is as
        empty as it was, or is found to have that shape, or is loaded anew.
        """
        if not self.is_behind_watermark(table):
            return False
        if table.copied_at is not None:
            return self.offset.replica <= table.copied_at
        return self.offset.source != table.watermark

    # --- handing over ---------------------------------------------------------------------

    def offer(self) -> None:
        """Let what is taken in be written as soon as PostgreSQL is free."""
        if self._in_parts:
            self.relieve()
        elif self._batch:
            self._lay_down()

    def relieve(self) -> None:
        """Wait for the thread to take a batch that is full."""
        if self._batch.full(self._limits, time.monotonic()):
            self._hand_over()

    def _hand_over(self) -> None:
        self._lay_down()
        self._thread.settle()

    def _lay_down(self) -> None:
        batch, self._batch = self._batch, Batch()
        self._moved = self._moved and self._in_parts
        self._thread.offer(Parcel(batch, self.offset, self._in_parts))

    def _write_parcel(self, parcel: Parcel) -> None:
        """The thread's work."""
        began = time.monotonic()
        with translated(self._label):
            if parcel.part:
                self._writer.write_part(parcel.batch, parcel.offset)
                reach("parts.written")
            else:
                self._writer.write_batch(parcel.batch, parcel.offset)
        if not parcel.part:
            self.committed = parcel.offset
            self._stored_at = time.monotonic()
            self._measure(parcel.batch, parcel.offset, self._stored_at - began)

    @property
    def idle(self) -> bool:
        """Is everything taken in written?"""
        return not self._batch and self._thread.idle

    def drain(self) -> None:
        """Wait until the thread has nothing to write: lives of tables may change now."""
        self._thread.drain()

    def due(self) -> bool:
        """Is there something that only `write` writes?"""
        if self._in_parts:
            return False
        if self.tables.unsaved or any(True for _ in self.tables.mergeable(self.offset.replica)):
            return True
        late = time.monotonic() - self._stored_at > IDLE_OFFSET_SECONDS
        return self._moved and late and self.idle

    def write(self, actions: Sequence[Action] = ()) -> None:
        """Commit everything taken in so far, with its position; everything stands still then."""
        if self._in_parts:
            raise UnknownEvent(
                "a transaction on the replica changes tables' shapes between its rows",
                hint="Reload them all: replicator resync --all",
            )
        self.reclaim()
        self._thread.drain()
        batch, self._batch = self._batch, Batch()
        began = time.monotonic()
        with translated(self._label):
            written = self._writer.write(batch, self.offset, actions)
        self._stored_at, self._moved = time.monotonic(), False
        self.committed = self.offset
        self._watched.update(t.name for t in written.merged if t.loaded and t.loaded.refused)
        finished = [number for table in written.merged for number in table.take_requests()]
        self.tables.merged(written.merged)
        if batch:
            self._measure(batch, self.offset, self._stored_at - began)
        self.finish(finished)

    def replay(self) -> None:
        """Take up now and then what somebody wants to be replayed; nothing may be half written."""
        now = time.monotonic()
        if not self._writer.quarantine or now - self._replayed_at < REPLAY_SECONDS:
            return
        self.drain()
        with translated(self._label):
            more = self._writer.replay()
        self._replayed_at = 0.0 if more else now

    def entries_changed(self) -> None:
        """Rows went to the quarantine, or left it, in the open transaction."""
        self._writer.quarantine.doubt()

    def _measure(self, batch: Batch, offset: Offset, seconds: float) -> None:
        BATCH_ROWS.labels("loader").observe(batch.rows)
        BATCH_SECONDS.labels("loader").observe(seconds)
        self._tell_written(offset)
        log.debug(
            "batch_committed",
            rows=batch.rows,
            transactions=batch.transactions,
            position=str(offset.replica),
            seconds=round(seconds, 4),
        )

    def raw_tables(self, names: Sequence[str]) -> dict[str, RawTable]:
        """Which of these raw tables there are; everything must be written."""
        self._thread.drain()
        return self._writer.raw_tables(names)

    def stop(self) -> None:
        """End the thread, and what it writes if that takes long."""
        if not self._thread.stop(STOP_SECONDS):
            self.postgres.cancel()
            self._thread.stop(STOP_SECONDS)

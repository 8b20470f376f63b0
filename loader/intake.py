"""One transaction of the replica as it comes in: its rows events by table, and leg 1's notices.

Left: rows events with their table maps. Right: for each table that we carry, the plan
and the events, in order; they are kept undecoded until the transaction ends, since
only its last rows event, leg 1's offset row, tells which source position and time
they stand for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from config.errors import UnknownEvent
from config.tables import TableRules
from loader import replica as rep
from loader.completing import Completer, Incompletable
from loader.decoder import best_decoder
from loader.lifecycle import Table, Tables
from loader.masking import Masker
from loader.notices import NoticeReader, Notices
from loader.rows import COLUMN_BYTES, KEPT_COLUMNS, TablePlan, plan_for
from loader.tracking import STREAMING
from replicator.binlog.events import HEADER_LENGTH, TableMap

KEPT_BYTES = KEPT_COLUMNS * COLUMN_BYTES
"""Of plans, and of the table maps that they are found by: a table has one for each id it had."""

Take = Callable[[bytes], None]


@dataclass(slots=True)
class Transaction:
    """What a transaction has brought so far."""

    events: dict[str, tuple[TablePlan, list[bytes]]] = field(default_factory=dict)
    notices: Notices = field(default_factory=Notices)
    bytes: int = 0
    let_go: bool = False
    """Its rows were too many to be kept."""


class Intake:
    """See the module."""

    def __init__(
        self,
        database: str,
        rules: TableRules,
        tables: Tables,
        masker: Masker,
        completer: Completer,
    ) -> None:
        self._database = database
        self._completer = completer
        self._rules = rules
        self._masker = masker
        self._tables = tables
        self.notices = NoticeReader(best_decoder())
        self._plans: dict[tuple[str, bytes], TablePlan] = {}
        self._known: dict[bytes, TablePlan | None] = {}
        """By whole table map; None where the table is none of ours."""
        self._held = 0
        self._last: TableMap | None = None
        self._take: Take = _ignore
        self.open = Transaction()

    def begin(self) -> Transaction:
        """A new transaction; the one before it."""
        before, self.open = self.open, Transaction()
        self._last = None
        return before

    def let_go(self, *, for_good: bool = False) -> None:
        """Forget the rows taken in so far; with `for_good`, those to come as well."""
        self.open.events.clear()
        self.open.bytes = 0
        self.open.let_go = for_good
        self._last = None

    def rows(self, table_map: TableMap, event: bytes) -> None:
        """Take one rows event."""
        if table_map is not self._last:
            self._take = self._way(table_map)
            self._last = table_map
        if self._take is not _ignore:
            self._take(event)
            self.open.bytes += len(event)

    def _way(self, table_map: TableMap) -> Take:
        """Where events of a table go, in this transaction."""
        plan = self._plan(table_map)
        if plan is None:
            return _ignore
        transaction = self.open
        if table_map.table in rep.NOTICE_TABLES:
            return lambda event: self.notices.read(plan, event, transaction.notices)
        table = self._tables.by_name.get(table_map.table)
        if transaction.let_go or table is None or not (table.loading or table.state == STREAMING):
            return _ignore
        held = transaction.events.get(table.name)
        if held is None:
            held = transaction.events[table.name] = (plan, [])
            transaction.bytes += plan.held_bytes
        elif held[0] is not plan:
            raise UnknownEvent(
                f"one transaction on the replica holds rows of table {table.name} in two shapes",
                hint=f"Reload the table: replicator resync {table.name}",
            )
        if table.name in self._completer.tables:
            return lambda event: self._take_whole(table, plan, table_map, event)
        return held[1].append

    def _take_whole(self, table: Table, plan: TablePlan, table_map: TableMap, event: bytes) -> None:
        """Take an event that may leave out generated columns.

        Where they cannot be worked out any more a schema change is on its way in the stream. A
        copy that is being made will be later than that, or be made again: it knows the row.
        """
        try:
            whole = self._completer.complete(plan, table_map, event)
        except Incompletable:
            if not table.loading:
                raise
        else:
            self.open.events[table.name][1].append(whole)

    def _plan(self, table_map: TableMap) -> TablePlan | None:
        raw = table_map.raw
        if raw in self._known:
            return self._known[raw]
        ours = table_map.database == self._database and (
            table_map.table in rep.NOTICE_TABLES or self._rules.carries(table_map.table)
        )
        self._make_room()
        plan = self._known[raw] = self._plan_of(table_map) if ours else None
        self._held += len(raw)
        return plan

    def _make_room(self) -> None:
        """Forget all plans when they are too many; not those that rows wait for.

        These are few: what their plans take counts as the transaction's, which is let go.
        """
        if self._held > KEPT_BYTES and not self.open.events:
            self._known.clear()
            self._plans.clear()
            self._held = 0

    def _plan_of(self, table_map: TableMap) -> TablePlan:
        # The table id, the first six bytes, changes whenever the server reopens the table.
        key = (table_map.table, table_map.raw[HEADER_LENGTH + 6 :])
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = plan_for(table_map, self._masker.schema)
            self._held += plan.held_bytes
        return plan


def _ignore(_event: bytes) -> None:
    """An event that is none of ours."""

"""Which tables a run of plain transactions may touch: those whose rows need no second look.

Left: table maps, as `gathering` meets them. Right: a `Way`, whose truth says whether the
table's rows pass or are ignored, or None where the rows must be looked at one transaction
after the other: a table in its copy's window, one with virtual columns that its rows may
lack, one that cannot join the statement that is being filled, or a table id that stands for
two tables. Asked once for a map and run: routes do not change while a run is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from replicator.batch import Segment
from replicator.binlog.events import TableMap
from replicator.binlog.position import SourcePosition
from replicator.binlog.transactions import TransactionReader
from replicator.routes import Routes, Via
from replicator.virtual_columns import VirtualColumns

if TYPE_CHECKING:
    from replicator.gathering import Run

gather: Callable[..., Run] | None
try:
    from replicator import gathering

    gather = gathering.gather
except ImportError:  # built without a compiler: each event goes its own way, more slowly
    gather = None


class Way:
    """The way of one table's rows: to `target`, or nowhere."""

    __slots__ = ("cost", "table_map", "target")

    def __init__(self, target: str, table_map: TableMap, cost: int = 0) -> None:
        self.target = target
        self.table_map = table_map
        self.cost = cost
        """Bytes that the statement grows by, beside the rows, when the table joins it."""

    def __bool__(self) -> bool:
        return bool(self.target)


class Ways:
    """The ways of one run, from `here` on, into `batch`."""

    def __init__(
        self,
        reader: TransactionReader,
        routes: Routes,
        source_database: str,
        database: str,
        here: SourcePosition,
        batch: Segment,
        virtual: VirtualColumns | None = None,
    ) -> None:
        self._reader = reader
        self._routes = routes
        self._source_database = source_database
        self._database = database
        self._here = here
        self._batch = batch
        self._virtual = virtual
        self._ids: set[int] = set()
        self._targets: set[str] = set()

    def __call__(self, event: bytes) -> Way | None:
        """The way of the rows behind this table map."""
        table_map = self._reader.table_map(event)
        if table_map.table_id in self._ids:
            return None
        self._ids.add(table_map.table_id)
        if table_map.database != self._source_database:
            return Way("", table_map)
        if self._routes.window(table_map.table) is not None:
            return None
        route = self._routes.route(table_map.table, self._here)
        if route.via is Via.SKIP:
            return Way("", table_map)
        if route.via is Via.MEND:
            return None
        target = route.target
        if self._virtual is not None and self._virtual.has(target):
            return None
        if target in self._targets or not self._batch.joins(target, table_map.table_id):
            return None
        self._targets.add(target)
        return Way(target, table_map, self._batch.cost(self._database, target, table_map))

"""Each table's life: waiting, loading, streaming, reloading, dropped. No input or output.

Left: what the stream and the copies report. Right: what to do about a table's row
changes, which copies to ask for, which to merge. Positions here are the replica's:
a copy is good when nothing that row events do not tell (a schema change, a swap)
lies between its snapshot and the stream; else it is asked for again.

A table that was followed until its reload began (*reloading*) is followed on: its readers see
every change, and the copy mends the rest. Where changes were missed (*loading*: it was paused,
leg 1 had set it aside, the position was lost) it stays as it was until the copy takes its place:
later changes on earlier rows would be a table that never was, and those that follow on leg 1's
new copy may double rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from loader.load.reload import LoadedTable, LoadRequest
from loader.rawsql import Target
from loader.rows import TablePlan
from loader.tracking import DROPPED, LOADING, RELOADING, STREAMING, WAITING
from loader.upsert import FoldWriter
from replicator.binlog.position import ReplicaPosition, SourcePosition


@dataclass(slots=True)
class Table:
    """One table of the replica, as far as the loader has come with it."""

    name: str
    state: str = WAITING
    hidden: bool = False
    """Its changes go to the touched table only: there is no raw table of its shape, or its rows
    are not those that the changes follow on."""
    touched: bool = False
    """A touched table exists."""
    request: LoadRequest | None = None
    loaded: LoadedTable | None = None
    changed_at: ReplicaPosition | None = None
    """The last change that row events do not tell."""
    watermark: SourcePosition | None = None
    """Without a key: changes up to here are in `raw` already."""
    copied_at: ReplicaPosition | None = None
    """Where the copy without a key was made, as far as this process knows."""
    requests: list[int] = field(default_factory=list)
    """Resync requests to finish when the copy is in place."""
    writer: tuple[TablePlan, Target, FoldWriter] | None = None
    seen_at: float = 0.0
    """When its last row changes came in (monotonic)."""

    @property
    def loading(self) -> bool:
        """Is a copy on its way?"""
        return self.state in (LOADING, RELOADING)

    def wants(self, plan: TablePlan) -> bool:
        """Are its row changes to be folded at all?"""
        if self.loading:
            # Without a key there is no touched table: the copy is made later than these changes.
            return bool(plan.key)
        return self.state == STREAMING

    def take_requests(self) -> list[int]:
        """The resync requests that end with what has just been done."""
        taken, self.requests = self.requests, []
        return taken

    def target(self) -> Target:
        """Where its row changes go."""
        return Target(self.name, into_raw=not self.hidden, into_touched=self.loading)


class Tables:
    """All tables by name, and the copies asked for.

    States are changed by `enter`, and sets are kept beside them: nothing that happens for
    each batch may walk over all tables.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, Table] = {}
        self.unsaved: set[str] = set()
        """Tables whose state may not be stored yet."""
        self._loading: set[str] = set()
        self._whole: dict[str, Table] = {}
        """Those whose copy, or the news that there is nothing to copy, waits for the stream."""
        self._generation = 0
        self._wanted: dict[str, LoadRequest] = {}

    def get(self, name: str) -> Table:
        """The table, new ones as waiting."""
        table = self.by_name.get(name)
        if table is None:
            table = self.by_name[name] = Table(name)
            self.unsaved.add(name)
        return table

    def enter(self, table: Table, state: str) -> None:
        """A table's state from here on."""
        table.state = state
        self.unsaved.add(table.name)
        if table.loading:
            self._loading.add(table.name)
        else:
            self._loading.discard(table.name)

    @property
    def loading(self) -> bool:
        """Is any table being copied?"""
        return bool(self._loading)

    def _hold(self, table: Table, loaded: LoadedTable | None) -> None:
        table.loaded = loaded
        if loaded is None:
            self._whole.pop(table.name, None)
        else:
            self._whole[table.name] = table

    def load(self, name: str, *, exists: bool, at: ReplicaPosition) -> bool:
        """Copy a table, or see that its copy is later than `at`; True when a copy is begun.

        `exists`: `raw` has such a table, which keeps serving its readers meanwhile.
        The caller drops the touched table either way: its content is older than `at`.
        """
        table = self.get(name)
        table.changed_at = at
        table.touched, table.writer = False, None
        if table.loading and table.request is not None and table.loaded is None:
            return False  # its snapshot may be later than `at`: seen when it arrives
        if table.loaded is not None and at <= table.loaded.before:
            return False
        self._begin(table, exists=exists)
        return True

    def _begin(self, table: Table, *, exists: bool) -> None:
        self._generation += 1
        if table.request is not None:
            table.request.cancelled.set()
        followed = exists and table.state in (STREAMING, RELOADING)
        self.enter(table, RELOADING if followed else LOADING)
        table.hidden = table.hidden or not followed
        table.touched, table.writer = False, None
        self._hold(table, None)
        table.request = LoadRequest(table.name, not exists, self._generation)
        self._wanted[table.name] = table.request

    def drop(self, name: str) -> Table:
        """A table is gone on the replica."""
        table = self.get(name)
        self._abandon(table)
        self.enter(table, DROPPED)
        table.watermark = table.copied_at = None
        return table

    def pause(self, names: Iterable[str]) -> list[str]:
        """Let these be as they are until they are to be loaded; those that were followed."""
        known = [self.by_name[name] for name in names if name in self.by_name]
        followed = [t for t in known if t.state == STREAMING or t.loading]
        for table in followed:
            self._abandon(table)
            self.enter(table, WAITING)
        return [table.name for table in followed]

    def miss(self, names: Iterable[str]) -> None:
        """Changes of these have not come: what `raw` shows stays until a copy is whole."""
        for table in filter(None, map(self.by_name.get, names)):
            if table.state in (STREAMING, RELOADING) and not table.hidden:
                self._abandon(table)
                self.enter(table, WAITING)

    def _abandon(self, table: Table) -> None:
        if table.request is not None:
            table.request.cancelled.set()
            self._wanted.pop(table.name, None)
        self._hold(table, None)
        table.request = table.writer = None
        table.hidden = table.touched = False

    def take_wanted(self) -> list[LoadRequest]:
        """Copies to ask for now."""
        wanted, self._wanted = list(self._wanted.values()), {}
        return wanted

    def arrived(self, loaded: LoadedTable) -> Table | None:
        """A copy is whole; the table, or None where the copy is of no use any more.

        A table without a key is the caller's to copy. A copy that a change has overtaken is
        asked for again.
        """
        table = self.by_name.get(loaded.request.table)
        if table is None or table.request is not loaded.request:
            return None
        if table.changed_at is not None and loaded.before < table.changed_at:
            self.begin_again(table)
            return None
        if loaded.schema is None or loaded.schema.primary_key:
            self._hold(table, loaded)
        return table

    def is_copied(self, name: str) -> bool:
        """Is a copy of it asked for, under way, or not merged yet?"""
        return self.by_name[name].request is not None

    def begin_again(self, table: Table) -> None:
        """Copy a table anew that is being copied: what was copied is of no use."""
        self._begin(table, exists=table.request is not None and not table.request.first)

    def mergeable(self, at: ReplicaPosition) -> Iterator[Table]:
        """Tables whose copy the stream has reached."""
        return (t for t, loaded in self._reached(at) if loaded.schema is not None)

    def absent(self, at: ReplicaPosition) -> list[Table]:
        """Tables that the replica had not when it was to be copied, nor has the stream since.

        Whatever took a table away is in the binlog before a copy finds it missing. So it is the
        stream that says where the table went, unless it has passed that place in silence.
        """
        return [t for t, loaded in self._reached(at) if loaded.schema is None]

    def _reached(self, at: ReplicaPosition) -> Iterator[tuple[Table, LoadedTable]]:
        for table in self._whole.values():
            if table.loaded is not None and table.loaded.after <= at:
                yield table, table.loaded

    def merged(self, tables: Iterable[Table]) -> None:
        """The copies are in place and committed."""
        for table in tables:
            self.enter(table, STREAMING)
            self._hold(table, None)
            table.hidden = table.touched = False
            table.request = table.writer = None

"""What a run of rows events leaves of one table: the last state of each key, as COPY lines. Pure.

Left: rows events of one table under one plan, in commit order, with the commit time
of their transaction. Right: lines ready for COPY, each row closed by its
`_source_ts`, sorted by what must be done with them:

* `FRESH`: rows of keys that the run began with an insert of. The table did not have
  them before, so they may be copied straight into it (with the upsert in reserve: a
  table that is being reloaded may have been ahead of the stream).
* `CHANGED`: other rows. They are upserted.
* `GONE`: keys whose last state is that they are deleted.

`Fold` is what the compiled `kernel_fold` implements; `PythonFold` is the reference and
the fallback. A table without a key has no row to fold onto: there `KeylessFold` counts
copies of each distinct row, the net of what came and went.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from loader.rows import DELETE, INSERT, RowChange, RowDecoder, TablePlan
from loader.values import ValueFault

FRESH, CHANGED, GONE = 0, 1, 2
BLOCK_BYTES = 1 << 18
"""About so many bytes are handed to PostgreSQL at once."""
ENTRY_BYTES = 96
"""What a key costs beside its bytes and its row's."""
FAULT_BYTES = 256
"""What a fault costs beside its original bytes."""

FaultsByKey = dict[bytes, tuple[ValueFault, ...]]


class State(NamedTuple):
    """A key's last state: `row` is its COPY text, None where it was deleted.

    `last`: of a deleted key the version before that, with its time, if it is known here.
    """

    key: bytes
    row: bytes | None
    source_ts: bytes
    last: bytes | None = None
    last_ts: bytes = b""


class Fold(Protocol):
    """What a run of events did to a table that has a key."""

    plan: TablePlan
    unwritable: list[ValueFault]
    """Faults of rows whose key PostgreSQL cannot hold: the rows are not written."""
    faults: FaultsByKey
    """Faults of the rows that are left."""

    @property
    def changes(self) -> Sequence[int]:
        """Row changes taken in: inserts, updates, deletes."""

    @property
    def held_bytes(self) -> int:
        """Memory held, roughly: overwritten rows included."""

    @property
    def size(self) -> int:
        """Rows to write or delete."""

    def take(self, events: Sequence[bytes], source_ts: bytes) -> int:
        """Fold whole rows events in; how many row changes they held."""

    def count(self, kind: int) -> int:
        """Lines of `lines(kind)`."""

    def lines(self, kind: int) -> Iterator[bytes]:
        """Blocks of whole lines: rows with their source time; of GONE, keys."""

    def states(self) -> Iterator[State]:
        """Every key's last state, in the order of its last change."""


class KeyedFold(ABC):
    """What the folds in Python have in common: all but what is kept of a key's rows.

    `keeps_deleted`: a deleted row is kept as it last was, and so are that version's faults.
    """

    def __init__(
        self, plan: TablePlan, decoder: RowDecoder, *, keeps_deleted: bool = False
    ) -> None:
        self.plan = plan
        self.unwritable: list[ValueFault] = []
        self.faults: FaultsByKey = {}
        self.held_bytes = 0
        self.changes: Sequence[int] = [0, 0, 0]
        self._decoder = decoder
        self._keeps_deleted = keeps_deleted

    def take(self, events: Sequence[bytes], source_ts: bytes) -> int:
        """Fold events in."""
        counts, taken = list(self.changes), 0
        for event in events:
            for change in self._decoder.decode(event, self.plan):
                counts[change.operation] += 1
                taken += 1
                self._put(change, source_ts)
        self.changes = counts
        return taken

    def _put(self, change: RowChange, source_ts: bytes) -> None:
        self.held_bytes += sum(FAULT_BYTES + len(fault.original) for fault in change.faults)
        key, row = change.key, change.row
        if key is None:
            self.unwritable.extend(change.faults)
            return
        if self._keep(key, change, source_ts):
            self.held_bytes += len(key) + 1 + ENTRY_BYTES
        if row is not None:
            self.held_bytes += len(row) + len(source_ts) + 2
        if change.faults:
            self.faults[key] = change.faults
        elif row is not None or not self._keeps_deleted:
            self.faults.pop(key, None)

    @abstractmethod
    def _keep(self, key: bytes, change: RowChange, source_ts: bytes) -> bool:
        """Take in a key's new state; is the key new to the run?"""


class _Image(NamedTuple):
    row: bytes | None
    source_ts: bytes
    fresh: bool

    @property
    def kind(self) -> int:
        return GONE if self.row is None else FRESH if self.fresh else CHANGED


class PythonFold(KeyedFold):
    """See `Fold`."""

    def __init__(self, plan: TablePlan, decoder: RowDecoder) -> None:
        super().__init__(plan, decoder)
        self._images: dict[bytes, _Image] = {}

    @property
    def size(self) -> int:
        """Rows to write or delete."""
        return len(self._images)

    def _keep(self, key: bytes, change: RowChange, source_ts: bytes) -> bool:
        before = self._images.pop(key, None)
        fresh = before.fresh if before else change.operation == INSERT
        self._images[key] = _Image(change.row, source_ts, fresh)
        return before is None

    def count(self, kind: int) -> int:
        """Lines of a kind."""
        return sum(image.kind == kind for image in self._images.values())

    def lines(self, kind: int) -> Iterator[bytes]:
        """Blocks of lines."""
        if kind == GONE:
            return blocks(key for key, image in self._images.items() if image.row is None)
        return blocks(
            image.row + b"\t" + image.source_ts
            for image in self._images.values()
            if image.row is not None and image.kind == kind
        )

    def states(self) -> Iterator[State]:
        """Every key's last state."""
        for key, image in self._images.items():
            yield State(key, image.row, image.source_ts)


@dataclass(slots=True)
class Copies:
    """A distinct row of a table without a key: copies to add, or (negative) to take away."""

    net: int
    source_ts: bytes
    faults: tuple[ValueFault, ...]


@dataclass(slots=True)
class KeylessFold:
    """What a run of events did to a table without a key."""

    plan: TablePlan
    decoder: RowDecoder
    copies: dict[bytes, Copies] = field(default_factory=dict)
    unwritable: list[ValueFault] = field(default_factory=list)
    """Always empty: a row as a whole can be told from others whatever it lacks."""
    held_bytes: int = 0
    changes: list[int] = field(default_factory=lambda: [0, 0, 0])

    @property
    def size(self) -> int:
        """Distinct rows to write or delete."""
        return len(self.copies)

    def take(self, events: Sequence[bytes], source_ts: bytes) -> int:
        """Fold events in."""
        taken = 0
        for event in events:
            for change in self.decoder.decode(event, self.plan):
                self._count(change, source_ts)
                taken += 1
        return taken

    def _count(self, change: RowChange, source_ts: bytes) -> None:
        self.changes[change.operation] += 1
        row = change.key or b""
        self.held_bytes += sum(FAULT_BYTES + len(fault.original) for fault in change.faults)
        held = self.copies.get(row)
        if held is None:
            held = self.copies[row] = Copies(0, source_ts, change.faults)
            self.held_bytes += len(row) + ENTRY_BYTES
        if change.operation == DELETE:
            held.net -= 1
        else:
            held.net += 1
            held.source_ts, held.faults = source_ts, change.faults
        if held.net == 0:
            del self.copies[row]


def blocks(rows: Iterator[bytes], size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """COPY text rows joined into blocks of about `size` bytes."""
    held: list[bytes] = []
    length = 0
    for row in rows:
        held.append(row)
        length += len(row) + 1
        if length >= size:
            yield b"\n".join(held) + b"\n"
            held, length = [], 0
    if held:
        yield b"\n".join(held) + b"\n"

"""The fold of a table of which more is kept than its rows' last states. Pure.

Left: rows events as every fold takes them (see `fold`). Right: each key's last state, and of a
deleted key the version before the deletion, should the run have brought it: a row that comes and
goes, or changes and goes, within one batch is kept as it last was. Where the history is kept,
also every version in between (`Versions`).

*Exact*: a deletion's own event is not looked into. The version before it is the last that the
run brought, or else the one that `raw` has, for `raw` is where the table was before the run.

Rows are decoded by the kernel, and folded here in Python: a kept table costs more than others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from config.keeping import Keeping
from loader.fold import CHANGED, ENTRY_BYTES, GONE, KeyedFold, State, blocks
from loader.rows import RowChange, RowDecoder, TablePlan


class Version(NamedTuple):
    """A row from a moment on; `row` is None where there is none from then on."""

    key: bytes
    row: bytes | None
    since: bytes


class Versions:
    """Every version of every row that a run brought, in the order of the changes."""

    def __init__(self, all_: list[Version] | None = None) -> None:
        self.all: list[Version] = all_ if all_ is not None else []

    def without(self, refused: Collection[bytes], untouched: Collection[bytes]) -> Versions:
        """What is left where PostgreSQL refused rows.

        `refused`: keys whose last version was, and that have no row in `raw` now; what they had
        ends. `untouched`: those whose row in `raw` is still the one before the run.
        """
        left = Versions()
        last = {version.key: number for number, version in enumerate(self.all)}
        for number, version in enumerate(self.all):
            if version.key in untouched:
                continue
            ends = version.key in refused and last[version.key] == number
            left.all.append(version._replace(row=None) if ends else version)
        return left

    def closed(self) -> Iterator[tuple[bytes, bytes]]:
        """Each key with the moment at which the version before the run ended."""
        seen: set[bytes] = set()
        for version in self.all:
            if version.key not in seen:
                seen.add(version.key)
                yield version.key, version.since

    def opened(self) -> Iterator[tuple[bytes, bytes, bytes | None]]:
        """Rows with the moments at which they began and ended; None: not yet."""
        ends: list[bytes | None] = [None] * len(self.all)
        last: dict[bytes, int] = {}
        for number, version in enumerate(self.all):
            before = last.get(version.key)
            if before is not None:
                ends[before] = version.since
            last[version.key] = number
        for version, end in zip(self.all, ends, strict=True):
            if version.row is not None:
                yield version.row, version.since, end


def versions_of(rows: object) -> Versions | None:
    """The versions that a fold, or a part of one, kept; most keep none."""
    return getattr(rows, "versions", None)


class VersionsFold(KeyedFold):
    """See the module; a `fold.Fold`."""

    def __init__(self, plan: TablePlan, decoder: RowDecoder, keeping: Keeping) -> None:
        super().__init__(plan, decoder, keeps_deleted=keeping.soft)
        self.versions = Versions() if keeping.history else None
        self._states: dict[bytes, State] = {}

    @property
    def size(self) -> int:
        """Rows to write or delete."""
        return len(self._states)

    def _keep(self, key: bytes, change: RowChange, source_ts: bytes) -> bool:
        before = self._states.pop(key, None)
        self._states[key] = State(key, change.row, source_ts, *_last(before, change.row))
        if self.versions is not None:
            self.versions.all.append(Version(key, change.row, source_ts))
            self.held_bytes += ENTRY_BYTES
        return before is None

    def count(self, kind: int) -> int:
        """Lines of a kind: rows of new keys are like any others here."""
        return sum(_kind(state) == kind for state in self._states.values())

    def lines(self, kind: int) -> Iterator[bytes]:
        """Blocks of lines."""
        if kind == GONE:
            return blocks(state.key for state in self._states.values() if state.row is None)
        return blocks(
            state.row + b"\t" + state.source_ts
            for state in self._states.values()
            if state.row is not None and kind == CHANGED
        )

    def states(self) -> Iterator[State]:
        """Every key's last state."""
        return iter(self._states.values())


def _last(before: State | None, row: bytes | None) -> tuple[bytes | None, bytes]:
    """The version before a deletion, and its time."""
    if row is not None or before is None:
        return None, b""
    if before.row is None:
        return before.last, before.last_ts
    return before.row, before.source_ts


def _kind(state: State) -> int:
    return GONE if state.row is None else CHANGED

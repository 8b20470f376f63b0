"""Some of a fold's rows, which are written as the whole of it would be. Pure.

Left: final states of keys, or copies of rows without a key, in the order of their last
change. Right: what `upsert.FoldWriter` asks of a fold. Whether a key is new is not known of a
part, so all its rows go by upsert.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from loader.fold import CHANGED, GONE, Copies, KeylessFold, State, blocks
from loader.versions import Versions


class KeyedRows(Protocol):
    """What is written of a table with a key: a whole `fold.Fold`, or `Rows`."""

    @property
    def size(self) -> int:
        """Rows to write or delete."""
        ...

    @property
    def held_bytes(self) -> int:
        """Their bytes, roughly."""
        ...

    def count(self, kind: int) -> int:
        """Lines of `lines(kind)`."""
        ...

    def lines(self, kind: int) -> Iterator[bytes]:
        """Blocks of whole lines: rows with their source time; of GONE, keys."""
        ...

    def states(self) -> Iterator[State]:
        """Every key's last state, in the order of its last change."""
        ...


@dataclass(frozen=True, slots=True)
class Rows:
    """Some keys' last states."""

    held: Sequence[State]
    versions: Versions | None = None
    """What of them goes into the table's history."""

    @property
    def size(self) -> int:
        """Rows to write or delete."""
        return len(self.held)

    @property
    def held_bytes(self) -> int:
        """Their bytes."""
        return sum(len(state.key) + len(state.row or b"") for state in self.held)

    def count(self, kind: int) -> int:
        """Lines of a kind."""
        return sum(_kind(state) == kind for state in self.held)

    def lines(self, kind: int) -> Iterator[bytes]:
        """Blocks of lines."""
        if kind == GONE:
            return blocks(state.key for state in self.held if state.row is None)
        return blocks(
            state.row + b"\t" + state.source_ts
            for state in self.held
            if state.row is not None and _kind(state) == kind
        )

    def states(self) -> Iterator[State]:
        """The states."""
        return iter(self.held)


def _kind(state: State) -> int:
    return GONE if state.row is None else CHANGED


@dataclass(frozen=True, slots=True)
class KeylessRows:
    """Copies of some distinct rows of a table without a key."""

    copies: Mapping[bytes, Copies]

    @property
    def size(self) -> int:
        """Distinct rows to write or delete."""
        return len(self.copies)

    @property
    def held_bytes(self) -> int:
        """Their bytes."""
        return sum(map(len, self.copies))


Keyless = KeylessFold | KeylessRows
Writable = KeyedRows | KeylessFold | KeylessRows

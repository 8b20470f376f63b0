"""Which content a name has after RENAME TABLE. Pure.

Left: the pairs of a statement in order, and the names there were. Right: where each
name's rows come from, and the names that are gone. A content is called by the name
that it had before the statement.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moves:
    """`moved`: name to the content that it has now; None is one that we never had."""

    moved: dict[str, str | None]
    gone: tuple[str, ...]

    def name_of(self, content: str) -> str:
        """The name under which a content is found afterwards."""
        return next((name for name, held in self.moved.items() if held == content), content)


def moves(pairs: Sequence[tuple[str, str]], names: Collection[str]) -> Moves:
    """Follow the pairs; a table that moved away and came back has not moved."""
    holds: dict[str, str | None] = {name: name for name in names}
    for old, new in pairs:
        holds[new] = holds.pop(old, None)
    moved = {name: content for name, content in holds.items() if content != name}
    gone = tuple(name for name in names if name not in holds)
    return Moves(moved, gone)

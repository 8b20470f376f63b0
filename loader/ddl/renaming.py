"""One RENAME statement whose rows are all in `raw`: names keep their tables, rows move.

Left: the moves of a statement, and which names stand. Right: raw tables, tables' lives
and stands as they are after it, in the open transaction. See `standing`, whose part
this is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from loader import schema
from loader.ddl import exchange, shapes
from loader.ddl.moves import Moves
from loader.ddl.rekeeping import follow_moved
from loader.ledger import Ledger
from loader.lifecycle import Table
from loader.naming import TOUCHED, helper_name
from loader.tracking import LOADING, RELOADING, STREAMING
from loader.types import raw_name

STANDING = "standing"
"""The state of a name that has no table on the replica, and whose rows readers still see."""
_SWAP = "_swap_"


@dataclass(slots=True)
class Stand:
    """One name. `owner`: where its table went; `waiting`: that table's rows are here."""

    owner: str | None
    since: float
    waiting: bool = False
    fresh: bool = False
    """The owner had no raw table when it got its name: what reads this name's is to follow it."""
    growing: bool = False
    born: bool = False
    """The touched table holds all of the growing table."""
    look_at: float = 0.0
    """When to look next whether the growing table is whole (monotonic)."""
    uncopied: int = 0
    """How often in a row nothing of the old table was seen to come into the growing one."""


class Renaming:
    """One RENAME statement, all of whose rows are in `raw`."""

    def __init__(self, ledger: Ledger, stands: dict[str, Stand], found: Moves) -> None:
        self._connection = ledger.postgres
        self._tables = ledger.tables
        self._stands = stands
        self._found = found
        self._places = {n: raw_name(n) for n, t in self._tables.by_name.items()
                        if t.state == STREAMING}  # fmt: skip
        self._places |= {s.owner: raw_name(n) for n, s in stands.items() if s.waiting and s.owner}
        there = schema.read_tables(self._connection, [raw_name(n) for n in found.moved])
        self._there = {name for name in found.moved if raw_name(name) in there}
        self._swaps: list[str] = []
        self._settled: set[str] = set()
        self._at = ledger.offset.source_ts

    def run(self) -> None:
        lazy = self._lazy()
        for name in sorted(self._there):
            self._save_content_of(name)
        for name, content in self._found.moved.items():
            assert content is not None
            if name in lazy:
                self._wait(name, content)
            else:
                self._move(name, content)
        self._let_go()
        shapes.rename(self._connection, self._found.moved)
        for name in sorted(self._settled):
            follow_moved(self._connection, name, self._at)
        schema.drop_helpers(self._connection, self._swaps)

    def _lazy(self) -> set[str]:
        """Names that can wait: their rows stand under a name that nobody has."""
        return {
            name
            for name, content in self._found.moved.items()
            if content
            and name not in self._there
            and content in self._found.gone
            and content not in self._stands
            and self._tables.get(content).state == STREAMING
        }

    def _save_content_of(self, name: str) -> None:
        """Copy away what a raw table holds for another name, before it is overwritten."""
        new = self._found.moved[name]
        place = raw_name(name)
        for content, held in list(self._places.items()):
            goes_to = self._found.name_of(content)
            if held != place or content == new or goes_to in self._found.gone:
                continue
            copy = raw_name(goes_to)
            if goes_to in self._there:
                copy = helper_name(_SWAP, goes_to)
                self._swaps.append(copy)
            exchange.copy_table(self._connection, place, copy)
            self._places[content] = copy
            if goes_to == content:
                self._settle(self._tables.get(content), content)
        stand = self._stands.get(name)
        if stand is not None:
            stand.waiting = False
            self._stay(name, stand)

    def _stay(self, name: str, stand: Stand) -> None:
        """What reads the raw table of `name` does not follow its owner."""
        if stand.fresh:
            stand.fresh = False
            shapes.note_standing(self._connection, name, stand.owner)

    def _wait(self, name: str, content: str) -> None:
        table = self._tables.drop(name)  # a copy of it that a late start asked for is not wanted
        self._stands[content] = Stand(name, time.monotonic(), waiting=True, fresh=True)
        self._tables.enter(table, LOADING)
        table.hidden = True
        schema.drop_helpers(self._connection, [helper_name(TOUCHED, name)])
        self._tables.enter(self._tables.drop(content), STANDING)
        shapes.note_standing(self._connection, content, name, fresh=True)

    def _move(self, name: str, content: str) -> None:
        place, own = self._places[content], raw_name(name)
        if place != own and name in self._there:
            exchange.replace_rows(self._connection, own, place, self._at)
        elif place != own:
            exchange.copy_table(self._connection, place, own)
        for standing, stand in self._stands.items():
            if stand.owner == content:
                stand.waiting = False
                self._stay(standing, stand)
        self._settle(self._tables.get(name), content)
        if self._stands.pop(name, None) is not None:
            shapes.forget_standing(self._connection, name)

    def _settle(self, table: Table, content: str) -> None:
        """A table's rows stand in its own raw table: add the changes made under `content`."""
        source = self._tables.get(content)
        if source.touched:
            exchange.replay(self._connection, raw_name(table.name), content)
            schema.drop_helpers(self._connection, [helper_name(TOUCHED, content)])
        if table.state in (LOADING, RELOADING, STREAMING):
            self._tables.drop(table.name)
        self._tables.enter(table, STREAMING)
        self._settled.add(table.name)

    def _let_go(self) -> None:
        for name in self._found.gone:
            if name in self._stands:
                continue
            had_rows = self._tables.get(name).state == STREAMING
            table = self._tables.drop(name)
            if had_rows:  # its readers see them until it is sure that nobody takes the name
                self._stands[name] = Stand(None, time.monotonic())
                self._tables.enter(table, STANDING)
                shapes.note_standing(self._connection, name, None)
        for standing, stand in self._stands.items():
            if stand.owner in self._found.gone:
                stand.owner = self._found.name_of(stand.owner)
                self._stay(standing, stand)

"""What a random program believes to be there while it is drawn: tables, columns, open hands.

It is rough on purpose: the source decides what happens, and a model that were right about
every refusal would be a second server.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import strategies as st

Draw = st.DrawFn

NAMES = ["t0", "Two words", "it's `3`", '☺ 4 "ü"']
"""What tables are called, behind their prefix."""


@dataclass
class Table:
    """Columns that can be written, by name, each with its family; `id` is always one."""

    columns: dict[str, str]
    hidden: set[str] = field(default_factory=set)
    """Those that `SELECT *` leaves out."""
    partitioned: bool = False

    def copy(self) -> Table:
        return Table(dict(self.columns), set(self.hidden), self.partitioned)

    def selected(self) -> Table:
        """What CREATE … SELECT makes of it."""
        return Table({c: f for c, f in self.columns.items() if c not in self.hidden})


@dataclass
class Model:
    """The tables that there should be, on a `mariadb` or a `mysql`."""

    server: str
    tables: dict[str, Table] = field(default_factory=dict)
    held: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The tables that a connection has changed since its last COMMIT."""
    _open: set[int] = field(default_factory=set)
    _made: int = 0

    def fresh_column(self) -> str:
        """A name that no column had: mostly plain, now and then as hard as they come."""
        self._made += 1
        hard = {3: "Col ` {}", 7: "é☺ {}", 9: '"it\'s" {}%s', 12: "select{}", 14: "x" * 60 + "{}"}
        return hard.get(self._made, "c{}").format(self._made)

    def border(self, connection: int, word: str) -> None:
        if word == "BEGIN":
            self._open.add(connection)
        elif word in ("COMMIT", "ROLLBACK"):
            self._open.discard(connection)
        if word in ("BEGIN", "COMMIT", "ROLLBACK"):
            self.held[connection].clear()

    def holders(self, connection: int) -> list[int]:
        """Others that have a transaction open and changed something in it."""
        return [c for c in sorted(self._open) if c != connection and self.held[c]]


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def there(name: str) -> str:
    """A table's name behind its prefix, quoted."""
    return quoted("{p}" + name)

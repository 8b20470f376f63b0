"""What stays of rows that the source has no more: rules in, a table's own out.

A section `[table.<glob>]` says `deletes = "soft"` (a deleted row stays in `raw`, marked) or
`"hard"` (`raw` is an exact mirror, as without a rule), and `history = true` (every version of
every row is kept in a table of its own). Case is ignored; of several sections that match a table
the last one that says a word about it holds. Pure.

As with masks, rules for `patient` hold for the second names that OpenDental's upgrades and
tools give the table for a while (`tempConv_patient1`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Final

from config.privacy import names_of

SOFT, HARD = "soft", "hard"
_MAGIC: Final = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Keeping:
    """What is kept of one table; false where nothing is."""

    soft: bool = False
    """Do deleted rows stay, marked?"""
    history: bool = False
    """Is every version of a row kept?"""

    def __bool__(self) -> bool:
        return self.soft or self.history


@dataclass(frozen=True, slots=True)
class KeepingRule:
    """One section; None where it does not say."""

    table: str
    soft: bool | None = None
    history: bool | None = None

    @property
    def names_a_table(self) -> bool:
        """Is it about one table, and no pattern?"""
        return _MAGIC.search(self.table) is None


@dataclass(frozen=True, slots=True)
class KeepingRules:
    """Every section in order; false where none keeps anything."""

    rules: tuple[KeepingRule, ...] = ()
    _compiled: tuple[tuple[re.Pattern[str], KeepingRule], ...] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        compiled = ((re.compile(translate(rule.table.lower())), rule) for rule in self.rules)
        object.__setattr__(self, "_compiled", tuple(compiled))

    def __bool__(self) -> bool:
        return any(rule.soft or rule.history for rule in self.rules)

    def keeping(self, table: str) -> Keeping:
        """What is to be kept of a table."""
        soft, history = False, False
        for rule in self._matching(table):
            soft = soft if rule.soft is None else rule.soft
            history = history if rule.history is None else rule.history
        return Keeping(soft, history)

    def names(self, table: str) -> bool:
        """Is the table called by its name where something is to be kept of it?"""
        return any(
            rule.names_a_table and (rule.soft or rule.history) for rule in self._matching(table)
        )

    def _matching(self, table: str) -> list[KeepingRule]:
        names = names_of(table) if self.rules else ()
        return [rule for glob, rule in self._compiled if any(map(glob.match, names))]

    def idle(self, tables: list[str]) -> list[str]:
        """Sections that match none of these tables."""
        return [
            f"[table.{rule.table}]"
            for glob, rule in self._compiled
            if not any(glob.match(name) for table in tables for name in names_of(table))
        ]


def read_keeping(sections: object, where: str, faults: list[str]) -> KeepingRules:
    """`[table.…]` of a tables.toml; what is wrong is added to `faults`."""
    if sections is None:
        return KeepingRules()
    if not isinstance(sections, dict):
        faults.append(f"{where}: table must be sections, [table.<table>]; lists stand in [tables]")
        return KeepingRules()
    rules: list[KeepingRule] = []
    for table, said in sections.items():
        if not isinstance(said, dict):
            faults.append(f"{where}: table.{table} must be a section, [table.{table}]")
            continue
        found = _faults(table, said, where)
        faults += found
        if not found:
            deletes = said.get("deletes")
            soft = None if deletes is None else deletes == SOFT
            rules.append(KeepingRule(table, soft, said.get("history")))
    return KeepingRules(tuple(rules))


def _faults(table: str, said: dict[str, object], where: str) -> list[str]:
    place = f"{where}: [table.{table}]"
    found = [
        f"{place}: unknown key {key}; allowed: deletes, history"
        for key in said
        if key not in ("deletes", "history")
    ]
    if said.get("deletes", HARD) not in (SOFT, HARD):
        found.append(f'{place} deletes: must be "soft" or "hard"')
    if not isinstance(said.get("history", False), bool):
        found.append(f"{place} history: must be true or false")
    if not table:
        found.append(f"{place}: an empty name matches nothing")
    return found

"""Which columns are masked on their way into PostgreSQL, and how: rules in, masks by column out.

A rule names a table and a column by globs, case ignored, and says what becomes of the
values: `drop`, `hash`, `redact`, `year`, `{prefix = n}`, or `keep`. Of several that match
a column the last one holds; those of the profile come before the file's own. What a mask
does to a value stands in `loader.masking`; here nobody sees one. Pure, but for reading the
packaged profile.

OpenDental's upgrades, and tools that alter large tables, work on a table under a second
name for a while (`tempConv_patient1`, `_patient_gho`): rules for `patient` hold there too.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path
from typing import Final

DROP, HASH, REDACT, YEAR, PREFIX, KEEP = "drop", "hash", "redact", "year", "prefix", "keep"
_WORDS: Final = (DROP, HASH, REDACT, YEAR, KEEP)
_ALLOWED: Final = (
    '"drop", "hash", "redact", "year", "keep", {year = 1945} or {prefix = 3, zeroed = ["036"]}'
)
PROFILES: Final = {"limited": Path(__file__).with_name("privacy_limited.toml")}
_SECOND_NAME = re.compile(r"tempconv_(.+?)_?\d*|_(.+)_(?:gho|ghc|del|new|old)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mask:
    """What becomes of a column's values."""

    kind: str
    length: int = 0
    """Of `prefix`: so many characters stay."""
    zeroed: tuple[str, ...] = ()
    """Of `prefix`: beginnings that are written as zeros."""
    since: int = 0
    """Of `year`: earlier years are written as this one."""
    key: str = ""
    """Of `hash`: the fingerprint of the key; the key itself stands nowhere but in `masking`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: `mask` is None for `keep`."""

    table: str
    column: str
    mask: Mask | None
    packaged: bool = False
    """Is it a profile's? Those may name what a practice does not have."""

    def __str__(self) -> str:
        return f"[mask.{self.table}] {self.column}"


@dataclass(frozen=True, slots=True)
class PrivacyRules:
    """Every rule in order; false where there is none."""

    rules: tuple[Rule, ...] = ()
    _compiled: tuple[tuple[re.Pattern[str], re.Pattern[str], Rule], ...] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        compiled = tuple((_glob(rule.table), _glob(rule.column), rule) for rule in self.rules)
        object.__setattr__(self, "_compiled", compiled)

    def __bool__(self) -> bool:
        return bool(self.rules)

    @property
    def hashes(self) -> bool:
        """Does a rule need the key?"""
        return any(rule.mask is not None and rule.mask.kind == HASH for rule in self.rules)

    def deciding(self, table: str, columns: Iterable[str]) -> dict[str, Rule]:
        """The rule that holds for each of a table's columns, of those that have any."""
        names = names_of(table)
        found = [
            (column, rule)
            for tables, column, rule in self._compiled
            if any(tables.match(name) for name in names)
        ]
        decided: dict[str, Rule] = {}
        for name in columns if found else ():
            matching = [rule for column, rule in found if column.match(name.lower())]
            if matching:
                decided[name] = matching[-1]
        return decided

    def masks(self, table: str, columns: Iterable[str]) -> dict[str, Mask]:
        """The masks of a table's columns, of those that have one."""
        decided = self.deciding(table, columns)
        return {name: rule.mask for name, rule in decided.items() if rule.mask is not None}

    def idle(self, tables: Mapping[str, Sequence[str]]) -> list[Rule]:
        """Rules of the file's own that match no column of these tables."""
        left = [(tables_, column, rule) for tables_, column, rule in self._compiled
                if not rule.packaged]  # fmt: skip
        for table, columns in tables.items():
            names, lowered = names_of(table), [column.lower() for column in columns]
            left = [
                (tables_, column, rule)
                for tables_, column, rule in left
                if not any(tables_.match(name) for name in names)
                or not any(column.match(name) for name in lowered)
            ]
        return [rule for _, _, rule in left]


def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern.lower()))


def names_of(table: str) -> tuple[str, ...]:
    """The table's name, and the one that it stands for under a second name."""
    name = table.lower()
    second = _SECOND_NAME.fullmatch(name)
    return (name, second[1] or second[2]) if second else (name,)


# --- reading ---------------------------------------------------------------------------------


def read_privacy(profile: object, sections: object, where: str, faults: list[str]) -> PrivacyRules:
    """`privacy` and `[mask.…]` of a tables.toml; what is wrong is added to `faults`."""
    rules: list[Rule] = []
    if profile is not None:
        path = PROFILES.get(profile) if isinstance(profile, str) else None
        if path is None:
            faults.append(f"{where}: privacy must be {' or '.join(map(_quoted, PROFILES))}")
        else:
            held = tomllib.loads(path.read_text(encoding="utf-8"))["mask"]
            rules += _read(held, str(path), faults, packaged=True)
    if sections is not None:
        rules += _read(sections, where, faults)
    return PrivacyRules(tuple(rules))


def _quoted(word: str) -> str:
    return f'"{word}"'


def _read(sections: object, where: str, faults: list[str], *, packaged: bool = False) -> list[Rule]:
    if not isinstance(sections, dict):
        faults.append(f"{where}: mask must be sections, [mask.<table>]")
        return []
    rules: list[Rule] = []
    for table, columns in sections.items():
        if not isinstance(columns, dict):
            faults.append(f"{where}: mask.{table} must be a section, [mask.{table}]")
            continue
        for column, said in columns.items():
            mask = _mask(said)
            if mask is None and said != KEEP:
                faults.append(f"{where}: [mask.{table}] {column}: must be {_ALLOWED}")
            elif not table or not column:
                faults.append(f"{where}: [mask.{table}] {column}: an empty name matches nothing")
            else:
                rules.append(Rule(table, column, mask, packaged))
    return rules


def _mask(said: object) -> Mask | None:
    if isinstance(said, str) and said in _WORDS:
        return Mask(said) if said != KEEP else None
    if not isinstance(said, dict):
        return None
    if set(said) == {YEAR} and _whole(said[YEAR], 9999):
        return Mask(YEAR, since=said[YEAR])
    zeroed = said.get("zeroed", [])
    if not isinstance(zeroed, list) or not all(isinstance(one, str) for one in zeroed):
        return None
    if {PREFIX} <= set(said) <= {PREFIX, "zeroed"} and _whole(said[PREFIX], 1000):
        return Mask(PREFIX, said[PREFIX], tuple(zeroed))
    return None


def _whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most

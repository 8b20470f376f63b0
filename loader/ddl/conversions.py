"""Which changes of a column's type keep the values in `raw` exact, and under what condition. Pure.

Left: a column before and after, as MySQL has it. Right: conditions that its rows must
meet, so that a plain cast in PostgreSQL gives what the server's own conversion gave;
`Uncertain` for every pair that is not on the list.
"""

from __future__ import annotations

from dataclasses import dataclass

from loader.ddl.literals import Uncertain, integer_range
from replicator.binlog.schema import Column, ColumnType


@dataclass(frozen=True, slots=True)
class Check:
    """What every row must meet: `kind` is null, zero, range, digits or length; see `schema`."""

    column: str
    kind: str
    low: int = 0
    high: int = 0


def checks_of(old: Column, new: Column, *, numbered: bool) -> list[Check]:
    """Conditions for `old` to become `new` by a cast; raises Uncertain.

    `numbered`: the new definition says AUTO_INCREMENT, which gives zeros a number.
    """
    checks = _type_checks(old.name, old.type, new.type)
    if old.nullable and not new.nullable:
        checks.append(Check(old.name, "null"))
    if numbered:
        checks.append(Check(old.name, "zero"))
    return checks


def _type_checks(name: str, old: ColumnType, new: ColumnType) -> list[Check]:
    if old == new:
        return []
    before, after = integer_range(old), integer_range(new)
    if before is not None and after is not None:
        inside = after[0] <= before[0] and before[1] <= after[1]
        return [] if inside else [Check(name, "range", *after)]
    if before is not None and new.base == "decimal":
        return [_digits(name, new)]
    if old.base == new.base:
        return _SAME_BASE.get(old.base, _no_rule)(name, old, new)
    if (old.base, new.base) == ("float", "double") and old.unsigned == new.unsigned:
        return []
    if (old.base, new.base) == ("date", "datetime"):
        return []
    if _octets(old) and _octets(new) and old.charset == new.charset:
        return _lengths(name, old, new)
    raise Uncertain


def _no_rule(_name: str, _old: ColumnType, _new: ColumnType) -> list[Check]:
    raise Uncertain


def _digits(name: str, new: ColumnType) -> Check:
    if new.unsigned:
        raise Uncertain
    return Check(name, "digits", high=(new.precision or 10) - (new.scale or 0))


def _decimals(name: str, old: ColumnType, new: ColumnType) -> list[Check]:
    if (new.scale or 0) < (old.scale or 0) or old.unsigned != new.unsigned:
        raise Uncertain
    if (new.precision or 0) - (new.scale or 0) >= (old.precision or 0) - (old.scale or 0):
        return []
    return [Check(name, "digits", high=(new.precision or 10) - (new.scale or 0))]


def _finer(_name: str, old: ColumnType, new: ColumnType) -> list[Check]:
    if new.fsp < old.fsp:
        raise Uncertain
    return []


def _more_members(_name: str, old: ColumnType, new: ColumnType) -> list[Check]:
    if old.charset != new.charset or new.values[: len(old.values)] != old.values:
        raise Uncertain
    return []


_TEXT = {"tinytext": 1, "text": 2, "mediumtext": 3, "longtext": 4}
_BLOB = {"tinyblob": 1, "blob": 2, "mediumblob": 3, "longblob": 4}


def _octets(kind: ColumnType) -> int:
    """How many bytes a length takes, of text and bytes that vary in length; 0 for others."""
    if kind.base in ("varchar", "varbinary"):
        return 2
    return _TEXT.get(kind.base) or _BLOB.get(kind.base) or 0


_SMALL = 255


def _lengths(name: str, old: ColumnType, new: ColumnType) -> list[Check]:
    """Both hold text of one charset, or both bytes; may the new one be too short?"""
    if new.base in ("varchar", "varbinary"):
        limit = new.length or 0
        if old.base == new.base and (old.length or 0) <= limit:
            return []
        return [Check(name, "length", high=limit)]
    if old.base in ("varchar", "varbinary"):
        # In bytes; a varchar has 65535 of them at most.
        return [] if _octets(new) >= 2 else [Check(name, "length", high=_SMALL // 4)]
    return [] if _octets(new) >= _octets(old) else [Check(name, "length", high=_SMALL // 4)]


def _longer_char(name: str, old: ColumnType, new: ColumnType) -> list[Check]:
    if old.charset != new.charset:
        raise Uncertain
    if (new.length or 0) < (old.length or 0):
        return [Check(name, "length", high=new.length or 0)]
    return []


def _same_text(name: str, old: ColumnType, new: ColumnType) -> list[Check]:
    if old.charset != new.charset:
        raise Uncertain
    return _lengths(name, old, new)


_SAME_BASE = {
    "decimal": _decimals,
    "datetime": _finer,
    "timestamp": _finer,
    "time": _finer,
    "enum": _more_members,
    "set": _more_members,
    "char": _longer_char,
    "varchar": _same_text,
    "varbinary": _same_text,
}

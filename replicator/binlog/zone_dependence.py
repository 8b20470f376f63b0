"""Does a statement's outcome depend on the time zone at other moments than its own? Pure.

Left: the text of a CREATE or ALTER TABLE, and which of the table's columns are TIMESTAMPs. Right:
yes or no. What a statement takes from the clock (CURRENT_TIMESTAMP, NOW(), the date of today) is
the zone's at the statement's own moment, and one offset tells it. But a TIMESTAMP is a moment, and
all other types hold what a clock on the wall shows: between the two each value has an offset of
its own, winter's or summer's. That is so for

* a column that is changed from or to TIMESTAMP, or to another precision (MySQL goes over the
  clock's face there, which shows an hour of autumn twice);
* a literal, or an expression, that is a TIMESTAMP's default;
* a default or a generated value that is worked out from a TIMESTAMP;
* UNIX_TIMESTAMP('…'), FROM_UNIXTIME() and CONVERT_TZ(), in partitions' bounds too;
* a literal with an offset of its own (MySQL 8.0.19), which is shifted into the session's zone;
* PARTITION BY SYSTEM_TIME INTERVAL (MariaDB), whose bounds are counted from a literal, or from the
  statement's own day, by the clock: they say which versions of rows a DROP PARTITION takes away.

What is not certain counts as yes: the table is copied then, which is exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from replicator.binlog import ddl_body as body
from replicator.binlog.ddl_lexer import Dialect, Kind
from replicator.binlog.ddl_reader import NAMES, NOWHERE, Reader

_CONVERTING: Final = frozenset(["UNIX_TIMESTAMP", "FROM_UNIXTIME", "CONVERT_TZ"])
_NOW: Final = frozenset(["CURRENT_TIMESTAMP", "NOW", "LOCALTIME", "LOCALTIMESTAMP"])
_NO_COLUMNS: Final = frozenset(
    [
        *("CHECK", "CONSTRAINT", "FOREIGN", "FULLTEXT", "INDEX", "KEY", "PARTITION"),
        *("PERIOD", "PRIMARY", "SPATIAL", "SYSTEM", "UNIQUE", "VECTOR"),
    ]
)
_ZERO: Final = re.compile(r"['\"]?[0:\-. ]+['\"]?\Z")
"""`0` and `'0000-00-00 00:00:00'`, which mean no moment."""
_WITH_OFFSET: Final = re.compile(r"['\"].*\d[+-]\d{1,2}:\d{2}['\"]\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Definition:
    """A column's definition: its name stands at `name`, its type behind, up to `last`."""

    name: int
    last: int
    old: str | None
    """The name of the column that is changed; None where it is new."""


def depends_on_zone(statement: str, dialect: Dialect, timestamps: Mapping[str, int]) -> bool:
    """See the module. `timestamps` are the TIMESTAMP columns that there are, with decimals."""
    reader = Reader(statement, dialect, NOWHERE)
    known = {name.lower(): decimals for name, decimals in timestamps.items()}
    altering = _enter(reader)
    if altering is None:
        return True
    start = reader.at
    if _converts(reader, start, len(reader.code)) or _cuts_time(reader, start):
        return True
    definitions = list(_altered(reader) if altering else _created(reader))
    moments = set(known) | {_name(reader, one) for one in definitions if _is_moment(reader, one)}
    if any(_depends(reader, one, known, moments) for one in definitions):
        return True
    return altering and any(
        first in known and _counts(reader, at, last) for first, at, last in _defaults_set(reader)
    )


def stored_by_clock(statement: str, dialect: Dialect, timestamps: Mapping[str, int]) -> str | None:
    """The first column that is generated, STORED, and worked out in the session's time zone."""
    reader = Reader(statement, dialect, NOWHERE)
    altering = _enter(reader)
    if altering is None:
        return None
    definitions = list(_altered(reader) if altering else _created(reader))
    moments = {name.lower() for name in timestamps}
    moments |= {_name(reader, one) for one in definitions if _is_moment(reader, one)}
    for one in definitions:
        words = {reader.word_at(at) for at in range(one.name + 2, one.last)}
        stored = "AS" in words and words & {"STORED", "PERSISTENT"}
        if stored and (_mentions(reader, one, moments) or _converts(reader, one.name, one.last)):
            return reader.code[one.name].name
    return None


def _enter(reader: Reader) -> bool | None:
    """Step behind the table's name. Is it an ALTER? None where it is neither."""
    words = [reader.word_at(at) for at in range(len(reader.code))]
    if "TABLE" not in words:
        return None
    reader.at = words.index("TABLE") + 1
    before = words[: reader.at]
    if not {"ALTER", "CREATE"} & set(before):
        return None
    reader.take("IF", "NOT", "EXISTS")
    reader.take("IF", "EXISTS")
    reader.table()
    return "ALTER" in before


def _converts(reader: Reader, start: int, last: int) -> bool:
    """Is there a function that goes between moments and clocks, or a literal with an offset?"""
    for at in range(start, last):
        called = reader.word_at(at) in _CONVERTING and reader.sign_at(at + 1) == "("
        if called and reader.sign_at(at + 2) != ")":  # UNIX_TIMESTAMP() is now
            return True
        token = reader.code[at]
        if token.kind is Kind.STRING and _WITH_OFFSET.match(token.text):
            return True
    return False


def _cuts_time(reader: Reader, start: int) -> bool:
    """Are versions of rows parted by the clock?"""
    return any(
        (reader.word_at(at), reader.word_at(at + 1)) == ("SYSTEM_TIME", "INTERVAL")
        for at in range(start, len(reader.code))
    )


# --- which columns -----------------------------------------------------------------------


def _created(reader: Reader) -> Iterator[_Definition]:
    if reader.sign_at(reader.at) == "(":
        yield from _listed(reader, reader.at)


def _listed(reader: Reader, opening: int) -> Iterator[_Definition]:
    for first, last in body.segments(reader, opening + 1, body.closing(reader, opening)):
        at = _column_at(reader, first)
        if reader.word_at(at) not in _NO_COLUMNS:
            yield _Definition(at, last, None)


def _altered(reader: Reader) -> Iterator[_Definition]:
    for first, last in body.segments(reader, reader.at, len(reader.code)):
        verb, at = reader.word_at(first), _column_at(reader, first + 1)
        token = reader.token(at)
        if verb == "ADD" and reader.sign_at(at) == "(":
            yield from _listed(reader, at)
        elif token is None or token.kind not in NAMES:
            continue
        elif verb == "ADD" and reader.word_at(at) not in _NO_COLUMNS:
            yield _Definition(at, last, None)
        elif verb == "MODIFY":
            yield _Definition(at, last, token.name.lower())
        elif verb == "CHANGE":
            yield _Definition(at + 1, last, token.name.lower())


def _defaults_set(reader: Reader) -> Iterator[tuple[str, int, int]]:
    """(column, from where, to where) of each ALTER [COLUMN] c SET DEFAULT …"""
    for first, last in body.segments(reader, reader.at, len(reader.code)):
        at = _column_at(reader, first + 1)
        token = reader.token(at)
        words = (reader.word_at(first), reader.word_at(at + 1))
        if words == ("ALTER", "SET") and token is not None:
            yield token.name.lower(), at + 1, last


def _column_at(reader: Reader, index: int) -> int:
    """The index of a column's name behind COLUMN and IF [NOT] EXISTS, any of which may lack."""
    index += reader.word_at(index) == "COLUMN"
    if reader.word_at(index) == "IF":
        index += 3 if reader.word_at(index + 1) == "NOT" else 2
    return index


def _name(reader: Reader, one: _Definition) -> str:
    token = reader.token(one.name)
    return "" if token is None else token.name.lower()


def _is_moment(reader: Reader, one: _Definition) -> bool:
    return reader.word_at(one.name + 1) == "TIMESTAMP"


# --- what becomes of them ----------------------------------------------------------------


def _depends(reader: Reader, one: _Definition, known: Mapping[str, int], moments: set[str]) -> bool:
    moment = _is_moment(reader, one)
    if one.old is not None:
        if moment != (one.old in known):
            return True
        if moment and known[one.old] != _decimals(reader, one.name + 2):
            return True
    if moment and _counts(reader, one.name + 2, one.last):
        return True
    return _mentions(reader, one, moments)


def _decimals(reader: Reader, at: int) -> int:
    token = reader.token(at + 1)
    return int(token.text) if reader.sign_at(at) == "(" and token and token.text.isdigit() else 0


def _counts(reader: Reader, start: int, last: int) -> bool:
    """Is there, in a TIMESTAMP's definition, a default that is a moment of its own?"""
    for at in range(start, last):
        if reader.word_at(at) == "DEFAULT":
            return not _harmless(reader, at + 1, last)
    return False


def _harmless(reader: Reader, at: int, last: int) -> bool:
    """NULL, zero, or the statement's own moment, and nothing added to it."""
    token = reader.token(at)
    if token is None:
        return False
    behind = at + 1
    if reader.word_at(at) in _NOW:
        if reader.sign_at(behind) == "(":
            behind = body.closing(reader, behind) + 1
    elif reader.word_at(at) != "NULL" and not _ZERO.match(token.text):
        return False
    return behind >= last or bool(reader.word_at(behind))


def _mentions(reader: Reader, one: _Definition, moments: set[str]) -> bool:
    """Is anything of the column worked out from a TIMESTAMP? AFTER only says where it stands."""
    return any(
        reader.code[at].kind in NAMES
        and reader.code[at].name.lower() in moments
        and reader.word_at(at - 1) != "AFTER"
        for at in range(one.name + 2, one.last)
    )

"""Read ALTER TABLE, CREATE and DROP INDEX as actions on columns and the key. Pure.

Left: the statement's text and dialect. Right: what it does to columns, in order;
None where any part of it is not on the list of what is known here. What touches
neither columns nor rows (indexes, comments, options) is left out. Types come
without the charset that the statement leaves to the table: `evolution` has it from
the catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loader.ddl.definitions import Beyond, Definition, name_at, read_definition
from replicator.binlog.ddl_body import closing, segments
from replicator.binlog.ddl_lexer import Dialect
from replicator.binlog.ddl_reader import NOWHERE, Reader


@dataclass(frozen=True, slots=True)
class Add:
    """ADD COLUMN; `conditional` is IF NOT EXISTS."""

    column: Definition
    conditional: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """DROP COLUMN; `conditional` is IF EXISTS."""

    name: str
    conditional: bool = False


@dataclass(frozen=True, slots=True)
class Modify:
    """MODIFY COLUMN and CHANGE COLUMN: `old` becomes `column`."""

    old: str
    column: Definition


@dataclass(frozen=True, slots=True)
class Rename:
    """RENAME COLUMN."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class DropKey:
    """DROP PRIMARY KEY."""


@dataclass(frozen=True, slots=True)
class AddKey:
    """ADD PRIMARY KEY."""

    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UniqueKeys:
    """A unique key comes or may go: it counts where the table has no primary key."""


Action = Add | Drop | Modify | Rename | DropKey | AddKey | UniqueKeys


def read_alterations(statement: str, dialect: Dialect) -> tuple[Action, ...] | None:
    """The actions of ALTER TABLE, CREATE INDEX, DROP INDEX; None where some part is not known."""
    reader = Reader(statement, dialect, NOWHERE)
    if reader.torn:
        return None
    if reader.word in ("CREATE", "DROP"):
        return tuple(_index(reader))
    if not reader.take("ALTER"):
        return None
    reader.take("ONLINE")
    if not reader.take("TABLE"):
        return None
    reader.take("IF", "EXISTS")
    reader.table()
    if reader.take("WAIT"):
        reader.at += 1
    reader.take("NOWAIT")
    parts = list(segments(reader, reader.at, len(reader.code)))
    try:
        actions = tuple(action for part in parts for action in _actions(reader, *part))
    except Beyond:
        return None
    if any(isinstance(action, Add) for action in actions) and any(
        reader.word_at(first) == "ALTER" for first, _ in parts
    ):
        return None  # a new column's default, which old rows get, may be the one that is set here
    return actions


_OPTIONS = frozenset(
    ["AUTO_INCREMENT", "AVG_ROW_LENGTH", "CHARACTER", "CHARSET", "CHECKSUM", "COLLATE", "COMMENT",
     "DEFAULT", "DELAY_KEY_WRITE", "ENGINE", "KEY_BLOCK_SIZE", "MAX_ROWS", "MIN_ROWS",
     "PACK_KEYS", "ROW_FORMAT", "STATS_AUTO_RECALC", "STATS_PERSISTENT", "STATS_SAMPLE_PAGES"]
)  # fmt: skip
_HARMLESS = frozenset(["ALGORITHM", "DISABLE", "ENABLE", "FORCE", "LOCK", "ORDER"])
_TELLING = frozenset(
    ["CONVERT", "ENCRYPTED", "PAGE_COMPRESSED", "PARTITION", "SYSTEM", "UNION", "VERSIONING"]
)
_PLAIN_KEYS = frozenset(["INDEX", "KEY", "FULLTEXT", "SPATIAL", "FOREIGN", "CHECK"])


def _index(reader: Reader) -> Iterator[Action]:
    """CREATE [OR REPLACE] [UNIQUE …] INDEX, and DROP INDEX."""
    before: list[str] = []
    while not reader.done and reader.word != "INDEX":
        before.append(reader.word)
        reader.at += 1
    if "DROP" in before:
        yield _dropped_index(reader, reader.at + 1)
    elif "UNIQUE" in before or "REPLACE" in before:
        yield UniqueKeys()


def _dropped_index(reader: Reader, at: int) -> Action:
    """The primary key is an index of that name."""
    if reader.word_at(at) == "IF":
        at += 2
    token = reader.token(at)
    return DropKey() if token is not None and token.name.upper() == "PRIMARY" else UniqueKeys()


def _actions(reader: Reader, first: int, last: int) -> Iterator[Action]:
    verb, second = reader.word_at(first), reader.word_at(first + 1)
    words = {reader.word_at(index) for index in range(first, last)}
    if verb in _READ:
        yield from _READ[verb](reader, first + 1, last)
    elif verb == "RENAME" and second == "COLUMN":
        yield _rename(reader, first + 2, last)
    elif verb == "RENAME":
        return  # of an index; or of the table, which the verdict tells
    elif verb == "ALTER":
        if words & _TELLING:
            raise Beyond
    elif verb in _HARMLESS or (verb in _OPTIONS and not words & _TELLING):
        return
    else:
        raise Beyond


def _add(reader: Reader, at: int, last: int) -> Iterator[Action]:
    word = reader.word_at(at)
    if word == "CONSTRAINT":
        at += 1 if reader.word_at(at + 1) in ("PRIMARY", "UNIQUE", "FOREIGN", "CHECK") else 2
        word = reader.word_at(at)
    if word == "PRIMARY":
        yield AddKey(_key_columns(reader, at + 2, last))
    elif word == "UNIQUE":
        yield UniqueKeys()
    elif word in _PLAIN_KEYS:
        return
    elif word in ("PARTITION", "PERIOD", "SYSTEM", "VECTOR"):
        raise Beyond
    else:
        yield from _add_columns(reader, at, last)


def _add_columns(reader: Reader, at: int, last: int) -> Iterator[Action]:
    at += reader.word_at(at) == "COLUMN"
    conditional = reader.word_at(at) == "IF"
    at += 3 * conditional
    parts = [(at, last)]
    if reader.sign_at(at) == "(":
        parts = list(segments(reader, at + 1, closing(reader, at)))
    for start, end in parts:
        column, key = read_definition(reader, start, end)
        yield Add(column, conditional)
        yield from _keys(column, key)


def _drop(reader: Reader, at: int, last: int) -> Iterator[Action]:
    word = reader.word_at(at)
    if word == "PRIMARY":
        yield DropKey()
    elif word in ("INDEX", "KEY", "CONSTRAINT"):
        yield _dropped_index(reader, at + 1)
    elif word in ("FOREIGN", "CHECK"):
        return
    elif word in ("PARTITION", "PERIOD", "SYSTEM"):
        raise Beyond
    else:
        at += word == "COLUMN"
        conditional = reader.word_at(at) == "IF"
        at += 2 * conditional
        if not last - at <= 2:
            raise Beyond
        yield Drop(name_at(reader, at), conditional)


def _modify(reader: Reader, at: int, last: int) -> Iterator[Action]:
    at = _behind_column(reader, at)
    column, key = read_definition(reader, at, last)
    yield Modify(column.name, column)
    yield from _keys(column, key)


def _change(reader: Reader, at: int, last: int) -> Iterator[Action]:
    at = _behind_column(reader, at)
    column, key = read_definition(reader, at + 1, last)
    yield Modify(name_at(reader, at), column)
    yield from _keys(column, key)


def _behind_column(reader: Reader, at: int) -> int:
    at += reader.word_at(at) == "COLUMN"
    if reader.word_at(at) == "IF":
        raise Beyond
    return at


def _rename(reader: Reader, at: int, last: int) -> Rename:
    if last - at != 3 or reader.word_at(at + 1) != "TO":
        raise Beyond
    return Rename(name_at(reader, at), name_at(reader, at + 2))


_READ: dict[str, Callable[[Reader, int, int], Iterator[Action]]] = {
    "ADD": _add,
    "DROP": _drop,
    "MODIFY": _modify,
    "CHANGE": _change,
}


def _key_columns(reader: Reader, at: int, last: int) -> tuple[str, ...]:
    """The names in `KEY [USING BTREE] (a, b)`; a prefix length or DESC is beyond us."""
    while at < last and reader.sign_at(at) != "(":
        at += 1
    names = []
    for start, end in segments(reader, at + 1, closing(reader, at)):
        if end - start != 1:
            raise Beyond
        names.append(name_at(reader, start))
    return tuple(names)


def _keys(column: Definition, key: str) -> Iterator[Action]:
    """The key that a column's own definition makes."""
    if key == "primary":
        yield AddKey((column.name,))
    elif key == "unique":
        yield UniqueKeys()

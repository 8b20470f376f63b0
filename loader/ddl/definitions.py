"""Read one column's definition from a statement's tokens. Pure.

Left: a `Reader` and the indexes between which the definition stands. Right: a
`Definition`; `Beyond` where any word in it is not on the list of what is known here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from loader.ddl.literals import Fill, literal
from replicator.binlog.ddl_body import closing, segments
from replicator.binlog.ddl_lexer import Kind
from replicator.binlog.ddl_reader import Reader
from replicator.binlog.schema import ColumnType


class Beyond(Exception):
    """A part of the statement that is not on our list."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A column's definition as the statement gives it."""

    name: str
    type: ColumnType
    charset: str | None = None
    """Named by the statement; None leaves it to the table."""
    nullable: bool = True
    default: Fill | None = None
    """None: the statement has no DEFAULT."""
    after: str | None = None
    """The column before it, "" for FIRST, None where its place is not given."""
    numbered: bool = False
    """AUTO_INCREMENT."""


def name_at(reader: Reader, at: int) -> str:
    token = reader.token(at)
    if token is None or not reader.name_at(at):
        raise Beyond
    return token.name


def read_definition(reader: Reader, at: int, last: int) -> tuple[Definition, str]:
    """The definition that begins with a name at `at`; and "primary", "unique" or ""."""
    return _Column(reader, at, last).read()


_TYPES = {
    "TINYINT": "tinyint", "BOOL": "tinyint", "BOOLEAN": "tinyint", "SMALLINT": "smallint",
    "MEDIUMINT": "mediumint", "INT": "int", "INTEGER": "int", "BIGINT": "bigint",
    "DECIMAL": "decimal", "DEC": "decimal", "NUMERIC": "decimal", "FLOAT": "float",
    "DOUBLE": "double", "BIT": "bit", "CHAR": "char", "VARCHAR": "varchar", "BINARY": "binary",
    "VARBINARY": "varbinary", "TINYTEXT": "tinytext", "TEXT": "text", "MEDIUMTEXT": "mediumtext",
    "LONGTEXT": "longtext", "TINYBLOB": "tinyblob", "BLOB": "blob", "MEDIUMBLOB": "mediumblob",
    "LONGBLOB": "longblob", "DATE": "date", "DATETIME": "datetime", "TIMESTAMP": "timestamp",
    "TIME": "time", "ENUM": "enum", "SET": "set",
}  # fmt: skip
_INTEGERS = frozenset(["tinyint", "smallint", "mediumint", "int", "bigint"])
_SIZED = frozenset(["char", "varchar", "binary", "varbinary"])


class _Column:
    """A definition between two indexes: name, type, attributes, place."""

    def __init__(self, reader: Reader, at: int, last: int) -> None:
        self._reader = reader
        self._at = at
        self._last = last
        self._key = ""

    def read(self) -> tuple[Definition, str]:
        name = name_at(self._reader, self._at)
        self._at += 1
        found = Definition(name, self._type())
        found = self._unsigned(found)
        while self._at < self._last:
            found = self._attribute(found)
        if self._key == "primary":
            found = replace(found, nullable=False)
        return found, self._key

    def _take(self, *words: str) -> bool:
        fits = self._at + len(words) <= self._last and all(
            self._reader.word_at(self._at + n) == word for n, word in enumerate(words)
        )
        self._at += len(words) * fits
        return fits

    def _type(self) -> ColumnType:
        base = _TYPES.get(self._reader.word_at(self._at))
        if base is None:
            raise Beyond
        self._at += 1
        if base == "double":
            self._take("PRECISION")
        arguments = self._arguments()
        if base in ("enum", "set"):
            return ColumnType(base, values=tuple(self._string(at) for at in arguments))
        return _sized(base, [self._number(at) for at in arguments])

    def _arguments(self) -> list[int]:
        """Indexes of what stands in the type's brackets."""
        if self._reader.sign_at(self._at) != "(" or self._at >= self._last:
            return []
        end = closing(self._reader, self._at)
        parts = list(segments(self._reader, self._at + 1, end))
        if any(last - first != 1 for first, last in parts):
            raise Beyond
        self._at = end + 1
        return [first for first, _ in parts]

    def _number(self, at: int) -> int:
        token = self._reader.token(at)
        if token is None or not token.text.isdecimal():
            raise Beyond
        return int(token.text)

    def _string(self, at: int) -> str:
        token = self._reader.token(at)
        if token is None or token.kind is not Kind.STRING or "\\" in token.text:
            raise Beyond
        mark = token.text[0]
        return token.text[1:-1].replace(mark * 2, mark)

    def _unsigned(self, found: Definition) -> Definition:
        if self._take("SIGNED"):
            return found
        if not self._take("UNSIGNED"):
            return found
        if found.type.base not in (*_INTEGERS, "decimal", "float", "double"):
            raise Beyond
        return replace(found, type=replace(found.type, unsigned=True))

    def _attribute(self, found: Definition) -> Definition:
        if self._take("NOT", "NULL"):
            return replace(found, nullable=False)
        if self._take("NULL"):
            return found
        if self._take("DEFAULT"):
            return self._default(found)
        if self._take("COMMENT"):
            self._string_or_beyond()
            return found
        if self._take("AUTO_INCREMENT"):
            return replace(found, numbered=True, nullable=False)
        if self._take("PRIMARY", "KEY") or self._take("PRIMARY"):
            self._key = "primary"
            return found
        if self._take("UNIQUE", "KEY") or self._take("UNIQUE"):
            self._key = self._key or "unique"
            return found
        if self._take("CHARACTER", "SET") or self._take("CHARSET"):
            return replace(found, charset=self._word())
        if self._take("COLLATE"):
            return replace(found, charset=self._word().partition("_")[0])
        return self._place(found)

    def _place(self, found: Definition) -> Definition:
        if self._take("FIRST"):
            return replace(found, after="")
        if self._take("AFTER"):
            self._at += 1
            return replace(found, after=name_at(self._reader, self._at - 1))
        raise Beyond

    def _word(self) -> str:
        token = self._reader.token(self._at)
        if token is None or self._at >= self._last or token.kind is Kind.PUNCTUATION:
            raise Beyond
        self._at += 1
        return token.text.strip("'\"`").lower()

    def _string_or_beyond(self) -> None:
        token = self._reader.token(self._at)
        if token is None or token.kind is not Kind.STRING:
            raise Beyond
        self._at += 1

    def _default(self, found: Definition) -> Definition:
        reader, start = self._reader, self._at
        self._at += 2 if reader.sign_at(start) in ("-", "+") else 1
        fill = literal([token.text for token in reader.code[start : self._at]])
        if fill is None:
            raise Beyond
        return replace(found, default=fill)


def _sized(base: str, numbers: list[int]) -> ColumnType:
    """A type with its numbers; a width that only matters for display is left out."""
    if base in _INTEGERS:
        return ColumnType(base)
    if base == "decimal" and len(numbers) <= 2:
        precision, scale = [*numbers, *(10, 0)[len(numbers) :]]
        return ColumnType(base, precision=precision or 10, scale=scale)
    if base == "bit" and len(numbers) <= 1:
        return ColumnType(base, length=numbers[0] if numbers else 1)
    if base in _SIZED and (numbers or base in ("char", "binary")):
        return ColumnType(base, length=numbers[0] if numbers else 1)
    if base in ("datetime", "timestamp", "time") and len(numbers) <= 1:
        return ColumnType(base, fsp=numbers[0] if numbers else 0)
    if numbers:
        raise Beyond
    return ColumnType(base)

"""Read a statement's tokens from the left, and note what must read otherwise on the right.

`Scope` knows which names are ours; `Reader` walks over the code of one
statement (blanks and comments left out) and collects edits. An edit replaces
the span of a token; `Reader.sql` is the statement with all edits made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from replicator.binlog.ddl_lexer import BLANK, Dialect, Kind, Token, tokenize

NAMES = (Kind.WORD, Kind.QUOTED)


class Place(Enum):
    """Where a table lives, seen from us."""

    OURS = auto()
    EXCLUDED = auto()  # in our database, but the table rules leave it out
    ELSEWHERE = auto()  # in another database of the same server


@dataclass(frozen=True, slots=True)
class TableName:
    """A table as a statement names it, with the tokens that do."""

    database: str
    table: str
    database_token: Token | None
    table_token: Token

    @property
    def start(self) -> int:
        return (self.database_token or self.table_token).start


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose statement it is and where it goes; see `ddl.decide` for the fields."""

    default_database: str
    source_db: str
    replica_db: str
    engine: str
    source_engine: str
    lower_case_table_names: int
    carries: Callable[[str], bool]
    present: Callable[[str], bool]

    def is_source(self, database: str) -> bool:
        if self.lower_case_table_names:
            return database.lower() == self.source_db.lower()
        return database == self.source_db

    def place(self, name: TableName) -> Place:
        if not self.is_source(name.database):
            return Place.ELSEWHERE
        return Place.OURS if self.carries(self.shown(name.table)) else Place.EXCLUDED

    def shown(self, table: str) -> str:
        """The table's name as the source stores it and as table maps show it."""
        return table.lower() if self.lower_case_table_names == 1 else table


NOWHERE = Scope(
    default_database="",
    source_db="",
    replica_db="",
    engine="",
    source_engine="",
    lower_case_table_names=0,
    carries=lambda _: True,
    present=lambda _: True,
)
"""For a statement that is read for what it says of columns, not carried anywhere."""


class Reader:
    """A cursor over the code of one statement, and the edits made to it."""

    def __init__(self, statement: str, dialect: Dialect, scope: Scope) -> None:
        self.statement = statement
        self.scope = scope
        tokens = tokenize(statement, dialect)
        self.torn = any(token.kind is Kind.TORN for token in tokens)
        self.code = [token for token in tokens if token.kind not in BLANK]
        while self.code and self.code[-1].text == ";":
            self.code.pop()
        self.at = 0
        self.edits: dict[tuple[int, int], str] = {}

    # looking

    def token(self, index: int) -> Token | None:
        return self.code[index] if 0 <= index < len(self.code) else None

    def word_at(self, index: int) -> str:
        """The word there in upper case; empty for anything else, quoted names included."""
        token = self.token(index)
        return token.text.upper() if token and token.kind is Kind.WORD else ""

    def sign_at(self, index: int) -> str:
        """The punctuation there, or the empty string."""
        token = self.token(index)
        return token.text if token and token.kind is Kind.PUNCTUATION else ""

    def name_at(self, index: int) -> bool:
        token = self.token(index)
        return token is not None and token.kind in NAMES

    @property
    def word(self) -> str:
        return self.word_at(self.at)

    @property
    def done(self) -> bool:
        return self.at >= len(self.code)

    # taking

    def take(self, *words: str) -> bool:
        """Step over these words if they are what comes next."""
        if any(self.word_at(self.at + n) != word for n, word in enumerate(words)):
            return False
        self.at += len(words)
        return True

    def take_any(self, *words: str) -> str:
        """Step over one of these words and return it, or return the empty string."""
        found = self.word if self.word in words else ""
        self.at += bool(found)
        return found

    def take_sign(self, sign: str) -> bool:
        taken = self.sign_at(self.at) == sign
        self.at += taken
        return taken

    def table(self) -> TableName:
        """`t`, `db.t` or `.t`; raises Unreadable where no name stands."""
        self.take_sign(".")
        name = self.table_at(self.at)
        self.at += 1 if name.database_token is None else 3
        return name

    def table_at(self, index: int) -> TableName:
        first, second = self.token(index), self.token(index + 2)
        if first is None or first.kind not in NAMES:
            raise Unreadable("a table's name was expected")
        if self.sign_at(index + 1) != ".":
            return TableName(self.scope.default_database, first.name, None, first)
        if second is None or second.kind not in NAMES:
            raise Unreadable("a table's name was expected after the dot")
        return TableName(first.name, second.name, first, second)

    def tables(self) -> list[TableName]:
        """One or more names between commas."""
        found = [self.table()]
        while self.take_sign(","):
            found.append(self.table())
        return found

    # walking

    def walk(self, start: int) -> Iterator[tuple[int, int, str]]:
        """(index, depth, first word of the innermost parenthesis) from `start` to the end."""
        openers: list[str] = []
        for index in range(start, len(self.code)):
            sign = self.sign_at(index)
            if sign == ")" and openers:
                openers.pop()
            yield index, len(openers), openers[-1] if openers else ""
            if sign == "(":
                openers.append(self.word_at(index + 1))

    def chains(self, start: int) -> Iterator[tuple[int, int]]:
        """(index, length) of every dotted name: 1 for `a`, 3 for `a.b.c`."""
        index = start
        while index < len(self.code):
            length = 1
            if self.name_at(index) and self.sign_at(index - 1) != ".":
                while self.sign_at(index + 2 * length - 1) == "." and self.name_at(
                    index + 2 * length
                ):
                    length += 1
                yield index, length
            index += 2 * length - 1

    # writing

    def replace(self, token: Token, text: str) -> None:
        if text != token.text:
            self.edits[token.start, token.end] = text

    def cut(self, start: int, end: int) -> None:
        self.edits[start, end] = ""

    def insert(self, at: int, text: str) -> None:
        self.edits[at, at] = text

    def rewrite_database(self, token: Token) -> None:
        if self.scope.replica_db != self.scope.source_db:
            self.replace(token, quoted(self.scope.replica_db, like=token))

    def rewrite(self, name: TableName) -> None:
        """Point a name of the source's database to the replica's."""
        if not self.scope.is_source(name.database):
            return
        if name.database_token is not None:
            self.rewrite_database(name.database_token)
        shown = self.scope.shown(name.table)
        if shown != name.table:
            self.replace(name.table_token, quoted(shown, like=name.table_token))

    def sql(self) -> str:
        """The statement with every edit made and all else untouched."""
        parts, at = [], 0
        for (start, end), text in sorted(self.edits.items()):
            if start < at:
                continue  # inside a span that was cut
            parts += [self.statement[at:start], text]
            at = end
        return "".join([*parts, self.statement[at:]])

    def qualified(self, table: str) -> str:
        """A table on the replica, for statements of our own making."""
        return f"{quote(self.scope.replica_db)}.{quote(table)}"


class Unreadable(Exception):
    """The statement does not have the shape that its first words announce."""


def quote(name: str, mark: str = "`") -> str:
    return mark + name.replace(mark, mark * 2) + mark


def quoted(name: str, *, like: Token) -> str:
    """`name` in the quotes of another token; bare names get backticks, which always work."""
    return quote(name, like.text[0] if like.kind is Kind.QUOTED else "`")

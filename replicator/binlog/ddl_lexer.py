"""Cut a statement of MySQL or MariaDB into tokens whose spans cover it without a gap.

From the left comes the text of a statement as the binlog holds it, with the
dialect that it was parsed in; to the right go tokens. Joined, their texts are
the statement again, so whoever replaces the span of one token leaves all else
as it was: case, spacing, comments.

The rules are those of the server's own scanner (`sql/sql_lex.cc`, lex_one_token
of MariaDB 10.11; `MySQL Reference Manual`, Language Structure). The one that
matters most: the inside of `/*!NNNNN … */` is code if the server is at least
that version, and a comment otherwise. Its borders become MARKER tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Final

MODE_ANSI_QUOTES: Final = 1 << 2
MODE_NO_BACKSLASH_ESCAPES: Final = 1 << 20
FIRST_MARIADB_10: Final = 100000
"""MySQL's version numbers end below (9.7.4 is 90704), MariaDB's begin here (10.11.19 is 101119)."""

_MARIADB_IGNORES_FROM: Final = 50700
_MARIADB_IGNORES_TO: Final = 99999
_IDENTIFIER: Final = r"[0-9A-Za-z_$\x80-\U0010ffff]"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the server knew when it parsed the statement.

    `server_version` is the number of the server that executed it (101119 for
    10.11.19): it decides which versioned comments were code.
    """

    server_version: int = 101100
    ansi_quotes: bool = False
    no_backslash_escapes: bool = False

    @property
    def is_mariadb(self) -> bool:
        return self.server_version >= FIRST_MARIADB_10


def dialect_of(sql_mode: int, server_version: int) -> Dialect:
    """The dialect under a numeric `sql_mode`, as a QUERY event carries it."""
    return Dialect(
        server_version=server_version,
        ansi_quotes=bool(sql_mode & MODE_ANSI_QUOTES),
        no_backslash_escapes=bool(sql_mode & MODE_NO_BACKSLASH_ESCAPES),
    )


class Kind(Enum):
    """What a token is to the scanner; keywords are plain words, as many of them are names too."""

    SPACE = auto()
    COMMENT = auto()
    MARKER = auto()  # an opening or closing border of a versioned comment that was executed
    WORD = auto()
    QUOTED = auto()  # an identifier in backticks, or in double quotes under ANSI_QUOTES
    STRING = auto()
    NUMBER = auto()
    VARIABLE = auto()  # @user_variable, @@system.variable, or the host part of an account
    PUNCTUATION = auto()
    TORN = auto()  # a quote or comment that never ends: nothing after it can be trusted


BLANK: Final = frozenset({Kind.SPACE, Kind.COMMENT, Kind.MARKER})


@dataclass(frozen=True, slots=True)
class Token:
    """`text` is what stands in the statement; `name` is an identifier without its quotes."""

    kind: Kind
    start: int
    text: str
    name: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def tokenize(statement: str, dialect: Dialect) -> list[Token]:
    """All tokens of `statement`, blanks included; their texts concatenate to it."""
    return _Scanner(statement, dialect).tokens()


class _Scanner:
    """One pass over one statement."""

    def __init__(self, statement: str, dialect: Dialect) -> None:
        self.statement = statement
        self.dialect = dialect
        self.pattern = _pattern(dialect.ansi_quotes, dialect.no_backslash_escapes)
        self.found: list[Token] = []
        self.in_versioned = False
        self.at = 0

    def tokens(self) -> list[Token]:
        while self.at < len(self.statement):
            self._step()
        return self.found

    def _step(self) -> None:
        if self.statement.startswith("/*", self.at):
            self._comment()
        elif self.in_versioned and self.statement.startswith("*/", self.at):
            self.in_versioned = False
            self._add(Kind.MARKER, self.at + 2)
        elif self.statement[self.at] == "." and self._follows_name(1):
            self._add(Kind.PUNCTUATION, self.at + 1)
        elif match := self._name_after_dot():
            self._add(Kind.WORD, match.end())
        else:
            self._plain()

    def _plain(self) -> None:
        match = self.pattern.match(self.statement, self.at)
        branch = match.lastgroup if match else None  # always one: the last branch takes anything
        if match is None or branch is None or branch == Kind.TORN.name:
            self._add(Kind.TORN, len(self.statement))
        else:
            self._add(Kind[branch], match.end())

    def _name_after_dot(self) -> re.Match[str] | None:
        """A name right after `name.` may begin with a digit: `db.2024_claims`."""
        if not self.found or self.found[-1].text != "." or not self._follows_name(2):
            return None
        return _WORD.match(self.statement, self.at)

    def _follows_name(self, back: int) -> bool:
        return len(self.found) >= back and self.found[-back].kind in (Kind.WORD, Kind.QUOTED)

    def _comment(self) -> None:
        opening = _OPENING.match(self.statement, self.at)
        if opening is None or (opening["maria"] and not self.dialect.is_mariadb):
            self._skip_comment(nested=0)
        elif executes(opening["version"], bool(opening["maria"]), self.dialect):
            self.in_versioned = True
            self._add(Kind.MARKER, opening.end())
        else:
            self._skip_comment(nested=1)

    def _skip_comment(self, nested: int) -> None:
        """A plain comment ends at the first `*/`; a versioned one may hold one plain comment."""
        at = self.at + 2
        while border := _BORDER.search(self.statement, at):
            at = border.end()
            if border[0] == "*/":
                return self._add(Kind.COMMENT, at)
            if nested:
                closing = self.statement.find("*/", at)
                at = len(self.statement) if closing < 0 else closing + 2
        self._add(Kind.TORN, len(self.statement))
        return None

    def _add(self, kind: Kind, end: int) -> None:
        text = self.statement[self.at : end]
        self.found.append(Token(kind, self.at, text, _name(kind, text)))
        self.at = end


def executes(version: str | None, maria: bool, dialect: Dialect) -> bool:
    """Whether a server runs what stands in `/*!version … */` (`/*M!` if `maria`)."""
    if not version:
        return True
    number = int(version)
    if number > dialect.server_version:
        return False
    meant_for_mysql = _MARIADB_IGNORES_FROM <= number <= _MARIADB_IGNORES_TO
    return maria or not dialect.is_mariadb or not meant_for_mysql


def _name(kind: Kind, text: str) -> str:
    if kind is Kind.QUOTED:
        return text[1:-1].replace(text[0] * 2, text[0])
    return text


_WORD: Final = re.compile(f"{_IDENTIFIER}+")
_BORDER: Final = re.compile(r"/\*|\*/")
_OPENING: Final = re.compile(r"/\*(?P<maria>M?)!(?P<version>\d{5,6})?")


def _quoted(quote: str, escapes: bool) -> str:
    """A pattern for text between two quotes, doubled quotes and escapes inside."""
    if escapes:
        return rf"{quote}[^{quote}\\]*(?:(?:{quote}{quote}|\\.)[^{quote}\\]*)*{quote}"
    return rf"{quote}[^{quote}]*(?:{quote}{quote}[^{quote}]*)*{quote}"


@lru_cache
def _pattern(ansi_quotes: bool, no_backslash_escapes: bool) -> re.Pattern[str]:
    escapes = not no_backslash_escapes
    backticks, double = _quoted("`", False), _quoted('"', escapes and not ansi_quotes)
    strings = [_quoted("'", escapes), *([] if ansi_quotes else [double])]
    names = [backticks, *([double] if ansi_quotes else [])]
    quoted = "|".join([*strings, *names])
    branches = {
        Kind.SPACE: r"[ \t\n\v\f\r]+",
        Kind.COMMENT: r"\#[^\n]*|--(?=[\x00-\x20\x7f]|\Z)[^\n]*",
        Kind.QUOTED: "|".join(names),
        Kind.STRING: "|".join(strings),
        Kind.TORN: "[`'\"]",
        Kind.VARIABLE: rf"@@?(?:[0-9A-Za-z_$.\x80-\U0010ffff]+|{quoted})?",
        Kind.NUMBER: r"(?:0x[0-9a-fA-F]+|0b[01]+|\d*\.\d+(?:[eE][+-]?\d+)?"
        rf"|\d+\.?[eE][+-]?\d+|\d+\.(?!{_IDENTIFIER})|\d+)(?!{_IDENTIFIER})",
        Kind.WORD: f"{_IDENTIFIER}+",
        Kind.PUNCTUATION: ".",
    }
    text = "|".join(f"(?P<{kind.name}>{branch})" for kind, branch in branches.items())
    return re.compile(text, re.DOTALL)

"""Tokens cover a statement without a gap, and find code and comments where the server does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.binlog.ddl_lexer import BLANK, Dialect, Kind, dialect_of, tokenize

MARIADB = Dialect(server_version=101119)
MYSQL = Dialect(server_version=80036)

DIALECTS = st.builds(
    Dialect,
    server_version=st.sampled_from([50568, 50744, 80036, 90704, 100000, 101119, 110800]),
    ansi_quotes=st.booleans(),
    no_backslash_escapes=st.booleans(),
)
_MARKS = "--", "/*", "*/", "/*!", "/*!50000", "/*M!100100", "/*!99999", "@@"
_WORDS = "ENGINE", "0x1f", "1e5", ".5", "`a``b`", "'it''s'"
PIECES = st.sampled_from([*"'\"`\\;,.()=@# \n\x00aé😀1", *_MARKS, *_WORDS])


def code(statement: str, dialect: Dialect = MARIADB) -> list[str]:
    return [token.text for token in tokenize(statement, dialect) if token.kind not in BLANK]


@given(st.lists(PIECES | st.text(max_size=4)).map("".join), DIALECTS)
def test_the_spans_of_all_tokens_reproduce_any_input(statement: str, dialect: Dialect) -> None:
    tokens = tokenize(statement, dialect)
    assert "".join(token.text for token in tokens) == statement
    assert [statement[token.start : token.end] for token in tokens] == [t.text for t in tokens]
    assert all(token.text for token in tokens)


@given(st.text(min_size=1), st.booleans())
def test_a_quoted_name_comes_back_as_it_was(name: str, ansi: bool) -> None:
    mark = '"' if ansi else "`"
    quoted = mark + name.replace(mark, mark * 2) + mark
    (token,) = tokenize(quoted, Dialect(ansi_quotes=ansi))
    assert (token.kind, token.name) == (Kind.QUOTED, name)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("a -- b\nc", ["a", "c"]),
        ("a --b", ["a", "-", "-", "b"]),
        ("a --", ["a"]),
        ("a # b\n c", ["a", "c"]),
        ("a /* b */ c", ["a", "c"]),
        ("a /* b /* c */ d", ["a", "d"]),
        ("a /**/ b", ["a", "b"]),
        ("a / * b", ["a", "/", "*", "b"]),
        (r"'it\'s' b", [r"'it\'s'", "b"]),
        ("'it''s' b", ["'it''s'", "b"]),
        ("'a\\\\' b", ["'a\\\\'", "b"]),
        ("db.2024_claims", ["db", ".", "2024_claims"]),
        ("db.2024", ["db", ".", "2024"]),
        ("`db`.1e5", ["`db`", ".", "1e5"]),
        ("2nd.t", ["2nd", ".", "t"]),
        ("1.5e3 .5 1. 0x1F 0xZ", ["1.5e3", ".5", "1.", "0x1F", "0xZ"]),
        ("@opendental.t @@session.x @'a b'", ["@opendental.t", "@@session.x", "@'a b'"]),
        ("root@`%`", ["root", "@`%`"]),
        ("naïve😀 é", ["naïve😀", "é"]),
    ],
)
def test_statements_fall_into_the_servers_tokens(statement: str, expected: list[str]) -> None:
    assert code(statement) == expected


@pytest.mark.parametrize(
    ("comment", "on_mariadb", "on_mysql"),
    [
        ("/*! x */", True, True),
        ("/*!40101 x */", True, True),
        ("/*!50699 x */", True, True),
        ("/*!50700 x */", False, True),
        ("/*!80036 x */", False, True),
        ("/*!80037 x */", False, False),
        ("/*!99999 x */", False, False),
        ("/*!100100 x */", True, False),
        ("/*!101200 x */", False, False),
        ("/*M! x */", True, False),
        ("/*M!50701 x */", True, False),
        ("/*M!101200 x */", False, False),
        ("/*!99999 a /* b */ x */", False, False),
        ("/* mariadb-5.3 x */", False, False),
    ],
)
def test_versioned_comments_are_code_where_the_server_runs_them(
    comment: str, on_mariadb: bool, on_mysql: bool
) -> None:
    assert code(f"a {comment} z", MARIADB) == (["a", "x", "z"] if on_mariadb else ["a", "z"])
    assert code(f"a {comment} z", MYSQL) == (["a", "x", "z"] if on_mysql else ["a", "z"])


def test_a_plain_comment_inside_a_versioned_one_leaves_the_rest_as_code() -> None:
    assert code("/*!50000 a /* b */ c */ d") == ["a", "c", "d"]


def test_double_quotes_are_strings_unless_sql_mode_says_ansi_quotes() -> None:
    assert tokenize('"a""b"', MARIADB)[0].kind is Kind.STRING
    assert tokenize('"a""b"', dialect_of(4, 101119))[0].name == 'a"b'


def test_backslashes_end_no_string_under_no_backslash_escapes() -> None:
    statement = r"'a\' b"
    assert code(statement, dialect_of(1 << 20, 101119)) == [r"'a\'", "b"]
    assert tokenize(statement, MARIADB)[-1].kind is Kind.TORN


@pytest.mark.parametrize("statement", ["a 'b", "a `b", "a /* b", "a /*!99999 b", 'a "b'])
def test_what_never_ends_is_torn(statement: str) -> None:
    assert tokenize(statement, MARIADB)[-1].kind is Kind.TORN

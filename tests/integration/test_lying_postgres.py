"""A PostgreSQL that lies: the loader ends with an error that says so, or tries again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from tests.fix_lies import MEMORY, Victims
from tests.fix_servers import PASSWORD
from tests.lying_postgres import LyingPostgres, Message, framed

MOST = 2**31 - 1
NewLiar = Callable[[LyingPostgres], LyingPostgres]
Say = Callable[[Message], Iterator[bytes] | bytes]
Where = Callable[[Message], bool]


# --- where, and what -----------------------------------------------------------------------


def at_login(kind: bytes) -> Where:
    return lambda message: not message.logged_in and message.kind == kind


def at_work(kind: bytes) -> Where:
    return lambda message: message.logged_in and message.kind == kind


def saying(piece: bytes) -> Say:
    return lambda _message: piece


def endless(head: bytes, piece: bytes) -> Say:
    def go_on(_message: Message) -> Iterator[bytes]:
        yield head
        while True:
            yield piece

    return go_on


def claiming(length: int) -> Say:
    return lambda message: framed(message.kind, message.payload, length)


def altered(change: Callable[[bytes], bytes]) -> Say:
    return lambda message: framed(message.kind, change(message.payload))


def _senseless(row: bytes) -> bytes:
    """The same lengths, and values of no type and no encoding; what is yes or no stays."""
    count, at, made = int.from_bytes(row[:2], "big"), 2, row[:2]
    for _ in range(count):
        size = int.from_bytes(row[at : at + 4], "big", signed=True)
        value = row[at + 4 : at + 4 + max(size, 0)]
        made += row[at : at + 4] + (b"\xff" * len(value) if len(value) > 1 else value)
        at += 4 + len(value)
    return made


_ZEROS = b"\0" * (1 << 16)
_WORDS = b"x" * (1 << 16)
_KLINGON = framed(b"S", b"client_encoding\0klingon\0")
_HUGE_ERROR = endless(b"E\x7f\xff\xff\xff", _WORDS)
_NOTICE = framed(b"N", b"SNOTICE\0C00000\0M" + b"x" * 1000 + b"\0\0")
_ROW = framed(b"D", b"\0\1\0\0\x10\0" + b"x" * 4096)
_HEAD = framed(b"T", b"\0\1a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0")

LIES: dict[str, tuple[Where, Say]] = {
    "no such server": (at_login(b"R"), saying(b"SSH-2.0-OpenSSH_9.2\r\n")),
    "nothing at login": (at_login(b"R"), saying(b"")),
    "a login without end": (at_login(b"R"), endless(b"R\x7f\xff\xff\xff", _ZEROS)),
    "a login of an unknown kind": (at_login(b"R"), saying(framed(b"R", b"\0\0\0\x63"))),
    "a login of no bytes": (at_login(b"R"), saying(framed(b"R", b""))),
    "an error without end at login": (at_login(b"R"), _HUGE_ERROR),
    "an error cut short at login": (at_login(b"R"), saying(framed(b"E", b"SFATAL"))),
    "an error without end behind the login": (at_login(b"K"), _HUGE_ERROR),
    "notices without end at login": (at_login(b"K"), endless(b"", _NOTICE * 64)),
    "a key of no bytes": (at_login(b"K"), saying(framed(b"K", b""))),
    "an unknown encoding": (
        at_login(b"K"), lambda message: _KLINGON + framed(b"K", message.payload)
    ),
    "a result's head without end": (at_work(b"T"), endless(b"T\x7f\xff\xff\xff", _ZEROS)),
    "65535 columns, none of which comes": (at_work(b"T"), saying(framed(b"T", b"\xff\xff"))),
    "a row without end": (at_work(b"D"), endless(b"D\x7f\xff\xff\xff\0\1\x7f\xff\xff\xf0", _ZEROS)),
    "a row of 1 GiB": (at_work(b"D"), endless(b"D\x3f\xff\xff\xff\0\1\x3f\xff\xff\xf8", _WORDS)),
    "rows without end": (at_work(b"T"), endless(_HEAD, _ROW * 16)),
    "a row of fewer columns": (at_work(b"D"), saying(framed(b"D", b"\0\0"))),
    "a value longer than its row": (at_work(b"D"), saying(framed(b"D", b"\0\1\0\0\xff\xffx"))),
    "a value of -2 bytes": (at_work(b"D"), saying(framed(b"D", b"\0\1\xff\xff\xff\xfe"))),
    "values of no type": (at_work(b"D"), altered(_senseless)),
    "a message of no bytes": (at_work(b"C"), claiming(0)),
    "a message of 2^32 bytes": (at_work(b"C"), claiming(2**32 - 1)),
    "a message of an unknown kind": (at_work(b"C"), saying(framed(b"\x80", b"x" * 20))),
    "an end cut short": (at_work(b"C"), saying(framed(b"C", b""))),
    "an end that never comes": (at_work(b"C"), saying(b"")),
    "a message longer than what comes": (at_work(b"D"), lambda m: framed(b"D", m.payload, 200_000)),
    "an end out of place": (at_work(b"T"), saying(framed(b"Z", b"I"))),
    "an error without end": (at_work(b"C"), _HUGE_ERROR),
    "an error without a code": (at_work(b"C"), saying(framed(b"E", b"Msynthetic secret\0\0"))),
    "notices without end": (at_work(b"T"), endless(b"", _NOTICE * 64)),
    "notifications without end": (
        at_work(b"T"), endless(b"", framed(b"A", b"\0\0\0\1" + b"c\0" + b"x" * 1000 + b"\0") * 64)
    ),
    "parameters without end": (
        at_work(b"T"), endless(b"", framed(b"S", b"a\0" + b"x" * 1000 + b"\0") * 64)
    ),
    "a copy that nobody asked for": (at_work(b"T"), saying(framed(b"G", b"\0\0\0"))),
    "a copy to us without end": (
        at_work(b"T"), endless(framed(b"H", b"\0\0\1\0\0"), framed(b"d", _WORDS))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_postgresql_that_lies_ends_in_an_error_or_another_try(
    told: dict[str, str],
    liar: NewLiar,
    victims: Victims,
    name: str,
) -> None:
    where, say = LIES[name]
    server = liar(
        LyingPostgres(
            int(told["POSTGRES_ANALYTICS_PORT"]),
            lambda message: say(message) if where(message) else None,
        )
    )
    found = victims.ending({**told, "POSTGRES_ANALYTICS_PORT": str(server.port)}, "loader")
    assert server.lies, "nobody was lied to"
    assert found["error"], found
    assert int(found["peak"]) < MEMORY, found
    assert "unexpected" not in found["message"], found
    assert "secret" not in found["message"]
    assert PASSWORD not in found["message"]


def test_the_password_is_not_told_to_a_postgresql_that_asks_for_it_in_plain_words(
    told: dict[str, str], liar: NewLiar, victims: Victims
) -> None:
    server = liar(
        LyingPostgres(
            int(told["POSTGRES_ANALYTICS_PORT"]),
            lambda message: framed(b"R", b"\0\0\0\3") if message.kind == b"R" else None,
        )
    )
    found = victims.ending({**told, "POSTGRES_ANALYTICS_PORT": str(server.port)}, "loader")
    assert found["error"] == "ConfigError"
    assert "pg_hba.conf" in found["message"]
    assert PASSWORD.encode() not in server.heard


def copying(kind: bytes) -> Where:
    """Of COPY, which the loader does when a table is loaded: its beginning and its end."""
    return lambda message: message.kind == kind and message.heard[:60].find(b"COPY") >= 0


COPY_LIES: dict[str, tuple[Where, Say]] = {
    "it is done before it began": (copying(b"G"), saying(framed(b"C", b"COPY 2\0"))),
    "nothing may be copied": (
        copying(b"G"),
        saying(framed(b"C", b"COPY 2\0") + framed(b"Z", b"T")),
    ),
    "a copy of no columns": (copying(b"G"), saying(framed(b"G", b""))),
    "an end without an end": (copying(b"C"), endless(b"", _NOTICE * 64)),
    "an end that is an error": (copying(b"C"), saying(framed(b"E", b"SERROR\0C08P01\0Mx\0\0"))),
}


def test_rows_that_a_lying_postgresql_did_not_take_come_when_it_tells_the_truth(
    told: dict[str, str],
    liar: NewLiar,
    victims: Victims,
    replica_db: MySQLDatabase,
    analytics_db: PostgresDatabase,
) -> None:
    for _ in range(10):
        assert victims.ending(told, "replicator", 3)["error"] == ""
        if replica_db.query("SHOW TABLES LIKE 'patient'"):
            break
    server = liar(LyingPostgres(int(told["POSTGRES_ANALYTICS_PORT"]), lambda _message: None))
    there = {**told, "POSTGRES_ANALYTICS_PORT": str(server.port)}
    for name, (where, say) in COPY_LIES.items():
        server.lies = 0
        server.lie = lambda message, where=where, say=say: say(message) if where(message) else None
        found = victims.ending(there, "loader")
        assert server.lies, f"nobody was lied to: {name}"
        assert found["error"], (name, found)
        assert int(found["peak"]) < MEMORY, (name, found)
        assert found["message"].startswith("analytics 127.0.0.1"), (name, found)
        assert "unexpected" not in found["message"], (name, found)
        assert analytics_db.query("SELECT to_regclass('raw.patient')") == [(None,)]
    server.lie = lambda _message: None
    for _ in range(5):  # each begins the load anew
        assert victims.ending(there, "loader", 8)["error"] == ""
        if analytics_db.query("SELECT to_regclass('raw.patient')") != [(None,)]:
            break
    assert analytics_db.query('SELECT "PatNum", "LName" FROM raw.patient ORDER BY 1') == [
        (1, "synthetic"), (2, "synthetic")
    ]  # fmt: skip

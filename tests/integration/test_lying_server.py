"""A server that lies about lengths: both legs end with an error that says so, or try again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from tests.fix_servers import PASSWORD
from tests.lying_server import DUMP, EXECUTE, LOGIN, QUERY, LyingServer, Packet, framed

ROOT = Path(__file__).parents[2]
FULL = 0xFFFFFF
MEMORY = 384 << 20
"""Of the process, whose answers may be of 24 MiB."""
HUGE = b"\xfe" + b"\xff" * 8
"""2^64 - 1, as a length-encoded integer."""
Say = Callable[[Packet], Iterator[bytes] | bytes]


class Victim:
    """The process that is lied to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("lied_to.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=ROOT,
        )  # fmt: skip

    def ending(self, environ: dict[str, str], leg: str, seconds: float) -> dict[str, str]:
        process = self._process
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps({"environ": environ, "leg": leg, "seconds": seconds}) + "\n")
        process.stdin.flush()
        while line := process.stdout.readline():
            if line.startswith('{"error"'):
                found: dict[str, str] = json.loads(line)
                return found
        _, errors = process.communicate()
        raise AssertionError(f"it ended with {process.returncode}:\n{errors[-4000:]}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Victims:
    """One a leg, for as long as it lives."""

    def __init__(self) -> None:
        self._living: dict[str, Victim] = {}

    def ending(self, environ: dict[str, str], leg: str, seconds: float = 20.0) -> dict[str, str]:
        """How that leg ended; a process that ended with it makes the test fail."""
        if leg not in self._living:
            self._living[leg] = Victim()
        try:
            return self._living[leg].ending(environ, leg, seconds)
        except AssertionError:
            self._living.pop(leg).close()
            raise

    def close(self) -> None:
        for victim in self._living.values():
            victim.close()


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    made = Victims()
    yield made
    made.close()


@pytest.fixture
def environ(
    source_db: MySQLDatabase, replica_db: MySQLDatabase, analytics_db: PostgresDatabase
) -> dict[str, str]:
    source_db.execute("CREATE TABLE patient (PatNum INT PRIMARY KEY, LName VARCHAR(100))")
    source_db.execute("INSERT INTO patient VALUES (1, 'synthetic'), (2, 'synthetic')")
    found = {"LOADER_HEARTBEAT_SECONDS": "1", "REPLICATOR_HEARTBEAT_SECONDS": "1"}
    for prefix, database in (
        ("OPENDENTAL_SOURCE", source_db),
        ("MYSQL_REPLICATION", replica_db),
        ("POSTGRES_ANALYTICS", analytics_db),
    ):
        found |= {
            f"{prefix}_HOST": "127.0.0.1",
            f"{prefix}_PORT": str(database.server.port),
            f"{prefix}_DB": database.name,
            f"{prefix}_USER": database.user,
            f"{prefix}_PASSWORD": PASSWORD,
            f"{prefix}_CONNECT_TIMEOUT": "2",
        }
    return found


@pytest.fixture
def liar() -> Iterator[Callable[..., LyingServer]]:
    made: list[LyingServer] = []

    def make(target: int, lie: Any) -> LyingServer:
        made.append(LyingServer(target, lie))
        return made[-1]

    yield make
    for each in made:
        each.close()


def endless(packet: Packet) -> Iterator[bytes]:
    """Full packets, each of which says that another follows."""
    yield from _numbered(packet, FULL, b"\0" * FULL)


def endless_definitions(packet: Packet) -> Iterator[bytes]:
    """A result of 2^64 - 1 columns, one after the other."""
    yield framed(HUGE, packet.sequence)
    name = b"\4name"
    column = b"\3def" + name * 5 + b"\x0c\x2d\0\xff\xff\0\0\xfd\0\0\0\0\0"
    number = packet.sequence
    while True:
        number += 1
        yield framed(column, number)


def endless_rows(packet: Packet) -> Iterator[bytes]:
    """One column, and rows without end."""
    name = b"\4name"
    column = b"\3def" + name * 5 + b"\x0c\x2d\0\xff\xff\0\0\xfd\0\0\0\0\0"
    head = (b"\1", column, b"\xfe\0\0\2\0")
    for number, payload in enumerate(head, packet.sequence):
        yield framed(payload, number)
    number = packet.sequence + len(head)
    while True:
        yield framed(b"\xfd\x00\x40\x00" + b"x" * 0x4000, number)
        number += 1


def _numbered(packet: Packet, length: int, payload: bytes) -> Iterator[bytes]:
    number = packet.sequence
    while True:
        yield framed(payload, number, length)
        number += 1


def saying(payload: bytes) -> Say:
    return lambda packet: framed(payload, packet.sequence)


def altered(change: Callable[[bytes], bytes]) -> Say:
    return lambda packet: framed(change(packet.payload), packet.sequence)


def event_length(value: int) -> Say:
    return altered(lambda said: said[:10] + value.to_bytes(4, "little") + said[14:])


Where = Callable[[Packet], bool]


def greeting(packet: Packet) -> bool:
    return packet.command == LOGIN and packet.number == 0


def logged_in(packet: Packet) -> bool:
    return packet.command == LOGIN and packet.number == 1


def head_of_result(packet: Packet) -> bool:
    return packet.command == QUERY and packet.number == 0 and packet.payload[:1] not in b"\0\xff"


def first_row(packet: Packet) -> bool:
    return packet.command == QUERY and packet.number == 3 and packet.payload[:1] != b"\xfe"


def rows_of_patient(packet: Packet) -> bool:
    return packet.command == EXECUTE and packet.number == 4  # behind the head of two columns


def streamed(packet: Packet) -> bool:
    return packet.command == DUMP and packet.number >= 1


LIES: dict[str, tuple[Where, Say]] = {
    "a greeting without end": (greeting, endless),
    "an empty greeting": (greeting, saying(b"")),
    "a greeting cut short": (greeting, altered(lambda said: said[:9])),
    "a greeting of no server": (greeting, lambda _packet: b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a login that is never answered": (logged_in, lambda _packet: b""),
    "an error of one byte": (logged_in, saying(b"\xff")),
    "a method without a name": (logged_in, saying(b"\xfe")),
    "2^64 columns": (head_of_result, endless_definitions),
    "2^64 columns, none of which comes": (head_of_result, saying(b"\xfe\xff")),
    "rows without end": (head_of_result, endless_rows),
    "a packet without end": (head_of_result, endless),
    "a file of ours is wanted": (head_of_result, saying(b"\xfb/etc/hostname")),
    "an empty result": (head_of_result, saying(b"")),
    "a value of 2^64 bytes": (first_row, saying(HUGE + b"x")),
    "a value longer than its row": (first_row, saying(b"\xfa" + b"x")),
    "packets out of order": (
        head_of_result, lambda packet: framed(packet.payload, packet.sequence + 5)
    ),
    "a row of 2^64 bytes in a copy": (rows_of_patient, saying(HUGE + b"x")),
    "a row without end in a copy": (rows_of_patient, endless),
    "an event without end": (streamed, endless),
    "an event of 2^32 bytes": (streamed, event_length(0xFFFFFFFF)),
    "an event of no bytes": (streamed, saying(b"\0")),
    "an event cut short": (streamed, altered(lambda said: said[:15])),
    "an error in the stream, cut short": (streamed, saying(b"\xff")),
    "nothing at all in the stream": (streamed, saying(b"")),
}  # fmt: skip
CASES = [
    (leg, name)
    for leg in ("replicator", "loader")
    for name in LIES
    # The legs have one driver and one stream in common: of the loader, what is its own.
    if leg == "replicator" or LIES[name][0] is streamed or name == "a value of 2^64 bytes"
]


@pytest.mark.parametrize(("leg", "name"), CASES)
def test_a_server_that_lies_ends_in_an_error_or_another_try(
    environ: dict[str, str],
    liar: Callable[..., LyingServer],
    victims: Victims,
    leg: str,
    name: str,
) -> None:
    where, say = LIES[name]
    prefix = "OPENDENTAL_SOURCE" if leg == "replicator" else "MYSQL_REPLICATION"
    server = liar(
        int(environ[f"{prefix}_PORT"]), lambda packet: say(packet) if where(packet) else None
    )
    found = victims.ending({**environ, f"{prefix}_PORT": str(server.port)}, leg)
    assert server.lies, "nobody was lied to"
    assert found["error"], found
    assert int(found["peak"]) < MEMORY, found
    assert "unexpected" not in found["message"], found
    assert PASSWORD not in found["message"]


def test_the_password_is_not_told_to_a_server_that_asks_for_it_in_plain_words(
    environ: dict[str, str], liar: Callable[..., LyingServer], victims: Victims
) -> None:
    server = liar(
        int(environ["OPENDENTAL_SOURCE_PORT"]),
        lambda packet: (
            framed(b"\xfemysql_clear_password\0", packet.sequence) if logged_in(packet) else None
        ),
    )
    there = {**environ, "OPENDENTAL_SOURCE_PORT": str(server.port)}
    found = victims.ending(there, "replicator")
    assert found["error"] == "ConfigError"
    assert PASSWORD.encode() not in server.heard

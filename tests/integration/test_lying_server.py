"""A server that lies about lengths: both legs end with an error that says so, or try again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.fix_lies import MEMORY, Victims
from tests.fix_servers import PASSWORD
from tests.lying_server import DUMP, EXECUTE, LOGIN, QUERY, LyingServer, Packet, framed

FULL = 0xFFFFFF
HUGE = b"\xfe" + b"\xff" * 8
"""2^64 - 1, as a length-encoded integer."""
NewLiar = Callable[[LyingServer], LyingServer]
Say = Callable[[Packet], Iterator[bytes] | bytes]


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
    told: dict[str, str],
    liar: NewLiar,
    victims: Victims,
    leg: str,
    name: str,
) -> None:
    where, say = LIES[name]
    prefix = "OPENDENTAL_SOURCE" if leg == "replicator" else "MYSQL_REPLICATION"
    port = int(told[f"{prefix}_PORT"])
    server = liar(LyingServer(port, lambda packet: say(packet) if where(packet) else None))
    found = victims.ending({**told, f"{prefix}_PORT": str(server.port)}, leg)
    assert server.lies, "nobody was lied to"
    assert found["error"], found
    assert int(found["peak"]) < MEMORY, found
    assert "unexpected" not in found["message"], found
    assert PASSWORD not in found["message"]


def test_the_password_is_not_told_to_a_server_that_asks_for_it_in_plain_words(
    told: dict[str, str], liar: NewLiar, victims: Victims
) -> None:
    asking = b"\xfemysql_clear_password\0"
    server = liar(
        LyingServer(
            int(told["OPENDENTAL_SOURCE_PORT"]),
            lambda packet: framed(asking, packet.sequence) if logged_in(packet) else None,
        )
    )
    there = {**told, "OPENDENTAL_SOURCE_PORT": str(server.port)}
    found = victims.ending(there, "replicator")
    assert found["error"] == "ConfigError"
    assert PASSWORD.encode() not in server.heard

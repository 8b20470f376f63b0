"""Which transactions have been executed, as a set of GTIDs. Pure.

Left: GTIDs one by one, or a set as either family's server prints it. Right: the set's text,
and whether one set holds another.

The families count differently. MySQL numbers each server's transactions, and a set is
intervals of numbers by server (and tag): `uuid:1-5:7,uuid:tag:1-3`. MariaDB's
`domain-server-number` grows within a domain, so a set is the last of each server in each
domain, as in `@@gtid_binlog_state`: `0-1-5,0-2-7` stands for these two and for all that
these servers committed in the domain before. A set is of one family.

Source: MySQL reference manual "GTID Format and Storage"; MariaDB knowledge base "GTID",
`sql/log_event.h` (Gtid_list_log_event).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final, Self

from replicator.binlog.events import HEADER_LENGTH

_GTID: Final = struct.Struct("<IIQ")
_COUNT: Final = 0x0FFF_FFFF
_MARIADB: Final = re.compile(r"(\d+)-(\d+)-(\d+)\Z")


class GtidSet:
    """See the module. Two are equal when they stand for the same transactions."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, int], int] = {}
        """MariaDB: by domain and server, the sequence number of the last transaction."""
        self._numbers: dict[str, list[tuple[int, int]]] = {}
        """MySQL: of each `uuid` or `uuid:tag`, first and last number of each interval."""
        self._text: str | None = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a set, or a single GTID; raises ValueError where it is neither."""
        found = cls()
        for part in filter(None, (piece.strip() for piece in text.strip("[] \n").split(","))):
            found.add(part)
        return found

    def add(self, gtid: str) -> None:
        """Take in a GTID, or one server's part of a set; "" is none."""
        if not gtid:
            return
        mariadb = _MARIADB.match(gtid)
        if mariadb:
            domain, server, sequence = map(int, mariadb.groups())
            self._last[domain, server] = sequence
        else:
            self._add_numbers(gtid)
        self._text = None

    def _add_numbers(self, part: str) -> None:
        server, *rest = part.split(":")
        name = server.lower()
        if not rest:
            raise ValueError(f"{part!r} is no GTID")
        for word in map(str.strip, rest):
            if not word[:1].isdigit():
                name = f"{server.lower()}:{word}"
                continue
            first, _, last = word.partition("-")
            self._join(name, int(first), int(last or first))

    def _join(self, name: str, first: int, last: int) -> None:
        intervals = self._numbers.setdefault(name, [])
        if intervals and intervals[-1][1] + 1 == first:  # nearly always: the next number
            intervals[-1] = (intervals[-1][0], last)
            return
        joined: list[tuple[int, int]] = []
        for low, high in sorted([*intervals, (first, last)]):
            if joined and low <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
            else:
                joined.append((low, high))
        self._numbers[name] = joined

    def __str__(self) -> str:
        if self._text is None:
            mariadb = [f"{d}-{s}-{n}" for (d, s), n in sorted(self._last.items())]
            mysql = [
                ":".join([name, *(f"{a}-{b}" if a < b else str(a) for a, b in intervals)])
                for name, intervals in sorted(self._numbers.items())
            ]
            self._text = ",".join(mariadb + mysql)
        return self._text

    def __repr__(self) -> str:
        return f"GtidSet({str(self)!r})"

    def __bool__(self) -> bool:
        return bool(self._last or self._numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GtidSet) and str(self) == str(other)

    __hash__ = None  # type: ignore[assignment]

    def __le__(self, other: GtidSet) -> bool:
        """Does `other` hold all of this?"""
        known = all(number <= other._last.get(server, -1) for server, number in self._last.items())
        return known and all(
            any(low <= first and last <= high for low, high in other._numbers.get(name, ()))
            for name, intervals in self._numbers.items()
            for first, last in intervals
        )

    def beyond(self, other: GtidSet) -> int:
        """How many transactions are in this and not in `other`.

        MariaDB numbers a domain's transactions through, whichever server they come from, and of
        a domain that `other` knows nothing of it cannot be told how many there are: none count.
        """
        ours, theirs = _last_of_domains(self._last), _last_of_domains(other._last)
        count = sum(max(0, last - theirs.get(domain, last)) for domain, last in ours.items())
        for name, intervals in self._numbers.items():
            for first, last in intervals:
                held = (
                    max(0, min(last, high) - max(first, low) + 1)
                    for low, high in other._numbers.get(name, ())
                )
                count += last - first + 1 - sum(held)
        return count


def _last_of_domains(last: dict[tuple[int, int], int]) -> dict[int, int]:
    domains: dict[int, int] = {}
    for (domain, _server), number in last.items():
        domains[domain] = max(domains.get(domain, 0), number)
    return domains


def parse_gtid_list(event: bytes) -> Iterator[str]:
    """The GTIDs in MariaDB's GTID_LIST event, which tells a file's beginning; what is whole."""
    at = HEADER_LENGTH + 4
    count = int.from_bytes(event[HEADER_LENGTH:at], "little") & _COUNT
    for start in range(at, min(at + count * _GTID.size, len(event) - _GTID.size + 1), _GTID.size):
        domain, server, number = _GTID.unpack_from(event, start)
        yield f"{domain}-{server}-{number}"

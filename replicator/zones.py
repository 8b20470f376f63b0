"""What the source's time zones meant at a moment: asked of the source, told as an offset.

Left: the zone of a session as a QUERY event has it, and a moment. Right: an offset such as
`-05:00`, which every server understands and means alike.

A name says nothing on another server. `SYSTEM` is the zone of the machine (`TZ`), and that is not
the replica's; a name such as `America/Chicago` stands in tables that the replica may lack, or may
have from another year. So neither is ever sent there. The source knows both: it is asked for the
offset at the event's own second, which is exact whatever the season is when the event is read.
An offset that is the same from 1970 to 2038 is the zone, for all that can be told from it.

Where clocks are put back, an hour comes twice. Which moments these are is asked for too, by
halving the days on which the offset fell.

A server tells what is so now. One that was started again under another `TZ` does not know what
`SYSTEM` meant before. So a fingerprint of `SYSTEM` is kept on the replica; where it is another
than it was, the zone counts as not known for all seconds before the server's start. What rests on
the source's being as it was: tables of zones that are exchanged, and a server that was started
twice while nobody looked, under another `TZ` and then under the first again.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import structlog

from config.errors import CopyRefused, translated
from replicator.binlog.ddl import Dialect
from replicator.binlog.zone_dependence import stored_by_clock
from replicator.source import Identity
from replicator.tracking import execute, fetch

log = structlog.get_logger(__name__)

SYSTEM: Final = "SYSTEM"
_OFFSET: Final = re.compile(r"[+-]\d{1,2}:\d{2}\Z")
_DIGITS: Final = " UNION ALL ".join(f"SELECT {n} AS n" for n in range(10))
_STORED: Final = re.compile(r" (?:STORED|PERSISTENT)\b")
_GENERATES_ANEW: Final = 110_000
"""From this MariaDB on: 10.11 takes the row event's value, 11.8 does not; none between is tried."""
_SECOND: Final = timedelta(seconds=1)
_DAYS: Final = 24_850
"""From 2 January 1970 to the last days of what a TIMESTAMP of 32 bits can hold."""
_EACH_DAY: Final = (
    "SELECT day, TIMESTAMPDIFF(SECOND, day, CONVERT_TZ(day, '+00:00', %s)) AS away FROM ("
    "SELECT TIMESTAMP'1970-01-02 00:00:00' + INTERVAL d1.n + 10 * d2.n + 100 * d3.n + 1000 * d4.n"
    f" + 10000 * d5.n DAY AS day FROM ({_DIGITS}) d1, ({_DIGITS}) d2, ({_DIGITS}) d3,"
    f" ({_DIGITS}) d4, ({_DIGITS}) d5 WHERE d5.n < 3"
    f" AND d1.n + 10 * d2.n + 100 * d3.n + 1000 * d4.n + 10000 * d5.n < {_DAYS}) days ORDER BY day"
)
"""No zone has left its offset for less than some weeks, in these years."""

_FINGERPRINT: Final = (
    "SELECT COUNT(*), SUM(away), BIT_XOR(CRC32(CONCAT(day, ' ', away))) FROM ({}) AS told"
)
"""Numbers, for MySQL gives what is concatenated of numbers as bytes, and MariaDB as text."""
_STARTING: Final = 2
"""Seconds that a server's own count of its age may be off."""

Span = tuple[datetime, datetime]
"""Moments in UTC: from the first, and before the second."""


class Zones:
    """The zones of one source, over a connection that the caller alone uses."""

    def __init__(self, catalog: Any, known_from: int = 0) -> None:
        """`known_from`: the first second at which `SYSTEM` was what it is now."""
        self._catalog = catalog
        self._known_from = known_from
        self._days: dict[str, list[tuple[datetime, int | None]]] = {}
        self._repeated: dict[str, list[Span]] = {}

    def offset_at(self, zone: str, timestamp: int) -> str | None:
        """The zone's offset in that second since 1970; None where the source does not know it."""
        if _OFFSET.match(zone):
            return zone
        if zone.upper() == SYSTEM and timestamp < self._known_from:
            return None
        moment = _told(datetime.fromtimestamp(timestamp, UTC))
        ((away,),) = self._ask(
            "SELECT TIMESTAMPDIFF(SECOND, %s, CONVERT_TZ(%s, '+00:00', %s))", moment, moment, zone
        )
        return _spelt(away)

    def is_fixed(self, zone: str) -> bool:
        """Has it the same offset at all times? Not, where the source does not know it."""
        if _OFFSET.match(zone):
            return True
        offsets = {away for _day, away in self._each_day(zone)}
        return len(offsets) == 1 and offsets != {None}

    def is_utc(self, zone: str) -> bool:
        """Was it UTC at all times?"""
        if _OFFSET.match(zone):
            return zone.strip("+-0:") == ""
        return {away for _day, away in self._each_day(zone)} == {0}

    def repeated(self, zone: str) -> list[Span]:
        """The moments whose clock's time there is another moment's too."""
        if zone not in self._repeated:
            self._repeated[zone] = [] if _OFFSET.match(zone) else self._find_repeated(zone)
        return self._repeated[zone]

    def _find_repeated(self, zone: str) -> list[Span]:
        """Halve all days at once on which the clock was put back: to the second of each."""
        days = self._each_day(zone)
        falls = [
            (day, following, before - after)
            for (day, before), (following, after) in pairwise(days)
            if before is not None and after is not None and after < before
        ]
        early, late = [fall[0] for fall in falls], [fall[1] for fall in falls]
        old = [away for day, away in days if day in set(early)]
        while falls and late[0] - early[0] > _SECOND:
            middle = [
                a + (b - a) // _SECOND // 2 * _SECOND for a, b in zip(early, late, strict=True)
            ]
            columns = ", ".join(
                ["TIMESTAMPDIFF(SECOND, %s, CONVERT_TZ(%s, '+00:00', %s))"] * len(falls)
            )
            moments = [
                argument for moment in map(_told, middle) for argument in (moment, moment, zone)
            ]
            (answers,) = self._ask(f"SELECT {columns}", *moments)
            for at, away in enumerate(answers):
                (early if away == old[at] else late)[at] = middle[at]
        return [
            (moment - timedelta(seconds=by), moment + timedelta(seconds=by))
            for moment, (_day, _following, by) in zip(late, falls, strict=True)
        ]

    def _each_day(self, zone: str) -> list[tuple[datetime, int | None]]:
        """The zone's offset in seconds at the beginning of each day in UTC."""
        if zone not in self._days:
            self._days[zone] = [(day, away) for day, away in self._ask(_EACH_DAY, zone)]
        return self._days[zone]

    def _ask(self, question: str, *arguments: str) -> list[tuple[Any, ...]]:
        with translated("source"):
            return fetch(self._catalog, question, arguments)


def known_from(catalog: Any, replica: Any) -> int:
    """From which second on the source knows what its `SYSTEM` zone was; kept on the replica."""
    (numbers,) = fetch(catalog, _FINGERPRINT.format(_EACH_DAY), [SYSTEM])
    told = " ".join(map(str, numbers))
    known = fetch(replica, "SELECT fingerprint, known_from FROM etl_source_zone")
    if known and known[0][0] == told:
        return int(known[0][1])
    since = 0
    if known:
        ((now,),) = fetch(catalog, "SELECT UNIX_TIMESTAMP()")
        ((_name, age),) = fetch(catalog, "SHOW GLOBAL STATUS LIKE 'Uptime'")
        since = int(now) - int(age) + _STARTING
        log.warning(
            "source_zone_changed",
            since=datetime.fromtimestamp(since, UTC).isoformat(),
            remedy="none needed: tables that were altered before that are copied",
        )
    execute(replica, "REPLACE INTO etl_source_zone VALUES (1, %s, %s)", [told, since])
    return since


def require_stored_alike(
    catalog: Any, identity: Identity, replica: Identity, table: str, create: str
) -> None:
    """`CopyRefused` where the replica would generate a STORED column otherwise than the source.

    MySQL does not take such a column's value from the row event, but works it out again, and so
    does MariaDB 11; and the replica's sessions are in UTC. MariaDB 10 takes it as it is.
    """
    if (replica.mariadb and replica.number < _GENERATES_ANEW) or not _STORED.search(create):
        return
    column = stored_by_clock(create, Dialect(server_version=identity.number), {})
    with translated("source"):
        ((zone,),) = fetch(catalog, "SELECT @@GLOBAL.time_zone")
    if column is not None and not Zones(catalog).is_utc(str(zone)):
        raise CopyRefused(
            f"column {table}.{column} is generated in the session's time zone and STORED, and the"
            " replica's server generates it anew, in UTC",
            hint=f'On the source: make the column VIRTUAL, or exclude "{table}" in tables.toml.',
        )


def _told(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _spelt(seconds: Any) -> str | None:
    """`-05:00`; None where it is no whole number of minutes, as before 1972 in Liberia."""
    if seconds is None or int(seconds) % 60:
        return None
    sign, minutes = "-" if int(seconds) < 0 else "+", abs(int(seconds)) // 60
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"

"""The status variables of a QUERY event: the session that a statement ran in.

From the left come the raw bytes between the event's post-header and the name
of its database; to the right goes a value with a field for each variable that
changes what a statement does. Codes and layouts: `sql/log_event.h` (MariaDB),
`libbinlogevents/include/statement_events.h` (MySQL). A code that we do not
know has an unknown length, so nothing behind it can be read: that is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from config.errors import UnknownEvent

Flavour = Literal["mariadb", "mysql"]

OPTION_AUTO_IS_NULL: Final = 0x4000
OPTION_NO_CHECK_CONSTRAINTS: Final = 0x8000
OPTION_EXPLICIT_TIMESTAMP_DEFAULTS: Final = 0x1000000
OPTION_NO_FOREIGN_KEYS: Final = 0x4000000
OPTION_RELAXED_UNIQUE_CHECKS: Final = 0x8000000
OPTION_IF_EXISTS: Final = 0x10000000
OPTION_INSERT_HISTORY: Final = 0x40000000

ALTER_START: Final = 2
ALTER_COMMIT: Final = 4
ALTER_ROLLBACK: Final = 8


@dataclass(frozen=True, slots=True)
class StatusVariables:
    """None means that the event does not carry the variable."""

    flags2: int | None = None
    sql_mode: int | None = None
    auto_increment: tuple[int, int] | None = None
    """(increment, offset)"""
    charset: tuple[int, int, int] | None = None
    """Collation ids: character_set_client, collation_connection, collation_server."""
    time_zone: str | None = None
    lc_time_names: int | None = None
    collation_database: int | None = None
    microseconds: int | None = None
    explicit_defaults_for_timestamp: bool | None = None
    default_collation_for_utf8mb4: int | None = None
    sql_require_primary_key: bool | None = None
    default_table_encryption: bool | None = None
    xid: int | None = None
    alter_flags: int | None = None
    """MariaDB's two-phase ALTER (GTID flags_extra): 2 start, 4 commit, 8 rollback."""
    alter_start: int | None = None
    """GTID sequence number of the START that a COMMIT or ROLLBACK belongs to."""
    collations: tuple[tuple[int, int], ...] | None = None
    """MariaDB 11's `character_set_collations`: (charset's default id, collation id)."""

    def flag(self, bit: int) -> bool:
        """Whether a bit of flags2 is set; False where the event has no flags2."""
        return bool((self.flags2 or 0) & bit)


def parse_status_variables(raw: bytes, flavour: Flavour) -> StatusVariables:
    """Read all of `raw`; raises UnknownEvent for unknown codes and for lack of bytes."""
    cursor, found = _Cursor(raw), StatusVariables()
    readers = _COMMON | (_MARIADB if flavour == "mariadb" else _MYSQL)
    while cursor.at < len(raw):
        code = cursor.number(1)
        if code not in readers:
            raise UnknownEvent(
                f"a QUERY event carries a status variable that we do not know (code {code})",
                hint="The source is newer than this program: upgrade the program.",
            )
        found = readers[code](cursor, found)
    return found


class _Cursor:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0

    def take(self, length: int) -> bytes:
        taken = self.raw[self.at : self.at + length]
        if len(taken) < length:
            raise UnknownEvent(
                "the status variables of a QUERY event end too early",
                hint="The binlog is damaged, or the source is newer than this program.",
            )
        self.at += length
        return taken

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "little")

    def text(self) -> str:
        """A string behind one byte of length."""
        return self.take(self.number(1)).decode("utf-8", "surrogateescape")

    def numbers(self, count: int) -> tuple[int, ...]:
        return tuple(self.number(2) for _ in range(count))


_Read = Callable[[_Cursor, StatusVariables], StatusVariables]


def _skip(length: int) -> _Read:
    def read(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
        cursor.take(length)
        return found

    return read


def _skip_text(*, count: int = 1, terminated: bool = False) -> _Read:
    def read(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
        for _ in range(count):
            cursor.text()
        cursor.take(int(terminated))
        return found

    return read


def _flags2(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    return replace(found, flags2=cursor.number(4))


def _sql_mode(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    return replace(found, sql_mode=cursor.number(8))


def _auto_increment(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    return replace(found, auto_increment=(cursor.number(2), cursor.number(2)))


def _charset(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    ids = (cursor.number(2), cursor.number(2), cursor.number(2))
    return replace(found, charset=ids)


def _time_zone(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    return replace(found, time_zone=cursor.text())


def _lc_time_names(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    return replace(found, lc_time_names=cursor.number(2))


def _collation_database(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    return replace(found, collation_database=cursor.number(2))


def _microseconds(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    return replace(found, microseconds=cursor.number(3))


def _updated_databases(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    """A count, then as many names that end in NUL; 254 means too many to list."""
    count = cursor.number(1)
    for _ in range(0 if count == _TOO_MANY_DATABASES else count):
        while cursor.take(1) != b"\0":
            pass
    return found


_TOO_MANY_DATABASES: Final = 254


def _explicit_defaults(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    return replace(found, explicit_defaults_for_timestamp=bool(cursor.number(1)))


def _utf8mb4_collation(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    return replace(found, default_collation_for_utf8mb4=cursor.number(2))


def _primary_key_required(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    return replace(found, sql_require_primary_key=bool(cursor.number(1)))


def _table_encryption(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    return replace(found, default_table_encryption=bool(cursor.number(1)))


def _xid(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    return replace(found, xid=cursor.number(8))


def _two_phase_alter(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    flags = cursor.number(1)
    start = cursor.number(8) if flags & (ALTER_COMMIT | ALTER_ROLLBACK) else None
    return replace(found, alter_flags=flags, alter_start=start)


def _collations(cursor: _Cursor, found: StatusVariables) -> StatusVariables:
    count = cursor.number(1)
    pairs = tuple((cursor.number(2), cursor.number(2)) for _ in range(count))
    return replace(found, collations=pairs)


_COMMON: Final[dict[int, _Read]] = {
    0: _flags2,
    1: _sql_mode,
    2: _skip_text(terminated=True),  # catalog, MySQL 5.0.0 to 5.0.3
    3: _auto_increment,
    4: _charset,
    5: _time_zone,
    6: _skip_text(),  # catalog
    7: _lc_time_names,
    8: _collation_database,
    9: _skip(8),  # table map for update
    10: _skip(4),  # bytes written on the first master
    11: _skip_text(count=2),  # invoker: user and host
}
_MYSQL: Final[dict[int, _Read]] = {
    12: _updated_databases,
    13: _microseconds,
    16: _explicit_defaults,
    17: _xid,
    18: _utf8mb4_collation,
    19: _primary_key_required,
    20: _table_encryption,
    21: _skip(1),  # MySQL 9: in statement-format changes alone, about foreign keys
}
_MARIADB: Final[dict[int, _Read]] = {
    128: _microseconds,
    129: _xid,
    130: _two_phase_alter,
    131: _collations,
}

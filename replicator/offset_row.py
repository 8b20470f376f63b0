"""The offset row's own change, as binlog events, so that it rides with the rows it counts.

Left: the offset before and after a batch. Right: a TABLE_MAP and an UPDATE_ROWS
event (without checksums) for `etl_binlog_offset`. The update *finds* its row by
the old position, part of the primary key: when an earlier batch failed, a later
one finds nothing and fails too, so a batch can never be skipped. Pure.

Source: MariaDB `sql/log_event_server.cc` (Table_map_log_event, Rows_log_event),
`sql-common/my_time.c` (my_datetime_packed_to_binary).
"""

from __future__ import annotations

import struct
from datetime import datetime

from replicator.binlog.events import STMT_END_FLAG, EventType, with_header
from replicator.tracking import Offset

_TABLE = b"etl_binlog_offset"
TABLE_ID = 0xFFFF_FFFF_FFF0
"""Far above any table id that a server hands out, so that it never meets one in a batch."""

_TYPES = bytes([15, 15, 8, 8, 15, 252, 18, 252, 18, 8])
_METADATA = struct.pack("<HHHBBBB", 64, 255, 64, 4, 6, 4, 6)
_NULLABLE = struct.pack("<H", 1 << 6 | 1 << 7)
_BEFORE = 0b0_0000_0111  # stream, binlog_file, binlog_position: the primary key
_AFTER = 0b11_0111_1110  # all that moves; the stream's name and pending_ddl stay


def offset_events(
    database: str, before: Offset, after: Offset, *, timestamp: int, now: datetime, rows_v2: bool
) -> bytes:
    """TABLE_MAP and UPDATE_ROWS that take the offset row from `before` to `after`."""
    return table_map(database, timestamp, after.server_id) + update_rows(
        before, after, timestamp=timestamp, now=now, rows_v2=rows_v2
    )


def table_map(database: str, timestamp: int, server_id: int) -> bytes:
    """The TABLE_MAP of `etl_binlog_offset` in the replica's `database`."""
    name = database.encode()
    body = b"".join(
        (
            TABLE_ID.to_bytes(6, "little") + b"\x01\x00",
            bytes([len(name)]) + name + b"\0",
            bytes([len(_TABLE)]) + _TABLE + b"\0",
            bytes([len(_TYPES)]) + _TYPES,
            bytes([len(_METADATA)]) + _METADATA,
            _NULLABLE,
        )
    )
    return with_header(EventType.TABLE_MAP, timestamp, server_id, 0, body)


def update_rows(
    before: Offset, after: Offset, *, timestamp: int, now: datetime, rows_v2: bool
) -> bytes:
    """The UPDATE_ROWS event; it ends the statement."""
    kind = EventType.UPDATE_ROWS if rows_v2 else EventType.UPDATE_ROWS_V1
    body = b"".join(
        (
            TABLE_ID.to_bytes(6, "little") + STMT_END_FLAG.to_bytes(2, "little"),
            b"\x02\x00" if rows_v2 else b"",
            bytes([len(_TYPES)]),
            struct.pack("<HH", _BEFORE, _AFTER),
            b"\0",
            _short(before.stream) + _place(before),
            b"\0" if after.event_timestamp is not None else b"\x20",
            _place(after),
            after.server_id.to_bytes(8, "little"),
            _short(after.server_uuid),
            _long(after.gtid),
            b"" if after.event_timestamp is None else _datetime(after.event_timestamp),
            _datetime(now),
            after.binlog_created.to_bytes(8, "little"),
        )
    )
    return with_header(kind, timestamp, after.server_id, 0, body)


def _place(offset: Offset) -> bytes:
    position = offset.position
    return _short(position.file) + position.offset.to_bytes(8, "little")


def _short(text: str) -> bytes:
    data = text.encode("ascii")
    return bytes([len(data)]) + data


def _long(text: str) -> bytes:
    data = text.encode("ascii")
    return len(data).to_bytes(4, "little") + data


def _datetime(when: datetime) -> bytes:
    """DATETIME2 with six fractional digits: 5 bytes packed, 3 bytes microseconds."""
    days = ((when.year * 13 + when.month) << 5) | when.day
    seconds = (when.hour << 12) | (when.minute << 6) | when.second
    packed = ((days << 17) | seconds) + 0x80_0000_0000
    return packed.to_bytes(5, "big") + when.microsecond.to_bytes(3, "big")

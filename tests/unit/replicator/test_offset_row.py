from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from replicator.binlog.events import STMT_END_FLAG, EventType, TableMap, rows_flags, table_id_of
from replicator.binlog.position import SourcePosition
from replicator.offset_row import TABLE_ID, offset_events
from replicator.tracking import Offset

NOW = datetime(2026, 11, 23, 4, 5, 6, 789_012)
BEFORE = Offset("main", SourcePosition("bin.000001", 300), 7, "")
AFTER = Offset(
    "main",
    SourcePosition("bin.000002", 4),
    7,
    "some-uuid",
    "0-7-9",
    datetime(2025, 1, 2, 3, 4, 5),
    binlog_created=1_699_999_000,
)


def made(before: Offset = BEFORE, after: Offset = AFTER, **options: Any) -> tuple[bytes, bytes]:
    chosen = {"timestamp": 1_700_000_000, "now": NOW, "rows_v2": False, **options}
    events = offset_events("copy", before, after, **chosen)
    length = int.from_bytes(events[9:13], "little")
    return events[:length], events[length:]


def packed(when: datetime) -> bytes:
    """A DATETIME(6) as the manual describes it: sign, year*13+month, day, time, microseconds."""
    bits = f"1{when.year * 13 + when.month:017b}{when.day:05b}"
    bits += f"{when.hour:05b}{when.minute:06b}{when.second:06b}"
    return int(bits, 2).to_bytes(5, "big") + when.microsecond.to_bytes(3, "big")


def test_the_table_map_names_the_offset_table_of_the_replica() -> None:
    table_map = TableMap(made()[0])
    assert (table_map.database, table_map.table) == ("copy", "etl_binlog_offset")
    assert table_map.table_id == TABLE_ID
    assert table_map.column_types == bytes([15, 15, 8, 8, 15, 252, 18, 252, 18, 8])
    assert table_map.column_metadata == (64, 255, 0, 0, 64, 4, 6, 4, 6, 0)
    assert [i for i, null in enumerate(table_map.nullable) if null] == [6, 7]


def test_the_change_finds_its_row_by_the_old_position_and_writes_the_new() -> None:
    event = made()[1]
    key = b"\x04main" + b"\x0abin.000001" + (300).to_bytes(8, "little")
    changed = b"".join(
        (
            b"\x0abin.000002" + (4).to_bytes(8, "little"),
            (7).to_bytes(8, "little"),
            b"\x09some-uuid",
            b"\x05\0\0\x000-7-9",
            packed(datetime(2025, 1, 2, 3, 4, 5)),
            packed(NOW),
            (1_699_999_000).to_bytes(8, "little"),
        )
    )
    assert event[27:] == b"\x0a" + b"\x07\x00" + b"\x7e\x03" + b"\0" + key + b"\0" + changed


def test_a_time_that_is_not_known_is_null() -> None:
    after = Offset("main", SourcePosition("bin.000002", 4), 7, "")
    event = made(after=after)[1]
    assert event.endswith(b"\x20" + event.split(b"\x20", 1)[1])
    assert event.endswith(b"\0" + b"\0\0\0\0" + packed(NOW) + bytes(8))


def test_it_ends_the_statement() -> None:
    table_map, rows = made()
    assert rows_flags(rows) == STMT_END_FLAG
    assert table_id_of(table_map) == table_id_of(rows) == TABLE_ID


@pytest.mark.parametrize("rows_v2", [False, True])
def test_the_second_version_of_rows_events_has_two_more_bytes(rows_v2: bool) -> None:
    event, plain = made(rows_v2=rows_v2)[1], made()[1]
    assert event[4] == (EventType.UPDATE_ROWS if rows_v2 else EventType.UPDATE_ROWS_V1)
    assert event[27:] == (b"\2\0" if rows_v2 else b"") + plain[27:]


def test_events_know_their_length_and_bear_the_sources_time_and_id() -> None:
    for event in made(timestamp=int(NOW.replace(tzinfo=UTC).timestamp())):
        assert int.from_bytes(event[9:13], "little") == len(event)
        assert int.from_bytes(event[:4], "little") == 1_795_406_706
        assert int.from_bytes(event[5:9], "little") == 7

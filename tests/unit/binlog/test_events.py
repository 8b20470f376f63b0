from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import SchemaDrift, UnknownEvent
from replicator.binlog import events as ev
from replicator.binlog.events import EventType, TableMap, parse_query, with_header

from .hand_made import Log, compressed, format_description_body, query_body, with_checksum


def test_a_query_event_gives_its_statement_and_its_session() -> None:
    body = query_body(b"DROP TABLE t", database=b"opendental", error=1051, status=b"\0\1\2\3\4")
    query = parse_query(with_header(EventType.QUERY, 99, 1, 0, body))
    assert (query.statement, query.database, query.error_code) == (
        b"DROP TABLE t",
        "opendental",
        1051,
    )
    assert (query.timestamp, query.thread_id, query.status_vars) == (99, 7, b"\0\1\2\3\4")


@given(st.binary(max_size=70_000))
def test_a_compressed_query_event_reads_like_the_plain_one(sql: bytes) -> None:
    body = query_body(b"") + compressed(sql)
    assert parse_query(with_header(EventType.QUERY_COMPRESSED, 1, 1, 0, body)).statement == sql


@pytest.mark.parametrize(
    "block", [b"", b"\x81\x05junk", compressed(b"abc")[:-8], b"\x81\x09" + compressed(b"abc")[2:]]
)
def test_a_damaged_compressed_block_is_an_unknown_event(block: bytes) -> None:
    with pytest.raises(UnknownEvent):
        parse_query(with_header(EventType.QUERY_COMPRESSED, 1, 1, 0, query_body(b"") + block))


def test_a_query_event_that_is_too_short_is_an_unknown_event() -> None:
    with pytest.raises(UnknownEvent):
        parse_query(with_header(EventType.QUERY, 1, 1, 0, b"short"))


@given(
    images=st.binary(min_size=1, max_size=5000),
    width=st.integers(1, 300),
    kind=st.sampled_from([23, 24, 25, 30, 31, 32]),
)
def test_a_compressed_rows_event_becomes_the_plain_event_it_stands_for(
    images: bytes, width: int, kind: int
) -> None:
    count = bytes([width]) if width < 0xFB else b"\xfc" + width.to_bytes(2, "little")
    bitmaps = b"\xff" * ((width + 7) // 8) * (2 if kind in (24, 31) else 1)
    extra = b"\2\0" if kind >= 30 else b""
    head = (77).to_bytes(6, "little") + b"\1\0" + extra + count + bitmaps
    squeezed = {23: 166, 24: 167, 25: 168, 30: 169, 31: 170, 32: 171}[kind]
    event = ev.decompress_rows(with_header(squeezed, 5, 1, 0, head + compressed(images)))
    assert event == with_header(kind, 5, 1, 0, head + images)


def test_a_table_map_tells_its_names_and_where_they_stand() -> None:
    table_map = TableMap(Log().table_map(300, "größe".encode(), b"practice"))
    assert (table_map.table_id, table_map.database, table_map.table) == (300, "practice", "größe")
    assert table_map.raw[slice(*table_map.database_span)] == b"\x08practice\0"
    assert table_map.raw[slice(*table_map.table_span)] == b"\x07" + "größe".encode() + b"\0"
    assert (table_map.column_types, table_map.nullable) == (b"\3", (True,))


def test_a_table_map_without_full_metadata_names_the_remedy() -> None:
    with pytest.raises(SchemaDrift) as caught:
        ev.require_full_metadata(TableMap(Log().table_map(1)))
    assert "patient" in str(caught.value)
    assert "binlog_row_metadata" in caught.value.hint


@pytest.mark.parametrize("missing", range(1, 6))
def test_a_table_map_cut_short_is_an_unknown_event(missing: int) -> None:
    event = Log().table_map(1)
    with pytest.raises((UnknownEvent, IndexError)):
        _ = TableMap(event[:-missing]).nullable


def test_a_column_type_that_is_not_known_is_refused() -> None:
    event = Log().table_map(1).replace(b"\1\3\0\1", b"\1\x63\0\1")
    with pytest.raises(UnknownEvent, match="column type 99"):
        _ = TableMap(event).column_types


def test_a_rotate_event_names_the_next_file_and_its_offset() -> None:
    assert ev.parse_rotate(Log().rotate(b"source-bin.000002")) == ("source-bin.000002", 4)


def test_the_servers_version_stands_in_its_format_description() -> None:
    assert ev.server_version(Log().format_description(b"5.5.62-log")) == "5.5.62-log"


def test_a_format_description_can_announce_events_without_checksums() -> None:
    body = format_description_body(b"10.11.6-MariaDB-log")
    event = with_header(EventType.FORMAT_DESCRIPTION, 1, 1, 0, body)
    plain = ev.format_description_without_checksums(event)
    assert plain == with_checksum(
        with_header(EventType.FORMAT_DESCRIPTION, 1, 1, 0, body[:-1] + b"\0")
    )


@pytest.mark.parametrize("value", [0, 250, 251, 65_535, 65_536, 2**24 - 1, 2**24, 2**40])
def test_length_encoded_integers_of_every_width_are_read(value: int) -> None:
    widths = [(251, b"", 1), (2**16, b"\xfc", 2), (2**24, b"\xfd", 3), (2**64, b"\xfe", 8)]
    prefix, width = next((p, w) for limit, p, w in widths if value < limit)
    data = b"\0" + prefix + value.to_bytes(width, "little") + b"\0"
    assert ev.read_lenenc(data, 1) == (value, len(data) - 1)


@pytest.mark.parametrize("data", [b"\xfb", b"\xff", b"\xfc\1", b"\xfe\1\2\3"])
def test_a_length_that_is_none_is_an_unknown_event(data: bytes) -> None:
    with pytest.raises(UnknownEvent):
        ev.read_lenenc(data, 0)


def test_header_fields_are_read_from_their_places() -> None:
    event = struct.pack("<IBIIIH", 11, EventType.XID, 22, 27, 33, 0x80) + bytes(8)
    assert (ev.event_timestamp(event), ev.event_end(event), ev.event_flags(event)) == (11, 33, 0x80)

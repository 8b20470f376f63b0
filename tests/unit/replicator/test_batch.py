from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.batch import Segment, merged, merged_python, rewritten_map
from replicator.binlog.events import (
    STMT_END_FLAG,
    EventType,
    TableMap,
    rows_flags,
    table_id_of,
    with_header,
)
from replicator.binlog.statement import binlog_statement
from tests.unit.binlog.hand_made import Log

RELAXED = 4


def cut(events: bytes) -> Iterator[bytes]:
    """A statement's events, by the lengths in their headers."""
    while events:
        length = int.from_bytes(events[9:13], "little")
        yield events[:length]
        events = events[length:]


def table_map(table_id: int, table: bytes = b"patient") -> TableMap:
    return TableMap(Log().table_map(table_id, table))


def filled(*rows: tuple[str, TableMap, bytes]) -> Segment:
    segment = Segment()
    for target, known, event in rows:
        assert segment.takes(target, known, event)
        segment.add("practice_copy", target, known, event)
    return segment


@pytest.mark.parametrize("database", ["d", "opendental_replication", "ä" * 60])
@pytest.mark.parametrize("table", ["t", "patient", "_resync_" + "x" * 56])
def test_a_table_map_under_other_names_is_otherwise_the_same(database: str, table: str) -> None:
    original = table_map(300)
    event = rewritten_map(original, database, table)
    assert int.from_bytes(event[9:13], "little") == len(event)
    changed = TableMap(event)
    assert (changed.database, changed.table, changed.table_id) == (database, table, 300)
    assert event[changed.table_span[1] :] == original.raw[original.table_span[1] :]
    assert event[:9] == original.raw[:9]


def test_each_table_is_introduced_once_and_all_of_them_first() -> None:
    one, other, log = table_map(1, b"one"), table_map(2, b"other"), Log()
    segment = filled(
        ("one", one, log.rows(1)),
        ("other", other, log.rows(2)),
        ("one", one, log.rows(1)),
    )
    events = list(cut(segment.events()))
    assert [e[4] for e in events] == [19, 19, 23, 23, 23]
    assert [TableMap(e).table for e in events[:2]] == ["one", "other"]
    assert {TableMap(e).database for e in events[:2]} == {"practice_copy"}


def test_only_the_last_rows_event_ends_the_statement() -> None:
    known, log = table_map(1), Log()
    rows_of = partial(log.rows, 1, kind=EventType.UPDATE_ROWS_V1)
    segment = filled(*(("patient", known, rows_of(flags=flags)) for flags in (1, 0, 1)))
    rows = list(cut(segment.events()))[1:]
    assert [rows_flags(e) & STMT_END_FLAG for e in rows] == [0, 0, 1]


def test_a_closing_change_is_what_ends_the_statement() -> None:
    known, log = table_map(1), Log()
    segment = filled(("patient", known, log.rows(1)))
    closing_map, closing_rows = log.table_map(9, b"etl_binlog_offset"), log.rows(9)
    events = list(cut(segment.events(closing_map, closing_rows)))
    assert [e[4] for e in events] == [19, 19, 23, 23]
    assert [rows_flags(e) & STMT_END_FLAG for e in events[2:]] == [0, 1]
    assert events[-1] == closing_rows


def test_a_table_under_a_new_id_needs_another_statement() -> None:
    log = Log()
    segment = filled(("patient", table_map(1), log.rows(1)))
    assert not segment.takes("patient", table_map(2), log.rows(2))
    assert segment.takes("other", table_map(2, b"other"), log.rows(2))


def test_an_id_that_stands_for_another_table_needs_another_statement() -> None:
    log = Log()
    segment = filled(("patient", table_map(1), log.rows(1)))
    assert not segment.takes("other", table_map(1, b"other"), log.rows(1))


def test_rows_under_other_key_checks_need_another_statement() -> None:
    known, log = table_map(1), Log()
    segment = filled(("patient", known, log.rows(1, flags=1)))
    assert segment.takes("patient", known, log.rows(1, flags=0))
    assert not segment.takes("patient", known, log.rows(1, flags=2))


def test_the_key_checks_of_the_rows_are_kept() -> None:
    known, log = table_map(1), Log()
    rows_of = partial(log.rows, 1, kind=EventType.DELETE_ROWS_V1)
    segment = filled(*(("patient", known, rows_of(flags=f | 6)) for f in (1, 1)))
    rows = list(cut(segment.events()))[1:]
    assert [rows_flags(e) for e in rows] == [6, 7]


def test_an_empty_segment_is_false_and_takes_anything() -> None:
    segment = Segment()
    assert not segment
    assert segment.events() == b""
    assert segment.takes("patient", table_map(1), Log().rows(1, flags=2))


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 2), st.booleans(), st.sampled_from([0, 4])),
        max_size=40,
    )
)
def test_rows_keep_their_order_and_their_bytes(
    changes: list[tuple[int, int, bool, int]],
) -> None:
    maps = {(n, turn): table_map(10 * n + turn, b"t%d" % n) for n in range(1, 5) for turn in (1, 2)}
    segments, sent = [Segment()], []
    for number, (table, turn, ends, flags) in enumerate(changes):
        known = maps[table, turn]
        data = b"\xff\0" + number.to_bytes(4, "little")
        event = Log().rows(known.table_id, data, kind=EventType.UPDATE_ROWS_V1, flags=flags | ends)
        if not segments[-1].takes(known.table, known, event):
            segments.append(Segment())
        segments[-1].add("d", known.table, known, event)
        sent.append((known.table, data, flags))
    found = []
    for segment in segments:
        events = list(cut(segment.events()))
        assert len(segment.events()) == segment.size
        names = {table_id_of(e): TableMap(e).table for e in events if e[4] == EventType.TABLE_MAP}
        assert len(set(names.values())) == len(names)
        rows = [e for e in events if e[4] != EventType.TABLE_MAP]
        assert segment.tables == {names[table_id_of(e)] for e in rows}
        assert len({rows_flags(e) & ~STMT_END_FLAG for e in rows}) <= 1
        assert [rows_flags(e) & STMT_END_FLAG for e in rows] == [0] * (len(rows) - 1) + [1] * bool(
            rows
        )
        found += [(names[table_id_of(e)], e[28:], rows_flags(e) & ~STMT_END_FLAG) for e in rows]
    assert found == sent


KINDS = [23, 24, 25, 30, 31]


def rows_event(kind: int, table: int, flags: int, data: bytes) -> bytes:
    """A rows event of one column, of either version, without the statement's end."""
    extra = b"\x05\0abc" if kind >= 30 else b""
    images = 2 if kind in {24, 31} else 1
    head = (
        table.to_bytes(6, "little") + flags.to_bytes(2, "little") + extra + b"\1" + b"\1" * images
    )
    return with_header(kind, 7, 1, 0, head + data)


def unmerged(events: list[bytes]) -> list[tuple[bytes, bytes]]:
    """What a server makes of them: neighbours of one head, one row of six bytes each."""
    found = []
    for event in events:
        at = 27 + (5 if event[4] >= 30 else 0) + 2 + (event[4] in {24, 31})
        found += [(event[4:5] + event[19:at], event[i : i + 6]) for i in range(at, len(event), 6)]
    return found


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.integers(1, 2),
            st.sampled_from([0, 4]),
            st.lists(st.binary(min_size=6, max_size=6), min_size=1, max_size=4).map(b"".join),
        ),
        max_size=20,
    ),
    st.integers(40, 200),
)
def test_merging_changes_neither_rows_nor_their_order(
    changes: list[tuple[int, int, int, bytes]], limit: int
) -> None:
    events = [rows_event(*change) for change in changes]
    left = merged(events, limit)
    assert left == merged_python(events, limit)
    assert unmerged(left) == unmerged(events)
    assert all(int.from_bytes(event[9:13], "little") == len(event) for event in left)
    assert all(len(event) <= limit for event in left if event not in events)


@pytest.mark.parametrize(("kind", "events"), [(23, 1), (24, 3), (25, 3), (30, 1), (31, 3)])
def test_only_inserts_are_merged(kind: int, events: int) -> None:
    assert len(merged([rows_event(kind, 1, 0, b"abcdef")] * 3, 10_000)) == events


@given(st.lists(st.binary(min_size=19, max_size=60), max_size=6))
def test_what_is_too_short_for_rows_is_left_as_it_is(events: list[bytes]) -> None:
    """Or at least merged alike: nothing behind an event's end is looked at."""
    assert merged(events, 1_000) == merged_python(events, 1_000)


@given(st.binary(max_size=400))
def test_a_binlog_statement_is_its_events_in_base64_on_one_line(events: bytes) -> None:
    statement = binlog_statement(events)
    assert statement.startswith(b"BINLOG '")
    assert statement.endswith(b"'")
    assert base64.b64decode(statement[8:-1], validate=True) == events

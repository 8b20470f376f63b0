"""Whole transactions taken at once do what their events do one by one."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator import exact, plain
from replicator.binlog.events import EventType
from replicator.binlog.position import SourcePosition
from replicator.binlog.transactions import Statement
from replicator.routes import Window
from tests.unit.binlog.hand_made import SECOND, Log

from .test_batch import cut
from .test_exact import FILE, OFFSET, Stage

needs_gather = pytest.mark.skipif(plain.gather is None, reason="built without a compiler")

TABLES = {"one": 1, "two": 2, "tag": 3, "waiting": 4, "unheard": 5}
KINDS = [23, 24, 25, 30, 31, 32]

rows = st.tuples(
    st.sampled_from([*TABLES] * 3 + ["new id", "elsewhere"]),
    st.sampled_from([0, 1, 1, 1, 1, 1, 3]),
    st.integers(0, 60),
    st.sampled_from(KINDS),
)
transactions = st.tuples(
    st.lists(rows, max_size=4),
    st.sampled_from(["xid"] * 8 + ["commit", "rollback", "ddl", "later", "annotated", "domain"]),
)


def logged(log: Log, number: int, changes: list[Any], end: str) -> list[bytes]:
    """One transaction's events."""
    if end == "ddl":
        return [log.mariadb_gtid(number, flags=1), log.query(b"CREATE TABLE x (id INT)")]
    events = [log.mariadb_gtid(number, domain=int(end == "domain"))]
    for table, flags, size, kind in changes:
        name = {"new id": "one", "elsewhere": "one"}.get(table, table)
        table_id = TABLES.get(table, 50 if table == "new id" else 60)
        database = b"elsewhere" if table == "elsewhere" else b"opendental"
        events.append(log.table_map(table_id, name.encode(), database))
        if end == "annotated":
            events.append(log.add(EventType.ANNOTATE_ROWS, b"INSERT"))
        events.append(log.rows(table_id, bytes(size), kind=kind, flags=flags))
    if end in ("commit", "rollback"):
        events.append(log.query(end.upper().encode()))
    else:
        events.append(log.add(EventType.XID, bytes(8), timestamp=SECOND + (end == "later")))
    return events


def run(stage: Stage, pieces: list[list[bytes]]) -> list[Any]:
    """Feed them as the daemon does; what the replica got, without the offset's own values."""
    for events in pieces:
        at = 0
        while at < len(events):
            taken = stage.replicator.take_plain(stage.reader, events, at)
            if taken == at:
                change = stage.reader.feed(events[at])
                if isinstance(change, Statement):
                    stage.wire.sent.append(b"statement")
                elif change is not None:
                    stage.replicator.apply(change)
                taken += 1
            at = taken
    stage.replicator.flush()
    return [_content(statement) for statement in stage.wire.sent]


def _content(statement: bytes) -> Any:
    if not statement.startswith(b"BINLOG"):
        return statement
    events = list(cut(base64.b64decode(statement[8:-1])))
    assert OFFSET.encode() in b"".join(events) or events
    maps = [e for e in events if e[4] == EventType.TABLE_MAP and OFFSET.encode() not in e]
    changes = [e for e in events if e[4] != EventType.TABLE_MAP and e[19:25] != _OFFSET_ID]
    return sorted(maps), changes


_OFFSET_ID = exact.offset_map("d", 0, 1)[19:25]


def stage_with(limit: int, window: bool, virtual: bool) -> Stage:
    stage = Stage(limit, lacking=(lambda size: size % 2 == 0) if virtual else None)
    if window:
        low, high = SourcePosition(FILE, 300), SourcePosition(FILE, 900)
        stage.routes.stream("two", window=Window(low, high))
    return stage


@needs_gather
@given(
    st.lists(transactions, max_size=25),
    st.lists(st.integers(1, 30), min_size=1, max_size=10),
    st.sampled_from([1, 100, 400, 1 << 20]),
    st.booleans(),
    st.booleans(),
)
def test_runs_do_what_single_events_do(
    work: list[Any], cuts: list[int], limit: int, window: bool, virtual: bool
) -> None:
    log = Log()
    events = [e for n, (changes, end) in enumerate(work) for e in logged(log, n, changes, end)]
    pieces, at = [], 0
    while at < len(events):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(events[at : at + size])
        at += size
    quick, slow = stage_with(limit, window, virtual), stage_with(limit, window, virtual)
    found = run(quick, pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "gather", None)
        wanted = run(slow, pieces)
    assert found == wanted
    for of in ("committed", "reached", "touched", "applied", "dirty", "idle"):
        assert getattr(quick.replicator, of) == getattr(slow.replicator, of), of
    assert quick.routes.unknown == slow.routes.unknown
    assert quick.reader.between == slow.reader.between


@needs_gather
def test_plain_transactions_are_taken_whole_and_at_once() -> None:
    stage, log = Stage(), Log()
    events = [e for n in range(100) for e in logged(log, n, [("one", 1, 9, 23)], "xid")]
    assert stage.replicator.take_plain(stage.reader, events, 0) == len(events)
    assert stage.replicator.applied.transactions == 100


@needs_gather
@pytest.mark.parametrize("left", [1, 2, 3])
def test_half_a_transaction_is_not_taken(left: int) -> None:
    stage, log = Stage(), Log()
    first = logged(log, 1, [("one", 1, 9, 23)], "xid")
    second = logged(log, 2, [("one", 1, 9, 23)], "commit")
    taken = stage.replicator.take_plain(stage.reader, first + second[:-left], 0)
    assert taken == len(first)
    assert stage.replicator.reached == SourcePosition(
        FILE, int.from_bytes(first[-1][13:17], "little")
    )


@needs_gather
@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(-3, 12))
def test_any_events_are_read_within_their_bounds(tails: list[bytes], at: int) -> None:
    assert plain.gather is not None
    log = Log()
    good = logged(log, 1, [("one", 1, 9, 23)], "xid")
    for turn, tail in enumerate(tails):
        kind = [162, 19, 23, 16, 2, 31][turn % 6]
        good.insert(turn, (bytes(4) + bytes([kind]) + bytes(14) + tail)[: 5 + len(tail)])
    run = plain.gather(good, at, lambda _event: None, -1, -1, 1000)
    assert run.end >= at

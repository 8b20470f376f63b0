"""XA ids in statements and events are one text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import UnknownEvent
from replicator.binlog.events import EventType, with_header
from replicator.binlog.position import SourcePosition
from replicator.binlog.transactions import (
    Begin,
    Commit,
    Prepared,
    Rollback,
    Rows,
    TransactionReader,
    XaCommit,
)
from replicator.binlog.xa import read_xa_prepare, xid_of_statement
from tests.unit.binlog.hand_made import Log


def prepare_body(gtrid: bytes, bqual: bytes, number: int, *, one_phase: bool = False) -> bytes:
    sizes = (number, len(gtrid), len(bqual))
    return bytes([one_phase]) + b"".join(n.to_bytes(4, "little") for n in sizes) + gtrid + bqual


@given(st.binary(max_size=64), st.binary(max_size=64), st.integers(0, 2**31 - 1), st.booleans())
def test_a_statement_and_an_event_name_one_transaction_alike(
    gtrid: bytes, bqual: bytes, number: int, one_phase: bool
) -> None:
    body = prepare_body(gtrid, bqual, number, one_phase=one_phase)
    told = read_xa_prepare(with_header(EventType.XA_PREPARE, 0, 1, 0, body))
    text = f"XA COMMIT X'{gtrid.hex().upper()}',X'{bqual.hex()}',{number}"
    assert told == (one_phase, xid_of_statement(text.encode()))


@given(st.binary(max_size=40))
def test_an_event_cut_short_is_refused(body: bytes) -> None:
    try:
        read_xa_prepare(with_header(EventType.XA_PREPARE, 0, 1, 0, body))
    except UnknownEvent:
        return
    assert len(body) >= 13


@pytest.mark.parametrize("text", [b"XA COMMIT 'a'", b"XA COMMIT", b"XA COMMIT X'6',X''", b"XA X"])
def test_another_form_is_not_read(text: bytes) -> None:
    assert xid_of_statement(text) is None


def read(*events: bytes) -> list[object]:
    reader = TransactionReader(SourcePosition("bin.000001", 4), xa=True)
    return [change for event in events if (change := reader.feed(event)) is not None]


@pytest.mark.parametrize("mysql", [True, False])
@pytest.mark.parametrize("one_phase", [True, False])
def test_what_is_prepared_is_told_so_and_counts_where_it_is_committed(
    mysql: bool, one_phase: bool
) -> None:
    log = Log()
    head = (
        [log.mysql_gtid(1), log.query(b"XA START X'61',X'',1")]
        if mysql
        else [log.mariadb_gtid(1, flags=64)]
    )
    rows = [log.table_map(5), log.rows(5), log.query(b"XA END X'61',X'',1")]
    ended = log.add(EventType.XA_PREPARE, prepare_body(b"a", b"", 1, one_phase=one_phase))
    changes = read(*head, *rows, ended)
    assert [type(change) for change in changes[:2]] == [Begin, Rows]
    assert len(changes) == 3
    if one_phase:
        assert isinstance(changes[2], Commit)
    else:
        assert changes[2] == Prepared(SourcePosition("bin.000001", log.at), "X'61',X'',1")
    gtid = log.mysql_gtid(2) if mysql else log.mariadb_gtid(2, flags=128 | 1)
    (committed,) = read(gtid, log.query(b"XA COMMIT X'61',X'',1"))
    assert isinstance(committed, XaCommit)
    assert (committed.xid, committed.commit.position.offset) == ("X'61',X'',1", log.at)
    gtid = log.mysql_gtid(3) if mysql else log.mariadb_gtid(3, flags=128 | 1)
    (void,) = read(gtid, log.query(b"XA ROLLBACK X'61',X'',1"))
    assert void == Rollback(SourcePosition("bin.000001", log.at))

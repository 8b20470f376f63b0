from __future__ import annotations

import gc
from collections.abc import Iterable

import pytest

from config.errors import EventsLost, UnknownEvent, UnsupportedStatement
from replicator.binlog import transactions
from replicator.binlog.events import EventType, TableMap, with_header
from replicator.binlog.position import ReplicaPosition, SourcePosition
from replicator.binlog.transactions import (
    Change,
    Commit,
    Moved,
    Rollback,
    Rows,
    Statement,
    TransactionReader,
)

from .hand_made import (
    SECOND,
    Log,
    artificial,
    compressed,
    format_description_body,
    rows_body,
)

FILE = "bin.000001"


def read(*events: bytes, reader: TransactionReader | None = None) -> list[Change]:
    reader = reader or TransactionReader(SourcePosition(FILE, 4))
    return [change for event in events if (change := reader.feed(event)) is not None]


def kinds(changes: Iterable[Change]) -> list[str]:
    return [type(change).__name__ for change in changes]


def at(offset: int) -> SourcePosition:
    return SourcePosition(FILE, offset)


def test_a_mariadb_transaction_is_begin_rows_commit_with_its_gtid() -> None:
    log = Log()
    changes = read(log.mariadb_gtid(7, domain=3), log.table_map(5), log.rows(5), log.xid())
    assert kinds(changes) == ["Begin", "Rows", "Commit"]
    assert changes[-1] == Commit(at(log.at), SECOND * 1_000_000, "3-1-7")


def test_a_rows_change_carries_its_table_map_and_the_event_as_it_came() -> None:
    log = Log()
    gtid, table_map, rows = log.mariadb_gtid(1), log.table_map(5), log.rows(5)
    found = read(gtid, table_map, rows)[-1]
    assert isinstance(found, Rows)
    assert (found.table.table, found.table.raw, found.event) == ("patient", table_map, rows)


def test_a_myisam_group_ends_with_the_statement_commit() -> None:
    log = Log()
    changes = read(log.mariadb_gtid(1), log.table_map(5), log.rows(5), log.query(b"COMMIT"))
    assert kinds(changes) == ["Begin", "Rows", "Commit"]
    assert changes[-1] == Commit(at(log.at), SECOND * 1_000_000, "0-1-1")


def test_a_transaction_without_gtid_is_begun_by_its_statement() -> None:
    log = Log()
    changes = read(log.query(b"BEGIN"), log.table_map(5), log.rows(5), log.xid())
    assert kinds(changes) == ["Begin", "Rows", "Commit"]
    assert changes[-1] == Commit(at(log.at), SECOND * 1_000_000, "")


def test_a_mysql_transaction_has_its_gtid_and_its_commit_time_in_microseconds() -> None:
    log = Log()
    moment = SECOND * 1_000_000 + 123_456
    changes = read(
        log.mysql_gtid(9, moment), log.query(b"BEGIN"), log.table_map(5), log.rows(5), log.xid()
    )
    assert kinds(changes) == ["Begin", "Rows", "Commit"]
    gtid = "00010203-0405-0607-0809-0a0b0c0d0e0f:9"
    assert changes[-1] == Commit(at(log.at), moment, gtid)


def test_the_commit_time_of_one_transaction_is_not_the_next_ones() -> None:
    log = Log()
    reader = TransactionReader(at(4))
    read(log.mysql_gtid(9, 5), log.query(b"BEGIN"), log.xid(), reader=reader)
    changes = read(log.mysql_gtid(10), log.query(b"BEGIN"), log.xid(), reader=reader)
    assert changes[-1] == Commit(
        at(log.at), SECOND * 1_000_000, "00010203-0405-0607-0809-0a0b0c0d0e0f:10"
    )


def test_a_schema_change_stands_alone() -> None:
    log = Log()
    reader = TransactionReader(at(4))
    changes = read(log.mariadb_gtid(4, flags=1), log.query(b"DROP TABLE t"), reader=reader)
    assert kinds(changes) == ["Statement"]
    (statement,) = changes
    assert isinstance(statement, Statement)
    assert (statement.position, statement.in_transaction, statement.gtid) == (
        at(log.at),
        False,
        "0-1-4",
    )
    assert statement.query.statement == b"DROP TABLE t"
    assert not reader.in_transaction


def test_a_statement_within_a_transaction_says_so() -> None:
    log = Log()
    changes = read(
        log.mariadb_gtid(4), log.query(b"SAVEPOINT `a`"), log.table_map(5), log.rows(5), log.xid()
    )
    assert kinds(changes) == ["Begin", "Statement", "Rows", "Commit"]
    assert isinstance(changes[1], Statement)
    assert changes[1].in_transaction


def test_rolling_back_to_a_savepoint_does_not_end_the_transaction() -> None:
    log = Log()
    reader = TransactionReader(at(4))
    changes = read(log.mariadb_gtid(4), log.query(b"ROLLBACK TO `a`"), reader=reader)
    assert kinds(changes) == ["Begin", "Statement"]
    assert reader.in_transaction


def test_a_group_that_ends_in_rollback_is_a_rollback() -> None:
    log = Log()
    changes = read(log.mariadb_gtid(4), log.table_map(5), log.rows(5), log.query(b"ROLLBACK"))
    assert kinds(changes) == ["Begin", "Rows", "Rollback"]
    assert changes[-1] == Rollback(at(log.at))


def test_a_stream_opened_inside_a_transaction_reads_its_rest() -> None:
    log = Log(1000)
    changes = read(
        artificial(EventType.ROTATE, (1000).to_bytes(8, "little") + FILE.encode()),
        artificial(EventType.FORMAT_DESCRIPTION, format_description_body(b"10.11.6-MariaDB-log")),
        log.table_map(5),
        log.rows(5),
        log.xid(),
    )
    assert kinds(changes) == ["Rows", "Commit"]


@pytest.mark.parametrize(("algorithm", "checksum"), [(1, 4), (0, 0)])
def test_the_create_of_a_create_select_ends_where_it_ends_though_11_8_does_not_say_so(
    algorithm: int, checksum: int
) -> None:
    log = Log()
    description = artificial(
        EventType.FORMAT_DESCRIPTION, format_description_body(b"11.8.6-MariaDB-log", algorithm)
    )
    create = log.unsaid(query := log.query(b"CREATE TABLE t (id INT)"))
    log.at = 4
    changes = read(
        description, log.mariadb_gtid(1), create, log.unsaid(log.table_map(5)), log.rows(5)
    )
    assert kinds(changes) == ["Begin", "Statement", "Rows"]
    assert isinstance(changes[1], Statement)
    gtid_end = len(log.mariadb_gtid(1)) + 4 + 4
    assert changes[1].position == at(gtid_end + len(query) + checksum)


def test_a_statement_behind_rows_has_no_place_that_11_8_would_tell() -> None:
    log = Log()
    events = [log.mariadb_gtid(1), log.unsaid(log.table_map(5)), log.unsaid(log.rows(5))]
    changes = read(*events, log.unsaid(log.query(b"CREATE TABLE t (id INT)")), log.xid())
    assert isinstance(changes[2], Statement)
    assert changes[2].position == at(0)
    assert isinstance(changes[3], Commit)
    assert changes[3].position == at(log.at)


def test_rows_without_a_table_map_halt() -> None:
    with pytest.raises(UnknownEvent, match=r"bin\.000001:.*no table map"):
        read(Log().rows(5))


def test_rows_that_only_end_a_statement_are_nothing() -> None:
    assert read(Log().rows(0xFFFFFF)) == []


def test_a_table_map_is_forgotten_with_the_binlog_file_it_stands_in() -> None:
    log = Log()
    with pytest.raises(UnknownEvent):
        read(log.table_map(5), log.rows(5), log.xid(), log.format_description(), log.rows(5))


def test_a_table_id_means_what_its_last_table_map_says() -> None:
    log = Log()
    changes = read(
        log.table_map(5, b"one"), log.rows(5), log.table_map(5, b"two"), log.rows(5), log.xid()
    )
    assert [c.table.table for c in changes if isinstance(c, Rows)] == ["one", "two"]


def test_a_rotation_moves_to_the_next_file() -> None:
    assert read(Log().rotate(b"bin.000002")) == [Moved(SourcePosition("bin.000002", 4))]


def test_a_rotation_made_up_for_the_stream_only_names_the_file() -> None:
    body = (4).to_bytes(8, "little") + b"bin.000009"
    log = Log(4)
    changes = read(artificial(EventType.ROTATE, body), log.mariadb_gtid(1), log.query(b"COMMIT"))
    assert kinds(changes) == ["Begin", "Commit"]
    assert changes[-1] == Commit(SourcePosition("bin.000009", log.at), SECOND * 1_000_000, "0-1-1")


def test_an_event_without_an_end_moves_nothing() -> None:
    body = format_description_body(b"10.11.6-MariaDB-log")
    assert read(artificial(EventType.FORMAT_DESCRIPTION, body)) == []


@pytest.mark.parametrize(
    "kind",
    [
        EventType.STOP,
        EventType.PREVIOUS_GTIDS,
        EventType.BINLOG_CHECKPOINT,
        EventType.MARIADB_GTID_LIST,
        EventType.START_ENCRYPTION,
        EventType.FORMAT_DESCRIPTION,
    ],
)
def test_events_between_transactions_move_the_position(kind: int) -> None:
    log = Log()
    body = format_description_body(b"10.11.6-MariaDB-log")
    assert read(log.add(kind, body)) == [Moved(at(log.at))]


@pytest.mark.parametrize("flags", [0, 1])
def test_events_inside_a_group_do_not_move_the_position(flags: int) -> None:
    log = Log()
    gtid = log.mariadb_gtid(1, flags=flags)
    changes = read(gtid, log.add(EventType.ANNOTATE_ROWS, b"x"), log.add(EventType.INTVAR, b"x"))
    assert "Moved" not in kinds(changes)


def test_an_event_of_an_unknown_type_halts_and_names_its_position() -> None:
    log = Log()
    with pytest.raises(UnknownEvent, match=r"type 99 .* bin\.000001:") as caught:
        read(log.add(99, b"what is this"))
    assert caught.value.hint


def test_an_event_of_an_unknown_type_passes_when_its_flag_allows_it() -> None:
    log = Log()
    assert read(log.add(99, b"new", flags=0x80)) == [Moved(at(log.at))]


def test_an_incident_halts() -> None:
    with pytest.raises(EventsLost, match="INCIDENT") as caught:
        read(Log().add(EventType.INCIDENT, b"\1\0"))
    assert "replicator resync --all" in caught.value.hint


@pytest.mark.parametrize("flags", [64, 128])
def test_an_xa_transaction_of_mariadb_halts(flags: int) -> None:
    with pytest.raises(UnsupportedStatement, match="XA"):
        read(Log().mariadb_gtid(1, flags=flags))


@pytest.mark.parametrize("sql", [b"XA START X'61',X'',1", b"XA COMMIT X'61',X'',1"])
def test_an_xa_transaction_of_mysql_halts(sql: bytes) -> None:
    log = Log()
    with pytest.raises(UnsupportedStatement, match=r"XA .*bin\.000001:"):
        read(log.mysql_gtid(1), log.query(sql))


def test_a_prepared_xa_transaction_halts() -> None:
    with pytest.raises(UnsupportedStatement, match="XA"):
        read(Log().add(EventType.XA_PREPARE, bytes(20)))


def test_compressed_rows_come_as_plain_ones() -> None:
    log = Log()
    table_map = log.table_map(5)
    body = (5).to_bytes(6, "little") + b"\1\0\1\xff" + compressed(b"\0\1\0\0\0")
    changes = read(table_map, log.add(EventType.WRITE_ROWS_COMPRESSED_V1, body))
    assert isinstance(changes[-1], Rows)
    plain = with_header(23, SECOND, 1, 0, rows_body(5, b"\xff\0\1\0\0\0"))
    assert changes[-1].event[17:] == plain[17:]
    assert changes[-1].event[4] == EventType.WRITE_ROWS_V1


def test_positions_are_of_the_class_that_the_reader_was_opened_with() -> None:
    reader = TransactionReader(ReplicaPosition(FILE, 4))
    (moved,) = read(Log().add(EventType.STOP, b""), reader=reader)
    assert isinstance(moved, Moved)
    assert type(moved.position) is ReplicaPosition


def test_a_transaction_that_a_crash_of_the_server_cut_off_is_rolled_back() -> None:
    log, after = Log(), Log()
    reader = TransactionReader(at(4))
    changes = read(log.mariadb_gtid(1), log.table_map(5), log.rows(5), reader=reader)
    next_file = artificial(EventType.ROTATE, (4).to_bytes(8, "little") + b"bin.000002")
    changes = read(next_file, after.format_description(), reader=reader)
    assert changes == [Rollback(SourcePosition("bin.000002", after.at))]
    assert not reader.in_transaction


def _maps_alive() -> int:
    gc.collect()
    return sum(isinstance(one, TableMap) for one in gc.get_objects())


@pytest.mark.parametrize("whole", [True, False], ids=["transactions", "maps alone"])
def test_table_maps_of_tables_that_are_opened_again_and_again_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """A server gives a table another id each time it opens it: every map is one of its own."""
    monkeypatch.setattr(transactions, "_MAX_CACHED_MAPS", 10_000)
    monkeypatch.setattr(transactions, "_MAX_NOTED_MAPS", 100)
    log, before = Log(), _maps_alive()
    reader = TransactionReader(SourcePosition(FILE, 4))
    for number in range(2000):
        if whole:
            read(log.query(b"BEGIN"), log.table_map(number), log.rows(number), log.xid(),
                 reader=reader)  # fmt: skip
        else:
            reader.table_map(log.table_map(number))
    assert _maps_alive() - before < 400


def test_a_statement_that_changes_several_tables_finds_the_maps_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transactions, "_MAX_CACHED_MAPS", 1)
    monkeypatch.setattr(transactions, "_MAX_NOTED_MAPS", 1)
    log, ids = Log(), range(5, 15)
    maps, rows = [log.table_map(one) for one in ids], [log.rows(one) for one in ids]
    changes = read(log.query(b"BEGIN"), *maps, *rows, log.xid())
    assert kinds(changes) == ["Begin", *["Rows"] * 10, "Commit"]

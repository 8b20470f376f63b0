"""What ExactMySQLReplicator sends, seen by a connection that only writes it down."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pymysql
import pytest

from config.errors import ApplyConflict, ConnectionLost, Halt, ServerBusy
from replicator.binlog.events import STMT_END_FLAG, TableMap, rows_flags, table_id_of
from replicator.binlog.position import ReplicaPosition, SourcePosition
from replicator.binlog.transactions import Begin, Moved, Rollback, TransactionReader
from replicator.exact import ExactMySQLReplicator
from replicator.reconcile import Outcome
from replicator.routes import Routes, Window
from replicator.tracking import Offset
from tests.unit.binlog.hand_made import SECOND, Log

from .test_batch import cut

FILE = "bin.000001"


class Wire:
    """The replica: takes every statement, or refuses the ones that it was told to."""

    _sock = None
    _next_seq_id = 0

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.refusal: Exception | None = None

    def _execute_command(self, command: int, statement: bytes) -> None:
        assert command == 3
        self.sent.append(statement)

    def _read_query_result(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    @property
    def statements(self) -> list[Any]:
        """Plain statements as text; BINLOG statements as what they change, in order."""
        return [_shown(statement) for statement in self.sent]


def _shown(statement: bytes) -> Any:
    if not statement.startswith(b"BINLOG"):
        return statement.decode()
    names, changes = {}, []
    for event in cut(base64.b64decode(statement[8:-1])):
        if event[4] == 19:
            assert table_id_of(event) not in names
            names[table_id_of(event)] = TableMap(event).table
        else:
            changes.append((names[table_id_of(event)], rows_flags(event) & STMT_END_FLAG))
    assert [ends for _, ends in changes] == [0] * (len(changes) - 1) + [1]
    return [name for name, _ in changes]


class Reconciling:
    """Notes what it was asked to reconcile."""

    def __init__(self, wire: Wire, keyless: bool = False) -> None:
        self.wire, self.keyless, self.notes = wire, keyless, False

    def apply(
        self, target: str, _table_map: TableMap, _event: bytes, *, settled: bool = False
    ) -> Outcome:
        self.wire.sent.append(f"reconcile {target}{' settled' if settled else ''}".encode())
        if self.keyless:
            return Outcome.COPY_AGAIN
        return Outcome.NOTED if self.notes else Outcome.EXACT


class Completing:
    """Finds virtual columns in the table `two`, and that events of so many bytes lack them."""

    def __init__(self, wire: Wire, lacking: Callable[[int], bool]) -> None:
        self.wire, self.lacking = wire, lacking

    def has(self, target: str) -> bool:
        return target == "two"

    def lacks(self, target: str, _table_map: TableMap, event: bytes) -> bool:
        return self.has(target) and self.lacking(len(event))

    def completed(self, target: str, _table_map: TableMap, event: bytes) -> Iterator[bytes]:
        self.wire.sent.append(f"complete {target}".encode())
        yield event

    def forget(self, tables: Iterable[str]) -> None:
        self.wire.sent.append(f"forget {' '.join(tables)}".encode())


class Stage:
    def __init__(
        self,
        limit: int = 1 << 20,
        keyless: bool = False,
        lacking: Callable[[int], bool] | None = None,
    ) -> None:
        self.wire = Wire()
        self.routes = Routes(lambda _table: True)
        for table in ("one", "two", "tag"):
            self.routes.stream(table)
        self.routes.skip("waiting")
        offset = Offset("main", SourcePosition(FILE, 4), 1, "")
        reconciler: Any = Reconciling(self.wire, keyless)
        self.reconciling: Reconciling = reconciler
        virtual: Any = None if lacking is None else Completing(self.wire, lacking)
        self.replicator = ExactMySQLReplicator(
            self.wire,
            "copy",
            offset,
            self.routes,
            source_database="opendental",
            limit=limit,
            reconciler=reconciler,
            virtual=virtual,
        )
        self.log = Log()
        self.reader = TransactionReader(SourcePosition(FILE, 4))
        self.ids: dict[bytes, int] = {}
        self.number = 0

    def feed(self, *events: bytes) -> None:
        for event in events:
            change = self.reader.feed(event)
            if change is not None:
                self.replicator.apply(change)

    def transaction(
        self, *changes: Any, end: Callable[[], bytes] | None = None, database: str = ""
    ) -> None:
        """`changes` are table names, or (name, id, flags)."""
        self.number += 1
        log = self.log
        self.feed(log.mariadb_gtid(self.number))
        for change in changes:
            name, table_id, flags = (change, None, 1) if isinstance(change, str) else change
            table_id = table_id or 1 + ["one", "two", "tag", "waiting"].index(name)
            where = (database or "opendental").encode()
            self.feed(
                log.table_map(table_id, name.encode(), where), log.rows(table_id, flags=flags)
            )
        self.feed((end or log.xid)())


OFFSET = "etl_binlog_offset"


def test_many_transactions_become_one_statement_that_ends_with_the_offset() -> None:
    stage = Stage()
    stage.transaction("one")
    stage.transaction("two", "one")
    stage.transaction("two")
    assert stage.wire.statements == []
    stage.replicator.flush()
    assert stage.wire.statements == [["one", "two", "one", "two", OFFSET]]
    assert stage.replicator.position == SourcePosition(FILE, stage.log.at)


def test_nothing_is_sent_when_nothing_has_happened() -> None:
    stage = Stage()
    stage.replicator.flush()
    assert stage.wire.statements == []
    assert stage.replicator.idle


def test_transactions_that_concern_nobody_move_the_offset_alone() -> None:
    stage = Stage()
    stage.transaction("waiting")
    stage.transaction("one", database="elsewhere")
    stage.replicator.apply(Begin())
    stage.replicator.apply(Moved(SourcePosition("bin.000002", 4)))
    stage.replicator.flush()
    assert stage.wire.statements == [[OFFSET]]
    assert stage.replicator.position == SourcePosition("bin.000002", 4)


def test_a_batch_never_spans_two_seconds_of_the_source() -> None:
    stage = Stage()
    stage.transaction("one")
    stage.transaction("two", end=lambda: stage.log.add(16, bytes(8), timestamp=SECOND + 1))
    stage.replicator.flush()
    assert stage.wire.statements == [["one", OFFSET], ["two", OFFSET]]


def test_a_table_under_a_new_id_begins_a_new_batch() -> None:
    stage = Stage()
    stage.transaction(("one", 1, 1))
    stage.transaction(("one", 8, 1))
    stage.replicator.flush()
    assert stage.wire.statements == [["one", OFFSET], ["one", OFFSET]]


def test_other_key_checks_begin_a_new_batch() -> None:
    stage = Stage()
    stage.transaction(("one", 1, 1))
    stage.transaction(("two", 2, 3))
    stage.replicator.flush()
    assert stage.wire.statements == [["one", OFFSET], ["two", OFFSET]]


@pytest.mark.parametrize("before", [[], ["two"]])
def test_a_transaction_that_fits_no_one_statement_is_sent_in_pieces(before: list[str]) -> None:
    stage = Stage()
    for table in before:
        stage.transaction(table)
    stage.transaction(("one", 1, 1), ("one", 8, 1), ("tag", 3, 1))
    stage.transaction(("one", 8, 1), ("tag", 3, 3))
    stage.transaction("two")
    stage.replicator.flush()
    assert stage.wire.statements == [
        *([["two", OFFSET]] if before else []),
        *("BEGIN", ["one"], ["one", "tag"], [OFFSET], "COMMIT"),
        *("BEGIN", ["one"], ["tag"], [OFFSET], "COMMIT"),
        ["two", OFFSET],
    ]


def test_a_transaction_larger_than_a_batch_is_sent_between_begin_and_commit() -> None:
    stage = Stage(limit=60)
    stage.transaction("one")
    stage.transaction("two", "two", "two")
    assert stage.wire.statements == [["one", OFFSET], "BEGIN", ["two"], ["two"], [OFFSET],
                                     "COMMIT"]  # fmt: skip
    assert stage.replicator.idle


def test_a_flush_within_a_large_transaction_commits_nothing() -> None:
    stage = Stage(limit=10)
    stage.feed(stage.log.mariadb_gtid(1), stage.log.table_map(1, b"one"), stage.log.rows(1))
    stage.replicator.flush()
    assert stage.wire.statements == ["BEGIN", ["one"]]
    assert stage.replicator.position == SourcePosition(FILE, 4)
    assert not stage.replicator.idle


def test_a_group_that_is_rolled_back_leaves_only_its_position() -> None:
    stage = Stage()
    stage.transaction("one")
    stage.transaction("two", end=lambda: stage.log.query(b"ROLLBACK"))
    stage.replicator.flush()
    assert stage.wire.statements == [["one", OFFSET]]
    assert stage.replicator.position == SourcePosition(FILE, stage.log.at)


def test_a_large_transaction_that_is_rolled_back_is_rolled_back_on_the_replica() -> None:
    stage = Stage(limit=60)
    stage.transaction("two", "two", "two", end=lambda: stage.log.query(b"ROLLBACK"))
    stage.replicator.flush()
    assert stage.wire.statements == ["BEGIN", ["two"], "ROLLBACK", [OFFSET]]


def test_a_savepoint_is_set_behind_what_the_transaction_has_sent() -> None:
    stage = Stage()
    stage.transaction("one")
    stage.feed(stage.log.mariadb_gtid(5), stage.log.table_map(1, b"one"), stage.log.rows(1))
    stage.replicator.run_inside_transaction("SAVEPOINT `a`")
    stage.feed(stage.log.table_map(2, b"two"), stage.log.rows(2), stage.log.xid())
    assert stage.wire.statements == [
        ["one", OFFSET], "BEGIN", ["one"], "SAVEPOINT `a`", ["two"], [OFFSET], "COMMIT",
    ]  # fmt: skip


def test_rows_in_a_window_are_reconciled_in_their_place_among_the_others() -> None:
    stage = Stage()
    stage.routes.stream("two", window=Window(SourcePosition(FILE, 4), SourcePosition(FILE, 9999)))
    stage.transaction("one", "two", "one")
    assert stage.wire.statements == [
        "BEGIN", ["one"], "reconcile two", ["one"], [OFFSET], "COMMIT",
    ]  # fmt: skip


def test_a_table_without_a_key_that_changed_in_its_window_is_dirty_and_left_alone() -> None:
    stage = Stage(keyless=True)
    stage.routes.stream("two", window=Window(SourcePosition(FILE, 4), SourcePosition(FILE, 9999)))
    stage.transaction("two", "two")
    assert stage.wire.statements.count("reconcile two") == 1
    assert stage.replicator.dirty == {"two"}


def test_a_table_with_rows_to_be_read_again_is_reconciled_beyond_its_window() -> None:
    stage = Stage()
    stage.routes.stream("two", window=Window(SourcePosition(FILE, 4), SourcePosition(FILE, 5)))
    stage.reconciling.notes = True
    stage.transaction("two")
    stage.transaction("two")
    assert [s for s in stage.wire.statements if "two" in s] == [
        "reconcile two", "reconcile two settled",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "words"), [(1062, "already there"), (1032, "is not there"), (1105, "columns")]
)
def test_a_refusal_of_rows_names_the_tables_and_no_value(code: int, words: str) -> None:
    stage = Stage()
    stage.transaction("one", "two")
    stage.wire.refusal = pymysql.IntegrityError(code, "Duplicate entry 'Smith' for key 'x'")
    with pytest.raises(ApplyConflict, match=words) as caught:
        stage.replicator.flush()
    assert "one, two" in str(caught.value)
    assert "Smith" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"
    assert caught.value.__suppress_context__
    assert stage.replicator.position == SourcePosition(FILE, 4)


@pytest.mark.parametrize(("code", "expected"), [(1205, ServerBusy), (2013, ConnectionLost)])
def test_a_replica_that_is_busy_or_away_is_waited_for(code: int, expected: type) -> None:
    stage = Stage()
    stage.transaction("one")
    stage.wire.refusal = pymysql.OperationalError(code, "not now")
    with pytest.raises(expected):
        stage.replicator.flush()


def test_a_position_of_the_replica_is_refused() -> None:
    with pytest.raises(Halt):
        Stage().replicator.apply(Rollback(ReplicaPosition(FILE, 4)))


def test_the_offset_is_not_moved_over_rows_that_wait() -> None:
    stage = Stage()
    stage.transaction("one")
    with pytest.raises(AssertionError):
        stage.replicator.moved_to(stage.replicator.committed)


def test_what_was_applied_is_counted() -> None:
    stage = Stage()
    stage.transaction("one", "two")
    stage.transaction("waiting")
    stage.replicator.flush()
    applied = stage.replicator.applied
    assert (applied.transactions, applied.statements, applied.row_events) == (2, 1, 2)
    assert stage.replicator.touched == {"one", "two"}


def test_an_event_that_lacks_virtual_columns_is_completed_in_a_transaction_of_its_own() -> None:
    stage = Stage(lacking=lambda _size: True)
    stage.transaction("one")
    stage.transaction("one", "two", "one")
    stage.transaction("one")
    stage.replicator.flush()
    assert stage.wire.statements == [
        ["one", OFFSET],
        "BEGIN",
        ["one"],
        "complete two",
        ["two"],
        ["one"],
        [OFFSET],
        "COMMIT",
        ["one", OFFSET],
    ]


def test_an_event_that_lacks_nothing_goes_with_the_others() -> None:
    stage = Stage(lacking=lambda _size: False)
    stage.transaction("one")
    stage.transaction("two")
    stage.replicator.flush()
    assert stage.wire.statements == [["one", "two", OFFSET]]


def test_tables_whose_definition_has_changed_are_looked_at_anew() -> None:
    stage = Stage(lacking=lambda _size: False)
    stage.replicator.moved_to(stage.replicator.committed, ["one", "two"])
    assert stage.wire.statements == ["forget one two"]

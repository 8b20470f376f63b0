"""Folding: the last state of each key wins, and nothing else is left."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.batch import Batch, Limits
from loader.rows import DELETE, INSERT, UPDATE, RowChange, TablePlan
from loader.types import RawColumn
from loader.values import ValueFault
from replicator.binlog.schema import TableSchema

COLUMNS = (RawColumn("id", "integer"), RawColumn("v", "text"))


def plan(*key: int) -> TablePlan:
    return TablePlan(TableSchema("t", (), ()), COLUMNS, key, (), ())


KEYED, KEYLESS = plan(0), plan()
keys = st.integers(0, 5).map(lambda number: b"%d" % number)
rows = st.tuples(keys, st.sampled_from([b"a", b"b"])).map(b"\t".join)


def insert(row: bytes) -> RowChange:
    return RowChange(INSERT, row.split(b"\t")[0], row, ())


def delete(key: bytes) -> RowChange:
    return RowChange(DELETE, key, None, ())


@given(st.lists(st.one_of(rows.map(insert), keys.map(delete))))
def test_a_fold_leaves_what_a_dictionary_would(changes: list[RowChange]) -> None:
    model: dict[bytes, bytes | None] = {}
    for change in changes:
        assert change.key is not None
        model[change.key] = change.row
    batch = Batch()
    batch.fold(KEYED, changes, b"now", 0.0)
    folded = {key: image.row for key, image in batch.tables["t"].images.items()}
    assert folded == model
    assert batch.rows == len(changes)


@given(st.lists(rows, max_size=30), st.lists(st.tuples(st.booleans(), rows), max_size=30))
def test_without_a_key_a_fold_counts_copies(
    there: list[bytes], steps: list[tuple[bool, bytes]]
) -> None:
    model, changes = Counter(there), []
    for adds, row in steps:
        if not adds and not model[row]:
            continue
        model[row] += 1 if adds else -1
        operation = INSERT if adds else DELETE
        changes.append(RowChange(operation, row, row if adds else None, ()))
    batch = Batch()
    batch.fold(KEYLESS, changes, b"now", 0.0)
    after = Counter(there)
    for row, net in batch.tables["t"].copies.items():
        assert net != 0
        after[row] += net
    assert +after == +model


def test_a_row_carries_the_time_of_its_last_transaction() -> None:
    batch = Batch()
    batch.fold(KEYED, [insert(b"1\ta")], b"first", 0.0)
    batch.fold(KEYED, [RowChange(UPDATE, b"1", b"1\tb", ())], b"second", 1.0)
    assert batch.tables["t"].images[b"1"].source_ts == b"second"


def test_the_faults_of_an_overwritten_row_are_gone() -> None:
    fault = ValueFault("v", b"\0", "NUL in text")
    batch = Batch()
    batch.fold(KEYED, [RowChange(INSERT, b"1", b"1\t\\N", (fault,)), insert(b"1\ta")], b"", 0.0)
    assert batch.tables["t"].images[b"1"].faults == ()


def test_a_row_whose_key_cannot_be_held_is_only_noted() -> None:
    fault = ValueFault("id", b"\0", "no such date in PostgreSQL")
    batch = Batch()
    batch.fold(KEYED, [RowChange(INSERT, None, b"\\N\ta", (fault,))], b"", 0.0)
    assert batch.tables["t"].size == 0
    assert batch.tables["t"].unwritable == [fault]


def test_a_batch_refuses_a_second_plan_for_a_table() -> None:
    batch, other = Batch(), plan(0)
    batch.fold(KEYED, [insert(b"1\ta")], b"", 0.0)
    assert not batch.holds_other_plan(KEYED)
    assert batch.holds_other_plan(other)
    with pytest.raises(ValueError, match="one plan"):
        batch.fold(other, [insert(b"2\ta")], b"", 0.0)


def test_a_batch_is_full_by_rows_bytes_or_age() -> None:
    batch = Batch()
    assert not batch
    assert not batch.full(Limits(1, 1, 0.0), 100.0)
    batch.fold(KEYED, [insert(b"1\tabc"), insert(b"2\tabc")], b"", 10.0)
    assert batch
    assert batch.full(Limits(2, 1000, 60.0), 10.0)
    assert batch.full(Limits(1000, 10, 60.0), 10.0)
    assert batch.full(Limits(1000, 1000, 5.0), 15.0)
    assert not batch.full(Limits(1000, 1000, 5.0), 14.0)

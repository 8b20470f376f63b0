"""A batch: whole transactions, a fold for each table, cut by rows, bytes or age."""

from __future__ import annotations

import pytest

from loader.batch import Batch, Limits
from tests.unit.loader.test_fold import INSERT, KEYED, event_of
from tests.unit.loader.test_kernel import plan_of


def inserts(*keys: int) -> list[bytes]:
    return [event_of((INSERT, key, 0, b"abc", True)) for key in keys]


def test_a_row_carries_the_time_of_its_last_transaction() -> None:
    batch = Batch()
    batch.fold(KEYED, inserts(1, 2), b"first", 0.0)
    batch.fold(KEYED, inserts(1), b"second", 1.0)
    fold = batch.tables["t"]
    stamps = {state.key: state.source_ts for state in fold.states()}  # type: ignore[union-attr]
    assert stamps == {b"1": b"second", b"2": b"first"}
    assert batch.rows == 3


def test_a_batch_refuses_a_second_plan_for_a_table() -> None:
    batch, other = Batch(), plan_of(key=())
    batch.fold(KEYED, inserts(1), b"", 0.0)
    assert not batch.holds_other_plan(KEYED)
    assert batch.holds_other_plan(other)
    with pytest.raises(ValueError, match="one plan"):
        batch.fold(other, inserts(2), b"", 0.0)


def test_a_batch_is_full_by_rows_bytes_or_age() -> None:
    batch = Batch()
    assert not batch
    assert not batch.full(Limits(1, 1, 0.0), 100.0)
    batch.fold(KEYED, inserts(1, 2), b"", 10.0)
    assert batch
    assert batch.full(Limits(2, 10**6, 60.0), 10.0)
    assert batch.full(Limits(1000, 40, 60.0), 10.0)
    assert batch.full(Limits(1000, 10**6, 5.0), 15.0)
    assert not batch.full(Limits(1000, 10**6, 5.0), 14.0)


def test_overwritten_rows_count_as_memory() -> None:
    batch = Batch()
    batch.fold(KEYED, inserts(1), b"", 0.0)
    before = batch.bytes
    batch.fold(KEYED, inserts(*[1] * 100), b"", 0.0)
    assert batch.bytes > before + 300
    assert batch.tables["t"].size == 1

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.binlog.position import BinlogPosition, ReplicaPosition, SourcePosition

places = st.tuples(st.integers(1, 2_000_000), st.integers(4, 2**40))


@given(places, places)
def test_positions_are_ordered_by_file_number_and_then_by_offset(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    left = SourcePosition(f"bin.{one[0]:06}", one[1])
    right = SourcePosition(f"bin.{other[0]:06}", other[1])
    assert (left < right, left <= right, left == right) == (
        one < other,
        one <= other,
        one == other,
    )


def test_the_file_after_number_999999_comes_after_it() -> None:
    assert SourcePosition("bin.999999", 4) < SourcePosition("bin.1000000", 4)


@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
def test_positions_of_source_and_replica_refuse_to_be_compared(
    compare: Callable[[BinlogPosition, BinlogPosition], bool],
) -> None:
    with pytest.raises(TypeError):
        compare(SourcePosition("bin.000001", 4), ReplicaPosition("bin.000001", 4))


def test_positions_of_source_and_replica_are_never_equal() -> None:
    positions: list[BinlogPosition] = [SourcePosition("bin.000001", 4)]
    assert ReplicaPosition("bin.000001", 4) not in positions


def test_a_position_reads_as_file_and_offset() -> None:
    assert str(SourcePosition("bin.000003", 77)) == "bin.000003:77"

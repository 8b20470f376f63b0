"""Which rows are refused, found by halves; and what may be said about why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.quarantine.refusals import Reason, pipeline, refusal, refused

WHY = Reason("23514", "check violation (SQLSTATE 23514)")


@given(st.integers(1, 300), st.sets(st.integers(0, 299)))
def test_exactly_the_bad_ones_are_found_in_order_and_all_others_written(
    count: int, bad: set[int]
) -> None:
    written: list[int] = []
    attempts = 0

    def write(some: Sequence[int]) -> Reason | None:
        nonlocal attempts
        attempts += 1
        if bad & set(some):
            return WHY
        written.extend(some)
        return None

    expected = sorted(bad & set(range(count)))
    assert refused(range(count), write) == [(number, WHY) for number in expected]
    assert written == [number for number in range(count) if number not in bad]
    assert attempts <= 1 + 2 * len(expected) * math.ceil(math.log2(count) if count > 1 else 1)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_of_units_that_exclude_each_other_the_first_is_written(values: list[int]) -> None:
    held: dict[int, int] = {}

    def write(some: Sequence[int]) -> Reason | None:
        wanted = [values[number] for number in some]
        if len(set(wanted)) < len(wanted) or any(value in held for value in wanted):
            return WHY
        held.update((values[number], number) for number in some)
        return None

    left = {number for number, _ in refused(range(len(values)), write)}
    firsts = {values.index(value) for value in set(values)}
    assert left == set(range(len(values))) - firsts
    assert set(held.values()) == firsts


def test_nothing_is_tried_of_nothing() -> None:
    assert refused([], lambda _: pytest.fail("tried")) == []


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.DeadlockDetected,
        psycopg.errors.LockNotAvailable,
        psycopg.errors.DiskFull,
        psycopg.errors.OutOfMemory,
        psycopg.errors.InsufficientPrivilege,
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.AdminShutdown,
        psycopg.errors.QueryCanceled,
        psycopg.errors.ReadOnlySqlTransaction,
        psycopg.errors.InternalError_,
        psycopg.errors.CardinalityViolation,
        psycopg.OperationalError,
        psycopg.InterfaceError,
    ],
)
def test_what_is_not_about_a_row_is_left_to_others(error: type[psycopg.Error]) -> None:
    assert refusal(error("Synthetic-Zebra")) is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (psycopg.errors.CheckViolation, "check violation (SQLSTATE 23514)"),
        (psycopg.errors.NumericValueOutOfRange, "numeric value out of range (SQLSTATE 22003)"),
        (psycopg.errors.ProgramLimitExceeded, "program limit exceeded (SQLSTATE 54000)"),
        (psycopg.errors.RaiseException, "raise exception (SQLSTATE P0001)"),
    ],
)
def test_a_reason_is_the_class_of_the_error_and_never_its_message(
    error: type[psycopg.Error], words: str
) -> None:
    found = refusal(error("Synthetic-Zebra"))
    assert found is not None
    assert found.text == words


def test_the_error_behind_an_aborted_pipeline_counts() -> None:
    aborted = psycopg.errors.PipelineAborted("pipeline aborted")
    assert refusal(aborted) is None
    aborted.__context__ = psycopg.errors.NotNullViolation("Synthetic-Zebra")
    found = refusal(aborted)
    assert found is not None
    assert not found.liftable
    aborted.__context__ = psycopg.errors.DeadlockDetected()
    assert refusal(aborted) is None


class _BreaksOff:
    """A connection that an administrator ends: psycopg says then that no pipeline can be ended."""

    def __init__(self, *told: psycopg.Error) -> None:
        self._told = told

    @contextmanager
    def pipeline(self) -> Iterator[None]:
        try:
            yield
            for one in self._told:
                raise one
        finally:
            raise psycopg.OperationalError("cannot exit pipeline mode while busy")


@pytest.mark.parametrize("told", [(psycopg.errors.AdminShutdown("ended"),), ()])
def test_a_pipeline_that_cannot_be_ended_tells_what_the_server_said_before(
    told: tuple[psycopg.Error, ...],
) -> None:
    connection = cast("Any", _BreaksOff(*told))
    with pytest.raises(psycopg.OperationalError) as raised, pipeline(connection):
        pass
    assert raised.value is told[0] if told else "while busy" in str(raised.value)

"""How a first copy's tables are dealt out to its workers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicator.first_copy import GROUP_BYTES, GROUP_TABLES, SMALL_BYTES, jobs_of
from replicator.source import SourceTable

sizes = st.lists(st.integers(0, 5000), max_size=80)


def tables(rows: list[int]) -> list[SourceTable]:
    return [SourceTable(f"t{at:03}", "InnoDB", count, 100) for at, count in enumerate(rows)]


@given(sizes, st.integers(1, 8))
def test_each_table_is_in_one_job_and_large_ones_come_first_and_alone(
    rows: list[int], workers: int
) -> None:
    there = tables(rows)
    begun = [table.name for table in there[::7]]
    jobs = list(jobs_of(there, begun, workers))
    assert sorted(t.name for job in jobs for t in job) == [t.name for t in there]
    for job in jobs:
        assert len(job) <= GROUP_TABLES
        assert sum(t.rows * t.average_row_bytes for t in job) <= GROUP_BYTES or len(job) == 1
        if any(t.rows * 100 > SMALL_BYTES or t.name in begun for t in job):
            assert len(job) == 1
    alone = [job[0].rows for job in jobs if job[0].rows * 100 > SMALL_BYTES]
    assert alone == sorted(alone, reverse=True)


def test_few_small_tables_are_shared_among_the_workers() -> None:
    assert [len(job) for job in jobs_of(tables([1] * 6), [], 2)] == [3, 3]

"""Which of the replica's binlog files may go, and what would take one too early. Pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loader.retention import File, Stand, first_to_keep, threats
from replicator.binlog.position import ReplicaPosition

DAY = 86_400
FILES = [File(f"replica-bin.{number:06d}", 100) for number in range(3, 9)]
NOW = 1_700_000_000.0


def stand(number: int, *, behind: float = 0.0) -> Stand:
    return Stand(ReplicaPosition(f"replica-bin.{number:06d}", 4), int(NOW - behind))


def name(number: int) -> str:
    return f"replica-bin.{number:06d}"


def test_what_the_slowest_loader_has_passed_may_go_but_for_the_reserve() -> None:
    assert first_to_keep(FILES, [name(8)], 1) == name(7)
    assert first_to_keep(FILES, [name(8)], 101) == name(6)
    assert first_to_keep(FILES, [name(8), name(5)], 1) == name(4)
    assert first_to_keep(FILES, [name(8), name(5)], 200) is None
    assert first_to_keep(FILES, [name(3)], 1) is None


def test_nothing_goes_where_nobody_is_known_to_have_passed_it() -> None:
    assert first_to_keep(FILES, [], 1) is None
    assert first_to_keep(FILES, [name(8)], 0) is None  # off
    assert first_to_keep(FILES, ["other-bin.000008"], 1) is None
    assert first_to_keep(FILES, [name(9)], 1) is None  # the server's numbers began again
    assert first_to_keep([], [name(8)], 1) is None


def test_a_loader_whose_file_is_gone_holds_nothing() -> None:
    assert first_to_keep(FILES, [name(8), name(1)], 1) == name(7)


@given(
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=30),
    needed=st.lists(st.integers(0, 29), min_size=1, max_size=4),
    reserve=st.integers(1, 5000),
)
def test_no_file_goes_that_a_loader_has_not_passed(
    sizes: list[int], needed: list[int], reserve: int
) -> None:
    files = [File(name(number), size) for number, size in enumerate(sizes)]
    keep = first_to_keep(files, [name(number) for number in needed], reserve)
    if keep is not None:
        first = [file.name for file in files].index(keep)
        slowest = min(number for number in needed if number < len(files))
        assert 0 < first <= slowest
        assert sum(sizes[first:slowest]) >= reserve


def test_what_the_server_may_take_too_early_is_told_by_its_name() -> None:
    def told(at: Stand, **variables: str) -> list[str]:
        return [variable for variable, _ in threats(variables, FILES, at, NOW)]

    assert told(stand(8), binlog_expire_logs_seconds=str(3 * DAY)) == []
    assert told(stand(8), binlog_expire_logs_seconds="0", expire_logs_days="0") == []
    assert told(stand(8), binlog_expire_logs_seconds="3600") == ["binlog_expire_logs_seconds"]
    late = stand(4, behind=2 * DAY)
    assert told(late, binlog_expire_logs_seconds=str(3 * DAY)) == ["binlog_expire_logs_seconds"]
    assert told(late, expire_logs_days="3") == ["expire_logs_days"]
    both = {"binlog_expire_logs_seconds": str(3 * DAY), "expire_logs_days": "3"}
    assert told(late, **both) == ["binlog_expire_logs_seconds"]
    assert told(stand(8, behind=9 * DAY), binlog_expire_logs_seconds=str(3 * DAY)) == []
    assert told(stand(8), max_binlog_total_size="500") == []
    assert told(stand(4), max_binlog_total_size="500") == ["max_binlog_total_size"]

"""What is made of a look at a server: bytes, transactions, and when it will purge."""

from __future__ import annotations

import pytest

from replicator.binlog.lookout import (
    Rotations,
    Sight,
    kept_seconds,
    purge_in,
    transactions_behind,
)
from replicator.binlog.position import SourcePosition

FILES = (("bin.000007", 500), ("bin.000008", 1000), ("bin.000009", 300))
DAY = 86400.0


def at(number: int, offset: int = 4) -> SourcePosition:
    return SourcePosition(f"bin.{number:06d}", offset)


def sight(keeps: float | None = DAY) -> Sight:
    return Sight(at(9, 300), "", FILES, keeps)


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"binlog_expire_logs_seconds": "604800"}, 604800.0),
        ({"binlog_expire_logs_seconds": "864000", "expire_logs_days": "10.000000"}, 864000.0),
        ({"binlog_expire_logs_seconds": "0", "expire_logs_days": "2"}, 2 * DAY),
        ({"expire_logs_days": "0"}, 0.0),
        ({"binlog_expire_logs_seconds": "60", "binlog_expire_logs_auto_purge": "OFF"}, 0.0),
        ({}, None),
    ],
)
def test_each_flavours_variables_say_how_long_files_are_kept(
    variables: dict[str, str], seconds: float | None
) -> None:
    assert kept_seconds(variables) == seconds


def test_the_file_that_is_being_written_has_its_whole_time_before_it() -> None:
    assert purge_in(sight(), Rotations(), at(9), began=1.0, now=50_000.0) == DAY


def test_a_file_that_was_seen_to_end_is_kept_from_then_on() -> None:
    rotations = Rotations()
    for file, now in (("bin.000008", 900.0), ("bin.000008", 960.0), ("bin.000009", 1000.0)):
        rotations.saw(file, now)
    assert purge_in(sight(), rotations, at(8), began=1.0, now=4600.0) == DAY - 3600


def test_of_another_file_its_beginning_is_known() -> None:
    assert purge_in(sight(), Rotations(), at(8), began=1000.0, now=4600.0) == DAY - 3600
    assert purge_in(sight(), Rotations(), at(8), began=1000.0, now=999_999.0) == 0.0
    assert purge_in(sight(), Rotations(), at(8), began=None, now=4600.0) is None


def test_what_is_purged_is_purged_and_what_is_kept_for_ever_is_kept() -> None:
    assert purge_in(sight(), Rotations(), at(6), began=1.0, now=2.0) == 0.0
    assert purge_in(sight(0.0), Rotations(), at(8), began=1.0, now=2.0) == float("inf")
    assert purge_in(sight(None), Rotations(), at(8), began=1.0, now=2.0) is None
    assert purge_in(Sight(), Rotations(), at(8), began=1.0, now=2.0) is None


U, V = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"


@pytest.mark.parametrize(
    ("have", "there", "count"),
    [
        ("0-1-100", "0-1-107", 7),
        ("0-1-100,0-2-104", "0-1-107", 3),
        ("0-1-100,5-1-3", "0-2-101,5-1-5", 3),
        ("0-1-100", "0-1-100", 0),
        ("0-1-100", "0-1-90", 0),
        (f"{U}:1-10", f"{U}:1-15", 5),
        (f"{U}:1-10:12", f"{U}:1-15,{V}:1-2", 4 + 2),
        ("", f"{U}:1-15", None),
        ("0-1-1", "", None),
        ("nonsense", "0-1-1", None),
    ],
)
def test_transactions_are_counted_by_gtid(have: str, there: str, count: int | None) -> None:
    assert transactions_behind(have, there) == count

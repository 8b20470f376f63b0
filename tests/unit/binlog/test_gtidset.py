"""Sets of GTIDs: what they hold, and how they are written."""

from __future__ import annotations

import random

import pytest

from replicator.binlog.gtidset import GtidSet

A, B = "11111111-2222-3333-4444-555555555555", "aaaaaaaa-2222-3333-4444-555555555555"


def test_numbers_one_by_one_become_intervals() -> None:
    found = GtidSet()
    for number in (1, 2, 3, 7, 5, 6):
        found.add(f"{A}:{number}")
    assert str(found) == f"{A}:1-3:5-7"
    found.add(f"{A}:4")
    assert str(found) == f"{A}:1-7"


def test_numbers_in_any_order_are_the_same_set() -> None:
    numbers = list(range(1, 40))
    for seed in range(20):
        random.Random(seed).shuffle(numbers)
        found = GtidSet()
        for number in numbers:
            found.add(f"{A}:{number}")
        assert str(found) == f"{A}:1-39"


def test_of_a_mariadb_server_the_last_in_each_domain_counts() -> None:
    found = GtidSet.parse("0-1-5,1-1-2")
    found.add("0-3-6")
    found.add("0-1-7")
    assert str(found) == "0-1-7,0-3-6,1-1-2"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("", ""),
        ("[0-1-3]", "0-1-3"),
        ("[]", ""),
        (f"{B}:1-3,\n{A}:1-5:7:9-10", f"{A}:1-5:7:9-10,{B}:1-3"),
        (f"{A}:1-5:nightly:1-3:5", f"{A}:1-5,{A}:nightly:1-3:5"),
        (f"{A.upper()}:4", f"{A}:4"),
    ],
)
def test_a_servers_text_is_read_and_written(text: str, plain: str) -> None:
    assert str(GtidSet.parse(text)) == plain
    assert str(GtidSet.parse(plain)) == plain


@pytest.mark.parametrize("text", ["nonsense", "0-1-x", f"{A}"])
def test_what_is_no_gtid_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"GTID|int"):
        GtidSet.parse(text)


@pytest.mark.parametrize(
    ("small", "large", "holds"),
    [
        ("", f"{A}:1", True),
        (f"{A}:2-3", f"{A}:1-5", True),
        (f"{A}:2-6", f"{A}:1-5:7", False),
        (f"{A}:1,{B}:1", f"{A}:1-5", False),
        (f"{A}:nightly:1", f"{A}:1-5", False),
        ("0-1-5", "0-1-7,1-1-1", True),
        ("0-1-5", "0-1-4", False),
        ("0-1-5", "0-2-7", False),
        ("0-1-5,2-1-1", "0-1-9", False),
    ],
)
def test_whether_a_set_holds_another(small: str, large: str, holds: bool) -> None:
    assert (GtidSet.parse(small) <= GtidSet.parse(large)) is holds


def test_sets_are_equal_by_what_they_hold() -> None:
    assert GtidSet.parse(f"{A}:1:2:3") == GtidSet.parse(f"{A}:1-3")
    assert GtidSet.parse("0-1-3") != GtidSet.parse("0-2-3")

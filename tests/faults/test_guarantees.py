"""docs/guarantees.md: each fault of its table has tests that exist, and no test is left out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _rows() -> list[list[str]]:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip(" |") for cell in row] for row in rows[1:]]


def _tests(*places: str) -> set[str]:
    files = [path for place in places for path in (ROOT / place).rglob("test_*.py")]
    found = (re.findall(r"^def (test_\w+)", p.read_text(encoding="utf-8"), re.M) for p in files)
    return {name for names in found for name in names}


def test_every_fault_of_the_table_names_tests_that_exist_or_says_that_it_is_untested() -> None:
    known = _tests("tests")
    assert len(_rows()) >= 9
    for fault, _what_happens, tests, tries, *lost_and_doubled in _rows():
        named = re.findall(r"test_\w+", tests)
        if tests == "untested":
            assert int(tries) == 0, fault
            continue
        assert named, fault
        assert set(named) <= known, (fault, set(named) - known)
        assert int(tries) > 0, fault
        assert lost_and_doubled == ["0", "0"], fault


def test_every_test_of_a_fault_stands_in_the_table() -> None:
    ours = {path.stem for path in (ROOT / "tests" / "faults").glob("test_*.py")}
    table = " ".join(tests for _fault, _what, tests, *_rest in _rows())
    about_the_frame = _tests("tests/faults") - set(re.findall(r"test_\w+", table))
    assert about_the_frame == {
        "test_every_fault_of_the_table_names_tests_that_exist_or_says_that_it_is_untested",
        "test_every_test_of_a_fault_stands_in_the_table",
        "test_the_catalogue_names_every_point_in_the_code_and_no_other",
    }
    assert ours

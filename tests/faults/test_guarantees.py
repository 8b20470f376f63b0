"""docs/guarantees.md: each promise and fault has tests that exist, and no test is left out."""

from __future__ import annotations

import re
from pathlib import Path

from tests.faults.burden import MEMORY

ROOT = Path(__file__).parents[2]
PROMISED, TRIED, LOADS = "The promise, word by word", "What is tried", "How much"
MIB = re.compile(r"(\d+) MiB")


def _section(heading: str) -> str:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    found = text.partition(f"\n## {heading}\n")[2]
    assert found, f"no section {heading!r}"
    return found.partition("\n## ")[0]


def _rows(heading: str) -> list[list[str]]:
    """The table of that section."""
    lines = [line for line in _section(heading).splitlines() if line.startswith("| ")]
    rows = [line.strip("| ").split(" | ") for line in lines]
    return [[cell.strip(" |") for cell in row] for row in rows[1:]]


def _named(text: str) -> list[str]:
    return re.findall(r"test_\w+", text)


def _plain(text: str) -> str:
    """Without emphasis, links and lines."""
    return " ".join(re.sub(r"\[(.*?)\]\(.*?\)", r"\1", text).replace("*", "").split()).lower()


def _tests(*places: str) -> set[str]:
    files = [path for place in places for path in (ROOT / place).rglob("test_*.py")]
    found = (re.findall(r"^def (test_\w+)", p.read_text(encoding="utf-8"), re.M) for p in files)
    return {name for names in found for name in names}


def test_every_fault_of_the_table_names_tests_that_exist_or_says_that_it_is_untested() -> None:
    known = _tests("tests")
    assert len(_rows(TRIED)) >= 9
    for fault, _what_happens, tests, tries, *lost_and_doubled in _rows(TRIED):
        if tests == "untested":
            assert int(tries) == 0, fault
            assert not any(lost_and_doubled), fault
            continue
        named = _named(tests)
        assert named, fault
        assert set(named) <= known, (fault, set(named) - known)
        assert int(tries) >= len(named), fault
        assert lost_and_doubled == ["0", "0"], fault


def test_every_test_of_a_fault_stands_in_the_table() -> None:
    table = {name for _fault, _what, tests, *_rest in _rows(TRIED) for name in _named(tests)}
    assert _tests("tests/faults") - table == {
        "test_every_fault_of_the_table_names_tests_that_exist_or_says_that_it_is_untested",
        "test_every_test_of_a_fault_stands_in_the_table",
        "test_every_word_of_the_promise_has_tests_and_stands_in_the_promise",
        "test_every_load_has_a_test_and_stayed_below_its_bound",
        "test_the_catalogue_names_every_point_in_the_code_and_no_other",
    }


def test_every_word_of_the_promise_has_tests_and_stands_in_the_promise() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    promise = _plain(text.partition("\n## ")[0])
    rows = _rows(PROMISED)
    for words, tests in rows:
        assert _plain(words).partition(",")[0] in promise, words
        assert _named(tests), words
        assert set(_named(tests)) <= _tests("tests"), words
    assert len(rows) >= 6


def test_every_load_has_a_test_and_stayed_below_its_bound() -> None:
    rows = _rows(LOADS)
    bounded = {name for name in _tests("tests/faults") if name.endswith("_within_bounds")}
    assert {name for _load, test, *_ in rows for name in _named(test)} == bounded
    for load, _test, *peaks, seconds in rows:
        found = [int(MIB.fullmatch(peak)[1]) for peak in peaks if MIB.fullmatch(peak)]  # type: ignore[index]
        assert len(found) == 2, load
        assert max(found) << 20 <= MEMORY, load
        assert float(seconds) > 0, load

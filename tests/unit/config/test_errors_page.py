"""docs/operations.md tells every error that an operator may meet, as the source has it."""

from __future__ import annotations

import pytest

from config import errors
from config.errors_page import (
    PAGE,
    Said,
    as_markdown,
    brought_up_to_date,
    everything_said,
    kinds,
    said_in,
)


def test_the_documentation_is_made_of_the_sources() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == brought_up_to_date(page), "make it again: python -m config.errors_page"


def test_every_kind_stands_there_with_its_meaning_and_remedy() -> None:
    made = as_markdown()
    assert {errors.ConfigError, errors.ApplyConflict, errors.ConnectionLost} <= set(kinds())
    for kind in kinds():
        assert f"\n### {kind.__name__}\n" in made
        assert " ".join((kind.__doc__ or "").split()) in made
        assert kind.remedy in made


def test_a_message_is_read_with_its_remedy_as_far_as_it_stands_there() -> None:
    source = """
HINT = "Do" " this."
def f(name, error):
    raise errors_of.ConfigError("not by name")
    raise ConfigError(f"{name}: too " + "old", hint=HINT)
    raise PositionLost(f"{name}{error} is gone" if error else "gone")
    raise Halt(name, "nothing to tell")
    raise ValueError("not ours")
"""
    assert list(said_in(source)) == [
        Said("ConfigError", "…: too old", "Do this."),
        Said("PositionLost", "… is gone / gone", ""),
    ]


def test_a_page_without_marks_is_not_written_over() -> None:
    with pytest.raises(ValueError, match="no marks"):
        brought_up_to_date("# Operations\n")


def test_messages_come_from_every_room() -> None:
    said = everything_said()
    assert len(said) > 100
    assert list(said) == sorted(set(said))

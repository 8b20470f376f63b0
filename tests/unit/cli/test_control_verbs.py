"""Rates, the verb that is not there, completion, and colours."""

from __future__ import annotations

import sys

import pytest
import typer
from typer.testing import CliRunner

from config.logs import _in_colour
from replicator.cli import app
from replicator.cli.control_verbs import parse_rate, rate_in_words


@pytest.mark.parametrize(
    ("text", "rate"),
    [("2MB", 2_000_000), ("500KiB/s", 512_000), ("4096", 4096), ("off", 0), ("Default", None)],
)
def test_a_rate_is_read_as_people_write_it(text: str, rate: int | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["fast", "2", "-1MB", "1 MB 2"])
def test_what_is_no_rate_or_a_slip_of_the_pen_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_rate(text)


def test_no_ceiling_is_told_in_words() -> None:
    assert rate_in_words(0) == "as fast as they can"
    assert rate_in_words(2_000_000) == "at most 2,000,000 bytes a second"


@pytest.mark.parametrize("words", [["skip"], ["skip", "patient", "--force"]])
def test_skip_says_why_it_is_not_there_and_what_to_do(words: list[str]) -> None:
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 2
    (line,) = shown.stderr.splitlines()
    assert "no skip" in line
    assert "replicator resync TABLE" in line
    assert " skip " not in CliRunner().invoke(app, ["--help"]).output


def test_the_shell_completes_verbs() -> None:
    environment = {
        "_REPLICATOR_COMPLETE": "complete_bash",
        "COMP_WORDS": "replicator pa",
        "COMP_CWORD": "1",
    }
    shown = CliRunner().invoke(app, [], prog_name="replicator", env=environment)
    assert shown.output.split() == ["pause"]


def test_colours_are_for_terminals_whose_users_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert _in_colour()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not _in_colour()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert not _in_colour()

"""The first copy's bar: on a terminal only, and gone when the copy is whole."""

from __future__ import annotations

import io

from rich.console import Console

from replicator.cli.copy_view import watching
from replicator.first_copy import CopyStage


def _console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    output = io.StringIO()
    return Console(file=output, force_terminal=terminal, width=100), output


def test_a_terminal_shows_rows_and_tables_until_the_copy_is_whole() -> None:
    console, output = _console(terminal=True)
    with watching(console) as watch:
        assert watch is not None
        watch(CopyStage("patient", 1, 2, 1500, 4000))
        watch(CopyStage("payment", 2, 2, 4000, 4000))
        shown = output.getvalue()
        console.print("the log")
    assert "4,000 of 4,000 rows, 2 of 2 tables copied" in shown
    assert output.getvalue()[len(shown) :].strip() == "the log"


def test_elsewhere_the_log_speaks_for_itself() -> None:
    console, output = _console(terminal=False)
    with watching(console) as watch:
        assert watch is None
    assert output.getvalue() == ""

"""Bars tell how many a second and how long still; nobody but a terminal gets any."""

from __future__ import annotations

import io

from rich.console import Console
from rich.progress import Progress

from replicator.cli.progress_view import RateColumn, comparing
from replicator.cli.resync import Progress as Stage
from replicator.cli.resync_view import show_progress


def _console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    output = io.StringIO()
    return Console(file=output, force_terminal=terminal, color_system=None, width=160), output


def test_a_rate_is_told_once_it_is_known() -> None:
    now = 0.0
    with Progress(console=_console(terminal=False)[0], get_time=lambda: now) as bars:
        task = bars.add_task("", total=10_000)
        column = RateColumn("rows")
        assert column.render(bars.tasks[task]).plain == ""
        for second in range(1, 4):
            now = float(second)
            bars.update(task, advance=1500)
        assert column.render(bars.tasks[task]).plain == "1,500 rows/s"


def test_a_comparison_is_drawn_on_a_terminal_and_gone_afterwards() -> None:
    console, output = _console(terminal=True)
    with comparing(console) as progress:
        progress(3, 12)
    assert "3/12 tables" in output.getvalue()
    console, output = _console(terminal=False)
    with comparing(console) as progress:
        progress(3, 12)
    assert output.getvalue() == ""


def test_a_resyncs_bar_ends_full_and_lines_elsewhere_tell_each_tenth() -> None:
    stages = [
        [Stage(1, "patient", state, copied, 1000, None)]
        for state, copied in (("copying", 100), ("copying", 150), ("loading", 1000), ("done", 1000))
    ]
    console, output = _console(terminal=True)
    assert show_progress(stages, console) == stages[-1]
    assert "1000/1000" in output.getvalue()
    console, output = _console(terminal=False)
    show_progress(stages, console)
    assert [line.split(",")[0] for line in output.getvalue().splitlines()] == [
        "patient: copying from the source",
        "patient: loading into raw",
        "patient: done",
    ]

"""Columns of bars that several verbs share, and the bar of `verify`; on a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft
from rich.text import Text


class RateColumn(ProgressColumn):
    """How many a second, as they come now; nothing before that is known."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The rate in words."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self._unit}/s")


@contextmanager
def comparing(console: Console) -> Iterator[Callable[[int, int], None]]:
    """What `verify` calls with the tables that are done, and all; draws where it can."""
    if not console.is_terminal:
        yield lambda _done, _total: None
        return
    columns = (
        TextColumn("comparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tables"),
        RateColumn("tables"),
        TimeLeft(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)

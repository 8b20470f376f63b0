"""A resync's progress as people see it: bars on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from replicator.cli.progress_view import RateColumn
from replicator.cli.resync import Progress

_WORDS = {
    "queued": "waiting for the replicator",
    "copying": "copying from the source",
    "catching_up": "catching up",
    "loading": "loading into raw",
    "done": "done",
    "failed": "failed",
}


def show_progress(stages: Iterable[list[Progress]], console: Console) -> list[Progress]:
    """Show every stage; return the last."""
    return _bars(stages, console) if console.is_terminal else _lines(stages, console)


def _bars(stages: Iterable[list[Progress]], console: Console) -> list[Progress]:
    last: list[Progress] = []
    columns = (
        TextColumn("{task.fields[table]}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn("rows"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console) as bars:
        tasks: dict[int, TaskID] = {}
        for last in stages:
            for request in last:
                task = tasks.get(request.id)
                if task is None:
                    task = tasks[request.id] = bars.add_task(
                        "", table=request.table, state="", total=None
                    )
                bars.update(
                    task,
                    completed=request.copied,
                    total=max(request.total, request.copied) or None,
                    state=_WORDS.get(request.state, request.state),
                )
                if request.ended:
                    bars.update(task, total=request.copied or 1, completed=request.copied or 1)
                    bars.stop_task(task)
    return last


def _lines(stages: Iterable[list[Progress]], console: Console) -> list[Progress]:
    last: list[Progress] = []
    said: dict[int, tuple[str, int]] = {}
    for last in stages:
        for request in last:
            tenth = 10 * request.copied // max(request.total, request.copied, 1)
            if said.get(request.id) == (request.state, tenth):
                continue
            said[request.id] = (request.state, tenth)
            word = _WORDS.get(request.state, request.state)
            rows = f"{request.copied:,} of about {max(request.total, request.copied):,} rows"
            console.print(f"{request.table}: {word}, {rows}", markup=False, highlight=False)
    return last

"""The first copy as people see it: a bar on a terminal; elsewhere the log's lines say it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from replicator.cli.progress_view import RateColumn
from replicator.first_copy import CopyStage, Watch


@contextmanager
def watching(console: Console) -> Iterator[Watch | None]:
    """A watcher that draws on `console`, or None where it is no terminal."""
    if not console.is_terminal:
        yield None
        return
    columns = (
        BarColumn(bar_width=20),
        TextColumn("{task.fields[rows]} rows, {task.fields[tables]} tables copied"),
        RateColumn("rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        task: TaskID | None = None

        def watch(stage: CopyStage) -> None:
            nonlocal task
            rows = f"{stage.rows:,} of {stage.rows_expected:,}"
            tables = f"{stage.tables_done} of {stage.tables}"
            if task is None:
                task = bars.add_task("", total=None, rows=rows, tables=tables)
            bars.update(
                task,
                completed=stage.rows,
                total=stage.rows_expected,
                rows=rows,
                tables=tables,
            )
            if stage.tables_done == stage.tables:
                bars.stop()  # the log has the terminal for itself from here on

        yield watch

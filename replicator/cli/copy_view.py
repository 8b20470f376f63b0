"""The first copy as people see it: a bar on a terminal; elsewhere the log's lines say it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from replicator.first_copy import CopyStage, Watch


@contextmanager
def watching(console: Console) -> Iterator[Watch | None]:
    """A watcher that draws on `console`, or None where it is no terminal."""
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("first copy"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows, {task.fields[tables]} tables, now {task.fields[table]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        task: TaskID | None = None

        def watch(stage: CopyStage) -> None:
            nonlocal task
            tables = f"{stage.tables_done} of {stage.tables}"
            if task is None:
                task = bars.add_task("", total=None, tables=tables, table=stage.table)
            bars.update(
                task,
                completed=stage.rows,
                total=stage.rows_expected,
                tables=tables,
                table=stage.table,
            )
            if stage.tables_done == stage.tables:
                bars.remove_task(task)

        yield watch

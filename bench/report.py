"""Results for people and for programs: a table on standard error, JSON lines on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.table import Table

from bench.measure import Result

_MARKS = {True: "met", False: "NOT MET", None: ""}


def told(results: Iterable[Result]) -> Iterator[Result]:
    """The same results, each printed as a line when it comes: what is measured is not lost."""
    for result in results:
        print(result.line(), flush=True)
        yield result


def show(results: Sequence[Result]) -> None:
    """The table, with a line for each candidate below each figure."""
    table = Table("bench", "value", "goal", "", "rate/s", "CPU s", "wall s", "peak MiB")
    for result in results:
        style = "bold red" if result.met is False else "bold"
        mark = _MARKS[result.met]
        table.add_row(result.bench, f"{result.value:,g}", result.goal, mark, style=style)
        for name, run in result.details.get("runs", {}).items():
            cells = (run.get(key) for key in ("cpu_seconds", "seconds", "peak_mib"))
            shown = ("" if cell is None else f"{cell:.2f}" for cell in cells)
            table.add_row(f"  {name}", "", "", "", f"{run.get('rate', 0):,}", *shown)
    Console(width=110, stderr=True).print(table)

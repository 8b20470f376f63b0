"""A verify `Report` as text for people: one line a table, then the keys that differ."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as Grid

from replicator.cli.report import SAME, Comparison, Report

MOST_SHOWN = 50


def show_report(report: Report, console: Console, *, strict: bool = False) -> None:
    """Print every table, what is wrong with it, and the verdict as the last line."""
    grid = Grid("table", "rows", "chunks", "source = replica", "replica = raw")
    for table in report.tables:
        grid.add_row(
            table.name,
            f"{table.rows:,}",
            str(table.chunks),
            table.replica.verdict,
            table.raw.verdict,
        )
    console.print(grid)
    show_faults(report, console)
    show_mended(report, console)
    exact = report.exact(strict=strict)
    console.print(
        f"{len(report.tables)} tables compared in {report.seconds:.1f} s;"
        f" exact: {'yes' if exact else 'no'}",
        highlight=False,
    )


def show_faults(report: Report, console: Console) -> None:
    """Print which keys differ, and why a table could not be compared."""
    for table in report.tables:
        _show(f"{table.name}, source and replica", table.replica, console)
        _show(f"{table.name}, replica and raw", table.raw, console)
    if report.stopped:
        console.print(f"stopped: {report.stopped}", markup=False, highlight=False)


def show_mended(report: Report, console: Console) -> None:
    """Print what was mended, table by table; nothing where nothing was to be."""
    for one in report.mended or []:
        side = "on the replica" if one.side == "replica" else "in raw"
        said = f"the whole table was reloaded ({one.reason})" if one.whole else f"{one.rows} rows"
        console.print(
            f"mended {side}: {one.table}: {said}", markup=False, highlight=False, soft_wrap=True
        )


def _show(where: str, comparison: Comparison, console: Console) -> None:
    if comparison.verdict == SAME and not comparison.reasons:
        return
    lines = [*comparison.reasons]
    lines += [f"row {key}" for key in comparison.keys[:MOST_SHOWN]]
    lines += [f"row {key} changes at every look" for key in comparison.unsettled[:MOST_SHOWN]]
    left = len(comparison.keys) + len(comparison.unsettled) - 2 * MOST_SHOWN
    lines += [f"and {left} more (--json names them)"] if left > 0 else []
    for line in lines:
        console.print(f"{where}: {line}", markup=False, highlight=False, soft_wrap=True)

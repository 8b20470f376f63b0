"""A `Status` as text for people: on a terminal in colour, elsewhere plain.

Pure but for the console that it prints to.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as Grid

from replicator.cli.status import Leg, Status

_QUIET = ("streaming", "streaming")


def show_status(status: Status, console: Console) -> None:
    """Print both legs, the tables that are not simply streaming, and resyncs."""
    console.print(f"source is at {status.source_position or 'unknown'}")
    console.print(_legs(status))
    _show_tables(status, console)
    for request in status.resyncs:
        rows = f"{request.rows_copied:,} of about {request.rows_total:,} rows"
        said = f": {request.message}" if request.message else ""
        console.print(
            f"resync {request.table} (request {request.id}): {request.state}, {rows}{said}",
            markup=False,
            soft_wrap=True,
        )
    for fault in status.unreachable:
        console.print(f"unreachable: {fault}", style="red", markup=False, soft_wrap=True)


def _legs(status: Status) -> Grid:
    grid = Grid("leg", "daemon", "shows the source at", "lag", "bytes behind", "throughput")
    for name, leg in (("replicator", status.replicator), ("loader", status.loader)):
        grid.add_row(
            name,
            daemon_word(leg),
            leg.source_position or "nothing yet",
            seconds(leg.lag_seconds),
            "unknown" if leg.lag_bytes is None else f"{leg.lag_bytes:,}",
            throughput(leg),
        )
    return grid


def daemon_word(leg: Leg) -> str:
    """Whether the leg's daemon runs."""
    return {True: "running", False: "DOWN", None: "unknown"}[leg.running]


def seconds(lag: float | None) -> str:
    """A lag in words."""
    return "unknown" if lag is None else f"{lag:.1f} s"


def throughput(leg: Leg) -> str:
    """What the leg did in the last second, as far as it is known."""
    parts = [
        f"{value:,.0f} {unit}"
        for value, unit in (
            (leg.transactions_per_second, "transactions/s"),
            (leg.rows_per_second, "rows/s"),
            (leg.bytes_per_second, "bytes/s"),
        )
        if value is not None
    ]
    return ", ".join(parts) or "unknown"


def _show_tables(status: Status, console: Console) -> None:
    states = status.states()
    console.print(f"tables: {len(status.tables)}, streaming in both legs: {states[_QUIET]}")
    others = [t for t in status.tables if (t.replica, t.raw) != _QUIET]
    if not others:
        return
    grid = Grid("table", "replica", "raw")
    for table in others:
        grid.add_row(table.name, table.replica or "-", table.raw or "-")
    console.print(grid)

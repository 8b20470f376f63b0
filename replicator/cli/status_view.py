"""A `Status` as text for people: on a terminal in colour, elsewhere plain.

Pure but for the console that it prints to.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as Grid

from replicator.cli.control_verbs import rate_in_words
from replicator.cli.quarantine import rows as row_count
from replicator.cli.status import Leg, Status, Table

_QUIET = ("streaming", "streaming")
LATEST = 5
"""So many tables whose schema changed last are shown, beside those that are not streaming."""


def show_status(status: Status, console: Console, *, every_table: bool = False) -> None:
    """Print both legs, resyncs, and tables: all, or those that are not simply streaming and
    those whose schema changed last."""
    console.print(f"source is at {status.source_position or 'unknown'}")
    console.print(_legs(status))
    _show_asked(status, console)
    _show_tables(status, console, every_table=every_table)
    held = [f"{row_count(t.quarantined)} of {t.name}" for t in status.tables if t.quarantined]
    if held:
        console.print(
            f"in quarantine: {', '.join(held)} (replicator quarantine list)",
            style="yellow",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
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
    if leg.paused_since is not None and not leg.running:
        return "paused"
    return {True: "running", False: "DOWN", None: "unknown"}[leg.running]


def _show_asked(status: Status, console: Console) -> None:
    """What operators have asked of the daemons, where it is in the way of the flow."""
    for name, leg in (("replicator", status.replicator), ("loader", status.loader)):
        if leg.paused_since is not None:
            still = ", and still ends what it is about" if leg.running else ""
            console.print(
                f"{name}: paused since {_minute(leg.paused_since)}{still} (replicator resume)",
                style="yellow",
                highlight=False,
            )
    if status.copy_bytes_per_second is not None:
        console.print(f"copies read {rate_in_words(status.copy_bytes_per_second)}", highlight=False)


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


def _show_tables(status: Status, console: Console, *, every_table: bool) -> None:
    states = status.states()
    console.print(f"tables: {len(status.tables)}, streaming in both legs: {states[_QUIET]}")
    shown = status.tables if every_table else _of_interest(status.tables)
    if not shown:
        return
    headings = ["table", "replica", "raw", "schema changed", "schema", "rows changed"]
    some_masked = any(table.masked for table in shown)
    grid = Grid(*headings, *(["masked columns"] if some_masked else []))
    for table in shown:
        grid.add_row(
            table.name,
            table.replica or "-",
            _raw_word(table),
            _minute(table.schema_changed_at),
            _digest(table),
            _minute(table.last_transformed),
            *([str(table.masked)] if some_masked else []),
        )
    console.print(grid)
    if len(shown) < len(status.tables):
        console.print("All tables: replicator status --tables", style="dim")


def _of_interest(tables: list[Table]) -> list[Table]:
    changed = [t for t in tables if t.schema_changed_at is not None]
    changed.sort(key=lambda t: t.schema_changed_at or "", reverse=True)
    wanted = {t.name for t in changed[:LATEST]}
    return [t for t in tables if (t.replica, t.raw) != _QUIET or t.name in wanted]


def _raw_word(table: Table) -> str:
    state = table.raw or "-"
    return f"{state} (was renamed to {table.renamed_to})" if table.renamed_to else state


def _digest(table: Table) -> str:
    """The schema hash's beginning; both, where raw has yet to follow."""
    digests = [d[:8] for d in (table.replica_schema_hash, table.raw_schema_hash) if d]
    return " → ".join(reversed(list(dict.fromkeys(digests)))) or "-"


def _minute(moment: str | None) -> str:
    """An ISO moment to the second, as UTC."""
    return "-" if moment is None else f"{moment[:10]} {moment[11:19]} UTC"

"""The demo as people see it: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from replicator.cli.status import Status
from replicator.cli.status_view import seconds, throughput

PLAIN_SECONDS = 3.0


class DemoView:
    """Prints headings, and keeps one line of news up to date between them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(Text(""), console=console, refresh_per_second=8, transient=True)
        self._next_line = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._next_line = 0.0

    def news(self, text: str) -> None:
        """The state of affairs, worth a glance."""
        if self._console.is_terminal:
            self._live.update(Text(text))
            return
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + PLAIN_SECONDS
            self._console.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)


def copying_line(status: Status, tables: int) -> str:
    """How far the first copy is."""
    copied = sum(table.replica in ("reconciling", "streaming") for table in status.tables)
    loaded = sum(table.raw == "streaming" for table in status.tables)
    return f"tables copied to the replica: {copied} of {tables}, in raw: {loaded} of {tables}"


def working_line(status: Status, steps: int, left: float) -> str:
    """Lag and throughput while the practice works."""
    parts = [
        f"{left:3.0f} s left",
        f"{steps:,} source transactions",
        f"replica {seconds(status.replicator.lag_seconds)} behind",
        f"raw {seconds(status.loader.lag_seconds)} behind",
        throughput(status.loader),
    ]
    parts += [f"resync {r.table}: {r.state}" for r in status.resyncs]
    return " | ".join(parts)

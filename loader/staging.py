"""Temporary tables that batches are copied into, kept from batch to batch.

Left: blocks of COPY lines. Right: the stage that holds them, until the transaction
ends. To create a table for each batch would leave a hundred dead catalog rows behind
each time, in a daemon that runs for months; `ON COMMIT DELETE ROWS` leaves none. But
PostgreSQL then looks at every such table at each commit that used one, so only the
last few that were used are kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from config.connections import PostgresConnection
from config.failpoints import reach
from loader.rawsql import Stage, copy_stage, create_stage, drop_stage, truncate_stage

KEPT = 16


class Stages:
    """The stages of one connection."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        self._kept: dict[str, Stage] = {}
        """In the order of their last use."""
        self._filled: set[str] = set()
        """Those that hold rows of the open transaction."""
        self._committed: dict[str, Stage] = {}
        """Those that there were when it began."""

    def fill(self, stage: Stage, blocks: Iterable[bytes]) -> None:
        """Let the stage hold these lines and no others."""
        self._ready(stage)
        self._filled.add(stage.name)
        with self._connection.cursor() as cursor, cursor.copy(copy_stage(stage)) as sink:
            for block in blocks:
                sink.write(block)
        reach("batch.staged")

    def _ready(self, stage: Stage) -> None:
        kept = self._kept.pop(stage.name, None)
        if kept is not None and kept is not stage:
            self._drop(kept)  # its table has another shape now
            kept = None
        if kept is None:
            self._make_room()
            self._connection.execute(create_stage(stage))
        elif stage.name in self._filled:
            self._connection.execute(truncate_stage(stage))
        self._kept[stage.name] = stage

    def _make_room(self) -> None:
        while len(self._kept) >= KEPT:
            self._drop(self._kept.pop(next(iter(self._kept))))

    def _drop(self, stage: Stage) -> None:
        self._filled.discard(stage.name)
        self._connection.execute(drop_stage(stage))

    def committed(self) -> None:
        """The transaction is over: every stage is empty."""
        self._committed = dict(self._kept)
        self._filled.clear()

    def rolled_back(self) -> None:
        """The transaction is undone: stages made in it are gone, and those dropped are back."""
        self._kept = dict(self._committed)
        self._filled.clear()

    def held(self) -> tuple[dict[str, Stage], set[str]]:
        """What there is now, for `restore`."""
        return dict(self._kept), set(self._filled)

    def restore(self, held: object) -> None:
        """A part of the transaction is undone: what there was when it began is there again."""
        kept, filled = cast("tuple[dict[str, Stage], set[str]]", held)
        self._kept, self._filled = dict(kept), set(filled)

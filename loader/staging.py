"""Temporary tables that batches are copied into, kept from batch to batch.

Left: blocks of COPY lines. Right: the stage that holds them, until the transaction
ends. To create a table for each batch would leave a hundred dead catalog rows behind
each time, in a daemon that runs for months; `ON COMMIT DELETE ROWS` leaves none. But
PostgreSQL then looks at every such table at each commit that used one, so only the
last few that were used are kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from config.connections import PostgresConnection
from config.failpoints import reach
from loader.copying import Copy, copy_as_text, copy_into, transcoder_of
from loader.rawsql import Stage, copy_stage, create_stage, drop_stage, truncate_stage

if TYPE_CHECKING:
    from loader.binary_copy import Transcoder

KEPT = 16


@dataclass(slots=True)
class _Kept:
    """A stage that there is, and what its lines go by, once that was asked for."""

    stage: Stage
    copy: Copy
    asked: bool = False
    transcoder: Transcoder | None = None


class Stages:
    """The stages of one connection."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        self._kept: dict[str, _Kept] = {}
        """In the order of their last use."""
        self._filled: set[str] = set()
        """Those that hold rows of the open transaction."""
        self._committed: dict[str, _Kept] = {}
        """Those that there were when it began."""

    def fill(self, stage: Stage, blocks: Iterable[bytes], *, binary: bool = False) -> None:
        """Let the stage hold these lines and no others; `binary`: they may go in that form."""
        kept = self._ready(stage)
        self._filled.add(stage.name)
        if binary:
            copy_into(self._connection, kept.copy, blocks, lambda: self._transcoder(kept))
        else:
            copy_as_text(self._connection, kept.copy.text, blocks)
        reach("batch.staged")

    def _transcoder(self, kept: _Kept) -> Transcoder | None:
        """Nobody else alters a temporary table: it is asked for its types once."""
        if not kept.asked:
            kept.transcoder = transcoder_of(self._connection, kept.copy)
            kept.asked = True
        return kept.transcoder

    def _ready(self, stage: Stage) -> _Kept:
        kept = self._kept.pop(stage.name, None)
        if kept is not None and kept.stage is not stage:
            self._drop(kept.stage)  # its table has another shape now
            kept = None
        if kept is None:
            self._make_room()
            self._connection.execute(create_stage(stage))
            kept = _Kept(stage, copy_stage(self._connection, stage))
        elif stage.name in self._filled:
            self._connection.execute(truncate_stage(stage))
        self._kept[stage.name] = kept
        return kept

    def _make_room(self) -> None:
        while len(self._kept) >= KEPT:
            self._drop(self._kept.pop(next(iter(self._kept))).stage)

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

    def held(self) -> tuple[dict[str, _Kept], set[str]]:
        """What there is now, for `restore`."""
        return dict(self._kept), set(self._filled)

    def restore(self, held: object) -> None:
        """A part of the transaction is undone: what there was when it began is there again."""
        kept, filled = cast("tuple[dict[str, _Kept], set[str]]", held)
        self._kept, self._filled = dict(kept), set(filled)

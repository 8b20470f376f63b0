"""Write what holds rows that PostgreSQL refuses: all the others, exactly as ever.

Left: a table's writer and a fold that was refused as a whole, or may be. Right: the rows
written but for the refused ones, which are returned for the quarantine. Everything is tried
under savepoints of the caller's transaction, so that what is written commits with the position.

*Exact*: each part is written by the same statements as a healthy fold, deletions before rows,
and a fold has one state of each key, so that the order among different keys only matters to
what analysts have put on a table. Of a refused row no version stays: an older one in `raw` is
deleted, since a reader could not tell it from the present one, whereas a missing row has its
entry. Where something refuses even that, the entry says so. While the table is being loaded
its touched table learns that the key has no row, so that the copy does not bring one back.
Where deleted rows are kept, a row that is marked stays: it is no older version, but one deleted.
"""

from __future__ import annotations

from collections.abc import Sequence

from config.connections import PostgresConnection
from loader.fold import Copies, State
from loader.quarantine.entries import DELETE, UPSERT, Refused
from loader.quarantine.parts import Keyless, KeylessRows, Rows, Writable
from loader.quarantine.refusals import Reason, attempt, refused
from loader.staging import Stages
from loader.upsert import FoldWriter
from loader.versions import versions_of


class CarefulWriter:
    """See the module; one for each connection."""

    def __init__(self, connection: PostgresConnection, stages: Stages) -> None:
        self._connection = connection
        self._stages = stages

    def write(self, writer: FoldWriter, fold: Writable) -> list[Refused]:
        """Write a fold, or a part of one; the rows that were refused."""
        if self._try(writer, fold) is None:
            return []
        if isinstance(fold, Keyless):
            return self._write_copies(writer, fold)
        states = list(fold.states())
        gone = [state for state in states if state.row is None]
        rows = [state for state in states if state.row is not None]
        found = [
            (state, why)
            for some in (gone, rows)
            for state, why in refused(some, lambda part: self._try(writer, Rows(part)))
        ]
        left = [one for state, why in found if (one := self._without(writer, state, why))]
        self._record(writer, fold, left)
        return left

    @staticmethod
    def _record(writer: FoldWriter, fold: Writable, left: Sequence[Refused]) -> None:
        """A history follows what `raw` has: a refused row has no version until it is written."""
        versions = versions_of(fold)
        if versions is not None:
            gone = {one.key or b"" for one in left if not one.stale}
            untouched = {one.key or b"" for one in left if one.stale}
            writer.record(versions.without(gone, untouched))

    def _try(self, writer: FoldWriter, fold: Writable) -> Reason | None:
        return attempt(self._connection, lambda: writer.write(fold), self._stages)

    def _without(self, writer: FoldWriter, state: State, why: Reason) -> Refused | None:
        """Leave no version of a refused row behind, if that can be.

        What is refused of a deletion may be the last version that was to be kept: without that
        the row's present version is marked, and nothing was refused.
        """
        gone = State(state.key, None, state.source_ts)
        if state.last is not None and self._try(writer, Rows([gone])) is None:
            return None
        stale = state.row is None or self._erase(writer, gone) is not None
        if stale:
            attempt(self._connection, lambda: self._touch(writer, state, gone), self._stages)
        operation = DELETE if state.row is None else UPSERT
        return Refused(
            state.key,
            state.row,
            state.source_ts,
            why,
            operation=operation,
            stale=stale and writer.into_raw,
        )

    @staticmethod
    def _touch(writer: FoldWriter, state: State, gone: State) -> None:
        if state.row is None:
            writer.write_touched(Rows([gone]))
        else:
            writer.touch_erased(gone)

    def _erase(self, writer: FoldWriter, state: State) -> Reason | None:
        return attempt(self._connection, lambda: writer.erase(state), self._stages)

    def _write_copies(self, writer: FoldWriter, fold: Keyless) -> list[Refused]:
        """A row without a key has no older version: an update of it is another row."""

        def write(part: Sequence[tuple[bytes, Copies]]) -> Reason | None:
            return self._try(writer, KeylessRows(dict(part)))

        units = list(fold.copies.items())
        away = [unit for unit in units if unit[1].net < 0]
        there = [unit for unit in units if unit[1].net > 0]
        return [
            _refused_copies(row, copies, why)
            for some in (away, there)
            for (row, copies), why in refused(some, write)
        ]


def _refused_copies(row: bytes, copies: Copies, why: Reason) -> Refused:
    gone = copies.net < 0
    return Refused(
        None,
        row,
        copies.source_ts,
        why,
        copies=abs(copies.net),
        operation=DELETE if gone else UPSERT,
        stale=gone,
    )

"""What leg 1 says about its work, read from the replica's own stream. Pure.

Left: rows events of leg 1's tracking tables. Right: the source position that ends
a transaction, the tables that leg 1 streams from now on, those that it begins to copy
anew, and the resync requests that now wait for the loader.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from loader.replica import (
    MAIN_STREAM,
    OFFSET_TABLE,
    REQUEST_TABLE,
    STATUS_TABLE,
    SourceMark,
    mark_from,
)
from loader.rows import DELETE, UPDATE, RowChange, RowDecoder, TablePlan
from loader.values import fields_of
from replicator.binlog.position import SourcePosition

STREAMING, COPYING, LOADING = "streaming", "copying", "loading"


@dataclass(slots=True)
class Notices:
    """What one transaction of the replica says."""

    mark: SourceMark | None = None
    left: SourcePosition | None = None
    """Where leg 1's offset row stood before; None where there was none."""
    streaming: set[str] = field(default_factory=set)
    """Tables that leg 1 did not stream before and streams now."""
    copying: set[str] = field(default_factory=set)
    """Tables that leg 1 copies anew: their events follow on the new copy, not on ours."""
    requests: dict[int, str] = field(default_factory=dict)
    """Resync requests whose table stands renewed on the replica: id to table."""

    def __bool__(self) -> bool:
        """Is there anything to act on? (The mark alone is not.)"""
        return bool(self.streaming or self.copying or self.requests)


class NoticeReader:
    """Decodes the tracking tables' rows, remembering what leg 1 streams already."""

    def __init__(self, decoder: RowDecoder) -> None:
        self._decoder = decoder
        self._streaming: set[str] = set()

    def seed_streaming(self, tables: Iterable[str]) -> None:
        """Tables known to be streamed when the loader starts."""
        self._streaming.update(tables)

    def read(self, plan: TablePlan, event: bytes, into: Notices) -> None:
        """Note what one rows event says."""
        read = _READERS.get(plan.table)
        if read is None:
            return
        for change in self._decoder.decode(event, plan):
            read(self, plan, change, into)

    def _offset(self, plan: TablePlan, change: RowChange, into: Notices) -> None:
        if change.operation == DELETE:  # a row that moves is one deleted and one inserted
            into.left = _left(change.key) or into.left
            return
        mark = mark_from(_values(plan, change))
        if mark is not None:
            into.mark = mark
            if change.operation == UPDATE:
                into.left = mark.position

    def _status(self, plan: TablePlan, change: RowChange, into: Notices) -> None:
        row = _values(plan, change)
        table = row.get("table_name")
        if change.operation == DELETE:
            gone = change.key.decode() if change.key else ""
            self._streaming.discard(gone)
            into.streaming.discard(gone)
        elif table is None or row.get("extraction_status") != STREAMING:
            self._streaming.discard(table or "")
            if table is not None and row.get("extraction_status") == COPYING:
                into.copying.add(table)
        elif table not in self._streaming:
            self._streaming.add(table)
            into.streaming.add(table)

    def _request(self, plan: TablePlan, change: RowChange, into: Notices) -> None:
        row = _values(plan, change)
        number, table = row.get("id"), row.get("table_name")
        if row.get("state") == LOADING and number and table:
            into.requests[int(number)] = table


def _left(key: bytes | None) -> SourcePosition | None:
    stream, file, offset = (key or b"\t\t").decode().split("\t")
    return SourcePosition(file, int(offset)) if stream == MAIN_STREAM else None


_READERS = {
    OFFSET_TABLE: NoticeReader._offset,
    STATUS_TABLE: NoticeReader._status,
    REQUEST_TABLE: NoticeReader._request,
}


def _values(plan: TablePlan, change: RowChange) -> dict[str, str | None]:
    """A row's values by column name; empty for a DELETE."""
    if change.row is None:
        return {}
    fields = fields_of(change.row)
    return {
        column.name: None if value is None else value.decode()
        for column, value in zip(plan.columns, fields, strict=True)
    }

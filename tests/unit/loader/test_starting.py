"""Where a loader begins that has no position yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from loader import replica as rep
from loader.starting import first_offset
from replicator.binlog.position import ReplicaPosition, SourcePosition

FILE = "replica-bin.000001"


class Server:
    """A replica whose binlog grows behind every look, by leg 1's note of a position."""

    def __init__(self, *, noted: bool) -> None:
        self._ends: Iterator[int] = iter((100, 200))
        at = "2026-01-01 00:00:00"
        self.mark = rep.SourceMark(SourcePosition("source-bin.000001", 4), at, at)
        self._noted = noted

    def end(self, _connection: Any) -> ReplicaPosition:
        return ReplicaPosition(FILE, next(self._ends))

    def read(self, _connection: Any, _database: str) -> rep.SourceMark | None:
        return self.mark if self._noted else None


def _first(monkeypatch: pytest.MonkeyPatch, server: Server) -> Any:
    monkeypatch.setattr(rep, "binlog_end", server.end)
    monkeypatch.setattr(rep, "read_mark", server.read)
    connection: Any = None
    return first_offset(connection, "opendental_replication", 7)


def test_a_position_that_leg_1_notes_between_two_looks_is_read_from_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offset = _first(monkeypatch, Server(noted=False))
    assert (offset.replica, offset.source) == (ReplicaPosition(FILE, 100), None)


def test_a_noted_position_is_before_the_place_where_the_stream_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(noted=True)
    offset = _first(monkeypatch, server)
    assert (offset.replica, offset.source) == (ReplicaPosition(FILE, 200), server.mark.position)

"""Where in a server's binary log we are: a file and an offset in it.

A position of the source and a position of the replica look alike and mean
different things, so they are different types and refuse to be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import total_ordering

FIRST_OFFSET = 4
"""Offset of the first event in a binlog file: behind the four magic bytes."""


@total_ordering
@dataclass(frozen=True, slots=True)
class BinlogPosition:
    """The end of an event: `file` as the server names it, `offset` in bytes."""

    file: str
    offset: int

    @property
    def file_number(self) -> int:
        """The number that ends the file's name; binlogs are written in its order."""
        return int(self.file.rpartition(".")[2])

    def __lt__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self.file_number, self.offset) < (other.file_number, other.offset)

    def __str__(self) -> str:
        return f"{self.file}:{self.offset}"


@dataclass(frozen=True, slots=True)
class SourcePosition(BinlogPosition):
    """A position in the binlog of the source (OpenDental's server)."""


@dataclass(frozen=True, slots=True)
class ReplicaPosition(BinlogPosition):
    """A position in the binlog of the replica."""

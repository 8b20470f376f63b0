"""Copies that are not part of the stream yet: how far each is, and what it must read again.

An unfinished copy's place stands in `etl_copy_progress`; the rows of its window that must be
read again, by key, in `etl_copy_again`.
All functions take a connection and leave commits to the caller.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from replicator.binlog.position import SourcePosition
from replicator.tracking import execute, fetch


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far the copy of one table is; `low` and `high` bound its reconciliation window."""

    target: str
    source: str
    low: SourcePosition | None = None
    high: SourcePosition | None = None
    key: tuple[str, ...] | None = None
    """The last copied primary key as SQL literals."""
    rows: int = 0
    expected: int = 0

    @property
    def complete(self) -> bool:
        """Has every chunk been copied?"""
        return self.high is not None


def _position(file: str | None, offset: int | None) -> SourcePosition | None:
    return None if file is None or offset is None else SourcePosition(file, offset)


def copy_progresses(connection: Any) -> dict[str, CopyProgress]:
    """Copies that have begun and whose windows the stream has not passed, by target table."""
    rows = fetch(
        connection,
        "SELECT target_table, source_table, low_file, low_position, high_file, high_position,"
        " copy_key, rows_copied, rows_expected FROM etl_copy_progress",
    )
    return {
        row[0]: CopyProgress(
            row[0],
            row[1],
            _position(row[2], row[3]),
            _position(row[4], row[5]),
            None if row[6] is None else tuple(json.loads(row[6])),
            row[7],
            row[8],
        )
        for row in rows
    }


def save_progress(connection: Any, progress: CopyProgress) -> None:
    """Write a copy's place; in the transaction of the chunk that it counts."""
    save_progresses(connection, [progress])


def save_progresses(connection: Any, progresses: Sequence[CopyProgress]) -> None:
    """Write the places of several copies at once."""
    if not progresses:
        return
    values = ",".join(["(%s,%s,%s,%s,%s,%s,%s,%s,%s)"] * len(progresses))
    execute(
        connection,
        "REPLACE INTO etl_copy_progress (target_table, source_table, low_file, low_position,"
        f" high_file, high_position, copy_key, rows_copied, rows_expected) VALUES {values}",
        [value for progress in progresses for value in _progress_values(progress)],
    )


def _progress_values(progress: CopyProgress) -> list[object]:
    low, high = progress.low, progress.high
    return [
        progress.target,
        progress.source,
        low and low.file,
        low and low.offset,
        high and high.file,
        high and high.offset,
        None if progress.key is None else json.dumps(progress.key),
        progress.rows,
        progress.expected,
    ]


def forget_progress(connection: Any, target: str) -> None:
    """The copy is part of the stream now, or void."""
    execute(connection, "DELETE FROM etl_copy_progress WHERE target_table=%s", [target])
    forget_keys(connection, target)


def targets_with_keys(connection: Any) -> set[str]:
    """The targets that have rows to be read again."""
    return {
        row[0]
        for row in fetch(
            connection, "SELECT DISTINCT target_table FROM etl_copy_again WHERE NOT read_again"
        )
    }


def keys_to_read(connection: Any, target: str, most: int) -> list[str]:
    """Some of the keys, as SQL literals, whose rows are to be read again."""
    return [
        row[0]
        for row in fetch(
            connection,
            "SELECT key_literals FROM etl_copy_again WHERE target_table=%s AND NOT read_again"
            f" ORDER BY key_hash LIMIT {most}",
            [target],
        )
    ]


def note_keys_read(connection: Any, target: str, keys: Iterable[str]) -> None:
    """Their rows have been read again; which keys they were is remembered for the window's rest."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE etl_copy_again SET read_again=1 WHERE target_table=%s AND key_hash=%s",
            [(target, hashlib.sha256(key.encode("ascii")).digest()) for key in keys],
        )


def forget_keys(connection: Any, target: str, *, read_again: bool = False) -> None:
    """No row of the target need be read again; `read_again`: of those alone that have been."""
    only = " AND read_again" if read_again else ""
    execute(connection, f"DELETE FROM etl_copy_again WHERE target_table=%s{only}", [target])

"""What is done to a table, and every version of every row that comes of it, kept by the test."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..conftest import Harness, Replica

Row = tuple[Any, ...]


@dataclass
class Version:
    """A row with the source's times between which it was there."""

    row: Row
    since: datetime
    until: datetime | None = None


@dataclass
class Account:
    """Changes to `t (id, v, w)`: statements for the replica, and what they mean."""

    replica: Replica
    rows: dict[int, Row] = field(default_factory=dict)
    versions: dict[int, list[Version]] = field(default_factory=dict)
    gone: dict[int, Row] = field(default_factory=dict)
    """Deleted rows as they last were."""
    _open: list[tuple[str, int, Row | None]] = field(default_factory=list)
    _number: int = 0

    def put(self, key: int, word: str = "synthetic") -> None:
        """A new row, or another version of one."""
        self._number += 1
        row = (key, self._number, word)
        statement = (
            f"UPDATE t SET v = {row[1]}, w = '{word}' WHERE id = {key}"
            if key in self.rows
            else f"INSERT INTO t (id, v, w) VALUES ({key}, {row[1]}, '{word}')"
        )
        self._change(statement, key, row)

    def delete(self, key: int) -> None:
        self._change(f"DELETE FROM t WHERE id = {key}", key, None)

    def move(self, key: int, other: int) -> None:
        """A key that is changed."""
        row = (other, *self.rows[key][1:])
        self._change(f"UPDATE t SET id = {other} WHERE id = {key}", key, None)
        self._change("", other, row)

    def _change(self, statement: str, key: int, row: Row | None) -> None:
        if row is None:
            self.gone[key] = self.rows.pop(key)
        else:
            self.rows[key] = row
            self.gone.pop(key, None)
        self._open.append((statement, key, row))

    def commit(self) -> None:
        """Let the source have done all that since the last time, in one transaction."""
        changes, self._open = self._open, []
        self.replica.commit(*(statement for statement, _, _ in changes if statement))
        at = self.time()
        for _, key, row in changes:
            versions = self.versions.setdefault(key, [])
            if versions and versions[-1].until is None:
                versions[-1].until = at
            if row is not None:
                versions.append(Version(row, at))

    def time(self) -> datetime:
        """The time of the last commit."""
        found = self.replica.database.query(
            "SELECT event_timestamp FROM etl_binlog_offset WHERE stream = 'main'"
        )
        moment: datetime = found[0][0]
        return moment.replace(tzinfo=UTC)

    def some(self, dice: random.Random, keys: int, most: int = 6) -> None:
        """A transaction of random changes to rows of random keys, few of them often."""
        for _ in range(dice.randint(1, most)):
            key = dice.randint(1, keys) if dice.random() < 0.5 else dice.randint(1, 3)
            if key not in self.rows or dice.random() < 0.5:
                self.put(key)
            elif dice.random() < 0.6:
                self.delete(key)
            else:
                free = [n for n in range(1, keys + 1) if n not in self.rows]
                if free:
                    self.move(key, dice.choice(free))
        self.commit()

    def expected(self) -> list[tuple[Row, datetime, datetime | None]]:
        return [
            (version.row, version.since, version.until)
            for _, versions in sorted(self.versions.items())
            for version in versions
        ]


def kept(harness: Harness, columns: int = 3) -> list[tuple[Row, datetime, datetime | None]]:
    """What the history has."""
    found = harness.raw.query(
        "SELECT id, v, w, _valid_from, _valid_to FROM raw.t_history ORDER BY id, _version"
    )
    return [(row[:columns], *row[columns:]) for row in found]


def assert_open_versions_are_live_rows(harness: Harness, *, soft: bool = False) -> None:
    where = "WHERE _deleted_at IS NULL" if soft else ""
    assert harness.raw.query(
        "SELECT id, v, w FROM raw.t_history WHERE _valid_to IS NULL ORDER BY 1"
    ) == harness.raw.query(f"SELECT id, v, w FROM raw.t {where} ORDER BY 1")

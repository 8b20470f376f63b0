"""What is in quarantine, and what is in `raw` beside it, as tests look at them."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from loader.session import Session

from ..conftest import Harness, Replica

MARKER = "Synthetic-Zebra"
"""Stands in every refused value: it must turn up in no log."""


def entries(harness: Harness, table: str = "t") -> dict[str, tuple[Any, ...]]:
    """Key to operation, reason, copies, whether `raw` has an older version."""
    rows = harness.raw.query(
        "SELECT key, operation, reason, copies, raw_has_old_row FROM raw.etl_quarantine"
        " WHERE table_name = %s",
        (table,),
    )
    return {row[0]: row[1:] for row in rows}


def assert_all_but(
    harness: Harness, replica: Replica, *keys: int, table: str = "t", columns: str = "id, v, note"
) -> None:
    """`raw` has the replica's rows but for these keys, which are in quarantine."""
    on_replica = replica.database.query(f"SELECT {columns} FROM {table} ORDER BY id")
    in_raw = harness.raw.query(f"SELECT {columns} FROM raw.{table} ORDER BY id")
    assert in_raw == [row for row in on_replica if row[0] not in keys]
    assert set(entries(harness, table)) == {str(key) for key in keys}
    assert harness.states()[table] == "streaming"


def resync(replica: Replica, table: str) -> None:
    """Leg 1 has renewed a table on the replica."""
    replica.commit(
        (
            "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
            " VALUES (%s, UTC_TIMESTAMP(6), 'loading', UTC_TIMESTAMP(6))",
            (table,),
        )
    )


def unlogged(replica: Replica, statement: str) -> None:
    """Change the replica behind the stream's back, as a swapped-in copy does."""
    with closing(replica.database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0, sql_mode = ''")
        cursor.execute(statement)


def hold_back_copies(
    monkeypatch: pytest.MonkeyPatch, harness: Harness, steps: int = 3
) -> list[int]:
    """Let copies be seen only when `raw` has the stream's last position, and not in the first
    steps; the list that is returned grows with each step."""
    held_back: list[int] = []
    really = Session._take_copies

    def late(self: Session) -> None:
        held_back.append(1)
        found = harness.raw.query("SELECT source_binlog_position FROM raw.etl_binlog_offset")
        if found and found[0][0] == harness.replica.position and len(held_back) > steps:
            really(self)

    monkeypatch.setattr(Session, "_take_copies", late)
    return held_back

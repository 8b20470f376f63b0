"""A loader that is killed where something is half done: no version is lost, none is doubled."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config import failpoints
from config.settings import Settings
from replicator.sandbox.databases import PostgresDatabase

from ..conftest import Harness, Replica, Start
from .account import Account, assert_open_versions_are_live_rows, kept

POINTS = (
    "batch.staged", "batch.before_commit", "batch.commit_sent", "schema.altered",
    "schema.followed", "merge.before", "merge.done", "parts.begun",
)  # fmt: skip


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    path = tmp_path / "tables.toml"
    path.write_text('[table.t]\ndeletes = "soft"\nhistory = true\n')
    return settings.model_copy(update={"tables_file": path})


def _stands_at(raw: PostgresDatabase, position: int) -> bool:
    found = raw.query("SELECT source_binlog_position FROM raw.etl_binlog_offset")
    loading = raw.query(
        "SELECT 1 FROM raw.etl_transform_status WHERE transformation_status <> 'streaming'"
    )
    return bool(found) and found[0][0] == position and not loading


@pytest.mark.timeout(240)
def test_a_loader_killed_anywhere_keeps_each_version_once(
    harness: Harness, replica: Replica, start: Start, wait_until: Callable[..., Any]
) -> None:
    dice = random.Random(11)
    replica.create("t", "id int PRIMARY KEY, v int, w varchar(400)")
    harness.catch_up()
    harness.close()
    account = Account(replica)
    rules = {"REPLICATOR_TABLES": str(harness.settings.tables_file)}
    columns = 0
    for point in POINTS:
        order = {failpoints.ORDER: f"{point}:kill", failpoints.CONSENT: "yes"}
        if point.startswith("merge"):
            replica.commit(
                "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
                " VALUES ('t', UTC_TIMESTAMP(6), 'loading', UTC_TIMESTAMP(6))"
            )
        if point.startswith("schema"):
            columns += 1
            replica.ddl(f"ALTER TABLE t ADD COLUMN x{columns} int NOT NULL DEFAULT 3")
        if point.startswith("parts"):
            order["LOADER_BATCH_BYTES"] = "65536"
            for key in range(1000, 3600):
                account.put(key, "synthetic" * 44)
            account.commit()
        for _ in range(6):
            account.some(dice, keys=60, most=dice.choice([3, 70]))
        process = start(**rules, **order)
        try:
            assert process.wait(timeout=30) == -9, point
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"{point} was not passed: {process.communicate()}")
    start(**rules)
    reached = lambda: _stands_at(harness.raw, replica.position)  # noqa: E731
    wait_until(reached, deadline=60, what="raw at the end")
    assert kept(harness) == account.expected()
    assert_open_versions_are_live_rows(harness, soft=True)
    live = harness.raw.query("SELECT id, v, w FROM raw.t WHERE _deleted_at IS NULL ORDER BY 1")
    assert live == [row for _, row in sorted(account.rows.items())]
    marked = harness.raw.query("SELECT id FROM raw.t WHERE _deleted_at IS NOT NULL ORDER BY 1")
    assert [number for (number,) in marked] == sorted(account.gone)

"""Heavy loads for a pipeline, and what they cost: sizes, memory, and whether all of it arrived.

Left: a `Pipeline` with a source to fill. Right: each daemon's peak memory as the kernel knows it
(VmHWM), and fingerprints of a table on all three servers, made by the servers themselves, so
that two million rows are compared without fetching them.

`LOAD_FULL=1` runs the sizes that issue 5 names; else a part of each that CI has time for, but
larger than anything that either daemon may keep.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fix_pipeline import Daemon, Pipeline

FULL = os.environ.get("LOAD_FULL", "") not in ("", "0")
MEMORY = 256 << 20
"""What each daemon may have at most."""
PATIENCE = 3600.0 if FULL else 120.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    transactions: int
    rows: int
    burst_bytes: int
    tables: int
    changes: int


SIZES = (
    Sizes(2_000_000, 2_000_000, 1 << 30, 2_000, 500)
    if FULL
    else Sizes(15_000, 120_000, 64 << 20, 100, 30)
)


def peak_bytes(daemon: Daemon) -> int:
    """The most memory that its process has had."""
    return _status(daemon, "VmHWM")


def resident_bytes(daemon: Daemon) -> int:
    """The memory that its process has."""
    return _status(daemon, "VmRSS")


def _status(daemon: Daemon, what: str) -> int:
    lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    (found,) = (line for line in lines if line.startswith(what + ":"))
    return int(found.split()[1]) << 10


def open_files(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def threads(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/task").iterdir()))


@contextmanager
def on_source(pipe: Pipeline, database: str | None = "opendental") -> Iterator[Any]:
    """A cursor of root's on the source."""
    with closing(pipe.sandbox.source.connect(database=database, read_timeout=None)) as connection:
        yield connection.cursor()


@contextmanager
def measured(pipe: Pipeline, what: str) -> Iterator[None]:
    """New daemons; afterwards everything has arrived, and neither had too much memory."""
    for daemon in (pipe.replicator, pipe.loader):
        daemon.kill()
        daemon.start()
    began = time.monotonic()
    yield
    pipe.catch_up(PATIENCE)
    taken = time.monotonic() - began
    peaks = {daemon.program: peak_bytes(daemon) for daemon in (pipe.replicator, pipe.loader)}
    told = ", ".join(f"{program} {peak >> 20} MiB" for program, peak in peaks.items())
    print(f"\n{what}: {taken:.1f} s, {told}")
    assert all(peak <= MEMORY for peak in peaks.values()), told


def fill_transactions(pipe: Pipeline, count: int) -> None:
    """So many transactions of one row each, made on the server itself."""
    with on_source(pipe, None) as cursor:
        cursor.execute("CREATE DATABASE IF NOT EXISTS tools")
        cursor.execute("DROP PROCEDURE IF EXISTS tools.work")
        cursor.execute(
            "CREATE PROCEDURE tools.work(IN count INT) BEGIN DECLARE done INT DEFAULT 0;"
            " WHILE done < count DO"
            " INSERT INTO opendental.visit (PatNum, Note) VALUES (done % 1000, 'synthetic');"
            " SET done = done + 1; END WHILE; END"
        )
        cursor.execute("CALL tools.work(%s)", (count,))


Fingerprint = tuple[int, int]
"""Rows, and the sum of a digest of each."""


def fingerprints(pipe: Pipeline, table: str, *columns: str) -> list[Fingerprint]:
    """Of a table on the source, on the replica and in `raw`."""
    mysql = ", ".join(f"`{column}`" for column in columns)
    asked = (
        "SELECT COUNT(*), COALESCE(SUM(CAST(CONV(SUBSTRING(MD5(CONCAT_WS('|', "
        f"{mysql})), 1, 15), 16, 10) AS DECIMAL(30))), 0) FROM `{table}`"
    )
    found = [
        tuple(map(int, database.query(asked)[0]))
        for database in (pipe.sandbox.source_db, pipe.sandbox.replica_db)
    ]
    postgres = ", ".join(f'"{column}"' for column in columns)
    (row,) = pipe.sandbox.analytics_db.query(
        f"SELECT count(*), coalesce(sum(('x' || substr(md5(concat_ws('|', {postgres})), 1, 15))"
        f'::bit(60)::bigint::numeric), 0) FROM raw."{table}"'
    )
    return [*((rows, digest) for rows, digest in found), (int(row[0]), int(row[1]))]


def assert_same(pipe: Pipeline, table: str, *columns: str, rows: int) -> None:
    """All three hold the same rows, and so many."""
    found = fingerprints(pipe, table, *columns)
    assert found[0][0] == rows, found
    assert found[0] == found[1] == found[2], (table, found)

"""More than a practice ever makes: bounded memory, and every row exactly once; then for long."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from loader.replica import REQUEST_TABLE
from replicator.answered import EVERY_SECONDS, KEPT, SHORT
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.waiting import wait_until
from tests.faults.burden import (
    MEMORY,
    PATIENCE,
    SIZES,
    assert_same,
    fill_transactions,
    measured,
    on_source,
    open_files,
    peak_bytes,
    resident_bytes,
    threads,
)
from tests.faults.trial import MOVERS, SETTINGS, Trial
from tests.fix_pipeline import Daemon, Pipeline
from tests.fix_servers import Pair
from tests.numbers import numbers

SOAK_MINUTES = float(os.environ.get("SOAK_MINUTES", "3"))
SOAK_PACE = float(os.environ.get("SOAK_PACE", "1"))
"""How fast everybody works, asks for reloads and looks; less leaves others their processors."""
pytestmark = pytest.mark.timeout(int(2 * PATIENCE + 120))

_AT_ONCE = 20_000


@pytest.fixture(scope="module")
def pipe(server_directory: Path, servers: Pair) -> Iterator[Pipeline]:
    """One for all loads, each on a table of its own; daemons with the settings of everyday."""
    made = Pipeline(
        server_directory / f"load-{len(list(server_directory.iterdir()))}", "InnoDB", servers
    )
    with on_source(made) as cursor:
        cursor.execute(
            "CREATE TABLE visit (VisitNum BIGINT AUTO_INCREMENT PRIMARY KEY, PatNum BIGINT NOT"
            " NULL, Note VARCHAR(400)) ENGINE=InnoDB"
        )
    made.start()
    made.catch_up()
    yield made
    made.close()


def test_a_backlog_is_worked_off_within_bounds(pipe: Pipeline) -> None:
    for daemon in (pipe.replicator, pipe.loader):
        daemon.stop()
    fill_transactions(pipe, SIZES.transactions)
    with measured(pipe, f"a backlog of {SIZES.transactions:,} transactions"):
        pass
    assert_same(pipe, "visit", "VisitNum", "PatNum", "Note", rows=SIZES.transactions)


def test_a_huge_transaction_is_carried_within_bounds(pipe: Pipeline) -> None:
    with on_source(pipe) as cursor:
        cursor.execute(
            "CREATE TABLE sheet (SheetNum BIGINT PRIMARY KEY, Body VARCHAR(400)) ENGINE=InnoDB"
        )
    pipe.catch_up()
    with measured(pipe, f"one transaction of {SIZES.rows:,} rows"), on_source(pipe) as cursor:
        cursor.execute("BEGIN")
        for first in range(1, SIZES.rows + 1, _AT_ONCE):
            last = min(first + _AT_ONCE - 1, SIZES.rows)
            cursor.execute(
                "INSERT INTO sheet SELECT seq, RPAD(MD5(seq), 380, MD5(seq + 1)) FROM "
                + numbers(first, last)
            )
        cursor.execute("COMMIT")
    assert_same(pipe, "sheet", "SheetNum", "Body", rows=SIZES.rows)


def test_a_burst_of_large_rows_is_carried_within_bounds(pipe: Pipeline) -> None:
    """A quarter of them of 4 MiB, the others of 1 MiB, eight to a transaction."""
    with on_source(pipe) as cursor:
        cursor.execute(
            "CREATE TABLE document (DocNum BIGINT PRIMARY KEY, Data LONGTEXT) ENGINE=InnoDB"
        )
    pipe.catch_up()
    sent = rows = 0
    with measured(pipe, f"a burst of {SIZES.burst_bytes >> 20} MiB"), on_source(pipe) as cursor:
        while sent < SIZES.burst_bytes:
            cursor.execute("BEGIN")
            for _ in range(8):
                rows += 1
                size = (4 if rows % 4 == 0 else 1) << 20
                cursor.execute(
                    "INSERT INTO document VALUES (%s, RPAD('', %s, MD5(%s)))", (rows, size, rows)
                )
                sent += size
            cursor.execute("COMMIT")
    assert_same(pipe, "document", "DocNum", "Data", rows=rows)


def test_many_tables_are_carried_within_bounds(pipe: Pipeline) -> None:
    names = [f"leaf{number:04d}" for number in range(SIZES.tables)]
    with on_source(pipe) as cursor:
        for name in names:
            cursor.execute(
                f"CREATE TABLE {name} (id INT PRIMARY KEY, word VARCHAR(20)) ENGINE=InnoDB"
            )
            cursor.execute(f"INSERT INTO {name} VALUES (1, 'before'), (2, 'before')")
    _forget_everything(pipe)
    with measured(pipe, f"a first copy of {SIZES.tables:,} tables, and a change in each"):
        pipe.catch_up(PATIENCE)
        with on_source(pipe) as cursor:
            for name in names:
                cursor.execute(f"UPDATE {name} SET word = 'after' WHERE id = 1")
                cursor.execute(f"INSERT INTO {name} VALUES (3, 'new')")
    found = pipe.differences(names)
    assert found == {}, found
    with on_source(pipe) as cursor:
        for name in names:
            cursor.execute(f"DROP TABLE {name}")
    pipe.catch_up(PATIENCE)


def _forget_everything(pipe: Pipeline) -> None:
    """Both legs begin as if they had never been here."""
    for daemon in (pipe.replicator, pipe.loader):
        daemon.kill()
    for schema in ("raw",):
        pipe.sandbox.analytics_db.execute(f"DROP SCHEMA {schema} CASCADE")
    replica: MySQLDatabase = pipe.sandbox.replica_db
    with closing(pipe.sandbox.replica.connect()) as root, root.cursor() as cursor:
        cursor.execute(f"DROP DATABASE `{replica.name}`")


def test_schema_changes_in_a_row_are_followed_within_bounds(pipe: Pipeline) -> None:
    with on_source(pipe) as cursor:
        cursor.execute("CREATE TABLE form (FormNum BIGINT AUTO_INCREMENT PRIMARY KEY, a INT)")
    pipe.catch_up()
    with (
        measured(pipe, f"{SIZES.changes} schema changes in a row"),
        on_source(pipe) as cursor,
    ):
        for number in range(SIZES.changes):
            cursor.execute("INSERT INTO form (a) VALUES (%s)", (number,))
            cursor.execute(_change(number))
        cursor.execute("INSERT INTO form (a) VALUES (-1)")
    found = pipe.differences(["form"])
    assert found == {}, found
    assert pipe.definition_differences("form") == {}


def _change(number: int) -> str:
    match number % 5:
        case 0:
            other = f", DROP INDEX i{number - 1}" if number else ""  # a table may have 64
            other += f", DROP COLUMN c{number - 100}" if number >= 100 else ""  # and 8126 bytes
            return f"ALTER TABLE form ADD COLUMN c{number} VARCHAR(20) DEFAULT 'synthetic'{other}"
        case 1:
            return f"ALTER TABLE form ADD COLUMN d{number} INT NOT NULL DEFAULT 7 AFTER a"
        case 2:
            return f"ALTER TABLE form MODIFY c{number - 2} VARCHAR(40)"
        case 3:
            return f"CREATE TABLE tempdash{number} (id INT PRIMARY KEY)"
        case _:
            return f"ALTER TABLE form DROP COLUMN d{number - 3}, ADD INDEX i{number} (a)"


# --- for long ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """What must not grow, by name."""

    memory: dict[str, int]
    counts: dict[str, int]


@pytest.fixture
def soaking(server_directory: Path, servers: Pair) -> Iterator[Trial]:
    settings = {**SETTINGS, "LOADER_BINLOG_RESERVE_BYTES": "2MiB"}
    place = server_directory / f"soak-{len(list(server_directory.iterdir()))}"
    trial = Trial(Pipeline(place, "MyISAM", servers, **settings), pace=SOAK_PACE)
    with closing(trial.pipe.sandbox.replica.connect()) as root, root.cursor() as cursor:
        cursor.execute("SET GLOBAL max_binlog_size = 1048576")
    with trial:
        trial.start()
        trial.settle()
        yield trial
    trial.pipe.close()


@pytest.mark.timeout(int(SOAK_MINUTES * 60 + 600))
def test_nothing_grows_while_a_practice_works_for_long(soaking: Trial) -> None:
    """Schema changes all the time, and one reload after the other."""
    soaking.asked.set()
    samples = list(_samples(soaking, SOAK_MINUTES * 60))
    soaking.settle(180)
    soaking.verify()
    # The first third is for filling caches; the others are compared with each other.
    third = len(samples) // 3
    parts = samples[:third], samples[third : 2 * third], samples[2 * third :]
    print(f"\n{len(samples)} looks, {soaking.work_done:,} pieces of work; by thirds:")
    for program in ("replicator", "loader"):
        memory = [statistics.median(s.memory[program] for s in part) for part in parts]
        print(f"{program}: " + ", ".join(f"{size / 2**20:.1f} MiB" for size in memory))
        assert memory[2] <= memory[1] * 1.05 + (4 << 20), (program, memory)
        assert peak_bytes(soaking.daemon_named(program)) <= MEMORY
    for what in samples[0].counts:
        counts = [max(s.counts.get(what, 0) for s in part) for part in parts]
        print(f"{what}: " + ", ".join(map(str, counts)))
        assert counts[2] <= counts[1] + _SPARE.get(what, 3), (what, counts)


_SPARE = {
    "bytes of the replica's binlog": 2 << 20,
    f"rows of {REQUEST_TABLE}": KEPT,
    "rows of etl_copy_again": MOVERS,
}
"""How much more there may be in the last third; so many answered requests are kept, and rows that
move while their table is copied are noted until it is whole: on a busy machine most of them."""
_RECENTLY = SHORT + timedelta(seconds=EVERY_SECONDS)
"""Requests that were answered within this time are all kept: they grow with what is asked."""


def _samples(trial: Trial, seconds: float) -> Iterator[Sample]:
    """One every few seconds, until the time is over."""
    end, step = time.monotonic() + seconds, max(1.0, seconds / 120)
    while time.monotonic() < end:
        due = time.monotonic() + step
        wait_until(lambda: time.monotonic() >= due, step + 60, what="the next look")  # noqa: B023
        for daemon in trial.daemons:
            assert daemon.running, daemon.output[-3000:]
        yield _sample(trial)


def _sample(trial: Trial) -> Sample:
    daemons: tuple[Daemon, ...] = trial.daemons
    counts = {f"open files of {daemon.program}": open_files(daemon) for daemon in daemons}
    counts |= {f"threads of {daemon.program}": threads(daemon) for daemon in daemons}
    sandbox = trial.pipe.sandbox
    for server, user in ((sandbox.source, "readonly_user"), (sandbox.replica, "replication_user")):
        with closing(server.connect()) as root, root.cursor() as cursor:
            cursor.execute(
                "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s", (user,)
            )
            counts[f"connections of {user}"] = cursor.fetchone()[0]
    with closing(sandbox.replica_db.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW BINARY LOGS")
        files = [int(row[1]) for row in cursor.fetchall()]
        counts["files of the replica's binlog"] = len(files)
        counts["bytes of the replica's binlog"] = sum(files)
        cursor.execute("SHOW TABLES")
        names = [row[0] for row in cursor.fetchall()]
        counts["tables on the replica"] = len(names)
        for name in names:
            if name.startswith("etl_"):
                since = f"UTC_TIMESTAMP() - INTERVAL {_RECENTLY.seconds} SECOND"
                old = f" WHERE updated_at < {since}" if name == REQUEST_TABLE else ""
                cursor.execute(f"SELECT COUNT(*) FROM `{name}`{old}")
                counts[f"rows of {name}"] = cursor.fetchone()[0]
    with trial.raw() as raw:
        (counts["connections to PostgreSQL"],) = raw.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'loader%'"
        ).fetchone()
        tables = raw.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'raw'::regnamespace"
            " AND relkind = 'r'"
        ).fetchall()
        counts["tables in raw"] = len(tables)
        for (name,) in tables:
            if name.startswith("etl_"):
                (counts[f"rows of raw.{name}"],) = raw.execute(
                    f"SELECT count(*) FROM raw.{name}"
                ).fetchone()
    return Sample({daemon.program: resident_bytes(daemon) for daemon in daemons}, counts)

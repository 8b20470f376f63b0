"""The whole pipeline as its user runs it: three servers, two daemons as real processes.

`pipeline(engine)` gives a sandbox with both daemons ready to start. What they left
is compared by means of their own: rows are read from all three servers, brought to
one form in Python, and compared as multisets. Nothing of the product decides what
is equal.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.string import TextLoader

from config.connections import quote_mysql_identifier
from loader.types import raw_name
from replicator.sandbox.cluster import Engine, Sandbox
from replicator.sandbox.data import load
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.schema import create_tables
from replicator.sandbox.waiting import wait_until
from replicator.sandbox.workload import Workload
from tests.fix_servers import Pair

NewPipeline = Callable[..., "Pipeline"]
Raw = psycopg.Connection[tuple[Any, ...]]
Rows = Counter[tuple[object, ...]]


class Daemon:
    """`replicator run` or `loader run` as a process; its output goes to a file."""

    def __init__(self, program: str, environment: dict[str, str], directory: Path) -> None:
        self.program = program
        self.log = directory / f"{program}.log"
        self._environment = environment
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **variables: str) -> None:
        """Start it; `variables` hold for this time only."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{self.program}.cli", "run"],
                env={**self._environment, **variables},
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def stopped(self) -> bool:
        """Does it stand still, by SIGSTOP?"""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL: what it had in memory is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """SIGTERM, as systemd does; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=30)

    def wait(self, deadline: float) -> int:
        assert self._process is not None
        return self._process.wait(timeout=deadline)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Pipeline:
    """A sandbox and its two daemons."""

    def __init__(
        self,
        directory: Path,
        engine: Engine,
        pair: Pair,
        *,
        durable: bool = False,
        **variables: str,
    ) -> None:
        self.sandbox = Sandbox(
            directory,
            durable=durable,
            mysql=pair.mysql,
            postgres=pair.postgres,
            source_options=dict(pair.chosen),
            replica=pair.replica,
        )
        self.sandbox.up(engine)
        inherited = {
            k: v for k, v in os.environ.items()
            if not k.startswith(("OPENDENTAL_", "MYSQL_", "POSTGRES_", "REPLICATOR_", "LOADER_"))
        }  # fmt: skip
        self.environment = {
            **inherited,
            **self.sandbox.env(),
            "REPLICATOR_LOG_FORMAT": "json",
            **variables,
        }
        self.replicator = Daemon("replicator", self.environment, directory)
        self.loader = Daemon("loader", self.environment, directory)

    def start(self) -> None:
        self.replicator.start()
        self.loader.start()

    def close(self) -> None:
        self.replicator.kill()
        self.loader.kill()
        self.sandbox.remove()

    def run(self, *arguments: str, deadline: float = 120) -> subprocess.CompletedProcess[str]:
        """A verb of the command line, in this pipeline's environment."""
        return subprocess.run(
            [sys.executable, "-m", "replicator.cli", *arguments],
            env=self.environment,
            cwd=self.sandbox.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )

    # --- progress ------------------------------------------------------------------------

    def catch_up(self, deadline: float = 90.0) -> None:
        """Wait until `raw` shows what the source has committed now, every table streaming."""
        file, offset = self.sandbox.source_db.binlog_end()
        goal = (int(file.rpartition(".")[2]), offset)
        with self.raw() as raw:
            wait_until(
                lambda: self._arrived(raw, goal), deadline, what=lambda: self._where(raw, goal)
            )

    def raw(self) -> Raw:
        """A new connection to the analytics database, as its superuser."""
        return self.sandbox.analytics.connect(
            database=self.sandbox.analytics_db.name, prepare_threshold=None
        )

    def _arrived(self, raw: Raw, goal: tuple[int, int]) -> bool:
        for daemon in (self.replicator, self.loader):
            assert daemon.running, f"{daemon.program} has ended:\n{daemon.output[-3000:]}"
        return self._place(raw) >= goal and not self._unsettled(raw)

    def _place(self, raw: Raw) -> tuple[int, int]:
        (there,) = raw.execute("SELECT to_regclass('raw.etl_binlog_offset')").fetchall()
        if not there[0]:
            return (0, 0)
        row = raw.execute(
            "SELECT source_binlog_file, source_binlog_position FROM raw.etl_binlog_offset"
        ).fetchone()
        if row is None or row[0] is None:
            return (0, 0)
        return int(row[0].rpartition(".")[2]), int(row[1])

    def _unsettled(self, raw: Raw) -> list[tuple[Any, ...]]:
        """What is under way, with its state.

        Each server is looked at once, the left one first: in two looks at one, a load that begins
        between them shows in neither.
        """
        extracted = self.sandbox.replica_db.query(
            "SELECT table_name, extraction_status FROM etl_extract_status"
        )
        requests = self.sandbox.replica_db.query(
            "SELECT table_name, state FROM etl_resync_request WHERE state NOT IN ('done','failed')"
        )
        loaded = dict(
            raw.execute(
                "SELECT table_name, transformation_status FROM raw.etl_transform_status"
            ).fetchall()
        )
        copying = [(table, state) for table, state in extracted if state != "streaming"]
        loading = [one for one in loaded.items() if one[1] not in ("streaming", "dropped")]
        missing = [
            (table, "not in raw")
            for table, state in extracted
            if state == "streaming" and table not in loaded
        ]
        return [*copying, *requests, *loading, *missing]

    def _where(self, raw: Raw, goal: tuple[int, int]) -> str:
        return (
            f"raw at {goal}; it is at {self._place(raw)}, waiting for {self._unsettled(raw)[:5]}\n"
            f"replicator: {self.replicator.output[-1500:]}\nloader: {self.loader.output[-1500:]}"
        )

    # --- the oracle ----------------------------------------------------------------------

    def tables(self) -> list[str]:
        return [row[0] for row in self.sandbox.source_db.query("SHOW TABLES")]

    def differences(self, tables: list[str] | None = None) -> dict[str, str]:
        """Tables whose rows are not the same on all three servers, with counts."""
        with ExitStack() as opened:
            source = opened.enter_context(closing(self.sandbox.source_db.connect()))
            replica = opened.enter_context(closing(self.sandbox.replica_db.connect()))
            raw = opened.enter_context(self.raw())
            found = {
                table: self._difference(source, replica, raw, table)
                for table in (tables if tables is not None else self.tables())
            }
        return {table: told for table, told in found.items() if told}

    def _difference(self, source: Any, replica: Any, raw: Raw, table: str) -> str:
        """How the table's rows differ between the three, or ""."""
        columns = self._columns(table)
        here = mysql_rows(source, table, columns)
        there = mysql_rows(replica, table, columns)
        loaded = raw_rows(raw, table, columns)
        if here == there == loaded:
            return ""
        return (
            f"source {here.total()}, replica {there.total()}, raw {loaded.total()} rows;"
            f" {len(here - there)} + {len(there - here)} differ on the replica,"
            f" {len(here - loaded)} + {len(loaded - here)} in raw"
        )

    def _columns(self, table: str) -> list[tuple[str, str]]:
        return [
            (row[0], row[1].split("(")[0].split(" ")[0])
            for row in self.sandbox.source_db.query(
                f"SHOW COLUMNS FROM {quote_mysql_identifier(table)}"
            )
        ]

    def raw_tables(self, prefix: str) -> set[str]:
        """The names of the tables in `raw` that begin so, without histories."""
        found = self.sandbox.analytics_db.query(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'raw'"
        )
        names = {row[0] for row in found if row[0].startswith(prefix)}
        return {name for name in names if not name.endswith("_history")}

    def definition_differences(self, prefix: str) -> dict[str, str]:
        """Tables that the replica defines otherwise than the source does, but for the engine."""
        source = _definitions(self.sandbox.source_db, prefix)
        replica = _definitions(self.sandbox.replica_db, prefix)
        return {
            table: f"source only {left - right}; replica only {right - left}"
            for table in source | replica
            if (left := source.get(table, set())) != (right := replica.get(table, set()))
        }


_CATALOG = {
    "tables": "table_type, table_collation, table_comment",
    "columns": "column_name, ordinal_position, column_type, is_nullable, collation_name,"
    " column_default, extra, generation_expression, column_comment",
    "statistics": "index_name, seq_in_index, non_unique, column_name, sub_part",
    "partitions": "partition_name, partition_ordinal_position, partition_method,"
    " partition_expression, partition_description",
}


def _definitions(database: MySQLDatabase, prefix: str) -> dict[str, set[tuple[Any, ...]]]:
    """What the catalog says of the tables whose names begin so."""
    found: dict[str, set[tuple[Any, ...]]] = {}
    for view, columns in _CATALOG.items():
        for row in database.query(
            f"SELECT table_name, {columns} FROM information_schema.{view}"
            " WHERE table_schema = %s AND LEFT(table_name, %s) = %s",
            (database.name, len(prefix), prefix),
        ):
            found.setdefault(row[0], set()).add((view, *row[1:]))
    return found


def mysql_rows(connection: Any, table: str, columns: list[tuple[str, str]]) -> Rows:
    """A table's rows on a MySQL server, in our form; `columns` are names and kinds."""
    names = ", ".join(
        quote_mysql_identifier(name) + ("*1e0" if kind == "float" else "") for name, kind in columns
    )
    cursor = connection.cursor()
    cursor.execute("SET time_zone='+00:00'")
    cursor.execute(f"SELECT {names} FROM {quote_mysql_identifier(table)}")
    kinds = [kind for _, kind in columns]
    return Counter(
        tuple(_plain(v, k) for v, k in zip(row, kinds, strict=True)) for row in cursor.fetchall()
    )


def raw_rows(connection: Raw, table: str, columns: list[tuple[str, str]]) -> Rows:
    """The same of a table in `raw`, without rows that are kept of deleted ones."""
    kept = connection.execute(
        "SELECT 1 FROM information_schema.columns WHERE table_schema = 'raw' AND table_name = %s"
        " AND column_name = '_deleted_at'",
        [raw_name(table)],
    ).fetchone()
    live = " WHERE _deleted_at IS NULL" if kept else ""
    names = ", ".join(_in_raw(name) for name, _ in columns)
    connection.execute("SET intervalstyle = 'postgres'")
    connection.adapters.register_loader("jsonb", TextLoader)
    kinds = [kind for _, kind in columns]
    return Counter(
        tuple(_plain(v, k) for v, k in zip(row, kinds, strict=True))
        for row in connection.execute(f"SELECT {names} FROM raw.{_in_raw(table)}{live}".encode())
    )


def _in_raw(name: str) -> str:
    """A name of the source as `raw` has it, quoted."""
    return '"' + raw_name(name).replace('"', '""') + '"'


def _plain(value: Any, kind: str) -> object:
    """A value in the form in which both drivers' answers can be compared."""
    if value is None:
        return None
    if kind == "float":
        return struct.pack("<f", value)
    if kind == "double":
        return struct.pack("<d", value)
    if isinstance(value, str) and kind in ("date", "datetime", "timestamp"):
        return None  # 0000-00-00, which PostgreSQL cannot hold and raw has as NULL
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    if kind == "json":
        return json.dumps(json.loads(value), sort_keys=True)
    if kind == "bit" and isinstance(value, str):
        return int(value, 2)  # as PostgreSQL writes it
    if isinstance(value, str):
        return value.replace("\0", "\\0")  # which PostgreSQL cannot hold either
    if kind == "bit" and isinstance(value, bytes):
        return int.from_bytes(value, "big")
    return value


class Practice:
    """Synthetic data on a pipeline's source, and several people who work with it at once."""

    def __init__(self, pipeline: Pipeline, *, size: int, people: int = 4, pace: float = 60) -> None:
        """`pace`: transactions a second that each of them makes at most."""
        self._pipeline = pipeline
        engine = pipeline.sandbox.engine
        with closing(self.connect()) as connection:
            create_tables(connection, engine)
            load(connection, size, seed=1)
        self._stop = threading.Event()
        # Two keep to their own rows, the others get in each other's way.
        self.people = [
            Workload(self.connect, seed, worker=seed, shared=seed >= 2) for seed in range(people)
        ]
        self._threads = [
            threading.Thread(target=person.run, args=(self._stop, pace), daemon=True)
            for person in self.people
        ]

    def connect(self) -> Any:
        return self._pipeline.sandbox.source.connect(database="opendental")

    @property
    def steps(self) -> int:
        return sum(person.done.total() for person in self.people)

    def __enter__(self) -> Practice:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def work(self, steps: int, deadline: float = 60.0) -> None:
        """Wait until so many more transactions have been made."""
        goal = self.steps + steps
        wait_until(lambda: self.steps >= goal, deadline, what=f"{steps} more transactions")


@pytest.fixture
def pipeline(server_directory: Path, servers: Pair) -> Iterator[NewPipeline]:
    """Makes pipelines: pipeline("MyISAM"), with further environment variables by keyword.

    Without an engine it is the one that `--source-options` names, or InnoDB. `durable`: the
    servers wait for the disk, so that what they acknowledged outlives their own death.
    """
    made: list[Pipeline] = []

    def make(engine: Engine | None = None, *, durable: bool = False, **variables: str) -> Pipeline:
        place = server_directory / f"pipeline-{len(list(server_directory.iterdir()))}"
        made.append(
            Pipeline(place, engine or servers.engine, servers, durable=durable, **variables)
        )
        return made[-1]

    yield make
    for each in made:
        each.close()

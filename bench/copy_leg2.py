"""The load replica → raw against pgloader: both practice tables from one server into another.

Ours is the loader's own copy path: its threads, helper tables, primary keys, the merge that
puts them in place, in a process of its own. pgloader gets the same servers and makes tables
with primary keys as well, with its settings as they come (workers 4, concurrency 1, batches of
25,000 rows, no encoding of its own), and Debian's program; fewer or more workers made it no
faster. Both may use the same two processors, as may the servers, and PostgreSQL is given time
to write its checkpoint before each load. pgloader's tables need not be as exact (it makes
timestamps with a time zone of DATETIMEs, and booleans of some tinyints); ours are held to the
server's row counts and keys.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from bench import practice
from bench.measure import Result, Run, described, peak_mib, rounds, start_peak
from bench.rig import cpu_seconds
from config.connections import connect_mysql, connect_postgres
from config.settings import Settings, load_settings
from config.tables import TableRules
from loader import tracking
from loader.ddl import shapes
from loader.load.merge import merge
from loader.load.reload import Connections, LoadRequest, raw_bytes_options
from loader.load.worker import LoadWorker
from loader.masking import masker_of
from loader.quarantine import entries
from replicator.sandbox.accounts import allow_replica, create_replica_account
from replicator.sandbox.postgres import PostgreSQLServer
from replicator.sandbox.servers import REPLICA_OPTIONS, MariaDBServer

WIDE_ROWS, NARROW_ROWS = 60_000, 600_000
OURS, THEIRS = "loader", "pgloader"
INSTALL = (
    "bench copy_leg2 needs pgloader and there is none. On Debian: apt-get install pgloader"
    " (or `make bench`, which does it)."
)
_DATABASE, _ACCOUNT, _PASSWORD = "opendental_replication", "bench", "bench"
_TABLES = {"wide": [practice.WIDE], "narrow": [practice.NARROW]}
_TABLES["both"] = _TABLES["wide"] + _TABLES["narrow"]
_ROWS = {"wide": WIDE_ROWS, "narrow": NARROW_ROWS, "both": WIDE_ROWS + NARROW_ROWS}
_COMMANDS = """
LOAD DATABASE FROM mysql://{account}:{password}@127.0.0.1:{mysql}/{database}
  INTO postgresql://{account}:{password}@127.0.0.1:{postgres}/pgloader
  WITH include drop, create tables, create indexes, no foreign keys, reset no sequences,
       quote identifiers, workers = 4, concurrency = 1
  SET PostgreSQL PARAMETERS maintenance_work_mem to '64MB'
  INCLUDING ONLY TABLE NAMES MATCHING {tables};
"""

Work = Callable[[str], tuple[float, float, float]]
"""Load what is named; seconds, CPU seconds and peak MiB of the program that did it."""


def run() -> Iterator[Result]:
    """The figure; without pgloader none, and how to get it."""
    if shutil.which(THEIRS) is None:
        raise SystemExit(INSTALL)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[:2]))  # what we start inherits it
    try:
        with ExitStack() as stack:
            yield _compared(Stage(stack))
    finally:
        os.sched_setaffinity(0, before)


def _compared(stage: Stage) -> Result:
    found: dict[str, list[Run]] = {OURS: [], THEIRS: []}
    for number in range(rounds()):
        for one in sorted(found, reverse=bool(number % 2)):
            found[one].append(stage.load(one, "both"))
    stage.check()
    pairs = zip(found[OURS], found[THEIRS], strict=True)
    ratios = [ours.seconds / theirs.seconds for ours, theirs in pairs]
    alone = {
        which: {one: round(stage.load(one, which).rate) for one in found}
        for which in ("wide", "narrow")
    }
    middle = {
        one: replace(
            sorted(runs, key=lambda run: run.seconds)[len(runs) // 2],
            peak_mib=max(run.peak_mib for run in runs),
        )
        for one, runs in found.items()
    }
    return Result(
        "copy_leg2_vs_pgloader",
        round(median(ratios), 2),
        details={
            "ratios": [round(ratio, 2) for ratio in ratios],
            "rows_s": alone,
            "processors": len(os.sched_getaffinity(0)),
            "runs": described(middle),
        },
    )


class Stage:
    """The two servers, filled, and both programs' ways between them."""

    def __init__(self, stack: ExitStack) -> None:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        directory.chmod(0o711)  # PostgreSQL runs as its own account
        self._commands = directory / "pgloader.load"
        options = {**REPLICA_OPTIONS, "innodb_buffer_pool_size": "1G"}
        self.replica = MariaDBServer(directory / "replica", options=options, server_id=2)
        self.analytics = PostgreSQLServer(directory / "analytics")
        for server in (self.replica, self.analytics):
            stack.callback(server.discard)
            server.launch()
        self.replica.wait_ready()
        self.analytics.wait_ready()
        self._fill()
        self.settings = self._settings()

    def _fill(self) -> None:
        with closing(self.replica.connect()) as root, root.cursor() as cursor:
            cursor.execute("SET SESSION sql_mode = ''")
            cursor.execute(f"CREATE DATABASE {_DATABASE}")
            cursor.execute(f"USE {_DATABASE}")
            practice.create(root)
            practice.fill_wide_unlogged(root, WIDE_ROWS)
            cursor.execute("SET SESSION sql_log_bin = 0")
            practice.load_narrow(root, NARROW_ROWS)
            root.commit()
            create_replica_account(root, _ACCOUNT, _PASSWORD)
            allow_replica(root, _ACCOUNT, _DATABASE)
            cursor.execute(  # the one kind of password that pgloader knows
                f"ALTER USER {_ACCOUNT}@'%' IDENTIFIED VIA mysql_native_password"
                f" USING PASSWORD('{_PASSWORD}')"
            )
        with self.analytics.connect(autocommit=True) as owner:
            owner.execute(f"CREATE ROLE {_ACCOUNT} LOGIN PASSWORD '{_PASSWORD}'")
            for name in (OURS, THEIRS):
                owner.execute(f"CREATE DATABASE {name} OWNER {_ACCOUNT}")

    def _settings(self) -> Settings:
        server = {"HOST": "127.0.0.1", "USER": _ACCOUNT, "PASSWORD": _PASSWORD}
        replica = {"PORT": str(self.replica.port), "DB": _DATABASE}
        return load_settings(
            env_file=None,
            environ={
                **_prefixed("OPENDENTAL_SOURCE_", {**server, "PORT": "1", "DB": "none"}),
                **_prefixed("MYSQL_REPLICATION_", server | replica),
                **_prefixed(
                    "POSTGRES_ANALYTICS_", server | {"PORT": str(self.analytics.port), "DB": OURS}
                ),
                **{k: v for k, v in os.environ.items() if k.startswith("LOADER_COPY_")},
            },
        )

    def load(self, one: str, which: str) -> Run:
        """One load into a database without the tables."""
        with self._analytics(one) as connection:
            for table in _TABLES[which]:
                for schema in ("raw", _DATABASE):
                    connection.execute(f'DROP TABLE IF EXISTS {schema}."{table}"'.encode())
        with self.analytics.connect(autocommit=True) as root:
            root.execute("CHECKPOINT")
        work: Work = self._ours if one == OURS else self._theirs
        before = self._servers_cpu()
        seconds, cpu, peak = work(which)
        return Run(_ROWS[which], seconds, cpu + self._servers_cpu() - before, peak)

    def _analytics(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host="127.0.0.1", port=self.analytics.port, user=_ACCOUNT, password=_PASSWORD,
            dbname=database, autocommit=True, options="-c client_min_messages=error",
        )  # fmt: skip

    def _servers_cpu(self) -> float:
        """PostgreSQL's processes count once they are gone, with the postmaster's children."""
        gone = Path(f"/proc/{self.analytics.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:15]
        assert self.replica.pid is not None
        return cpu_seconds(self.replica.pid) + sum(map(int, gone)) / os.sysconf("SC_CLK_TCK")

    def _ours(self, which: str) -> tuple[float, float, float]:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_load, args=(self.settings, _TABLES[which], theirs))
        process.start()
        theirs.close()
        answer: tuple[float, float, float] = ours.recv()
        process.join()
        return answer

    def _theirs(self, which: str) -> tuple[float, float, float]:
        self._commands.write_text(
            _COMMANDS.format(
                account=_ACCOUNT, password=_PASSWORD, database=_DATABASE,
                mysql=self.replica.port, postgres=self.analytics.port,
                tables=", ".join(f"'{table}'" for table in _TABLES[which]),
            )
        )  # fmt: skip
        began = time.perf_counter()
        with subprocess.Popen(
            [THEIRS, "--root-dir", str(self._commands.parent), str(self._commands)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            said = process.stdout.read() if process.stdout else ""
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        spent = time.perf_counter() - began
        with self._analytics(THEIRS) as connection:
            for table in _TABLES[which]:
                counted = connection.execute(f'SELECT count(*) FROM {_DATABASE}."{table}"'.encode())
                if counted.fetchone() != (_ROWS["wide" if table == practice.WIDE else "narrow"],):
                    raise RuntimeError(f"pgloader did not load {table}:\n{said}")
        return spent, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024

    def check(self) -> None:
        """We were not fast by leaving something out."""
        with closing(self.replica.connect()) as root, root.cursor() as cursor:
            for table, key in ((practice.WIDE, "PatNum"), (practice.NARROW, "PayNum")):
                cursor.execute(f"SELECT count(*), sum({key}) FROM {_DATABASE}.{table}")
                with self._analytics(OURS) as connection:
                    query = f'SELECT count(*), sum("{key}") FROM raw."{table}"'
                    if connection.execute(query.encode()).fetchone() != cursor.fetchone():
                        raise AssertionError(f"raw.{table} holds other rows than the replica")


def _prefixed(prefix: str, values: Mapping[str, str]) -> dict[str, str]:
    return {prefix + name: value for name, value in values.items()}


def _load(settings: Settings, tables: list[str], pipe: Connection) -> None:
    """Load tables and put them in place; the time begins with the first connection."""
    start_peak()
    began, cpu = time.perf_counter(), _own_cpu()

    def connect() -> Connections:
        rows = connect_mysql(settings.replication, **raw_bytes_options())
        return Connections(
            rows, connect_mysql(settings.replication), connect_postgres(settings.analytics)
        )

    with connect_postgres(settings.analytics) as postgres:
        tracking.create_tables(postgres, settings.analytics.schema_name)
        shapes.create_tables(postgres)
        entries.create_tables(postgres)
        postgres.commit()
        worker = LoadWorker(
            connect,
            settings.replication.db,
            "replica",
            settings.loader.copy_connections,
            masker=masker_of(settings, TableRules()),
        )
        worker.submit([LoadRequest(table, True, 1) for table in tables])
        left = len(tables)
        while left:
            for loaded in worker.results():
                assert loaded.schema is not None
                merge(postgres, loaded, loaded.schema, hidden=True, touched=False, exceptions=False)
                postgres.commit()
                left -= 1
            time.sleep(0.005)
        worker.stop()
    pipe.send((time.perf_counter() - began, _own_cpu() - cpu, peak_mib()))


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

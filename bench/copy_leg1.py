"""The first copy of leg 1 against `mariadb-dump --single-transaction` piped into `mariadb`.

A source is loaded once. Then each candidate copies it into an empty database, in turn, each
into a replica server of its own with the same options:

* **ours**: the replicator in a process of its own, from its first step (it connects to both
  servers) until each table's copy is complete. Connections write no binlog, as always for a
  first copy.
* **dump**: both client programs, from their start until the second has ended, with
  `sql_log_bin=0`, so that it writes no binlog either. mariadb-dump takes what it takes by
  default: extended inserts, keys disabled, unique and foreign key checks off.

All processes may use the same two processors. CPU seconds are those of both servers and of
the client processes; the peak is that of our process. `wide` and `narrow` in the details are
copies of one of the two tables alone, in rows per second.

The practice's 436 tables are synthetic: as many tables and columns as OpenDental has, cut
from the sandbox's own, MyISAM as there, ten rows each. The second that a MyISAM copy waits
for the commit gap (REPLICATOR_COPY_GAP_SECONDS) is in the figure.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from bench import practice
from bench.measure import Result, Run, described, peak_mib, rounds, start_peak
from config.logs import configure_logging
from config.settings import Settings, load_settings
from config.tables import TableRules
from replicator.daemon import Replicator
from replicator.sandbox.accounts import (
    allow_replica,
    allow_source,
    create_replica_account,
    create_source_account,
)
from replicator.sandbox.data import RowMaker
from replicator.sandbox.schema import TABLES, Table
from replicator.sandbox.servers import REPLICA_OPTIONS, SOURCE_OPTIONS, MariaDBServer

WIDE_ROWS, NARROW_ROWS = 20_000, 200_000
MANY_TABLES, MANY_COLUMNS, MANY_ROWS = 436, 4557, 10
DATABASES = {"both": "opendental", "wide": "wide", "narrow": "narrow", "many": "practice"}
_COPY = "opendental_replication"
_PASSWORD = "bench"
_TICK = os.sysconf("SC_CLK_TCK")
_SIZES = {"innodb_buffer_pool_size": "1G", "innodb_log_file_size": "1G"}
_DUMP, _LOAD = "mariadb-dump", "mariadb"


def run() -> Iterator[Result]:
    """Yield both figures; without the client programs, none, and say so."""
    missing = [name for name in (_DUMP, _LOAD) if shutil.which(name) is None]
    if missing:
        print(f"copy_leg1 needs {', '.join(missing)} (mariadb-client)", file=sys.stderr)
        return
    configure_logging("error")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[:2]))  # what we start inherits it
    try:
        with ExitStack() as stack:
            stage = Stage(stack)
            stage.load()
            yield _compared(stage, "both", "copy_leg1_vs_dump", "≤ 1.0", stage.alone())
            yield _compared(stage, "many", "copy_436_tables_vs_dump", "≤ 2.0", {})
    finally:
        os.sched_setaffinity(0, before)


def _compared(
    stage: Stage, which: str, name: str, goal: str, details: Mapping[str, object]
) -> Result:
    found: dict[str, list[Run]] = {"ours": [], "dump": []}
    for number in range(rounds()):
        for one in sorted(found, reverse=bool(number % 2)):
            found[one].append(stage.copy(one, which))
    stage.compare(which)
    pairs = zip(found["ours"], found["dump"], strict=True)
    ratios = [ours.seconds / dump.seconds for ours, dump in pairs]
    middle = {
        one: replace(
            sorted(runs, key=lambda run: run.seconds)[len(runs) // 2],
            peak_mib=max(run.peak_mib for run in runs),
        )
        for one, runs in found.items()
    }
    return Result(
        name,
        round(median(ratios), 2),
        goal,
        {
            "ratios": [round(ratio, 2) for ratio in ratios],
            "processors": len(os.sched_getaffinity(0)),
            **details,
            "runs": described(middle),
        },
    )


class Stage:
    """A source with four databases, and a replica for each candidate; all end with `stack`."""

    def __init__(self, stack: ExitStack) -> None:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        directory.chmod(0o711)
        options = {**SOURCE_OPTIONS, "default_storage_engine": "InnoDB", **_SIZES}
        self.source = MariaDBServer(directory / "source", options=options, server_id=1)
        self.replicas = {
            name: MariaDBServer(
                directory / name, options={**REPLICA_OPTIONS, **_SIZES}, server_id=number
            )
            for number, name in ((2, "ours"), (3, "dump"))
        }
        servers = (self.source, *self.replicas.values())
        for server in servers:
            stack.callback(server.discard)
            server.launch()
        for server in servers:
            server.wait_ready()
        self.units: dict[str, int] = {}

    def load(self) -> None:
        """Fill the source, and make the accounts of our side."""
        with closing(self.source.connect(autocommit=True)) as root:
            create_source_account(root, "reader", _PASSWORD)
            for name in DATABASES.values():
                _run(root, f"CREATE DATABASE {name} CHARACTER SET utf8mb3")
                allow_source(root, "reader", name)
            _run(root, f"USE {DATABASES['both']}")
            practice.create(root)
            practice.load_wide(root, WIDE_ROWS)
            practice.load_narrow(root, NARROW_ROWS)
            for which, copied_table in (("wide", practice.WIDE), ("narrow", practice.NARROW)):
                copied, original = (
                    f"{DATABASES[which]}.{copied_table}", f"{DATABASES['both']}.{copied_table}"
                )  # fmt: skip
                _run(root, f"CREATE TABLE {copied} LIKE {original}")
                _run(root, f"INSERT INTO {copied} SELECT * FROM {original}")
            _run(root, f"USE {DATABASES['many']}")
            for table in many_tables():
                maker = RowMaker(table, seed=1, patients=100)
                rows = [f"({', '.join(maker.row(key))})" for key in range(1, MANY_ROWS + 1)]
                _run(root, table.ddl("MyISAM"))
                _run(root, f"INSERT INTO {table.name} VALUES {', '.join(rows)}")
        with closing(self.replicas["ours"].connect()) as root:
            create_replica_account(root, "writer", _PASSWORD)
            allow_replica(root, "writer", _COPY)
        self.units = {
            "wide": WIDE_ROWS,
            "narrow": NARROW_ROWS,
            "both": WIDE_ROWS + NARROW_ROWS,
            "many": MANY_TABLES,
        }

    def alone(self) -> dict[str, dict[str, int]]:
        """Rows per second of each table alone."""
        return {
            which: {one: round(self.copy(one, which).rate) for one in ("ours", "dump")}
            for which in ("wide", "narrow")
        }

    def copy(self, candidate: str, which: str) -> Run:
        """One copy into an empty database."""
        server = self.replicas[candidate]
        with closing(server.connect()) as root:
            _run(root, f"DROP DATABASE IF EXISTS {_COPY}")
        work: Callable[[str], tuple[float, float, float]] = (
            self._ours if candidate == "ours" else self._dump
        )
        before = _cpu(server.pid) + _cpu(self.source.pid)
        seconds, cpu, peak = work(which)
        cpu += _cpu(server.pid) + _cpu(self.source.pid) - before
        return Run(self.units[which], seconds, cpu, peak)

    def _ours(self, which: str) -> tuple[float, float, float]:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_replicate, args=(self._settings(which), theirs))
        process.start()
        theirs.close()
        answer: tuple[float, float, float] = ours.recv()
        process.join()
        return answer

    def _dump(self, which: str) -> tuple[float, float, float]:
        server = self.replicas["dump"]
        with closing(server.connect()) as root:
            _run(root, f"CREATE DATABASE {_COPY} CHARACTER SET utf8mb3")
        started, cpu = time.perf_counter(), os.times()
        with subprocess.Popen(
            [_DUMP, *_login(self.source), "--single-transaction", DATABASES[which]],
            stdout=subprocess.PIPE,
        ) as dump:
            subprocess.run(
                [_LOAD, *_login(server), "--init-command=SET sql_log_bin=0", _COPY],
                stdin=dump.stdout,
                check=True,
            )
        spent, after = time.perf_counter() - started, os.times()
        if dump.returncode:
            raise RuntimeError(f"{_DUMP} failed")
        used = after.children_user + after.children_system
        return spent, used - cpu.children_user - cpu.children_system, 0.0

    def _settings(self, which: str) -> Settings:
        return load_settings(
            env_file=None,
            environ={
                "OPENDENTAL_SOURCE_HOST": "127.0.0.1",
                "OPENDENTAL_SOURCE_PORT": str(self.source.port),
                "OPENDENTAL_SOURCE_DB": DATABASES[which],
                "OPENDENTAL_SOURCE_USER": "reader",
                "OPENDENTAL_SOURCE_PASSWORD": _PASSWORD,
                "MYSQL_REPLICATION_HOST": "127.0.0.1",
                "MYSQL_REPLICATION_PORT": str(self.replicas["ours"].port),
                "MYSQL_REPLICATION_DB": _COPY,
                "MYSQL_REPLICATION_USER": "writer",
                "MYSQL_REPLICATION_PASSWORD": _PASSWORD,
                "POSTGRES_ANALYTICS_HOST": "127.0.0.1",
                "POSTGRES_ANALYTICS_DB": "none",
                "POSTGRES_ANALYTICS_USER": "none",
                "POSTGRES_ANALYTICS_PASSWORD": "none",
                **{k: v for k, v in os.environ.items() if k.startswith("REPLICATOR_COPY_")},
            },
        )

    def compare(self, which: str) -> None:
        """We were not fast by leaving something out; a dump loses digits of FLOATs, and may."""
        if _checksums(self.replicas["ours"], _COPY) != _checksums(self.source, DATABASES[which]):
            raise AssertionError("the copy holds other rows than the source")


def many_tables() -> list[Table]:
    """As many tables and columns as OpenDental has, cut from the sandbox's."""
    sizes = [MANY_COLUMNS // MANY_TABLES + (n < MANY_COLUMNS % MANY_TABLES) for n in
             range(MANY_TABLES)]  # fmt: skip
    made: list[Table] = []
    owed = 0
    models = [*TABLES.values()]
    for number, size in enumerate(sizes):
        model = models[number % len(models)]
        owed += size
        columns = model.columns[: max(owed, model.key_index + 1)]
        owed -= len(columns)
        made.append(Table(f"{model.name}{number}", columns, ()))
    return made


def _replicate(settings: Settings, pipe: Connection) -> None:
    """The process of ours: the first copy, and nothing behind it."""
    replicator = Replicator(settings, TableRules(), watch=lambda _stage: None)
    start_peak()
    started, cpu = time.perf_counter(), time.process_time()
    replicator.step()
    while replicator._copy is not None:
        replicator.step()
    spent, used = time.perf_counter() - started, time.process_time() - cpu
    replicator.close()
    pipe.send((spent, used, peak_mib()))


def _login(server: MariaDBServer) -> list[str]:
    password = server._secret.read_text()
    return [
        "--no-defaults", "--protocol=tcp", "--host=127.0.0.1", f"--port={server.port}",
        "--user=root", f"--password={password}",
    ]  # fmt: skip


def _checksums(server: MariaDBServer, database: str) -> dict[str, int]:
    with closing(server.connect(database=database)) as root, root.cursor() as cursor:
        cursor.execute("SHOW TABLES")
        names = [row[0] for row in cursor.fetchall() if not row[0].startswith("etl_")]
        cursor.execute("CHECKSUM TABLE " + ", ".join(f"`{name}`" for name in names))
        return {row[0].split(".")[1]: row[1] for row in cursor.fetchall()}


def _cpu(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _run(connection: Any, statement: str) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)

"""The whole pipeline as its user runs it, with a switch that holds it and meters on each process.

Left: what a benchmark writes to the source. Right: how long both daemons, real processes on
three throwaway servers, took until `raw` showed it, and what every process spent on it.

*Held*: start-up is not what a benchmark of throughput is about, so both daemons are up and
streaming, are stopped with SIGSTOP while a backlog is written, and go on together with SIGCONT:
the clock starts there. What the kernel buffered of the binlog meanwhile (a few MB) is in their
sockets already, which a daemon that was slower than the source would have as well.

No process is pinned: five of them share the machine's processors, as they do for their user.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.measure import Run, peak_mib, start_peak
from replicator.binlog.position import SourcePosition
from replicator.cli.demo_stage import DemoFailed, Stage
from replicator.cli.observation import Observer
from replicator.sandbox.waiting import wait_until
from replicator.tracking import fetch

LEGS = ("replicator", "loader")
SERVERS = ("source", "replica", "postgres")
PINNING = "none: both daemons and the three servers share all processors"
SIZES: Mapping[str, Mapping[str, str]] = {
    "source": {"innodb_buffer_pool_size": "1G", "innodb_log_file_size": "1G"},
    "replica": {
        "innodb_buffer_pool_size": "1G",
        "innodb_log_file_size": "1G",
        "binlog_cache_size": "8M",
        "binlog_row_event_max_size": "64K",
    },
    "postgres": {"shared_buffers": "512MB", "max_wal_size": "4GB"},
}
"""Servers of a size that fits the data; the sandbox's own are made to start quickly. The replica
logs as config/replica.cnf lets it."""
_TICKS = os.sysconf("SC_CLK_TCK")
_SCHEDULED = 2  # with a process id, the clock of its CPU time: clock_getcpuclockid(3)
_LOOK_EVERY = 0.004


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds by the clock, and CPU seconds and peak MiB by process."""

    seconds: float
    cpu: Mapping[str, float]
    peak: Mapping[str, float]

    def runs(self, units: int) -> dict[str, Run]:
        """As a result shows it: each process' share beside the same time."""
        return {
            name: Run(units, self.seconds, self.cpu[name], self.peak[name]) for name in self.cpu
        }


class Meter:
    """Measures processes, given by name, from its making to each reading."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self.begin(pids)

    def begin(self, pids: Mapping[str, int]) -> None:
        """Measure these, from now on."""
        self._pids = pids
        for pid in pids.values():
            start_peak(pid)
        self._before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        self._began = time.perf_counter()

    def read(self) -> Spent:
        """What they have spent so far."""
        seconds = time.perf_counter() - self._began
        return Spent(
            seconds,
            {name: cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()},
            {name: peak_mib(pid) for name, pid in self._pids.items()},
        )


class Rig(Stage):
    """Three servers and two daemons; `options` are added to a server's own before it starts."""

    def __init__(self, options: Mapping[str, Mapping[str, str]] | None = None) -> None:
        super().__init__("InnoDB")
        self._options = options or {}

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self._resize()
            self.observer = Observer(self.settings)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _resize(self) -> None:
        for name, server in zip(SERVERS, self.sandbox.servers, strict=True):
            server.stop()
            sized: Any = server
            sized.options = {**sized.options, **SIZES[name], **self._options.get(name, {})}
            server.launch()
        for server in self.sandbox.servers:
            server.wait_ready()

    def __exit__(self, *_: object) -> None:
        with suppress(AttributeError):
            self.observer.close()
        for leg in LEGS:
            self._signal(leg, signal.SIGCONT)  # a held process would not hear that it is to end
        super().__exit__()

    def connect(self) -> Any:
        """A session on the source, in the practice's database."""
        return self.sandbox.source_db.connect(read_timeout=600)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows from `raw`, by a session of our own."""
        return self.observer.analytics.execute(statement.encode()).fetchall()

    def query_as_superuser(self, statement: str) -> list[tuple[Any, ...]]:
        """The same by PostgreSQL's superuser."""
        database = self.sandbox.analytics_db.name
        with closing(self.sandbox.analytics.connect(database=database)) as connection:
            return connection.execute(statement.encode()).fetchall()

    # --- the daemons ---------------------------------------------------------------------

    def start(self, deadline: float = 120.0) -> None:
        """Start both legs; returns when every table has been copied and streams."""
        self.start_daemons()
        self.settle(deadline)

    def settle(self, deadline: float = 120.0) -> None:
        """Wait until `raw` shows all that the source holds, and every table streams."""
        self.shown(self.observer.source_position(), deadline)
        wait_until(self._all_streaming, deadline, what="every table to stream", every=0.05)

    def check(self) -> None:
        """Raise DemoFailed, with the daemons' last words, where one has ended."""
        try:
            super().check()
        except DemoFailed as failed:
            raise DemoFailed(f"{failed}; {self.logs(60)}") from failed

    def pid(self, leg: str) -> int:
        """The process of `replicator` or `loader`."""
        return self._daemons[leg].pid

    def _signal(self, leg: str, number: int) -> None:
        if leg in self._daemons and self._daemons[leg].poll() is None:
            os.kill(self.pid(leg), number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Neither daemon runs inside; they go on where they were."""
        for leg in LEGS:
            self._signal(leg, signal.SIGSTOP)
        yield
        for leg in LEGS:
            self._signal(leg, signal.SIGCONT)

    def shown(self, wanted: SourcePosition, deadline: float) -> None:
        """Return as soon as `raw` shows the source at `wanted`."""
        wait_until(lambda: self._shows(wanted), deadline, what=self._where, every=_LOOK_EVERY)

    def _shows(self, wanted: SourcePosition) -> bool:
        self.check()
        offset = self.observer.raw_offset()
        return offset is not None and offset.source is not None and offset.source >= wanted

    def _where(self) -> str:
        return f"raw to show the source; {self.logs(5)}"

    def _all_streaming(self) -> bool:
        self.check()
        mine = dict(
            fetch(
                self.observer.replica,
                "SELECT table_name, extraction_status FROM etl_extract_status",
            )
        )
        theirs = dict(
            self.query("SELECT table_name, transformation_status FROM raw.etl_transform_status")
        )
        wanted = set(self._tables())
        return all(
            wanted <= {table for table, state in states.items() if state == "streaming"}
            for states in (mine, theirs)
        )

    def _tables(self) -> list[str]:
        return [row[0] for row in self.sandbox.source_db.query("SHOW TABLES")]

    # --- measuring -----------------------------------------------------------------------

    def catch_up(
        self, write: Callable[[Any], None], deadline: float = 120.0, *, hold: bool = True
    ) -> Spent:
        """Let `write` fill the source, and measure until all of it is shown.

        `hold`: the daemons stand still while it is written, and the clock begins after that.
        """
        meter = self.meter()
        with self.held() if hold else nullcontext(), closing(self.connect()) as connection:
            write(connection)
            wanted = self.observer.source_position()
            if hold:
                meter = self.meter()
        self.shown(wanted, deadline)
        return meter.read()

    def meter(self) -> Meter:
        """Meters on every process, from now on."""
        servers = zip(SERVERS, self.sandbox.servers, strict=True)
        return Meter(
            {**{leg: self.pid(leg) for leg in LEGS}, **{n: s.pid or 0 for n, s in servers}}
        )

    def count(self, table: str) -> tuple[int, int]:
        """The table's rows on the source and in `raw`."""
        [(source,)] = self.sandbox.source_db.query(f"SELECT COUNT(*) FROM `{table}`")
        [(raw,)] = self.query(f'SELECT COUNT(*) FROM raw."{table}"')
        return source, raw


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of its children, those that have ended included."""
    total = 0.0
    for one in (pid, *children(pid)):
        with suppress(OSError):  # it has ended since: its parent has its time now
            total += time.clock_gettime((~one << 3) | _SCHEDULED)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return total + sum(map(int, fields[13:15])) / _TICKS


def children(pid: int) -> list[int]:
    """The processes that it has started and that run."""
    with suppress(OSError):
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []

"""What the servers alone make of a backlog, both at once, without us.

The least that a pipeline over these servers pays: native replication carries the backlog to a
replica server of its own, which logs it as ours does, while PostgreSQL takes the same rows, made
before, by COPY into a table like `raw`'s, in one transaction. Neither waits for the other, and
nothing is decoded, folded or tracked; both daemons stand still. The later of the two ends the
clock. The COPY is a binary one, the cheapest way that PostgreSQL has to take a row; its bytes are
what `raw` has of the backlog, which the daemons have carried before.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from psycopg import sql

from bench import practice
from bench.rig import SIZES, Rig, cpu_seconds
from replicator.sandbox.servers import REPLICA_OPTIONS, MariaDBServer

_ROWS_A_BLOCK = 1_000
_TABLES = {practice.WIDE: "PatNum", practice.NARROW: "PayNum"}
"""The practice's tables and their keys."""


@dataclass(frozen=True, slots=True)
class Alone:
    """Seconds until both servers had the rows, and the CPU seconds of each."""

    seconds: float
    cpu: Mapping[str, float]


class Floor:
    """A replica that replicates by itself, and tables like those of `raw`."""

    def __init__(self, rig: Rig, native: MariaDBServer, session: Any, analytics: Any) -> None:
        self._rig = rig
        self._native, self._session, self._analytics = native, session, analytics
        self._file, self._offset = rig.sandbox.source_db.binlog_end()
        self._follow()
        self._analytics.execute("CREATE SCHEMA floor")
        for table in _TABLES:
            self._analytics.execute(f"CREATE TABLE floor.{table} (LIKE raw.{table} INCLUDING ALL)")

    def _follow(self) -> None:
        """Let the native replica begin where the source stands, with both tables as empty."""
        with closing(self._rig.sandbox.source.connect()) as root, closing(root.cursor()) as cursor:
            cursor.execute("CREATE USER native@'%' IDENTIFIED BY 'bench'")
            cursor.execute("GRANT REPLICATION SLAVE ON *.* TO native@'%'")
        database = self._rig.sandbox.source_db.name
        self._run(f"CREATE DATABASE {database} CHARACTER SET utf8mb3")
        self._run(f"USE {database}")
        practice.create(self._session)
        self._run(
            "CHANGE MASTER TO master_host='127.0.0.1', master_user='native',"
            f" master_password='bench', master_port={self._rig.sandbox.source.port},"
            f" master_log_file='{self._file}', master_log_pos={self._offset}, master_use_gtid=no"
        )
        self.catch_up()

    def catch_up(self) -> None:
        """Let the native replica take what stands in the source's binlog now."""
        file, offset = self._rig.sandbox.source_db.binlog_end()
        self._run("START SLAVE")
        self._run(f"SELECT MASTER_POS_WAIT('{file}', {offset}, 120)")
        self._run("STOP SLAVE")

    def timed(self, table: str, rows: int, first: int) -> Alone:
        """Both servers take these rows of `raw`: one from the source's binlog, one by COPY."""
        columns = self._columns(table)
        blocks = self._blocks(table, columns, first)
        self._analytics.execute("CHECKPOINT")
        before = self._cpu()
        copying = Thread(target=self._copy, args=(table, columns, blocks))
        began = time.perf_counter()
        copying.start()
        self.catch_up()
        copying.join()
        seconds = time.perf_counter() - began
        spent = {name: used - before[name] for name, used in self._cpu().items()}
        self._check(table, rows, first)
        self._analytics.execute(f"DELETE FROM floor.{table}")
        self._analytics.execute(f"VACUUM floor.{table}")
        return Alone(seconds, spent)

    def _columns(self, table: str) -> sql.Composed:
        """All that the loader writes; `_loaded_at` has its default, as with the loader."""
        found = self._analytics.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
            " AND NOT attisdropped AND attname <> '_loaded_at' ORDER BY attnum",
            [f"raw.{table}"],
        )
        return sql.SQL(", ").join(sql.Identifier(name) for (name,) in found)

    def _blocks(self, table: str, columns: sql.Composed, first: int) -> list[bytes]:
        """The rows from `first` on as binary COPY takes them."""
        rows = sql.SQL("COPY (SELECT {} FROM raw.{} WHERE {} >= {}) TO STDOUT (FORMAT binary)")
        key = sql.Identifier(_TABLES[table])
        asked = rows.format(columns, sql.Identifier(table), key, sql.Literal(first))
        with self._analytics.cursor() as cursor, cursor.copy(asked) as copy:
            found = list(map(bytes, copy))
        some = range(0, len(found), _ROWS_A_BLOCK)
        return [b"".join(found[start : start + _ROWS_A_BLOCK]) for start in some]

    def _copy(self, table: str, columns: sql.Composed, blocks: list[bytes]) -> None:
        into = sql.SQL("COPY floor.{} ({}) FROM STDIN (FORMAT binary)")
        statement = into.format(sql.Identifier(table), columns)
        with self._analytics.cursor() as cursor, cursor.copy(statement) as copy:
            for block in blocks:
                copy.write(block)

    def _check(self, table: str, rows: int, first: int) -> None:
        """Neither was fast by leaving something out."""
        count = f"SELECT COUNT(*) FROM {{}}{table}"
        [(copied,)] = self._analytics.execute(count.format("floor.")).fetchall()
        with self._session.cursor() as cursor:
            cursor.execute(f"{count.format('')} WHERE {_TABLES[table]} >= {first}")
            [(replicated,)] = cursor.fetchall()
        if not copied == replicated == rows:
            raise RuntimeError(f"{copied} rows copied and {replicated} replicated, not {rows}")

    def _cpu(self) -> dict[str, float]:
        servers = {"native replica": self._native, "postgres": self._rig.sandbox.analytics}
        return {name: cpu_seconds(server.pid or 0) for name, server in servers.items()}

    def _run(self, statement: str) -> None:
        with self._session.cursor() as cursor:
            cursor.execute(statement)


@contextmanager
def floor(rig: Rig) -> Iterator[Floor]:
    """A `Floor` beside the rig's servers; both of the practice's tables are empty and in `raw`."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        directory.chmod(0o711)
        options = {**REPLICA_OPTIONS, "log_slave_updates": "ON", **SIZES["replica"]}
        native = MariaDBServer(directory / "native", options=options, server_id=77)
        stack.callback(native.discard)
        native.launch()
        native.wait_ready()
        session = stack.enter_context(closing(native.connect(read_timeout=600)))
        database = rig.sandbox.analytics_db.name
        analytics = stack.enter_context(closing(rig.sandbox.analytics.connect(database=database)))
        yield Floor(rig, native, session, analytics)

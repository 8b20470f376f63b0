"""What the servers alone make of a backlog of narrow rows, both at once, without us.

The least that a pipeline over these servers pays: native replication carries the backlog to a
replica server of its own, which logs it as ours does, while PostgreSQL takes the same rows, made
before, by COPY into a table like `raw`'s, in one transaction. Neither waits for the other, and
nothing is decoded, folded or tracked. The later of the two ends the clock. The COPY is a binary
one, the cheapest way that PostgreSQL has to take a row (the loader's is text).
"""

from __future__ import annotations

import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from threading import Thread
from typing import Any

from bench import practice
from bench.rig import SIZES, Rig, cpu_seconds
from replicator.sandbox.servers import REPLICA_OPTIONS, MariaDBServer

_ROWS_A_BLOCK = 4_000
_FIRST_DAY = (date(2024, 1, 1) - date(2000, 1, 1)).days  # as PostgreSQL counts them
_STAMP = struct.pack("!iq", 8, _FIRST_DAY * 86_400_000_000)
_HEAD, _TAIL = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_FIELDS = struct.Struct("!h iq iq ii id i")
_COLUMNS = '"PayNum", "PatNum", "PayDate", "PayAmt", "PayNote", _source_ts'


@dataclass(frozen=True, slots=True)
class Alone:
    """Seconds until both servers had the rows, and the CPU seconds of each."""

    seconds: float
    cpu: Mapping[str, float]


class Floor:
    """A replica that replicates by itself, and a table like `raw.payment_like`."""

    def __init__(self, rig: Rig, native: MariaDBServer, session: Any, analytics: Any) -> None:
        self._rig = rig
        self._native, self._session, self._analytics = native, session, analytics
        self._file, self._offset = rig.sandbox.source_db.binlog_end()
        self._follow()
        self._analytics.execute("CREATE SCHEMA floor")
        self._analytics.execute(
            f"CREATE TABLE floor.{practice.NARROW} (LIKE raw.{practice.NARROW} INCLUDING ALL)"
        )

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

    def timed(self, rows: int, first: int) -> Alone:
        """Both servers take the rows: one from the source's binlog, one by COPY."""
        blocks = list(_blocks(rows, first))
        self._analytics.execute("CHECKPOINT")
        before = self._cpu()
        copying = Thread(target=self._copy, args=(blocks,))
        began = time.perf_counter()
        copying.start()
        self.catch_up()
        copying.join()
        seconds = time.perf_counter() - began
        spent = {name: used - before[name] for name, used in self._cpu().items()}
        self._check(rows, first)
        self._analytics.execute(f"DELETE FROM floor.{practice.NARROW}")
        self._analytics.execute(f"VACUUM floor.{practice.NARROW}")
        return Alone(seconds, spent)

    def _copy(self, blocks: list[bytes]) -> None:
        statement = f"COPY floor.{practice.NARROW} ({_COLUMNS}) FROM STDIN (FORMAT binary)"
        with self._analytics.cursor() as cursor, cursor.copy(statement) as copy:
            for block in blocks:
                copy.write(block)

    def _check(self, rows: int, first: int) -> None:
        """Neither was fast by leaving something out."""
        count = f"SELECT COUNT(*) FROM {{}}{practice.NARROW}"
        [(copied,)] = self._analytics.execute(count.format("floor.")).fetchall()
        with self._session.cursor() as cursor:
            cursor.execute(f"{count.format('')} WHERE PayNum >= {first}")
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


def _blocks(rows: int, first: int) -> Iterator[bytes]:
    """The rows of `practice.load_narrow` as binary COPY takes them."""
    yield _HEAD
    for start in range(first, first + rows, _ROWS_A_BLOCK):
        yield b"".join(map(_row, range(start, min(start + _ROWS_A_BLOCK, first + rows))))
    yield _TAIL


def _row(key: int) -> bytes:
    note = b"note %d" % key
    amount, day = key % 20000 / 100, _FIRST_DAY + key % 900
    head = _FIELDS.pack(6, 8, key, 8, key % 977, 4, day, 8, amount, len(note))
    return head + note + _STAMP

"""Row decoding alone: the kernel against mysql-replication and against the Python decoder.

A server logs rows of OpenDental's `patient` and of a table of five columns; their events are
read into memory, and each decoder turns the same events into rows there, so that neither
disk nor network counts. mysql-replication is given its own packet object for each event,
as its stream reader would, and asked for `rows`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import pymysql
from pymysql.cursors import Cursor
from pymysql.protocol import MysqlPacket
from pymysqlreplication.packet import BinLogPacketWrapper
from pymysqlreplication.row_event import TableMapEvent, WriteRowsEvent

from bench.measure import Pass, Result, described, interleaved, ratio, rounds
from loader.decoder import best_decoder, is_compiled
from loader.rows import PythonDecoder, RowDecoder, TablePlan, plan_for
from replicator.binlog.events import TableMap
from replicator.binlog.position import ReplicaPosition
from replicator.binlog.stream import BinlogStream
from replicator.binlog.transactions import Commit, Rows, TransactionReader
from replicator.sandbox.data import RowMaker, insert_statement
from replicator.sandbox.schema import TABLES
from replicator.sandbox.servers import REPLICA_OPTIONS, MariaDBServer

SECONDS = 1.0
DATABASE = "decode"
NARROW = (
    "CREATE TABLE narrow (id bigint PRIMARY KEY, patient bigint NOT NULL, day date NOT NULL,"
    " amount double NOT NULL, note varchar(100))"
)
ROWS = {"wide": 4_000, "narrow": 40_000, "single": 2_000}
LIBRARY, PYTHON, KERNEL = "mysql_replication", "python", "kernel"


class Corpus:
    """The events of one table's rows, in memory."""

    def __init__(self, table_map: TableMap, events: list[bytes]) -> None:
        self.table_map = table_map
        self.plan = plan_for(table_map)
        self.events = events


def run() -> Iterator[Result]:
    """All figures of this benchmark; a server of its own is started and stopped."""
    if not is_compiled():
        raise SystemExit("bench decode: the row kernel was not built")
    for name, corpus in corpora().items():
        runs = interleaved(
            {
                LIBRARY: over(corpus.events, library(corpus)),
                PYTHON: over(corpus.events, ours(PythonDecoder(), corpus.plan)),
                KERNEL: over(corpus.events, ours(best_decoder("kernel"), corpus.plan)),
            },
            runs=rounds(),
            seconds=SECONDS,
        )
        yield Result(
            f"decode_{name}_vs_mysql_replication",
            ratio(runs, KERNEL, LIBRARY),
            details={"columns": len(corpus.plan.columns), "unit": "rows", "runs": described(runs)},
        )


def over(events: list[bytes], decode: Callable[[bytes], int]) -> Pass:
    """A pass decodes a few events, then leaves it to the clock whether more follow."""
    left = cycle(events)
    return lambda: sum(decode(next(left)) for _ in range(8))


def ours(decoder: RowDecoder, plan: TablePlan) -> Callable[[bytes], int]:
    """A `RowDecoder`'s work on one event; the rows that it found."""
    return lambda event: len(decoder.decode(event, plan))


def library(corpus: Corpus) -> Callable[[bytes], int]:
    """mysql-replication's work on one event; the rows that it found."""
    session = SimpleNamespace(charset="utf8mb4", _get_dbms=lambda: "mariadb")
    tables: dict[int, object] = {}

    def parse(event: bytes) -> BinLogPacketWrapper:
        return BinLogPacketWrapper(
            MysqlPacket(b"\0" + event, "utf8mb4"), tables, session, (10, 11, 0), False,
            frozenset({TableMapEvent, WriteRowsEvent}), None, None, None, None,
            False, False, False, True, False,
        )  # fmt: skip

    parsed = parse(corpus.table_map.raw)
    tables[parsed.event.table_id] = parsed.event.get_table()
    return lambda event: len(parse(event).event.rows)


def corpora() -> dict[str, Corpus]:
    """Rows as a real server logs them: many to an event, and one (the narrow table's)."""
    directory = Path(tempfile.mkdtemp(prefix="opendental-bench-"))
    server = MariaDBServer(directory / "server", options=REPLICA_OPTIONS, server_id=2)
    try:
        server.start()
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SET SESSION sql_mode = ''")
            cursor.execute(f"CREATE DATABASE {DATABASE}")
            cursor.execute(f"USE {DATABASE}")
            return {name: _logged(server, cursor, name) for name in ROWS}
    finally:
        server.discard()
        shutil.rmtree(directory, ignore_errors=True)


def _logged(server: MariaDBServer, cursor: Cursor, name: str) -> Corpus:
    cursor.execute("SHOW MASTER STATUS")
    file, offset = (cursor.fetchone() or ())[:2]
    transactions = 0
    for statement in _statements(name):
        cursor.execute(statement)
        transactions += 1
    return _read(server, ReplicaPosition(file, offset), transactions)


def _statements(name: str) -> Iterator[str]:
    """What logs the rows of a corpus; each is one transaction, and the first makes the table."""
    if name == "wide":
        maker = RowMaker(TABLES["patient"], seed=1, patients=1000)
        yield TABLES["patient"].ddl("InnoDB")
        for start in range(0, ROWS[name], 500):
            made = [maker.row(key) for key in range(start + 1, start + 501)]
            yield insert_statement("patient", made)
        return
    yield f"{NARROW.replace('narrow', name)} ENGINE=InnoDB"
    step = 5000 if name == "narrow" else 1
    for start in range(0, ROWS[name], step):
        rows = (
            f"({key}, {key % 977}, '2024-01-01' + INTERVAL {key % 900} DAY, {key % 20000 / 100},"
            f" {'NULL' if key % 3 else repr(f'payment {key}')})"
            for key in range(start, start + step)
        )
        yield f"INSERT INTO {name} VALUES {', '.join(rows)}"


def _read(server: MariaDBServer, start: ReplicaPosition, transactions: int) -> Corpus:
    """The rows events of so many transactions from `start`, the first of which is DDL."""

    def connect() -> pymysql.Connection[Cursor]:
        return server.connect()

    stream = BinlogStream(connect, server_id=3, heartbeat_seconds=5.0, name="bench")
    reader, events, seen = TransactionReader(start), [], 1
    table_map: TableMap | None = None
    stream.open(start)
    try:
        while seen < transactions:
            for raw in stream.read(5.0):
                change = reader.feed(raw)
                if isinstance(change, Rows):
                    table_map = change.table
                    events.append(change.event)
                seen += isinstance(change, Commit)
    finally:
        stream.close()
    assert table_map is not None
    return Corpus(table_map, events)

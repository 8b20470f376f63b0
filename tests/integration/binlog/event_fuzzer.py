"""Damage real binlogs, and read them as both legs do: whatever they hold, it ends in our own words.

A program, run by `test_event_fuzz`:

    event_fuzzer.py CORPUS SEED COUNT

CORPUS is pickled: the database's name, its tables, and a list of (is it MySQL's, events without
checksums from the beginning of a file). Each of the COUNT damaged runs of events is framed and
given right checksums, so that it comes past the stream, and goes through leg 1 up to the statement
that the replica would be sent, and through leg 2 up to COPY lines. The process may have little
memory more than it has at the beginning, and no run may take long. The last line on standard
output tells how the runs ended; the exit code is 0 if each ended by itself, or in an error out of
config/errors.py.
"""

from __future__ import annotations

import faulthandler
import pickle
import random
import resource
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from config.errors import ConnectionLost, ReplicatorError
from loader.ddl.statements import Replica, changes_of
from loader.decoder import best_decoder
from loader.rows import plan_for
from replicator.binlog.events import EventType, event_timestamp
from replicator.binlog.gtidset import parse_gtid_list
from replicator.binlog.position import ReplicaPosition, SourcePosition
from replicator.binlog.stream import BinlogStream
from replicator.binlog.transactions import Prepared, Rows, Statement, TransactionReader, XaCommit
from replicator.ddl_session import SessionContext, decide_query, session_statements
from tests.unit.binlog.hand_made import with_checksum
from tests.unit.replicator.test_exact import FILE, Stage

MORE_MEMORY = 512 << 20
PATIENCE = 30
AT_ONCE = 12
TELLING = b"\x00\x01\x7f\x80\xfa\xfb\xfc\xfd\xfe\xff"
LIMIT = 0xFFFFFF


class Fuzzer:
    """Draws runs of events, most of them damaged."""

    def __init__(self, corpus: list[tuple[bool, list[bytes]]], seed: int) -> None:
        self.dice = random.Random(seed)
        self.corpus = corpus

    def draw(self) -> tuple[bool, bytes]:
        """Is it MySQL's, and packets as they come from the socket."""
        dice = self.dice
        mysql, events = dice.choice(self.corpus)
        at = dice.randrange(len(events))
        run = [events[0], *events[at : at + dice.randrange(1, AT_ONCE)]]
        for _ in range(dice.choice([1, 1, 2, 3, 6])):
            self.disturb(run)
        return mysql, b"".join(self.framed(event) for event in run)

    def disturb(self, run: list[bytes]) -> None:
        dice, at = self.dice, self.dice.randrange(len(run))
        match dice.randrange(12):
            case 0 if len(run) > 1:
                del run[at]
            case 1:
                run.insert(at, dice.choice(run))
            case 2:
                other = dice.randrange(len(run))
                run[at], run[other] = run[other], run[at]
            case 3:
                run.insert(at, dice.choice(dice.choice(self.corpus)[1]))
            case _:
                run[at] = self.damaged(run[at])

    def damaged(self, event: bytes) -> bytes:
        """A few bytes changed, put in or left out; behind the header but now and then."""
        dice, changed = self.dice, bytearray(event)
        start = 0 if dice.random() < 0.2 else min(19, len(changed))
        for _ in range(dice.choice([1, 1, 1, 2, 4, 16])):
            at = dice.randrange(start, max(len(changed), start + 1))
            match dice.randrange(9):
                case 0:
                    del changed[at:]
                case 1:
                    del changed[at : at + dice.randrange(1, 9)]
                case 2:
                    changed[at:at] = dice.randbytes(dice.randrange(1, 9))
                case 3:
                    changed[at : at + 1] = b"\xfe" + b"\xff" * dice.randrange(4, 9)
                case 4:
                    changed[4:5] = bytes([dice.choice(list(EventType))])
                case 5 | 6:
                    changed[at : at + 1] = bytes([dice.choice(TELLING)])
                case _:
                    changed[at : at + 1] = dice.randbytes(1)
        return bytes(changed)

    def framed(self, event: bytes) -> bytes:
        """As a packet; a few lie about their length, or have a checksum that is wrong."""
        dice = self.dice
        payload = b"\0" + with_checksum(event.ljust(13, b"\0"))
        what = dice.random()
        if what < 0.01:
            payload = self.damaged(payload)
        length = len(payload) if what > 0.02 else dice.choice([0, 1, 5, len(payload) + 7, LIMIT])
        return length.to_bytes(3, "little") + b"\1" + payload


class Socket:
    """Gives out its bytes, and then nothing more comes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def settimeout(self, _seconds: float) -> None:
        pass

    def recv(self, _size: int) -> bytes:
        data, self._data = self._data, b""
        return data


class Connection:
    """What `BinlogStream` uses of PyMySQL's."""

    def __init__(self, data: bytes) -> None:
        self._sock = Socket(data)
        self._next_seq_id = 0

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        yield SimpleNamespace(execute=lambda _statement: None)

    def write_packet(self, _packet: bytes) -> None:
        pass

    def _read_ok_packet(self) -> None:
        pass

    def _force_close(self) -> None:
        pass


def streamed(data: bytes) -> Iterator[list[bytes]]:
    """What the stream makes of it, until it says that the server has hung up."""
    stream = BinlogStream(
        lambda: Connection(data), server_id=7, heartbeat_seconds=5, name="source db1:3306"
    )
    stream.open(SourcePosition(FILE, 4))
    while True:
        try:
            events = stream.read(0.001)
        except ConnectionLost:
            return
        yield events


def stage_for(database: str, tables: list[str]) -> Stage:
    """Leg 1 in front of a replica that says yes to everything."""
    stage = Stage(limit=1 << 16)
    stage.replicator._source_database = database
    for table in tables:
        stage.routes.stream(table)
    return stage


def leg_one(events: list[bytes], stage: Stage, reader: TransactionReader, mysql: bool) -> None:
    """Up to the statements that the replica would be sent."""
    version = 90704 if mysql else 101119
    context = SessionContext(source_version=version, replica_version=version)
    at = 0
    while at < len(events):
        taken = stage.replicator.take_plain(reader, events, at)
        if taken > at:
            at = taken
            continue
        event, at = events[at], at + 1
        if event[4] == EventType.FORMAT_DESCRIPTION:
            stage.replicator.describe(event)
            stage.replicator.enter_file(reader.file, event_timestamp(event))
        if event[4] == EventType.MARIADB_GTID_LIST:
            for gtid in parse_gtid_list(event):
                stage.replicator.executed(gtid)
        change = reader.feed(event)
        if isinstance(change, Statement):
            decide_query(
                change.query,
                context,
                source_db=stage.replicator._source_database,
                replica_db="copy",
                carries=lambda _table: True,
            )
            session_statements(change.query, context, time_zone="+00:00")
        elif change is not None and not isinstance(change, Prepared | XaCommit):
            stage.replicator.apply(change)


def leg_two(events: list[bytes], reader: TransactionReader, replica: Replica) -> None:
    """Up to COPY lines."""
    for event in events:
        change = reader.feed(event)
        if isinstance(change, Rows):
            best_decoder().decode(change.event, plan_for(change.table))
        elif isinstance(change, Statement):
            changes_of(change.query, replica, lambda _table: True)


def read_by_both(data: bytes, mysql: bool, stage: Stage) -> Counter[str]:
    """How each leg ended."""
    ended: Counter[str] = Counter()
    reader = TransactionReader(SourcePosition(FILE, 4), xa=True)
    second = TransactionReader(ReplicaPosition(FILE, 4))
    replica = Replica(stage.replicator._source_database, 90704 if mysql else 101119)
    batches = []
    try:
        for batch in streamed(data):
            batches.append(batch)
            ended["events"] += len(batch)
    except ReplicatorError as error:
        ended[type(error).__name__] += 1
    for leg in (
        lambda batch: leg_one(batch, stage, reader, mysql),
        lambda batch: leg_two(batch, second, replica),
    ):
        try:
            for batch in batches:
                leg(batch)
            ended["read"] += 1
        except ReplicatorError as error:
            ended[type(error).__name__] += 1
    return ended


def main(corpus: str, seed: str, count: str) -> int:
    database, tables, binlogs = pickle.loads(Path(corpus).read_bytes())
    fuzzer = Fuzzer(binlogs, int(seed))
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MORE_MEMORY, now + MORE_MEMORY))
    ended: Counter[str] = Counter()
    for number in range(int(count)):
        if number % 50 == 0:
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
        mysql, data = fuzzer.draw()
        try:
            ended += read_by_both(data, mysql, stage_for(database, tables))
        except BaseException:
            print(f"number {number} of seed {seed}, mysql={mysql}: {data[:4000].hex()}")
            traceback.print_exc()
            return 1
    print(dict(ended))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

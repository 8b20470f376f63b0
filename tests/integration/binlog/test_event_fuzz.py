"""Real binlogs, damaged: no event of any type makes either leg crash, hang, or take memory."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard

from replicator.binlog.events import EventType
from replicator.sandbox.databases import MySQLDatabase
from tests.integration.binlog.logged import as_v2
from tests.unit.binlog import hand_made

RUNS = int(os.environ.get("EVENT_FUZZ_RUNS", "4000"))
_ROOT = Path(__file__).parents[3]
_MAGIC, _CHECKSUM = 4, 4

_WORK = (
    "CREATE TABLE patient (PatNum BIGINT AUTO_INCREMENT PRIMARY KEY, LName VARCHAR(100), Note TEXT,"
    " Fee DOUBLE, Cost DECIMAL(20,6), Born DATE, Seen DATETIME(3), Stamp TIMESTAMP(6) NULL,"
    " Hours TIME(2), Kind ENUM('a','b'), Traits SET('x','y','z'), Flags BIT(11), Data BLOB)"
    " DEFAULT CHARSET utf8mb4",
    "CREATE TABLE tally (seq INT, word VARCHAR(20) CHARACTER SET latin1)",
    "INSERT INTO patient (LName, Note, Fee, Cost, Born, Seen, Stamp, Hours, Kind, Traits, Flags,"
    " Data) VALUES ('synthetic', REPEAT('n', 300), 1.5, -12.345678, '2001-02-03',"
    " '2004-05-06 07:08:09.123', '2010-11-12 13:14:15.654321', '-01:00:00', 'b', 'x,z', 5,"
    " REPEAT(0xFF00, 200)),"
    " (NULL, '', 0, 0, '0001-01-01', NULL, NULL, '830:00:00', 'a', '', 0, '')",
    "INSERT INTO tally VALUES (1, 'one'), (2, NULL)",
    "UPDATE patient SET Fee = Fee + 1, Note = 'changed'",
    "UPDATE tally SET word = 'two'",
    "ALTER TABLE patient ADD COLUMN More INT DEFAULT 7, ADD INDEX (LName)",
    "CREATE TABLE other LIKE patient",
    "RENAME TABLE other TO another",
    "BEGIN",
    "SAVEPOINT here",
    "INSERT INTO tally VALUES (3, 'three')",
    "ROLLBACK TO here",
    "INSERT INTO tally VALUES (4, 'four')",
    "COMMIT",
    "XA START 'trial','branch',7",
    "INSERT INTO tally VALUES (5, 'five')",
    "XA END 'trial','branch',7",
    "XA PREPARE 'trial','branch',7",
    "XA COMMIT 'trial','branch',7",
    "DELETE FROM patient WHERE PatNum = 1",
    "DELETE FROM tally",
    "CREATE VIEW seen AS SELECT LName FROM patient",
    "TRUNCATE TABLE tally",
    "DROP TABLE another",
)
_AS_TEXT = (
    "SET SESSION binlog_format = 'STATEMENT'",
    "SET @word = 'user'",
    "INSERT INTO tally SELECT RAND() * 100, @word",
    "INSERT INTO patient (LName) VALUES ('numbered')",
    "SET SESSION binlog_format = 'ROW'",
)
_SQUEEZED = {
    "mariadb": ("log_bin_compress = ON", "log_bin_compress_min_len = 10"),
    "mysql": ("binlog_transaction_compression = ON",),
}
_PLAIN = {
    "mariadb": ("log_bin_compress = OFF", "log_bin_compress_min_len = DEFAULT"),
    "mysql": ("binlog_transaction_compression = OFF",),
}


def logged(database: MySQLDatabase) -> list[bytes]:
    """A whole binlog file in which everything happened, by as many types of events as may be."""
    family = "mysql" if database.server.installation.is_mysql else "mariadb"
    with closing(database.server.connect(database=database.name)) as root:
        cursor = root.cursor()
        cursor.execute("FLUSH BINARY LOGS")
        (file, *_), *_ = database.query("SHOW BINARY LOGS")[-1:]
        try:
            for compression in (_PLAIN, _SQUEEZED):
                for setting in compression[family]:
                    cursor.execute(f"SET {'SESSION' if family == 'mysql' else 'GLOBAL'} {setting}")
                _work(database, cursor)
        finally:
            for setting in _PLAIN[family]:
                cursor.execute(f"SET GLOBAL {setting}")
        cursor.execute("FLUSH BINARY LOGS")
    return _events_of(database.server.data / file)


def _work(database: MySQLDatabase, cursor: Any) -> None:
    cursor.execute("SET SESSION sql_mode = ''")
    for table in ("patient", "tally"):
        cursor.execute(f"DROP TABLE IF EXISTS {table}")
    cursor.execute("DROP VIEW IF EXISTS seen")
    for statement in (*_WORK, *_AS_TEXT):
        cursor.execute(statement)


def _events_of(path: Path) -> list[bytes]:
    data, at, found = path.read_bytes(), _MAGIC, []
    while at < len(data):
        length = int.from_bytes(data[at + 9 : at + 13], "little")
        found.append(data[at : at + length - _CHECKSUM])
        at += length
    return found


def by_hand(events: list[bytes]) -> list[bytes]:
    """What this family's server does not write: the other's GTIDs, rows and packed transactions."""
    log = hand_made.Log()
    rows = [as_v2(event) for event in events if event[4] in (19, *range(23, 26), *range(30, 33))]
    plain = b"".join(rows[:4])
    packed = zstandard.ZstdCompressor().compress(plain)
    fields = b"".join(
        bytes([kind, 9, 0xFE]) + value.to_bytes(8, "little")
        for kind, value in ((2, 0), (3, len(plain)), (1, len(packed)))
    )
    return [
        log.format_description(b"8.4.3"),
        log.mysql_gtid(1, 1_700_000_000_000_000),
        log.query(b"BEGIN"),
        *rows,
        log.xid(),
        log.mysql_gtid(2),
        log.add(EventType.TRANSACTION_PAYLOAD, fields + b"\0" + packed),
        log.mysql_gtid(3),
        log.query(b"ALTER TABLE patient DROP COLUMN Note"),
        log.add(EventType.XA_PREPARE, b"\0" + (1).to_bytes(4, "little") + bytes(8) + b"trial"),
        log.mariadb_gtid(9),
        log.xid(),
        log.rotate(b"source-bin.000002"),
    ]


@pytest.fixture
def corpus(replica_db: MySQLDatabase, tmp_path: Path) -> Path:
    real = logged(replica_db)
    kinds = {EventType(event[4]) for event in real}
    assert {EventType.FORMAT_DESCRIPTION, EventType.QUERY, EventType.TABLE_MAP} <= kinds
    assert {EventType.ROTATE, EventType.INTVAR, EventType.USER_VAR, EventType.RAND} <= kinds
    assert len(kinds) >= 14, kinds
    mysql = replica_db.server.installation.is_mysql
    path = tmp_path / "corpus"
    binlogs = [(mysql, real), (True, by_hand(real))]
    path.write_bytes(pickle.dumps((replica_db.name, ["patient", "tally"], binlogs)))
    return path


def test_damaged_binlogs_end_in_our_own_words_and_within_bounds(corpus: Path) -> None:
    program = Path(__file__).with_name("event_fuzzer.py")
    done = subprocess.run(
        [sys.executable, str(program), str(corpus), "1", str(RUNS)],
        cwd=_ROOT, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    ended = ast.literal_eval(done.stdout.splitlines()[-1])
    assert ended["read"] > RUNS // 10, ended
    assert ended["UnknownEvent"] > RUNS // 20, ended
    assert ended["events"] > RUNS, ended

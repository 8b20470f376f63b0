"""What a real server writes into its binlog, read as transactions."""

from __future__ import annotations

from contextlib import closing

import pytest

from replicator.binlog.position import SourcePosition
from replicator.binlog.transactions import Change, Rows, Statement, TransactionReader
from replicator.sandbox.databases import MySQLDatabase
from tests.fix_servers import Pair
from tests.integration.binlog.logged import Log

SCRIPTS = {
    "a table with transactions": (
        ["BEGIN", "INSERT INTO sure VALUES (1)", "INSERT INTO sure VALUES (2)", "COMMIT"],
        ["Begin", "sure", "sure", "Commit"],
    ),
    "a table without": (["INSERT INTO loose VALUES (1), (2)"], ["Begin", "loose", "Commit"]),
    "both in one statement": (
        ["BEGIN", "INSERT INTO sure VALUES (1)", "INSERT INTO loose VALUES (1)", "ROLLBACK"],
        ["Begin", "loose", "Commit"],
    ),
    "a schema change": (["ALTER TABLE sure ADD COLUMN n INT"], ["ALTER TABLE"]),
    "a table made of rows": (
        ["CREATE TABLE made AS SELECT 1 AS id"],
        ["Begin", "CREATE TABLE", "made", "Commit"],
    ),
    "a savepoint": (
        [
            "BEGIN",
            "INSERT INTO sure VALUES (1)",
            "SAVEPOINT a",
            "INSERT INTO sure VALUES (2)",
            "COMMIT",
        ],
        ["Begin", "sure", "SAVEPOINT `a`", "sure", "Commit"],
    ),
    "a savepoint gone back to": (
        [
            "BEGIN",
            "INSERT INTO sure VALUES (1)",
            "CREATE TEMPORARY TABLE t (id INT)",
            "SAVEPOINT a",
            "INSERT INTO sure VALUES (2)",
            "ROLLBACK TO a",
            "COMMIT",
        ],
        ["Begin", "sure", "SAVEPOINT `a`", "sure", "ROLLBACK TO", "Commit"],
    ),
    "a rollback that is kept": (
        ["BEGIN", "INSERT INTO sure VALUES (1)", "CREATE TEMPORARY TABLE t (id INT)", "ROLLBACK"],
        ["Begin", "sure", "Rollback"],
    ),
    "a new file": (["FLUSH BINARY LOGS"], ["Moved"]),
}

IN_MYSQL = {
    "a table made of rows": ["CREATE TABLE", "Begin", "made", "Commit"],
    "a savepoint gone back to": ["Begin", "sure", "SAVEPOINT `a`", "Commit"],
    "a rollback that is kept": [],
}
"""Where MySQL writes otherwise: temporary tables do not keep what was rolled back."""


def told(change: Change) -> str:
    if isinstance(change, Rows):
        return change.table.table
    if isinstance(change, Statement):
        return " ".join(change.query.statement.decode().split()[:2])
    return type(change).__name__


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_servers_events_are_read_as_what_was_done(
    source_db: MySQLDatabase, servers: Pair, script: str
) -> None:
    statements, expected = SCRIPTS[script]
    if servers.family == "mysql":
        expected = IN_MYSQL.get(script, expected)
    source_db.execute("CREATE TABLE sure (id INT) ENGINE=InnoDB")
    source_db.execute("CREATE TABLE loose (id INT) ENGINE=MyISAM")
    source_db.execute("INSERT INTO loose VALUES (9)")
    log = Log(source_db)
    with closing(source_db.connect(ssl_disabled=True)) as connection:
        for statement in statements:
            connection.cursor().execute(statement)
    reader = TransactionReader(SourcePosition(log.file, log.at))
    changes = [change for event in log.events() if (change := reader.feed(event)) is not None]
    assert [told(change) for change in changes] == expected
    assert not reader.in_transaction
    file, offset = source_db.binlog_end()
    if changes and script != "a new file":
        assert getattr(changes[-1], "position", None) == SourcePosition(file, offset)

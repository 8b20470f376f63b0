"""Committed, but the answer was lost: the link is cut when the server has done what it was told."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress

import psycopg
import pymysql
import pytest

from config import failpoints
from replicator.sandbox.cluster import Engine
from replicator.sandbox.waiting import DeadlineExpired, wait_until
from tests.faults.conftest import Linked
from tests.faults.trial import Trial
from tests.fix_proxy import Proxy
from tests.fix_servers import family

Facts = Callable[[Trial], object]


def _replica(question: str) -> Facts:
    return lambda the: the.pipe.sandbox.replica_db.query(question)


def _raw(question: str) -> Facts:
    def ask(the: Trial) -> object:
        with the.raw() as connection:
            return connection.execute(question).fetchall()

    return ask


_MAIN = _replica("SELECT binlog_file, binlog_position FROM etl_binlog_offset WHERE stream = 'main'")
_COPIED = _replica("SELECT target_table, copy_key, rows_copied FROM etl_copy_progress")
_REQUESTS = _replica("SELECT id, state FROM etl_resync_request")


def _shapes(the: Trial) -> object:
    """Names, columns and the engine's ids of the replica's tables: TRUNCATE changes only these."""
    catalog = "innodb_tables" if family() == "mysql" else "innodb_sys_tables"
    database = the.pipe.sandbox.replica_db
    return (
        database.query(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = DATABASE() ORDER BY 1, 2"
        ),
        database.query(
            f"SELECT name, table_id FROM information_schema.{catalog}"
            " WHERE name LIKE CONCAT(DATABASE(), '/%%') ORDER BY 1"
        ),
    )


_OFFSET = _raw("SELECT binlog_position, updated_at FROM raw.etl_binlog_offset")
_HELPERS = _raw("SELECT relname, oid FROM pg_class WHERE relname ~ '^_(re)?load_'")

MOST_TURNS = 16
CASES: dict[str, tuple[Facts, str]] = {
    "apply.before_send": (_MAIN, "a batch"),
    "transaction.before_commit": (_MAIN, "a large transaction"),
    "ddl.ready": (_shapes, "a schema change"),
    "ddl.before_commit": (_MAIN, "the offset behind a schema change"),
    "copy.before_commit": (_COPIED, "a chunk of a copy"),
    "resync.before_commit": (_REQUESTS, "a swap"),
    "batch.before_commit": (_OFFSET, "a batch"),
    "load.before_commit": (_HELPERS, "a load"),
}
"""Where the daemon stands still, and what shows that the server has done what comes next."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ["InnoDB"])
def test_an_answer_that_was_lost_is_not_missed(
    linked: Callable[[Engine], Linked], engine: Engine
) -> None:
    the, links = linked(engine)
    the.rotation = ("visit", "account")  # with a key: others are not copied into a helper table
    the.asked.set()
    for point, (facts, what) in CASES.items():
        for _ in range(MOST_TURNS):
            if _answer_is_lost(the, links, point, facts):
                break
        else:
            raise AssertionError(f"{what} was never committed behind {point}")
    the.settle()


def _answer_is_lost(the: Trial, links: dict[str, Proxy], point: str, facts: Facts) -> bool:
    """Was something committed whose answer was lost?

    Not where the point was passed within a large transaction, or by another thread than the one
    that is meant: then the answer that was held back is one that something else waits for.
    """
    the.order(point, "pause")
    daemon = the.wait_for_pause(point)
    link = links["replica" if point in failpoints.REPLICATOR else "analytics"]
    before = facts(the)
    link.hold_answers()
    daemon.signal(signal.SIGCONT)
    committed = _becomes_other(facts, the, before)
    link.cut()
    link.pass_on()
    if not committed:  # or it would stand before the same transaction again
        wait_until(lambda: _is_other(facts, the, before), 90, what="the daemon to go on")
    return committed


def _is_other(facts: Facts, the: Trial, before: object) -> bool:
    with suppress(pymysql.MySQLError, psycopg.Error):
        return facts(the) != before
    return False


def _becomes_other(facts: Facts, the: Trial, before: object) -> bool:
    try:
        wait_until(lambda: _is_other(facts, the, before), 10, what="something to be committed")
    except DeadlineExpired:
        return False
    return True

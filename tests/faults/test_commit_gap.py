"""The commit gap held open: a transaction is in the binlog for seconds before readers see it.

Semi-synchronous replication does it (AFTER_SYNC, nobody acknowledging). What is copied meanwhile
must wait, or must know of it: nothing may be lost.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from replicator import resync_requests
from replicator.sandbox.cluster import Engine
from replicator.sandbox.waiting import wait_until
from tests.fix_pipeline import NewPipeline, Pipeline
from tests.fix_servers import Pair
from tests.numbers import numbers

ROWS = 300


class Gap:
    """Semi-synchronous replication without a replica, on the source."""

    def __init__(self, pipe: Pipeline, servers: Pair) -> None:
        self._pipe = pipe
        self._word = "source" if servers.family == "mysql" else "master"
        if servers.family == "mysql":
            pipe.sandbox.source_db.execute(
                "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'"
            )
        self._set("wait_point", "'AFTER_SYNC'")
        self._set("timeout", "3600000")

    def _set(self, name: str, value: str) -> None:
        self._pipe.sandbox.source_db.execute(
            f"SET GLOBAL rpl_semi_sync_{self._word}_{name} = {value}"
        )

    @contextmanager
    def held_by(self, statement: str) -> Iterator[None]:
        """Within it the statement is in the binlog, and nobody sees what it did.

        One alone: behind a second one, MariaDB tells nobody any more where its binlog ends.
        """
        before = self._pipe.sandbox.source_db.binlog_end()
        self._set("enabled", "ON")
        thread = threading.Thread(target=self._execute, args=(statement,), daemon=True)
        thread.start()
        wait_until(lambda: self._waiting() > 0, 20, what="a commit that is held back")
        assert self._pipe.sandbox.source_db.binlog_end() > before
        try:
            yield
        finally:
            self._set("enabled", "OFF")
            thread.join(timeout=30)
            assert not thread.is_alive()

    def _execute(self, statement: str) -> None:
        with closing(self._pipe.sandbox.source_db.connect()) as connection:
            connection.cursor().execute(statement)

    def _waiting(self) -> int:
        rows = self._pipe.sandbox.source_db.query(
            "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync%wait_sessions'"
        )
        return sum(int(value) for _name, value in rows)


def _furnish(pipe: Pipeline) -> None:
    source = pipe.sandbox.source_db
    source.execute("CREATE TABLE visit (id BIGINT AUTO_INCREMENT PRIMARY KEY, word TEXT)")
    source.execute(f"INSERT INTO visit (word) SELECT 'synthetic' FROM {numbers(1, ROWS)}")


def _pipeline(pipeline: NewPipeline, engine: Engine) -> Pipeline:
    return pipeline(
        engine,
        REPLICATOR_COPY_CHUNK_ROWS="100",
        REPLICATOR_COPY_GAP_SECONDS="0.2",
        REPLICATOR_POLL_SECONDS="0.1",
    )


def _seen(pipe: Pipeline) -> list[tuple[object, ...]]:
    return pipe.sandbox.source_db.query("SELECT count(*) FROM visit WHERE word = 'held'")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["InnoDB", "MyISAM"])
@pytest.mark.parametrize("way", ["first copy", "resync"])
def test_what_is_committed_while_tables_are_copied_in_the_gap_is_not_lost(
    pipeline: NewPipeline, servers: Pair, engine: Engine, way: str
) -> None:
    pipe = _pipeline(pipeline, engine)
    _furnish(pipe)
    gap = Gap(pipe, servers)
    if way == "resync":
        pipe.start()
        pipe.catch_up()
    with gap.held_by("INSERT INTO visit (word) VALUES ('held')"):
        assert _seen(pipe) == [(0,)], "the gap is open: the row is there for nobody"
        if way == "resync":
            with closing(pipe.sandbox.replica_db.connect()) as connection:
                resync_requests.queue_resync(connection, ["visit"])
        else:
            pipe.start()
        wait_until(
            lambda: "copy_waits" in pipe.replicator.output or _copied(pipe, way),
            150,
            what=lambda: f"a copy:\n{pipe.replicator.output[-2000:]}",
        )
    assert _seen(pipe) == [(1,)]
    pipe.catch_up()
    assert pipe.differences() == {}


def _copied(pipe: Pipeline, way: str) -> bool:
    """Has the table been read, without a wait?"""
    if way == "first copy":
        return "table_copied" in pipe.replicator.output
    return bool(
        pipe.sandbox.replica_db.query(
            "SELECT 1 FROM etl_resync_request WHERE state NOT IN ('queued', 'copying')"
        )
    )

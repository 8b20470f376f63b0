"""The source is not where it was, or not what it was: told apart, halted with the way on, healed.

The servers here are the tests' own: they are killed, cut, reset and set back.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from config.errors import BinlogTorn, ReplicatorError, SourceReset, StatementFormat, Transient
from replicator.binlog.position import SourcePosition
from replicator.sandbox.accounts import allow_source, create_source_account
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.servers import SOURCE_OPTIONS, BinlogServer
from replicator.sandbox.waiting import wait_until
from tests.fix_servers import NewMariaDB, Pair

from .conftest import NewLeg
from .leg import Leg

GTIDS = {**SOURCE_OPTIONS, "default_storage_engine": "InnoDB"}
"""On InnoDB, MySQL too has GTIDs here."""


def practice(server: BinlogServer) -> MySQLDatabase:
    """The practice's database on a server, readable by the account."""
    with closing(server.connect()) as root:
        root.cursor().execute("SET SESSION sql_log_bin = 0")
        create_source_account(root, "readonly_user", "synthetic")
        allow_source(root, "readonly_user", "opendental")
    database = MySQLDatabase(server, "opendental", "readonly_user", "synthetic")
    database.create()
    return database


def fill(database: MySQLDatabase) -> None:
    """Always the same, and so of the same length in the binlog."""
    database.execute("CREATE TABLE one (id INT PRIMARY KEY, n INT)")
    for number in range(5):
        database.execute("INSERT INTO one VALUES (%s, %s)", (number, number))


def end_of(database: MySQLDatabase) -> SourcePosition:
    return SourcePosition(*database.binlog_end())


def next_second() -> None:
    """A binlog file is told from another of its name by the second in which it was begun."""
    second = int(time.time())
    wait_until(lambda: int(time.time()) > second, 5, what="the next second")


def begin_anew(database: MySQLDatabase) -> None:
    """An empty database and a binlog that begins again, in another second than the last."""
    next_second()
    database.execute("SET SESSION sql_log_bin = 0")
    for (table,) in database.query("SHOW TABLES"):
        database.execute(f"DROP TABLE `{table}`")
    database.execute("SET SESSION sql_log_bin = 1")
    database.forget_binlogs()


def _step_on(leg: Leg) -> None:
    while True:
        with suppress(Transient):  # the daemon waits and tries again
            leg.step_until(lambda: False)


def reason(leg: Leg, kind: type[ReplicatorError]) -> str:
    """What the leg halts with, and halts with again."""
    said = []
    for _ in range(2):
        with pytest.raises(kind) as caught:
            _step_on(leg)
        assert caught.value.hint
        said.append(str(caught.value))
    return said[1]


def goes_on_after_a_resync(leg: Leg) -> None:
    leg.resync()
    leg.catch_up()
    leg.assert_exact()
    leg.source.execute("INSERT INTO one (id, n) VALUES (100, 100)")
    leg.catch_up()
    leg.assert_exact()


# --- the binlog begun anew -------------------------------------------------------------------


@pytest.fixture
def gtid_source(new_mariadb: NewMariaDB) -> Iterator[MySQLDatabase]:
    database = practice(new_mariadb(GTIDS))
    yield database
    database.close()


@pytest.mark.parametrize("with_gtids", [True, False])
def test_a_position_that_means_another_event_now_is_noticed(
    new_leg: NewLeg, with_gtids: bool, request: pytest.FixtureRequest
) -> None:
    source = request.getfixturevalue("gtid_source" if with_gtids else "lone_source")
    begin_anew(source)
    fill(source)
    leg = new_leg(source=source)
    leg.catch_up()
    leg.close()
    before = leg.position()
    begin_anew(source)
    fill(source)
    assert end_of(source) == before  # the border of an event, and the GTIDs are the same, too
    source.execute("INSERT INTO one VALUES (9, 9)")
    assert "begun anew (RESET MASTER)" in reason(leg, SourceReset)
    goes_on_after_a_resync(leg)


@pytest.mark.parametrize("longer", [False, True])
def test_a_reset_while_the_stream_is_open_is_noticed(
    new_leg: NewLeg, lone_source: MySQLDatabase, longer: bool
) -> None:
    begin_anew(lone_source)
    fill(lone_source)
    leg = new_leg(source=lone_source, heartbeat_seconds=0.3)
    leg.catch_up()
    begin_anew(lone_source)
    fill(lone_source)
    if longer:
        for number in range(200, 220):
            lone_source.execute("INSERT INTO one VALUES (%s, 1)", (number,))
    else:
        lone_source.execute("FLUSH BINARY LOGS")
        lone_source.execute("PURGE BINARY LOGS TO 'source-bin.000002'")
        lone_source.forget_binlogs()
    reason(leg, SourceReset)
    goes_on_after_a_resync(leg)


def test_a_row_of_an_older_version_is_taken_over(new_leg: NewLeg, replica_db: MySQLDatabase,
                                                 gtid_source: MySQLDatabase) -> None:  # fmt: skip
    fill(gtid_source)
    leg = new_leg(source=gtid_source)
    leg.catch_up()
    known = leg.offset()
    leg.restart()
    replica_db.execute("ALTER TABLE etl_binlog_offset DROP COLUMN binlog_created")
    gtid_source.execute("UPDATE one SET n = 7")
    leg.catch_up()
    leg.assert_exact()
    now = leg.offset()
    assert known is not None
    assert now is not None
    assert known.binlog_created == now.binlog_created > 0


def test_what_identifies_a_position_goes_from_file_to_file(
    new_leg: NewLeg, gtid_source: MySQLDatabase, servers: Pair
) -> None:
    fill(gtid_source)
    leg = new_leg(source=gtid_source)
    leg.catch_up()
    seen = []
    for number in range(3):
        next_second()
        gtid_source.execute("FLUSH BINARY LOGS")
        if number:
            gtid_source.execute("UPDATE one SET n = n + 1")
        leg.catch_up()
        offset = leg.offset()
        assert offset is not None
        assert offset.position == end_of(gtid_source)
        seen.append(offset.binlog_created)
        if number == 1:
            leg.restart()
    assert seen == sorted(set(seen))
    variable = "gtid_binlog_state" if servers.family == "mariadb" else "GLOBAL.gtid_executed"
    assert [(offset.gtid,)] == gtid_source.query(f"SELECT @@{variable}")


# --- killed, cut, set back -------------------------------------------------------------------


@pytest.fixture
def durable(new_mariadb: NewMariaDB) -> Iterator[MySQLDatabase]:
    database = practice(new_mariadb(GTIDS, durable=True))
    yield database
    database.close()


def cut_off(database: MySQLDatabase, file: str, size: int) -> None:
    """Kill the server, cut its last binlog file, and start it again."""
    database.close()
    database.server.kill()
    os.truncate(database.server.data / file, size)
    database.server.start()


def leave_half_a_transaction(database: MySQLDatabase) -> None:
    """What a server leaves that dies while it writes one: of another database, so that ours is
    what its binlog says."""
    database.execute("CREATE DATABASE elsewhere")
    database.execute("CREATE TABLE elsewhere.t (id INT PRIMARY KEY, text LONGTEXT)")
    whole = end_of(database)
    database.execute("INSERT INTO elsewhere.t VALUES (1, REPEAT('x', 3000))")
    torn = (whole.offset + end_of(database).offset) // 2
    cut_off(database, whole.file, torn)


def test_half_a_transaction_at_the_end_of_a_crashed_servers_file_is_passed(
    new_leg: NewLeg, durable: MySQLDatabase, servers: Pair
) -> None:
    fill(durable)
    leg = new_leg(source=durable)
    leg.catch_up()
    leg.close()
    durable.execute("UPDATE one SET n = n + 10")
    leave_half_a_transaction(durable)
    durable.execute("UPDATE one SET n = n + 100")
    with capture_logs() as logs:
        leg.catch_up()
    leg.assert_exact()
    told = {line["event"] for line in logs}
    if servers.family == "mariadb":  # MySQL has cut it off itself
        assert "source_binlog_torn" in told
    else:
        assert "source_crashed" in told
    leg.restart()
    durable.execute("INSERT INTO one (id, n) VALUES (100, 100)")
    leg.catch_up()
    leg.assert_exact()


@pytest.mark.only_on("mariadb", reason="MySQL cuts its last file before it starts")
def test_a_torn_file_of_a_server_that_may_have_lost_more_halts(
    new_leg: NewLeg, gtid_source: MySQLDatabase
) -> None:
    fill(gtid_source)  # sync_binlog is 0
    leg = new_leg(source=gtid_source)
    leg.catch_up()
    leg.close()
    leave_half_a_transaction(gtid_source)
    assert "sync_binlog is not 1" in reason(leg, BinlogTorn)
    goes_on_after_a_resync(leg)


def test_a_crash_at_the_border_of_transactions_goes_on_and_is_told(
    new_leg: NewLeg, durable: MySQLDatabase
) -> None:
    fill(durable)
    leg = new_leg(source=durable)
    leg.catch_up()
    durable.close()
    durable.server.kill()
    durable.server.start()
    leg.restart()
    with capture_logs() as logs:
        durable.execute("UPDATE one SET n = n + 10")
        leg.catch_up()
    leg.assert_exact()
    (told,) = [line for line in logs if line["event"] == "source_crashed"]
    assert told["sync_binlog"] == 1
    assert "verify" in told["remedy"]


def test_a_clean_restart_is_no_crash(new_leg: NewLeg, durable: MySQLDatabase) -> None:
    fill(durable)
    leg = new_leg(source=durable)
    leg.catch_up()
    durable.close()
    durable.server.stop()
    durable.server.start()
    leg.restart()
    with capture_logs() as logs:
        durable.execute("FLUSH BINARY LOGS")
        durable.execute("UPDATE one SET n = n + 10")
        leg.catch_up()
    leg.assert_exact()
    assert not [line for line in logs if line["event"] == "source_crashed"]


def test_a_crash_that_lost_what_was_read_already_halts(
    new_leg: NewLeg, durable: MySQLDatabase
) -> None:
    fill(durable)
    leg = new_leg(source=durable)
    border = end_of(durable)
    durable.execute("INSERT INTO one VALUES (50, 50)")
    leg.catch_up()
    leg.close()
    cut_off(durable, border.file, border.offset)
    # MySQL's engine may have kept what the binlog lost: then the file alone tells.
    assert re.search(
        "does not know transactions|lost the end of its binlog", reason(leg, SourceReset)
    )
    goes_on_after_a_resync(leg)


@pytest.mark.parametrize("in_the_same_file", [True, False])
def test_a_source_set_back_to_an_older_copy_halts(
    new_leg: NewLeg, durable: MySQLDatabase, tmp_path: Path, in_the_same_file: bool
) -> None:
    """As a virtual machine's snapshot does: data, binlogs, uuid and all."""
    fill(durable)
    leg = new_leg(source=durable)
    leg.catch_up()
    durable.close()
    durable.server.stop()
    shutil.copytree(durable.server.data, tmp_path / "older")
    durable.server.start()
    if not in_the_same_file:
        durable.execute("FLUSH BINARY LOGS")
    durable.execute("UPDATE one SET n = 1000")
    leg.restart()
    leg.catch_up()
    leg.close()
    durable.close()
    durable.server.stop()
    shutil.rmtree(durable.server.data)
    shutil.copytree(tmp_path / "older", durable.server.data)
    next_second()
    durable.server.start()
    for number in range(20, 40):  # as far as before, and further
        durable.execute("INSERT INTO one VALUES (%s, 1)", (number,))
    said = reason(leg, SourceReset)
    assert re.search("does not know|was begun on|numbering began again", said), said
    goes_on_after_a_resync(leg)


# --- another server --------------------------------------------------------------------------


class House:
    """Two servers, the second a replica of the first by the servers' own means."""

    def __init__(self, new: Callable[..., BinlogServer], servers: Pair) -> None:
        self.servers = servers
        self.mysql = servers.family == "mysql"
        more = {"log_replica_updates" if self.mysql else "log_slave_updates": "ON"}
        self.first = practice(new({**GTIDS, **more}, server_id=1))
        self.second = practice(new({**GTIDS, **more, "log_bin": "other-bin"}, server_id=7))
        self.follow(True)

    def follow(self, begin: bool = False) -> None:
        if begin:
            with closing(self.first.server.connect()) as root:
                root.cursor().execute("SET SESSION sql_log_bin = 0")
                root.cursor().execute("CREATE USER native IDENTIFIED BY 'synthetic'")
                root.cursor().execute("GRANT REPLICATION SLAVE ON *.* TO native")
            port = self.first.server.port
            self.second.execute(
                f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port},"
                " SOURCE_USER='native', SOURCE_PASSWORD='synthetic', SOURCE_AUTO_POSITION=1,"
                " GET_SOURCE_PUBLIC_KEY=1"
                if self.mysql
                else f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port},"
                " MASTER_USER='native', MASTER_PASSWORD='synthetic', MASTER_USE_GTID=slave_pos"
            )
        self.second.execute("START REPLICA")

    def stop(self) -> None:
        self.second.execute("STOP REPLICA")

    def wait(self) -> None:
        """Until the second server has what the first has."""
        goal = self.executed(self.first)
        wait_until(
            lambda: self.executed(self.second) == goal,
            30,
            what=lambda: f"{goal}, at {self.executed(self.second)}: {self.status()}",
        )

    def executed(self, database: MySQLDatabase) -> Any:
        variable = "gtid_executed" if self.mysql else "gtid_current_pos"
        return database.query(f"SELECT @@GLOBAL.{variable}")

    def status(self) -> Any:
        return self.second.query("SHOW REPLICA STATUS")

    def close(self) -> None:
        self.first.close()
        self.second.close()


@pytest.fixture
def house(new_mariadb: NewMariaDB, servers: Pair) -> Iterator[House]:
    house = House(new_mariadb, servers)
    yield house
    house.close()


def test_a_server_with_the_same_past_is_followed(house: House, new_leg: NewLeg) -> None:
    first, second = house.first, house.second
    fill(first)
    first.execute("CREATE TABLE keyless (n INT)")
    first.execute("INSERT INTO keyless VALUES (1), (1), (2)")
    leg = new_leg(source=first)
    leg.catch_up()
    first.execute("UPDATE one SET n = n + 10")
    leg.catch_up()
    leg.close()
    first.execute("INSERT INTO keyless VALUES (3)")
    first.execute("UPDATE one SET n = n + 100 WHERE id < 3")
    house.wait()
    house.stop()
    second.execute("DELETE FROM keyless WHERE n = 1 LIMIT 1")
    second.execute("ALTER TABLE one ADD COLUMN more INT DEFAULT 5")
    moved = new_leg(source=second)
    with capture_logs() as logs:
        moved.catch_up()
    moved.assert_exact()
    (told,) = [line for line in logs if line["event"] == "source_changed"]
    assert (told["was"], told["now"]) == (1, 7)
    offset = moved.offset()
    assert offset is not None
    assert offset.position == end_of(second)
    assert moved.requests() == [("keyless", "loading")]
    moved.restart()
    second.execute("INSERT INTO keyless VALUES (8)")
    moved.catch_up()
    moved.assert_exact()


def test_a_server_that_lacks_what_the_replica_has_is_not_followed_until_it_has_it(
    house: House, new_leg: NewLeg
) -> None:
    fill(house.first)
    house.wait()
    house.stop()
    house.first.execute("UPDATE one SET n = n + 10")
    leg = new_leg(source=house.first)
    leg.catch_up()
    leg.close()
    moved = new_leg(source=house.second)
    assert "lacks transactions that the replica has" in reason(moved, SourceReset)
    house.follow()
    house.wait()
    moved.catch_up()
    moved.assert_exact()


def test_a_server_with_transactions_of_its_own_before_is_not_followed(
    house: House, new_leg: NewLeg
) -> None:
    fill(house.first)
    leg = new_leg(source=house.first)
    leg.catch_up()
    house.wait()
    house.second.execute("INSERT INTO one VALUES (77, 77)")
    house.first.execute("UPDATE one SET n = n + 10 WHERE id < 3")
    leg.catch_up()
    leg.close()
    wait_until(
        lambda: house.second.query("SELECT n FROM one WHERE id = 1") == [(11,)],
        30,
        what=lambda: str(house.status()),
    )
    moved = new_leg(source=house.second)
    assert "nowhere in its binlog" in reason(moved, SourceReset)


def test_no_server_is_followed_while_tables_are_copied(house: House, new_leg: NewLeg) -> None:
    fill(house.first)
    leg = new_leg(source=house.first)
    leg.catch_up()
    house.wait()
    leg.close()
    leg.replica.execute(
        "UPDATE etl_extract_status SET extraction_status = 'copying' WHERE table_name = 'one'"
    )
    moved = new_leg(source=house.second)
    assert "1 tables were being copied from it (one)" in reason(moved, SourceReset)


# --- what the binlog says --------------------------------------------------------------------


def test_statements_logged_as_text_halt_from_the_moment_that_the_format_changes(
    new_leg: NewLeg, gtid_source: MySQLDatabase
) -> None:
    fill(gtid_source)
    leg = new_leg(source=gtid_source)
    leg.catch_up()
    gtid_source.execute("SET GLOBAL binlog_format = 'STATEMENT'")
    gtid_source.execute("ALTER TABLE one ADD COLUMN more INT")  # DDL always is a statement
    leg.catch_up()
    leg.assert_exact()
    gtid_source.close()
    gtid_source.execute("UPDATE one SET more = 1999888777")
    with pytest.raises(StatementFormat) as caught:
        leg.step_until(lambda: False)
    assert "1999888777" not in str(caught.value)
    assert "SET GLOBAL binlog_format = 'ROW'" in caught.value.hint
    gtid_source.execute("SET GLOBAL binlog_format = 'ROW'")
    gtid_source.close()
    with pytest.raises(StatementFormat):
        leg.step_until(lambda: False)
    goes_on_after_a_resync(leg)

"""The replica's binlog files go behind the loader, and behind none that has not passed them."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import closing
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from config.metrics import PURGED_BINLOG_FILES
from config.settings import Settings
from loader import retention
from replicator.sandbox.accounts import allow_replica, unlogged
from replicator.sandbox.databases import PostgresDatabase
from replicator.sandbox.waiting import wait_until

from .conftest import Harness, Replica

SOMEBODY = "somebody_without_rights"


@pytest.fixture(autouse=True)
def small_reserve(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "RETRY_SECONDS", 0.2)
    object.__setattr__(settings.loader, "binlog_reserve_bytes", 1)


@pytest.fixture
def second(
    settings: Settings, replica: Replica, analytics_db: PostgresDatabase
) -> Iterator[Harness]:
    """Another loader of the same replica, into a schema of its own."""
    other = settings.model_copy(
        update={
            "analytics": settings.analytics.model_copy(update={"schema_name": "other"}),
            "loader": settings.loader.model_copy(
                update={"server_id": settings.loader.server_id + 10}
            ),
        }
    )
    made = Harness(other, replica, analytics_db)
    yield made
    made.close()


def files(replica: Replica) -> list[str]:
    return [row[0] for row in replica.database.query("SHOW BINARY LOGS")]


def registered(replica: Replica) -> dict[int, str]:
    return dict(
        replica.database.query(f"SELECT loader, binlog_file FROM {retention.POSITION_TABLE}")
    )


def _denials(logs: Sequence[MutableMapping[str, Any]]) -> list[Any]:
    return [entry for entry in logs if entry["event"] == "binlog_files_stay"]


def fill_files(replica: Replica, count: int) -> None:
    for _ in range(count):
        replica.commit("INSERT INTO t VALUES (NULL, 1)")
        replica.database.execute("FLUSH BINARY LOGS")
    replica.commit("INSERT INTO t VALUES (NULL, 1)")


def step_until_kept(harness: Harness, first: str) -> None:
    harness.step_until(lambda: files(harness.replica)[0] == first)


@pytest.fixture
def begun(replica: Replica, harness: Harness) -> Harness:
    replica.create("t", "id int AUTO_INCREMENT PRIMARY KEY, v int")
    harness.catch_up()
    return harness


def test_files_go_away_behind_the_loader_and_stay_while_it_is_stopped(
    replica: Replica, begun: Harness
) -> None:
    begun.loader.close()
    there = files(replica)
    fill_files(replica, 4)
    assert files(replica) == sorted({*there, *files(replica)})
    assert files(replica)[0] == there[0]  # nobody purges for a loader that is away
    assert len(files(replica)) >= 5
    before = PURGED_BINLOG_FILES._value.get()
    begun.restart()
    begun.catch_up()
    step_until_kept(begun, files(replica)[-2])  # one of reserve
    wait_until(lambda: PURGED_BINLOG_FILES._value.get() >= before + 3, 10, what="a count")
    begun.assert_same("t")
    begun.restart()  # what it needs is there
    replica.commit("UPDATE t SET v = 2")
    begun.catch_up()
    begun.assert_same("t")


def test_files_stay_that_another_loader_has_not_passed(
    replica: Replica, begun: Harness, second: Harness
) -> None:
    second.step_until(lambda: second.settings.loader.server_id in registered(replica))
    second.loader.close()
    needed = registered(replica)[second.settings.loader.server_id]
    fill_files(replica, 4)
    begun.catch_up()
    mine = begun.settings.loader.server_id
    begun.step_until(lambda: registered(replica)[mine] == files(replica)[-1])
    fill_files(replica, 1)
    begun.catch_up()
    begun.step_until(lambda: registered(replica)[mine] == files(replica)[-1])
    assert needed in files(replica)
    second.restart()
    step_until_kept(second, files(replica)[-2])


def test_the_position_that_is_registered_is_not_in_the_binlog(
    replica: Replica, begun: Harness
) -> None:
    begun.step_until(lambda: bool(registered(replica)))
    end = replica.database.binlog_end()
    begun.restart()
    begun.catch_up()
    before = registered(replica)
    fill_files(replica, 1)
    begun.catch_up()
    begun.step_until(lambda: registered(replica) != before)
    assert replica.database.binlog_end()[0] > end[0]
    assert "etl_loader_position" not in begun.states()
    events = replica.database.query(f"SHOW BINLOG EVENTS IN '{files(replica)[-1]}'")
    assert not [row for row in events if retention.POSITION_TABLE in str(row[5])]


def test_where_purging_is_off_no_file_goes_and_nothing_is_registered(
    replica: Replica, harness: Harness, settings: Settings
) -> None:
    object.__setattr__(settings.loader, "binlog_reserve_bytes", 0)
    replica.create("t", "id int AUTO_INCREMENT PRIMARY KEY, v int")
    harness.catch_up()
    there = files(replica)
    fill_files(replica, 3)
    harness.catch_up()
    assert set(there) <= set(files(replica))
    tables = {row[0] for row in replica.database.query("SHOW TABLES")}
    assert retention.POSITION_TABLE not in tables


def test_an_account_that_may_not_purge_is_told_once_and_the_loader_goes_on(
    replica: Replica, settings: Settings, analytics_db: PostgresDatabase
) -> None:
    database, password = replica.database, settings.replication.password.get_secret_value()
    family = ("REPLICATION SLAVE", "REPLICATION CLIENT")
    with closing(database.server.connect()) as root:
        cursor = unlogged(root)
        cursor.execute(f"CREATE USER '{SOMEBODY}'@'%%' IDENTIFIED BY %s", (password,))
        cursor.execute(f"GRANT {', '.join(family)} ON *.* TO '{SOMEBODY}'@'%'")
        allow_replica(root, SOMEBODY, database.name)
    account = settings.replication.model_copy(
        update={"user": SOMEBODY, "password": SecretStr(password)}
    )
    harness = Harness(settings.model_copy(update={"replication": account}), replica, analytics_db)
    try:
        replica.create("t", "id int AUTO_INCREMENT PRIMARY KEY, v int")
        there = files(replica)
        with capture_logs() as logs:
            harness.catch_up()
            harness.step_until(lambda: _denials(logs) != [])
            fill_files(replica, 3)
            harness.catch_up()
        harness.assert_same("t")
        (told,) = _denials(logs)
        assert "BINLOG ADMIN" in told["remedy"]
        assert set(there) <= set(files(replica))
    finally:
        harness.close()
        with closing(database.server.connect()) as root:
            unlogged(root).execute(f"DROP USER '{SOMEBODY}'@'%'")

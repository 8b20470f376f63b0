"""What every test may ask for.

Servers are real, on free loopback ports, started when the first test needs one
and gone when pytest is, however it ends.

Shared by the whole session (do not kill or reconfigure these):
  source_server     MariaDBServer, or MySQLServer: binlog ROW/FULL, MyISAM by default, sql_mode=''
  replica_server    the same: binlog ROW/FULL with full metadata, InnoDB
  analytics_server  PostgreSQLServer

A fresh database for each test, dropped afterwards; none disturbs another:
  source_db         MySQLDatabase, readable by its account readonly_user
  replica_db        MySQLDatabase, for its account replication_user
  analytics_db      PostgresDatabase, for its account analytics_user
    .name .user .password .server
    .execute(sql, args) .query(sql, args)   as root (PostgreSQL: as the account), autocommit
    .connect(**options)                     MySQL: root in this database; PostgreSQL: the account
    .connect_as_account(**options)          MySQL: as the process under test would
  Their accounts are made with what `replicator check --grants` prints, and so may do no more.
  Creating and dropping them is not logged; what a test does in them is.
  A binlog is the whole server's: events of other databases may stand in it.

Servers of a test's own, for whatever must be killed, stopped or configured:
  new_mariadb(options=SOURCE_OPTIONS, server_id=1, durable=False) -> a started one of the pair
  new_postgresql(durable=False) -> a started PostgreSQLServer
    .start() .stop() .kill() .signal(SIGSTOP) .pid .port .errors() .connect(user, database, …)

  wait_until(predicate, deadline=10.0, what="…")  instead of sleeping: returns the first truthy
                    answer, else fails with `what`. Also replicator.sandbox.waiting.wait_until.

Which servers these are, --servers and --postgres say, and --source-options how the source is set
up otherwise (tests.source_options); `servers` tells a test. One that is about one family or one
server alone says so: @pytest.mark.only_on("mariadb", reason="…").

The types are in replicator.sandbox.servers, .postgres, .databases and tests.fix_servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from replicator.sandbox import waiting

# How long an example takes says what else the machine does, and nothing of what is tested.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")

pytest_plugins = [
    "tests.fix_servers",
    "tests.fix_pipeline",
    "tests.fix_proxy",
    "tests.fix_watching",
    "tests.fix_lies",
]


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    return waiting.wait_until


@pytest.fixture(autouse=True)
def events_go_nowhere_old() -> Iterator[None]:
    """What a test made of logging ends with it: it may lead to a stream that pytest has closed."""
    yield
    structlog.reset_defaults()

"""Fixtures: real servers for the whole session, a fresh database for each test.

Which servers a run needs is known once tests are collected; the first one
asked for launches them all, so that they start side by side. Everything lives
in one temporary directory, which the reaper removes with its servers even when
pytest itself is killed.
"""

from __future__ import annotations

import itertools
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pymysql
import pytest

from replicator.sandbox.accounts import (
    allow_replica,
    allow_source,
    create_analytics_account,
    create_replica_account,
    create_source_account,
)
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.sandbox.processes import ServerProcess
from replicator.sandbox.reaper import Reaper
from replicator.sandbox.servers import (
    REPLICA_OPTIONS,
    SOURCE_OPTIONS,
    MariaDBServer,
    Options,
    PostgreSQLServer,
)

NewMariaDB = Callable[..., MariaDBServer]
NewPostgreSQL = Callable[..., PostgreSQLServer]

SOURCE_USER = "readonly_user"
REPLICA_USER = "replication_user"
ANALYTICS_USER = "analytics_user"
PASSWORD = secrets.token_urlsafe(12)

_numbers = itertools.count(1)


class Fleet:
    """The session's shared servers, by fixture name."""

    def __init__(self, directory: Path, wanted: set[str]) -> None:
        self.directory = directory
        self._wanted = wanted & {"source_server", "replica_server", "analytics_server"}
        self._launched: dict[str, ServerProcess] = {}

    def launch(self, name: str) -> ServerProcess:
        """The server of that name, launched along with all others that this run will need."""
        for other in sorted(self._wanted | {name}):
            if other not in self._launched:
                self._launched[other] = self._make(other)
                self._launched[other].launch()
        return self._launched[name]

    def discard(self) -> None:
        for server in self._launched.values():
            server.discard()

    def _make(self, name: str) -> ServerProcess:
        place = self.directory / name
        if name == "source_server":
            return MariaDBServer(place, options=SOURCE_OPTIONS, server_id=1)
        if name == "replica_server":
            return MariaDBServer(place, options=REPLICA_OPTIONS, server_id=2)
        return PostgreSQLServer(place)


def pytest_collection_finish(session: pytest.Session) -> None:
    names = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    session.config.stash[_WANTED] = names


_WANTED = pytest.StashKey[set[str]]()


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A temporary directory for servers; short, and open to PostgreSQL's own account."""
    directory = Path(tempfile.mkdtemp(prefix="opendental-tests-"))
    directory.chmod(0o711)
    Reaper.ours().remove(directory)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest, server_directory: Path) -> Iterator[Fleet]:
    fleet = Fleet(server_directory, request.config.stash.get(_WANTED, set()))
    yield fleet
    fleet.discard()


@pytest.fixture(scope="session")
def source_server(fleet: Fleet) -> MariaDBServer:
    """MariaDB as a practice has it, with a binlog and the account readonly_user."""
    server = fleet.launch("source_server")
    assert isinstance(server, MariaDBServer)
    server.wait_ready()
    with closing(server.connect()) as root:
        create_source_account(root, SOURCE_USER, PASSWORD)
    return server


@pytest.fixture(scope="session")
def replica_server(fleet: Fleet) -> MariaDBServer:
    """MariaDB as the replica has it, with the account replication_user."""
    server = fleet.launch("replica_server")
    assert isinstance(server, MariaDBServer)
    server.wait_ready()
    with closing(server.connect()) as root:
        create_replica_account(root, REPLICA_USER, PASSWORD)
    return server


@pytest.fixture(scope="session")
def analytics_server(fleet: Fleet) -> PostgreSQLServer:
    """PostgreSQL with the account analytics_user."""
    server = fleet.launch("analytics_server")
    assert isinstance(server, PostgreSQLServer)
    server.wait_ready()
    with server.connect() as root:
        create_analytics_account(root, ANALYTICS_USER, PASSWORD)
    return server


@pytest.fixture
def source_db(source_server: MariaDBServer) -> Iterator[MySQLDatabase]:
    """A new empty database on the source, readable by readonly_user."""
    database = MySQLDatabase(source_server, _name("opendental"), SOURCE_USER, PASSWORD)
    database.create()
    with closing(source_server.connect()) as root:
        allow_source(root, SOURCE_USER, database.name)
    yield database
    _drop(database)


@pytest.fixture
def replica_db(replica_server: MariaDBServer) -> Iterator[MySQLDatabase]:
    """A new empty database on the replica, owned in all but name by replication_user."""
    name = _name("opendental_replication")
    database = MySQLDatabase(replica_server, name, REPLICA_USER, PASSWORD)
    database.create()
    with closing(replica_server.connect()) as root:
        allow_replica(root, REPLICA_USER, name)
    yield database
    _drop(database)


@pytest.fixture
def analytics_db(analytics_server: PostgreSQLServer) -> Iterator[PostgresDatabase]:
    """A new empty PostgreSQL database owned by analytics_user; no schema `raw` in it yet."""
    name = _name("opendental_analytics")
    database = PostgresDatabase(analytics_server, name, ANALYTICS_USER, PASSWORD)
    database.create()
    yield database
    database.drop()


@pytest.fixture
def new_mariadb(server_directory: Path) -> Iterator[NewMariaDB]:
    """Starts servers of the test's own, to kill, stop or configure: new_mariadb(options=…)."""
    made: list[MariaDBServer] = []

    def make(
        options: Options = SOURCE_OPTIONS, *, server_id: int = 1, durable: bool = False
    ) -> MariaDBServer:
        place = server_directory / _name("mariadb")
        server = MariaDBServer(place, options=options, server_id=server_id, durable=durable)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.discard()


@pytest.fixture
def new_postgresql(server_directory: Path) -> Iterator[NewPostgreSQL]:
    """Starts PostgreSQL servers of the test's own: new_postgresql(durable=True)."""
    made: list[PostgreSQLServer] = []

    def make(*, durable: bool = False) -> PostgreSQLServer:
        server = PostgreSQLServer(server_directory / _name("postgresql"), durable=durable)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.discard()


def _name(stem: str) -> str:
    return f"{stem}_{next(_numbers)}"


def _drop(database: MySQLDatabase) -> None:
    """Drop the database and the account's grants on it; a server that is down needs neither."""
    with suppress(pymysql.MySQLError):
        database.drop()
        with closing(database.server.connect()) as root, root.cursor() as cursor:
            pattern = database.name.replace("_", r"\_")
            cursor.execute("SET SESSION sql_log_bin = 0")
            cursor.execute(f"REVOKE ALL PRIVILEGES ON `{pattern}`.* FROM %s@'%%'", (database.user,))

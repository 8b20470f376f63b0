"""Fixtures: real servers for the whole session, a fresh database for each test.

Which servers a run needs is known once tests are collected; the first one
asked for launches them all, so that they start side by side. `--servers` and
`--postgres` choose which they are: one pair a run, the same server as source and as
replica unless both are named (`mariadb:mariadb-11.8`); `--source-options` sets the source up
otherwise, as practices do (`source_options`).
Everything lives in one temporary directory, in memory where there is plenty, which the reaper
removes with its servers even when pytest itself is killed.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
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
from replicator.sandbox.cluster import Engine
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.sandbox.installations import (
    MYSQL_NAMES,
    POSTGRES_NAMES,
    MySQLName,
    PostgresName,
)
from replicator.sandbox.postgres import PostgreSQLServer
from replicator.sandbox.processes import ServerProcess
from replicator.sandbox.reaper import Reaper
from replicator.sandbox.servers import (
    REPLICA_OPTIONS,
    SOURCE_OPTIONS,
    BinlogServer,
    Options,
    new_server,
)
from tests import source_options

NewMariaDB = Callable[..., BinlogServer]
NewPostgreSQL = Callable[..., PostgreSQLServer]

SOURCE_USER = "readonly_user"
REPLICA_USER = "replication_user"
ANALYTICS_USER = "analytics_user"
PASSWORD = secrets.token_urlsafe(12)

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Pair:
    """Which servers this run is on: source and replica, and PostgreSQL."""

    mysql: MySQLName
    """The source, and the replica unless that is named."""
    postgres: PostgresName
    chosen: tuple[tuple[str, str], ...] = ()
    """Options of the source that this run is about."""
    other: MySQLName | None = None
    """A replica that is newer than its source."""

    @property
    def replica(self) -> MySQLName:
        return self.other or self.mysql

    @property
    def family(self) -> str:
        return family_of(self.mysql)

    @property
    def engine(self) -> Engine:
        """The engine of the source's tables where a test leaves it open."""
        return source_options.engine_of(self.chosen) or "InnoDB"


def family_of(mysql: str) -> str:
    return "mysql" if mysql.startswith("mysql") else "mariadb"


PAIRS = (*MYSQL_NAMES, "mariadb:mariadb-11.8")
"""What `--servers` may say: one server, or a source and a newer replica."""


def named(servers: str) -> tuple[MySQLName, MySQLName | None]:
    """The source that `--servers` means, and the replica if it is another."""
    known = {name: name for name in MYSQL_NAMES}
    source, _, replica = servers.partition(":")
    return known[source], known.get(replica)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("servers")
    group.addoption("--servers", choices=PAIRS, default=PAIRS[0], metavar="SOURCE[:REPLICA]")
    group.addoption("--postgres", choices=POSTGRES_NAMES, default=POSTGRES_NAMES[0])
    group.addoption("--source-options", default="", metavar="WORD,…")


_family = ["mariadb"]


def family() -> str:
    """`mariadb` or `mysql`: what this run is on, for those who cannot ask a fixture."""
    return _family[0]


_newer = [False]


def replica_is_newer() -> bool:
    """Is the replica of this run another server than the source? Likewise."""
    return _newer[0]


def pytest_configure(config: pytest.Config) -> None:
    _family[0], _newer[0] = _pair_of(config).family, _pair_of(config).other is not None
    config.addinivalue_line(
        "markers",
        "only_on(name, reason): the test is about mariadb, mysql, or the named server alone",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test about other servers is not a part of this run: deselected, not skipped."""
    pair = _pair_of(config)
    here = {pair.family, pair.mysql, pair.replica, pair.postgres}
    others = [item for item in items if any(m.args[0] not in here for m in _only_on(item))]
    items[:] = [item for item in items if item not in others]
    config.hook.pytest_deselected(items=others)


def _only_on(item: pytest.Item) -> list[pytest.Mark]:
    marks = list(item.iter_markers("only_on"))
    assert all(mark.kwargs["reason"] for mark in marks)
    return marks


def pytest_report_header(config: pytest.Config) -> str:
    pair = _pair_of(config)
    words = config.getoption("--source-options") or "as they come"
    return f"servers: {pair.mysql} ({words}) -> {pair.replica} -> {pair.postgres}"


def _pair_of(config: pytest.Config) -> Pair:
    source, replica = named(config.getoption("--servers"))
    try:
        chosen = source_options.parse(config.getoption("--source-options"), family_of(source))
    except ValueError as error:
        raise pytest.UsageError(f"--source-options: {error}") from None
    return Pair(source, config.getoption("--postgres"), tuple(chosen.items()), replica)


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Pair:
    """The servers that this run is on."""
    return _pair_of(pytestconfig)


class Fleet:
    """The session's shared servers, by fixture name."""

    def __init__(self, directory: Path, wanted: set[str], pair: Pair) -> None:
        self.pair = pair
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
            options = source_options.applied(SOURCE_OPTIONS, self.pair.chosen)
            return new_server(self.pair.mysql, place, options=options, server_id=1)
        if name == "replica_server":
            return new_server(self.pair.replica, place, options=REPLICA_OPTIONS, server_id=2)
        return PostgreSQLServer(place, name=self.pair.postgres)


def pytest_collection_finish(session: pytest.Session) -> None:
    names = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    session.config.stash[_WANTED] = names


_WANTED = pytest.StashKey[set[str]]()


MEMORY = Path("/dev/shm")
PLENTY = 8 << 30
"""Bytes of memory that must be free, for several runs side by side may have servers there."""


def _memory() -> Path | None:
    """The file system in memory, where there is plenty of it and TMPDIR does not say otherwise.

    A cluster is a thousand files, and each database three hundred more: on a disk, even when
    nobody waits for it, making them takes eight times as long, which is a third of all tests' time.
    """
    if "TMPDIR" in os.environ or os.environ.get("LOAD_FULL") or not os.access(MEMORY, os.W_OK):
        return None
    told = Path("/proc/meminfo").read_text()
    available = int(told.partition("MemAvailable:")[2].split()[0]) << 10
    return MEMORY if min(available, shutil.disk_usage(MEMORY).free) >= PLENTY else None


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A temporary directory for servers; short, and open to PostgreSQL's own account."""
    directory = Path(tempfile.mkdtemp(prefix="opendental-tests-", dir=_memory()))
    directory.chmod(0o711)
    Reaper.ours().remove(directory)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest, server_directory: Path, servers: Pair) -> Iterator[Fleet]:
    fleet = Fleet(server_directory, request.config.stash.get(_WANTED, set()), servers)
    yield fleet
    fleet.discard()


@pytest.fixture(scope="session")
def source_server(fleet: Fleet) -> BinlogServer:
    """MariaDB, or MySQL, as a practice has it, with a binlog and the account readonly_user."""
    server = fleet.launch("source_server")
    assert isinstance(server, BinlogServer)
    server.wait_ready()
    with closing(server.connect()) as root:
        create_source_account(root, SOURCE_USER, PASSWORD)
    return server


@pytest.fixture(scope="session")
def replica_server(fleet: Fleet) -> BinlogServer:
    """MariaDB, or MySQL, as the replica has it, with the account replication_user."""
    server = fleet.launch("replica_server")
    assert isinstance(server, BinlogServer)
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
def source_db(source_server: BinlogServer) -> Iterator[MySQLDatabase]:
    """A new empty database on the source, readable by readonly_user."""
    database = MySQLDatabase(source_server, _name("opendental"), SOURCE_USER, PASSWORD)
    database.create()
    with closing(source_server.connect()) as root:
        allow_source(root, SOURCE_USER, database.name)
    yield database
    _drop(database)


@pytest.fixture
def replica_db(replica_server: BinlogServer) -> Iterator[MySQLDatabase]:
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
    """A new empty PostgreSQL database for analytics_user; no schema `raw` in it yet.

    The account may also write schema public, where tests let it do as analysts do.
    """
    name = _name("opendental_analytics")
    database = PostgresDatabase(analytics_server, name, ANALYTICS_USER, PASSWORD)
    database.create()
    with analytics_server.connect(database=name) as root:
        root.execute(f"GRANT CREATE ON SCHEMA public TO {ANALYTICS_USER}".encode())
    yield database
    database.drop()


@pytest.fixture
def new_mariadb(server_directory: Path, servers: Pair) -> Iterator[NewMariaDB]:
    """Starts servers of the test's own, source or replica, to kill, stop or configure."""
    made: list[BinlogServer] = []

    def make(
        options: Options = SOURCE_OPTIONS, *, server_id: int = 1, durable: bool = False
    ) -> BinlogServer:
        is_source = options.get("log_bin") == SOURCE_OPTIONS["log_bin"]
        name = servers.mysql if is_source else servers.replica
        server = new_server(
            name,
            server_directory / _name(name),
            options=source_options.applied(options, servers.chosen),
            server_id=server_id,
            durable=durable,
        )
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.discard()


@pytest.fixture
def new_postgresql(server_directory: Path, servers: Pair) -> Iterator[NewPostgreSQL]:
    """Starts PostgreSQL servers of the test's own: new_postgresql(durable=True)."""
    made: list[PostgreSQLServer] = []

    def make(*, durable: bool = False) -> PostgreSQLServer:
        place = server_directory / _name("postgresql")
        server = PostgreSQLServer(place, durable=durable, name=servers.postgres)
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

"""Source, replica and analytics as one sandbox that can outlive the process that started it.

From the left comes a directory; to the right go three running servers, their
accounts, and the environment that points both daemons at them. What must be
known later, by another process, stands in `sandbox.json` in that directory:
ports, engine and passwords (the file is the owner's alone).
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from config.settings import Settings, load_settings
from replicator.sandbox.accounts import (
    allow_replica,
    allow_source,
    create_analytics_account,
    create_analytics_database,
    create_replica_account,
    create_source_account,
)
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.sandbox.installations import MySQLName, PostgresName
from replicator.sandbox.postgres import PostgreSQLServer
from replicator.sandbox.processes import ServerFailed, ServerProcess, free_port
from replicator.sandbox.servers import REPLICA_OPTIONS, SOURCE_OPTIONS, new_server

Engine = Literal["InnoDB", "MyISAM"]

SOURCE_DB = "opendental"
REPLICA_DB = "opendental_replication"
ANALYTICS_DB = "opendental_analytics"
SOURCE_USER = "readonly_user"
REPLICA_USER = "replication_user"
ANALYTICS_USER = "analytics_user"


@dataclass(slots=True)
class State:
    """What `sandbox.json` holds."""

    engine: Engine
    source_port: int
    replica_port: int
    analytics_port: int
    replicator_metrics_port: int
    loader_metrics_port: int
    source_password: str
    replica_password: str
    analytics_password: str
    accounts_made: bool = False
    mysql: MySQLName = "mariadb"
    postgres: PostgresName = "postgresql"
    source_options: dict[str, str] = field(default_factory=dict)
    replica: MySQLName | None = None
    """The replica's server where it is another than the source's."""

    @classmethod
    def new(
        cls,
        engine: Engine,
        mysql: MySQLName,
        postgres: PostgresName,
        source_options: Mapping[str, str],
        replica: MySQLName | None,
    ) -> State:
        return cls(
            replica=replica,
            mysql=mysql,
            postgres=postgres,
            source_options=dict(source_options),
            engine=engine,
            source_port=free_port(),
            replica_port=free_port(),
            analytics_port=free_port(),
            replicator_metrics_port=free_port(),
            loader_metrics_port=free_port(),
            source_password=secrets.token_urlsafe(16),
            replica_password=secrets.token_urlsafe(16),
            analytics_password=secrets.token_urlsafe(16),
        )


class Sandbox:
    """Three servers under `directory`. `durable`: they wait for the disk as real ones do.

    `mysql` and `postgres` say which servers a new sandbox runs, `replica` which other one its
    replica is, `source_options` what its source is told beside `SOURCE_OPTIONS`; one that exists
    keeps its own.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        durable: bool = False,
        mysql: MySQLName = "mariadb",
        postgres: PostgresName = "postgresql",
        source_options: Mapping[str, str] = MappingProxyType({}),
        replica: MySQLName | None = None,
    ) -> None:
        self.directory = Path(directory).absolute()
        self._servers = mysql, postgres, source_options, replica
        self._durable = durable
        self._state = self._read_state()
        if self._state is not None:
            self._build(self._state)

    @property
    def exists(self) -> bool:
        """Is there a sandbox in the directory, up or down?"""
        return self._state is not None

    @property
    def is_up(self) -> bool:
        return self._state is not None and all(server.running for server in self.servers)

    @property
    def engine(self) -> Engine:
        """The storage engine that the source's tables are made with."""
        return self._known().engine

    @property
    def servers(self) -> tuple[ServerProcess, ServerProcess, ServerProcess]:
        self._known()
        return self.source, self.replica, self.analytics

    def up(self, engine: Engine | None = None, *, detach: bool = False) -> None:
        """Start what is down; make accounts and the source's empty database the first time.

        `detach`: the servers stay when this process ends, until `down`.
        `engine` (InnoDB if never said) holds for the sandbox's life.
        """
        state = self._state_for(engine)
        starting = [server for server in self.servers if not server.running]
        for server in starting:
            server.launch(detach=detach)
        for server in starting:
            server.wait_ready()
        state.source_port, state.replica_port = self.source.port, self.replica.port
        state.analytics_port = self.analytics.port
        self._write_state(state)
        if not state.accounts_made:
            self._make_accounts(state)
            state.accounts_made = True
            self._write_state(state)

    def down(self) -> None:
        """Stop the servers, whoever started them; their data stays."""
        if self._state is not None:
            self._close_shorthands()
            for server in self.servers:
                server.stop()

    def remove(self) -> None:
        """Stop the servers and delete everything in the directory."""
        if self._state is not None:
            self._close_shorthands()
            for server in self.servers:
                server.discard()
        shutil.rmtree(self.directory, ignore_errors=True)
        self._state = None

    def env(self) -> dict[str, str]:
        """The variables that point `replicator` and `loader` at this sandbox."""
        state = self._known()
        return {
            "OPENDENTAL_SOURCE_HOST": "127.0.0.1",
            "OPENDENTAL_SOURCE_PORT": str(state.source_port),
            "OPENDENTAL_SOURCE_DB": SOURCE_DB,
            "OPENDENTAL_SOURCE_USER": SOURCE_USER,
            "OPENDENTAL_SOURCE_PASSWORD": state.source_password,
            "MYSQL_REPLICATION_HOST": "127.0.0.1",
            "MYSQL_REPLICATION_PORT": str(state.replica_port),
            "MYSQL_REPLICATION_DB": REPLICA_DB,
            "MYSQL_REPLICATION_USER": REPLICA_USER,
            "MYSQL_REPLICATION_PASSWORD": state.replica_password,
            "POSTGRES_ANALYTICS_HOST": "127.0.0.1",
            "POSTGRES_ANALYTICS_PORT": str(state.analytics_port),
            "POSTGRES_ANALYTICS_DB": ANALYTICS_DB,
            "POSTGRES_ANALYTICS_SCHEMA": "raw",
            "POSTGRES_ANALYTICS_USER": ANALYTICS_USER,
            "POSTGRES_ANALYTICS_PASSWORD": state.analytics_password,
            "REPLICATOR_METRICS_PORT": str(state.replicator_metrics_port),
            "LOADER_METRICS_PORT": str(state.loader_metrics_port),
        }

    def settings(self) -> Settings:
        """The same as validated settings, for use within this process."""
        return load_settings(env_file=None, environ=self.env())

    @property
    def source_db(self) -> MySQLDatabase:
        """The practice's database: as root, or as readonly_user with `connect_as_account`."""
        self._known()
        return self._source_db

    @property
    def replica_db(self) -> MySQLDatabase:
        """The replica's database; the replicator creates it when it first runs."""
        self._known()
        return self._replica_db

    @property
    def analytics_db(self) -> PostgresDatabase:
        self._known()
        return self._analytics_db

    # Inside.

    def _known(self) -> State:
        if self._state is None:
            raise ServerFailed(f"there is no sandbox in {self.directory}; bring one up first")
        return self._state

    def _state_for(self, engine: Engine | None) -> State:
        """The recorded state, or a new one written down at once, before anything runs."""
        if self._state is None:
            self._state = State.new(engine or "InnoDB", *self._servers)
            self.directory.mkdir(parents=True, exist_ok=True)
            self._write_state(self._state)
            self._build(self._state)
        elif engine not in (None, self._state.engine):
            made = self._state.engine
            raise ServerFailed(
                f"this sandbox was made with {made}; remove it before using {engine}"
            )
        return self._state

    def _build(self, state: State) -> None:
        engine = {"default_storage_engine": state.engine}
        self.source = new_server(
            state.mysql,
            self.directory / "source",
            port=state.source_port,
            options={**SOURCE_OPTIONS, **state.source_options, **engine},
            server_id=1,
            durable=self._durable,
        )
        self.replica = new_server(
            state.replica or state.mysql,
            self.directory / "replica",
            port=state.replica_port,
            options=REPLICA_OPTIONS,
            server_id=2,
            durable=self._durable,
        )
        self.analytics = PostgreSQLServer(
            self.directory / "analytics",
            port=state.analytics_port,
            durable=self._durable,
            name=state.postgres,
        )
        self._source_db = MySQLDatabase(self.source, SOURCE_DB, SOURCE_USER, state.source_password)
        self._replica_db = MySQLDatabase(
            self.replica, REPLICA_DB, REPLICA_USER, state.replica_password
        )
        self._analytics_db = PostgresDatabase(
            self.analytics, ANALYTICS_DB, ANALYTICS_USER, state.analytics_password
        )

    def _close_shorthands(self) -> None:
        """End our own sessions before their servers end."""
        for database in (self._source_db, self._replica_db, self._analytics_db):
            database.close()

    def _make_accounts(self, state: State) -> None:
        with closing(self.source.connect()) as root:
            create_source_account(root, SOURCE_USER, state.source_password)
            allow_source(root, SOURCE_USER, SOURCE_DB)
        with closing(self.replica.connect()) as root:
            create_replica_account(root, REPLICA_USER, state.replica_password)
            allow_replica(root, REPLICA_USER, REPLICA_DB)
        with self.analytics.connect() as superuser:
            create_analytics_account(superuser, ANALYTICS_USER, state.analytics_password)
            create_analytics_database(superuser, ANALYTICS_DB, ANALYTICS_USER)
        self.source_db.create(charset="utf8mb3")

    @property
    def _state_file(self) -> Path:
        return self.directory / "sandbox.json"

    def _read_state(self) -> State | None:
        if not self._state_file.exists():
            return None
        return State(**json.loads(self._state_file.read_text()))

    def _write_state(self, state: State) -> None:
        fresh = self._state_file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(asdict(state), indent=2) + "\n")
        fresh.replace(self._state_file)

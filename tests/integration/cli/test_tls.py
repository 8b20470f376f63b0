"""Both daemons and the verbs over verified TLS to all three servers, and what is refused.

The servers let nobody in without TLS, so that each connection, the binlog streams' too, must be
one. Their certificates are a real authority's, made here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymysql
import pytest
from typer.testing import CliRunner, Result

from config.settings import known_variables, load_settings
from loader.cli import app as loader_app
from replicator import grants
from replicator.cli import app as replicator_app
from replicator.cli.doctor.printed import scripts
from replicator.sandbox.accounts import unlogged
from replicator.sandbox.postgres import PostgreSQLServer
from replicator.sandbox.processes import free_port
from replicator.sandbox.servers import REPLICA_OPTIONS, SOURCE_OPTIONS, BinlogServer
from replicator.sandbox.waiting import wait_until
from tests.fix_servers import NewMariaDB, NewPostgreSQL, family
from tests.integration.config.test_tls import MONTH, NEW, Authority, issue, make_authority

PASSWORD = "synthetic-password"
HERE = "127.0.0.1"
MOMENT = timedelta(seconds=2)
INVALID_CERTIFICATE = 3888
pytestmark = pytest.mark.only_on("postgresql", reason="PostgreSQL 18's wheel is without TLS")


class Doors:
    """Three servers that are entered by TLS alone, and the settings of who verifies them."""

    def __init__(
        self,
        directory: Path,
        source: BinlogServer,
        replica: BinlogServer,
        analytics: PostgreSQLServer,
        authority: Authority,
    ) -> None:
        self.directory = directory
        self.source, self.replica, self.analytics = source, replica, analytics
        self.authority = authority
        self.environment = {
            "OPENDENTAL_SOURCE_HOST": HERE,
            "OPENDENTAL_SOURCE_PORT": str(source.port),
            "OPENDENTAL_SOURCE_DB": "opendental",
            "OPENDENTAL_SOURCE_USER": "reader",
            "OPENDENTAL_SOURCE_PASSWORD": PASSWORD,
            "OPENDENTAL_SOURCE_SSL_MODE": "verify_identity",
            "OPENDENTAL_SOURCE_SSL_CA": str(authority.file),
            "MYSQL_REPLICATION_HOST": HERE,
            "MYSQL_REPLICATION_PORT": str(replica.port),
            "MYSQL_REPLICATION_USER": "writer",
            "MYSQL_REPLICATION_PASSWORD": PASSWORD,
            "MYSQL_REPLICATION_SSL_MODE": "verify_identity",
            "MYSQL_REPLICATION_SSL_CA": str(authority.file),
            "POSTGRES_ANALYTICS_HOST": HERE,
            "POSTGRES_ANALYTICS_PORT": str(analytics.port),
            "POSTGRES_ANALYTICS_USER": "loader",
            "POSTGRES_ANALYTICS_PASSWORD": PASSWORD,
            "POSTGRES_ANALYTICS_SSL_MODE": "verify-full",
            "POSTGRES_ANALYTICS_SSL_CA": str(authority.file),
            "REPLICATOR_METRICS_PORT": str(free_port()),
            "LOADER_METRICS_PORT": str(free_port()),
            "REPLICATOR_COPY_GAP_SECONDS": "0.05",
        }
        self._accounts()

    def _accounts(self) -> None:
        """What `check --grants` prints for these settings: REQUIRE SSL comes with the mode."""
        found = {s.server: s.statements for s in scripts(load_settings(None, self.environment))}
        for name, server in (("source", self.source), ("replica", self.replica)):
            with closing(server.connect()) as root, unlogged(root) as cursor:
                for statement in found[name]:
                    cursor.execute(statement.replace(grants.PLACEHOLDER, PASSWORD))
                assert "REQUIRE SSL" in found[name][0]
        with closing(self.analytics.connect()) as root:
            for statement in found["analytics"]:
                root.execute(statement.replace(grants.PLACEHOLDER, PASSWORD).encode())

    def certify(self, server: str, authority: Authority, age: timedelta = NEW) -> None:
        """Give a running server another certificate."""
        issue(authority, HERE, self.directory, age)
        if server == "POSTGRES_ANALYTICS":
            into_postgres(self.directory, self.analytics)
            with closing(self.analytics.connect()) as root:
                root.execute("SELECT pg_reload_conf()")
            return
        one = self.source if server == "OPENDENTAL_SOURCE" else self.replica
        certified(authority, self.directory, self.directory / f"server-{one.server_id}")
        reload = "FLUSH SSL" if family() == "mariadb" else "ALTER INSTANCE RELOAD TLS"
        with closing(one.connect()) as root, unlogged(root) as cursor:
            cursor.execute(reload)

    def expire(self, server: str) -> None:
        """A running server's certificate expires."""
        if server == "POSTGRES_ANALYTICS" or family() == "mariadb":
            self.certify(server, self.authority, 2 * MONTH)
            return
        # MySQL takes no certificate that has expired: this one does so once it is taken.
        wait_until(lambda: self._certified_for_a_moment(server), 60, what="a certificate is taken")
        ends = datetime.now(UTC) + MOMENT
        wait_until(lambda: datetime.now(UTC) > ends, 60, what="the certificate expires")

    def _certified_for_a_moment(self, server: str) -> bool:
        try:
            self.certify(server, self.authority, MONTH - MOMENT)
        except pymysql.OperationalError as error:
            if error.args[0] != INVALID_CERTIFICATE:
                raise
            return False  # the moment was over before the server looked
        return True


def certified(authority: Authority, directory: Path, place: Path) -> None:
    """Put a server's certificate in its place; MySQL wants the authority behind it, too."""
    shutil.copy(authority.file, place / "ca.pem")
    for file in ("server.pem", "server.key"):
        shutil.copy(directory / file, place / file)


def into_postgres(directory: Path, server: PostgreSQLServer) -> Path:
    data = server.data.resolve()
    owner = data.stat()
    for file in ("server.pem", "server.key"):
        shutil.copy(directory / file, data / file)
        os.chown(data / file, owner.st_uid, owner.st_gid)
        (data / file).chmod(0o600)
    return data


def by_tls_alone(directory: Path, server: PostgreSQLServer) -> None:
    data = into_postgres(directory, server)
    (data / "pg_hba.conf").write_text(
        "host all postgres 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
    )
    with closing(server.connect()) as root:
        for name, value in (
            ("ssl_cert_file", "server.pem"),
            ("ssl_key_file", "server.key"),
            ("ssl", "on"),
        ):
            root.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        root.execute("SELECT pg_reload_conf()")


@pytest.fixture
def doors(tmp_path: Path, new_mariadb: NewMariaDB, new_postgresql: NewPostgreSQL) -> Doors:
    authority = make_authority(tmp_path / "trusted")
    issue(authority, HERE, tmp_path)
    made = []
    for number, base in enumerate((SOURCE_OPTIONS, REPLICA_OPTIONS), start=1):
        place = tmp_path / f"server-{number}"
        place.mkdir()
        certified(authority, tmp_path, place)
        files = {
            "ssl_ca": str(place / "ca.pem"),
            "ssl_cert": str(place / "server.pem"),
            "ssl_key": str(place / "server.key"),
        }
        made.append(new_mariadb({**base, **files}, server_id=number))
    analytics = new_postgresql()
    by_tls_alone(tmp_path, analytics)
    return Doors(tmp_path, made[0], made[1], analytics, authority)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a verb of either program in this process."""
    for name in known_variables():
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty.env").touch()

    def run(environment: dict[str, str], *words: str, program: Any = replicator_app) -> Result:
        arguments = [*words, "--env-file", str(tmp_path / "empty.env")]
        return CliRunner().invoke(program, arguments, env=environment)

    return run


def test_everything_works_where_nothing_but_verified_tls_is_let_in(
    doors: Doors, call: Callable[..., Result]
) -> None:
    with closing(doors.source.connect()) as root:
        root.cursor().execute("CREATE DATABASE opendental")
        root.cursor().execute("CREATE TABLE opendental.t (a INT PRIMARY KEY)")
        root.cursor().execute("INSERT INTO opendental.t VALUES (1)")
    inherited = {k: v for k, v in os.environ.items() if k not in known_variables()}
    log = (doors.directory / "daemons.log").open("ab")
    daemons = [
        subprocess.Popen(
            [sys.executable, "-m", f"{program}.cli", "run"],
            env={**inherited, **doors.environment},
            cwd=doors.directory,
            stdout=log,
            stderr=log,
        )
        for program in ("replicator", "loader")
    ]
    try:
        wait_until(lambda: rows(doors) == 1, 60, what="the first copy in raw")
        with closing(doors.source.connect()) as root:
            root.cursor().execute("INSERT INTO opendental.t VALUES (2)")
        wait_until(lambda: rows(doors) == 2, 60, what="a change in raw")
        for verb in ("status", "wait", "verify", "check"):
            result = call(doors.environment, verb)
            assert result.exit_code == 0, result.output
        assert "source: TLS: in use (verify_identity)" in result.output
        assert "replica: TLS: in use (verify_identity)" in result.output
        assert "analytics: TLS: in use (verify-full)" in result.output
    finally:
        for daemon in daemons:
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(30)
        log.close()


def rows(doors: Doors) -> int | None:
    with doors.analytics.connect(database="opendental_analytics") as root:
        if not root.execute("SELECT to_regclass('raw.t')").fetchone()[0]:
            return None
        return root.execute("SELECT count(*) FROM raw.t").fetchone()[0]


def test_whoever_cannot_be_verified_is_refused_with_one_clear_error(
    doors: Doors, call: Callable[..., Result]
) -> None:
    stranger = make_authority(doors.directory / "stranger")
    with closing(doors.source.connect()) as root:
        root.cursor().execute("CREATE DATABASE opendental")
    programs = {
        "OPENDENTAL_SOURCE": replicator_app,
        "MYSQL_REPLICATION": loader_app,
        "POSTGRES_ANALYTICS": loader_app,
    }

    def refused(server: str, reason: str, **changes: str) -> None:
        environment = {**doors.environment, **{f"{server}_{k}": v for k, v in changes.items()}}
        result = call(environment, "run", program=programs[server])
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
        assert PASSWORD not in result.output
        told = [line for line in result.output.splitlines() if reason in line]
        assert told, result.output
        assert f"{server}_SSL_MODE" in result.output

    for server in programs:
        refused(server, "certificate", SSL_CA=str(stranger.file))
        refused(server, "localhost", HOST="localhost")
        doors.expire(server)
        libpq = server == "POSTGRES_ANALYTICS"  # which does not say what is wrong with it
        refused(server, "certificate" if libpq else "expired")
        doors.certify(server, stranger)
        refused(server, "certificate")
        doors.certify(server, doors.authority)


def test_a_server_without_tls_is_refused_before_it_is_sent_a_password(
    tmp_path: Path,
    new_mariadb: NewMariaDB,
    environment: dict[str, str],
    call: Callable[..., Result],
) -> None:
    without = {"skip_ssl": None} if family() == "mariadb" else {"tls_version": ""}
    server = new_mariadb({**SOURCE_OPTIONS, **without})
    for prefix, program in (
        ("OPENDENTAL_SOURCE", replicator_app),
        ("MYSQL_REPLICATION", loader_app),
    ):
        changed = {
            **environment,
            f"{prefix}_PORT": str(server.port),
            f"{prefix}_SSL_MODE": "required",
        }
        result = call(changed, "run", program=program)
        assert result.exit_code == 2
        assert "TLS failed" in result.output
        assert "Access denied" not in result.output  # nobody of that name is there
    changed = {**environment, "POSTGRES_ANALYTICS_SSL_MODE": "require"}
    result = call(changed, "run", program=loader_app)
    assert result.exit_code == 2
    assert "SSL" in result.output

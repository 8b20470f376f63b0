"""The installation on a machine with a live systemd, from `systemd/install` to a halt.

What is told over a socket (`test_notify`) is one side; here the manager itself acts on it, under
the units as they are installed: accounts, credentials, sandboxing, restarts. Only how long it
waits before it restarts is made shorter. The replica's server is the unit's own, too.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.postgres import PostgreSQLServer
from replicator.sandbox.processes import free_port
from replicator.sandbox.waiting import wait_until
from tests.fix_servers import NewPostgreSQL
from tests.integration.service.machine import INSTALL, PREFIX, Machine, booted, unavailable

SETTINGS = "/etc/opendental-replicator"
SOCKET = "/run/mysqld-replica/mysqld.sock"
LEGS = ("replicator", "loader")
PASSWORDS = ("opendental_source_password", "mysql_replication_password",
             "postgres_analytics_password")  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Skipped where none can be had, before anything of ours is in it."""
    reason = unavailable()
    with ExitStack() as stack:
        try:
            machine = None if reason else stack.enter_context(booted(tmp_path))
        except (AssertionError, OSError) as error:
            machine, reason = None, f"it does not boot: {str(error)[-300:]}"
        if machine is None:
            pytest.skip(f"no machine with a systemd of its own can be had here: {reason}")
        machine.install()
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        tried = machine.attempt(*nobody, f"{PREFIX}/bin/replicator", "--help")
        if tried.returncode != 0:  # a Python that lies where services cannot see it
            pytest.skip(f"this Python does not run in a machine of its own: {tried.stderr[-300:]}")
        yield machine


class Installed:
    """The machine, its source and its PostgreSQL, set up as docs/operations.md says."""

    def __init__(
        self, machine: Machine, source: MySQLDatabase, analytics: PostgreSQLServer
    ) -> None:
        self.machine = machine
        self.source = source
        self.analytics = analytics
        self._settings()
        self._replica()
        for leg in LEGS:
            machine.write(
                f"/etc/systemd/system/{leg}.service.d/sooner.conf", "[Service]\nRestartSec=100ms\n"
            )
        machine.run("systemctl", "daemon-reload")

    def _settings(self) -> None:
        port = free_port()
        given = {
            "OPENDENTAL_SOURCE_HOST": "127.0.0.1",
            "OPENDENTAL_SOURCE_PORT": str(self.source.server.port),
            "OPENDENTAL_SOURCE_DB": self.source.name,
            "OPENDENTAL_SOURCE_USER": self.source.user,
            "MYSQL_REPLICATION_HOST": "127.0.0.1",
            "MYSQL_REPLICATION_PORT": str(port),
            "POSTGRES_ANALYTICS_HOST": "127.0.0.1",
            "POSTGRES_ANALYTICS_PORT": str(self.analytics.port),
            "REPLICATOR_METRICS_PORT": str(free_port()),
            "LOADER_METRICS_PORT": str(free_port()),
            "REPLICATOR_HEARTBEAT_SECONDS": "0.5",
            "LOADER_HEARTBEAT_SECONDS": "0.5",
        }
        machine, file = self.machine, f"{SETTINGS}/environment"
        installed = machine.path(file).read_text().splitlines()
        kept = [line for line in installed if line.partition("=")[0] not in given]
        machine.write(file, "\n".join([*kept, *(f"{n}={v}" for n, v in given.items()), ""]))
        for name in PASSWORDS:
            ours = self.source.password if "source" in name else f"chosen-for-{name}"
            machine.path(f"{SETTINGS}/credentials/{name}").write_text(ours + "\n")
        cnf = machine.path(f"{SETTINGS}/replica.cnf")
        lines = (
            cnf.read_text().replace("= 3305", f"= {port}").replace("= 1G\ninnodb", "= 64M\ninnodb")
        )
        cnf.write_text(lines.replace("= 512M", "= 16M"))

    def _replica(self) -> None:
        """Its server, by the unit; then what `replicator init` makes on it and in PostgreSQL."""
        self.machine.run("useradd", "--system", "--no-create-home", "mysql")  # of its package
        self.machine.run("systemctl", "start", "mariadb@replica")
        root = (self.analytics.directory / "postgres.password").read_text()
        self.verb("init", "--replica-socket", SOCKET, POSTGRES_ANALYTICS_ADMIN_PASSWORD=root)

    def verb(self, *words: str, **variables: str) -> str:
        """As root, with the daemons' settings and passwords."""
        files = {f"{name.upper()}_FILE": f"{SETTINGS}/credentials/{name}" for name in PASSWORDS}
        return self.machine.run(
            f"{PREFIX}/bin/replicator", *words, "--env-file", f"{SETTINGS}/environment",
            **files, **variables,
        )  # fmt: skip

    def on_replica(self, statement: str) -> None:
        self.machine.run(
            "mariadb", f"--socket={SOCKET}", "opendental_replication", f"--execute={statement}"
        )

    def raw(self, query: str) -> list[tuple[object, ...]]:
        with self.analytics.connect(database="opendental_analytics") as root:
            return root.execute(query.encode()).fetchall()

    def pid(self, leg: str) -> int:
        return int(self.machine.shows(leg, "MainPID"))

    def kill(self, leg: str, number: signal.Signals) -> None:
        self.machine.run("systemctl", "kill", "--kill-whom=main", f"--signal={number.name}", leg)

    def stands(self, leg: str) -> tuple[str, str]:
        shows = self.machine.shows
        return shows(leg, "ActiveState"), shows(leg, "NRestarts")

    def waits_for(self, leg: str, *wanted: str) -> None:
        wait_until(
            lambda: self.stands(leg) == wanted,
            60,
            what=lambda: f"{leg} {wanted}: {self.stands(leg)}\n{self.machine.journal(leg)}",
        )


@pytest.fixture
def installed(
    machine: Machine, source_db: MySQLDatabase, new_postgresql: NewPostgreSQL
) -> Installed:
    source_db.execute("CREATE TABLE patient (PatNum int PRIMARY KEY, LName varchar(20))")
    source_db.execute("INSERT INTO patient VALUES (1, 'Synthetic-1')")
    source_db.execute("CREATE TABLE appointment (AptNum int PRIMARY KEY)")
    return Installed(machine, source_db, new_postgresql())


@pytest.mark.only_on("mariadb", reason="the replica's unit is MariaDB's")
@pytest.mark.timeout(240)
def test_systemd_starts_reloads_restarts_and_leaves_down_what_is_installed(
    installed: Installed,
) -> None:
    _start(installed)
    _reload(installed)
    _restart_what_was_killed(installed)
    _restart_what_hangs(installed)
    _leave_a_halt_down(installed)
    _stop(installed)


def _start(installed: Installed) -> None:
    machine = installed.machine
    machine.run("systemctl", "enable", *LEGS)
    machine.run("systemctl", "start", "opendental-replicator.target")
    installed.verb("wait", "--timeout", "60")
    assert installed.raw('SELECT "PatNum", "LName" FROM raw.patient') == [(1, "Synthetic-1")]
    for leg in LEGS:
        installed.waits_for(leg, "active", "0")
        wait_until(
            lambda leg=leg: machine.shows(leg, "StatusText").startswith("at "),
            30,
            what=lambda leg=leg: f"a status: {machine.shows(leg, 'StatusText')}",
        )
        assert machine.shows(leg, "User") == "opendental-replicator"
        held = machine.path(f"/proc/{installed.pid(leg)}/environ")
        assert "chosen-for" not in held.read_text()
    assert "chosen-for" not in machine.journal(*LEGS)


def _reload(installed: Installed) -> None:
    machine = installed.machine
    before = {leg: installed.pid(leg) for leg in LEGS}
    machine.write(f"{SETTINGS}/tables.toml", '[tables]\nexclude = ["appointment"]\n')
    machine.run("systemctl", "reload", *LEGS)
    wait_until(lambda: "table_excluded" in machine.journal("replicator"), 30, what="the exclusion")
    for leg in LEGS:
        installed.waits_for(leg, "active", "0")
    assert {leg: installed.pid(leg) for leg in LEGS} == before


def _restart_what_was_killed(installed: Installed) -> None:
    for leg in LEGS:
        installed.kill(leg, signal.SIGKILL)
    for leg in LEGS:
        installed.waits_for(leg, "active", "1")
    installed.source.execute("INSERT INTO patient VALUES (2, 'Synthetic-2')")
    installed.verb("wait", "--timeout", "60")
    assert installed.raw("SELECT count(*) FROM raw.patient") == [(2,)]


def _restart_what_hangs(installed: Installed) -> None:
    """A process that is stopped gives no sign of life: the watchdog ends it."""
    machine = installed.machine
    place = "/run/systemd/system/loader.service.d/impatient.conf"
    machine.write(place, "[Service]\nWatchdogSec=5\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "loader")
    installed.waits_for("loader", "active", "0")
    hung = installed.pid("loader")
    installed.kill("loader", signal.SIGSTOP)
    wait_until(
        lambda: installed.pid("loader") not in (0, hung),
        60,
        what=lambda: f"another loader: {machine.journal('loader')}",
    )
    assert "Watchdog timeout" in machine.journal("loader")
    machine.path(place).unlink()
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "loader")


def _leave_a_halt_down(installed: Installed) -> None:
    """Somebody wrote on the replica: leg 1 halts, and stays down until that is mended."""
    machine = installed.machine
    restarts = machine.shows("replicator", "NRestarts")
    installed.on_replica("SET SESSION sql_log_bin = 0; DELETE FROM patient WHERE PatNum = 1")
    installed.source.execute("UPDATE patient SET LName = 'Synthetic-3' WHERE PatNum = 1")
    installed.waits_for("replicator", "failed", restarts)
    assert machine.shows("replicator", "ExecMainStatus") == "2"
    assert "replicator resync patient" in machine.journal("replicator")
    installed.waits_for("loader", "active", "0")
    installed.on_replica(
        "SET SESSION sql_log_bin = 0; INSERT INTO patient VALUES (1, 'Synthetic-1')"
    )
    machine.run("systemctl", "start", "replicator")
    installed.verb("wait", "--timeout", "60")
    names = installed.raw('SELECT "LName" FROM raw.patient WHERE "PatNum" = 1')
    assert names == [("Synthetic-3",)]


def _stop(installed: Installed) -> None:
    machine = installed.machine
    machine.run("systemctl", "stop", "opendental-replicator.target")
    for leg in LEGS:  # the target's end does not wait for theirs
        wait_until(
            lambda leg=leg: machine.shows(leg, "ActiveState") == "inactive",
            60,
            what=lambda leg=leg: f"{leg} to end: {machine.shows(leg, 'ActiveState')}",
        )
        assert machine.shows(leg, "ExecMainStatus") == "0"
    machine.run("systemctl", "stop", "mariadb@replica")
    machine.run(INSTALL, "--remove")
    assert machine.path(f"{SETTINGS}/environment").exists()
    assert not machine.path("/etc/systemd/system/replicator.service").exists()

"""Both daemons under a service manager, who listens on a real socket."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.sandbox.waiting import wait_until
from tests.fix_pipeline import Daemon, NewPipeline, Pipeline


class Manager:
    """What a daemon has told so far."""

    def __init__(self, address: Path) -> None:
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listening.bind(str(address))
        self._listening.setblocking(False)
        self.variables = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "2000000"}
        self.said: list[str] = []

    def close(self) -> None:
        self._listening.close()

    def hear(self) -> list[str]:
        try:
            while True:
                self.said.append(self._listening.recv(4096).decode())
        except BlockingIOError:
            return self.said

    def wait_for(self, pattern: str, since: int = 0) -> None:
        wait_until(
            lambda: any(re.search(pattern, word) for word in self.hear()[since:]),
            60,
            what=lambda: f"{pattern} among {self.said[-20:]}",
        )


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def _daemons(pipe: Pipeline) -> tuple[Daemon, Daemon]:
    return pipe.replicator, pipe.loader


@pytest.fixture
def pipe(pipeline: NewPipeline, tmp_path: Path) -> Pipeline:
    rules = tmp_path / "tables.toml"
    rules.write_text("")
    pipe = pipeline("InnoDB", REPLICATOR_TABLES=str(rules))
    source = pipe.sandbox.source_db
    for name in ("patient", "appointment"):
        source.execute(f"CREATE TABLE {name} (id int PRIMARY KEY)")
        source.execute(f"INSERT INTO {name} VALUES (1)")
    return pipe


def test_a_daemon_tells_where_it_stands_rereads_its_tables_and_says_good_bye(
    pipe: Pipeline, manager: Manager, tmp_path: Path
) -> None:
    for daemon, word in zip(_daemons(pipe), ("s behind", "source-bin"), strict=True):
        manager.said.clear()
        daemon.start(**manager.variables)
        manager.wait_for("^READY=1$")
        manager.wait_for("^WATCHDOG=1$")
        manager.wait_for(f"^STATUS=at .*{word}")
    pipe.catch_up()
    (tmp_path / "tables.toml").write_text('[tables]\nexclude = ["appointment"]\n')
    for daemon in _daemons(pipe):
        before = len(manager.hear())
        daemon.signal(signal.SIGHUP)
        manager.wait_for("^RELOADING=1\nMONOTONIC_USEC=", before)
        manager.wait_for("^READY=1$", before)
    wait_until(lambda: "table_excluded" in pipe.replicator.output, 30, what="the exclusion")
    (tmp_path / "tables.toml").write_text("[tables]\nexclude = 7\n")
    for daemon in _daemons(pipe):
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "reload_refused" in daemon.output, 30, what="the refusal")  # noqa: B023
    pipe.sandbox.source_db.execute("INSERT INTO patient VALUES (2)")
    pipe.sandbox.source_db.execute("INSERT INTO appointment VALUES (2)")
    wait_until(
        lambda: pipe.sandbox.analytics_db.query("SELECT count(*) FROM raw.patient") == [(2,)],
        30, what="the row in raw",
    )  # fmt: skip
    for daemon in _daemons(pipe):
        before = len(manager.hear())
        assert daemon.stop() == 0
        manager.wait_for("^STOPPING=1$", before)


def test_servers_that_are_not_up_yet_are_waited_for_at_a_machines_start(
    pipe: Pipeline, manager: Manager
) -> None:
    for server in pipe.sandbox.servers:
        server.stop()
    for daemon in _daemons(pipe):
        before = len(manager.hear())
        daemon.start(**manager.variables)
        manager.wait_for("^READY=1$", before)
        manager.wait_for("^STATUS=waiting, attempt", before)
    pipe.sandbox.source_db.close()
    pipe.sandbox.replica_db.close()
    for server in pipe.sandbox.servers:
        server.start()
    pipe.catch_up()
    assert pipe.differences() == {}

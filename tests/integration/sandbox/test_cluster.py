"""The sandbox as a whole: state across processes, engines, settings, removal."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from replicator.sandbox.cluster import Sandbox
from replicator.sandbox.processes import ServerFailed
from replicator.sandbox.reaper import started_at
from tests.fix_servers import Pair


@pytest.fixture
def sandbox(server_directory: Path, servers: Pair) -> Iterator[Sandbox]:
    sandbox = Sandbox(server_directory / "sandbox", mysql=servers.mysql, postgres=servers.postgres)
    yield sandbox
    sandbox.remove()


def test_a_detached_sandbox_survives_its_process_and_is_taken_down_by_another(
    sandbox: Sandbox,
) -> None:
    program = """
import sys
from replicator.sandbox.cluster import Sandbox
Sandbox(sys.argv[1]).up("MyISAM", detach=True)
"""
    subprocess.run(
        [sys.executable, "-c", program, str(sandbox.directory)],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    found = Sandbox(sandbox.directory)
    assert found.is_up
    assert found.engine == "MyISAM"
    pids = [server.pid for server in found.servers]
    found.up()  # nothing to do
    assert [server.pid for server in found.servers] == pids
    with closing(found.source_db.connect_as_account()) as account, account.cursor() as cursor:
        cursor.execute("SELECT @@default_storage_engine, @@log_bin")
        assert cursor.fetchone() == ("MyISAM", 1)
    found.down()
    assert not any(pid and started_at(pid) for pid in pids)
    assert not found.is_up
    found.remove()
    assert not found.directory.exists()


def test_a_sandbox_that_went_down_comes_back_with_its_ports_accounts_and_data(
    sandbox: Sandbox,
) -> None:
    sandbox.up()
    before = sandbox.env()
    sandbox.source_db.execute("CREATE TABLE kept (id int)")
    with closing(sandbox.source_db.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO kept VALUES (7)")
    sandbox.down()
    again = Sandbox(sandbox.directory)
    again.up()
    assert again.env() == before
    with closing(again.source_db.connect_as_account()) as account, account.cursor() as cursor:
        cursor.execute("SELECT id FROM kept")
        assert cursor.fetchall() == ((7,),)
    with closing(again.replica.connect("replication_user", password=_password(again))) as replica:
        replica.query("CREATE DATABASE opendental_replication")
    assert again.analytics_db.query("SELECT current_user, current_database()") == [
        ("analytics_user", "opendental_analytics")
    ]
    again.down()


def test_settings_come_from_the_sandbox_and_secrets_stay_out_of_their_repr(
    sandbox: Sandbox,
) -> None:
    sandbox.up()
    settings = sandbox.settings()
    assert settings.source.port == sandbox.source.port
    assert settings.replication.port == sandbox.replica.port
    assert settings.analytics.port == sandbox.analytics.port
    assert (
        settings.source.password.get_secret_value() == sandbox.env()["OPENDENTAL_SOURCE_PASSWORD"]
    )
    assert sandbox.env()["OPENDENTAL_SOURCE_PASSWORD"] not in repr(settings)
    mode = stat.S_IMODE((sandbox.directory / "sandbox.json").stat().st_mode)
    assert mode == 0o600


def test_a_sandbox_keeps_the_engine_that_it_was_made_with(sandbox: Sandbox) -> None:
    sandbox.up("MyISAM")
    with pytest.raises(ServerFailed, match="made with MyISAM"):
        sandbox.up("InnoDB")


def test_a_directory_without_a_sandbox_says_so(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="no sandbox"):
        Sandbox(tmp_path).env()


def _password(sandbox: Sandbox) -> str:
    return sandbox.env()["MYSQL_REPLICATION_PASSWORD"]

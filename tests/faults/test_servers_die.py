"""Servers die, refuse, fill up and lock: both daemons wait, and go on by themselves."""

from __future__ import annotations

import random
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from replicator.sandbox.processes import ServerFailed, ServerProcess
from replicator.sandbox.reaper import Reaper
from replicator.sandbox.servers import BinlogServer
from replicator.sandbox.waiting import wait_until
from tests.faults.conftest import GetTrial
from tests.faults.trial import TIMES, Trial, wait_for_word
from tests.numbers import numbers

DURABLE = True
"""What a server acknowledged is there when it comes back."""


def _server(the: Trial, name: str) -> ServerProcess:
    servers = dict(zip(_WHO, the.pipe.sandbox.servers, strict=True))
    return servers[name]


def _mysql(the: Trial, name: str) -> BinlogServer:
    server = _server(the, name)
    assert isinstance(server, BinlogServer)
    return server


_WHO = {"source": "replicator", "replica": "replicator", "analytics": "loader"}
"""Whose log tells of it."""


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["source", "replica", "analytics"])
@pytest.mark.parametrize("seed", range(TIMES))
def test_a_server_that_dies_under_load_is_waited_for(trial: GetTrial, name: str, seed: int) -> None:
    the = trial("InnoDB")
    the.asked.set()
    dice = random.Random(f"{name}/{seed}")
    (daemon,) = (d for d in the.daemons if d.program == _WHO[name])
    with the.unaided():
        for _ in range(2):
            the.wait_for_work(dice.randint(1, 60))
            said = len(daemon.output)
            _server(the, name).kill()
            wait_for_word(daemon, "retrying", said)
            the.pipe.sandbox.source_db.close()
            the.pipe.sandbox.replica_db.close()
            _server(the, name).start()
        the.settle(150)
    the.verify()


@pytest.mark.timeout(300)
def test_all_three_servers_may_die_at_once(trial: GetTrial) -> None:
    the = trial("InnoDB")
    with the.unaided():
        said = [len(daemon.output) for daemon in the.daemons]
        for server in the.pipe.sandbox.servers:
            server.kill()
        for daemon, before in zip(the.daemons, said, strict=True):
            wait_for_word(daemon, "retrying", before)
        the.pipe.sandbox.source_db.close()
        the.pipe.sandbox.replica_db.close()
        for server in the.pipe.sandbox.servers:
            server.start()
        the.settle(150)


# --- PostgreSQL refuses ------------------------------------------------------------------


@contextmanager
def _setting(the: Trial, name: str, value: str) -> Iterator[None]:
    """A setting of the analytics server, for everybody."""
    with the.pipe.sandbox.analytics.connect(autocommit=True) as root:
        root.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
        root.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            root.execute("SET default_transaction_read_only = off")
            root.execute(f"ALTER SYSTEM RESET {name}".encode())
            root.execute("SELECT pg_reload_conf()")


@pytest.mark.timeout(300)
def test_a_read_only_postgresql_is_waited_for(trial: GetTrial) -> None:
    the = trial("InnoDB")
    with the.unaided():
        said = len(the.pipe.loader.output)
        with _setting(the, "default_transaction_read_only", "on"):
            wait_for_word(the.pipe.loader, "25006", said)
        the.settle()


@pytest.mark.timeout(300)
def test_a_postgresql_without_a_free_connection_is_waited_for(trial: GetTrial) -> None:
    the = trial("InnoDB")
    with the.unaided(), ExitStack() as taken:
        said = len(the.pipe.loader.output)
        root = taken.enter_context(the.pipe.sandbox.analytics.connect(autocommit=True))
        with suppress(psycopg.OperationalError):
            while True:
                taken.enter_context(the.pipe.sandbox.analytics_db.connect())
        _end_connections(root, "loader", "loader reload")
        with suppress(psycopg.OperationalError):
            while True:
                taken.enter_context(the.pipe.sandbox.analytics_db.connect())
        wait_for_word(the.pipe.loader, "connection slots", said)
        taken.close()
        the.settle()


def _end_connections(root: psycopg.Connection[Any], *names: str) -> int:
    """As an administrator does who ends what he does not know; how many there were."""
    return root.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ANY(%s)",
        [list(names)],
    ).rowcount


@pytest.mark.timeout(300)
def test_the_loaders_connections_may_be_ended_at_any_time(trial: GetTrial) -> None:
    the = trial("InnoDB")
    the.asked.set()
    with the.unaided(), the.pipe.sandbox.analytics.connect(autocommit=True) as root:
        for _ in range(4):
            said = len(the.pipe.loader.output)
            wait_until(lambda: _end_connections(root, "loader"), 60, what="a connection")
            wait_for_word(the.pipe.loader, "retrying", said)
            the.wait_for_work(20)
        the.settle()


# --- full disks --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full_disk() -> Path:
    """The library that makes a server's disk full; where every account may read it."""
    directory = Path(tempfile.mkdtemp(prefix="opendental-full-disk-"))
    directory.chmod(0o755)
    library = directory / "full_disk.so"
    source = Path(__file__).with_name("full_disk.c")
    command = ["gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    library.chmod(0o755)
    Reaper.ours().remove(directory)
    return library


@contextmanager
def _on_a_disk(the: Trial, name: str, library: Path, part: str) -> Iterator[Path]:
    """While that file exists, files of the server with `part` in their path cannot grow."""
    server = _server(the, name)
    flag = library.with_name(f"{name} is full at {part.replace('/', '-')}")
    server.stop()
    server.variables = {
        "LD_PRELOAD": str(library), "FULL_DISK_FLAG": str(flag), "FULL_DISK_PATH": part
    }  # fmt: skip
    server.start()
    the.pipe.sandbox.replica_db.close()
    the.settle()
    try:
        yield flag
    finally:
        flag.unlink(missing_ok=True)
        server.variables = {}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "part"), [("analytics", "/data/base/"), ("replica", "/opendental_replication/")]
)
def test_a_full_disk_is_waited_for(trial: GetTrial, full_disk: Path, name: str, part: str) -> None:
    the = trial("InnoDB")
    (daemon,) = (d for d in the.daemons if d.program == _WHO[name])
    with _on_a_disk(the, name, full_disk, part) as flag, the.unaided():
        said = len(daemon.output)
        flag.touch()
        _fill(the)
        wait_for_word(daemon, "retrying", said)
        flag.unlink()
        the.settle(150)


@pytest.mark.timeout(400)
def test_a_full_disk_of_postgresqls_own_log_is_waited_for(trial: GetTrial, full_disk: Path) -> None:
    """PostgreSQL ends at once (PANIC), and its recovery too; whoever minds it starts it again."""
    the = trial("InnoDB")
    server = _server(the, "analytics")
    with _on_a_disk(the, "analytics", full_disk, "/data/pg_wal/") as flag, the.unaided():
        said, told = len(the.pipe.loader.output), server.log_file.stat().st_size
        flag.touch()
        wait_until(lambda: _panics(the, told), 60, what="PostgreSQL to have no room for its log")
        wait_for_word(the.pipe.loader, "retrying", said)
        for _ in range(2):
            if not server.running:
                with suppress(ServerFailed):
                    server.start()
        the.wait_for_work(20)
        flag.unlink()
        wait_until(lambda: not server.running or server.answers(), 60, what="an end, or a recovery")
        if not server.running:
            server.start()
        the.settle(150)


def _panics(the: Trial, told: int) -> bool:
    """Begin one file of the log after the other; has there been no room, since `told`?"""
    with suppress(psycopg.Error), the.pipe.sandbox.analytics.connect() as root:
        root.execute("CREATE TEMP TABLE filler (n INT)")  # without a change no file is ended
        root.execute("SELECT pg_switch_wal()")
    return b"PANIC" in _server(the, "analytics").log_file.read_bytes()[told:]


@pytest.mark.timeout(400)
def test_a_full_disk_of_a_binlog_is_waited_for(trial: GetTrial, full_disk: Path) -> None:
    """The server itself waits, and looks once a minute whether there is room."""
    the = trial("InnoDB")
    server = _server(the, "replica")
    with _on_a_disk(the, "replica", full_disk, "-bin.0") as flag, the.unaided():
        told = server.log_file.stat().st_size
        flag.touch()
        wait_until(
            lambda: b"isk is full" in server.log_file.read_bytes()[told:], 60, what="a full disk"
        )
        the.wait_for_work(100, 120)
        flag.unlink()
        the.settle(200)


def _fill(the: Trial) -> None:
    """More than there is room for in any file."""
    with closing(the.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS filler")
        cursor.execute("CREATE TABLE filler (id INT PRIMARY KEY, Body TEXT)")
        cursor.execute(
            f"INSERT INTO filler SELECT seq, REPEAT('synthetic ', 800) FROM {numbers(1, 3000)}"
        )


# --- analysts ----------------------------------------------------------------------------


@contextmanager
def _analyst(work: Callable[[random.Random], None]) -> Iterator[list[str]]:
    """Somebody who queries `raw` all the time; the errors that he saw, by their class."""
    stop, seen = threading.Event(), list[str]()

    def go_on() -> None:
        dice = random.Random("analyst")
        while not stop.is_set():
            try:
                work(dice)
            except psycopg.Error as error:
                seen.append(type(error).__name__)

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(timeout=60)


@pytest.mark.timeout(400)
def test_locks_and_deadlocks_of_analysts_hold_the_loader_up_and_no_more(trial: GetTrial) -> None:
    the = trial("InnoDB")
    the.asked.set()

    def work(dice: random.Random) -> None:
        """What an analyst's own program may do to rows and tables that the loader writes."""
        with the.raw() as connection, connection.transaction(force_rollback=True):
            connection.execute("SET LOCAL lock_timeout = '3s'")
            tables = ["account", "visit", "note", "tally"]
            dice.shuffle(tables)
            for table in tables:
                kind = dice.choice(["SHARE ROW EXCLUSIVE", "ACCESS SHARE", "ACCESS EXCLUSIVE"])
                connection.execute(f"LOCK TABLE raw.{table} IN {kind} MODE".encode())
                connection.execute("SELECT pg_sleep(0.02)")

    with the.unaided():
        with _analyst(work) as seen:
            the.wait_for_work(300, 120)
        the.settle(150)
    assert set(seen) <= {"DeadlockDetected", "LockNotAvailable", "UndefinedTable"}


@pytest.mark.timeout(300)
def test_a_table_that_is_locked_for_long_is_waited_for(trial: GetTrial) -> None:
    the = trial("InnoDB")
    with the.unaided():
        with the.raw() as connection, connection.transaction():
            connection.execute("LOCK TABLE raw.visit IN ACCESS EXCLUSIVE MODE")
            the.wait_for_work(200, 120)
        the.settle()


# --- MySQL refuses -----------------------------------------------------------------------


def _end_sessions(cursor: Any, command: str) -> int:
    """KILL the daemons' sessions that are at this kind of command; how many there were."""
    ended = 0
    cursor.execute("SHOW PROCESSLIST")
    for row in cursor.fetchall():
        if row[1] in ("readonly_user", "replication_user") and command in row[4]:
            with suppress(pymysql.MySQLError):
                cursor.execute(f"KILL {int(row[0])}")
                ended += 1
    return ended


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["source", "replica"])
def test_the_dump_thread_may_be_killed_at_any_time(trial: GetTrial, name: str) -> None:
    _kill_again_and_again(trial("InnoDB"), name, "Binlog Dump")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["source", "replica"])
def test_every_session_may_be_killed_at_any_time(trial: GetTrial, name: str) -> None:
    _kill_again_and_again(trial("InnoDB"), name, "")


def _kill_again_and_again(the: Trial, name: str, command: str) -> None:
    the.asked.set()
    with the.unaided(), closing(_mysql(the, name).connect()) as root, root.cursor() as cursor:
        for _ in range(4):
            wait_until(lambda: _end_sessions(cursor, command), 60, what="a session")
            the.wait_for_work(20)
        the.settle()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["source", "replica"])
def test_a_server_without_a_free_connection_is_waited_for(trial: GetTrial, name: str) -> None:
    the = trial("InnoDB")
    with the.unaided(), closing(_mysql(the, name).connect()) as root, root.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.max_connections")
        (before,) = cursor.fetchone()
        said = len(the.pipe.replicator.output)
        cursor.execute("SET GLOBAL max_connections = 10")
        others: list[Any] = []
        try:
            with suppress(pymysql.MySQLError):
                while True:
                    others.append(_mysql(the, name).connect())
            _end_sessions(cursor, "")
            with suppress(pymysql.MySQLError):
                while True:
                    others.append(_mysql(the, name).connect())
            wait_for_word(the.pipe.replicator, "1040", said)
        finally:
            for other in others:
                other.close()
            cursor.execute(f"SET GLOBAL max_connections = {int(before)}")
        the.settle()

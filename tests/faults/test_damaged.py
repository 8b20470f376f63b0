"""Bytes that are damaged on their way: found, and sent again; or the daemon stops and says why.

A binlog has checksums (`test_networks`); what else servers answer has none, nor have the rows
that are sent to them. TLS has, for every byte in both directions. Without it, what is damaged
either makes sense, which nobody can see, or it does not: of the answers that the loader gets
from PostgreSQL the former would have to be a position, and those are chained.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from replicator.sandbox.cluster import Engine
from replicator.sandbox.servers import BinlogServer
from replicator.sandbox.waiting import wait_until
from tests.faults.conftest import Linked
from tests.faults.trial import TIMES, Trial, wait_for_word
from tests.fix_pipeline import Daemon
from tests.fix_proxy import Proxy
from tests.integration.config.test_tls import issue, make_authority

GetLinked = Callable[[Engine], Linked]
LINKS = ("source", "replica", "stream", "analytics")
HALTED = 2
PIECES = 4
"""Bytes damaged in a test."""


def _damage(daemon: Daemon, link: Proxy, after: int, *, answers: bool = True) -> None:
    """Damage a byte, and wait until that is done, or nobody is there any more."""
    before = link.corrupted
    link.corrupt(after, answers=answers)
    wait_until(
        lambda: link.corrupted > before or not daemon.running,
        90,
        what=lambda: f"a damaged byte:\n{daemon.output[-3000:]}",
    )


def _mind(the: Trial, daemon: Daemon, link: Proxy) -> list[str]:
    """Start a daemon that halted, as its operator does; what it said. It ends in no other way."""
    if daemon.running:
        return []
    link.pass_on()
    assert daemon.wait(0) == HALTED, daemon.output[-3000:]
    last = [line for line in daemon.output.splitlines()[-3:] if not line.startswith("{")]
    the.restart_and_wait(daemon)
    return [" ".join(last)]


def _settle(the: Trial, daemon: Daemon, link: Proxy) -> list[str]:
    """Everything arrives; what was damaged last may make it halt before."""
    link.pass_on()
    try:
        the.settle(150)
    except AssertionError:
        if daemon.running:
            raise
        return _mind(the, daemon, link) + _settle(the, daemon, link)
    return []


# --- without TLS ----------------------------------------------------------------------------


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", range(TIMES))
@pytest.mark.parametrize("begin", [False, True], ids=["at work", "at its beginning"])
def test_a_damaged_answer_of_postgresql_is_asked_for_again_or_halts(
    linked: GetLinked, begin: bool, seed: int
) -> None:
    the, links = linked("InnoDB")
    the.asked.set()
    dice = random.Random(f"{begin}/{seed}")
    daemon, halts = the.pipe.loader, list[str]()
    for _ in range(2 * PIECES):
        the.wait_for_work(dice.randint(1, 10))
        if begin:
            links["analytics"].cut()
            links["analytics"].pass_on()
        _damage(daemon, links["analytics"], dice.randint(0, 20_000 if begin else 2000))
        halts += _mind(the, daemon, links["analytics"])
    halts += _settle(the, daemon, links["analytics"])
    print(f"halted {len(halts)} times: {halts}")


# --- with TLS -------------------------------------------------------------------------------


def _certify(the: Trial, directory: Path) -> None:
    """From now on all three servers speak TLS."""
    issue(make_authority(directory / "authority"), "127.0.0.1", directory)
    sandbox = the.pipe.sandbox
    for server in (sandbox.source, sandbox.replica):
        assert isinstance(server, BinlogServer)
        for option, file in (("ssl_cert", "server.pem"), ("ssl_key", "server.key")):
            shutil.copy(directory / file, server.directory / file)
            server.options[option] = str(server.directory / file)
        server.stop()
        server.start()
    data = sandbox.analytics.data.resolve()
    owner = data.stat()
    for file in ("server.pem", "server.key"):
        shutil.copy(directory / file, data / file)
        shutil.chown(data / file, owner.st_uid, owner.st_gid)
        (data / file).chmod(0o600)
    with closing(sandbox.analytics.connect()) as root:
        for name, value in (
            ("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key"), ("ssl", "on")
        ):  # fmt: skip
            root.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        root.execute("SELECT pg_reload_conf()")
    sandbox.source_db.close()
    sandbox.replica_db.close()
    the.settle(150)


@pytest.fixture
def certified(linked: GetLinked, trial: Callable[[Engine], Trial], tmp_path: Path) -> GetLinked:
    """As `linked`, by TLS alone."""

    def link(engine: Engine) -> Linked:
        the = trial(engine)
        if "OPENDENTAL_SOURCE_SSL_MODE" not in the.pipe.environment:
            _certify(the, tmp_path)
            the.pipe.environment |= {
                "OPENDENTAL_SOURCE_SSL_MODE": "required",
                "MYSQL_REPLICATION_SSL_MODE": "required",
                "POSTGRES_ANALYTICS_SSL_MODE": "require",
            }
            for daemon in the.daemons:
                the.restart_and_wait(daemon)
        return linked(engine)

    return link


@pytest.mark.timeout(400)
@pytest.mark.only_on("postgresql", reason="PostgreSQL 18's wheel is without TLS")
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("seed", range(TIMES))
def test_a_byte_that_is_damaged_within_tls_is_found(
    certified: GetLinked, link: str, seed: int
) -> None:
    """Answers, rows, what is copied and what is written: in both directions, in all work.

    What comes before TLS does, a MySQL server's greeting, may make the login fail, and so may
    TLS's own beginning.
    """
    the, links = certified("InnoDB")
    the.asked.set()
    dice = random.Random(f"{link}/{seed}")
    daemon, halts = the.daemon_at(link), list[str]()
    for piece in range(PIECES):
        the.wait_for_work(dice.randint(1, 30))
        _damage(daemon, links[link], dice.randint(0, 2000), answers=piece % 2 == 0)
        the.wait_for_work(10)
        halts += _mind(the, daemon, links[link])
    halts += _settle(the, daemon, links[link])
    assert '"retrying"' in daemon.output
    assert all("Access denied" in said or "SSL" in said or "TLS" in said for said in halts), halts


@pytest.mark.timeout(400)
@pytest.mark.only_on("postgresql", reason="PostgreSQL 18's wheel is without TLS")
def test_a_link_or_a_server_that_ends_within_tls_is_waited_for(certified: GetLinked) -> None:
    """What TLS says of a link that broke off is no matter of settings."""
    the, links = certified("InnoDB")
    the.asked.set()
    with the.unaided():
        for link in LINKS:
            said = len(the.daemon_at(link).output)
            links[link].cut()
            wait_for_word(the.daemon_at(link), '"retrying"', said)
            links[link].pass_on()
            the.wait_for_work(20)
        said = len(the.pipe.loader.output)
        the.pipe.sandbox.analytics.kill()
        wait_for_word(the.pipe.loader, '"retrying"', said)
        the.pipe.sandbox.analytics.start()
        the.settle(150)

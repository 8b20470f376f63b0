"""Legs that are lied to, in processes of their own (`tests/integration/lied_to.py`).

told       settings that lead to the session's servers, where a table has two rows
victims    .ending(told, leg) -> how that leg ended, as its process told it; or what it said
           when it died, which fails the test. Processes are kept from lie to lie.
liar       liar(LyingServer(port, lie)) -> the same, closed with the test
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from tests.fix_servers import PASSWORD
from tests.liar import Liar

ROOT = Path(__file__).parents[1]
MEMORY = 384 << 20
"""Of the process, whose answers may be of 24 MiB."""


class Victim:
    """The process that is lied to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "integration" / "lied_to.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=ROOT,
        )  # fmt: skip

    def ending(self, environ: dict[str, str], leg: str, seconds: float) -> dict[str, str]:
        process = self._process
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps({"environ": environ, "leg": leg, "seconds": seconds}) + "\n")
        process.stdin.flush()
        while line := process.stdout.readline():
            if line.startswith('{"error"'):
                found: dict[str, str] = json.loads(line)
                return found
        _, errors = process.communicate()
        raise AssertionError(f"it ended with {process.returncode}:\n{errors[-4000:]}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Victims:
    """One a leg, for as long as it lives."""

    def __init__(self) -> None:
        self._living: dict[str, Victim] = {}

    def ending(self, environ: dict[str, str], leg: str, seconds: float = 20.0) -> dict[str, str]:
        """How that leg ended; a process that ended with it makes the test fail."""
        if leg not in self._living:
            self._living[leg] = Victim()
        try:
            return self._living[leg].ending(environ, leg, seconds)
        except AssertionError:
            self._living.pop(leg).close()
            raise

    def close(self) -> None:
        for victim in self._living.values():
            victim.close()


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    made = Victims()
    yield made
    made.close()


@pytest.fixture
def told(
    source_db: MySQLDatabase, replica_db: MySQLDatabase, analytics_db: PostgresDatabase
) -> dict[str, str]:
    source_db.execute("CREATE TABLE patient (PatNum INT PRIMARY KEY, LName VARCHAR(100))")
    source_db.execute("INSERT INTO patient VALUES (1, 'synthetic'), (2, 'synthetic')")
    found = {"LOADER_HEARTBEAT_SECONDS": "1", "REPLICATOR_HEARTBEAT_SECONDS": "1"}
    for prefix, database in (
        ("OPENDENTAL_SOURCE", source_db),
        ("MYSQL_REPLICATION", replica_db),
        ("POSTGRES_ANALYTICS", analytics_db),
    ):
        found |= {
            f"{prefix}_HOST": "127.0.0.1",
            f"{prefix}_PORT": str(database.server.port),
            f"{prefix}_DB": database.name,
            f"{prefix}_USER": database.user,
            f"{prefix}_PASSWORD": PASSWORD,
            f"{prefix}_CONNECT_TIMEOUT": "2",
        }
    return found


@pytest.fixture
def liar() -> Iterator[Callable[[Liar], Liar]]:
    made: list[Liar] = []

    def keep(liar: Liar) -> Liar:
        made.append(liar)
        return liar

    yield keep
    for each in made:
        each.close()

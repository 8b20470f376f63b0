"""Processes that are lied to: `tests/integration/lied_to.py`, kept from lie to lie.

Left: settings that lead a leg to a liar. Right: how it ended, as the process told it, or what it
said when it died, which fails the test.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from tests.fix_servers import PASSWORD

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


def environment(
    source: MySQLDatabase, replica: MySQLDatabase, analytics: PostgresDatabase
) -> dict[str, str]:
    """The settings that lead to these, with little patience."""
    found = {"LOADER_HEARTBEAT_SECONDS": "1", "REPLICATOR_HEARTBEAT_SECONDS": "1"}
    for prefix, database in (
        ("OPENDENTAL_SOURCE", source),
        ("MYSQL_REPLICATION", replica),
        ("POSTGRES_ANALYTICS", analytics),
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

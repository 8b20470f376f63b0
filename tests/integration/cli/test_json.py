"""`--json` of every verb that has it: standard output is one document, and nothing else.

A script reads standard output and the exit code; what is said to people goes elsewhere. Where a
verb cannot do what it is asked, there is no document: the message is on standard error.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import Result

from replicator.cli import app
from replicator.pipeline import ELTPipeline
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from tests.integration.cli.conftest import Invoke

Daemons = Callable[..., "subprocess.Popen[bytes]"]
Ask = Callable[..., dict[str, Any]]


def verbs_with_json() -> set[str]:
    """What the command line itself knows."""

    def walk(command: Any, name: str) -> Iterator[str]:
        for word, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{name} {word}".strip())
        if any("--json" in option.opts for option in command.params):
            yield name

    return set(walk(typer.main.get_command(app), ""))


@pytest.fixture
def asked(invoke: Invoke) -> Iterator[Ask]:
    """asked(exit code, words…): the document. At the end every verb was asked."""
    seen: set[str] = set()

    def ask(code: int, *words: str) -> dict[str, Any]:
        result = invoke(*words, "--json")
        assert result.exit_code == code, (words, result.output)
        document: dict[str, Any] = json.loads(result.stdout)
        seen.add(" ".join(words[:2]) if words[0] == "quarantine" else words[0])
        return document

    yield ask
    assert seen == verbs_with_json()


def refused(result: Result) -> bool:
    """No document, and a message with its remedy for people."""
    return result.exit_code == 2 and not result.stdout and "\n  " in result.stderr


def test_every_verb_says_what_it_did_in_one_document(
    asked: Ask,
    invoke: Invoke,
    daemons: Daemons,
    environment: dict[str, str],
    pipeline: ELTPipeline,
    source_db: MySQLDatabase,
    replica_db: MySQLDatabase,
    analytics_db: PostgresDatabase,
    tmp_path: Path,
) -> None:
    _before_the_first_start(asked, invoke, environment, replica_db, analytics_db)
    source_db.execute("CREATE TABLE chart (Id int PRIMARY KEY, Fee int)")
    source_db.execute("INSERT INTO chart VALUES (1, 1), (2, 2), (3, 3)")
    pipeline.extract()
    pipeline.load()
    _looking(asked, invoke, tmp_path)
    _asking(asked, invoke)
    _quarantine(asked, invoke, daemons, pipeline, source_db, analytics_db)


def _before_the_first_start(
    asked: Ask,
    invoke: Invoke,
    environment: dict[str, str],
    replica_db: MySQLDatabase,
    analytics_db: PostgresDatabase,
) -> None:
    for words in (("pause",), ("resume",), ("throttle", "2MB"), ("verify", "--repair")):
        assert refused(invoke(*words, "--json")), words
    root, postgres = "root.password", "postgres.password"
    environment["MYSQL_REPLICATION_ADMIN_PASSWORD"] = (
        replica_db.server.directory / root
    ).read_text()
    environment["POSTGRES_ANALYTICS_ADMIN_PASSWORD"] = (
        analytics_db.server.directory / postgres
    ).read_text()
    would = asked(1, "init", "--dry-run")
    assert {step["state"] for step in would["steps"]} == {"ok", "missing"}
    assert all(step["statements"] for step in would["steps"] if step["state"] == "missing")
    assert not replica_db.query("SHOW TABLES")  # it only looked
    assert asked(1, "init", "--dry-run") == would


def _looking(asked: Ask, invoke: Invoke, tmp_path: Path) -> None:
    assert asked(0, "check")["verdict"] in ("ok", "warn")
    assert {each["server"] for each in asked(0, "check", "--grants")["grants"]} == {
        "source",
        "replica",
        "analytics",
    }
    assert asked(1, "status")["replicator"]["running"] is False
    assert asked(0, "wait", "--timeout", "30")["arrived"] is True
    assert asked(0, "verify")["tables"][0]["verdict"] == "same"
    assert refused(invoke("verify", "no_such_table", "--json"))
    assert refused(invoke("verify", "--repair", "--json"))  # the daemons would do it
    sources = tmp_path / "sources.yml"
    assert asked(1, "dbt-sources", "--check", "--file", str(sources))["stale"] is True


def _asking(asked: Ask, invoke: Invoke) -> None:
    told = asked(0, "throttle", "2MB")
    assert (told["bytes_per_second"], told["asked"]) == (2_000_000, 2_000_000)
    assert asked(0, "throttle", "default")["asked"] is None
    assert invoke("throttle", "quickly", "--json").exit_code == 2
    paused = asked(0, "pause", "--leg", "loader")
    assert paused["paused"] is True
    assert paused["legs"]["loader"]["working"] is False
    idle = asked(1, "resume", "--timeout", "0")  # nobody runs
    assert (idle["paused"], set(idle["legs"])) == (False, {"replicator", "loader"})

    queued = asked(0, "resync", "chart")
    assert [request["table"] for request in queued["requests"]] == ["chart"]
    assert queued["not_running"] == ["replicator", "loader"]
    late = asked(1, "resync", "--all", "--wait", "--timeout", "0")
    assert {request["table"] for request in late["requests"]} == {"chart"}
    assert refused(invoke("resync", "no_such_table", "--json"))


def _quarantine(
    asked: Ask,
    invoke: Invoke,
    daemons: Daemons,
    pipeline: ELTPipeline,
    source_db: MySQLDatabase,
    analytics_db: PostgresDatabase,
) -> None:
    assert asked(0, "quarantine", "list") == {"rows": []}
    assert asked(0, "quarantine", "replay", "--all")["requested"] == []
    assert asked(0, "quarantine", "drop", "--all") == {"asked": [], "forgotten": 0}
    analytics_db.execute('ALTER TABLE raw.chart ADD CONSTRAINT no_less CHECK ("Fee" >= 0)')
    source_db.execute("UPDATE chart SET Fee = -1 WHERE Id IN (2, 3)")
    pipeline.extract()
    pipeline.load()
    assert [row["shown"] for row in asked(0, "quarantine", "list")["rows"]] == ["2", "3"]
    assert refused(invoke("quarantine", "replay", "chart", "--key", "9", "--json"))
    assert refused(invoke("quarantine", "drop", "chart", "--json"))  # nobody can be asked
    told = asked(0, "quarantine", "replay", "chart", "--key", "3")
    assert ([row["shown"] for row in told["requested"]], told["loader_runs"]) == (["3"], False)
    assert asked(1, "quarantine", "replay", "chart", "--wait", "--timeout", "0")["left"]
    daemons("loader.cli")
    again = asked(1, "quarantine", "replay", "chart", "--wait", "--timeout", "60")
    assert [row["attempts"] for row in again["left"]] == [2, 2]  # refused again
    analytics_db.execute("ALTER TABLE raw.chart DROP CONSTRAINT no_less")
    done = asked(0, "quarantine", "replay", "chart", "--key", "2", "--wait", "--timeout", "60")
    assert (done["left"], done["loader_runs"]) == ([], True)
    dropped = asked(0, "quarantine", "drop", "--all", "--yes")
    assert ([row["shown"] for row in dropped["asked"]], dropped["forgotten"]) == (["3"], 1)

"""Fixtures for the verbs: an environment over fresh databases, and the program run on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from config.settings import Settings, known_variables, load_settings
from replicator.cli import app
from replicator.pipeline import ELTPipeline
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from replicator.sandbox.processes import free_port

Invoke = Callable[..., Result]


@pytest.fixture
def environment(
    source_db: MySQLDatabase, replica_db: MySQLDatabase, analytics_db: PostgresDatabase
) -> dict[str, str]:
    """The variables that point both legs at this test's databases."""
    return {
        "OPENDENTAL_SOURCE_HOST": "127.0.0.1",
        "OPENDENTAL_SOURCE_PORT": str(source_db.server.port),
        "OPENDENTAL_SOURCE_DB": source_db.name,
        "OPENDENTAL_SOURCE_USER": source_db.user,
        "OPENDENTAL_SOURCE_PASSWORD": source_db.password,
        "MYSQL_REPLICATION_HOST": "127.0.0.1",
        "MYSQL_REPLICATION_PORT": str(replica_db.server.port),
        "MYSQL_REPLICATION_DB": replica_db.name,
        "MYSQL_REPLICATION_USER": replica_db.user,
        "MYSQL_REPLICATION_PASSWORD": replica_db.password,
        "POSTGRES_ANALYTICS_HOST": "127.0.0.1",
        "POSTGRES_ANALYTICS_PORT": str(analytics_db.server.port),
        "POSTGRES_ANALYTICS_DB": analytics_db.name,
        "POSTGRES_ANALYTICS_USER": analytics_db.user,
        "POSTGRES_ANALYTICS_PASSWORD": analytics_db.password,
        "REPLICATOR_METRICS_PORT": str(free_port()),
        "LOADER_METRICS_PORT": str(free_port()),
        "REPLICATOR_COPY_GAP_SECONDS": "0.05",
        "REPLICATOR_POLL_SECONDS": "0.05",
        "LOADER_POLL_SECONDS": "0.05",
    }


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    return load_settings(env_file=None, environ=environment)


@pytest.fixture
def pipeline(settings: Settings) -> Iterator[ELTPipeline]:
    with ELTPipeline(settings) as pipeline:
        yield pipeline


@pytest.fixture
def empty_env_file(tmp_path: Path) -> Path:
    path = tmp_path / "empty.env"
    path.touch()
    return path


@pytest.fixture
def invoke(
    environment: dict[str, str], empty_env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Invoke:
    """Run a verb in this process: invoke("verify", "patient") -> a result with exit_code."""
    for name in known_variables():
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> Result:
        arguments = [*words, "--env-file", str(empty_env_file)]
        return CliRunner().invoke(app, arguments, env=environment, terminal_width=200)

    return run


@pytest.fixture
def run_process(empty_env_file: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the program as a process of its own, with exactly this environment."""

    def run(
        environment: dict[str, str], *words: str, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if k not in known_variables()}
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "replicator.cli",
                *words,
                "--env-file",
                str(empty_env_file),
            ],
            env={**inherited, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def daemons(
    environment: dict[str, str], empty_env_file: Path, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a leg's real process: daemons("replicator.cli") or daemons("loader.cli")."""
    started: list[subprocess.Popen[bytes]] = []
    inherited = {k: v for k, v in os.environ.items() if k not in known_variables()}

    def start(module: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{module}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, "run", "--env-file", str(empty_env_file)],
                env={**inherited, **environment},
                stdout=log,
                stderr=log,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.wait(20)

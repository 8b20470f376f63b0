"""dbt as an analyst runs it: the program, on the repository's own project."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.settings import known_variables
from replicator.cli.demo_dbt import PROJECT, find_dbt

RunDbt = Callable[..., "Ended"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run of dbt ended: its exit code, what it said, and each node's status by name."""

    code: int
    output: str
    statuses: dict[str, str]

    def of(self, status: str) -> set[str]:
        """The names of what ended so."""
        return {name for name, found in self.statuses.items() if found == status}


@pytest.fixture
def dbt(tmp_path: Path) -> RunDbt:
    """dbt(environment, "build") -> Ended; all that dbt writes goes to a temporary directory."""
    program = find_dbt()
    assert program is not None, "make setup installs dbt"
    target = tmp_path / "target"

    def run(environment: Mapping[str, str], *words: str) -> Ended:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in known_variables() and not name.startswith("DBT_")
        }
        results = target / ("sources.json" if words[0] == "source" else "run_results.json")
        results.unlink(missing_ok=True)
        done = subprocess.run(
            [str(program), *words, "--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)],
            env={
                **inherited,
                **environment,
                "DBT_TARGET_PATH": str(target),
                "DBT_LOG_PATH": str(tmp_path / "logs"),
                "DBT_USE_COLORS": "false",
                "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            },
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        output = done.stdout + done.stderr
        assert results.exists(), output[-4000:]
        found = json.loads(results.read_text())["results"]
        statuses = {one["unique_id"].split(".", 2)[2]: one["status"] for one in found}
        return Ended(done.returncode, output, statuses)

    return run

"""The demo's last act: dbt builds its models from what the pipeline left in `raw`.

Left: the stage, and a dbt project beside this package. Right: what dbt made of it, in
numbers. The project is copied onto the stage first, so that nothing of the demo stays in
a checkout: neither dbt's own files nor the sources.yml that is written for these tables.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from config.settings import known_variables
from replicator.cli.dbt_sources import bring_up_to_date
from replicator.cli.demo_stage import DemoFailed, Stage
from replicator.cli.observation import Observer
from replicator.sandbox.reaper import Reaper

PROJECT = Path(__file__).parents[2] / "dbt"
BUILD_SECONDS = 300.0
_LEFT_OUT = shutil.ignore_patterns("target", "logs", "dbt_packages", ".user.yml")


@dataclass(frozen=True, slots=True)
class Built:
    """How many of dbt's models, seeds and tests ended how; rows of the marts."""

    results: Counter[str]
    rows: dict[str, int]

    def line(self) -> str:
        """In one line."""
        good = self.results["success"] + self.results["pass"]
        made = ", ".join(f"{name} {count:,}" for name, count in self.rows.items())
        odd = self.results["warn"]
        warned = f", {odd} warn of codes and references that synthetic rows make up" if odd else ""
        return f"dbt build: {good} of {self.results.total()} passed{warned}; rows: {made}"


def find_dbt() -> Path | None:
    """The dbt that `make setup` installed beside this Python, or the one on the path."""
    beside = Path(sys.executable).with_name("dbt")
    found = str(beside) if beside.exists() else shutil.which("dbt")
    return Path(found) if found else None


def build(stage: Stage, dbt: Path) -> Built:
    """Build everything, tests included; DemoFailed where dbt is not content."""
    project = stage.directory / "dbt"
    shutil.copytree(PROJECT, project, ignore=_LEFT_OUT)
    with Observer(stage.settings) as observer:
        bring_up_to_date(observer, project / "models/staging/sources.yml", look_only=False)
    said = _run(stage, [str(dbt), "--quiet", "build"], project)
    results = project / "target" / "run_results.json"
    if said is not None or not results.exists():
        raise DemoFailed(f"dbt build failed\n{said}")
    statuses = Counter(one["status"] for one in json.loads(results.read_text())["results"])
    return Built(statuses, _rows(stage))


def _run(stage: Stage, command: list[str], project: Path) -> str | None:
    """Run dbt; what it said where it failed, None where all went well."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in known_variables() and not name.startswith("DBT_")
    }
    process = subprocess.Popen(
        command,
        cwd=project,
        env={**inherited, **stage.sandbox.env(), "DBT_USE_COLORS": "false"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for us
    )
    Reaper.ours().watch(process.pid, signal.SIGTERM)
    try:
        said, _ = process.communicate(timeout=BUILD_SECONDS)
    except subprocess.TimeoutExpired:
        return f"it took more than {BUILD_SECONDS:.0f} s"
    finally:
        process.kill()
        process.wait()
        Reaper.ours().forget(process.pid)
    return None if process.returncode == 0 else said[-3000:]


def _rows(stage: Stage) -> dict[str, int]:
    marts = ("dim_patient", "fact_appointments", "fact_treatments")
    count = "SELECT count(*) FROM public_marts.{}"
    found = {name: stage.sandbox.analytics_db.query(count.format(name)) for name in marts}
    return {name: int(rows[0][0]) for name, rows in found.items()}

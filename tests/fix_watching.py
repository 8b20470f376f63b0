"""Those who look at the daemons from outside: a Prometheus, and a browser without a window.

    prometheus(pipeline, rules=…)   a running one that scrapes both daemons twice a second
    browser                         .text(url), .picture(url, path, width, height)

Both are installed by `make setup`; a test that needs one fails where it is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from replicator.sandbox.processes import free_port
from replicator.sandbox.waiting import wait_until
from tests.fix_pipeline import Pipeline

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
UNPACKED = CACHE / "opendental-replicator" / "programs" / "prometheus" / "usr" / "bin"
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")

NewPrometheus = Callable[..., "Prometheus"]


def program(name: str) -> str:
    """Where a program of Prometheus' package is."""
    found = shutil.which(name) or shutil.which(name, path=str(UNPACKED))
    assert found, f"{name} is missing: make setup fetches it"
    return found


def get(url: str) -> str:
    with urlopen(url, timeout=10) as answer:
        return answer.read().decode()  # type: ignore[no-any-return]


class Prometheus:
    """A running one."""

    def __init__(self, directory: Path, targets: dict[str, str], rules: list[Path]) -> None:
        """`targets`: address of each daemon."""
        self.port = free_port()
        self._log = directory / "prometheus.log"
        config = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {
                    "job_name": "opendental",
                    "static_configs": [
                        {"targets": [address], "labels": {"daemon": daemon, "clinic": "main"}}
                        for daemon, address in targets.items()
                    ],
                }
            ],
        }
        file = directory / "prometheus.yml"
        file.write_text(json.dumps(config))  # JSON is YAML
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={file}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    f"--web.console.libraries={directory}",
                    f"--web.console.templates={directory}",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of an expression: [{metric: …, value: [when, "text"]}, …]."""
        said = self._ask("query", query=expression)
        assert said["resultType"] == "vector", said
        return said["result"]  # type: ignore[no-any-return]

    def value(self, expression: str) -> float | None:
        """Its only value, or None where it has none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        """Names of the alerts that are firing."""
        alerts = self._ask("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def _ask(self, what: str, **arguments: str) -> Any:
        said = json.loads(get(f"http://127.0.0.1:{self.port}/api/v1/{what}?{urlencode(arguments)}"))
        assert said["status"] == "success", said
        return said["data"]

    def wait_ready(self) -> None:
        def scraped() -> bool:
            assert self._process.poll() is None, self._log.read_text()
            try:
                return bool(self.query("count(up) > 0"))
            except OSError:
                return False

        wait_until(scraped, 30, what=lambda: f"Prometheus to scrape: {self._log.read_text()}")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[NewPrometheus]:
    made: list[Prometheus] = []

    def make(pipe: Pipeline, rules: list[Path]) -> Prometheus:
        ports = {d: pipe.environment[f"{d.upper()}_METRICS_PORT"] for d in ("replicator", "loader")}
        targets = {daemon: f"127.0.0.1:{port}" for daemon, port in ports.items()}
        made.append(Prometheus(tmp_path, targets, rules))
        made[-1].wait_ready()
        return made[-1]

    yield make
    for each in made:
        each.close()


class Browser:
    """A Chromium without a window; each look is a process of its own."""

    def __init__(self, directory: Path) -> None:
        found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
        assert found, "no Chromium: make setup installs chromium-headless-shell"
        self._program = found
        self._profile = directory / "profile"

    def dom(self, url: str, script_seconds: int = 0) -> str:
        """The document as the browser understood it, as HTML; scripts may take so long."""
        return self._run(*_patience(script_seconds), "--dump-dom", url)

    def picture(
        self, url: str, path: Path, width: int, height: int, script_seconds: int = 0
    ) -> bytes:
        """What is to be seen in a window of that size, as PNG."""
        size = f"--window-size={width},{height}"
        self._run(*_patience(script_seconds), f"--screenshot={path}", size, url)
        return path.read_bytes()

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [
                self._program,
                "--headless",
                "--no-sandbox",  # it reads our own page, and tests run as root in containers
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--no-first-run",
                "--enable-logging=stderr",
                f"--user-data-dir={self._profile}",
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        assert said == [], said  # a breach of the page's policy would be told there
        return done.stdout


def _patience(seconds: int) -> list[str]:
    """While a page's scripts wait for answers, its clock stands still: this ends what does not."""
    return [f"--virtual-time-budget={seconds * 1000}"] if seconds else []


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return Browser(tmp_path)

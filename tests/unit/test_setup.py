"""`.ci/setup` says what it would install; nothing is installed here, for apt is a stand-in."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / ".ci" / "setup"
ORDINARY = """
    bash basename cat dirname dpkg env find grep id mktemp python3 readlink sed sha256sum sort
    tail tr
"""


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment with ordinary programs, an apt that knows packages, and no database."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ORDINARY.split():
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed")
        (programs / name).symlink_to(found)
    for name, does in {
        "apt-cache": 'test "$1" != pkgnames || printf "%s\\n" mariadb-client pgloader',
        "apt-get": "exit 1",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    return {**os.environ, "PATH": str(programs), "DRY_RUN": "1"}


def said(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", str(SETUP), *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def packages(done: subprocess.CompletedProcess[str]) -> set[str]:
    """What the dry run would have asked apt for."""
    lead = "setup: would install with apt-get: "
    lines = [line.removeprefix(lead) for line in done.stderr.splitlines() if line.startswith(lead)]
    return {package for line in lines for package in line.split()}


def test_benchmarks_alone_ask_for_the_programs_that_they_compare_with(bare: dict[str, str]) -> None:
    plain, bench = said(bare), said(bare, "bench")
    assert plain.returncode == bench.returncode == 0
    assert packages(bench) - packages(plain) == {"mariadb-client", "pgloader"}


def test_what_is_there_is_not_asked_for(bare: dict[str, str]) -> None:
    for name in ("pgloader", "mariadb-dump"):
        there = Path(bare["PATH"]) / name
        there.write_text("#!/bin/sh\n")
        there.chmod(0o755)
    assert not packages(said(bare, "bench")) & {"mariadb-client", "pgloader"}


def test_an_unknown_word_is_refused(bare: dict[str, str]) -> None:
    done = said(bare, "benches")
    assert done.returncode == 2
    assert "unknown word: benches" in done.stderr

"""A sealed process tells nobody what it knows: no message of a crash, no core, no password."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config import secrecy

SECRET = "Zqxwvk"


def run(code: str, directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process that is sealed and then does `code`, as its program does it."""
    indented = "\n".join(f"    {line}" for line in code.splitlines())
    script = (
        "import ctypes, os, resource, subprocess, sys, threading, typer\n"
        "from config.secrecy import environment, run_sealed\n"
        f"SECRET = {SECRET!r}\n"
        f"def program():\n{indented}\n"
        "run_sealed(program, 'loader')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


TYPER = """
app = typer.Typer(pretty_exceptions_enable=False)
@app.command()
def verb(): raise ValueError(SECRET)
sys.argv[1:] = []
app()
"""
THREAD = """
def work(): raise ValueError(SECRET)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
FINALIZER = """
class Holder:
    def __del__(self): raise ValueError(SECRET)
Holder()
"""


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("raise ValueError(SECRET)", 1), (TYPER, 1), (THREAD, 0), (FINALIZER, 0)],
    ids=["anywhere", "in a verb", "in a thread", "in a finalizer"],
)
def test_an_unexpected_exception_is_told_without_its_message(
    tmp_path: Path, code: str, exit_code: int
) -> None:
    done = run(code, tmp_path)
    assert done.returncode == exit_code, done.stderr
    assert "unexpected ValueError" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_what_ends_a_program_on_purpose_still_does(tmp_path: Path) -> None:
    done = run("raise SystemExit(2)", tmp_path)
    assert (done.returncode, done.stderr) == (2, "")


def test_no_core_is_left_and_no_neighbour_may_look(tmp_path: Path) -> None:
    done = run(
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3), flush=True)\n"
        "os.abort()",
        tmp_path,
    )
    assert done.stdout.strip() == "(0, 0) 0"  # PR_GET_DUMPABLE
    assert done.returncode < 0
    assert list(tmp_path.iterdir()) == []


def test_children_do_not_inherit_passwords_and_settings_still_have_them(tmp_path: Path) -> None:
    done = run(
        "subprocess.run(['env'], check=True)\n"
        "print('ours:', environment()['MYSQL_REPLICATION_PASSWORD'], flush=True)",
        tmp_path,
        MYSQL_REPLICATION_PASSWORD=SECRET,
        OPENDENTAL_SOURCE_USER="reader",
    )
    assert "OPENDENTAL_SOURCE_USER=reader" in done.stdout
    assert [line for line in done.stdout.splitlines() if SECRET in line] == [f"ours: {SECRET}"]


def test_a_password_that_is_set_anew_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrecy, "_taken", {"MYSQL_REPLICATION_PASSWORD": "old"})
    monkeypatch.setenv("MYSQL_REPLICATION_PASSWORD", "new")
    assert secrecy.environment()["MYSQL_REPLICATION_PASSWORD"] == "new"

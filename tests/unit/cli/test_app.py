"""The command line itself: help with examples and exit codes, and how errors end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import loader.cli
from config.errors import ConfigError, ConnectionLost
from config.settings import known_variables
from replicator.cli import app
from replicator.cli.outcome import reported

VERBS = [
    ["init"],
    ["run"],
    ["pause"],
    ["resume"],
    ["throttle"],
    ["check"],
    ["resync"],
    ["status"],
    ["wait"],
    ["verify"],
    ["dbt-sources"],
    *(["quarantine", word] for word in ("list", "replay", "drop")),
    *(["sandbox", word] for word in ("up", "down", "load", "env", "demo")),
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_shows_examples_and_exit_codes(verb: list[str]) -> None:
    shown = CliRunner().invoke(app, [*verb, "--help"])
    assert shown.exit_code == 0
    assert "Examples:\n    replicator" in shown.output.replace("    DEMO", "    replicator DEMO")
    assert "Exit codes: 0" in shown.output


def test_the_loaders_help_shows_the_same() -> None:
    shown = CliRunner().invoke(loader.cli.app, ["run", "--help"])
    assert "Examples:\n    loader run" in shown.output
    assert "Exit codes: 0" in shown.output


def test_a_reader_who_has_gone_is_no_error() -> None:
    code = "from replicator.cli.outcome import reported\nimport typer\n"
    code += "app = typer.Typer()\n@app.command()\ndef go():\n"
    code += " with reported():\n  raise BrokenPipeError\napp()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


def test_all_missing_settings_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in known_variables():
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "env").touch()
    shown = CliRunner().invoke(app, ["wait", "--env-file", str(tmp_path / "env")])
    assert shown.exit_code == 2
    for prefix in ("OPENDENTAL_SOURCE", "MYSQL_REPLICATION", "POSTGRES_ANALYTICS"):
        assert f"{prefix}_PASSWORD is missing" in shown.stderr


def test_a_resync_needs_tables_or_all_but_not_both() -> None:
    assert CliRunner().invoke(app, ["resync"]).exit_code == 2
    assert CliRunner().invoke(app, ["resync", "patient", "--all"]).exit_code == 2


def test_a_sandbox_that_is_not_up_is_told_with_the_remedy(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["sandbox", "load", "--directory", str(tmp_path)])
    assert shown.exit_code == 2
    assert "replicator sandbox up" in shown.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no such thing", "mend it"), 2),
        (ConnectionLost("source db: gone", "look there"), 2),
        (KeyboardInterrupt(), 130),
        (ValueError("Synthetic-Zebra"), 2),
    ],
)
def test_errors_end_in_a_message_and_a_code_without_their_values(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, reported():
        raise error
    assert ended.value.exit_code == code
    said = capsys.readouterr().err
    assert "Synthetic-Zebra" not in said
    assert "Traceback" not in said
    assert ("interrupted" in said) is isinstance(error, KeyboardInterrupt)

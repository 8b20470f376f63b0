"""`replicator sandbox`: throwaway servers to try everything on.

Left: a directory. Right: a source, a replica and a PostgreSQL on free loopback
ports that stay until `down`, and the environment file that points both daemons at
them.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from config.errors import ConfigError
from replicator.cli.demo import run_demo
from replicator.cli.outcome import NO, exit_codes, reported
from replicator.sandbox import data, schema
from replicator.sandbox.cluster import Engine, Sandbox
from replicator.sandbox.processes import ServerFailed

DIRECTORY = Path(".sandbox")

sandbox_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Throwaway source, replica and PostgreSQL with synthetic data, on free loopback ports.",
)

Directory = Annotated[Path, typer.Option(help="Where the servers' data is kept.")]
_ENGINES: dict[str, Engine] = {"innodb": "InnoDB", "myisam": "MyISAM"}
EngineName = Annotated[str, typer.Option(help="The source's storage engine: MyISAM or InnoDB.")]
_CODES = exit_codes("done", "the servers failed")


def _engine(word: str) -> Engine:
    engine = _ENGINES.get(word.lower())
    if engine is None:
        raise typer.BadParameter(f"{word}: MyISAM or InnoDB", param_hint="--engine")
    return engine


def env_file(sandbox: Sandbox) -> Path:
    """Where the sandbox's environment is written."""
    return sandbox.directory / ".env"


def write_env(sandbox: Sandbox) -> Path:
    """Write the sandbox's environment where only its owner can read it."""
    path = env_file(sandbox)
    fresh = path.with_name(".env.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in sandbox.env().items())
    fresh.replace(path)
    return path


@sandbox_app.command(epilog=_CODES)
def up(directory: Directory = DIRECTORY, engine: EngineName = "MyISAM") -> None:
    """Start the three servers; they stay until `down`. Prints the environment file's path.

    \b
    Examples:
      replicator sandbox up
      replicator run --env-file .sandbox/.env
      set -a; . .sandbox/.env; set +a
    """
    chosen = _engine(engine)
    with reported(), _failing():
        sandbox = Sandbox(directory)
        sandbox.up(None if sandbox.exists else chosen, detach=True)
        typer.echo(write_env(sandbox))


@sandbox_app.command(epilog=_CODES)
def down(
    directory: Directory = DIRECTORY,
    remove: Annotated[bool, typer.Option(help="Delete the data as well.")] = False,
) -> None:
    """Stop the servers; their data stays unless --remove is given.

    \b
    Examples:
      replicator sandbox down
      replicator sandbox down --remove
    """
    with reported(), _failing():
        sandbox = Sandbox(directory)
        if not sandbox.exists:
            typer.echo(f"there is no sandbox in {directory}")
        elif remove:
            sandbox.remove()
        else:
            sandbox.down()


@sandbox_app.command(epilog=_CODES)
def load(
    patients: Annotated[
        int, typer.Option(min=1, help="About 50 rows for each of so many patients.")
    ] = 1000,
    directory: Directory = DIRECTORY,
    seed: Annotated[int, typer.Option(help="The same seed makes the same rows.")] = 1,
) -> None:
    """Create the practice's tables on the source and fill them with synthetic rows.

    \b
    Examples:
      replicator sandbox load
      replicator sandbox load --patients 20000
    """
    with reported(), _failing():
        sandbox = _running(directory)
        if sandbox.source_db.query("SHOW TABLES"):
            raise ConfigError(
                "the sandbox's source has tables already",
                "Make another: replicator sandbox down --remove, then up, then load.",
            )
        with closing(sandbox.source_db.connect()) as connection:
            schema.create_tables(connection, sandbox.engine)
            rows = data.load(connection, patients, seed)
        typer.echo(f"{sum(rows.values()):,} rows in {len(rows)} tables ({sandbox.engine})")


@sandbox_app.command(epilog=_CODES)
def env(directory: Directory = DIRECTORY) -> None:
    """Print the path of the environment file, written anew.

    \b
    Examples:
      replicator status --env-file "$(replicator sandbox env)"
    """
    with reported(), _failing():
        typer.echo(write_env(_running(directory)))


@sandbox_app.command(epilog=exit_codes("exact", "not exact"))
def demo(
    seconds: Annotated[
        float, typer.Option(min=1, envvar="DEMO_SECONDS", help="How long the practice works.")
    ] = 30.0,
    patients: Annotated[
        int, typer.Option(min=1, envvar="DEMO_PATIENTS", help="The practice's size.")
    ] = 1000,
    engine: EngineName = "MyISAM",
) -> None:
    """Watch the whole pipeline work: copy, stream, alter, resync, dbt, verify. Leaves nothing.

    \b
    Examples:
      replicator sandbox demo
      DEMO_SECONDS=120 replicator sandbox demo --engine InnoDB
    """
    chosen = _engine(engine)
    with reported(), _failing():
        if not run_demo(seconds, patients, chosen):
            raise typer.Exit(NO)


def _running(directory: Path) -> Sandbox:
    sandbox = Sandbox(directory)
    if not sandbox.is_up:
        raise ConfigError(
            f"no sandbox is up in {directory}",
            "Start one with: replicator sandbox up, or name its --directory.",
        )
    return sandbox


class _failing:  # noqa: N801 - used like a function
    """A server that does not start is an answer, with its log, and not a fault of ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ServerFailed):
            typer.echo(f"replicator: {error}", err=True)
            raise typer.Exit(NO) from None

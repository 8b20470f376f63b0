"""The `loader` program: a command line in, an exit code out.

0 when asked to stop, 2 when something must be mended first; then one message says
what and how.
"""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
import typer

from config import failpoints
from config.allocation import keep_freed_memory
from config.connections import connect_mysql, connect_postgres
from config.control import Control
from config.daemon import asked_by_signals, run
from config.errors import (
    EXIT_HALT,
    ConfigError,
    ConnectionLost,
    Halt,
    ReplicatorError,
    ServerBusy,
)
from config.logs import configure_logging
from config.page.site import served
from config.records import note_halt
from config.reloading import reread
from config.secrecy import run_sealed
from config.service import ServiceManager
from config.settings import Settings, load_settings
from loader.daemon import Loader
from loader.shown import ShownLoader

log = structlog.get_logger()

app = typer.Typer(
    name="loader",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Leg 2: follow the replica's binlog and write it to PostgreSQL's raw schema.",
)


@app.callback()
def _loader() -> None:
    """Leg 2: follow the replica's binlog and write it to PostgreSQL's raw schema."""


@app.command(
    "run",
    epilog="Exit codes: 0 asked to stop; 2 halted: something must be mended first.",
)
def run_command(
    env_file: Annotated[
        Path, typer.Option(help="Settings to read beside the environment, which wins.")
    ] = Path(".env"),
) -> None:
    """Load what raw lacks, then keep it a second behind the source, until told to stop.

    SIGTERM and SIGINT end it in good order; killed, it goes on where it was. What it cannot
    mend by waiting ends it with a message that says what to do.

    \b
    Examples:
      loader run
      loader run --env-file /etc/opendental-replicator/environment
    """
    try:
        settings = load_settings(env_file, leg="loader")
        configure_logging(settings.log_level, settings.log_format)
        failpoints.arm(os.environ)
        keep_freed_memory()
        try:
            _serve(settings, env_file)
        except ReplicatorError as error:
            note_halt(settings.replication, "loader", error)
            raise
    except ReplicatorError as error:
        typer.echo(f"loader: {error}", err=True)
        if isinstance(error, Halt) and error.hint:
            typer.echo(f"  {error.hint}", err=True)
        raise typer.Exit(EXIT_HALT) from None


def _reach(settings: Settings, *, patient: bool) -> None:
    """Connect once to both servers: one that is away at the start is a setting to mend.

    Later losses are waited out; `patient`, as under a service manager: already now.
    """
    try:
        connect_mysql(settings.replication).close()
        connect_postgres(settings.analytics).close()
    except ConnectionLost as error:
        if not patient:
            raise ConfigError(str(error), error.hint) from None
    except ServerBusy:
        return  # it is there, and will be ready soon


def _serve(settings: Settings, env_file: Path) -> None:
    service = ServiceManager.from_environment()
    _reach(settings, patient=service.present)
    leg = Loader(settings)
    control = Control(settings.replication, "loader")
    with (
        asked_by_signals() as asked,
        closing(ShownLoader(settings, leg.standing, control.pause)) as shown,
        served(settings, "loader", shown),
        control.watching(),
    ):
        run(
            leg,
            asked.stop,
            service=service,
            reload=asked.reload,
            reread=partial(reread, env_file, "loader", leg.follow),
            hold=control.hold,
        )
    offset = leg.standing.offset
    log.info("loader_stopped", resumes_at=str(offset.replica) if offset else None)


def main() -> None:
    """Entry point of the `loader` console script."""
    run_sealed(app, "loader")


if __name__ == "__main__":
    main()

"""`replicator run`: leg 1 as a daemon, from its settings to its exit code.

Left: settings. Right: a process that runs until SIGTERM, SIGINT or a Halt. The
loop itself is the same for both legs; here stands what is put around it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import structlog
from rich.console import Console

from config import failpoints
from config.control import Control
from config.daemon import asked_by_signals, run
from config.errors import ConfigError, ReplicatorError
from config.logs import configure_logging
from config.page.site import shown_on
from config.records import note_halt
from config.reloading import reread
from config.service import ServiceManager
from config.settings import Settings, load_settings
from config.tables import load_table_rules
from replicator.cli import preflight
from replicator.cli.copy_view import watching
from replicator.daemon import Replicator
from replicator.shown import ShownReplicator

log = structlog.get_logger()


def run_replicator(env_file: Path) -> None:
    """Replicate until told to stop; raises what only an operator can mend."""
    settings = load_settings(env_file)
    configure_logging(settings.log_level, settings.log_format)
    failpoints.arm(os.environ)
    rules = load_table_rules(settings.tables_file)
    service = ServiceManager.from_environment()
    try:
        with asked_by_signals() as asked, watching(Console(stderr=True)) as watch:
            server, rate = settings.replication, settings.replicator.copy_bytes_per_second
            control = Control(server, "replicator", rate)
            leg = Replicator(settings, rules, watch, control.copy_rate)
            with _shown(settings, leg, control), control.watching():
                with suppress(ReplicatorError):  # the preflight or the loop will say it
                    control.look()
                if not control.pause():  # then the source is left alone
                    preflight.check(settings, patient=service.present)
                run(
                    leg,
                    asked.stop,
                    service=service,
                    reload=asked.reload,
                    reread=partial(reread, env_file, leg.follow),
                    hold=control.hold,
                )
    except ReplicatorError as error:
        note_halt(settings.replication, "replicator", error)
        log.error("halted", leg="replicator", error=type(error).__name__)
        raise
    offset = leg.standing.offset
    log.info("replicator_stopped", resumes_at=str(offset.position) if offset else None)


@contextmanager
def _shown(settings: Settings, leg: Replicator, control: Control) -> Iterator[None]:
    tuning, other = settings.replicator, settings.loader
    shown = ShownReplicator(settings, leg.standing, control.pause)
    peer = (other.metrics_host, other.metrics_port)
    serving = shown_on(tuning.metrics_host, tuning.metrics_port, "replicator", shown, peer)
    try:
        serving.__enter__()
    except OSError as error:
        raise ConfigError(
            f"REPLICATOR_METRICS_PORT={tuning.metrics_port}: cannot listen on"
            f" {tuning.metrics_host}: {error.strerror}",
            "Set REPLICATOR_METRICS_PORT to a free port, or stop what uses it.",
        ) from None
    try:
        yield
    finally:
        serving.__exit__(None, None, None)
        shown.close()

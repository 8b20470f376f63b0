"""`replicator run`: leg 1 as a daemon, from its settings to its exit code.

Left: settings. Right: a process that runs until SIGTERM, SIGINT or a Halt. The
loop itself is the same for both legs; here stands what is put around it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import structlog
from rich.console import Console

from config import failpoints, metrics
from config.daemon import asked_by_signals, run
from config.errors import ConfigError, ReplicatorError
from config.logs import configure_logging
from config.reloading import reread
from config.service import ServiceManager
from config.settings import Settings, load_settings
from config.tables import load_table_rules
from replicator.cli import preflight
from replicator.cli.copy_view import watching
from replicator.daemon import Replicator

log = structlog.get_logger()


def run_replicator(env_file: Path) -> None:
    """Replicate until told to stop; raises what only an operator can mend."""
    settings = load_settings(env_file)
    configure_logging(settings.log_level, settings.log_format)
    failpoints.arm(os.environ)
    rules = load_table_rules(settings.tables_file)
    service = ServiceManager.from_environment()
    try:
        with asked_by_signals() as asked, _metrics(settings):
            preflight.check(settings, patient=service.present)
            with watching(Console(stderr=True)) as watch:
                leg = Replicator(settings, rules, watch)
                again = partial(reread, env_file, leg.follow)
                run(leg, asked.stop, service=service, reload=asked.reload, reread=again)
    except ReplicatorError as error:
        metrics.HALTS.labels("replicator", type(error).__name__).inc()
        log.error("halted", leg="replicator", error=type(error).__name__)
        raise
    log.info("replicator_stopped")


@contextmanager
def _metrics(settings: Settings) -> Iterator[None]:
    tuning = settings.replicator
    serving = metrics.serve_metrics(tuning.metrics_host, tuning.metrics_port)
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

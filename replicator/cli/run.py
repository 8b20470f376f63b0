"""`replicator run`: leg 1 as a daemon, from its settings to its exit code.

Left: settings. Right: a process that runs until SIGTERM, SIGINT or a Halt. The
loop itself is the same for both legs; here stands what is put around it.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import structlog
from rich.console import Console

from config import failpoints
from config.allocation import keep_freed_memory
from config.control import Control
from config.daemon import asked_by_signals, run
from config.errors import ReplicatorError
from config.logs import configure_logging
from config.page.site import served
from config.records import note_halt
from config.reloading import reread
from config.service import ServiceManager
from config.settings import load_settings
from config.tables import load_table_rules
from replicator.cli import preflight
from replicator.cli.copy_view import watching
from replicator.daemon import Replicator
from replicator.shown import ShownReplicator

log = structlog.get_logger()


def run_replicator(env_file: Path) -> None:
    """Replicate until told to stop; raises what only an operator can mend."""
    settings = load_settings(env_file, leg="replicator")
    configure_logging(settings.log_level, settings.log_format)
    failpoints.arm(os.environ)
    keep_freed_memory()
    rules = load_table_rules(settings.tables_file)
    service = ServiceManager.from_environment()
    try:
        with asked_by_signals() as asked, watching(Console(stderr=True)) as watch:
            server, rate = settings.replication, settings.replicator.copy_bytes_per_second
            control = Control(server, "replicator", rate)
            leg = Replicator(settings, rules, watch, control.copy_rate)
            with (
                closing(ShownReplicator(settings, leg.standing, control.pause)) as shown,
                served(settings, "replicator", shown),
                control.watching(),
            ):
                with suppress(ReplicatorError):  # the preflight or the loop will say it
                    control.look()
                if not control.pause():  # then the source is left alone
                    preflight.check(settings, patient=service.present)
                run(
                    leg,
                    asked.stop,
                    service=service,
                    reload=asked.reload,
                    reread=partial(reread, env_file, "replicator", leg.follow),
                    hold=control.hold,
                )
    except ReplicatorError as error:
        note_halt(settings.replication, "replicator", error)
        log.error("halted", leg="replicator", error=type(error).__name__)
        raise
    offset = leg.standing.offset
    log.info("replicator_stopped", resumes_at=str(offset.position) if offset else None)

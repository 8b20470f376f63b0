"""What SIGHUP changes while a daemon runs: the log's level, and which tables are carried.

Left: the settings and `tables.toml` as they are now. Right: the log set anew and a leg that
follows other rules. Settings that are wrong change nothing: the daemon goes on as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from config.errors import ConfigError
from config.logs import configure_logging
from config.settings import load_settings
from config.tables import TableRules, load_table_rules

log = structlog.get_logger()


def reread(env_file: Path, leg: str, follow: Callable[[TableRules], None]) -> None:
    """Read them again and have the leg `follow` the rules."""
    try:
        settings = load_settings(env_file, leg=leg)
        rules = load_table_rules(settings.tables_file)
    except ConfigError as error:
        log.error("reload_refused", reason=str(error), remedy=error.hint)
        return
    configure_logging(settings.log_level, settings.log_format)
    follow(rules)
    log.info("settings_reloaded", changes="log level and table rules")

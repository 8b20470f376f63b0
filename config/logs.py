"""Log events in, one line each on standard error out: for people or as JSON.

Events are short names with bound context (`log.info("batch_committed",
rows=…)`), holding counts and positions, never row values. That is also why an
unexpected exception is logged by its type and the places it passed, without
its message and without local variables: either may hold a patient's data. Our
own errors are worded with that in mind, and are shown in full.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog
from structlog.typing import Processor

from config.errors import ReplicatorError

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(level: str = "info", format: Literal["console", "json"] = "console") -> None:
    """Send this process's events, and what libraries log, to standard error."""
    number = _LEVELS[level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _describe_exception,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if format == "json"
        else structlog.dev.ConsoleRenderer(colors=_in_colour())
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    _route_standard_logging(number, shared, renderer)


def _in_colour() -> bool:
    """On a terminal, unless its user wants none (https://no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def _route_standard_logging(level: int, shared: list[Processor], renderer: Processor) -> None:
    """Give libraries' records the same form; below warning they are not our business."""
    handler = logging.StreamHandler(sys.stderr)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[remove_meta, renderer]
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


def _describe_exception(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace `exc_info` by what may safely be written down."""
    given = event.pop("exc_info", None)
    exc = given[1] if isinstance(given, tuple) else sys.exc_info()[1] if given is True else given
    if isinstance(exc, BaseException):
        event["error"] = safe_message(exc)
        event["at"] = [
            f"{frame.filename}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(exc.__traceback__)
        ]
    return event


def safe_message(exc: BaseException) -> str:
    """What may be shown of `exc`: our own errors in full, any other by its type alone."""
    if isinstance(exc, ReplicatorError):
        return f"{type(exc).__name__}: {exc}"
    return type(exc).__name__

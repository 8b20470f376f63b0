"""Logs: one line an event, and nothing of a row even when the process crashes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from config.errors import PositionLost
from config.logs import configure_logging, safe_message

PATIENT = "Smith-Jones"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def crash() -> None:
    patient = PATIENT
    raise KeyError(patient)


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("logger", [structlog.get_logger(), logging.getLogger("a.library")])
def test_an_unexpected_exception_is_logged_by_type_and_place_alone(
    capsys: pytest.CaptureFixture[str], form: str, logger: logging.Logger
) -> None:
    configure_logging("info", "json" if form == "json" else "console")
    try:
        crash()
    except KeyError:
        logger.exception("stream_crashed")
    written = capsys.readouterr().err
    assert "stream_crashed" in written
    assert "KeyError" in written
    assert "crash" in written
    assert PATIENT not in written


def test_json_is_one_object_a_line_with_the_bound_context(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", "json")
    structlog.get_logger().bind(leg="loader").info("batch_committed", rows=3)
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["leg"], event["rows"]) == ("batch_committed", "loader", 3)
    assert event["level"] == "info"
    assert event["timestamp"].endswith("Z")


def test_events_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", "json")
    structlog.get_logger().info("quiet")
    logging.getLogger("a.library").info("quiet")
    assert capsys.readouterr().err == ""


def test_our_own_errors_are_shown_in_full() -> None:
    assert safe_message(PositionLost("binlog.000003 is gone")) == (
        "PositionLost: binlog.000003 is gone"
    )
    assert safe_message(ValueError(PATIENT)) == "ValueError"

"""The loader's loop: read the replica's binlog, fold, write, reload, go on.

`run` waits out what passes and lets everything else end the process. `Loader.step`
returns within about a second when nothing happens. A `Session` is all that one set
of connections knows: when anything fails it is thrown away, and the next step
begins at the position that PostgreSQL holds.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from threading import Event
from types import FrameType
from typing import Protocol

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set
from tenacity.wait import wait_exponential_jitter

from config.errors import PositionLost, SourceReset, Transient, classify
from config.settings import Settings
from config.tables import load_table_rules
from loader.session import Session

log = structlog.get_logger()


class Leg(Protocol):
    """What `run` runs."""

    def step(self) -> None:
        """Do some work, or wait up to about a second for it."""
        ...

    def close(self) -> None:
        """Let go of everything; what was not committed is done again next time."""
        ...


class Loader:
    """Leg 2 as a thing that is stepped."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules = load_table_rules(settings.tables_file)
        self._session: Session | None = None

    def step(self) -> None:
        """Take in what the replica has, write what is due; raises Transient or Halt."""
        try:
            if self._session is None:
                self._session = Session.start(self._settings, self._rules)
            self._session.step()
        except (PositionLost, SourceReset) as lost:
            # The replica's own binlog: everything in it is also in the replica's tables.
            self.close()
            log.warning("replica_position_lost", reason=str(lost), remedy="reloading every table")
            self._session = Session.start(self._settings, self._rules, anew=True)
        except BaseException as error:
            self.close()
            if isinstance(error, Exception):
                raise classify(error, server="analytics or replica") from error
            raise

    def close(self) -> None:
        """Close the session, if there is one."""
        session, self._session = self._session, None
        if session is not None:
            session.close()


def run(leg: Leg, stop: Event, max_wait: float = 60.0) -> None:
    """Step `leg` until `stop` is set, waiting out transient failures; a Halt escapes."""
    patiently = Retrying(
        retry=retry_if_exception_type(Transient),
        wait=wait_exponential_jitter(initial=0.5, max=max_wait),
        sleep=sleep_using_event(stop),
        stop=stop_when_event_set(stop),
        before_sleep=_note,
        reraise=True,
    )
    with closing(leg), suppress(Transient):  # a Transient escapes only while stopping
        while not stop.is_set():
            patiently(leg.step)


def _note(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = round(state.next_action.sleep, 1) if state.next_action else 0
    log.warning("retrying", reason=str(error), attempt=state.attempt_number, wait_seconds=wait)


@contextmanager
def stop_on_signals() -> Iterator[Event]:
    """An event that SIGTERM and SIGINT set; the old handlers come back at the end."""
    stop = threading.Event()

    def set_it(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, set_it) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""The loop that both daemons run: step a leg until told to stop, wait out what passes.

Left: a `Leg` and an event that a signal sets. Right: nothing, or the Halt that an
operator must mend. This is the one place where a failure is retried.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Event
from types import FrameType
from typing import Protocol

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set
from tenacity.wait import wait_exponential_jitter

from config.errors import AlreadyRunning, Transient
from config.metrics import RETRIES

log = structlog.get_logger()


class Leg(Protocol):
    """What `run` runs."""

    def step(self) -> None:
        """Do some work, or wait up to about a second for it."""
        ...

    def close(self) -> None:
        """Let go of everything; what was not committed is done again next time."""
        ...


def run(leg: Leg, stop: Event, max_wait: float = 10.0) -> None:
    """Step `leg` until `stop` is set, waiting out transient failures; a Halt escapes.

    A process that finds another at work when it starts halts. One that has worked, and was cut
    off or asleep while another took over, stands by: it goes on when the other is gone.
    """
    passing: tuple[type[BaseException], ...] = (Transient,)
    patiently = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, passing)),
        wait=wait_exponential_jitter(max=max_wait),
        sleep=sleep_using_event(stop),
        stop=stop_when_event_set(stop),
        before_sleep=_note,
        reraise=True,
    )
    with closing(leg):
        try:
            while not stop.is_set():
                patiently(leg.step)
                passing = (Transient, AlreadyRunning)
        except passing:
            if not stop.is_set():
                raise


def _note(state: RetryCallState) -> None:
    RETRIES.inc()
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

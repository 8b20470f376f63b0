"""The loop that both daemons run: step a leg until told to stop, wait out what passes.

Left: a `Leg` and an event that a signal sets. Right: nothing, or the Halt that an
operator must mend. This is the one place where a failure is retried.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
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
from config.service import ServiceManager

log = structlog.get_logger()

HOLD_SECONDS = 0.2
"""Between two looks whether a leg that is held may go on."""


class Leg(Protocol):
    """What `run` runs."""

    def step(self) -> None:
        """Do some work, or wait up to about a second for it."""
        ...

    def close(self) -> None:
        """Let go of everything; what was not committed is done again next time."""
        ...

    def describe(self) -> str:
        """Where it stands, in a few words."""
        ...


class Asked:
    """What signals ask of a daemon: to `stop`, or to read its settings again (`reload`)."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.reload = threading.Event()


class _Turns:
    """A step of the leg, one after another; a rest instead while there is a reason to hold it."""

    def __init__(self, leg: Leg, stop: Event, hold: Callable[[], str]) -> None:
        self._leg = leg
        self._stop = stop
        self._hold = hold
        self.held = ""
        """Why the leg is held; "" while it is not."""

    def take(self) -> None:
        before, self.held = self.held, self._hold()
        if self.held != before:
            log.warning("paused" if self.held else "resumed", reason=self.held or before)
        if not self.held:
            self._leg.step()
            return
        if not before:
            self._leg.close()
        self._stop.wait(HOLD_SECONDS)


def run(
    leg: Leg,
    stop: Event,
    *,
    service: ServiceManager | None = None,
    reload: Event | None = None,
    reread: Callable[[], None] = lambda: None,
    hold: Callable[[], str] = lambda: "",
    max_wait: float = 10.0,
) -> None:
    """Step `leg` until `stop` is set, waiting out transient failures; a Halt escapes.

    Between two steps `reread` is called when `reload` is set. While `hold` gives a reason the
    leg is closed and not stepped; the loop goes on coming round, so the manager sees it alive.

    A process that finds another at work when it starts halts. One that has worked, and was cut
    off or asleep while another took over, stands by: it goes on when the other is gone.
    """
    manager = service or ServiceManager()

    def note(state: RetryCallState) -> None:
        RETRIES.inc()
        error = state.outcome.exception() if state.outcome else None
        wait = round(state.next_action.sleep, 1) if state.next_action else 0
        log.warning("retrying", reason=str(error), attempt=state.attempt_number, wait_seconds=wait)
        manager.stepped(lambda: f"waiting, attempt {state.attempt_number}: {error}")

    turns = _Turns(leg, stop, hold)
    passing: tuple[type[BaseException], ...] = (Transient,)
    patiently = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, passing)),
        wait=wait_exponential_jitter(max=max_wait),
        sleep=sleep_using_event(stop),
        stop=stop_when_event_set(stop),
        before_sleep=note,
        reraise=True,
    )
    with closing(leg), manager.serving():
        try:
            while not stop.is_set():
                if reload is not None and reload.is_set():
                    reload.clear()
                    manager.reloading()
                    reread()
                    manager.ready()
                patiently(turns.take)
                if not turns.held:
                    passing = (Transient, AlreadyRunning)
                manager.stepped(lambda: turns.held or leg.describe())
        except passing:
            if not stop.is_set():
                raise


@contextmanager
def asked_by_signals() -> Iterator[Asked]:
    """SIGTERM and SIGINT ask to stop, SIGHUP to read settings again; handlers come back after."""
    asked = Asked()
    wishes = {
        signal.SIGTERM: asked.stop,
        signal.SIGINT: asked.stop,
        signal.SIGHUP: asked.reload,
    }

    def set_it(number: int, _frame: FrameType | None) -> None:
        wishes[signal.Signals(number)].set()

    before = {number: signal.signal(number, set_it) for number in wishes}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Hand batches over to a thread that writes them, one at a time, while the next is gathered.

Left: the loop's thread, which lays down a parcel. If the writing thread is free, the
parcel is its own from then on; else the loop may take it back: so what arrives while
PostgreSQL is busy joins the parcel that waits, and nothing waits while it is idle.
Right: `write`, called by the thread.

There are at most two batches: the one that is being written, and the one that waits.
What `write` raises is raised to the loop's thread, at its next call here; after that
nothing is written any more. While nothing is laid down or under way (see `drain`),
whatever `write` uses belongs to the loop's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Parcel = TypeVar("Parcel")


class HandOver(Generic[Parcel]):
    """See the module. All methods are for the loop's thread."""

    def __init__(self, write: Callable[[Parcel], None]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._laid = threading.Condition(self._lock)
        self._taken = threading.Condition(self._lock)
        self._waiting: Parcel | None = None
        self._begun: Parcel | None = None
        """Being written, or about to be: the thread has yet to wake."""
        self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="loader-writer", daemon=True)
        self._thread.start()

    def offer(self, parcel: Parcel) -> None:
        """Lay a parcel down. There must be none."""
        with self._lock:
            self._check()
            assert self._waiting is None
            if self._begun is None:
                self._begun = parcel
                self._laid.notify()
            else:
                self._waiting = parcel

    def reclaim(self) -> Parcel | None:
        """Take back what lies there; None where the thread has it, or there is nothing."""
        with self._lock:
            self._check()
            parcel, self._waiting = self._waiting, None
            return parcel

    def settle(self) -> None:
        """Wait until the thread has taken what lies there."""
        with self._lock:
            while self._waiting is not None and self._error is None:
                self._taken.wait()
            self._check()

    def drain(self) -> None:
        """Wait until everything laid down is written."""
        with self._lock:
            while (self._waiting is not None or self._begun is not None) and self._error is None:
                self._taken.wait()
            self._check()

    @property
    def idle(self) -> bool:
        """Is everything written?"""
        with self._lock:
            self._check()
            return self._waiting is None and self._begun is None

    def stop(self, wait: float) -> bool:
        """Begin nothing any more; True if the thread ends within `wait` seconds."""
        with self._lock:
            self._stopped = True
            self._waiting = None
            self._laid.notify()
        self._thread.join(wait)
        return not self._thread.is_alive()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (parcel := self._next()) is not None:
            try:
                self._write(parcel)
            except BaseException as error:  # the loop raises it in its own thread
                self._end(error)
                return
            self._end(None)

    def _next(self) -> Parcel | None:
        with self._lock:
            while self._begun is None and not self._stopped:
                self._laid.wait()
            return self._begun

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            self._begun, self._waiting = self._waiting, None
            self._error = error
            self._taken.notify()

"""Wait for a condition with a deadline: the only way anything here waits.

From the left comes a question that can be asked again and again; to the right
goes its first truthy answer, or DeadlineExpired saying what never happened.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


class DeadlineExpired(AssertionError):
    """What we waited for did not happen in time; in a test this is a failure."""


def wait_until(
    predicate: Callable[[], Answer],
    deadline: float = 10.0,
    what: str | Callable[[], str] = "the condition",
    every: float = 0.02,
) -> Answer:
    """Ask `predicate` every `every` seconds and return its first truthy answer.

    After `deadline` seconds DeadlineExpired is raised with `what` in its
    message; a callable `what` is asked only then, so it may describe the state
    that was found instead. Exceptions of `predicate` pass through.
    """
    pause = threading.Event()
    end = time.monotonic() + deadline
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() >= end:
            described = what() if callable(what) else what
            raise DeadlineExpired(f"waited {deadline:g} s in vain for: {described}")
        pause.wait(every)

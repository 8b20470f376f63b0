"""What a process of ours keeps to itself, from its first moment on.

Left: a program that is about to run, with passwords in its environment perhaps. Right: the same
program, of which nobody learns what it has in memory: no core dump is written of it, no other
process of its account may read its memory or its environment, no process that it starts inherits
a password, and an exception that nobody expected is told by its type and the places that it
passed, without its message, since that may quote a row.

Passwords leave `os.environ`, not the process: settings are read again at SIGHUP, from
`environment()`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from config.errors import PREFIXES
from config.logs import safe_message

_SET_DUMPABLE: Final = 4
"""PR_SET_DUMPABLE of <linux/prctl.h>: 0 also hides /proc/PID/mem and environ from our own uid.

RLIMIT_CORE alone does not do: the kernel ignores it where a program takes the dumps (core(5)).
"""
_PASSWORDS: Final = tuple(f"{prefix}_PASSWORD" for prefix in PREFIXES.values())
_CRASHED: Final = 1

_taken: dict[str, str] = {}


def run_sealed(program: Callable[[], None], name: str) -> None:
    """Run a command line that keeps to itself what it knows; `name` is what it calls itself."""
    seal(name)
    try:
        program()
    except Exception as error:
        _tell(name, error)
        sys.exit(_CRASHED)


def seal(name: str) -> None:
    """Keep to ourselves from now on what we know."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _hide_from_our_own_account()
    take_passwords()
    _hook(name)


def environment() -> Mapping[str, str]:
    """The environment with the passwords that were taken out of it; what is set now wins."""
    return {**_taken, **os.environ}


def take_passwords() -> None:
    """Remember the servers' passwords, and take them out of what children inherit."""
    for variable in _PASSWORDS:
        if variable in os.environ:
            _taken[variable] = os.environ.pop(variable)


def _hide_from_our_own_account() -> None:
    if sys.platform != "linux":
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_DUMPABLE")


def _hook(name: str) -> None:
    """Python prints a message with every traceback, wherever one escapes."""

    def of_main(_type: type[BaseException], error: BaseException, _traceback: Any) -> None:
        _tell(name, error)

    def of_thread(given: threading.ExceptHookArgs) -> None:
        if given.exc_value is not None and not isinstance(given.exc_value, SystemExit):
            _tell(name, given.exc_value)

    def of_finalizer(given: Any) -> None:
        if given.exc_value is not None:
            _tell(name, given.exc_value)

    sys.excepthook = of_main
    threading.excepthook = of_thread
    sys.unraisablehook = of_finalizer


def _tell(name: str, error: BaseException) -> None:
    if structlog.is_configured():
        structlog.get_logger().error("crashed", exc_info=error)
    print(f"{name}: {told(error)}", file=sys.stderr)


def told(error: BaseException) -> str:
    """What may be shown of an exception that nobody expected: its type, and where it came from."""
    places = [
        f"  {frame.filename}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    return "\n".join([f"unexpected {safe_message(error)}; please report it", *places])

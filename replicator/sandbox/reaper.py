"""A companion process that ends our servers when we end, however we end.

From the left come lines on a pipe: a process to watch, one to forget, a
directory to remove. When the pipe closes, because its writer exited or was
killed, what is still watched is ended and what was marked is removed.
`prctl(PR_SET_PDEATHSIG)` would be shorter, but it fires when the starting
*thread* ends, and servers are started from short-lived threads too.

The file is also the program that the companion runs, so it imports nothing
but the standard library.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, cast

FAREWELL_SECONDS = 5.0


def started_at(pid: int) -> int | None:
    """The kernel's start time of `pid` in clock ticks; None if it is gone or a zombie.

    Together with the pid it names a process for good (proc(5), stat, field 22).
    """
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] not in "ZX":
            return int(fields[19])
    return None


def children_of(pid: int) -> list[int]:
    """The direct children of a process; [] when it is gone."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def send(pid: int, number: int) -> None:
    """Signal a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_with_children(pid: int) -> None:
    """SIGKILL a server and the processes it forked (PostgreSQL's have sessions of their own)."""
    offspring = [(child, started_at(child)) for child in children_of(pid)]
    send(pid, signal.SIGKILL)
    for child, birth in offspring:
        if birth is not None and started_at(child) == birth:
            send(child, signal.SIGKILL)


class Reaper:
    """Our end of the pipe; one companion for each process that starts servers."""

    _ours: Reaper | None = None
    _guard = threading.Lock()

    def __init__(self) -> None:
        self._owner = os.getpid()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            text=True,
            cwd="/",
            start_new_session=True,  # Ctrl-C in our terminal is not meant for it
        )
        self._process, self._pipe = process, cast("IO[str]", process.stdin)
        atexit.register(self.close)

    @classmethod
    def ours(cls) -> Reaper:
        """The companion of this very process: a fork must not share its parent's."""
        with cls._guard:
            if cls._ours is None or cls._ours._owner != os.getpid():
                cls._ours = Reaper()
            return cls._ours

    def watch(self, pid: int, farewell: int) -> None:
        """End `pid` by signal `farewell` (then SIGKILL) when this process ends."""
        self._tell({"watch": pid, "birth": started_at(pid), "farewell": int(farewell)})

    def forget(self, pid: int) -> None:
        self._tell({"forget": pid})

    def remove(self, directory: Path) -> None:
        """Delete `directory` when this process ends, after its servers."""
        self._tell({"remove": str(directory.absolute())})

    def close(self) -> None:
        """Everything is ended and removed when this returns."""
        if os.getpid() != self._owner or self._pipe.closed:
            return
        self._pipe.close()
        self._process.wait(FAREWELL_SECONDS * 4)

    def _tell(self, order: dict[str, object]) -> None:
        with self._guard:
            self._pipe.write(json.dumps(order) + "\n")
            self._pipe.flush()


def _serve(orders: IO[str]) -> None:
    """The companion: collect orders until the pipe closes, then carry them out."""
    watched: dict[int, tuple[int | None, int]] = {}
    marked: set[str] = set()
    for line in orders:
        order = json.loads(line)
        if "watch" in order:
            watched[order["watch"]] = (order["birth"], order["farewell"])
        elif "forget" in order:
            watched.pop(order["forget"], None)
        else:
            marked.add(order["remove"])
    _end_all(watched)
    for directory in marked:
        shutil.rmtree(directory, ignore_errors=True)


def _end_all(watched: dict[int, tuple[int | None, int]]) -> None:
    def alive() -> list[int]:
        return [pid for pid, (birth, _) in watched.items() if birth and started_at(pid) == birth]

    for pid in alive():
        send(pid, watched[pid][1])
    end = time.monotonic() + FAREWELL_SECONDS
    while alive() and time.monotonic() < end:
        time.sleep(0.02)
    for pid in alive():
        kill_with_children(pid)


if __name__ == "__main__":
    _serve(sys.stdin)

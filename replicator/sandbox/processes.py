"""One database server process: start, readiness, stop, SIGKILL, and knowing it again later.

From the left come a directory that is the server's own and a port; to the
right stands a process that either ends with us (the reaper sees to it) or,
detached, outlives us and is recognised by the file `process` in its directory:
its pid and kernel start time, which together cannot be anyone else's.
What differs between MariaDB and PostgreSQL is left to subclasses.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replicator.sandbox.reaper import Reaper, kill_with_children, send, started_at
from replicator.sandbox.waiting import DeadlineExpired, wait_until

# Below Linux's ephemeral range: while a server is down between kill and restart,
# no outgoing connection can take its port.
PORTS = range(20_000, 32_000)
_PARTS = 12
START_SECONDS = 60.0
STOP_SECONDS = 60.0


class ServerFailed(RuntimeError):
    """A server did not start or stop; the message ends with its error log."""


def free_port() -> int:
    """A loopback port that nobody listens on now; a collision later is tried again by `start`.

    No port is given twice by a process, nor by two processes: what was given and is not
    listened on, yet or for a while, would seem free. (Only the thirteenth process at a time shares,
    and only a process that asks for more than a thousand begins again.)
    """
    with _ports_guard:
        ports = _ports.get(os.getpid()) or _ports.setdefault(os.getpid(), _claim())
        for _ in range(len(ports)):
            port = ports[0]
            ports.rotate(-1)
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
                return port
    raise ServerFailed(f"no free port on 127.0.0.1 between {PORTS.start} and {PORTS.stop}")


_ports_guard = threading.Lock()
_ports: dict[int, deque[int]] = {}
"""What a process may give; a forked one claims a part of its own."""


def _claim() -> deque[int]:
    """The ports of a part that no other process has, in an order of chance."""
    for number in range(_PARTS):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0opendental-replicator-ports-{number}")
        except OSError:
            claim.close()
            continue
        claim.detach()  # open, and with it the part ours, until the process ends
        return _shuffled(PORTS[number::_PARTS])
    return _shuffled(PORTS)


def _shuffled(ports: Sequence[int]) -> deque[int]:
    return deque(random.SystemRandom().sample(ports, len(ports)))


def new_password(file: Path) -> str:
    """A random password, kept in `file` for its owner alone."""
    password = secrets.token_urlsafe(16)
    file.touch(mode=0o600)
    file.write_text(password)
    return password


def tail(path: Path, size: int = 4000) -> str:
    """The last `size` bytes of a log; "" when there is none."""
    with contextlib.suppress(OSError), path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - size))
        return log.read().decode(errors="replace")
    return ""


@dataclass(frozen=True, slots=True)
class RunAs:
    """The account that a server process runs as; None for our own."""

    uid: int | None = None
    gid: int | None = None


class ServerProcess(ABC):
    """A server with its data under `directory`, listening on 127.0.0.1:`port`."""

    farewell = signal.SIGKILL  # how the reaper ends it
    polite = signal.SIGTERM  # how stop() ends it
    run_as = RunAs()

    def __init__(self, directory: Path | str, *, port: int | None) -> None:
        self.directory = Path(directory).absolute()
        self.port = port or free_port()
        self._port_is_ours_to_choose = port is None
        self.variables: dict[str, str] = {}
        """Added to the environment of the next start."""
        self._detached = False
        self._watched = False

    # What subclasses know.

    @abstractmethod
    def prepare(self) -> None:
        """Make the data directory if it is not there yet."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The server's command line."""

    @abstractmethod
    def answers(self) -> bool:
        """Can one log in?"""

    @property
    def log_file(self) -> Path:
        return self.directory / "server.log"

    # What they share.

    @property
    def pid(self) -> int | None:
        """The running server's process id, whoever started it; None when it is down."""
        identity = self._identity()
        if identity is None:
            return None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(identity[0], os.WNOHANG)  # if it was our child and has ended, let it go
        return identity[0] if started_at(identity[0]) == identity[1] else None

    @property
    def running(self) -> bool:
        return self.pid is not None

    def errors(self, size: int = 4000) -> str:
        """The end of the server's error log."""
        return tail(self.log_file, size)

    def start(self, *, detach: bool = False, deadline: float = START_SECONDS) -> None:
        """Start and wait until one can log in. `detach`: the server survives this process."""
        self.launch(detach=detach)
        self.wait_ready(deadline)

    def launch(self, *, detach: bool = False) -> None:
        """Start without waiting, so that several servers start side by side."""
        if self.running:
            raise ServerFailed(f"{self} is running already, pid {self.pid}")
        self._detached = detach
        self.directory.mkdir(parents=True, exist_ok=True)
        self.prepare()
        self._spawn()

    def wait_ready(self, deadline: float = START_SECONDS) -> None:
        """Wait until one can log in; a port that was taken meanwhile is exchanged for another."""
        while not self._ready(deadline):
            if not (self._port_is_ours_to_choose and self._port_was_taken()):
                raise ServerFailed(f"{self} ended while starting:\n{self.errors()}")
            self.log_file.unlink(missing_ok=True)
            self.port = free_port()
            self._spawn()
        self._port_is_ours_to_choose = False  # a restart keeps the port

    def stop(self, deadline: float = STOP_SECONDS) -> None:
        """End the server in good order; nothing to do when it is down."""
        self._end(self.polite, deadline)

    def kill(self) -> None:
        """SIGKILL, as a crash would: what the server had not handed to the kernel is lost."""
        pid = self.pid
        if pid is not None:
            kill_with_children(pid)
            self._wait_gone(pid, STOP_SECONDS)

    def discard(self) -> None:
        """End the server the fastest way and delete its data."""
        self._end(self.farewell, STOP_SECONDS)
        shutil.rmtree(self.directory, ignore_errors=True)

    def signal(self, number: int) -> None:
        """Send any signal, such as SIGSTOP for a server that hangs."""
        pid = self.pid
        if pid is not None:
            send(pid, number)

    def __str__(self) -> str:
        return f"{type(self).__name__} on 127.0.0.1:{self.port}"

    # Inside.

    @property
    def _process_file(self) -> Path:
        return self.directory / "process"

    def _identity(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError, ValueError):
            pid, birth = self._process_file.read_text().split()
            return int(pid), int(birth)
        return None

    def _spawn(self) -> None:
        with self.log_file.open("ab") as log:
            child = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self._environment(),
                user=self.run_as.uid,
                group=self.run_as.gid,
                extra_groups=None if self.run_as.uid is None else [],
                start_new_session=True,  # Ctrl-C in our terminal is not meant for it
            )
        self._process_file.write_text(f"{child.pid} {started_at(child.pid) or 0}\n")
        self._watched = not self._detached
        if self._watched:
            Reaper.ours().watch(child.pid, self.farewell)
        child.returncode = 0  # from here on the process file is its record, not this object

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("TZ",) if name in os.environ}
        path = os.environ.get("PATH", os.defpath)
        return {"PATH": path, "LC_ALL": "C", **kept, **self.variables}

    def _ready(self, deadline: float) -> bool:
        """True when one can log in; False when the process has ended instead."""
        try:
            ended = wait_until(
                lambda: "no" if self.answers() else "yes" if not self.running else None,
                deadline,
                what=f"{self} to answer",
            )
        except DeadlineExpired as late:
            raise ServerFailed(f"{late}\n{self.errors()}") from late
        return ended == "no"

    def _port_was_taken(self) -> bool:
        return "address already in use" in self.errors().lower()

    def _end(self, number: int, deadline: float) -> None:
        pid = self.pid
        if pid is not None:
            send(pid, signal.SIGCONT)  # a stopped process would not hear us
            send(pid, number)
            self._wait_gone(pid, deadline)

    def _wait_gone(self, pid: int, deadline: float) -> None:
        try:
            wait_until(lambda: not self.running, deadline, what=f"{self} to end")
        except DeadlineExpired as late:
            kill_with_children(pid)
            raise ServerFailed(f"{late}; killed it\n{self.errors()}") from late
        if self._watched:
            Reaper.ours().forget(pid)

"""What the demo plays on: three servers, both daemons as real processes, a practice at work.

Left: a size and an engine. Right: a stage that is gone without a trace when its
context ends, however it ends: the reaper ends what outlives us and removes it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import Self

from config.settings import Settings, known_variables
from replicator.sandbox import data, schema
from replicator.sandbox.cluster import Engine, Sandbox
from replicator.sandbox.processes import tail
from replicator.sandbox.reaper import Reaper
from replicator.sandbox.workload import Workload

WORKERS = 3
STEPS_PER_SECOND = 40.0
"""Of each worker: far more than a practice does, and within what two cores show well."""
FAREWELL_SECONDS = 15.0
_PROGRAMS = {"replicator": "replicator.cli", "loader": "loader.cli"}


class DemoFailed(Exception):
    """Something on the stage broke; the message says what."""


class Stage:
    """The servers, and what runs against them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.directory = Path(tempfile.mkdtemp(prefix="opendental-demo-"))
        self.directory.chmod(0o711)  # PostgreSQL runs as another account than root
        Reaper.ours().remove(self.directory)
        self.sandbox = Sandbox(self.directory)
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.workers: list[Workload] = []
        self._broken: list[BaseException] = []

    def __enter__(self) -> Self:
        try:
            self.sandbox.up(self._engine)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(FAREWELL_SECONDS)
        self.stop_daemons()
        self.sandbox.remove()

    @property
    def settings(self) -> Settings:
        """What the daemons run with."""
        return self.sandbox.settings()

    # --- data ----------------------------------------------------------------------------

    def load(self, patients: int) -> int:
        """Create and fill the practice's tables; the number of rows."""
        with closing(self.sandbox.source_db.connect()) as connection:
            schema.create_tables(connection, self._engine)
            return sum(data.load(connection, patients).values())

    # --- daemons -------------------------------------------------------------------------

    def start_daemons(self) -> None:
        """Start both legs as an operator would, logging into the stage's directory."""
        env_file = self.directory / ".env"
        env_file.touch(mode=0o600)
        inherited = {k: v for k, v in os.environ.items() if k not in known_variables()}
        for name, module in _PROGRAMS.items():
            with self._log_file(name).open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", module, "run", "--env-file", str(env_file)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**inherited, **self.sandbox.env()},
                    start_new_session=True,  # Ctrl-C is for us; we end them in good order
                )
            Reaper.ours().watch(process.pid, signal.SIGTERM)
            self._daemons[name] = process

    def stop_daemons(self) -> None:
        """End both in good order, or at all."""
        for process in self._daemons.values():
            if process.poll() is None:
                process.terminate()
        for process in self._daemons.values():
            try:
                process.wait(FAREWELL_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            Reaper.ours().forget(process.pid)
        self._daemons.clear()

    def check(self) -> None:
        """Raise DemoFailed where a daemon has ended or a worker broke."""
        for name, process in self._daemons.items():
            if process.poll() is not None:
                raise DemoFailed(f"the {name} ended with exit code {process.returncode}")
        for error in self._broken:
            raise DemoFailed(f"the practice's work broke: {type(error).__name__}: {error}")

    def logs(self, lines: int = 15) -> dict[str, str]:
        """The ends of the daemons' logs."""
        return {
            name: "\n".join(tail(self._log_file(name), 20_000).splitlines()[-lines:])
            for name in _PROGRAMS
        }

    def _log_file(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    # --- the practice --------------------------------------------------------------------

    def open_practice(self) -> None:
        """Let several people work at once, some on the same rows."""
        connect = self.sandbox.source_db.connect
        for number in range(WORKERS):
            worker = Workload(connect, worker=number, shared=number > 0)
            thread = threading.Thread(target=self._work, args=(worker,), daemon=True)
            self.workers.append(worker)
            self._threads.append(thread)
            thread.start()

    def _work(self, worker: Workload) -> None:
        try:
            worker.run(self._stop, STEPS_PER_SECOND)
        except BaseException as error:
            self._broken.append(error)

    def close_practice(self) -> None:
        """Everybody goes home."""
        self._stop.set()
        for thread in self._threads:
            thread.join(FAREWELL_SECONDS)
        self.check()

    @property
    def steps(self) -> int:
        """Transactions that the practice has begun."""
        return sum(sum(worker.done.values()) for worker in self.workers)

    def execute(self, statement: str) -> None:
        """Run a statement on the source, as OpenDental's own upgrade would."""
        with closing(self.sandbox.source_db.connect()) as connection:
            connection.cursor().execute(statement)

"""`python -m bench.peers`: the pipeline's backlogs once more, carried by pg_chameleon.

pg_chameleon replicates MySQL to PostgreSQL as both our legs together do. It is installed from
PyPI into `.venv-peers`, an environment of its own, so that nothing that it needs meets ours; it
refuses to run as root, so that it then runs as PostgreSQL's account, as PostgreSQL does.
It gets the same data, on servers of the same make and size, as superuser on both; like our
daemons it is running, caught up with two empty tables, held by SIGSTOP while the backlog is
written, and timed from SIGCONT until the rows are there. The backlogs are small, for its pace.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from bench import practice
from bench.measure import Result, described
from bench.report import show, told
from bench.rig import Meter, Rig, Spent, children
from replicator.sandbox.reaper import Reaper
from replicator.sandbox.waiting import wait_until

ENVIRONMENT = Path(__file__).parents[1] / ".venv-peers"
REQUIRED = ("pg_chameleon==2.0.21", "setuptools<81")  # it still asks for pkg_resources
ROWS = {practice.WIDE: 5_000, practice.NARROW: 30_000}
TRANSACTIONS = 3_000
PATIENCE = 180.0
_SOURCE = "practice"

_CONFIGURATION = """
pid_dir: {home}/pid
log_dir: {home}/logs
log_dest: file
log_level: info
log_days_keep: 1
rollbar_key: ''
rollbar_env: ''
type_override: {{}}
pg_conn:
  host: 127.0.0.1
  port: "{postgres.port}"
  user: postgres
  password: "{postgres_password}"
  database: {database}
  charset: utf8
sources:
  {source_name}:
    db_conn:
      host: 127.0.0.1
      port: "{source.port}"
      user: root
      password: "{source_password}"
      charset: utf8
      connect_timeout: 10
    schema_mappings:
      opendental: chameleon
    limit_tables: []
    skip_tables: []
    grant_select_to: []
    lock_timeout: 120s
    my_server_id: 100
    replica_batch_size: 10000
    replay_max_rows: 10000
    batch_retention: 1 day
    copy_max_memory: 300M
    copy_mode: file
    out_dir: {home}
    sleep_loop: 1
    on_error_replay: exit
    on_error_read: exit
    auto_maintenance: disabled
    gtid_enable: false
    type: mysql
    keep_existing_schema: No
    net_read_timeout: 600
"""


class PeerFailed(RuntimeError):
    """pg_chameleon did not do as it was told; the message ends with its log."""


class Chameleon:
    """pg_chameleon, with a home of its own, between a rig's source and its PostgreSQL."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.home = rig.directory / "chameleon"
        self._database = rig.sandbox.analytics_db.name
        for folder in ("pid", "logs", ".pg_chameleon/configuration"):
            (self.home / folder).mkdir(parents=True)
        configuration = self.home / ".pg_chameleon/configuration/default.yml"
        configuration.touch(mode=0o600)
        configuration.write_text(self._configured())
        self._account = rig.sandbox.analytics.run_as
        if self._account.uid is not None:
            for path in (self.home, *self.home.rglob("*")):
                os.chown(path, self._account.uid, self._account.gid or 0)

    def _configured(self) -> str:
        source, _, postgres = self._rig.sandbox.servers
        return _CONFIGURATION.format(
            home=self.home,
            source=source,
            source_password=(source.directory / "root.password").read_text(),
            postgres=postgres,
            postgres_password=(postgres.directory / "postgres.password").read_text(),
            database=self._database,
            source_name=_SOURCE,
        )

    def start(self) -> None:
        """Take over the two tables, empty as they are, and follow them from there."""
        self._tell("create_replica_schema")
        self._tell("add_source", "--source", _SOURCE)
        self._tell("init_replica", "--source", _SOURCE, "--debug")  # else it says no reason
        self._wait_status("initialised")
        self._tell("start_replica", "--source", _SOURCE)
        self._wait_status("running")
        wait_until(lambda: len(self._pids()) >= 3, PATIENCE, what="its two workers")
        Reaper.ours().watch(self._pids()[0], signal.SIGTERM)

    def stop(self) -> None:
        """End it, held or not."""
        for pid in reversed(self._pids()):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    @contextmanager
    def held(self) -> Iterator[Meter]:
        """It stands still inside; the meter runs from the end."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)
        meter = Meter({})
        yield meter
        source, _, postgres = self._rig.sandbox.servers
        names = dict(
            zip(("chameleon, all of it", "its reader", "its replayer"), self._pids(), strict=False)
        )
        meter.begin({**names, "source": source.pid or 0, "postgres": postgres.pid or 0})
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        with suppress(OSError, ValueError):
            daemon = int((self.home / f"pid/{_SOURCE}.pid").read_text())
            return [daemon, *children(daemon)]
        return []

    def _tell(self, *words: str) -> None:
        done = subprocess.run(
            [ENVIRONMENT / "bin/chameleon.py", *words],
            env={"HOME": str(self.home), "PATH": os.environ["PATH"], "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            cwd=self.home,
            user=self._account.uid,
            group=self._account.gid,
            extra_groups=None if self._account.uid is None else [],
        )
        if done.returncode:
            raise PeerFailed(f"{words[0]}: {done.stdout[-500:]}{done.stderr[-1500:]}{self.log()}")

    def _wait_status(self, wanted: str) -> None:
        def there() -> bool:
            [(status,)] = self._rig.query_as_superuser(
                "SELECT enm_status::text FROM sch_chameleon.t_sources"
            )
            if status == "error":
                raise PeerFailed(f"it ended with an error\n{self.log()}")
            return bool(status == wanted)

        wait_until(there, PATIENCE, what=lambda: f"status {wanted}\n{self.log()}", every=0.2)

    def log(self) -> str:
        """The ends of its logs."""
        return "\n".join(p.read_text()[-1500:] for p in sorted((self.home / "logs").glob("*.log")))


def run() -> Iterator[Result]:
    """pg_chameleon's three figures."""
    with Rig({"source": {"binlog_row_metadata": "FULL"}}) as rig:  # its reader needs names
        with closing(rig.connect()) as connection:
            practice.create(connection)
        chameleon = Chameleon(rig)
        try:
            chameleon.start()
            wide, narrow = ROWS[practice.WIDE], ROWS[practice.NARROW]
            yield _measured(
                rig, chameleon, "wide_rows_s", wide, lambda c: practice.load_wide(c, wide)
            )
            yield _measured(
                rig, chameleon, "narrow_rows_s", narrow, lambda c: practice.load_narrow(c, narrow)
            )
            yield _measured(
                rig, chameleon, "oltp_trx_s", TRANSACTIONS,
                lambda c: practice.one_row_transactions(c, TRANSACTIONS, 1_000_000),
            )  # fmt: skip
        finally:
            chameleon.stop()


def _measured(
    rig: Rig, chameleon: Chameleon, name: str, units: int, write: Callable[[Any], None]
) -> Result:
    with chameleon.held() as meter, closing(rig.connect()) as connection:
        write(connection)
    wait_until(
        lambda: (
            _sums(rig.sandbox.source_db.query, "opendental.")
            == _sums(rig.query_as_superuser, "chameleon.")
        ),
        PATIENCE,
        what=lambda: f"pg_chameleon to show it\n{chameleon.log()}",
        every=0.05,
    )
    spent: Spent = meter.read()
    return Result(
        f"peer_chameleon_{name}",
        round(units / spent.seconds),
        details={"units": units, "runs": described(spent.runs(units))},
    )


def _sums(query: Callable[[str], list[tuple[Any, ...]]], schema: str) -> list[int]:
    """What tells that all is there: counts, and the sum of what updates change."""
    quote = '"' if schema == "chameleon." else ""
    amount, wide = f"{quote}PayAmt{quote}", f"SELECT COUNT(*) FROM {schema}{practice.WIDE}"
    narrow = f"SELECT COUNT(*), COALESCE(SUM({amount}), 0) FROM {schema}{practice.NARROW}"
    return [round(value) for statement in (wide, narrow) for value in query(statement)[0]]


def provide() -> None:
    """`.venv-peers` with what is required in it."""
    if (ENVIRONMENT / "bin/chameleon.py").exists():
        return
    # Another account than root must be able to run it: a Python in root's home would not do.
    python = shutil.which("python3", path="/usr/bin") if os.geteuid() == 0 else None
    subprocess.run(
        [python or sys.executable, "-m", "venv", "--clear", "--without-pip", str(ENVIRONMENT)],
        check=True,
    )
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(ENVIRONMENT / "bin/python"), "install",
         "--quiet", "--disable-pip-version-check", *REQUIRED],
        check=True,
    )  # fmt: skip


def main() -> int:
    """Install, measure, show."""
    provide()
    show(list(told(run())))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

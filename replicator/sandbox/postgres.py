"""PostgreSQL as throwaway servers on free loopback ports.

From the left come a directory and options; to the right go a port and open
connections. The data directory is a copy of a cached template; the superuser's
password is random and kept beside the data. PostgreSQL refuses to run as root:
for root, an unprivileged account runs it, from where that account can reach.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from replicator.sandbox.installations import (
    PostgresName,
    postgres_account,
    postgres_installation,
)
from replicator.sandbox.processes import ServerFailed, ServerProcess, new_password
from replicator.sandbox.templates import copy_postgres_template


class PostgreSQLServer(ServerProcess):
    """A PostgreSQL server; `options` are settings as in postgresql.conf and win over ours."""

    farewell = signal.SIGQUIT  # at once, but it gives back its shared memory
    polite = signal.SIGINT  # fast: sessions are ended, not waited for

    def __init__(
        self,
        directory: Path | str,
        *,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        durable: bool = False,
        name: PostgresName = "postgresql",
    ) -> None:
        super().__init__(directory, port=port)
        self.installation = postgres_installation(name)
        self.options = dict(options or {})
        self.durable = durable
        self.run_as = postgres_account()

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def prepare(self) -> None:
        if self.data.exists():
            return
        home = self._reachable_home()
        copy_postgres_template(self.installation, home / "data")
        if home != self.directory:
            self.data.unlink(missing_ok=True)  # a link to what a cleaner has removed
            self.data.symlink_to(home / "data")
        (self.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        password = new_password(self._secret)
        self._single_user(f"ALTER ROLE postgres PASSWORD '{password}'\n")

    def discard(self) -> None:
        home = self.data.resolve().parent
        super().discard()
        if home != self.directory:
            shutil.rmtree(home, ignore_errors=True)

    def command(self) -> Sequence[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            **_POSTGRES_SMALL,
            **({} if self.durable else _POSTGRES_CARELESS),
            **self.options,
        }
        flags = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return [self.installation.postgres("postgres"), "-D", str(self.data.resolve()), *flags]

    def answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(
        self,
        user: str = "postgres",
        database: str = "postgres",
        password: str | None = None,
        *,
        autocommit: bool = True,
        **options: Any,
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection; the superuser's password is filled in, others' must be given."""
        if password is None:
            password = self._secret.read_text() if user == "postgres" else ""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            dbname=database,
            password=password,
            autocommit=autocommit,
            connect_timeout=10,
            **options,
        )

    @property
    def _secret(self) -> Path:
        return self.directory / "postgres.password"

    def _reachable_home(self) -> Path:
        """Our directory, or one in /var/tmp if the server's account cannot reach ours."""
        uid = self.run_as.uid
        if uid is None:
            return self.directory
        self.directory.chmod(0o711)
        if all(folder.stat().st_mode & 0o001 for folder in self.directory.parents):
            return self.directory
        lasting = Path("/var/tmp")  # noqa: S108  (mkdtemp makes a private folder there)
        home = Path(
            tempfile.mkdtemp(
                prefix="opendental-analytics-", dir=lasting if lasting.is_dir() else None
            )
        )
        home.chmod(0o711)
        return home

    def _single_user(self, statement: str) -> None:
        """Run a statement in PostgreSQL's single-user mode: nobody can connect meanwhile."""
        data = str(self.data.resolve())
        done = subprocess.run(
            [
                self.installation.postgres("postgres"),
                "--single",
                "-D",
                data,
                "-c",
                "fsync=off",
                "postgres",
            ],
            input=statement,
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
            cwd="/",
            user=self.run_as.uid,
            group=self.run_as.gid,
            extra_groups=None if self.run_as.uid is None else [],
        )
        if done.returncode:
            raise ServerFailed(f"PostgreSQL's single-user mode failed:\n{done.stderr[-2000:]}")


_POSTGRES_SMALL = {
    "shared_buffers": "64MB",
    "max_connections": "60",
    "max_wal_size": "1GB",
    "jit": "off",
    "lc_messages": "C",
}
_POSTGRES_CARELESS = {"fsync": "off", "full_page_writes": "off"}

"""MariaDB and PostgreSQL as throwaway servers on free loopback ports.

From the left come a directory and options; to the right go a port and open
connections. Data directories are copies of a cached template; the superuser's
password is random and kept beside the data. Without `durable` nothing waits
for the disk, yet what was committed survives SIGKILL of the server, for the
kernel holds it: only a crash of the whole machine would lose it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pymysql
from pymysql.cursors import Cursor

from replicator.sandbox.processes import ServerFailed, ServerProcess
from replicator.sandbox.templates import (
    REDO_LOG,
    copy_mariadb_template,
    copy_postgres_template,
    mariadbd,
    postgres_account,
    postgres_program,
)

Options = Mapping[str, str | None]

SOURCE_OPTIONS: Options = {
    "log_bin": "source-bin",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "default_storage_engine": "MyISAM",
    "character_set_server": "utf8mb3",
    "sql_mode": "",  # as OpenDental sets it globally
}
REPLICA_OPTIONS: Options = {
    "log_bin": "replica-bin",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_row_metadata": "FULL",
    "default_storage_engine": "InnoDB",
    "character_set_server": "utf8mb4",
}


class MariaDBServer(ServerProcess):
    """A MariaDB server; `options` become --key=value (--key alone for None) and win over ours."""

    def __init__(
        self,
        directory: Path | str,
        *,
        port: int | None = None,
        options: Options | None = None,
        server_id: int = 1,
        durable: bool = False,
    ) -> None:
        super().__init__(directory, port=port)
        self.options = dict(options or {})
        self.server_id = server_id
        self.durable = durable

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def prepare(self) -> None:
        if self.data.exists():
            return
        copy_mariadb_template(self.data)
        password = _new_password(self._secret)
        first = self._first_statements
        first.touch(mode=0o600)
        first.write_text(
            "SET sql_log_bin=0;\n"
            f"ALTER USER 'root'@'127.0.0.1' IDENTIFIED BY '{password}';\n"
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{password}';\n"
            "DELETE FROM mysql.global_priv WHERE User = ''"
            " OR User = 'root' AND Host NOT IN ('127.0.0.1', 'localhost');\n"
            "FLUSH PRIVILEGES;\n"
        )

    def command(self) -> Sequence[str]:
        first = self._first_statements
        base: dict[str, str | None] = {
            "datadir": str(self.data),
            "port": str(self.port),
            "bind_address": "127.0.0.1",
            "socket": "mysql.sock",  # relative to the data directory: never too long
            "pid_file": "mysql.pid",
            "server_id": str(self.server_id),
            "skip_name_resolve": None,
            **_SMALL_AND_QUICK,
            **(_MARIADB_DURABLE if self.durable else _MARIADB_CARELESS),
            **({"init_file": str(first)} if first.exists() else {}),
            **({"user": "root"} if os.geteuid() == 0 else {}),
            **self.options,
        }
        flags = [f"--{key}" if value is None else f"--{key}={value}" for key, value in base.items()]
        return [mariadbd(), "--no-defaults", *flags]

    def answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.MySQLError:
            return False
        self._first_statements.unlink(missing_ok=True)
        return True

    def connect(
        self,
        user: str = "root",
        database: str | None = None,
        password: str | None = None,
        **options: Any,
    ) -> pymysql.Connection[Cursor]:
        """An autocommit connection; root's password is filled in, others' must be given."""
        if password is None:
            password = self._secret.read_text() if user == "root" else ""
        chosen: dict[str, Any] = {
            "autocommit": True,
            "connect_timeout": 10,
            "read_timeout": 120,
            "charset": "utf8mb4",
            "ssl_disabled": True,  # on loopback; building a TLS context takes longer than the rest
            **options,
        }
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            password=password,
            database=database,
            **chosen,
        )

    @property
    def _secret(self) -> Path:
        return self.directory / "root.password"

    @property
    def _first_statements(self) -> Path:
        return self.directory / "first.sql"


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
    ) -> None:
        super().__init__(directory, port=port)
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
        copy_postgres_template(home / "data")
        if home != self.directory:
            self.data.unlink(missing_ok=True)  # a link to what a cleaner has removed
            self.data.symlink_to(home / "data")
        (self.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        password = _new_password(self._secret)
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
        return [postgres_program("postgres"), "-D", str(self.data.resolve()), *flags]

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
            [postgres_program("postgres"), "--single", "-D", data, "-c", "fsync=off", "postgres"],
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


def _new_password(file: Path) -> str:
    password = secrets.token_urlsafe(16)
    file.touch(mode=0o600)
    file.write_text(password)
    return password


_SMALL_AND_QUICK: Options = {
    "innodb_buffer_pool_size": "128M",
    "innodb_log_file_size": REDO_LOG,
    "innodb_buffer_pool_dump_at_shutdown": "OFF",
    "innodb_buffer_pool_load_at_startup": "OFF",
    "innodb_use_native_aio": "OFF",  # many servers would exhaust the machine's aio slots
    "key_buffer_size": "16M",
    "aria_pagecache_buffer_size": "16M",
    "max_allowed_packet": "64M",
    "performance_schema": "OFF",
}
_MARIADB_DURABLE: Options = {"innodb_flush_log_at_trx_commit": "1", "sync_binlog": "1"}
_MARIADB_CARELESS: Options = {
    "innodb_flush_log_at_trx_commit": "2",  # handed to the kernel at each commit
    "sync_binlog": "0",
    "innodb_flush_method": "nosync",
    "innodb_doublewrite": "OFF",
}
_POSTGRES_SMALL = {
    "shared_buffers": "64MB",
    "max_connections": "60",
    "max_wal_size": "1GB",
    "jit": "off",
    "lc_messages": "C",
}
_POSTGRES_CARELESS = {"fsync": "off", "full_page_writes": "off"}

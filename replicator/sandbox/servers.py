"""MariaDB and MySQL as throwaway servers on free loopback ports.

From the left come a directory and options; to the right go a port and open
connections. Data directories are copies of a cached template; the superuser's
password is random and kept beside the data. Without `durable` nothing waits
for the disk, yet what was committed survives SIGKILL of the server, for the
kernel holds it: only a crash of the whole machine would lose it.

The families differ in a few options and in how root gets its password; `BinlogServer`
is what they share, and `new_server` makes one of either by its name.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pymysql
from pymysql.cursors import Cursor

from replicator.sandbox.installations import MySQLName, mysql_installation
from replicator.sandbox.processes import ServerProcess, new_password
from replicator.sandbox.templates import REDO_LOG, copy_mysql_template, language_options

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


class BinlogServer(ServerProcess):
    """A server of either family; `options` become --key=value (--key alone for None), and win."""

    names: tuple[MySQLName, ...]
    """Which servers the class can run; the first unless another is asked for."""

    def __init__(
        self,
        directory: Path | str,
        *,
        port: int | None = None,
        options: Options | None = None,
        server_id: int = 1,
        durable: bool = False,
        name: MySQLName | None = None,
    ) -> None:
        super().__init__(directory, port=port)
        self.installation = mysql_installation(name or self.names[0])
        self.options = dict(options or {})
        self.server_id = server_id
        self.durable = durable

    @abstractmethod
    def first_statements(self, password: str) -> Sequence[str]:
        """What gives root its password, before anybody can log in."""

    @abstractmethod
    def family_options(self) -> Options:
        """The options that only this family knows, or spells so."""

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def prepare(self) -> None:
        # A killed MySQL leaves it, and believes it while its process is not yet buried.
        (self.data / "mysql.sock.lock").unlink(missing_ok=True)
        self._scratch.mkdir(exist_ok=True)
        if self.data.exists():
            return
        copy_mysql_template(self.installation, self.data)
        password = new_password(self._secret)
        first = self._first_file
        first.touch(mode=0o600)
        first.write_text(";\n".join([*self.first_statements(password), ""]))

    def command(self) -> Sequence[str]:
        first = self._first_file
        base: dict[str, str | None] = {
            **language_options(self.installation),
            "datadir": str(self.data),
            "tmpdir": str(self._scratch),
            "port": str(self.port),
            "bind_address": "127.0.0.1",
            "socket": "mysql.sock",  # relative to the data directory: never too long
            "pid_file": "mysql.pid",
            "server_id": str(self.server_id),
            "skip_name_resolve": None,
            **_SMALL_AND_QUICK,
            **(_DURABLE if self.durable else _CARELESS),
            **self.family_options(),
            **({"init_file": str(first)} if first.exists() else {}),
            **({"user": "root"} if os.geteuid() == 0 else {}),
            **self.options,
        }
        flags = [f"--{key}" if value is None else f"--{key}={value}" for key, value in base.items()]
        return [*self.installation.server(), "--no-defaults", *flags]

    def answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.MySQLError:
            return False
        self._first_file.unlink(missing_ok=True)
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
    def _scratch(self) -> Path:
        """Temporary tables' own directory: a starting server deletes all that it finds in it."""
        return self.directory / "tmp"

    @property
    def _first_file(self) -> Path:
        return self.directory / "first.sql"


class MariaDBServer(BinlogServer):
    """A MariaDB server: the machine's own, or 11.8 by its name."""

    names = ("mariadb", "mariadb-11.8")

    def first_statements(self, password: str) -> Sequence[str]:
        return (
            "SET sql_log_bin=0",
            f"ALTER USER 'root'@'127.0.0.1' IDENTIFIED BY '{password}'",
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{password}'",
            "DELETE FROM mysql.global_priv WHERE User = ''"
            " OR User = 'root' AND Host NOT IN ('127.0.0.1', 'localhost')",
            "FLUSH PRIVILEGES",
        )

    def family_options(self) -> Options:
        return {"innodb_log_file_size": REDO_LOG, "aria_pagecache_buffer_size": "16M"}


class MySQLServer(BinlogServer):
    """A MySQL server, as `make setup-matrix` fetched it."""

    names = ("mysql-9.7",)

    def first_statements(self, password: str) -> Sequence[str]:
        return (
            "SET sql_log_bin=0",
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{password}'",
            f"CREATE USER 'root'@'127.0.0.1' IDENTIFIED BY '{password}'",
            "GRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION",
        )

    def family_options(self) -> Options:
        return {
            # A practice on MyISAM mixes engines in transactions, which GTIDs forbid.
            **(_NO_GTIDS if "MyISAM" in self.options.values() else {}),
            "innodb_redo_log_capacity": REDO_LOG,
            "mysqlx": "OFF",
            "secure_file_priv": "NULL",
            "log_error_suppression_list": "MY-013360",  # of options that will go one day
        }


_KINDS: tuple[type[BinlogServer], ...] = (MariaDBServer, MySQLServer)


def new_server(name: MySQLName, directory: Path | str, **arguments: Any) -> BinlogServer:
    """A server of that name, not started; further arguments as `BinlogServer` takes them."""
    kind = next(kind for kind in _KINDS if name in kind.names)
    return kind(directory, name=name, **arguments)


_SMALL_AND_QUICK: Options = {
    "innodb_buffer_pool_size": "128M",
    "innodb_buffer_pool_dump_at_shutdown": "OFF",
    "innodb_buffer_pool_load_at_startup": "OFF",
    "innodb_use_native_aio": "OFF",  # many servers would exhaust the machine's aio slots
    "key_buffer_size": "16M",
    "max_allowed_packet": "64M",
    "performance_schema": "OFF",
}
_NO_GTIDS: Options = {"gtid_mode": "OFF", "enforce_gtid_consistency": "OFF"}
_DURABLE: Options = {"innodb_flush_log_at_trx_commit": "1", "sync_binlog": "1"}
_CARELESS: Options = {
    "innodb_flush_log_at_trx_commit": "2",  # handed to the kernel at each commit
    "sync_binlog": "0",
    "innodb_flush_method": "nosync",
    "innodb_doublewrite": "OFF",
}

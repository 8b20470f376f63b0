"""Data directories made once by each server's own installer, then copied for every server.

From the left comes the wish for an empty data directory; to the right goes a
copy of a template kept in the user's cache, keyed by server version, recipe and
account. Making one takes a second or two, copying it a tenth of that.
"""

from __future__ import annotations

import fcntl
import glob
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from replicator.sandbox.processes import RunAs, ServerFailed

RECIPE = 1  # raise it when a template is made differently
REDO_LOG = "64M"


class ProgramMissing(ServerFailed):
    """A server's program is not installed; the message names its Debian package."""


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
def mariadbd() -> str:
    return find_program(["mariadbd"], ["/usr/libexec", "/usr/sbin"], "mariadb-server")


@cache
def postgres_program(name: str) -> str:
    """`postgres`, `initdb` and so on, of the newest version installed."""
    return find_program([name], ["/usr/lib/postgresql/*/bin"], "postgresql")


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


def copy_mariadb_template(data: Path) -> None:
    """An empty MariaDB data directory at `data`: root without a password, nobody else."""
    _copy(_template("mariadb", mariadbd(), _install_mariadb), data)


def copy_postgres_template(data: Path) -> None:
    """An empty PostgreSQL cluster at `data`: superuser postgres, UTF-8, C collation."""
    _copy(_template("postgresql", postgres_program("postgres"), _install_postgres), data)


def _install_mariadb(data: Path) -> None:
    installer = find_program(["mariadb-install-db"], ["/usr/bin"], "mariadb-server")
    own = ["--user=root"] if os.geteuid() == 0 else []
    _run(
        [
            installer,
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            f"--innodb-log-file-size={REDO_LOG}",
            "--innodb-use-native-aio=OFF",
            *own,
        ],
        RunAs(),
    )


def _install_postgres(data: Path) -> None:
    account = postgres_account()
    if account.uid is not None:
        os.chown(data.parent, account.uid, account.gid or 0)
    _run(
        [
            postgres_program("initdb"),
            f"--pgdata={data}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ],
        account,
    )


def _run(command: Sequence[str], account: RunAs) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        errors="replace",
        timeout=120,
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=None if account.uid is None else [],
    )
    if done.returncode:
        raise ServerFailed(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _template(kind: str, program: str, install: Callable[[Path], None]) -> Path:
    """The template directory for `program`, made now if it is not in the cache."""
    root = _cache_root()
    template = root / f"{kind}-{_version(program)}-recipe{RECIPE}"
    with _locked(root):
        if not template.exists():
            with tempfile.TemporaryDirectory(prefix="opendental-template-") as scratch:
                fresh = Path(scratch) / "data"
                install(fresh)
                shutil.rmtree(partial := template.with_suffix(".partial"), ignore_errors=True)
                _copy(fresh, partial)
                partial.rename(template)
    return template


def _version(program: str) -> str:
    told = subprocess.check_output([program, "--version"], text=True, timeout=30)
    found = re.search(r"\d+(\.\d+)+", told)
    return found.group() if found else "unknown"


def _cache_root() -> Path:
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


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy(template: Path, data: Path) -> None:
    """Copy with owners and holes kept, sharing blocks where the file system can."""
    command = ["cp", "-a", "--reflink=auto", "--sparse=always", str(template), str(data)]
    _run(command, RunAs())

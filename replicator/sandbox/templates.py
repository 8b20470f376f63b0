"""Data directories made once by each server's own installer, then copied for every server.

From the left comes the wish for an empty data directory; to the right goes a
copy of a template kept in the user's cache, keyed by server version, recipe and
account. Making one takes a second or two, copying it a tenth of that.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from replicator.sandbox.installations import (
    Installation,
    cache_root,
    find_program,
    postgres_account,
)
from replicator.sandbox.processes import RunAs, ServerFailed

RECIPE = 1  # raise it when a template is made differently
REDO_LOG = "64M"


def copy_mysql_template(installation: Installation, data: Path) -> None:
    """An empty data directory of MySQL or MariaDB at `data`: root without a password only."""
    server = installation.server()
    install = _install_mariadb
    if installation.is_mysql:
        install = partial(_initialize_mysql, installation)
    elif installation.root is not None:
        install = partial(_bootstrap_mariadb, installation)
    _copy(_template("mysql" if installation.is_mysql else "mariadb", server, install), data)


def copy_postgres_template(installation: Installation, data: Path) -> None:
    """An empty PostgreSQL cluster at `data`: superuser postgres, UTF-8, C collation."""
    server = [installation.postgres("postgres")]
    _copy(_template("postgresql", server, partial(_install_postgres, installation)), data)


def language_options(installation: Installation) -> dict[str, str]:
    """Where an unpacked server finds its messages, charsets and plug-ins."""
    if installation.root is None:
        return {}
    usr = installation.root / "usr"
    share = usr / "share" / ("mysql" if installation.is_mysql else "mariadb")
    libraries = usr / "lib"
    plugins = [libraries / "mysql/plugin", libraries / "x86_64-linux-gnu/libmariadb3/plugin"]
    return {
        "basedir": str(usr),
        "lc_messages_dir": str(share),
        "character_sets_dir": str(share / "charsets"),
        "plugin_dir": str(next((p for p in plugins if p.is_dir()), libraries)),
    }


def _flags(options: Mapping[str, str]) -> list[str]:
    return [f"--{key}={value}" for key, value in options.items()]


def _initialize_mysql(installation: Installation, data: Path) -> None:
    own = ["--user=root"] if os.geteuid() == 0 else []
    command = [*installation.server(), "--no-defaults", *_flags(language_options(installation))]
    redo = [f"--innodb-redo-log-capacity={REDO_LOG}", "--innodb-use-native-aio=OFF"]
    _run([*command, "--initialize-insecure", f"--datadir={data}", *redo, *own], RunAs())
    (data / "auto.cnf").unlink()  # the server's uuid: each copy makes its own


def _bootstrap_mariadb(installation: Installation, data: Path) -> None:
    """What mariadb-install-db does; it would start the server without our loader."""
    options = language_options(installation)
    data.mkdir()
    own = ["--user=root"] if os.geteuid() == 0 else []
    folder = Path(options["lc_messages_dir"])
    scripts = [(folder / f"{name}.sql").read_text() for name in _MARIADB_SCRIPTS]
    lines = ["create database if not exists mysql;", "use mysql;", *"\n".join(scripts).split("\n")]
    text = "\n".join(line for line in lines if "@current_hostname" not in line)
    redo = [f"--innodb-log-file-size={REDO_LOG}", "--innodb-use-native-aio=OFF"]
    command = [*installation.server(), "--no-defaults", *_flags(options), *own, *redo]
    _run([*command, "--bootstrap", f"--datadir={data}", "--log-warnings=0"], RunAs(), text)


_MARIADB_SCRIPTS = (
    "mariadb_system_tables",
    "mariadb_performance_tables",
    "mariadb_system_tables_data",
    "fill_help_tables",
    "maria_add_gis_sp_bootstrap",
    "mariadb_sys_schema",
)


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


def _install_postgres(installation: Installation, data: Path) -> None:
    account = postgres_account()
    if account.uid is not None:
        os.chown(data.parent, account.uid, account.gid or 0)
    _run(
        [
            installation.postgres("initdb"),
            f"--pgdata={data}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ],
        account,
    )


def _run(command: Sequence[str], account: RunAs, text: str = "") -> None:
    done = subprocess.run(
        command,
        input=text,
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


def _template(kind: str, program: Sequence[str], install: Callable[[Path], None]) -> Path:
    """The template directory for `program`, made now if it is not in the cache."""
    root = cache_root()
    template = root / f"{kind}-{_version(program)}-recipe{RECIPE}"
    with _locked(root):
        if not template.exists():
            with tempfile.TemporaryDirectory(prefix="opendental-template-") as scratch:
                fresh = Path(scratch) / "data"
                install(fresh)
                shutil.rmtree(unfinished := template.with_suffix(".partial"), ignore_errors=True)
                _copy(fresh, unfinished)
                unfinished.rename(template)
    return template


def _version(program: Sequence[str]) -> str:
    told = subprocess.check_output([*program, "--version"], text=True, timeout=30)
    found = re.search(r"(?:Ver |\) )(\d+(?:\.\d+)+)", told)  # the path may hold digits too
    return found.group(1) if found else "unknown"


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy(template: Path, data: Path) -> None:
    """Copy with owners and holes kept, sharing blocks where the file system can."""
    command = ["cp", "-a", "--reflink=auto", "--sparse=always", str(template), str(data)]
    _run(command, RunAs())

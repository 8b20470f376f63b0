"""A machine of the test's own with a real systemd as its first process, in namespaces.

Nothing that it does reaches what this machine has: its root is an overlay over this machine's,
whose writes go to memory; the package, which may lie anywhere, is laid over nothing that can be
written; kernel settings are read-only, devices and control groups are its own. Shared is the
loopback interface, behind which the servers of the tests stand. It ends with the process that
started it, SIGKILL or not.

    machine.run("systemctl", "start", "loader")     inside, as root; fails where it fails
    machine.path("/etc/…")                          the same file, seen from here

The programs of the package are this checkout's: where `make install` puts them stands a script
that runs them with this Python. All else of the installation is systemd/install's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from replicator.sandbox.waiting import wait_until

ROOT = Path(__file__).parents[3]
PREFIX = "/opt/opendental-replicator"
PARTS = "/srv/opendental-replicator-tests"
"""Where the package is in the machine: read-only, and in no place that is installed to."""
INSTALL = f"{PARTS}/checkout/systemd/install"
PYTHON = f"{PARTS}/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
TARGET = """[Unit]
Description=What the test needs before its own units
DefaultDependencies=no
Wants=systemd-journald.socket systemd-journald.service
"""
JOIN = """
mount --make-rprivate /
mount -t tmpfs -o mode=755 scratch "$SCRATCH"
mkdir "$SCRATCH/over" "$SCRATCH/work" "$SCRATCH/root" "$SCRATCH/empty" "$SCRATCH/groups"
mount -t cgroup2 cgroup2 "$SCRATCH/groups"
mkdir "$SCRATCH/groups/$NAME"
echo 0 >"$SCRATCH/groups/$NAME/cgroup.procs"
umount "$SCRATCH/groups"
exec unshare --cgroup sh -ec "$BOOT"
"""
BOOT = """
mount -t overlay -o "lowerdir=/,upperdir=$SCRATCH/over,workdir=$SCRATCH/work" root "$SCRATCH/root"
cd "$SCRATCH/root"
[ "$(stat --file-system --format %T .)" = overlayfs ]  # or nothing below may happen
mount -t proc proc proc
for place in sys sysrq-trigger irq bus fs; do
    [ -e "proc/$place" ] || continue
    mount --bind "proc/$place" "proc/$place"
    mount -o remount,bind,ro "proc/$place"
done
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for place in run tmp dev; do mount -t tmpfs -o mode=755 "$place" "$place"; done
chmod 1777 tmp
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
for device in null zero full random urandom tty; do cp -a "/dev/$device" dev/; done
ln -s pts/ptmx dev/ptmx
rm -rf etc/systemd/system usr/lib/systemd/system-generators usr/lib/systemd/system/*.wants
rm -rf etc/machine-id etc/opendental-replicator opt/opendental-replicator
mkdir -p etc/systemd/system opt/opendental-replicator/bin
printf '%s' "$TARGET" >etc/systemd/system/machine.target
: >etc/machine-id
for part in "python:$BASE" "packages:$PACKAGES" "checkout:$CHECKOUT"; do
    place=".$PARTS/${part%%:*}"
    mkdir -p "$place"
    mount -t overlay -o "ro,lowerdir=${part#*:}:$SCRATCH/empty" part "$place"
    if touch "$place/written" 2>/dev/null; then exit 3; fi
done
mkdir old
pivot_root . old
umount -l old
rmdir old
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=machine.target --log-target=journal --show-status=no
"""
LEAVE = """
mount --make-rprivate /
mount -t cgroup2 cgroup2 "$SCRATCH"
[ ! -e "$SCRATCH/$NAME" ] || find "$SCRATCH/$NAME" -depth -type d -exec rmdir {} +
"""


def unavailable() -> str:
    """Why there can be no such machine here; "" where there can."""
    if os.geteuid() != 0:
        return "it takes root"
    if not Path("/lib/systemd/systemd").exists():
        return "there is no systemd"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--cgroup", "--fork", "sh", "-ec",
         "mount --make-rprivate / && mount -t cgroup2 none /mnt"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "" if tried.returncode == 0 else f"namespaces are refused: {tried.stderr.strip()}"


class Machine:
    """A running one."""

    def __init__(self, leader: int, log: Path) -> None:
        self._leader = leader
        self._log = log

    def path(self, place: str) -> Path:
        return Path(f"/proc/{self._leader}/root{place}")

    def write(self, place: str, text: str, mode: int = 0o644) -> None:
        path = self.path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def attempt(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program inside, as root."""
        enter = ["nsenter", f"--target={self._leader}", "--mount", "--pid", "--ipc", "--uts",
                 "--cgroup", "--root", "--wd=/"]  # fmt: skip
        return subprocess.run(
            [*enter, *words],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def run(self, *words: str, **variables: str) -> str:
        """The same, and it must succeed; what it said on standard output."""
        done = self.attempt(*words, **variables)
        said = f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, f"{said}\n{self.journal()}"
        return done.stdout

    def shows(self, unit: str, name: str) -> str:
        """A property of a unit, such as ActiveState."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).strip()

    def journal(self, *units: str) -> str:
        chosen = [f"--unit={unit}" for unit in units]
        said = self.attempt("journalctl", "--no-pager", "--output=cat", "--lines=400", *chosen)
        return said.stdout + ("" if units else self._log.read_text()[-2000:])

    def answers(self) -> bool:
        return self.attempt("systemctl", "is-system-running").stdout.strip() in (
            "running",
            "degraded",
        )

    def install(self) -> None:
        """As an administrator would, but for the programs, which are this checkout's."""
        for name in ("replicator", "loader"):
            self.write(
                f"{PREFIX}/bin/{name}",
                f"#!/bin/sh\nexport PYTHONPATH={PARTS}/checkout:{PARTS}/packages\n"
                f"export LD_LIBRARY_PATH={PARTS}/python/lib\n"  # where Python's own may be
                f'exec {PYTHON} -P -m {name}.cli "$@"\n',
                0o755,
            )
        self.run(INSTALL, "account", "settings", "units")


@contextmanager
def booted(directory: Path) -> Iterator[Machine]:
    """A machine that has started, until the end of the block."""
    log, scratch = directory / "machine.log", directory / "machine"
    scratch.mkdir()
    given = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "NAME": f"opendental-replicator-tests-{os.getpid()}",
        "SCRATCH": str(scratch),
        "BOOT": BOOT,
        "TARGET": TARGET,
        "PARTS": PARTS,
        "BASE": sys.base_prefix,
        "PACKAGES": sysconfig.get_path("purelib"),
        "CHECKOUT": str(ROOT),
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--ipc", "--uts",
             "--fork", "--kill-child", "sh", "-ec", JOIN],
            env=given, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        machine = Machine(wait_until(lambda: _leader(process, log), 30, "the machine"), log)
        wait_until(machine.answers, 30, what=lambda: f"systemd: {log.read_text()[-2000:]}")
        yield machine
    finally:
        process.kill()
        process.wait(30)
        wait_until(lambda: _left(given), 30, "the machine's control groups to be empty")


def _leader(process: subprocess.Popen[bytes], log: Path) -> int | None:
    """The pid, seen from here, of the machine's first process, once it is systemd."""
    assert process.poll() is None, log.read_text()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
            return int(child)
    return None


def _left(given: dict[str, str]) -> bool:
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", LEAVE], env=given, capture_output=True, check=False
    )
    return done.returncode == 0

"""The systemd units, staged into a root of their own: complete, verified, and hardened."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from config.errors import PREFIXES
from config.settings import SERVERS_OF

ROLES = {"source": "source", "replication": "replica", "analytics": "analytics"}
ROOT = Path(__file__).parents[3]
SERVICES = ["replicator.service", "loader.service", "replicator@clinic.service",
            "loader@clinic.service"]  # fmt: skip
UNITS = "etc/systemd/system"
SETTINGS = "etc/opendental-replicator"


def install(root: Path, *parts: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "systemd" / "install", *parts],
        env={**os.environ, "DESTDIR": str(root), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings and units, and programs that only stand in their places."""
    root = tmp_path_factory.mktemp("root")
    done = install(root, "settings", "units")
    assert done.returncode == 0, done.stderr
    programs = root / "opt/opendental-replicator/bin"
    programs.mkdir(parents=True)
    for name in ("replicator", "loader"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    for place in ("bin/kill", "bin/sh", "usr/sbin/mariadbd"):
        program = root / place
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    return root


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("service", SERVICES)
def test_a_unit_is_sound(staged: Path, service: str) -> None:
    name = service.replace("@clinic", "@")
    found = analyze("verify", f"--root={staged}", "--man=no", str(staged / UNITS / name))
    ours = [line for line in found.stderr.splitlines() if "replicator" in line or "loader" in line]
    complaints = [line for line in ours if "not found" not in line]  # units of other packages
    assert complaints == [], found.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_a_unit_may_do_little(staged: Path, service: str) -> None:
    name = service.replace("@clinic", "@")
    found = analyze(
        "security", "--offline=true", "--threshold=20", f"--root={staged}",
        str(staged / UNITS / name),
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-600:] + found.stderr


def test_the_replicas_server_has_a_sound_unit_that_reads_its_installed_settings(
    staged: Path,
) -> None:
    unit = staged / UNITS / "mariadb@replica.service"
    found = analyze("verify", f"--root={staged}", "--man=no", str(unit))
    ours = [line for line in found.stderr.splitlines() if "mariadb@" in line]
    assert [line for line in ours if "not found" not in line] == [], found.stderr
    found = analyze("security", "--offline=true", "--threshold=40", f"--root={staged}", str(unit))
    assert found.returncode == 0, found.stdout[-600:] + found.stderr
    assert f"--defaults-file=/{SETTINGS}/replica.cnf" in unit.read_text()
    installed = (staged / SETTINGS / "replica.cnf").read_text()
    assert installed == (ROOT / "config/replica.cnf").read_text()
    places = ("/var/lib/mysql-replica", "/run/mysqld-replica/mysqld.sock")
    assert all(place in installed for place in places)


@pytest.mark.parametrize("leg", ["replicator", "loader"])
def test_a_unit_is_given_the_passwords_of_the_servers_that_it_connects_to(leg: str) -> None:
    unit = (ROOT / f"systemd/{leg}.service").read_text()
    given = dict(re.findall(r"^LoadCredential=(\w+):(\S+)$", unit, re.MULTILINE))
    variables = {f"{PREFIXES[ROLES[server]]}_PASSWORD" for server in SERVERS_OF[leg]}
    assert {name.upper() for name in given} == variables
    assert given == {name: f"/{SETTINGS}/credentials/{name}" for name in given}


def test_instances_differ_from_the_plain_units_by_their_settings_alone() -> None:
    for leg in ("replicator", "loader"):
        plain = (ROOT / f"systemd/{leg}.service").read_text()
        instance = (ROOT / f"systemd/{leg}@.service").read_text()
        assert instance.replace("/%i/", "/").replace(", for %i", "") == plain


def test_installing_again_keeps_settings_and_removing_keeps_them_too(tmp_path: Path) -> None:
    assert install(tmp_path, "settings", "units").returncode == 0
    settings = tmp_path / SETTINGS / "environment"
    secret = tmp_path / SETTINGS / "credentials/opendental_source_password"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert f"\nREPLICATOR_TABLES=/{SETTINGS}/tables.toml\n" in settings.read_text()
    settings.write_text("OPENDENTAL_SOURCE_HOST=elsewhere\n")
    assert install(tmp_path, "settings", "units").returncode == 0
    assert settings.read_text() == "OPENDENTAL_SOURCE_HOST=elsewhere\n"
    assert install(tmp_path, "--remove").returncode == 0
    assert settings.exists()
    assert list((tmp_path / UNITS).iterdir()) == []


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    done = install(tmp_path, "everything")
    assert done.returncode == 2
    assert "unknown part: everything" in done.stderr


def test_a_python_that_services_cannot_see_is_refused(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\ncase $2 in *base_prefix*) echo /root/.pyenv/versions/3;; esac\n")
    python.chmod(0o755)
    done = install(tmp_path / "root", "programs", PYTHON=str(python))
    assert done.returncode == 2, done.stderr
    assert "PYTHON=/usr/bin/python3" in done.stderr
    assert not (tmp_path / "root").exists()

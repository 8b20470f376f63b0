"""No damaged event makes the kernel look outside its buffer: fuzzed under AddressSanitizer.

The kernel is built a second time, with the compiler's checks of memory and of undefined
behaviour, and reading each event from a copy that ends where the event ends.
"""

from __future__ import annotations

import ast
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from replicator.sandbox.databases import MySQLDatabase
from tests.integration.binlog.logged import Log
from tests.integration.binlog.random_tables import RandomTable, tables
from tests.integration.loader.kernel_events import events_of
from tests.integration.loader.test_values import (
    NUMBER_ROWS,
    NUMBERS,
    STRING_ROWS,
    STRINGS,
    TIME_ROWS,
    TIMES,
)

ROOT = Path(__file__).parents[3]
CHECKS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MUTATIONS = int(os.environ.get("KERNEL_FUZZ_MUTATIONS", "6000"))
BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Distribution, Extension
directory, *checks = sys.argv[1:]
extension = Extension(
    "loader.kernel", ["loader/kernel.pyx"], define_macros=[("KERNEL_FENCED", None)],
    extra_compile_args=["-O1", "-g", *checks], extra_link_args=checks,
)
built = cythonize([extension], language_level=3, build_dir=directory, force=True, quiet=True)
command = Distribution({"name": "fenced", "ext_modules": built}).get_command_obj("build_ext")
command.build_lib = command.build_temp = directory
command.ensure_finalized()
command.run()
"""


def _runtimes() -> list[str]:
    """The sanitizers' libraries, to be loaded before everything else; [] where there are none."""
    if shutil.which("gcc") is None:
        return []
    names = ["libasan.so", "libubsan.so"]
    found = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in names
    ]
    return found if all(os.path.isabs(path) for path in found) else []


@pytest.fixture(scope="module")
def fenced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel, built with checks."""
    pytest.importorskip("Cython", reason="without Cython no checked build of the kernel")
    if not _runtimes():
        pytest.skip("this machine has no gcc with AddressSanitizer")
    directory = tmp_path_factory.mktemp("fenced")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(directory), *CHECKS],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = (directory / "loader").glob("kernel.*.so")
    return built


@pytest.fixture
def corpus(replica_db: MySQLDatabase, tmp_path: Path) -> Path:
    """Events of every type, from tables made for it and from random ones."""
    replica_db.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
    log = Log(replica_db)
    for name, columns, rows in (
        ("numbers", NUMBERS, NUMBER_ROWS),
        ("times", TIMES, TIME_ROWS),
        ("strings", STRINGS, [row.replace("70000", "70") for row in STRING_ROWS]),
    ):
        replica_db.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, {columns})")
        for number, row in enumerate(rows):
            replica_db.execute(f"INSERT INTO {name} VALUES ({number}, {row})")
        replica_db.execute(f"UPDATE {name} SET id = id + 1 ORDER BY id DESC")
        replica_db.execute(f"DELETE FROM {name}")
    logged = log.rows()

    @seed(3)
    @settings(
        max_examples=15, deadline=None, phases=[Phase.generate], database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(table=tables())
    def gather(table: RandomTable) -> None:
        logged.extend(events_of(replica_db, table))

    gather()
    path = tmp_path / "corpus"
    path.write_bytes(pickle.dumps([(table_map.raw, event) for table_map, event in logged]))
    return path


def test_damaged_events_end_as_in_python_and_within_their_buffer(
    fenced: Path, corpus: Path
) -> None:
    fuzzer = Path(__file__).with_name("kernel_fuzzer.py")
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(_runtimes()),
        "PYTHONMALLOC": "malloc",  # so that each object has borders that are watched
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    done = subprocess.run(
        [sys.executable, str(fuzzer), str(fenced), str(corpus), "1", str(MUTATIONS)],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    ended = ast.literal_eval(done.stdout.splitlines()[-1])
    assert ended["UnknownEvent"] > MUTATIONS // 10
    assert ended["decoded"] > MUTATIONS // 10

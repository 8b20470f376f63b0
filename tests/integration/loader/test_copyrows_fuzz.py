"""No damaged block makes the copy's kernel look outside it: fuzzed under AddressSanitizer.

As `test_kernel_fuzz` does for the stream's kernel, with a build of its own that reads each
block from a copy that ends where the block ends.
"""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from replicator.sandbox.databases import MySQLDatabase
from tests.integration.binlog.random_tables import RandomTable, tables

from .select_blocks import blocks_of, schema_of
from .test_kernel_fuzz import BUILD, CHECKS, MUTATIONS, ROOT, _runtimes
from .test_values import NUMBER_ROWS, NUMBERS, STRING_ROWS, STRINGS, TIME_ROWS, TIMES


@pytest.fixture(scope="module")
def fenced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy's kernel, built with checks."""
    pytest.importorskip("Cython", reason="without Cython no checked build of the kernel")
    if not _runtimes():
        pytest.skip("this machine has no gcc with AddressSanitizer")
    directory = tmp_path_factory.mktemp("fenced")
    build = BUILD.replace("loader.kernel", "loader.copyrows").replace("kernel.pyx", "copyrows.pyx")
    done = subprocess.run(
        [sys.executable, "-c", build, str(directory), *CHECKS],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = (directory / "loader").glob("copyrows.*.so")
    return built


@pytest.fixture
def corpus(replica_db: MySQLDatabase, tmp_path: Path) -> Path:
    """Rows of every type, from tables made for it and from random ones."""
    replica_db.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
    found = []
    for name, columns, rows in (
        ("numbers", NUMBERS, NUMBER_ROWS),
        ("times", TIMES, TIME_ROWS),
        ("strings", STRINGS, [row.replace("70000", "70") for row in STRING_ROWS]),
    ):
        replica_db.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, {columns})")
        for number, row in enumerate(rows):
            replica_db.execute(f"INSERT INTO {name} VALUES ({number}, {row})")
        schema = schema_of(replica_db, name)
        found += [(schema, block) for block in blocks_of(replica_db, schema)] * 5

    @seed(3)
    @settings(
        max_examples=25, deadline=None, phases=[Phase.generate], database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(table=tables())
    def gather(table: RandomTable) -> None:
        replica_db.execute("DROP TABLE IF EXISTS original")
        replica_db.execute(f"CREATE TABLE original {table.definition}")
        rows = ",".join(f"({', '.join(row)})" for row in table.rows)
        replica_db.execute(f"INSERT IGNORE INTO original ({', '.join(table.names)}) VALUES {rows}")
        schema = schema_of(replica_db, "original")
        found.extend((schema, block) for block in blocks_of(replica_db, schema))

    gather()
    path = tmp_path / "corpus"
    path.write_bytes(pickle.dumps(found))
    return path


def test_damaged_blocks_end_as_in_python_and_within_their_buffer(
    fenced: Path, corpus: Path
) -> None:
    fuzzer = Path(__file__).with_name("copyrows_fuzzer.py")
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
    assert ended["converted"] > MUTATIONS // 10

"""No damaged block makes the row kernel look outside its buffer: fuzzed under AddressSanitizer.

As for the loader's kernel: a second build, with the compiler's checks of memory and of
undefined behaviour, that reads each block from a copy that ends where the block ends.
"""

from __future__ import annotations

import ast
import os
import pickle
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from replicator.binlog.resultset import ResultSet
from replicator.binlog.rowimage import TableLayout, rows_event
from replicator.binlog.rowplan import RowPlan
from replicator.sandbox.databases import MySQLDatabase
from tests.integration.binlog.logged import catalog_of, raw_connection
from tests.integration.binlog.random_tables import RandomTable, tables
from tests.integration.binlog.test_rowkernel import fill

ROOT = Path(__file__).parents[3]
CHECKS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MUTATIONS = int(os.environ.get("KERNEL_FUZZ_MUTATIONS", "6000"))
BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Distribution, Extension
directory, *checks = sys.argv[1:]
extension = Extension(
    "replicator.binlog.rowkernel", ["replicator/binlog/rowkernel.pyx"],
    define_macros=[("KERNEL_FENCED", None)],
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
    found = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
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
    (built,) = (directory / "replicator" / "binlog").glob("rowkernel.*.so")
    return built


@pytest.fixture
def corpus(replica_db: MySQLDatabase, tmp_path: Path) -> Path:
    """Blocks of random tables, with the plans to read them by."""
    replica_db.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
    samples: list[Any] = []

    @seed(3)
    @settings(
        max_examples=40, deadline=None, phases=[Phase.generate], database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(table=tables())
    def gather(table: RandomTable) -> None:
        fill(replica_db, table)
        samples.append(sample_of(replica_db))

    gather()
    path = tmp_path / "corpus"
    path.write_bytes(pickle.dumps(samples))
    return path


def sample_of(database: MySQLDatabase) -> tuple[Any, ...]:
    catalog = catalog_of(database, "original")
    layout = TableLayout.of(catalog)
    plan = RowPlan(catalog, layout)
    query = f"SELECT {', '.join(plan.select_list)} FROM original"
    with (
        closing(raw_connection(database)) as connection,
        ResultSet(connection, query, binary=True) as result,
    ):
        wires = [field.type_code for field in result.fields]
        block = b"".join(result.blocks())
    columns = [
        (one.name, wire, int(one.kind), one.a, one.b, one.c)
        for one, wire in zip(plan.columns, wires, strict=True)
    ]
    hidden = len(layout.hidden_hashes)
    return layout.table, columns, hidden, block, rows_event(77, layout.width, [])


def test_damaged_blocks_are_encoded_or_refused_within_their_buffer(
    fenced: Path, corpus: Path
) -> None:
    fuzzer = Path(__file__).with_name("rowkernel_fuzzer.py")
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
    assert ended["refused"] > MUTATIONS // 10
    assert ended["encoded"] > MUTATIONS // 20

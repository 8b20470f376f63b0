"""No damaged block makes the copy's kernel look outside it: fuzzed under AddressSanitizer.

As `test_kernel_fuzz` does for the stream's kernel, with a build of its own that reads each
block from a copy that ends where the block ends.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from replicator.sandbox.databases import MySQLDatabase
from tests.integration.binlog.random_tables import RandomTable, tables
from tests.integration.checked_build import MUTATIONS, build_checked, run_fuzzer
from tests.integration.loader.load.select_blocks import blocks_of, schema_of

from ..test_values import NUMBER_ROWS, NUMBERS, STRING_ROWS, STRINGS, TIME_ROWS, TIMES


@pytest.fixture(scope="module")
def fenced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy's kernel, built with checks."""
    return build_checked("loader.load.copyrows", tmp_path_factory.mktemp("fenced"))


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
    ended = run_fuzzer(Path(__file__).with_name("copyrows_fuzzer.py"), fenced, corpus)
    assert ended["UnknownEvent"] > MUTATIONS // 10
    assert ended["converted"] > MUTATIONS // 10

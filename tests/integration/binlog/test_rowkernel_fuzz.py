"""No damaged block makes the row kernel look outside its buffer: fuzzed under AddressSanitizer.

As for the loader's kernel: a second build, with the compiler's checks of memory and of
undefined behaviour, that reads each block from a copy that ends where the block ends.
"""

from __future__ import annotations

import pickle
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
from tests.integration.checked_build import MUTATIONS, build_checked, run_fuzzer


@pytest.fixture(scope="module")
def fenced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel, built with checks."""
    return build_checked("replicator.binlog.rowkernel", tmp_path_factory.mktemp("fenced"))


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
    ended = run_fuzzer(Path(__file__).with_name("rowkernel_fuzzer.py"), fenced, corpus)
    assert ended["refused"] > MUTATIONS // 10
    assert ended["encoded"] > MUTATIONS // 20

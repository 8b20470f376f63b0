"""No damaged event makes the kernel, or the fold on top of it, look outside its buffer: fuzzed
under AddressSanitizer.

Both are built a second time, with the compiler's checks of memory and of undefined behaviour,
and reading each event from a copy that ends where the event ends.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from replicator.sandbox.databases import MySQLDatabase
from tests.integration.binlog.logged import Log
from tests.integration.binlog.random_tables import RandomTable, tables
from tests.integration.checked_build import MUTATIONS, build_checked, edges_library, run_fuzzer
from tests.integration.loader.kernel_events import events_of
from tests.integration.loader.test_values import (
    NUMBER_ROWS,
    NUMBERS,
    STRING_ROWS,
    STRINGS,
    TIME_ROWS,
    TIMES,
)


@pytest.fixture(scope="module")
def fenced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel, built with checks."""
    return build_checked("loader.kernel", tmp_path_factory.mktemp("fenced"), edges=True)


@pytest.fixture(scope="module")
def edges(fenced: Path) -> Path:
    """What the kernel tells of its edges; needed wherever it is loaded."""
    return edges_library(fenced.parent)


@pytest.fixture(scope="module")
def fenced_fold(fenced: Path) -> Path:
    """The fold, built with checks beside the kernel that it uses."""
    return build_checked("loader.kernel_fold", fenced.parents[1])


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
    fenced: Path, edges: Path, corpus: Path
) -> None:
    program = Path(__file__).with_name("kernel_fuzzer.py")
    ended = run_fuzzer(program, fenced, corpus, edges=edges)
    assert ended["UnknownEvent"] > MUTATIONS // 10
    assert ended["decoded"] > MUTATIONS // 10


def test_damaged_events_are_folded_as_in_python_and_within_their_buffer(
    fenced_fold: Path, edges: Path, corpus: Path
) -> None:
    program = Path(__file__).with_name("fold_fuzzer.py")
    ended = run_fuzzer(program, fenced_fold, corpus, edges=edges)
    assert ended["UnknownEvent"] > MUTATIONS // 20
    assert ended["folded"] > MUTATIONS // 20


GUIDED = Path(__file__).with_name("guided_fuzzer.py")
ATTEMPTS = MUTATIONS // 2


def test_where_coverage_leads_the_kernel_stays_within_its_buffer(
    fenced: Path, edges: Path, corpus: Path, tmp_path: Path
) -> None:
    """From every type of column that there is."""
    ended = run_fuzzer(
        *(GUIDED, fenced, _shortest(corpus, tmp_path, 400), str(edges), "guided"),
        edges=edges,
        count=ATTEMPTS,
    )
    assert ended["new"] > 100, ended
    assert ended["UnknownEvent"] > ATTEMPTS // 20, ended


def test_coverage_leads_further_than_chance(
    fenced: Path, edges: Path, corpus: Path, tmp_path: Path
) -> None:
    """From three small events, with the same dice and the same number of attempts.

    How many edges there are at all depends on the events; how often something new is met does not.
    """
    seeds = _shortest(corpus, tmp_path, 3)
    found = {
        how: run_fuzzer(GUIDED, fenced, seeds, str(edges), how, edges=edges, count=ATTEMPTS)
        for how in ("blind", "guided")
    }
    assert found["guided"]["new"] > 1.2 * found["blind"]["new"], found


def _shortest(corpus: Path, directory: Path, count: int) -> Path:
    """The shortest inputs of a corpus, one of each table map."""
    inputs = sorted(pickle.loads(corpus.read_bytes()), key=lambda pair: len(pair[0] + pair[1]))
    by_map = {table_map: (table_map, event) for table_map, event in reversed(inputs)}
    path = directory / f"shortest-{count}"
    path.write_bytes(pickle.dumps(sorted(by_map.values(), key=lambda p: len(p[0] + p[1]))[:count]))
    return path

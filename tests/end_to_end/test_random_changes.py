"""Whatever is done on the source, in whatever order: all three servers agree in the end.

One pipeline runs through all examples; each example has tables of its own. An example
that fails is printed as the statements that made it, ends its pipeline, and is replayed
first the next time. RANDOM_EXAMPLES sets how many are tried, RANDOM_SHRINK=1 looks for
the smallest program that fails (minutes), and pytest's --hypothesis-seed repeats a run.
"""

from __future__ import annotations

import itertools
import os
from contextlib import closing
from typing import Any

import pymysql
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings

from tests.end_to_end.random_changes import CONNECTIONS, Step, programs
from tests.fix_pipeline import NewPipeline, Pipeline

EXAMPLES = int(os.environ.get("RANDOM_EXAMPLES", "12"))
_numbers = itertools.count(1)


PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
if os.environ.get("RANDOM_SHRINK") == "1":
    PHASES.append(Phase.shrink)


class Stage:
    """A running pipeline, made anew after one on which an example failed."""

    def __init__(self, new: NewPipeline) -> None:
        self._new = new
        self._pipe: Pipeline | None = None

    def __enter__(self) -> Pipeline:
        if self._pipe is None:
            self._pipe = self._new("InnoDB")
            self._pipe.sandbox.source_db.execute("CREATE TABLE there (id INT PRIMARY KEY)")
            self._pipe.start()
            self._pipe.catch_up()
        return self._pipe

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None and self._pipe is not None:
            self._pipe.close()
            self._pipe = None


def run(pipe: Pipeline, steps: list[Step], prefix: str) -> list[str]:
    """Run a program; what the source took, in order."""
    taken = []
    connections: list[Any] = [
        pipe.sandbox.source.connect(database="opendental") for _ in range(CONNECTIONS)
    ]
    for connection in connections:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_wait_timeout = 0, innodb_lock_wait_timeout = 0")
    for step in steps:
        with connections[step.connection].cursor() as cursor:
            try:
                cursor.execute(step.sql(prefix))
            except pymysql.MySQLError:
                continue  # refused: not part of history
        taken.append(f"{step.connection}: {step.sql(prefix)}")
    for connection in connections:
        with closing(connection), connection.cursor() as cursor:
            cursor.execute("COMMIT")
    return taken


def raw_tables(pipe: Pipeline, prefix: str) -> set[str]:
    found = pipe.sandbox.analytics_db.query(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'raw'"
    )
    return {row[0] for row in found if row[0].startswith(prefix)}


@pytest.mark.timeout(3600)
def test_random_changes_arrive_exactly(pipeline: NewPipeline) -> None:
    stage = Stage(pipeline)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=PHASES,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def example(steps: list[Step]) -> None:
        prefix = f"x{next(_numbers)}_"
        with stage as pipe:
            for line in run(pipe, steps, prefix):
                note(line)
            pipe.catch_up()
            check(pipe, prefix)

    example()


def check(pipe: Pipeline, prefix: str) -> None:
    """Rows by our own eyes, shapes and rows by the product's; then make room."""
    tables = [table for table in pipe.tables() if table.startswith(prefix)]
    assert pipe.differences(tables) == {}
    assert raw_tables(pipe, prefix) == set(tables)
    if tables:
        answer = pipe.run("verify", *tables)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        names = ", ".join(f"`{table}`" for table in tables)
        pipe.sandbox.source_db.execute(f"DROP TABLE {names}")

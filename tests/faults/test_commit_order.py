"""`raw` is what the source had committed up to some point: all before it, nothing behind it.

One person numbers his transactions and writes each number into one of several tables, with a key
and without. Whoever reads all of them at once must find the numbers 1 to n, whatever n is.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from replicator.sandbox.waiting import wait_until
from tests.faults.conftest import GetTrial
from tests.faults.trial import TIMES, Trial

TABLES = [f"ordinal{number}" for number in range(5)]
_ALL = " UNION ALL ".join(f"SELECT seq FROM raw.{table}" for table in TABLES)
_LOOK = f"SELECT count(*), count(DISTINCT seq), coalesce(max(seq), 0) FROM ({_ALL}) AS t"


class Ordinals:
    """Who writes the numbers, and who reads them."""

    def __init__(self, the: Trial, seed: int) -> None:
        self._the = the
        self._dice = random.Random(seed)
        self._stop = threading.Event()
        self.written = 0
        self.looks: set[int] = set()
        """What n was."""
        self.seen: list[tuple[int, ...]] = []
        """What was seen and should not have been."""
        self.threads = [
            threading.Thread(target=work, daemon=True) for work in (self._write, self._read)
        ]

    def stop(self) -> None:
        self._stop.set()
        for thread in self.threads:
            thread.join(timeout=30)

    def _write(self) -> None:
        with closing(self._the.connect()) as connection, connection.cursor() as cursor:
            while not self._stop.wait(0.002):
                number = self.written + 1
                cursor.execute("BEGIN")
                cursor.execute(f"INSERT INTO {self._dice.choice(TABLES)} VALUES ({number})")
                cursor.execute("COMMIT")
                self.written = number

    def _read(self) -> None:
        with self._the.raw() as raw:
            while not self._stop.wait(0.005):
                self.look(raw)

    def look(self, raw: Any) -> None:
        rows, different, last = raw.execute(_LOOK).fetchone()
        self.looks.add(last)
        if not rows == different == last:
            self.seen.append((rows, different, last))


@contextmanager
def _numbering(the: Trial, seed: int) -> Iterator[Ordinals]:
    with closing(the.connect()) as connection, connection.cursor() as cursor:
        for number, table in enumerate(TABLES):
            key = " PRIMARY KEY" if number % 2 else ""
            cursor.execute(f"DROP TABLE IF EXISTS {table}")
            cursor.execute(f"CREATE TABLE {table} (seq BIGINT{key}) ENGINE=InnoDB")
    the.settle()
    ordinals = Ordinals(the, seed)
    for thread in ordinals.threads:
        thread.start()
    try:
        yield ordinals
    finally:
        ordinals.stop()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(TIMES))
def test_raw_holds_all_that_was_committed_up_to_a_point_and_nothing_behind_it(
    trial: GetTrial, seed: int
) -> None:
    the = trial("InnoDB")
    dice = random.Random(seed)
    with _numbering(the, seed) as ordinals:
        for _ in range(2):
            for daemon in the.daemons:
                goal = ordinals.written + dice.randint(50, 400)
                wait_until(lambda: ordinals.written >= goal, 60, what="numbers")  # noqa: B023
                the.restart(daemon)
        the.wait_for_work(40)
    the.settle(150)
    with the.raw() as raw:
        ordinals.look(raw)
    assert ordinals.seen == []
    assert max(ordinals.looks) == ordinals.written
    assert len(ordinals.looks) > 10, "nobody looked while it grew"

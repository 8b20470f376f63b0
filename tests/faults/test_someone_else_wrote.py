"""Someone else wrote on the replica or in `raw`: what is met is repaired, what is found mended."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from tests.faults.conftest import GetTrial
from tests.faults.trial import Trial, wait_for_word

WITHIN_A_REPAIR = (
    "resync.taken", "copy.created", "copy.committed", "resync.copied", "resync.begun_stream",
    "resync.level", "resync.recorded", "resync.renamed", "resync.swapped", "resync.noted",
)  # fmt: skip


@pytest.mark.timeout(300)
def test_a_table_that_someone_wrote_to_is_reloaded_and_nothing_else_waits(trial: GetTrial) -> None:
    the = trial("InnoDB")
    for _ in range(3):
        said = len(the.pipe.replicator.output)
        with the.unaided():
            the.spoil()
            wait_for_word(the.pipe.replicator, '"conflict_repaired"', said)
            the.wait_for_work(20)
            the.settle()


@pytest.mark.timeout(300)
def test_a_death_within_such_a_reload_loses_nothing(trial: GetTrial) -> None:
    the = trial("InnoDB")
    for point in WITHIN_A_REPAIR:
        daemon = the.order(point)
        the.spoil()
        the.wait_for_death(daemon)
        the.settle()


@pytest.mark.timeout(300)
def test_verify_mends_what_nobody_noticed_while_everybody_works(trial: GetTrial) -> None:
    the = trial("InnoDB")
    for first in (900_001, 900_101):
        with closing(the.pipe.sandbox.replica_db.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute("SET sql_log_bin = 0")
            cursor.execute("UPDATE mover SET Body = 'spoilt' WHERE ABS(id) <= 5")
        with the.raw() as raw:
            raw.execute(
                'INSERT INTO raw.visit ("VisitNum", "PatNum", "Fee") VALUES (%s, 1, 1), (%s, 1, 1)',
                (first, first + 1),
            )
        assert _repair(the) >= {("mover", "replica"), ("visit", "raw")}
        the.settle()


def _repair(the: Trial) -> set[tuple[str, str]]:
    result = the.pipe.run("verify", "--repair", "--json", "visit", "mover")
    document = json.loads(result.stdout)
    assert document["exact"], result.stdout + result.stderr
    return {(one["table"], one["side"]) for one in document["mended"]}

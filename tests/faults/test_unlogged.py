"""Changes of the source that no binlog tells: `verify` finds them, and `verify --repair` mends."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from tests.faults.conftest import GetTrial

UNLOGGED = (
    "SET sql_log_bin = 0",
    "UPDATE mover SET Body = 'set back' WHERE ABS(id) <= 5",
    "DELETE FROM visit WHERE VisitNum BETWEEN 201 AND 205",
    "INSERT INTO visit (VisitNum, PatNum, Fee) VALUES (800001, 1, 1)",
)


@pytest.mark.timeout(300)
def test_changes_of_the_source_that_no_binlog_tells_are_found_and_mended(trial: GetTrial) -> None:
    the = trial("InnoDB")
    with the.unaided(), the.at_rest():
        the.pipe.catch_up()
        with closing(the.connect()) as connection, connection.cursor() as cursor:
            for statement in UNLOGGED:
                cursor.execute(statement)
        assert set(the.pipe.differences()) == {"mover", "visit"}
        found = the.pipe.run("verify")
        assert found.returncode == 1, found.stdout + found.stderr
        mended = the.pipe.run("verify", "--repair", "--json", "visit", "mover")
        assert json.loads(mended.stdout)["exact"], mended.stdout + mended.stderr
        the.pipe.catch_up()
        assert the.pipe.differences() == {}
    the.settle()

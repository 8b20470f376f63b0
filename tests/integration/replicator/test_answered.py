"""What was answered long ago is forgotten; what is shown, counted or waited for stays."""

from __future__ import annotations

from datetime import timedelta

import pytest

from replicator import answered, resync_requests
from replicator.mend_requests import REPLICA, queue_mend
from replicator.resync_requests import CONFLICT
from replicator.tracking import utc_now
from tests.numbers import numbers

from .leg import Leg

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def resync(leg: Leg, table: str, state: str, age: timedelta, reason: str = "asked") -> int:
    then = utc_now() - age
    leg.replica.execute(
        "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at, reason)"
        " VALUES (%s,%s,%s,%s,%s)",
        (table, then, state, then, reason),
    )
    ((number,),) = leg.replica.query("SELECT MAX(id) FROM etl_resync_request")
    return int(number)


def left(leg: Leg, table: str = "etl_resync_request") -> set[int]:
    return {number for (number,) in leg.replica.query(f"SELECT id FROM {table}")}


@pytest.fixture
def begun(leg: Leg) -> Leg:
    leg.source.execute("CREATE TABLE patient (id INT PRIMARY KEY, n INT)")
    leg.catch_up()
    return leg


def test_the_daemon_forgets_what_was_answered_more_than_a_day_ago(begun: Leg) -> None:
    begun.close()
    gone = [
        resync(begun, "a", "failed", 3 * DAY),
        resync(begun, "a", "done", 2 * DAY),
        resync(begun, "b", "done", DAY + MINUTE),
    ]
    stays = {
        resync(begun, "away", "failed", 9 * DAY),  # status shows it
        resync(begun, "a", "loading", 9 * DAY),  # the loader has been stopped for long
        resync(begun, "a", "done", DAY - MINUTE),
        resync(begun, "c", "done", 9 * DAY),  # the newest number is not given twice
    }
    old, new = (queue_mend(begun.replica._connection(), "a", REPLICA, []) for _ in range(2))
    begun.replica.execute(
        "UPDATE etl_mend_request SET state = 'reloading', updated_at = %s", (utc_now() - 2 * DAY,)
    )
    (end,) = begun.replica.query("SHOW BINARY LOGS")[-1][1:2]
    begun.restart()
    begun.step_until(lambda: not left(begun) & set(gone), "old requests to be forgotten")
    assert left(begun) == stays
    assert left(begun, "etl_mend_request") == {new} != {old}
    assert begun.replica.query("SHOW BINARY LOGS")[-1][1] == end  # the loader is not told


def test_of_many_that_were_answered_the_last_are_kept(begun: Leg) -> None:
    connection = begun.replica._connection()
    begun.replica.execute(
        "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
        f" SELECT CONCAT('t', seq %% 7), %s, 'done', %s FROM {numbers(1, answered.KEPT + 30)}",
        (utc_now() - 2 * HOUR, utc_now() - 2 * HOUR),
    )
    recent = [resync(begun, "patient", "done", MINUTE, CONFLICT) for _ in range(3)]
    waits = resync(begun, "patient", "queued", 9 * DAY)
    everything = sorted(left(begun))
    assert answered.forget_answered(connection, utc_now()) == 33
    assert sorted(left(begun)) == everything[33:]
    assert {*recent, waits} <= left(begun)
    assert resync_requests.repairs_since(connection, "patient", utc_now() - HOUR) == 3
    assert answered.forget_answered(connection, utc_now()) == 0


def test_within_an_hour_any_number_is_kept(begun: Leg) -> None:
    begun.replica.execute(
        "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
        f" SELECT 'patient', %s, 'done', %s FROM {numbers(1, answered.KEPT + 30)}",
        (utc_now() - MINUTE, utc_now() - MINUTE),
    )
    assert answered.forget_answered(begun.replica._connection(), utc_now()) == 0

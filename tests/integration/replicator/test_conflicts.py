"""Someone else wrote on the replica: leg 1 halts, or reloads the one table and goes on."""

from __future__ import annotations

import re
from types import ModuleType

import pytest
from structlog.testing import capture_logs

from config.errors import ApplyConflict, Halt
from config.metrics import REGISTRY
from replicator import conflicts, resync_requests, tracking
from replicator.resync_desk import ResyncDesk
from replicator.sandbox.waiting import wait_until
from tests.numbers import numbers

from .conftest import NewLeg
from .leg import Crash, Leg, crashing, crawl

MARK = "1999888777"


@pytest.fixture
def mending(new_leg: NewLeg) -> Leg:
    """A leg that repairs, with tables of every kind, caught up."""
    leg = new_leg(on_conflict="repair", copy_chunk_rows=3)
    fill(leg)
    return leg


def fill(leg: Leg) -> None:
    leg.source.execute(
        "CREATE TABLE patient (id INT PRIMARY KEY, n INT, word VARCHAR(20)) ENGINE=InnoDB"
    )
    leg.source.execute(f"INSERT INTO patient SELECT seq, seq, 'w' FROM {numbers(1, 10)}")
    leg.source.execute(
        "CREATE TABLE visit (id INT PRIMARY KEY, n INT, UNIQUE KEY by_n (n)) ENGINE=InnoDB"
    )
    leg.source.execute(f"INSERT INTO visit SELECT seq, seq FROM {numbers(1, 10)}")
    leg.source.execute("CREATE TABLE loose (id INT, n INT) ENGINE=InnoDB")
    leg.source.execute("INSERT INTO loose VALUES (1, 1), (1, 1), (2, 2)")
    leg.source.execute("CREATE TABLE other (id INT PRIMARY KEY) ENGINE=InnoDB")
    leg.catch_up()


def work(leg: Leg) -> None:
    """Transactions over all the tables, one of them several at once."""
    leg.source.execute("UPDATE loose SET n = n + 1 WHERE id = 2")
    connection = leg.source.connect(ssl_disabled=True)
    cursor = connection.cursor()
    cursor.execute("BEGIN")
    cursor.execute("INSERT INTO other VALUES (1)")
    cursor.execute("INSERT INTO patient VALUES (100, 100, 'new')")
    cursor.execute("UPDATE visit SET n = 50 WHERE id = 5")
    cursor.execute("UPDATE loose SET n = 7 WHERE id = 1")
    cursor.execute("INSERT INTO other VALUES (2)")
    cursor.execute("COMMIT")
    connection.close()
    leg.source.execute("DELETE FROM patient WHERE id = 4")


def repaired(leg: Leg) -> list[str]:
    return [
        row[0]
        for row in leg.replica.query(
            "SELECT table_name FROM etl_resync_request WHERE reason = 'conflict' ORDER BY id"
        )
    ]


def counted(action: str) -> float:
    labels = {"leg": "replicator", "action": action}
    return REGISTRY.get_sample_value("replicator_conflicts_total", labels) or 0.0


def assert_whole(leg: Leg) -> None:
    leg.assert_exact()
    assert leg.copied_rows() == {}
    assert leg.replica.query("SELECT stream, pending_ddl FROM etl_binlog_offset") == [
        ("main", None)
    ]


SPOILT = {
    "a row that is there already": (f"INSERT INTO patient VALUES (100, {MARK}, 'x')", "patient"),
    "a row that is gone": ("DELETE FROM patient WHERE id = 4", "patient"),
    "a row that another key keeps out": (f"INSERT INTO visit VALUES ({MARK}, 50)", "visit"),
    "a row of a table without a key": ("UPDATE loose SET n = 9 WHERE id = 1 LIMIT 1", "loose"),
    "a table that is gone": ("DROP TABLE visit", "visit"),
    "a table of another shape": ("ALTER TABLE patient DROP word, ADD word INT", "patient"),
}


@pytest.mark.parametrize(("statement", "table"), SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("steps", ["at once", "one event at a time"])
def test_the_table_whose_row_was_refused_is_reloaded_while_the_others_go_on(
    mending: Leg, statement: str, table: str, steps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = mending
    if steps != "at once":
        crawl(monkeypatch)
    leg.replica.execute(statement)
    before = counted("repaired")
    with capture_logs() as said:
        work(leg)
        leg.step_until(lambda: leg.states().get(table) == "queued")
        leg.catch_up()
    assert repaired(leg) == [table]
    assert counted("repaired") == before + 1
    assert_whole(leg)
    assert "conflict_repaired" in [one["event"] for one in said]
    assert MARK not in str(said)


def test_a_transaction_with_several_spoilt_tables_is_passed_in_the_end(mending: Leg) -> None:
    leg = mending
    for statement in (
        "INSERT INTO patient VALUES (100, 0, 'x')",
        "DELETE FROM visit WHERE id = 5",
        "DELETE FROM loose WHERE id = 1 LIMIT 1",
    ):
        leg.replica.execute(statement)
    work(leg)
    leg.catch_up()
    assert sorted(repaired(leg)) == ["loose", "patient", "visit"]
    assert_whole(leg)


def test_a_large_transaction_is_taken_apart_too(new_leg: NewLeg) -> None:
    leg = new_leg(on_conflict="repair", batch_bytes=2000)
    fill(leg)
    leg.replica.execute("INSERT INTO patient VALUES (777, 0, 'x')")
    connection = leg.source.connect(ssl_disabled=True)
    cursor = connection.cursor()
    cursor.execute("BEGIN")
    cursor.execute(f"INSERT INTO other SELECT seq FROM {numbers(1, 900)}")
    cursor.execute(f"INSERT INTO patient SELECT seq, seq, 'w' FROM {numbers(100, 900)}")
    cursor.execute("COMMIT")
    connection.close()
    leg.catch_up()
    assert repaired(leg) == ["patient"]
    assert_whole(leg)


def test_other_tables_do_not_wait_for_the_reload(
    mending: Leg, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = mending
    monkeypatch.setattr(ResyncDesk, "mind", lambda _self: None)
    leg.replica.execute("INSERT INTO patient VALUES (100, 0, 'x')")
    work(leg)
    leg.source.execute("INSERT INTO other VALUES (3)")
    goal = leg.source_position()
    leg.step_until(lambda: (leg.position() or goal) >= goal)
    assert leg.states()["patient"] == "queued"
    assert leg.replica.query("SELECT id FROM other") == [(1,), (2,), (3,)]
    assert leg.replica.query("SELECT word FROM patient WHERE id IN (4, 100)") == [("w",), ("x",)]
    monkeypatch.undo()
    leg.restart()
    leg.catch_up()
    assert_whole(leg)


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (tracking, "set_state"),
        (resync_requests, "queue_repair"),
        (resync_requests, "need_request"),
    ],
    ids=["set_state", "queue_repair", "need_request"],
)
def test_a_death_while_a_table_is_set_aside_changes_nothing(
    mending: Leg, owner: ModuleType, name: str, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = mending
    leg.replica.execute("INSERT INTO patient VALUES (100, 0, 'x')")
    if name == "need_request":
        monkeypatch.setattr(ResyncDesk, "mind", lambda _self: None)
        leg.resync("patient")
    work(leg)
    with crashing(monkeypatch, owner, name, done=done), pytest.raises(Crash):
        leg.step_until(lambda: False)
    leg.restart()
    leg.step_until(lambda: leg.states().get("patient") == "queued")
    monkeypatch.undo()
    leg.restart()
    leg.catch_up()
    assert repaired(leg) == ["patient"]
    assert_whole(leg)


def test_a_table_that_is_spoilt_again_and_again_halts_by_name(mending: Leg) -> None:
    leg = mending
    for number in range(100, 100 + conflicts.MOST_REPAIRS):
        leg.replica.execute("INSERT INTO patient VALUES (%s, 0, 'x')", (number,))
        leg.source.execute("INSERT INTO patient VALUES (%s, 1, 'y')", (number,))
        leg.catch_up()
    leg.replica.execute("INSERT INTO patient VALUES (200, 0, 'x')")
    leg.source.execute("INSERT INTO patient VALUES (200, 1, 'y')")
    before = counted("halted")
    for _ in range(2):
        with pytest.raises(ApplyConflict, match="patient on the replica was reloaded 3 times"):
            leg.step_until(lambda: False)
        leg.restart()
    assert counted("halted") == before + 2
    leg.resync("patient")  # the operator has found out who it was
    leg.catch_up()
    assert_whole(leg)


def test_a_write_into_the_reloads_own_copy_begins_it_again(
    mending: Leg, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = mending
    leg.replica.execute("INSERT INTO patient VALUES (100, 0, 'x')")
    work(leg)
    leg.step_until(lambda: leg.replicator.resync is not None)
    job = leg.replicator.resync
    assert job is not None
    wait_until(lambda: job.ready, 20, "the reload's copy")
    leg.replica.execute("DELETE FROM _resync_patient WHERE id = 5")
    leg.source.execute("UPDATE patient SET n = 55 WHERE id = 5")
    goal = leg.source_position()
    with monkeypatch.context() as patched:  # so that the main stream is ahead of the copy
        patched.setattr(ResyncDesk, "mind", lambda _self: None)
        leg.step_until(lambda: leg.replicator.position >= goal)
    leg.catch_up()
    assert repaired(leg) == ["patient", "patient"]
    assert_whole(leg)


def test_behind_a_halt_the_resync_that_the_message_names_lets_the_stream_go_on(
    new_leg: NewLeg,
) -> None:
    leg = new_leg()
    fill(leg)
    leg.replica.execute("INSERT INTO patient VALUES (100, 0, 'x')")
    work(leg)
    before = counted("halted")
    with pytest.raises(ApplyConflict, match="patient") as caught:
        leg.step_until(lambda: False)
    assert counted("halted") == before + 1
    named = re.search(r"replicator resync ([a-z ]+);", caught.value.hint)
    assert named is not None
    leg.resync("patient")
    leg.restart()
    leg.catch_up()
    assert_whole(leg)


def test_an_offset_that_was_moved_is_nobodys_row_to_repair(mending: Leg) -> None:
    leg = mending
    leg.replica.execute("UPDATE etl_binlog_offset SET binlog_position = binlog_position + 1")
    leg.source.execute("INSERT INTO patient VALUES (100, 1, 'y')")
    with pytest.raises(Halt):  # a position where no event begins
        leg.step_until(lambda: False)
    assert repaired(leg) == []

"""A table is reloaded beside the stream, and takes the old one's place at a level position."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from config.errors import ConnectionLost
from config.tables import TableRules
from replicator import copy_progress, resync, resync_desk, scratch, tracking
from replicator import source as src
from replicator.binlog.position import SourcePosition
from replicator.binlog.stream import BinlogStream
from replicator.copy_progress import CopyProgress
from replicator.resync import Resync
from replicator.resync_desk import ResyncDesk
from replicator.sandbox.waiting import wait_until
from replicator.snapshot import TableCopier
from tests.numbers import numbers

from .conftest import NewLeg
from .leg import Crash, Leg, crashing, crawl, one_at_a_time

ENGINES = ["InnoDB", "MyISAM"]


def filled(leg: Leg, engine: str) -> None:
    leg.source.execute(
        f"CREATE TABLE patient (id INT PRIMARY KEY, n INT, word VARCHAR(20)) ENGINE={engine}"
    )
    leg.source.execute(f"INSERT INTO patient SELECT seq * 10, seq, 'w' FROM {numbers(1, 10)}")
    leg.source.execute(f"CREATE TABLE other (id INT PRIMARY KEY) ENGINE={engine}")
    leg.catch_up()


def test_a_table_that_a_list_lacks_for_a_moment_is_no_absent_one(
    leg: Leg, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(leg, "InnoDB")
    leg.source.execute("CREATE VIEW seen AS SELECT * FROM other")
    listed = src.base_tables

    def not_yet(*arguments: Any) -> list[src.SourceTable]:
        monkeypatch.setattr(src, "base_tables", listed)
        return []

    with closing(leg.source.connect_as_account(ssl_disabled=True)) as connection:
        for name, there in (("patient", True), ("absent", False), ("seen", False)):
            monkeypatch.setattr(src, "base_tables", not_yet)
            found = src.base_table(connection, leg.source.name, name)
            assert (found is not None and found.name == name) == there
    leg.source.execute("ALTER TABLE patient ADD more INT")  # nothing is kept locked


def spoil(leg: Leg) -> None:
    """Somebody wrote on the replica."""
    leg.replica.execute("DELETE FROM patient WHERE id = 50")
    leg.replica.execute("UPDATE patient SET word = 'spoiled' WHERE id IN (40, 60)")


def around_chunks(
    monkeypatch: pytest.MonkeyPatch, leg: Leg, *works: str | Callable[[], Any]
) -> None:
    """On the resync's own thread: one of `works` behind each chunk."""
    original, waiting = TableCopier.copy_chunk, list(works)

    def copy_chunk(
        self: TableCopier, table: src.SourceTable, progress: CopyProgress
    ) -> CopyProgress:
        after = original(self, table, progress)
        if waiting and progress.target.startswith("_resync_"):
            work = waiting.pop(0)
            if isinstance(work, str):
                with closing(leg.source.connect(ssl_disabled=True)) as connection:
                    for statement in work.split(";"):
                        connection.cursor().execute(statement)
            else:
                work()
        return after

    monkeypatch.setattr(TableCopier, "copy_chunk", copy_chunk)


def wait_for_thread(leg: Leg) -> Resync:
    """Step until a resync has begun, then no more until its copy is whole."""
    leg.step_until(lambda: leg.replicator.resync is not None)
    job: Resync | None = leg.replicator.resync
    assert job is not None
    wait_until(lambda: job.ready or job.error or job.gone, 20, "the resync's copy")
    return job


def assert_left_nothing(leg: Leg) -> None:
    leg.assert_exact()
    assert [t for t in leg.tables() if t.startswith("_")] == []
    assert leg.copied_rows() == {}
    assert leg.replica.query("SELECT stream, pending_ddl FROM etl_binlog_offset") == [
        ("main", None)
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_resync_makes_a_spoiled_table_exact_while_the_source_goes_on(
    new_leg: NewLeg, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, engine)
    spoil(leg)
    around_chunks(
        monkeypatch,
        leg,
        "UPDATE patient SET n = 100 WHERE id = 10; INSERT INTO other VALUES (1);"
        "DELETE FROM patient WHERE id = 90; UPDATE patient SET id = 5 WHERE id = 100",
        "INSERT INTO patient VALUES (15, 15, 'new'), (95, 95, 'new'); INSERT INTO other VALUES (2);"
        "UPDATE patient SET id = 500 WHERE id = 10",
    )
    leg.resync("patient")
    leg.step_until(lambda: leg.replicator.resync is not None)
    leg.source.execute("INSERT INTO other VALUES (3)")
    leg.catch_up()
    assert leg.requests() == [("patient", "loading")]
    assert_left_nothing(leg)
    leg.source.execute("UPDATE patient SET word = 'later', id = id + 1 ORDER BY id DESC")
    leg.catch_up()
    leg.assert_exact()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_copy_is_not_ready_before_the_stream_has_passed_its_window(
    new_leg: NewLeg, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, engine)
    spoil(leg)
    work = "; ".join(
        f"INSERT INTO patient VALUES ({n}, {n}, 'a'); UPDATE patient SET word = 'b' WHERE id = {n};"
        f"INSERT INTO other VALUES ({n})"
        for n in (101, 102, 103)
    )
    around_chunks(monkeypatch, leg, work, work.replace("10", "20"))
    crawl(monkeypatch)
    leg.resync("patient")
    job = wait_for_thread(leg)  # the main stream stands far behind the copy's window
    assert job.room is not None
    progress = copy_progress.copy_progresses(leg.replica._connection())[job.hidden]
    assert progress.high is not None
    assert job.position >= progress.high
    leg.catch_up()
    assert leg.requests() == [("patient", "loading")]
    assert_left_nothing(leg)


DDL = {
    "alter": "ALTER TABLE patient ADD COLUMN extra INT DEFAULT 4",
    "truncate": "TRUNCATE TABLE patient; INSERT INTO patient VALUES (1, 1, 'new')",
    "drop": "DROP TABLE patient",
    "drop and create": "DROP TABLE patient; CREATE TABLE patient (word VARCHAR(9) PRIMARY KEY);"
    "INSERT INTO patient VALUES ('a')",
    "rename": "RENAME TABLE patient TO person; INSERT INTO person VALUES (1, 1, 'new')",
    "swap": "RENAME TABLE patient TO tmp, other TO patient, tmp TO other",
    "of another table": "ALTER TABLE other ADD COLUMN extra INT; INSERT INTO other VALUES (1, 1)",
}


@pytest.mark.parametrize("change", DDL)
def test_a_schema_change_during_a_resync_is_exact_afterwards(
    new_leg: NewLeg, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, "MyISAM" if len(change) % 2 else "InnoDB")
    around_chunks(monkeypatch, leg, DDL[change])
    leg.resync("patient")
    leg.catch_up()
    leg.catch_up()  # to behind what was done meanwhile, where the resync has ended before that
    gone = change in ("drop", "rename")
    assert leg.requests() == [("patient", "failed" if gone else "loading")]
    assert_left_nothing(leg)
    assert set(leg.states()) == set(leg.tables())


def test_a_copy_comes_level_however_far_the_stream_moves_on_between_two_looks(
    leg: Leg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look takes what one read brings, here an event, and more has come until the next."""
    filled(leg, "InnoDB")
    spoil(leg)
    leg.resync("patient")
    job = wait_for_thread(leg)
    assert job.room is not None
    monkeypatch.setattr(
        job.room.stream, "read", partial(one_at_a_time(BinlogStream.read), job.room.stream)
    )
    for look in range(10):
        for number in range(10):
            leg.source.execute("INSERT INTO other VALUES (%s)", (10 * look + number,))
        leg.step_until(partial(_has_come_to, leg, leg.source_position()))
    assert leg.requests() == [("patient", "loading")]
    assert_left_nothing(leg)


def _has_come_to(leg: Leg, position: SourcePosition) -> bool:
    return bool(leg.position() == position)


def test_a_schema_change_that_the_copy_meets_on_the_last_stretch_is_exact_afterwards(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, "InnoDB")
    leg.resync("patient")
    wait_for_thread(leg)
    leg.source.execute("ALTER TABLE patient ADD COLUMN extra INT DEFAULT 4")
    leg.source.execute("INSERT INTO patient VALUES (1, 1, 'new', 1)")
    leg.catch_up()
    assert leg.requests() == [("patient", "loading")]
    assert_left_nothing(leg)


def test_a_resync_right_after_a_schema_change_does_not_meet_it_again_and_again(
    new_leg: NewLeg,
) -> None:
    leg = new_leg(copy_gap_seconds=0.5)
    filled(leg, "MyISAM")
    leg.source.execute("ALTER TABLE patient ADD COLUMN extra INT DEFAULT 4")
    leg.catch_up()
    leg.resync("patient")
    with capture_logs() as logs:
        leg.catch_up()
    assert [line["event"] for line in logs].count("resync_begins_again") <= 1
    assert leg.requests() == [("patient", "loading")]
    assert_left_nothing(leg)


STEPS: dict[str, tuple[Any, str, int, bool]] = {
    "before anything": (ResyncDesk, "_swap", 0, False),
    "before the intent": (tracking, "set_pending", 0, False),
    "behind the intent": (tracking, "set_pending", 0, True),
    "before the old one is cleared away": (resync, "execute", 0, False),
    "before the rename": (resync, "execute", 1, False),
    "behind the rename": (resync, "execute", 1, True),
    "behind the drop": (resync, "execute", 2, True),
    "behind the swap": (resync_desk, "swap", 0, True),
    "before it is noted": (tracking, "set_state", 0, False),
    "when it is noted": (tracking, "set_pending", 1, True),
    "when all is done": (ResyncDesk, "_finish_swap", 0, True),
}


def test_a_swap_cut_off_at_any_step_is_finished_by_the_next_start(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg()
    filled(leg, "InnoDB")
    for number, (owner, name, after, done) in enumerate(STEPS.values(), 1):
        spoil(leg)
        leg.resync("patient")
        wait_for_thread(leg)
        with (
            crashing(monkeypatch, owner, name, after=after, done=done),
            pytest.raises(Crash),
        ):
            leg.step_until(lambda: False)
        leg.source.execute("UPDATE patient SET n = n + 1 WHERE id IN (20, 70)")
        leg.source.execute("DELETE FROM patient WHERE id = %s", (1000 + number - 1,))
        leg.source.execute("INSERT INTO patient VALUES (%s, 7, 'w')", (1000 + number,))
        leg.restart()
        leg.catch_up()
        assert leg.requests() == [("patient", "loading")] * number
        assert_left_nothing(leg)


def test_a_resync_that_was_cut_off_goes_on_behind_its_last_chunk(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, "MyISAM")

    def die() -> None:
        raise ConnectionResetError(104, "cut off")

    around_chunks(monkeypatch, leg, lambda: None, die)
    leg.resync("patient")
    with pytest.raises(ConnectionLost):
        leg.step_until(lambda: False)
    assert leg.copied_rows()["_resync_patient"][0] == 6
    leg.restart()
    leg.catch_up()
    assert leg.requests() == [("patient", "loading")]
    assert_left_nothing(leg)


@pytest.mark.parametrize("name", ["rows_patient", "keys_patient", "moved_0_patient"])
def test_a_cut_off_copy_of_a_table_named_almost_like_ours_goes_on(
    new_leg: NewLeg, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, "InnoDB")
    leg.source.execute(f"CREATE TABLE {name} LIKE patient")
    leg.source.execute(f"INSERT INTO {name} SELECT * FROM patient")
    leg.catch_up()

    def die() -> None:
        raise ConnectionResetError(104, "cut off")

    around_chunks(monkeypatch, leg, lambda: None, die)
    leg.resync(name)
    with pytest.raises(ConnectionLost):
        leg.step_until(lambda: False)
    leg.restart()
    leg.catch_up()
    assert leg.requests() == [(name, "loading")]
    assert_left_nothing(leg)


@pytest.mark.parametrize("prefix", ["_resync_", "_old_"])
@pytest.mark.parametrize("ours", ["_old_etl_rows_", "_old_etl_keys_"])
def test_no_carried_table_has_a_hidden_copy_that_is_taken_for_a_left_over(
    prefix: str, ours: str
) -> None:
    assert ours in (scratch.scratch_name(""), scratch.KEYS_PREFIX)
    if ours.startswith(prefix):
        assert not TableRules().carries(ours.removeprefix(prefix) + "patient")


@pytest.mark.parametrize("table", ["absent", "tempdash1", "etl_x"])
def test_a_resync_of_a_table_that_is_not_there_or_not_carried_fails_alone(
    leg: Leg, table: str
) -> None:
    filled(leg, "InnoDB")
    leg.source.execute("CREATE TABLE tempdash1 (id INT PRIMARY KEY)")
    leg.source.execute("CREATE TABLE etl_x (id INT PRIMARY KEY)")
    leg.resync(table)
    leg.resync("other")
    leg.catch_up()
    assert leg.requests() == [(table, "failed"), ("other", "loading")]
    leg.assert_exact(without=("tempdash1", "etl_x"))
    assert set(leg.states()) == {"patient", "other"}


def test_a_resync_that_failed_leaves_nothing_that_the_next_would_go_on_from(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    filled(leg, "InnoDB")

    def refuse() -> None:
        raise ValueError("not an error of ours, so it does not go away by itself")

    around_chunks(monkeypatch, leg, lambda: None, refuse)
    leg.resync("patient")
    leg.step_until(lambda: leg.requests("failed"))
    assert_left_nothing(leg)
    leg.resync("patient")
    leg.catch_up()
    assert leg.requests() == [("patient", "failed"), ("patient", "loading")]
    assert_left_nothing(leg)


def test_resyncs_give_back_their_connections_to_the_source(new_leg: NewLeg) -> None:
    leg = new_leg(heartbeat_seconds=0.5)  # when the server notices that a stream has gone
    filled(leg, "InnoDB")

    def connections() -> int:
        users = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s"
        return int(leg.source.query(users, (leg.source.user,))[0][0])

    before = connections()
    for _ in range(3):
        leg.resync("patient", "other")
        leg.catch_up()
    wait_until(lambda: connections() <= before, 10, lambda: f"{connections()} connections")


def test_a_keyless_table_that_never_rests_is_given_up_with_the_remedy(
    new_leg: NewLeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_gap_seconds=0.01)
    leg.source.execute("CREATE TABLE tally (word VARCHAR(9)) ENGINE=MyISAM")
    leg.catch_up()
    original = TableCopier._write_whole

    def write_whole(self: TableCopier, *arguments: Any) -> CopyProgress:
        with closing(leg.source.connect(ssl_disabled=True)) as connection:
            connection.cursor().execute("INSERT INTO tally VALUES ('late')")
        return original(self, *arguments)

    with monkeypatch.context() as busy:
        busy.setattr(TableCopier, "_write_whole", write_whole)
        busy.setattr(resync, "_MOST_RESTARTS", 3)
        leg.resync("tally")
        leg.step_until(lambda: leg.requests("failed"))
    (message,) = leg.replica.query("SELECT message FROM etl_resync_request")[0]
    assert "REPLICATOR_COPY_LOCK" in message
    leg.catch_up()
    assert_left_nothing(leg)


SAVEPOINTS = {
    "a temporary table": "CREATE TEMPORARY TABLE scratch (id INT)",
    "a table without transactions": "INSERT INTO loose VALUES ({0})",
}


@pytest.mark.parametrize("change", SAVEPOINTS)
def test_what_is_rolled_back_to_a_savepoint_is_not_in_the_reloaded_table(
    new_leg: NewLeg, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg = new_leg(copy_chunk_rows=3)
    leg.source.execute("CREATE TABLE loose (id INT PRIMARY KEY) ENGINE=MyISAM")
    filled(leg, "InnoDB")
    work = (
        "BEGIN; INSERT INTO other VALUES ({0}); " + SAVEPOINTS[change] + "; SAVEPOINT a;"
        " INSERT INTO patient VALUES ({0}, {0}, 'void'); DELETE FROM patient WHERE id = 20;"
        " SAVEPOINT `b c`; UPDATE patient SET id = id + 1000 WHERE id = 30; ROLLBACK TO `b c`;"
        " ROLLBACK TO a; UPDATE patient SET n = {0} WHERE id = 40; COMMIT"
    )
    around_chunks(monkeypatch, leg, work.format(101), work.format(102))
    leg.resync("patient")
    wait_for_thread(leg)
    with closing(leg.source.connect(ssl_disabled=True)) as connection:  # on the last stretch
        for statement in work.format(103).split("; "):
            connection.cursor().execute(statement)
    if leg.source.server.installation.is_mysql is False:
        file, _offset = leg.source.binlog_end()
        kept = [row[5] for row in leg.source.query(f"SHOW BINLOG EVENTS IN '{file}'")]
        assert any(info.upper().startswith("ROLLBACK TO") for info in kept)
    leg.catch_up()
    assert leg.requests() == [("patient", "loading")]
    assert_left_nothing(leg)

"""Tables that have been gone for long are forgotten, and come back as any other."""

from __future__ import annotations

from tests.integration.loader.conftest import Harness, Replica

COLUMNS = "id int PRIMARY KEY, v varchar(20)"


def age(harness: Harness) -> None:
    harness.raw.execute(
        "UPDATE raw.etl_transform_status SET updated_at = updated_at - interval '25 hours'"
    )


def test_tables_that_have_been_gone_for_a_day_are_forgotten(
    replica: Replica, harness: Harness
) -> None:
    for table in ("first", "second", "there"):
        replica.create(table, COLUMNS)
    harness.catch_up()
    replica.ddl("DROP TABLE first")
    harness.catch_up()
    assert harness.states() == {"first": "dropped", "second": "streaming", "there": "streaming"}
    age(harness)
    replica.ddl("DROP TABLE second")  # by the next that goes
    harness.catch_up()
    assert harness.states() == {"second": "dropped", "there": "streaming"}
    age(harness)
    replica.commit("DELETE FROM etl_extract_status WHERE table_name IN ('first', 'second')")
    harness.restart()  # or at the next start
    replica.commit("INSERT INTO there VALUES (1, 'a')")
    harness.catch_up()
    assert harness.states() == {"there": "streaming"}
    replica.create("first", COLUMNS)
    replica.commit("INSERT INTO first VALUES (1, 'again')")
    harness.catch_up()
    harness.assert_same("first", "there")


def test_of_many_tables_that_are_gone_the_last_thousand_are_told(
    replica: Replica, harness: Harness
) -> None:
    replica.create("there", COLUMNS)
    harness.catch_up()
    harness.raw.execute(
        "INSERT INTO raw.etl_transform_status (table_name, transformation_status, updated_at)"
        " SELECT 'gone' || n, 'dropped', now() - n * interval '1 second'"
        " FROM generate_series(1, 1005) n"
    )
    replica.ddl("DROP TABLE there")
    harness.catch_up()
    states = harness.states()
    assert states.pop("there") == "dropped"
    assert set(states) == {f"gone{n}" for n in range(1, 1001)}

"""Source, replica and raw are the same, whatever is done on the source."""

from __future__ import annotations

import pytest

from replicator.cli.observation import Observer
from replicator.cli.wait import wait
from replicator.sandbox.cluster import Engine
from tests.fix_pipeline import NewPipeline, Practice
from tests.numbers import numbers


@pytest.mark.timeout(240)
@pytest.mark.parametrize("engine", ["MyISAM", "InnoDB"])
def test_a_practice_at_work_arrives_exactly(pipeline: NewPipeline, engine: Engine) -> None:
    pipe = pipeline(engine)
    with Practice(pipe, size=60) as practice:
        pipe.start()  # the first copy runs while people work
        practice.work(1500)
    pipe.catch_up()
    assert pipe.differences() == {}


@pytest.mark.timeout(240)
def test_tables_without_a_key_arrive_with_every_duplicate(pipeline: NewPipeline) -> None:
    pipe = pipeline("InnoDB")
    source = pipe.sandbox.source_db
    source.execute("CREATE TABLE tally (word VARCHAR(20), n INT NULL)")
    source.execute("INSERT INTO tally VALUES ('a', 1), ('a', 1), ('b', NULL), (NULL, NULL)")
    pipe.start()
    pipe.catch_up()
    assert pipe.differences() == {}
    source.execute("INSERT INTO tally SELECT * FROM tally")
    source.execute("DELETE FROM tally WHERE word = 'a' LIMIT 3")
    source.execute("UPDATE tally SET n = 5 WHERE word = 'b' LIMIT 1")
    pipe.catch_up()
    assert pipe.differences() == {}


@pytest.mark.timeout(240)
def test_a_change_is_in_raw_at_once_when_both_legs_are_caught_up(pipeline: NewPipeline) -> None:
    pipe = pipeline("InnoDB")
    source = pipe.sandbox.source_db
    source.execute("CREATE TABLE note (id INT PRIMARY KEY, said VARCHAR(20))")
    pipe.start()
    pipe.catch_up()
    with Observer(pipe.sandbox.settings()) as observer:
        for number in range(20):
            source.execute("INSERT INTO note VALUES (%s, 'synthetic')", (number,))
            assert wait(observer, timeout=10).arrived
            count = "SELECT count(*) FROM raw.note"
            assert pipe.sandbox.analytics_db.query(count) == [(number + 1,)]
    source.execute("INSERT INTO note VALUES (20, 'synthetic')")
    answer = pipe.run("wait", "--timeout", "10")
    assert answer.returncode == 0, answer.stderr
    assert pipe.sandbox.analytics_db.query("SELECT count(*) FROM raw.note") == [(21,)]


@pytest.mark.timeout(240)
def test_a_transaction_larger_than_a_batch_arrives_whole(pipeline: NewPipeline) -> None:
    pipe = pipeline("InnoDB", REPLICATOR_BATCH_BYTES="100000")
    source = pipe.sandbox.source_db
    source.execute("CREATE TABLE wide (id INT PRIMARY KEY, body TEXT)")
    pipe.start()
    pipe.catch_up()
    source.execute(f"INSERT INTO wide SELECT seq, REPEAT('synthetic', 30) FROM {numbers(1, 20000)}")
    source.execute("UPDATE wide SET id = id + 100000, body = CONCAT(body, id)")
    source.execute("DELETE FROM wide WHERE id % 3 = 0")
    pipe.catch_up()
    assert pipe.differences() == {}

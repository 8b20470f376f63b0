"""Every kind of schema change, from a source to `raw`: step by step, and with both legs late."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from replicator.sandbox.waiting import wait_until
from tests.end_to_end.schema_changes import scenarios
from tests.fix_pipeline import NewPipeline, Pipeline
from tests.fix_servers import family, replica_is_newer


def _fill(statement: str, number: int) -> str:
    prefix = f"s{number}_"
    return (
        statement.replace("{t}", f"{prefix}t")
        .replace("{u}", f"{prefix}u")
        .replace("{p}", prefix)
        .replace("{n}", str(number))
    )


def _run(pipe: Pipeline, statements: Iterable[str], number: int) -> None:
    """On one connection, as one client would."""
    with closing(pipe.sandbox.source.connect(database="opendental", charset="utf8mb4")) as client:
        cursor = client.cursor()
        cursor.execute("SET default_storage_engine = InnoDB")
        for statement in statements:
            cursor.execute(_fill(statement, number))
            cursor.fetchall()


def _tables(database: Any, prefix: str) -> list[str]:
    rows = database.query(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
        " AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') AND LEFT(table_name, %s) = %s"
        " ORDER BY 1",
        (len(prefix), prefix),
    )
    return [name for (name,) in rows]


def _definition(database: Any, table: str) -> str:
    quoted = "`" + table.replace("`", "``") + "`"
    text = database.query(f"SHOW CREATE TABLE {quoted}")[0][1]
    text = re.sub(r" DEFAULT (nextval\([^)]*\)|\(nextval\([^)]*\)\))", "", text)
    text = re.sub(r" AUTO_INCREMENT=\d+", "", text).replace("ENGINE=MyISAM", "ENGINE=InnoDB")
    # MariaDB 10.11 says INVISIBLE before a default, 11.8 behind it.
    text = re.sub(r"^(.*?) INVISIBLE(.*?)(,?)$", r"\1\2 INVISIBLE\3", text, flags=re.MULTILINE)
    return text.replace("`opendental_replication`", "`opendental`")


def _check(pipe: Pipeline, number: int) -> None:
    """The same tables, definitions, rows and hashes everywhere."""
    prefix = f"s{number}_"
    source, replica = pipe.sandbox.source_db, pipe.sandbox.replica_db
    raw = pipe.sandbox.analytics_db
    tables = _tables(source, prefix)
    assert _tables(replica, prefix) == tables
    there = raw.query(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'raw'::regnamespace"
        " AND left(relname, %s) = %s",
        [len(prefix), prefix],
    )
    assert sorted(name for (name,) in there) == sorted(tables)
    versioned = {table for table in tables if "SYSTEM VERSIONING" in _definition(source, table)}
    assert pipe.differences([table for table in tables if table not in versioned]) == {}
    for table in versioned:  # raw has every version of a row, as the binlog has
        versions = f"SELECT id, n FROM {table} FOR SYSTEM_TIME ALL"
        there = Counter(source.query(versions))
        assert there == Counter(replica.query(versions))
        assert there == Counter(raw.query(f"SELECT id, n FROM raw.{table}"))
    for table in tables:
        assert _definition(replica, table) == _definition(source, table)
    assert _hashes(pipe, prefix) == dict.fromkeys(tables, 1)


def _hashes(pipe: Pipeline, prefix: str) -> dict[str, int]:
    """How many different schema hashes both legs have noted for each table that streams."""
    noted: dict[str, set[str]] = {}
    for table, digest in pipe.sandbox.replica_db.query(
        "SELECT table_name, schema_hash FROM etl_extract_status"
        " WHERE extraction_status = 'streaming'"
    ):
        noted.setdefault(table, set()).add(digest)
    for relation in ("etl_transform_status", "etl_table_schema"):
        status = " WHERE transformation_status <> 'dropped'" if "transform" in relation else ""
        for table, digest in pipe.sandbox.analytics_db.query(
            f"SELECT table_name, schema_hash FROM raw.{relation}{status}"
        ):
            noted.setdefault(table, set()).add(digest)
    return {table: len(found) for table, found in noted.items() if table.startswith(prefix)}


NUMBERED = dict(enumerate(scenarios(family(), newer=replica_is_newer()).items(), 1))


@pytest.fixture
def pipe(pipeline: NewPipeline) -> Pipeline:
    """Both legs stream what every scenario finds there."""
    made = pipeline("InnoDB", LOADER_RENAME_SECONDS="1", LOADER_REPLACEMENT_SECONDS="5")
    for number, (_, scenario) in NUMBERED.items():
        _run(made, scenario.before(), number)
    made.start()
    made.catch_up(120)
    return made


class Verdicts:
    """Which scenarios ended wrong, and how: all of them are run."""

    def __init__(self, pipe: Pipeline) -> None:
        self._pipe = pipe
        self.wrong: dict[str, str] = {}

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        try:
            yield
        except AssertionError as error:
            if not (self._pipe.replicator.running and self._pipe.loader.running):
                raise AssertionError(f"{name}: {error}") from error
            self.wrong[name] = str(error)

    def verify(self) -> None:
        assert self.wrong == {}
        answer = self._pipe.run("verify", deadline=300)
        assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.timeout(900)
def test_each_change_arrives_at_once(pipe: Pipeline) -> None:
    verdicts = Verdicts(pipe)
    for number, (name, scenario) in NUMBERED.items():
        with verdicts.on(name):
            _run(pipe, scenario.statements, number)
            pipe.catch_up(60)
            _check(pipe, number)
    verdicts.verify()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("late", ["loader", "replicator"])
def test_all_changes_at_once_when_a_leg_is_late(pipe: Pipeline, late: str) -> None:
    daemon = getattr(pipe, late)
    daemon.stop()
    for number, (_, scenario) in NUMBERED.items():
        _run(pipe, scenario.statements, number)
    if late == "loader":
        _reached(pipe)
    daemon.start()
    pipe.catch_up(180)
    verdicts = Verdicts(pipe)
    for number, (name, _) in NUMBERED.items():
        with verdicts.on(name):
            _check(pipe, number)
    verdicts.verify()


def _reached(pipe: Pipeline) -> None:
    """Wait until the replica shows all that the source has."""
    goal = pipe.sandbox.source_db.binlog_end()

    def there() -> bool:
        assert pipe.replicator.running, pipe.replicator.output[-3000:]
        query = "SELECT binlog_file, binlog_position FROM etl_binlog_offset WHERE stream = 'main'"
        return pipe.sandbox.replica_db.query(query)[0] >= goal

    wait_until(there, 60, what=f"the replica at {goal}")

"""Whatever is done on the source, in whatever order: all three servers agree in the end.

One pipeline runs through all examples; each, a program, has tables of its own. When one
fails, its statements are printed as they were sent, in the form that RANDOM_REPLAY reads,
and with the seed, and with what the daemons logged meanwhile; nothing has to be run again to
know them.

RANDOM_EXAMPLES=40    how many programs to try (12 if not said)
RANDOM_SEED=7         draws the programs of that seed, in their order
RANDOM_REPLAY=file    runs the one program whose printed lines the file holds, so many times
RANDOM_KEEP=1         keeps deleted rows and histories of all tables, and looks at these too
RANDOM_SHRINK=1       looks for the smallest program that fails (many minutes)

Statements marked + went to the server while the one before was still running; which of the
two came first is the one thing that a replay does not repeat.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from config.tables import TableRules
from loader.history_shape import history_name
from loader.types import raw_name
from replicator.cli.report import Comparison, TableReport
from replicator.cli.verify import verify
from tests.end_to_end.random_changes import CONNECTIONS, Program, Step, programs
from tests.end_to_end.random_model import quoted
from tests.fix_pipeline import NewPipeline, Pipeline, mysql_rows, raw_rows
from tests.fix_servers import Pair

EXAMPLES = int(os.environ.get("RANDOM_EXAMPLES", "12"))
SEED = int(os.environ.get("RANDOM_SEED") or random.SystemRandom().randrange(10**9))
REPLAY = os.environ.get("RANDOM_REPLAY")
KEEP = os.environ.get("RANDOM_KEEP") == "1"
SHRINK = os.environ.get("RANDOM_SHRINK") == "1"

MOST_LOG = 30_000
"""Characters of each daemon's log that a failure carries with it."""
PHASES = [Phase.generate, *([Phase.shrink] if SHRINK else [])]
SESSIONS = [
    "SET NAMES utf8mb4",
    "SET time_zone = '-05:00', sql_mode = 'STRICT_TRANS_TABLES'",
    "SET time_zone = '+05:30', sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,NO_ZERO_IN_DATE'",
]
"""What the connections are like: the first as OpenDental's own."""


@dataclass
class Sent:
    """A statement and what the source said to it."""

    step: Step
    refused: int = 0

    def __str__(self) -> str:
        mark = "+" if self.step.at_once else " "
        ending = f"   -- refused: {self.refused}" if self.refused else ""
        return f"{self.step.connection}{mark} {self.step.statement}{ending}"


def read_steps(text: str) -> list[Step]:
    """The steps of a program from the lines that a failure prints."""
    lines = re.findall(r"^(\d)([+ ]) (.*?)(?:   -- refused: \d+)?$", text, re.MULTILINE)
    return [Step(int(number), statement, mark == "+") for number, mark, statement in lines]


class Clients:
    """The connections of one program; each is its own session on the source."""

    def __init__(self, pipe: Pipeline) -> None:
        self._pool = ThreadPoolExecutor(CONNECTIONS)
        self._connections: list[Any] = []
        for session in SESSIONS:
            connection = pipe.sandbox.source.connect(database="opendental")
            self._connections.append(connection)
            with connection.cursor() as cursor:
                cursor.execute("SET lock_wait_timeout = 1, innodb_lock_wait_timeout = 0")
                cursor.execute(session)

    def run(self, steps: list[Step], prefix: str) -> list[Sent]:
        """Run a program to its end, transactions that it left open included."""
        with self._pool:
            sent = [
                one
                for group in together(steps)
                for one in self._pool.map(lambda step: self._send(step, prefix), group)
            ]
        for connection in self._connections:
            with closing(connection), connection.cursor() as cursor:
                cursor.execute("COMMIT")
        return sent

    def _send(self, step: Step, prefix: str) -> Sent:
        with self._connections[step.connection].cursor() as cursor:
            try:
                cursor.execute(step.sql(prefix))
            except pymysql.MySQLError as error:
                return Sent(step, error.args[0])  # not part of history
        return Sent(step)


def together(steps: list[Step]) -> Iterator[list[Step]]:
    """Runs of steps that are sent at once, each to a connection of its own."""
    group: list[Step] = []
    for step in steps:
        if not step.at_once or any(step.connection == other.connection for other in group):
            yield group
            group = []
        group.append(step)
    yield group


class Stage:
    """A running pipeline for one program after the other, made anew behind one that failed."""

    def __init__(self, new: NewPipeline, **rules: str) -> None:
        self._new = new
        self._rules = rules
        self._pipe: Pipeline | None = None
        self._numbers = itertools.count(1)
        self._failure: BaseException | None = None
        self.proven = 0
        self.statements: Counter[str] = Counter()

    def prove(self, steps: list[Step]) -> None:
        """Run a program and compare; a failure carries the program with it."""
        if self._failure is not None and not SHRINK:
            # hypothesis asks again whether it is sure; what a race does once is a failure.
            raise self._failure
        prefix, sent, said = f"x{next(self._numbers)}_", [], {}
        try:
            pipe = self._running()
            said = {daemon: len(daemon.output) for daemon in (pipe.replicator, pipe.loader)}
            sent += Clients(pipe).run(steps, prefix)
            pipe.catch_up()
            check(pipe, prefix)
        except BaseException as error:
            self._failure = error
            error.add_note(self._told(sent))
            for daemon, before in said.items():
                error.add_note(f"{daemon.program}:\n{daemon.output[before:][-MOST_LOG:]}")
            if self._pipe is not None:
                running = self._pipe.sandbox.replica_db.query("SHOW FULL PROCESSLIST")
                error.add_note("on the replica:\n" + "\n".join(map(str, running)))
            if self._pipe is not None:
                self._pipe.close()
                self._pipe = None
            raise
        self.proven += 1
        self.statements.update("refused" if one.refused else "taken" for one in sent)

    def _running(self) -> Pipeline:
        if self._pipe is None:
            # What stands for a name that was taken away must go before all is compared.
            self._pipe = self._new(
                LOADER_RENAME_SECONDS="1", LOADER_REPLACEMENT_SECONDS="5", **self._rules
            )
            self._pipe.sandbox.source_db.execute("CREATE TABLE there (id INT PRIMARY KEY)")
            self._pipe.start()
            self._pipe.catch_up()
        return self._pipe

    def _told(self, sent: list[Sent]) -> str:
        lines = "\n".join(map(str, sent))
        return f"program {self.proven + 1} of RANDOM_SEED={SEED}, for RANDOM_REPLAY:\n{lines}"


def check(pipe: Pipeline, prefix: str) -> None:
    """Rows and definitions by our own eyes, then by the product's; then make room."""
    tables = [table for table in pipe.tables() if table.startswith(prefix)]
    unheld = {table: _unheld(pipe, table) for table in pipe.differences(tables)}
    assert _other_definitions(pipe, prefix) == {}
    if KEEP:
        assert histories(pipe, tables) == {}
    assert pipe.raw_tables(prefix) == set(tables)
    if tables:
        report = verify(pipe.sandbox.settings(), TableRules(), tables)
        for found in report.tables:
            _take_out_quarantine(found, unheld.get(found.name, 0))
        assert report.exact(strict=True), str(report.as_json(strict=True))
        names = ", ".join(map(quoted, tables))
        pipe.sandbox.source_db.execute(f"DROP TABLE {names}")


def histories(pipe: Pipeline, tables: list[str]) -> dict[str, str]:
    """Tables whose open versions are not the rows that they have; or which have none of them."""
    found = {}
    with pipe.raw() as raw:
        for table in map(raw_name, tables):
            name, history = table.replace('"', '""'), history_name(table).replace('"', '""')
            columns = raw.execute(
                "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
                " AND attname NOT IN ('_loaded_at', '_source_ts', '_deleted_at')"
                " AND EXISTS (SELECT FROM pg_index WHERE indrelid = attrelid AND indisprimary)",
                [f'raw."{name}"'],
            ).fetchall()[0][0]
            if columns is None:
                continue  # without a key nothing is kept
            live = f'SELECT ROW({columns})::text FROM raw."{name}" WHERE _deleted_at IS NULL'
            held = f'SELECT ROW({columns})::text FROM raw."{history}" WHERE _valid_to IS NULL'
            for left, right in ((live, held), (held, live)):
                query = f"SELECT count(*) FROM ({left} EXCEPT ALL {right}) AS t"
                if raw.execute(query.encode()).fetchall()[0][0]:
                    found[table] = f"{left} EXCEPT ALL {right}"
    return found


def _other_definitions(pipe: Pipeline, prefix: str) -> dict[str, str]:
    """Tables that the replica defines otherwise.

    But for the AUTO_INCREMENT that InnoDB has not (docs/schema-changes.md): of a column that leads
    no key.
    """
    found = pipe.definition_differences(prefix)
    for table, said in list(found.items()):
        columns = pipe.sandbox.source_db.query(f"SHOW COLUMNS FROM {quoted(table)}")
        keys = pipe.sandbox.source_db.query(f"SHOW KEYS FROM {quoted(table)}")
        leading = {key[4] for key in keys if key[3] == 1}
        if any("auto_increment" in extra and name not in leading for name, *_, extra in columns):
            left, _, right = said.removeprefix("source only ").partition("; replica only ")
            if left.replace("auto_increment", "") == right:
                del found[table]
    return found


def _unheld(pipe: Pipeline, table: str) -> int:
    """How many rows `raw` lacks because PostgreSQL holds no such key; nothing else may differ.

    So docs/types.md has it: 0000-00-00 or a NUL in a key. Each of them stands in the quarantine.
    """
    columns = pipe._columns(table)
    with closing(pipe.sandbox.source_db.connect()) as source, pipe.raw() as raw:
        missing = mysql_rows(source, table, columns) - raw_rows(raw, table, columns)
    keys = {row[4] for row in pipe.sandbox.source_db.query(f"SHOW KEYS FROM {quoted(table)}")}
    places = [at for at, (name, _) in enumerate(columns) if name in keys]
    quarantine = pipe.sandbox.analytics_db.query(
        "SELECT reason FROM raw.etl_quarantine WHERE table_name = %s", [table]
    )
    explained = (
        pipe.differences([table])[table].endswith(f" {missing.total()} + 0 in raw")
        and " 0 + 0 differ on the replica" in pipe.differences([table])[table]
        and all(any(_is_no_key(row[at]) for at in places) for row in missing)
        and [reason.startswith("its key cannot be held") for (reason,) in quarantine]
        == [True] * missing.total()
    )
    assert explained, (table, pipe.differences([table]), quarantine)
    return missing.total()


def _is_no_key(value: object) -> bool:
    return value is None or (isinstance(value, str) and "\\0" in value)


def _take_out_quarantine(found: TableReport, unheld: int) -> None:
    """The product must tell of these rows, and of no others; that is then no difference."""
    if unheld:
        [reason] = found.raw.reasons
        assert re.match(rf"{unheld} rows? in quarantine ", reason), reason
        assert all(key.endswith("(in quarantine)") for key in found.raw.keys), found.raw.keys
        found.raw = Comparison()


@pytest.mark.timeout(5400)
def test_random_changes_arrive_exactly(
    pipeline: NewPipeline, servers: Pair, tmp_path: Path
) -> None:
    stage = Stage(pipeline)
    if KEEP:
        rules = tmp_path / "tables.toml"
        rules.write_text('[table."*"]\ndeletes = "soft"\nhistory = true\n')
        stage = Stage(pipeline, REPLICATOR_TABLES=str(rules))
    if REPLAY:
        for _ in range(EXAMPLES):
            stage.prove(read_steps(Path(REPLAY).read_text()))
        return

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs(servers.family))
    def example(program: Program) -> None:
        stage.prove(program.steps)

    began = time.monotonic()
    example()
    told = ", ".join(f"{count} statements {what}" for what, count in stage.statements.items())
    print(f"seed {SEED}: {stage.proven} programs, {told}, {time.monotonic() - began:.0f} s")
    assert stage.proven >= EXAMPLES

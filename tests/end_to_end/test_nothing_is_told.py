"""What stands in the tables stands nowhere else: logs, errors, metrics and verbs tell none of it.

Every column that can hold letters holds a marker; the daemons log all they can, are killed, halt on
errors whose messages quote rows, and come back. Afterwards everything that they and the verbs ever
wrote is searched for the marker, as it is and as hexadecimal digits and base64 would show it.
"""

from __future__ import annotations

import base64
import re
import signal
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from tests.fix_pipeline import NewPipeline, Pipeline

MARK = "Zqxwvk"
"""No word, no identifier, no hexadecimal digits."""
_B64 = [base64.b64encode(b"x" * n + MARK.encode() * 2)[4 * bool(n) : -4] for n in range(3)]
LEAKS = re.compile(
    "|".join([MARK, MARK.encode().hex(), *(re.escape(word.decode()[2:10]) for word in _B64)]),
    re.IGNORECASE,
)
TABLES = (
    "CREATE TABLE every (id INT PRIMARY KEY, c CHAR(20), v VARCHAR(50), t TEXT, m MEDIUMTEXT,"
    f" e ENUM('{MARK}red', '{MARK}blue'), s SET('{MARK}one', '{MARK}two'), j JSON, b BLOB,"
    " vb VARBINARY(50), bi BINARY(20), l VARCHAR(20) CHARACTER SET latin1, d DATE) ENGINE=InnoDB",
    "CREATE TABLE named (name VARCHAR(40) PRIMARY KEY, note TEXT, KEY n (note(10))) ENGINE=InnoDB",
    "CREATE TABLE loose (note VARCHAR(40)) ENGINE=InnoDB",
)
ROW = (
    f"'{MARK}c', '{MARK}v', '{MARK}t', '{MARK}m', '{MARK}red', '{MARK}one,{MARK}two',"
    f" '{{\"{MARK}\": \"{MARK}j\"}}', '{MARK}b', '{MARK}vb', '{MARK}bi', '{MARK}l', '2020-02-02'"
)


def test_a_marker_in_every_column_is_told_by_nobody(pipeline: NewPipeline) -> None:
    the = pipeline("InnoDB", REPLICATOR_LOG_LEVEL="debug", REPLICATOR_COPY_GAP_SECONDS="0.05")
    source = the.sandbox.source_db
    for statement in TABLES:
        source.execute(statement)
    source.execute(f"INSERT INTO every VALUES (1, {ROW}), (2, {ROW})")
    source.execute(f"INSERT INTO named VALUES ('{MARK}one', '{MARK}'), ('{MARK}two', '{MARK}')")
    source.execute(f"INSERT INTO loose VALUES ('{MARK}'), ('{MARK}')")
    said = Said(the)
    the.start()
    the.catch_up()
    keeps_to_itself(the)
    change(the)
    the.catch_up()
    said.page()
    values_that_postgresql_cannot_hold(the)
    rows_that_postgresql_refuses(the)
    the.catch_up()
    said.verb("quarantine", "list")
    said.verb("quarantine", "list", "--json")
    a_duplicate_on_the_replica(the)
    said.verb("status", "--tables")
    a_statement_that_fails_on_the_replica(the)
    killed(the)
    a_row_that_differs(the)
    for words in (("verify",), ("verify", "--json"), ("check",), ("status", "--json"), ("wait",)):
        said.verb(*words)
    said.verb("resync", "named", "--wait", "--timeout", "60")
    the.catch_up()
    said.page()
    assert the.replicator.stop() == 0
    assert the.loader.stop() == 0
    everything = said.everything()
    assert "row_quarantined" in everything or "quarantin" in everything
    assert "1062" in everything
    found = [line[:300] for line in everything.splitlines() if LEAKS.search(line)]
    assert found == []
    assert [name for name in passwords(the) if the.environment[name] in everything] == []


def passwords(the: Pipeline) -> list[str]:
    return [name for name in the.environment if name.endswith("_PASSWORD")]


def keeps_to_itself(the: Pipeline) -> None:
    """No password among a daemon's words, no child to inherit one, no core, no other's ear."""
    for daemon in (the.replicator, the.loader):
        place = Path(f"/proc/{daemon.pid}")
        words = (place / "cmdline").read_text()
        assert [name for name in passwords(the) if the.environment[name] in words] == []
        assert (place / "task" / str(daemon.pid) / "children").read_text() == ""
        assert re.search(r"Max core file size +0 +0 ", (place / "limits").read_text())
    ports = [int(the.environment[f"{leg}_METRICS_PORT"]) for leg in ("REPLICATOR", "LOADER")]
    assert {address for address in listening() if address[1] in ports} == {
        ("0100007F", port)
        for port in ports  # 127.0.0.1
    }


def listening() -> set[tuple[str, int]]:
    """Addresses (in hexadecimal) and ports that somebody listens on."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A":
                address, _, port = local.partition(":")
                found.add((address, int(port, 16)))
    return found


class Said:
    """What was ever written by daemons and verbs."""

    def __init__(self, the: Pipeline) -> None:
        self._the = the
        self._parts: list[str] = []

    def verb(self, *words: str) -> None:
        done = self._the.run(*words)
        assert "Traceback" not in done.stderr
        self._parts += [f"$ {' '.join(words)}", done.stdout, done.stderr]

    def page(self) -> None:
        """The metrics port's pages, of both daemons."""
        for name in ("REPLICATOR_METRICS_PORT", "LOADER_METRICS_PORT"):
            for path in ("metrics", ""):
                address = f"http://127.0.0.1:{self._the.environment[name]}/{path}"
                with urllib.request.urlopen(address, timeout=10) as answer:
                    self._parts.append(answer.read().decode())

    def everything(self) -> str:
        logs = [self._the.replicator.output, self._the.loader.output]
        assert all(logs)
        return "\n".join([*self._parts, *logs])


def change(the: Pipeline) -> None:
    source = the.sandbox.source_db
    source.execute(f"UPDATE every SET v = '{MARK}new', j = JSON_SET(j, '$.k', '{MARK}') WHERE id=1")
    source.execute(f"UPDATE named SET name = '{MARK}three' WHERE name = '{MARK}one'")
    source.execute("DELETE FROM loose LIMIT 1")
    source.execute(f"ALTER TABLE every ADD w VARCHAR(40) NOT NULL DEFAULT '{MARK}default'")
    source.execute(f"ALTER TABLE named COMMENT '{MARK}'")
    source.execute(f"CREATE TABLE {MARK.lower()[:3]}t (a INT PRIMARY KEY) COMMENT '{MARK}'")


def values_that_postgresql_cannot_hold(the: Pipeline) -> None:
    source = the.sandbox.source_db
    source.execute(f"INSERT INTO named VALUES ('{MARK}nul', CONCAT('{MARK}', CHAR(0), 'x'))")
    with closing(source.connect()) as root:
        root.cursor().execute("SET sql_mode = 'ALLOW_INVALID_DATES'")
        root.cursor().execute("UPDATE every SET d = '0000-00-00' WHERE id = 2")


def rows_that_postgresql_refuses(the: Pipeline) -> None:
    """Its message for such a row has a DETAIL line that shows the whole row."""
    the.sandbox.analytics_db.execute(
        f"ALTER TABLE raw.every ADD CONSTRAINT sane CHECK (v <> '{MARK}refused')"
    )
    the.sandbox.source_db.execute(f"UPDATE every SET v = '{MARK}refused' WHERE id = 1")


def a_duplicate_on_the_replica(the: Pipeline) -> None:
    """1062: Duplicate entry '…' for key 'PRIMARY'."""
    on_replica(the, f"INSERT INTO named (name, note) VALUES ('{MARK}dup', '{MARK}')")
    the.sandbox.source_db.execute(f"INSERT INTO named VALUES ('{MARK}dup', '{MARK}mine')")
    assert the.replicator.wait(60) == 2
    on_replica(the, f"DELETE FROM named WHERE name = '{MARK}dup'")
    the.replicator.start()
    the.catch_up()


def a_statement_that_fails_on_the_replica(the: Pipeline) -> None:
    on_replica(the, "ALTER TABLE every ADD late VARCHAR(40)")
    the.sandbox.source_db.execute(
        f"ALTER TABLE every ADD late VARCHAR(40) DEFAULT '{MARK}late' COMMENT '{MARK}'"
    )
    assert the.replicator.wait(60) == 2
    on_replica(the, "ALTER TABLE every DROP late")
    the.replicator.start()
    the.catch_up()


def killed(the: Pipeline) -> None:
    """In the midst of work: SIGKILL, and SIGABRT, which would leave a core."""
    for number in (signal.SIGKILL, signal.SIGABRT):
        the.sandbox.source_db.execute(f"INSERT INTO loose VALUES ('{MARK}'), ('{MARK}')")
        for daemon in (the.replicator, the.loader):
            daemon.signal(number)
            daemon.wait(30)
            daemon.start()
        the.catch_up()


def a_row_that_differs(the: Pipeline) -> None:
    on_replica(the, f"UPDATE every SET t = '{MARK}other' WHERE id = 2")


def on_replica(the: Pipeline, statement: str) -> None:
    with closing(the.sandbox.replica_db.connect()) as root, root.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute(statement)


@pytest.mark.parametrize("shown", [MARK, MARK.lower(), f"x{MARK}y".encode().hex()])
def test_the_search_would_find_it(shown: str) -> None:
    assert LEAKS.search(f'{{"event": "{shown}"}}')
    for n in range(3):
        assert LEAKS.search(base64.b64encode(b"y" * n + f"{MARK}{MARK}".encode()).decode())

"""Markers in every masked column, on every way into PostgreSQL; then its disk and logs are read.

Each value that must not arrive holds `MARKER`, letters that nothing else holds, and each that
may holds `CONTROL`, which must be found, or the search would prove nothing.
"""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.sandbox.waiting import wait_until
from tests.fix_pipeline import NewPipeline, Pipeline

MARKER, CONTROL = "Qvxjkwzmarigold", "Qvxjkwzplaintext"
KEY = "a key of our own, which is long enough"
RULES = """
[mask.patient]
Code = "hash"
SSN = "drop"
Picture = "drop"
LName = "hash"
FName = "redact"
Latin = "redact"
Wide = "hash"
Bytes = "hash"
Blob = "redact"
Long = "redact"
Doc = "redact"
Fee = "redact"
Zip = {prefix = 3}
Born = "year"
Kind = "hash"
"Late*" = "redact"
[mask.log]
who = "redact"
what = "hash"
why = "drop"
[mask.visit]
"Late*" = "redact"
"""
OTHER_RULES = RULES.replace('LName = "hash"', 'LName = "drop"').replace(
    'SSN = "drop"', 'SSN = "hash"'
)
PATIENT = (
    "CREATE TABLE patient (Code varchar(60) NOT NULL, N int NOT NULL, SSN varchar(60),"
    " Picture mediumblob, LName varchar(60) CHARACTER SET utf8mb4, FName varchar(60),"
    " Latin varchar(60) CHARACTER SET latin1, Wide varchar(60) CHARACTER SET ucs2,"
    " Bytes varbinary(60), `Blob` blob, `Long` longtext, Doc longtext, Fee decimal(9,2),"
    " Zip varchar(60), Born date, Kind enum('none','some'), Open varchar(60),"
    " PRIMARY KEY (Code, N))"
)
VISIT = "CREATE TABLE visit (id int PRIMARY KEY)"
LOG = "CREATE TABLE log (who varchar(60), what varchar(60), why text, n int)"


def patient(number: int, *, bad: bool = False, open_: str = CONTROL) -> str:
    """A row with the marker in every masked column; `bad`: nothing that PostgreSQL can hold."""
    nul = "\\0" if bad else ""
    text = f"'{MARKER}{nul}'"
    born = "'1980-00-06'" if bad else "'1980-05-06'"
    return (
        f"INSERT INTO patient VALUES ('{MARKER}', {number}, {text}, {text}, {text}, {text}, {text},"
        f" {text}, {text}, {text}, {text}, '{{\"a\": \"{MARKER}\"}}', 12.5, '973{MARKER}', {born},"
        f" 'some', '{open_}')"
    )


def log(number: int) -> str:
    return f"INSERT INTO log VALUES ('{MARKER}', '{MARKER}{number}', '{MARKER}', {number})"


def forms(word: str) -> list[bytes]:
    """The word as it may stand on a disk, lower case."""
    plain = word.encode()
    found = [plain, word.encode("utf-16-le"), word.encode("utf-16-be"), plain.hex().encode()]
    for shift in range(3):  # without the groups that what is beside it has a part in
        whole = base64.b64encode(b"\0" * shift + plain)
        found.append(whole[4 if shift else 0 : len(whole) // 4 * 4 - 4])
    return [form.lower() for form in found]


def holding(files: Iterator[Path], word: str) -> dict[str, list[int]]:
    """The files that hold the word, and in which forms."""
    wanted = forms(word)
    found = {}
    for path in files:
        content = path.read_bytes().lower()
        which = [number for number, form in enumerate(wanted) if form in content]
        if which:
            found[str(path)] = which
    return found


def postgres_files(pipe: Pipeline) -> Iterator[Path]:
    return (path for path in pipe.sandbox.analytics.data.resolve().rglob("*") if path.is_file())


def logs(pipe: Pipeline) -> Iterator[Path]:
    """What the daemons and PostgreSQL wrote; the MySQL servers hold everything by right."""
    yield from pipe.sandbox.directory.glob("*.log")
    yield pipe.sandbox.analytics.log_file


def query(pipe: Pipeline, text: str) -> list[tuple[object, ...]]:
    return pipe.sandbox.analytics_db.query(text)


@pytest.mark.timeout(240)
def test_no_masked_value_reaches_postgresql_or_a_log(pipeline: NewPipeline, tmp_path: Path) -> None:
    rules = tmp_path / "tables.toml"
    rules.write_text(RULES)
    pipe = pipeline(
        "InnoDB", REPLICATOR_TABLES=str(rules), LOADER_PRIVACY_KEY=KEY, LOADER_RENAME_SECONDS="1"
    )
    source = pipe.sandbox.source_db

    def run(*statements: str) -> None:
        for statement in statements:
            source.execute(statement.replace("%", "%%"))

    run("SET SESSION sql_mode = ''", "SET GLOBAL sql_mode = ''", PATIENT, LOG, VISIT)
    run("INSERT INTO visit VALUES (1)")
    run(*(patient(n, bad=n % 3 == 0) for n in range(30)), *map(log, range(5)))
    pipe.start()
    pipe.catch_up()  # by copies

    # the stream, few rows and many, values that cannot be held among them
    run(*(patient(n, bad=n % 3 == 0) for n in range(100, 220)), *map(log, range(5, 10)))
    run("UPDATE patient SET FName = CONCAT(FName, 'x'), N = N + 1000 WHERE N > 200",
        "UPDATE log SET n = n + 1", "DELETE FROM patient WHERE N IN (1, 2, 101)",
        "DELETE FROM log WHERE n = 3")  # fmt: skip
    pipe.catch_up()
    noted = "SELECT count(*), max(length(original)) FROM raw.etl_value_exceptions"
    missing = 'SELECT count(*), 0 FROM raw.patient WHERE "Born" IS NULL'
    assert query(pipe, noted) == query(pipe, missing)

    # refused rows: the stream's, and a reload's
    query_all = pipe.sandbox.analytics_db.execute
    query_all('ALTER TABLE raw.patient ADD CHECK ("N" NOT BETWEEN 300 AND 400) NOT VALID')
    run(*(patient(n) for n in range(300, 305)))
    pipe.catch_up()
    assert query(pipe, "SELECT count(*) FROM raw.etl_quarantine") == [(5,)]
    assert pipe.run("resync", "patient", "log").returncode == 0
    pipe.catch_up()
    assert query(pipe, "SELECT count(*) FROM raw.etl_quarantine") == [(5,)]

    # schema changes, of a table that could follow in place, and an upgrade's way with a large one
    run(f"ALTER TABLE visit ADD COLUMN Late varchar(60) NOT NULL DEFAULT '{MARKER}'",
        f"ALTER TABLE visit ADD COLUMN LateToo varchar(60) DEFAULT '{MARKER}', ADD COLUMN n int",
        "INSERT INTO visit (id) VALUES (2)")  # fmt: skip
    run(f"ALTER TABLE patient ADD COLUMN Late varchar(60) NOT NULL DEFAULT '{MARKER}'",
        f"ALTER TABLE patient MODIFY FName varchar(80) DEFAULT '{MARKER}'",
        "ALTER TABLE patient ADD COLUMN Plain int NOT NULL DEFAULT 7",
        f"ALTER TABLE patient ADD COLUMN LateToo varchar(60) DEFAULT '{MARKER}',"
        " DROP COLUMN Doc")  # fmt: skip
    run("RENAME TABLE patient TO tempConv_patient1", "CREATE TABLE patient LIKE tempConv_patient1",
        "ALTER TABLE patient ADD COLUMN More int",
        "INSERT INTO patient SELECT *, 1 FROM tempConv_patient1",
        "DROP TABLE tempConv_patient1")  # fmt: skip
    pipe.catch_up()

    # death in the midst of it, and other rules at the start that follows
    run(*(patient_now(n) for n in range(500, 700)))
    pipe.loader.signal(signal.SIGKILL)
    wait_until(lambda: not pipe.loader.running, 10)
    rules.write_text(OTHER_RULES)
    run(*(patient_now(n) for n in range(700, 720)))
    pipe.loader.start()
    pipe.catch_up()
    run(*(patient_now(n) for n in range(720, 740)))
    pipe.catch_up()
    held = {row[0] for row in query(pipe, _COLUMNS)}
    assert "SSN" in held
    assert not {"LName", "Picture", "Doc"} & held
    run("DELETE FROM patient WHERE N BETWEEN 300 AND 304")  # those in quarantine
    pipe.catch_up()
    verified = pipe.run("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    status = {t["name"]: t for t in json.loads(pipe.run("status", "--json").stdout)["tables"]}
    assert (status["patient"]["masked"], status["log"]["masked"]) == (16, 3)

    with pipe.sandbox.analytics.connect() as connection:
        connection.execute("CHECKPOINT")
    assert holding(logs(pipe), MARKER) == {}
    assert holding(postgres_files(pipe), MARKER) == {}
    control = holding(postgres_files(pipe), CONTROL)
    assert any("pg_wal" in path for path in control)
    assert any("base" in path for path in control)
    replica = (p for p in pipe.sandbox.replica.directory.rglob("*") if p.is_file())
    assert holding(replica, MARKER)


_COLUMNS = "SELECT column_name FROM information_schema.columns WHERE table_name = 'patient'"


def patient_now(number: int) -> str:
    """A row in the table's last shape."""
    row = patient(number).replace(f"""'{{"a": "{MARKER}"}}', """, "")
    return row[:-1] + f", '{MARKER}', 7, '{MARKER}', 1)"


def test_the_search_finds_each_form(tmp_path: Path) -> None:
    for number, text in enumerate(
        [f"a{MARKER}b".encode(), MARKER.encode("utf-16-le"), MARKER.encode("utf-16-be"),
         MARKER.encode().hex().upper().encode(), base64.b64encode(MARKER.encode()),
         base64.b64encode(b"x" + MARKER.encode() + b"yz"),
         base64.b64encode(b"xy" + MARKER.encode() + b"z")]
    ):  # fmt: skip
        path = tmp_path / str(number)
        path.write_bytes(b"before" + text + b"behind")
        assert holding(iter([path]), MARKER), number

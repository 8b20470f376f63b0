"""Masks by the stream and by reloads, in keys, in the quarantine, and when rules change.

What `raw` must hold is worked out here from the replica's own SELECT, by a second account of
the masks.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from config.errors import ConfigError
from config.settings import Settings
from loader.daemon import Loader

from ..conftest import Harness, Replica

KEY = "a key of our own, which is long enough"
OTHER_KEY = "another key of our own, as long as that"
RULES = """
[mask.patient]
SSN = "drop"
LName = "hash"
AddrNote = "redact"
Birthdate = "year"
Zip = {prefix = 3, zeroed = ["036"]}
Fee = "redact"
"""
PATIENT = (
    "PatNum bigint PRIMARY KEY, SSN varchar(100), LName varchar(100), AddrNote text,"
    " Birthdate date, Zip varchar(20), Fee decimal(9,2), Status tinyint NOT NULL DEFAULT 0"
)
COLUMNS = "PatNum, SSN, LName, AddrNote, Birthdate, Zip, Fee, Status"


def hashed(value: str | None, key: str = KEY) -> str | None:
    if not value:
        return value
    return hmac.new(key.encode(), value.encode(), hashlib.sha256).hexdigest()


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    path = tmp_path / "tables.toml"
    path.write_text(RULES)
    tuning = settings.loader.model_copy(
        update={"privacy_key": SecretStr(KEY), "rename_seconds": 0.2}
    )
    return settings.model_copy(update={"tables_file": path, "loader": tuning})


def change_rules(harness: Harness, text: str, key: str = KEY) -> None:
    """Other rules from the next start on."""
    harness.settings.tables_file.write_text(text)
    tuning = harness.settings.loader.model_copy(update={"privacy_key": SecretStr(key)})
    harness.settings = harness.settings.model_copy(update={"loader": tuning})
    harness.restart()
    harness.loader.step()
    harness.catch_up()


def patient(number: int, **columns: str) -> str:
    values = {
        "SSN": "'periwinkle'", "LName": f"'mari\\tgold{number % 3}'", "AddrNote": "'foxglove'",
        "Birthdate": f"'19{40 + number % 60}-05-06'", "Zip": "'03601'", "Fee": "12.5", **columns,
    }  # fmt: skip
    return (
        f"INSERT INTO patient ({COLUMNS}) VALUES ({number}, {values['SSN']}, {values['LName']},"
        f" {values['AddrNote']}, {values['Birthdate']}, {values['Zip']}, {values['Fee']}, 1)"
    )


def assert_masked(harness: Harness, key: str = KEY) -> None:
    found = harness.raw.query(
        'SELECT "PatNum", "LName", "AddrNote", "Birthdate"::text, "Zip", "Fee", "Status"'
        ' FROM raw.patient ORDER BY "PatNum"'
    )
    expected: list[tuple[Any, ...]] = []
    for row in harness.replica.database.query(
        "SELECT PatNum, LName, AddrNote, CAST(YEAR(Birthdate) AS CHAR), Zip, Status FROM patient"
        " ORDER BY PatNum"
    ):
        number, name, note, year, zipped, status = row
        short = zipped[:3] if zipped is not None else None
        expected.append(
            (
                number,
                hashed(name, key),
                "[redacted]" if note else note,
                f"{int(year):04d}-01-01" if year and int(year) else None,
                "000" if short == "036" else short,
                None,
                status,
            )
        )
    assert found == expected


def columns_of(harness: Harness, table: str) -> dict[str, str]:
    return dict(
        harness.raw.query(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (f'raw."{table}"',),
        )
    )


def test_the_stream_and_a_load_mask_alike(harness: Harness, replica: Replica) -> None:
    replica.create("patient", PATIENT)
    replica.commit(*(patient(n) for n in range(200)))
    harness.catch_up()  # a load
    assert "SSN" not in columns_of(harness, "patient")
    assert_masked(harness)
    replica.commit(
        *(patient(n) for n in range(200, 300)),
        "UPDATE patient SET LName = 'lilac' WHERE PatNum < 5",
        "UPDATE patient SET SSN = 'other' WHERE PatNum = 6",
        "UPDATE patient SET LName = '', AddrNote = '', Zip = '12', Birthdate = '0001-01-01'"
        " WHERE PatNum = 7",
        "UPDATE patient SET LName = NULL, AddrNote = NULL, Zip = NULL, Birthdate = NULL"
        " WHERE PatNum = 8",
        "DELETE FROM patient WHERE PatNum BETWEEN 10 AND 20",
    )
    replica.commit(patient(1000), patient(1001, Zip="'97301'"))
    harness.catch_up()
    assert_masked(harness)


def test_a_reload_of_masked_rows_writes_nothing_that_is_the_same(
    harness: Harness, replica: Replica
) -> None:
    replica.create("patient", PATIENT)
    replica.commit(*(patient(n) for n in range(50)))
    harness.catch_up()
    replica.commit(*(patient(n) for n in range(50, 100)))  # by the stream
    harness.catch_up()
    before = harness.raw.query('SELECT "PatNum", _loaded_at FROM raw.patient ORDER BY 1')
    replica.commit(
        "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
        " VALUES ('patient', UTC_TIMESTAMP(6), 'loading', UTC_TIMESTAMP(6))"
    )
    harness.catch_up()
    assert harness.raw.query('SELECT "PatNum", _loaded_at FROM raw.patient ORDER BY 1') == before


@pytest.mark.parametrize(
    "rules",
    [
        "",
        '[mask.patient]\nLName = "redact"\n',
        '[mask.patient]\nSSN = "hash"\n',
        '[mask.patient]\nPatNum = "hash"\n',
        '[mask.patient]\n"[A-OQ-Z]*" = "drop"\n',
        RULES.replace('"drop"', '"hash"'),
        RULES.replace('"year"', "{year = 1970}"),
    ],
)
def test_changed_rules_reload_what_they_touch_and_nothing_else(
    harness: Harness, replica: Replica, rules: str
) -> None:
    replica.create("patient", PATIENT)
    replica.create("other", "id int PRIMARY KEY, LName varchar(20)")
    replica.commit(*(patient(n) for n in range(20)), "INSERT INTO other VALUES (1, 'x')")
    harness.catch_up()
    other = harness.raw.query("SELECT _loaded_at FROM raw.other")
    change_rules(harness, rules)
    stored = dict(harness.raw.query("SELECT table_name, schema_hash FROM raw.etl_transform_status"))
    fresh = Loader(harness.settings)
    assert stored["patient"] is not None
    fresh.close()
    replica.commit(*(patient(n) for n in range(20, 40)))  # the stream fits what the reload made
    harness.catch_up()
    count = harness.raw.query("SELECT count(*) FROM raw.patient")
    assert count == [(40,)]
    change_rules(harness, RULES)
    assert_masked(harness)
    assert harness.raw.query("SELECT _loaded_at FROM raw.other") == other


def test_another_key_gives_other_hashes_everywhere(harness: Harness, replica: Replica) -> None:
    replica.create("patient", PATIENT)
    replica.commit(*(patient(n) for n in range(20)))
    harness.catch_up()
    assert_masked(harness, KEY)
    change_rules(harness, RULES, OTHER_KEY)
    assert_masked(harness, OTHER_KEY)


def test_a_hashed_key_is_a_key_and_joins(harness: Harness, replica: Replica) -> None:
    harness.settings.tables_file.write_text('[mask."*"]\nPatNum = "hash"\n')
    harness.restart()
    replica.create("person", "PatNum bigint PRIMARY KEY, v int")
    replica.create("visit", "id int PRIMARY KEY, PatNum bigint NOT NULL")
    replica.commit(
        "INSERT INTO person VALUES (1, 1), (2, 2), (-3, 3), (9223372036854775807, 4)",
        "INSERT INTO visit VALUES (10, 2), (11, -3), (12, 99)",
    )
    harness.catch_up()
    replica.commit(
        "UPDATE person SET v = 20 WHERE PatNum = 2",
        "DELETE FROM person WHERE PatNum = 1",
        "UPDATE person SET PatNum = 5 WHERE PatNum = -3",
        "INSERT INTO person VALUES (6, 6)",
        "UPDATE visit SET PatNum = 5 WHERE id = 11",
    )
    harness.catch_up()
    assert columns_of(harness, "person")["PatNum"] == "text"
    people = dict(harness.raw.query('SELECT "PatNum", v FROM raw.person'))
    assert people == {
        hashed(str(number)): v for number, v in ((2, 20), (5, 3), (6, 6), (2**63 - 1, 4))
    }
    joined = harness.raw.query(
        'SELECT id, v FROM raw.visit JOIN raw.person USING ("PatNum") ORDER BY id'
    )
    assert joined == [(10, 20), (11, 3)]


def test_a_table_without_a_key_is_masked_row_by_row(harness: Harness, replica: Replica) -> None:
    harness.settings.tables_file.write_text('[mask.log]\nwho = "redact"\nwhat = "drop"\n')
    harness.restart()
    replica.create("log", "who varchar(20), what varchar(20), n int")
    replica.commit("INSERT INTO log VALUES ('a', 'x', 1), ('b', 'y', 1), ('', 'z', 1)")
    harness.catch_up()
    replica.commit(
        "DELETE FROM log WHERE who = 'a'",
        "INSERT INTO log VALUES ('c', 'x', 1), ('d', 'x', 2)",
        "UPDATE log SET n = 3 WHERE who = 'b'",
    )
    harness.catch_up()
    found = sorted(harness.raw.query("SELECT who, n FROM raw.log"))
    assert found == [("", 1), ("[redacted]", 1), ("[redacted]", 2), ("[redacted]", 3)]


# --- what PostgreSQL cannot hold, and what it refuses -----------------------------------------


def test_value_exceptions_have_no_original_of_a_masked_column(
    harness: Harness, replica: Replica
) -> None:
    replica.create("patient", PATIENT)
    bad = {
        "LName": "'mari\\0gold'", "AddrNote": "'fox\\0glove'", "Birthdate": "'1980-00-06'",
        "Zip": "'ab\\0cd'", "SSN": "'peri\\0winkle'",
    }  # fmt: skip
    replica.commit(patient(1, **bad))
    harness.catch_up()
    replica.commit(patient(2, **bad))
    harness.catch_up()
    found = harness.raw.query(
        "SELECT key, column_name, original, reason FROM raw.etl_value_exceptions ORDER BY 1, 2"
    )
    assert [(key, name, bytes(original)) for key, name, original, _ in found] == [
        (key, name, b"") for key in ("1", "2") for name in ("Birthdate", "Zip")
    ]
    rows = harness.raw.query(
        'SELECT "LName", "AddrNote", "Birthdate", "Zip" FROM raw.patient ORDER BY "PatNum"'
    )
    assert rows == [(hashed("\0mari\0gold"), "[redacted]", None, "ab\\")] * 2


def test_quarantine_holds_the_masked_row(harness: Harness, replica: Replica) -> None:
    replica.create("patient", PATIENT)
    replica.commit(patient(1))
    harness.catch_up()
    harness.raw.execute(
        'ALTER TABLE raw.patient ADD CONSTRAINT small CHECK ("Status" < 5) NOT VALID'
    )
    replica.commit(patient(2), "UPDATE patient SET Status = 9 WHERE PatNum = 2")
    harness.catch_up()
    found = harness.raw.query(
        "SELECT key, convert_from(row_image, 'UTF8'), image_columns FROM raw.etl_quarantine"
    )
    assert [key for key, _, _ in found] == ["2"]
    assert found[0][1].split("\t") == [
        "2", hashed("mari\tgold2"), "[redacted]", "1942-01-01", "000", "\\N", "9",
    ]  # fmt: skip
    assert "SSN" not in found[0][2]
    harness.raw.execute("ALTER TABLE raw.patient DROP CONSTRAINT small")
    harness.raw.execute("UPDATE raw.etl_quarantine SET replay_requested_at = now()")
    harness.step_until(lambda: harness.raw.query("SELECT 1 FROM raw.etl_quarantine") == [])
    assert_masked(harness)


# --- schema changes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alter",
    [
        "ADD COLUMN Note varchar(20) NOT NULL DEFAULT 'marigold'",
        "MODIFY LName varchar(200) NOT NULL DEFAULT 'marigold'",
        "CHANGE SSN Ssn2 varchar(100)",
        "CHANGE Zip SSN varchar(20), DROP COLUMN SSN",
        "DROP COLUMN Birthdate",
        "DROP COLUMN SSN",
        "ADD COLUMN Extra int NOT NULL DEFAULT 7",
        "MODIFY Status int NOT NULL",
        "DROP PRIMARY KEY, ADD PRIMARY KEY (PatNum, Status)",
        "RENAME TO patient_",
    ],
)
def test_schema_changes_keep_the_masks(harness: Harness, replica: Replica, alter: str) -> None:
    rules = '[mask."patient*"]\n' + RULES.split("\n", 2)[2] + 'Note = "redact"\n'
    harness.settings.tables_file.write_text(rules)
    harness.restart()
    replica.create("patient", PATIENT)
    replica.commit(*(patient(n) for n in range(10)))
    harness.catch_up()
    replica.ddl(f"ALTER TABLE patient {alter}")
    table = "patient_" if "RENAME" in alter else "patient"
    if table != "patient":
        replica.streams(table)
    replica.commit(f"UPDATE {table} SET Fee = 3 WHERE PatNum = 3")
    harness.catch_up()
    there = columns_of(harness, table)
    assert "SSN" not in there
    assert harness.raw.query(f"SELECT count(*) FROM raw.{table}") == [(10,)]
    text = [name for name, kind in there.items() if kind == "text"]
    every = " || ".join(f"coalesce(\"{name}\", '')" for name in text)
    found = " ".join(row[0] for row in harness.raw.query(f"SELECT {every} FROM raw.{table}"))
    if "Ssn2" not in alter:  # a name that no rule knows
        assert "periwinkle" not in found
    assert "marigold" not in found
    assert "foxglove" not in found


def test_a_table_that_takes_another_name_takes_its_rules(
    harness: Harness, replica: Replica
) -> None:
    """Renamed to a name without rules it has none; renamed back it is masked again."""
    replica.create("patient", PATIENT)
    replica.commit(patient(1), patient(2))
    harness.catch_up()
    replica.ddl("RENAME TABLE patient TO someone")
    replica.streams("someone")
    replica.commit("UPDATE someone SET Fee = 3 WHERE PatNum = 1")
    harness.catch_up()
    assert harness.raw.query('SELECT "AddrNote" FROM raw.someone') == [("foxglove",)] * 2
    replica.ddl("RENAME TABLE someone TO patient")
    replica.streams("patient")
    replica.commit("UPDATE patient SET Fee = 4 WHERE PatNum = 1")
    harness.catch_up()
    assert_masked(harness)


def test_a_view_keeps_no_value_of_a_column_that_is_dropped(
    harness: Harness, replica: Replica
) -> None:
    harness.settings.tables_file.write_text("")
    harness.restart()
    replica.create("patient", PATIENT)
    replica.commit(patient(1), patient(2))
    harness.catch_up()
    harness.raw.execute('CREATE VIEW raw.numbers AS SELECT "SSN" FROM raw.patient')
    assert harness.raw.query("SELECT * FROM raw.numbers") == [("periwinkle",)] * 2
    change_rules(harness, RULES)
    assert_masked(harness)
    assert harness.raw.query("SELECT * FROM raw.numbers") == [(None,)] * 2


# --- wrong rules -----------------------------------------------------------------------------


def test_rules_that_cannot_be_applied_stop_the_start(harness: Harness, replica: Replica) -> None:
    replica.create("patient", PATIENT)
    replica.commit(patient(1))
    harness.settings.tables_file.write_text('[mask.patient]\nPatNum = "redact"\nLName = "year"\n')
    harness.restart()
    with pytest.raises(ConfigError) as caught:
        harness.loader.step()
    assert len(caught.value.faults) == 2
    assert "patient.PatNum" in str(caught.value)
    assert "patient.LName" in str(caught.value)
    tables = harness.raw.query("SELECT tablename FROM pg_tables WHERE tablename = 'patient'")
    assert tables == []


def test_rules_that_match_nothing_are_told(
    harness: Harness, replica: Replica, capsys: pytest.CaptureFixture[str]
) -> None:
    replica.create("patient", PATIENT)
    harness.settings.tables_file.write_text('[mask.patient]\nSNN = "drop"\n')
    harness.restart()
    harness.loader.step()
    assert "[mask.patient] SNN" in capsys.readouterr().out

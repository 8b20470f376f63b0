"""The dbt project on a live pipeline: what the source commits is what the marts show.

Tables are OpenDental's, by the sandbox's notation; rows are made by hand, so that each
says what it is about. That a mart holds each row of `raw` in its present version, and no
other, is asked of `raw` itself: key and `_loaded_at` name a version.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from replicator.sandbox.schema import TABLES
from replicator.sandbox.waiting import wait_until
from tests.fix_pipeline import NewPipeline, Pipeline
from tests.integration.dbt.conftest import Ended, RunDbt

CARRIED = ("patient", "appointment", "procedurelog", "procedurecode")

ROWS = (
    # Ordinary patients, one without a birthday, one with a status that OpenDental has not.
    "INSERT INTO patient (PatNum, LName, PatStatus, Gender, Birthdate, Guarantor, EstBalance)"
    " VALUES (1, 'Synthetic-1', 0, 1, '1980-05-17', 1, 12.5),"
    " (2, 'Synthetic-2', 2, 0, '0001-01-01', 1, 0), (3, 'Synthetic-3', 77, 2, '2015-01-02', 3, 0),"
    " (4, 'Synthetic-4', 0, 3, '2001-12-31', 0, 0)",
    "INSERT INTO appointment (AptNum, PatNum, AptStatus, Pattern, AptDateTime, DateTimeArrived,"
    " DateTimeSeated, DateTimeDismissed, SecDateTEntry, IsNewPatient) VALUES"
    " (1, 1, 1, '//XXXX', '2030-03-04 09:30:00', '2030-03-04 00:00:00', '0001-01-01 00:00:00',"
    " '0001-01-01 00:00:00', '2030-02-02 11:00:00', 1),"
    " (2, 99, 2, 'XX', '2030-03-04 10:00:00', '2030-03-04 09:50:00', '2030-03-04 10:05:00',"
    " '2030-03-04 10:45:00', '0001-01-01 00:00:00', 0),"
    " (3, 2, 5, '', '0001-01-01 00:00:00', '0001-01-01 00:00:00', '0001-01-01 00:00:00',"
    " '0001-01-01 00:00:00', '0001-01-01 00:00:00', 0)",
    "INSERT INTO appointment (AptNum, PatNum, AptStatus) VALUES (4, 3, 6), (5, 4, 1), (6, 1, 255)",
    "INSERT INTO procedurecode (CodeNum, ProcCode, Descript, TreatArea, IsHygiene) VALUES"
    " (1, 'S0001', 'synthetic examination', 3, 0), (2, 'S0002', 'synthetic cleaning', 2, 1),"
    " (3, 'S0003', 'synthetic filling', 1, 0)",
    "INSERT INTO procedurelog (ProcNum, PatNum, AptNum, ProcDate, ProcFee, ProcStatus, CodeNum,"
    " UnitQty, BaseUnits, ProcTime, ProcTimeEnd, DateComplete) VALUES"
    " (1, 1, 1, '2030-03-04', 80.25, 2, 1, 2, 0, '-01:00:00', '09:45:00', '2030-03-04'),"
    " (2, 1, 3, '2030-03-05', 50, 1, 2, 0, 0, '00:00:00', '00:00:00', '0001-01-01'),"
    " (3, 99, 0, '0001-01-01', 10, 6, 3, 1, 0, '00:00:00', '00:00:00', '0001-01-01'),"
    " (4, 2, 5, '2030-03-06', 10, 2, 2, 1, 0, '00:00:00', '00:00:00', '0001-01-01')",
)
CHANGES = (
    "INSERT INTO appointment (AptNum, PatNum, AptStatus) VALUES (7, 2, 1), (8, 1, 1)",
    "UPDATE appointment SET AptStatus = 2, DateTimeSeated = '2030-03-04 09:31:00' WHERE AptNum = 1",
    "DELETE FROM appointment WHERE AptNum = 3",
    "UPDATE appointment SET AptNum = 40 WHERE AptNum = 4",
    # What facts look up comes and goes; their own rows stay as they are.
    "INSERT INTO patient (PatNum, LName) VALUES (99, 'Synthetic-99')",
    "DELETE FROM patient WHERE PatNum = 4",
    "UPDATE procedurecode SET Descript = 'synthetic, changed' WHERE CodeNum = 1",
    "DELETE FROM procedurecode WHERE CodeNum = 2",
    "DELETE FROM procedurelog WHERE ProcNum = 4",
)
OWN_TREATMENTS = (
    "INSERT INTO treatment (TreatmentNum, PatNum, AptNum, ProcNum, TreatmentDate, TreatmentStatus,"
    " Fee) VALUES (1, 1, 1, 1, '2030-03-04', 2, 7.5), (50, 2, 0, 0, '0001-01-01', 1, 3)"
)


@pytest.mark.timeout(600)
def test_the_models_follow_what_the_source_does(
    pipeline: NewPipeline, dbt: RunDbt, tmp_path: Path
) -> None:
    rules = tmp_path / "tables.toml"
    rules.write_text('[table.patient]\ndeletes = "soft"\nhistory = true\n')
    pipe = pipeline(REPLICATOR_TABLES=str(rules))
    for table in CARRIED:
        pipe.sandbox.source_db.execute(TABLES[table].ddl(pipe.sandbox.engine))
    for statement in ROWS:
        pipe.sandbox.source_db.execute(statement)
    pipe.start()
    pipe.catch_up()

    whole = dbt(pipe.environment, "build")
    assert_green(whole)
    assert_names(pipe)
    assert_marts_are_raw(pipe, "procedurelog", "ProcNum")
    assert_readable(pipe)
    unknown = "known_code_stg_opendental__appointment_AptStatus__appointment_status_code"
    assert [name for name in whole.of("warn") if name.startswith(unknown)]

    untouched = written_by(pipe, "fact_appointments", "appointment_num", 6)
    for statement in CHANGES:
        pipe.sandbox.source_db.execute(statement)
    pipe.catch_up()
    assert pipe.run("wait").returncode == 0
    # A transaction that began long ago and is seen only now.
    pipe.sandbox.analytics_db.execute(
        "UPDATE raw.appointment SET _loaded_at = '2001-01-01' WHERE \"AptNum\" = 8"
    )
    assert_green(dbt(pipe.environment, "build"))
    assert_marts_are_raw(pipe, "procedurelog", "ProcNum")
    assert_followed(pipe)
    assert written_by(pipe, "fact_appointments", "appointment_num", 6) == untouched

    stale = dbt(pipe.environment, "source", "freshness")
    assert stale.code == 0, stale.output
    assert set(stale.statuses.values()) == {"pass"}

    # A table `treatment` of the practice's own, a column less; patients go, and come back.
    pipe.sandbox.source_db.execute(TABLES["treatment"].ddl(pipe.sandbox.engine))
    pipe.sandbox.source_db.execute(OWN_TREATMENTS)
    pipe.sandbox.source_db.execute("ALTER TABLE appointment DROP COLUMN Pattern")
    pipe.sandbox.source_db.execute("UPDATE appointment SET AptStatus = 5 WHERE AptNum = 1")
    pipe.sandbox.source_db.execute("DELETE FROM patient WHERE PatNum = 2")
    pipe.sandbox.source_db.execute("INSERT INTO patient (PatNum, LName) VALUES (4, 'Synthetic-4')")
    pipe.catch_up()
    marked = 'SELECT "PatNum" FROM raw.patient WHERE _deleted_at IS NOT NULL'
    assert rows(pipe, marked) == [(2,)]
    versions = 'SELECT "LName", _valid_to IS NULL FROM raw.patient_history WHERE "PatNum" = 4'
    assert sorted(rows(pipe, versions)) == [("Synthetic-4", False), ("Synthetic-4", True)]
    verified = pipe.run("verify")
    assert verified.returncode == 0, verified.stdout
    assert_green(dbt(pipe.environment, "run"))
    assert_marts_are_raw(pipe, "treatment", "TreatmentNum")
    assert_own_treatments(pipe)

    # Identifiers are masked from now on, and what dbt has built before is built anew.
    rules.write_text(f'privacy = "limited"\n{rules.read_text()}')
    pipe.loader.signal(signal.SIGHUP)
    shown = "SELECT count(*) FROM raw.patient WHERE \"LName\" LIKE 'Synthetic%'"
    wait_until(lambda: rows(pipe, shown) == [(0,)], 60, what=lambda: pipe.loader.output[-3000:])
    pipe.catch_up()
    assert_green(dbt(pipe.environment, "build", "--full-refresh"))
    assert_marts_are_raw(pipe, "treatment", "TreatmentNum")
    assert_limited(pipe)


def rows(pipe: Pipeline, query: str) -> list[tuple[Any, ...]]:
    return pipe.sandbox.analytics_db.query(query)


def written_by(pipe: Pipeline, mart: str, key: str, number: int) -> list[tuple[Any, ...]]:
    """The transaction that wrote the row, and where it lies: the same while nobody rewrites it."""
    return rows(pipe, f"SELECT xmin::text, ctid FROM public_marts.{mart} WHERE {key} = {number}")


def assert_green(ended: Ended) -> None:
    assert ended.code == 0, ended.output[-6000:]
    assert set(ended.statuses.values()) <= {"success", "pass", "warn"}
    # Nothing but what OpenDental itself does not hold to may be warned of.
    relations = ("known_code_stg_", "relationships_stg_")
    assert all(name.startswith(relations) for name in ended.of("warn")), ended.of("warn")


def assert_names(pipe: Pipeline) -> None:
    found = rows(
        pipe,
        "SELECT table_schema || '.' || table_name FROM information_schema.tables"
        " WHERE table_schema LIKE 'public\\_%' AND table_name NOT LIKE 'opendental\\_%'",
    )
    assert {name for (name,) in found} == {
        "public_staging.stg_opendental__patient",
        "public_staging.stg_opendental__appointment",
        "public_staging.stg_opendental__treatment",
        "public_intermediate.int_patient_demographics",
        "public_intermediate.int_appointment_scheduling",
        "public_intermediate.int_treatment_history",
        "public_marts.dim_patient",
        "public_marts.fact_appointments",
        "public_marts.fact_treatments",
    }


def assert_marts_are_raw(pipe: Pipeline, treatments: str, key: str) -> None:
    """Each mart has each row of its raw table in the version that stands there, and no other."""
    live = "_deleted_at IS NULL"
    for mart, column, table, own, where in (
        ("dim_patient", "patient_num", "patient", "PatNum", live),
        ("fact_appointments", "appointment_num", "appointment", "AptNum", "true"),
        ("fact_treatments", "treatment_num", treatments, key, "true"),
    ):
        shown = rows(
            pipe, f"SELECT {column}, _loaded_at FROM public_marts.{mart} WHERE {column} <> 0"
        )
        held = rows(pipe, f'SELECT "{own}", _loaded_at FROM raw.{table} WHERE {where}')
        assert sorted(shown) == sorted(held), mart


def facts(pipe: Pipeline, mart: str, key: str, columns: str) -> dict[int, Sequence[Any]]:
    found = rows(pipe, f"SELECT {key}, {columns} FROM public_marts.{mart}")
    return {number: rest for number, *rest in found}


def assert_readable(pipe: Pipeline) -> None:
    patients = facts(
        pipe, "dim_patient", "patient_num", "patient_status, gender, birth_date, is_guarantor"
    )
    assert patients == {
        0: ["Unknown", "Unknown", None, True],
        1: ["Patient", "Female", date(1980, 5, 17), True],
        2: ["Inactive", "Male", None, False],
        3: ["Unknown", "Not stated", date(2015, 1, 2), True],
        4: ["Patient", "Other", date(2001, 12, 31), True],
    }
    appointments = facts(
        pipe,
        "fact_appointments",
        "appointment_num",
        "patient_num, opendental_patient_num, appointment_status, scheduled_at, arrived_at,"
        " length_minutes, arrived_minutes_late, waiting_minutes, chair_minutes, booked_days_ahead",
    )
    assert appointments[1] == [
        *(1, 1, "Scheduled", datetime(2030, 3, 4, 9, 30), None, 30, None, None, None, 30)
    ]
    assert appointments[2] == [
        *(0, 99, "Complete", datetime(2030, 3, 4, 10), datetime(2030, 3, 4, 9, 50)),
        *(10, -10, 15, 40, None),
    ]
    assert appointments[3] == [2, 2, "Broken", None, None, 0, None, None, None, None]
    assert appointments[4][2] == "Planned"
    assert appointments[6][2] == "Unknown"
    treatments = facts(
        pipe,
        "fact_treatments",
        "treatment_num",
        "raw_table, patient_num, appointment_num, procedure_code, treatment_area,"
        " treatment_status, treated_on, began_at, ended_at, fee, production",
    )
    assert treatments[1] == [
        *("procedurelog", 1, 1, "S0001", "Mouth", "Complete", date(2030, 3, 4)),
        *(None, timedelta(hours=9, minutes=45), 160.5, 160.5),
    ]
    assert treatments[2][5:7] == ["Treatment planned", date(2030, 3, 5)]
    assert treatments[2][9:] == [50, 0]
    assert treatments[3][:3] == ["procedurelog", 0, None]
    assert treatments[3][5:7] == ["Deleted", None]


def assert_followed(pipe: Pipeline) -> None:
    columns = "patient_num, opendental_patient_num, appointment_status"
    assert facts(pipe, "fact_appointments", "appointment_num", columns) == {
        1: [1, 1, "Complete"],
        2: [99, 99, "Complete"],  # its patient came later
        40: [3, 3, "Planned"],
        5: [0, 4, "Scheduled"],  # its patient is gone
        6: [1, 1, "Unknown"],
        7: [2, 2, "Scheduled"],
        8: [1, 1, "Scheduled"],  # seen late
    }
    columns = "patient_num, appointment_num, procedure_code, procedure_description"
    assert facts(pipe, "fact_treatments", "treatment_num", columns) == {
        1: [1, 1, "S0001", "synthetic, changed"],
        2: [1, None, None, None],
        3: [99, None, "S0003", "synthetic filling"],
    }


def assert_limited(pipe: Pipeline) -> None:
    """Under `privacy = "limited"` marts still tell who is whose; names and birthdays are gone."""
    staged = "SELECT DISTINCT last_name FROM public_staging.stg_opendental__patient"
    assert rows(pipe, staged) == [("[redacted]",)]
    patients = facts(pipe, "dim_patient", "patient_num", "birth_date, gender, is_guarantor")
    assert patients[1] == [date(1980, 1, 1), "Female", True]
    columns = "patient_num, appointment_status, scheduled_at"
    appointments = facts(pipe, "fact_appointments", "appointment_num", columns)
    assert appointments[1] == [1, "Broken", datetime(2030, 3, 4, 9, 30)]


def assert_own_treatments(pipe: Pipeline) -> None:
    columns = "raw_table, patient_num, procedure_num, procedure_code, treatment_status, unit_fee"
    assert facts(pipe, "fact_treatments", "treatment_num", columns) == {
        1: ["treatment", 1, 1, "S0001", "Complete", 7.5],
        50: ["treatment", 0, None, None, "Treatment planned", 3],  # its patient is marked deleted
    }
    patients = facts(pipe, "fact_appointments", "appointment_num", "patient_num")
    assert patients[5] == [4]  # its patient is back
    assert patients[7] == [0]
    shown = facts(
        pipe, "fact_appointments", "appointment_num", "appointment_status, length_minutes"
    )
    assert shown[1] == ["Broken", None]
    assert shown[2][1] == 10  # not written since the source lost the column

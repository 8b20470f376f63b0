"""A replica whose server keeps names or times otherwise than the source is refused at the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from config.errors import ConfigError
from replicator.sandbox.accounts import (
    allow_replica,
    allow_source,
    create_replica_account,
    create_source_account,
)
from replicator.sandbox.databases import MySQLDatabase
from replicator.sandbox.servers import REPLICA_OPTIONS, SOURCE_OPTIONS
from tests.fix_servers import NewMariaDB

from .conftest import NewLeg

pytestmark = pytest.mark.only_on(
    "mariadb", reason="MySQL has one format of times, and fixes how names are kept with its files"
)

NewDatabase = Callable[..., MySQLDatabase]


@pytest.fixture
def database(new_mariadb: NewMariaDB) -> Iterator[NewDatabase]:
    """database("source", name=…, variable=value): on a server of its own that is set up so."""
    made: list[MySQLDatabase] = []

    def make(role: str, name: str = "practice", **options: Any) -> MySQLDatabase:
        source = role == "source"
        base = SOURCE_OPTIONS if source else REPLICA_OPTIONS
        server = new_mariadb({**base, **options}, server_id=1 if source else 2)
        one = MySQLDatabase(server, name, f"{role}_user", "synthetic")
        one.create()
        with closing(server.connect()) as root:
            create, allow = (
                (create_source_account, allow_source)
                if source
                else (create_replica_account, allow_replica)
            )
            create(root, one.user, one.password)
            allow(root, one.user, one.name)
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


def test_names_that_the_replica_cannot_tell_apart_are_refused(
    new_leg: NewLeg, source_db: MySQLDatabase, database: NewDatabase
) -> None:
    source_db.execute("CREATE TABLE Patient (id INT PRIMARY KEY)")
    source_db.execute("CREATE TABLE patient (id INT PRIMARY KEY)")
    leg = new_leg(replica=database("replica", lower_case_table_names="1"))
    with pytest.raises(ConfigError) as refused:
        leg.step()
    assert "source: lower_case_table_names=0, and replica: lower_case_table_names=1" in str(
        refused.value
    )
    assert "lower_case_table_names=0" in refused.value.hint
    assert leg.tables() == []


def test_a_source_in_lower_case_goes_with_a_replica_that_tells_cases_apart(
    new_leg: NewLeg, database: NewDatabase
) -> None:
    source = database("source", lower_case_table_names="1")  # as on Windows
    leg = new_leg(source=source)
    source.execute("CREATE TABLE Patient (PatNum INT PRIMARY KEY, LName VARCHAR(20))")
    source.execute("INSERT INTO PATIENT VALUES (1, 'synthetic')")
    leg.catch_up()
    for statement in (
        "ALTER TABLE pAtient ADD COLUMN Extra INT DEFAULT 5",
        "CREATE TABLE ProcedureLog LIKE PATIENT",
        "INSERT INTO ProcedureLog SELECT * FROM Patient",
        "RENAME TABLE Patient TO tempPatient, PROCEDURELOG TO Patient, tempPatient TO ProcedureLog",
        "UPDATE Patient SET LName = 'changed'",
        "CREATE TABLE Practice.Visit (id INT PRIMARY KEY)",
        "INSERT INTO VISIT VALUES (1)",
        "TRUNCATE TABLE ProcedureLog",
        "CREATE TABLE Scratch (id INT)",
        "DROP TABLE SCRATCH",
    ):
        source.execute(statement)
    leg.catch_up()
    leg.assert_exact()
    assert leg.tables() == ["patient", "procedurelog", "visit"]
    leg.resync("patient")
    leg.catch_up()
    leg.assert_exact()
    assert leg.requests() == [("patient", "loading")]


def test_a_database_that_the_binlog_spells_otherwise_is_refused(
    new_leg: NewLeg, database: NewDatabase
) -> None:
    leg = new_leg(source=database("source", name="OpenDental", lower_case_table_names="1"))
    with pytest.raises(ConfigError, match="binlog has the database as opendental") as refused:
        leg.step()
    assert refused.value.hint == "Set OPENDENTAL_SOURCE_DB=opendental"


def test_times_of_the_old_format_are_refused(
    new_leg: NewLeg, source_db: MySQLDatabase, database: NewDatabase
) -> None:
    source_db.execute("CREATE TABLE visit (id INT PRIMARY KEY, at TIMESTAMP, day DATETIME, t TIME)")
    source_db.execute("INSERT INTO visit VALUES (1, NOW(), NOW(), '01:02:03')")
    leg = new_leg(replica=database("replica", mysql56_temporal_format="OFF"))
    with pytest.raises(
        ConfigError, match="mysql56_temporal_format=OFF \\(needed: ON\\)"
    ) as refused:
        leg.step()
    assert "my.cnf" in refused.value.hint
    leg.replica.execute("SET GLOBAL mysql56_temporal_format = ON")
    leg.catch_up()
    leg.assert_exact()

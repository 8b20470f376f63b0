"""`replicator dbt-sources` on a pipeline: the file follows what stands in `raw`."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from replicator.cli.dbt_sources import named_by_models
from replicator.cli.demo_dbt import PROJECT
from replicator.pipeline import ELTPipeline
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase

Invoke = Callable[..., Result]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the file shall stand: in a dbt project with one model."""
    models = tmp_path / "project" / "models"
    models.mkdir(parents=True)
    (models.parent / "dbt_project.yml").touch()
    (models / "one.sql").write_text("select 1 from {{ source('opendental_raw', 'treatment') }}")
    return models / "sources.yml"


def carry(pipeline: ELTPipeline) -> None:
    pipeline.extract()
    pipeline.load()


def test_the_file_follows_the_tables_and_columns_of_raw(
    source_db: MySQLDatabase,
    analytics_db: PostgresDatabase,
    pipeline: ELTPipeline,
    invoke: Invoke,
    file: Path,
) -> None:
    source_db.execute("CREATE TABLE patient (PatNum bigint PRIMARY KEY, LName varchar(20))")
    source_db.execute("CREATE TABLE payment (PayNum int PRIMARY KEY, PayAmt decimal(9,2))")
    carry(pipeline)
    analytics_db.execute("CREATE TABLE raw.somebodys (i int)")
    missing = invoke("dbt-sources", "--check", "--file", str(file))
    assert missing.exit_code == 1
    assert not file.exists()

    written = invoke("dbt-sources", "--file", str(file))
    assert written.exit_code == 0, written.output
    assert "2 tables, 8 columns; written: " in written.stdout
    text = file.read_text()
    assert "somebodys" not in text
    assert "etl_" not in text
    assert "- name: PayAmt\n            quote: true\n            data_type: numeric(9,2)\n" in text
    assert invoke("dbt-sources", "--check", "--file", str(file)).exit_code == 0

    file.write_text(text.replace("Raw patient data", "Everybody  # they say"))
    file.chmod(0o640)
    source_db.execute("ALTER TABLE patient ADD FName varchar(20) AFTER PatNum, DROP LName")
    source_db.execute("DROP TABLE payment")
    source_db.execute("CREATE TABLE claim (ClaimNum int PRIMARY KEY)")
    carry(pipeline)
    stale = invoke("dbt-sources", "--check", "--file", str(file))
    assert stale.exit_code == 1
    assert stale.stdout == ""
    assert stale.stderr == (
        f"replicator: {file} is stale: table payment is not carried; table claim is missing;"
        " patient.LName is not carried; and 1 more. Bring it up to date: replicator dbt-sources\n"
    )
    told = json.loads(invoke("dbt-sources", "--check", "--json", "--file", str(file)).stdout)
    assert told["stale"] is True
    assert told["changes"][-1] == "patient.FName is missing"

    told = json.loads(invoke("dbt-sources", "--json", "--file", str(file)).stdout)
    assert (told["written"], told["stale"], told["tables"]) == (True, False, 2)
    renewed = file.read_text()
    assert "description: Everybody  # they say\n" in renewed
    order = [renewed.index(f"name: {word}\n") for word in ("claim", "patient", "treatment")]
    assert order == sorted(order)
    assert renewed.index("name: PatNum") < renewed.index("name: FName")
    assert "carried: false" in renewed
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []
    assert invoke("dbt-sources", "--check", "--file", str(file)).exit_code == 0
    analytics_db.execute("ALTER TABLE raw.claim ADD COLUMN _deleted_at timestamptz")  # soft deletes
    assert invoke("dbt-sources", "--file", str(file)).exit_code == 0
    assert "description: When the source deleted the row; NULL while it has it." in file.read_text()


def test_what_keeps_it_from_looking_is_told_with_the_remedy(
    source_db: MySQLDatabase, pipeline: ELTPipeline, invoke: Invoke, file: Path
) -> None:
    before = invoke("dbt-sources", "--file", str(file))
    assert before.exit_code == 2
    assert "nothing of the loader's yet" in before.stderr
    nowhere = invoke("dbt-sources", "--file", str(file.parent / "no" / "sources.yml"))
    assert nowhere.exit_code == 2
    assert "there is no directory" in nowhere.stderr
    assert "--file" in nowhere.stderr
    file.mkdir()
    directory = invoke("dbt-sources", "--file", str(file))
    assert directory.exit_code == 2
    assert "cannot be read" in directory.stderr
    file.rmdir()
    source_db.execute("CREATE TABLE patient (PatNum bigint PRIMARY KEY)")
    carry(pipeline)
    file.write_text("sources: [")
    broken = invoke("dbt-sources", "--file", str(file))
    assert broken.exit_code == 2
    assert f"{file}: not valid YAML, line 1" in broken.stderr
    assert file.read_text() == "sources: ["


def test_the_repositorys_models_read_what_its_sources_file_lists() -> None:
    sources = PROJECT / "models" / "staging" / "sources.yml"
    named = named_by_models(sources)
    assert named == {"patient", "appointment", "treatment", "procedurelog", "procedurecode"}
    text = sources.read_text()
    assert all(f"- name: {name}\n" in text for name in named)

"""tables.toml decides what is carried, and may change between two starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fix_pipeline import NewPipeline


@pytest.mark.timeout(240)
def test_tables_come_and_go_with_the_rules(pipeline: NewPipeline, tmp_path: Path) -> None:
    rules = tmp_path / "tables.toml"
    rules.write_text('[tables]\nexclude = ["secret*"]\n')
    pipe = pipeline("InnoDB", REPLICATOR_TABLES=str(rules))
    source = pipe.sandbox.source_db
    for table in ("note", "secret1", "secret2"):
        source.execute(f"CREATE TABLE {table} (id INT PRIMARY KEY)")
        source.execute(f"INSERT INTO {table} VALUES (1)")
    pipe.start()
    pipe.catch_up()
    raw = {row[0] for row in pipe.sandbox.analytics_db.query(_RAW_TABLES)}
    assert raw == {"note"}
    assert pipe.differences(["note"]) == {}

    pipe.replicator.stop()
    pipe.loader.stop()
    rules.write_text('[tables]\nexclude = ["secret2"]\n')
    source.execute("INSERT INTO secret1 VALUES (2)")
    pipe.start()
    pipe.catch_up()
    source.execute("INSERT INTO secret1 VALUES (3)")
    source.execute("INSERT INTO secret2 VALUES (3)")
    pipe.catch_up()
    assert pipe.differences(["note", "secret1"]) == {}
    raw = {row[0] for row in pipe.sandbox.analytics_db.query(_RAW_TABLES)}
    assert raw == {"note", "secret1"}


_RAW_TABLES = (
    "SELECT table_name FROM information_schema.tables WHERE table_schema = 'raw'"
    " AND table_name NOT LIKE 'etl%%'"
)

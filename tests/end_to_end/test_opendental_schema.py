"""OpenDental's own 436 tables, where its schema file is at hand, through both legs."""

from __future__ import annotations

import os
import re
from contextlib import closing
from pathlib import Path

import pytest

from tests.fix_pipeline import NewPipeline, Pipeline

SCHEMA = Path(
    os.environ.get(
        "OPENDENTAL_SCHEMA",
        Path(__file__).parents[3] / "shared" / "opendental" / "schema.sql",
    )
)


def _literal(kind: str, row: int) -> str:
    """A plain value of a column's type; `row` makes it another one."""
    base = re.split(r"[ (]", kind)[0]
    if base in ("date", "datetime", "timestamp"):
        return (
            f"'202{row % 10}-03-0{row + 1} 10:11:12'"
            if base != "date"
            else f"'202{row % 10}-03-04'"
        )
    if base == "time":
        return f"'-0{row}:30:00'"
    if base in ("float", "double", "decimal"):
        return f"{row}.25"
    if base.endswith("int"):
        return str(row + 1)
    if base.endswith(("char", "text")):
        return f"'S{row}'" if "(1)" not in kind else f"'{row}'"
    return f"x'0{row}'"


class _Table:
    def __init__(self, pipe: Pipeline, name: str) -> None:
        rows = pipe.sandbox.source_db.query(f"SHOW COLUMNS FROM `{name}`")
        self.name = name
        self.columns = [(row[0], row[1]) for row in rows]
        self.key = [row[0] for row in rows if row[3] == "PRI"]

    def insert(self, row: int) -> str:
        values = ", ".join(_literal(kind, row) for _, kind in self.columns)
        return f"INSERT INTO `{self.name}` VALUES ({values})"

    def update(self) -> str:
        changes = [f"`{n}` = {_literal(k, 5)}" for n, k in self.columns if n not in self.key]
        changes = changes or [f"`{n}` = {_literal(k, 5)}" for n, k in self.columns if n in self.key]
        return f"UPDATE `{self.name}` SET {', '.join(changes)} ORDER BY `{self.key[0]}` LIMIT 1"

    def delete(self) -> str:
        return f"DELETE FROM `{self.name}` ORDER BY `{self.key[0]}` DESC LIMIT 1"


@pytest.mark.timeout(420)
@pytest.mark.skipif(not SCHEMA.exists(), reason="OpenDental's schema file is not at hand")
def test_all_tables_of_opendental_are_copied_and_followed(pipeline: NewPipeline) -> None:
    pipe = pipeline("MyISAM")
    with closing(pipe.sandbox.source.connect(database="opendental")) as connection:
        cursor = connection.cursor()
        for statement in SCHEMA.read_text().split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        tables = [_Table(pipe, name) for name in pipe.tables()]
        assert len(tables) == 436
        for table in tables:
            cursor.execute(table.insert(1))
        pipe.start()
        pipe.catch_up(180)
        assert pipe.differences() == {}
        for change in (lambda t: t.insert(2), lambda t: t.insert(3), _Table.update, _Table.delete):
            for table in tables:
                assert cursor.execute(change(table)) == 1
        pipe.catch_up(180)
    assert pipe.differences() == {}

"""docs/schema-changes.md: each row of its table names tests that exist, and it lists every skip."""

from __future__ import annotations

import re
from pathlib import Path

from replicator.binlog import ddl

ROOT = Path(__file__).parents[2]
_LABELS = re.compile(r"\[([^\]]+)\]")


def _rows() -> list[str]:
    text = (ROOT / "docs" / "schema-changes.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return lines[1:]


def test_every_statement_of_the_table_has_its_test() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    functions = set(re.findall(r"^def (test_\w+)", sources, re.MULTILINE))
    modules = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert len(_rows()) > 15
    for row in _rows():
        cell = row.rstrip("| ").rpartition("|")[2]
        named = set(re.findall(r"test_\w+", cell))
        labels = _LABELS.findall(cell)
        assert named or labels, row
        assert named <= functions | modules, (row, named - functions - modules)
        for label in labels:
            assert f'"{label}": ' in sources, (row, label)


def test_every_kind_of_statement_that_is_skipped_is_listed() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "replicator").rglob("*.py"))
    reasons = set(re.findall(r'Skip\("([^"]+)"\)', sources))
    reasons |= set(ddl._SKIPPED_VERBS.values()) | set(ddl._SKIPPED_OBJECTS.values())
    text = (ROOT / "docs" / "schema-changes.md").read_text()
    listed = text.partition("## What leg 1 skips")[2].partition("\n## ")[0]
    assert len(reasons) > 12
    assert reasons == set(re.findall(r"`([a-z ]+)`", listed)), "listed, or skipped, in vain"

"""The catalogue: named by convention, set by a leg, told in docs/metrics.md, kept by its daemon."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

import config.metrics
from config.metrics import (
    CATALOGUE,
    OTHER_TABLES,
    REGISTRY,
    REPLICATOR_LAG,
    TABLE_ROWS,
    Kept,
    TableRows,
    Told,
)
from config.metrics_page import as_markdown

ROOT = Path(config.metrics.__file__).parents[1]
DECLARED = {
    name: value
    for name, value in vars(config.metrics).items()
    if isinstance(value, Counter | Gauge | Histogram | Told)
}
WITH_TABLES = {"loader_quarantined_rows", "loader_table_rows_total"}


def test_every_metric_has_help_a_known_prefix_and_no_label_for_tables() -> None:
    assert len(CATALOGUE) == len(DECLARED)
    for entry in CATALOGUE:
        assert entry.what.endswith(".")
        assert entry.name.startswith(("replicator_", "loader_", "pipeline_"))
        assert (entry.kind == "counter") is entry.name.endswith("_total")
        assert ("table" in entry.labels) is (entry.name in WITH_TABLES)


def test_every_metric_is_set_by_a_leg() -> None:
    code = "".join(
        path.read_text()
        for room in ("config", "loader", "replicator")
        for path in (ROOT / room).rglob("*.py")
        if path.name != "metrics.py"
    )
    used = re.compile(r"\b([A-Z_]+)\.(?:inc|set|observe|labels|tell)\b")
    assert set(DECLARED) - {"TABLE_ROWS"} - set(used.findall(code)) == set()


def test_the_documentation_is_made_of_the_catalogue() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == as_markdown(), (
        "make it again: python -m config.metrics_page > docs/metrics.md"
    )


def test_a_daemon_shows_what_it_keeps_and_nothing_of_the_other() -> None:
    shown = {leg: generate_latest(Kept(leg)).decode() for leg in ("replicator", "loader")}
    assert "replicator_lag_seconds" in shown["replicator"]
    assert "pipeline_lag_seconds" not in shown["replicator"]
    assert "pipeline_lag_seconds" in shown["loader"]
    assert "replicator_lag_seconds" not in shown["loader"]
    for text in shown.values():
        assert "replicator_retries_total" in text
        assert "process_resident_memory_bytes" in text


def test_what_is_not_known_is_absent_and_what_is_told_is_asked_for_at_each_look() -> None:
    answers = iter([None, 1.5, 2.5])
    before = REPLICATOR_LAG._ask
    REPLICATOR_LAG.tell(lambda: next(answers))
    try:
        shown = [generate_latest(REGISTRY).decode() for _ in range(3)]
    finally:
        REPLICATOR_LAG.tell(before)
    values = [re.findall(r"^replicator_lag_seconds (\S+)", text, re.MULTILINE) for text in shown]
    assert values == [[], ["1.5"], ["2.5"]]


def test_tables_beyond_the_most_are_counted_together() -> None:
    TABLE_ROWS.clear()
    rows = TableRows(most=2)
    for table, count in (("patient", 1), ("fee", 2), ("sheet", 3), ("task", 4), ("fee", 5)):
        rows.add(table, "insert", count)
    rows.add("patient", "delete", 6)
    values = {
        (sample.labels["table"], sample.labels["operation"]): sample.value
        for family in TABLE_ROWS.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert values == {
        ("patient", "insert"): 1,
        ("patient", "delete"): 6,
        ("fee", "insert"): 7,
        (OTHER_TABLES, "insert"): 7,
    }
    TABLE_ROWS.clear()

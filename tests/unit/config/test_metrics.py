"""Metrics: named by convention, served while asked to be."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram

import config.metrics
from config.metrics import PIPELINE_LAG, REGISTRY, serve_metrics


def test_every_metric_has_help_a_known_prefix_and_no_label_for_tables() -> None:
    families = list(REGISTRY.collect())
    assert families
    for family in families:
        assert family.documentation.endswith(".")
        assert family.name.startswith(("replicator_", "loader_", "pipeline_"))
        assert not [sample for sample in family.samples if "table" in sample.labels]


def test_every_metric_is_set_by_a_leg() -> None:
    root = Path(config.metrics.__file__).parents[1]
    code = "".join(
        path.read_text()
        for room in ("config", "loader", "replicator")
        for path in (root / room).rglob("*.py")
        if path.name != "metrics.py"
    )
    declared = [
        name
        for name, value in vars(config.metrics).items()
        if isinstance(value, Counter | Gauge | Histogram)
    ]
    assert declared
    unset = [
        name for name in declared if not re.search(rf"\b{name}\.(inc|set|observe|labels)", code)
    ]
    assert unset == []


def test_metrics_are_served_while_the_context_lasts() -> None:
    PIPELINE_LAG.set(1.5)
    with serve_metrics("127.0.0.1", 0) as port:
        address = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert b"pipeline_lag_seconds 1.5" in answer.read()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=10)

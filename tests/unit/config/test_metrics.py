"""Metrics: named by convention, served while asked to be."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from config.metrics import PIPELINE_LAG, REGISTRY, serve_metrics


def test_every_metric_has_help_a_known_prefix_and_no_label_for_tables() -> None:
    families = list(REGISTRY.collect())
    assert len(families) > 15
    for family in families:
        assert family.documentation.endswith(".")
        assert family.name.startswith(("replicator_", "loader_", "pipeline_"))
        assert not [sample for sample in family.samples if "table" in sample.labels]


def test_metrics_are_served_while_the_context_lasts() -> None:
    PIPELINE_LAG.set(1.5)
    with serve_metrics("127.0.0.1", 0) as port:
        address = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert b"pipeline_lag_seconds 1.5" in answer.read()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=10)

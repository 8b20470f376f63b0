"""Every metric that the daemons keep, declared once, and the port they are scraped from.

Counts and times come in from the legs; Prometheus reads them on the right.
Labels are few and closed (operations, kinds, states), never a table: 436
tables times anything is too much. (Tables with rows in quarantine are few, or there is
more to mend than a graph.) Names follow Prometheus' conventions, with
base units at their end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

REGISTRY = CollectorRegistry()

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)


def _counter(name: str, what: str, *labels: str) -> Counter:
    return Counter(name, what, labels, registry=REGISTRY)


def _gauge(name: str, what: str, *labels: str) -> Gauge:
    return Gauge(name, what, labels, registry=REGISTRY)


def _histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(name, what, labels, buckets=buckets, registry=REGISTRY)


# How far behind
REPLICATOR_LAG = _gauge(
    "replicator_lag_seconds", "Source commit to committed on the replica; 0 when caught up."
)
PIPELINE_LAG = _gauge(
    "pipeline_lag_seconds", "Source commit to committed in raw; 0 when caught up."
)

# What went through
TRANSACTIONS = _counter(
    "replicator_transactions_total", "Source transactions committed by the leg.", "leg"
)
ROWS = _counter("replicator_rows_total", "Rows written by the leg.", "leg", "operation")
EVENTS = _counter("replicator_events_total", "Binlog events read by the leg.", "leg")
STATEMENTS = _counter(
    "replicator_statements_total", "Statements of the source applied on the replica.", "kind"
)
STATEMENTS_SKIPPED = _counter(
    "replicator_statements_skipped_total", "Statements of the source left out, by why.", "reason"
)
VALUE_EXCEPTIONS = _counter(
    "loader_value_exceptions_total", "Values that PostgreSQL cannot hold, kept aside.", "reason"
)
QUARANTINED_ROWS = _gauge(
    "loader_quarantined_rows", "Rows that PostgreSQL refused, of tables that have any.", "table"
)
BATCH_ROWS = _histogram("replicator_batch_rows", "Rows in a committed batch.", _ROWS, "leg")
BATCH_SECONDS = _histogram(
    "replicator_batch_seconds", "Time to write and commit a batch.", _SECONDS, "leg"
)

# Copies and reloads
COPIED_ROWS = _counter("replicator_copied_rows_total", "Rows copied outside the stream.", "leg")
RELOADS = _counter("replicator_reloads_total", "Tables copied again as a whole.", "leg", "reason")

SCHEMA_DRIFTS = _counter(
    "loader_schema_drifts_total", "Raw tables that their rows did not fit, loaded anew therefore."
)

# Health
RETRIES = _counter(
    "replicator_retries_total", "Waits after a failure that passes, before beginning again."
)
HALTS = _counter("replicator_halts_total", "Stops that need an operator, by error.", "leg", "error")


@contextmanager
def serve_metrics(host: str, port: int) -> Iterator[int]:
    """Serve /metrics on `host`:`port` while inside; yields the port. Port 0 takes a free one."""
    server, thread = start_http_server(port, addr=host, registry=REGISTRY)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

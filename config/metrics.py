"""Every metric that the daemons keep, declared once.

Counts and times come in from the legs; Prometheus reads them on the right, from the port of
each daemon (`config.page`). `docs/metrics.md` is made of what stands here (`config.metrics_page`).

Labels are few and closed (operations, kinds, states). A table's name is one only where few
tables can be meant: with rows in quarantine, or up to `MOST_TABLES` of those that change.
Names follow Prometheus' conventions, with base units at their end. A metric whose name begins
with a daemon's is that daemon's, unless it has the label `leg`; what a daemon does not keep it
does not show, for a 0 of the other leg's lag would be a lie.

Most gauges are *told*: a function answers when somebody looks. So a lag grows while the loop
hangs, and what is not known is absent rather than 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric

Leg = Literal["replicator", "loader"]
Values = float | Mapping[tuple[str, ...], float] | None
"""One number, one for each of the labels' values, or nothing that is known."""

# When a counter began would be a series more for each, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
MOST_TABLES: Final = 200
"""So many tables have counters of their own; what comes later counts as `OTHER_TABLES`."""
OTHER_TABLES: Final = "(other)"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_DELAYS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_ROWS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
_BYTES = (256, 1024, 4096, 16384, 65536, 262144, 1048576, 16777216)


@dataclass(frozen=True, slots=True)
class Entry:
    """A metric in the catalogue."""

    section: str
    name: str
    kind: str
    labels: tuple[str, ...]
    what: str
    kept_by: tuple[Leg, ...]


CATALOGUE: list[Entry] = []
_sections: list[str] = []


class Told:
    """A gauge whose value is asked for when somebody looks; without an answer it has none."""

    def __init__(self, name: str, what: str, labels: tuple[str, ...]) -> None:
        self._name, self._what, self._labels = name, what, labels
        self._ask: Callable[[], Values] = lambda: None
        REGISTRY.register(self)

    def tell(self, ask: Callable[[], Values]) -> None:
        """Ask there from now on."""
        self._ask = ask

    def describe(self) -> Iterable[Metric]:
        """The metric without values."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """The metric with what is known now."""
        values, family = self._ask(), self._family()
        if isinstance(values, Mapping):
            for labels, value in values.items():
                family.add_metric(labels, value)
        elif values is not None:
            family.add_metric((), values)
        return [family]

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._name, self._what, labels=self._labels)


def _entered(kind: str, name: str, what: str, labels: tuple[str, ...], both: bool) -> None:
    legs: tuple[Leg, ...] = ("replicator", "loader")
    if not both and "leg" not in labels:
        legs = ("replicator",) if name.startswith("replicator_") else ("loader",)
    CATALOGUE.append(Entry(_sections[-1], name, kind, labels, what, legs))


def _counter(name: str, what: str, *labels: str, both: bool = False) -> Counter:
    _entered("counter", name, what, labels, both)
    return Counter(name, what, labels, registry=REGISTRY)


def _gauge(name: str, what: str, *labels: str) -> Gauge:
    _entered("gauge", name, what, labels, both=False)
    return Gauge(name, what, labels, registry=REGISTRY)


def _told(name: str, what: str, *labels: str) -> Told:
    _entered("gauge", name, what, labels, both=False)
    return Told(name, what, labels)


def _histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    _entered("histogram", name, what, labels, both=False)
    return Histogram(name, what, labels, buckets=buckets, registry=REGISTRY)


_sections.append("How far behind")
REPLICATOR_LAG = _told(
    "replicator_lag_seconds",
    "Source commit to committed on the replica: 0 when nothing waits and the source was just"
    " heard; else the time since everything was known to be there, so a dead link lets it grow.",
)
LOADER_LAG = _told(
    "loader_lag_seconds", "Committed on the replica to committed in raw, in the same sense."
)
PIPELINE_LAG = _told(
    "pipeline_lag_seconds",
    "Source commit to committed in raw: 0 when idle and caught up; grows while the source moves and"
    " we do not, and while leg 1 cannot tell what the source does.",
)
PIPELINE_DELAY = _histogram(
    "pipeline_delay_seconds",
    "Age of each batch's newest source commit when it was committed in raw.",
    _DELAYS,
)
BYTES_BEHIND = _told(
    "replicator_bytes_behind",
    "Binlog between what is written and the end that the server told last.",
    "leg",
)
TRANSACTIONS_BEHIND = _told(
    "replicator_transactions_behind",
    "Transactions between the same two, where the server has GTIDs.",
    "leg",
)
POSITION = _told(
    "replicator_position_bytes",
    "Offset in the binlog file up to which everything is written: the source's file for the"
    " replicator, the replica's for the loader.",
    "leg",
    "file",
)
PURGE_IN = _told(
    "replicator_purge_seconds",
    "Forecast: time until the server may purge the binlog file that is needed next, by its age;"
    " +Inf where it purges none. A limit of bytes is not in it.",
    "leg",
)

PAUSED = _told(
    "replicator_paused",
    "1 while the leg is paused by `replicator pause`: lags grow meanwhile, as they should.",
    "leg",
)

_sections.append("The links")
STREAM_UP = _told(
    "replicator_stream_up",
    "1 while the binlog stream is open and something, a heartbeat at least, was heard in time.",
    "leg",
)
HEARD_AGE = _told(
    "replicator_heard_seconds",
    "Age of the last thing heard from the server that is read, heartbeats included.",
    "leg",
)
RETRIES = _counter(
    "replicator_retries_total",
    "Waits after a failure that passes, before beginning again.",
    both=True,
)
RECONNECTS = _counter(
    "replicator_reconnects_total", "Sessions begun anew after the daemon's first.", "leg"
)
CLOCK_AHEAD = _told(
    "replicator_clock_ahead_seconds",
    "How far the server's clock is ahead of this machine's; lags are free of it.",
    "leg",
)

_sections.append("What went through")
TRANSACTIONS = _counter(
    "replicator_transactions_total", "Source transactions committed by the leg.", "leg"
)
ROWS = _counter(
    "replicator_rows_total",
    "Rows written by the leg. The replicator passes rows on without looking: it counts none.",
    "leg",
    "operation",
)
TABLE_ROWS = _counter(
    "loader_table_rows_total",
    f"Row changes of the stream written to raw, by table: the first {MOST_TABLES} tables that"
    f' change since the start by name, the others together as "{OTHER_TABLES}".',
    "table",
    "operation",
)
EVENTS = _counter("replicator_events_total", "Binlog events read by the leg.", "leg")
BATCH_ROWS = _histogram("replicator_batch_rows", "Rows in a committed batch.", _ROWS, "leg")
BATCH_BYTES = _histogram(
    "replicator_batch_bytes", "Bytes of row events sent to the replica at once.", _BYTES, "leg"
)
BATCH_SECONDS = _histogram(
    "replicator_batch_seconds", "Time to write and commit a batch.", _SECONDS, "leg"
)
VALUE_EXCEPTIONS = _counter(
    "loader_value_exceptions_total", "Values that PostgreSQL cannot hold, kept aside.", "reason"
)
QUARANTINED_ROWS = _gauge(
    "loader_quarantined_rows", "Rows that PostgreSQL refused, of tables that have any.", "table"
)

_sections.append("Schema changes")
STATEMENTS = _counter(
    "replicator_statements_total", "Statements of the source applied on the replica.", "kind"
)
STATEMENTS_SKIPPED = _counter(
    "replicator_statements_skipped_total", "Statements of the source left out, by why.", "reason"
)
SCHEMA_CHANGES = _counter(
    "loader_schema_changes_total",
    "Schema changes followed in raw: in place, or by loading the table anew.",
    "way",
)
CONFLICTS = _counter(
    "replicator_conflicts_total",
    "Changes that met rows which someone else had written, by what was done.",
    "leg",
    "action",
)
SCHEMA_DRIFTS = _counter(
    "loader_schema_drifts_total", "Raw tables that their rows did not fit, loaded anew therefore."
)

_sections.append("Copies and reloads")
COPIED_ROWS = _counter("replicator_copied_rows_total", "Rows copied outside the stream.", "leg")
RELOADS = _counter("replicator_reloads_total", "Tables copied again as a whole.", "leg", "reason")
COPY_ROWS = _told(
    "replicator_copy_rows", "Rows copied so far by the copy under way: first_copy or resync.", "of"
)
COPY_EXPECTED = _told(
    "replicator_copy_expected_rows", "Rows that it will be, by the engine's estimate.", "of"
)
COPY_TABLES_LEFT = _told("replicator_copy_tables_left", "Tables that it has not copied yet.", "of")
COPY_CEILING = _told(
    "replicator_copy_ceiling_bytes",
    "Bytes a second that copies may read on the source (`replicator throttle`); 0: no ceiling.",
)
TABLES = _told("loader_tables", "Tables by state in raw.", "state")
PURGED_BINLOG_FILES = _counter(
    "loader_purged_binlog_files_total", "The replica's binlog files purged behind the loader."
)

_sections.append("Health")
HALTS = _counter(
    "replicator_halts_total",
    "Stops that need an operator, by error: those remembered on the replica, from before this"
    " start.",
    "leg",
    "error",
)
LAST_HALT = _told(
    "replicator_last_halt_timestamp_seconds", "When a leg halted last, since 1970.", "leg"
)
VERIFIED_AT = _told(
    "replicator_verify_timestamp_seconds", "When `replicator verify` ended last, since 1970."
)
VERIFIED_TABLES = _told(
    "replicator_verify_tables", "Tables by what it found, on the replica or in raw.", "verdict"
)

ProcessCollector(registry=REGISTRY)


class Kept:
    """What one daemon keeps of the registry: what Prometheus' text is made of."""

    def __init__(self, leg: Leg) -> None:
        self._others = {
            entry.name.removesuffix("_total") for entry in CATALOGUE if leg not in entry.kept_by
        }

    def collect(self) -> Iterator[Metric]:
        """The families, as they stand now."""
        return (family for family in REGISTRY.collect() if family.name not in self._others)


class TableRows:
    """`TABLE_ROWS` by table, bounded; a counter is looked up once for a table and operation."""

    def __init__(self, most: int = MOST_TABLES) -> None:
        self._most = most
        self._known: set[str] = set()
        self._counters: dict[tuple[str, str], Counter] = {}

    def add(self, table: str, operation: str, rows: int) -> None:
        """Count rows of a committed batch."""
        counter = self._counters.get((table, operation))
        if counter is None:
            if table not in self._known and len(self._known) >= self._most:
                TABLE_ROWS.labels(OTHER_TABLES, operation).inc(rows)
                return
            self._known.add(table)
            counter = self._counters[table, operation] = TABLE_ROWS.labels(table, operation)
        counter.inc(rows)

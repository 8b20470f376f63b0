"""A daemon's own counters, read from its metrics port.

Left: host and port. Right: how many transactions and rows a leg has counted since
it started, or nothing where it does not answer: it may be down, or elsewhere.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_ANSWER_SECONDS = 1.0
_TRANSACTIONS = "replicator_transactions_total"
_ROWS = "replicator_rows_total"


@dataclass(frozen=True, slots=True)
class LegCounters:
    """Counts since the daemon started; None where it did not say."""

    transactions: float | None = None
    rows: float | None = None

    def rates_since(self, before: LegCounters, seconds: float) -> tuple[float | None, float | None]:
        """Transactions and rows a second between two looks."""
        return (
            _rate(before.transactions, self.transactions, seconds),
            _rate(before.rows, self.rows, seconds),
        )


def _rate(before: float | None, now: float | None, seconds: float) -> float | None:
    if before is None or now is None or now < before or seconds <= 0:
        return None  # not told, or the daemon was restarted in between
    return round((now - before) / seconds, 1)


def scrape(host: str, port: int, leg: str) -> LegCounters:
    """Ask a daemon's metrics port for the counters of `leg`."""
    try:
        text = _get(host, port)
    except (OSError, http.client.HTTPException):
        return LegCounters()
    return counters_in(text, leg)


def _get(host: str, port: int) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def counters_in(text: str, leg: str) -> LegCounters:
    """The counters of `leg` in Prometheus' text format. Pure."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in (_TRANSACTIONS, _ROWS) and sample.labels.get("leg") == leg:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return LegCounters(sums.get(_TRANSACTIONS), sums.get(_ROWS))

"""Which figures there are, which module owes each, and what each is held to. Data only.

The goals are ratios of one run wherever a rival exists that can run beside us, and
absolute figures where none can. They are never loosened to be met.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Module:
    """A module of this package: what it measures, and its figures' goals by id."""

    what: str
    goals: Mapping[str, str]


_FLAT = "flat, ≤ 1.25"  # cost at the largest ÷ at the smallest; 1 but for noise

MODULES: dict[str, Module] = {
    "decode": Module(
        "row decoding alone, against mysql-replication",
        {
            "decode_wide_vs_mysql_replication": "≥ 100",
            "decode_narrow_vs_mysql_replication": "≥ 30",
        },
    ),
    "leg1": Module(
        "source binlog → replica, against native replication",
        {
            "leg1_oltp_vs_native": "≤ 0.6",
            "leg1_oltp_vs_parallel": "≤ 0.8",
            "leg1_bulk_vs_native": "≤ 1.0",
        },
    ),
    "leg2": Module(
        "replica binlog → raw, against PostgreSQL alone",
        {"leg2_bulk_vs_postgres": "≤ 1.25", "leg2_oltp_vs_postgres": "≤ 1.25"},
    ),
    "copy_leg1": Module(
        "first copy source → replica, against mariadb-dump",
        {"copy_leg1_vs_dump": "≤ 1.0", "copy_436_tables_vs_dump": "≤ 2.0"},
    ),
    "copy_leg2": Module(
        "reload replica → raw, against pgloader",
        {"copy_leg2_vs_pgloader": "≤ 0.5"},
    ),
    "pipeline": Module(
        "both legs catching up with a backlog",
        {
            "pipeline_wide_rows_s": "≥ 50,000",
            "pipeline_narrow_rows_s": "≥ 300,000",
            "pipeline_oltp_trx_s": "≥ 23,000",
        },
    ),
    "latency": Module(
        "source commit → visible in raw, at 300 and at 1 transaction a second",
        {
            "latency_p50_ms": "≤ 30",
            "latency_p99_ms": "≤ 150",
            "latency_idle_p50_ms": "≤ 30",
            "latency_idle_p99_ms": "≤ 150",
        },
    ),
    "memory": Module(
        "peak memory of both legs in a huge transaction and a large copy",
        {"rss_leg1_mb": "≤ 256", "rss_leg2_mb": "≤ 256"},
    ),
    "scaling": Module(
        "cost of a transaction as rows, tables and binlog grow",
        {"scaling_rows": _FLAT, "scaling_tables": _FLAT, "scaling_binlog": _FLAT},
    ),
}
"""The modules in the order in which they run."""

GOALS: dict[str, str] = {b: goal for m in MODULES.values() for b, goal in m.goals.items()}
"""Every figure's goal; a figure that is not here is shown for information."""

_BOUND = re.compile(r"([≤≥]) ([\d,.]+)")


def is_met(value: float, goal: str) -> bool | None:
    """Does the figure meet its goal? None where the goal is none: no bound in it."""
    bound = _BOUND.search(goal)
    if bound is None:
        return None
    limit = float(bound.group(2).replace(",", ""))
    return value <= limit if bound.group(1) == "≤" else value >= limit

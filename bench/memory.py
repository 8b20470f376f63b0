"""Peak memory of both daemons: while a large table is copied, then in one huge transaction.

The peak is the kernel's own (`VmHWM`: everything resident, libraries included), from the start of
the process to the end of the copy, and again over the transaction; the figure is the higher one.
By default 200,000 wide rows (some 230 MB of values) are copied and then as many come in a single
transaction: a process that held all of either would not stay below the goal. `BENCH_FULL=1` copies
4 GB and sends 2,000,000 rows; it takes a quarter of an hour and 40 GB of disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

from bench import practice
from bench.measure import Result, described
from bench.rig import PINNING, Rig

COPIED, IN_TRANSACTION = 200_000, 200_000
FULL_COPIED, FULL_IN_TRANSACTION = 10_400_000, 2_000_000
_FIGURES = {"rss_leg1_mb": "replicator", "rss_leg2_mb": "loader"}


def run() -> Iterator[Result]:
    """Both figures; servers of their own are started and stopped."""
    full = os.environ.get("BENCH_FULL", "") not in ("", "0")
    copied, sent = (FULL_COPIED, FULL_IN_TRANSACTION) if full else (COPIED, IN_TRANSACTION)
    patience = 3600.0 if full else 300.0
    with Rig() as rig:
        with closing(rig.connect()) as connection:
            practice.create(connection)
            practice.fill_wide_unlogged(connection, copied)
        [(size,)] = rig.sandbox.source_db.query(
            "SELECT data_length FROM information_schema.tables"
            " WHERE table_schema = database() AND table_name = %s",
            [practice.WIDE],
        )
        rig.start_daemons()
        meter = rig.meter()
        rig.settle(patience)
        copy = meter.read()
        transaction = rig.catch_up(
            lambda connection: practice.multiply_wide(connection, sent, copied),
            patience,
            hold=False,
        )
        source, raw = rig.count(practice.WIDE)
    if source != raw:
        raise RuntimeError(f"{practice.WIDE}: {source} rows on the source, {raw} in raw")
    for bench, leg in _FIGURES.items():
        phases = {
            f"copy of {copied:,} rows": copy.runs(copied)[leg],
            f"transaction of {sent:,} rows": transaction.runs(sent)[leg],
        }
        yield Result(
            bench,
            round(max(phase.peak_mib for phase in phases.values()), 1),
            details={
                "size": "full" if full else "scaled",
                "table_mib": round(size / 2**20),
                "runs": described(phases),
                "pinning": PINNING,
            },
        )

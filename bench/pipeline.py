"""Both legs at work: a backlog on the source, and the time until `raw` shows all of it.

`replicator run` and `loader run` have copied two empty tables and stream. They are held while a
backlog is written (`bench.rig`), and timed from when they go on to when `raw.etl_binlog_offset`
stands at the source's end. Three backlogs: wide rows and narrow rows in bulk, and transactions
of one row. Rounds are interleaved; what a round wrote stays, so later ones meet fuller tables.
After the last one both sides must have the same number of rows.

Behind a backlog in bulk the daemons are held again, and the servers alone take the same rows
(`bench.floor`): what that takes on the same processors no pipeline goes below.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from bench import practice
from bench.floor import Alone, floor
from bench.measure import Result, described, rounds
from bench.rig import LEGS, PINNING, Rig, Spent


class Write(Protocol):
    """Writes a backlog."""

    def __call__(self, connection: Any, first: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Backlog:
    """`write(connection, first)` writes `units` units whose keys begin at `first`.

    `alone`: the servers alone take it, too, rows of that table.
    """

    bench: str
    unit: str
    units: int
    write: Write
    alone: str = ""


_WIDE_ROWS, _NARROW_ROWS = 160_000, 600_000
"""Some seconds' worth: what is measured is how fast they go on, not how they set off."""

BACKLOGS = (
    Backlog(
        "pipeline_wide_rows_s",
        "rows",
        _WIDE_ROWS,
        lambda connection, first: practice.load_wide(connection, _WIDE_ROWS, first),
        practice.WIDE,
    ),
    Backlog(
        "pipeline_narrow_rows_s",
        "rows",
        _NARROW_ROWS,
        lambda connection, first: practice.load_narrow(connection, _NARROW_ROWS, first),
        practice.NARROW,
    ),
    Backlog(
        "pipeline_oltp_trx_s",
        "transactions",
        40_000,
        lambda connection, first: practice.one_row_transactions(connection, 40_000, first),
    ),
)
_KEYS_A_ROUND = 1_000_000


def run() -> Iterator[Result]:
    """The three figures, and the floors below; servers of their own are started and stopped."""
    found: dict[str, list[Spent]] = {backlog.bench: [] for backlog in BACKLOGS}
    alone: dict[str, list[Alone]] = {backlog.bench: [] for backlog in BACKLOGS}
    with Rig() as rig:
        with closing(rig.connect()) as connection:
            practice.create(connection)
        rig.start()
        with floor(rig) as below:
            for turn in range(rounds()):
                for number, backlog in enumerate(BACKLOGS):
                    first = 1 + (turn * len(BACKLOGS) + number) * _KEYS_A_ROUND
                    below.catch_up()
                    found[backlog.bench].append(rig.catch_up(partial(backlog.write, first=first)))
                    if backlog.alone:
                        with rig.held():
                            spent = below.timed(backlog.alone, backlog.units, first)
                        alone[backlog.bench].append(spent)
        for table in (practice.WIDE, practice.NARROW):
            source, raw = rig.count(table)
            if source != raw:
                raise RuntimeError(f"{table}: {source} rows on the source, {raw} in raw")
    for backlog in BACKLOGS:
        yield _result(backlog, found[backlog.bench])
    for backlog in BACKLOGS:
        if backlog.alone:
            yield _alone_result(backlog, alone[backlog.bench])


def _result(backlog: Backlog, found: list[Spent]) -> Result:
    middle = sorted(found, key=lambda spent: spent.seconds)[len(found) // 2]
    return Result(
        backlog.bench,
        round(backlog.units / middle.seconds),
        details={
            "unit": backlog.unit,
            "runs": described(middle.runs(backlog.units)),
            "all_rates": [round(backlog.units / spent.seconds) for spent in found],
            "legs_cpu_us_each": {
                leg: round(middle.cpu[leg] / backlog.units * 1e6, 2) for leg in LEGS
            },
            "pinning": PINNING,
        },
    )


def _alone_result(backlog: Backlog, alone: list[Alone]) -> Result:
    middle = sorted(alone, key=lambda one: one.seconds)[len(alone) // 2]
    return Result(
        backlog.bench.replace("pipeline", "servers_alone"),
        round(backlog.units / middle.seconds),
        details={
            "unit": "rows",
            "all_rates": [round(backlog.units / one.seconds) for one in alone],
            "cpu_seconds": {name: round(spent, 2) for name, spent in middle.cpu.items()},
            "pinning": PINNING,
        },
    )

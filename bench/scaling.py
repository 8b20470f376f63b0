"""What a one-row transaction costs as three things double that should not matter.

* the table's rows: 50,000 … 400,000 of them, changed at random places all over;
* the number of tables: 109 … 436, with the transactions on sixteen of them (and, for
  information, spread over all: fewer rows fall together in a batch then);
* the length of both binlogs: what another database logs is read over, 64 … 256 MB of it.

The cost is the CPU time of a transaction, in a backlog of twelve thousand (`bench.rig`), of both
daemons and of the two servers that they write to: the value is the cost at the largest size over
the cost at the smallest, medians of the rounds. The curve, process by process and with the wall
time, is in the details.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from statistics import median
from typing import Any

from bench import practice
from bench.measure import Result, described, rounds
from bench.rig import LEGS, PINNING, Rig, Spent

ROWS = (50_000, 100_000, 200_000, 400_000)
TABLES = (109, 218, 436)
BINLOG_MB = (64, 128, 256)
TRANSACTIONS = 12_000
BUSY_TABLES = 16
WARM_UP = 3
COUNTED = (*LEGS, "replica", "postgres")
_FILLER_MB = 4

Statements = Callable[[], Sequence[str]]


def run() -> Iterator[Result]:
    """The three curves, on one set of servers; they are started and stopped."""
    with Rig() as rig:
        with closing(rig.connect()) as connection:
            practice.create(connection)
            practice.load_narrow(connection, ROWS[0])
        rig.start()
        chance = random.Random(1)
        for _ in range(WARM_UP):  # nothing is new to anybody after this
            _cost(rig, partial(_on_rows, chance, ROWS[0]))
        yield _result("scaling_rows", "rows", _by_rows(rig, chance))
        yield _result("scaling_binlog", "MB", _by_binlog(rig, chance))
        few, all_of_them = _by_tables(rig, chance)
        yield _result("scaling_tables", "tables", few)
        yield _result("scaling_tables_spread", "tables", all_of_them)


Curve = dict[int, list[Spent]]


def _by_rows(rig: Rig, chance: random.Random) -> Curve:
    curve: Curve = {}
    for rows, before in zip(ROWS, (ROWS[0], *ROWS), strict=False):
        with closing(rig.connect()) as connection:
            practice.load_narrow(connection, rows - before, before + 1)
        rig.settle()
        curve[rows] = [_cost(rig, partial(_on_rows, chance, rows)) for _ in range(rounds())]
    return curve


def _by_binlog(rig: Rig, chance: random.Random) -> Curve:
    curve: Curve = {}
    for server in (rig.sandbox.source, rig.sandbox.replica):
        with closing(server.connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("CREATE DATABASE bench_filler")
            cursor.execute("CREATE TABLE bench_filler.filler (bytes longblob) ENGINE=InnoDB")
    for size, before in zip(BINLOG_MB, (0, *BINLOG_MB), strict=False):
        for server in (rig.sandbox.source, rig.sandbox.replica):
            with closing(server.connect()) as connection, closing(connection.cursor()) as cursor:
                for _ in range((size - before) // _FILLER_MB):
                    cursor.execute(
                        f"INSERT INTO bench_filler.filler VALUES (REPEAT('x', {_FILLER_MB} << 20))"
                    )
                cursor.execute("SET SESSION sql_log_bin = 0")
                cursor.execute("TRUNCATE TABLE bench_filler.filler")
        rig.settle()
        curve[size] = [_cost(rig, partial(_on_rows, chance, ROWS[-1])) for _ in range(rounds())]
    return curve


def _by_tables(rig: Rig, chance: random.Random) -> tuple[Curve, Curve]:
    few: Curve = {}
    spread: Curve = {}
    there = 2  # the two that are there from the start
    for tables in TABLES:
        with closing(rig.connect()) as connection, closing(connection.cursor()) as cursor:
            for number in range(there, tables):
                cursor.execute(f"CREATE TABLE {_table(number)} LIKE {practice.NARROW}")
        there = tables
        rig.settle()
        busy = [_table(2 + number) for number in range(BUSY_TABLES)]
        every = [_table(number) for number in range(2, tables)]
        few[tables], spread[tables] = [], []
        for _ in range(rounds()):
            few[tables].append(_cost(rig, partial(_on_tables, chance, busy)))
            spread[tables].append(_cost(rig, partial(_on_tables, chance, every)))
    return few, spread


def _cost(rig: Rig, statements: Statements) -> Spent:
    made = statements()
    return rig.catch_up(lambda connection: practice.each_by_itself(connection, made))


def _on_rows(chance: random.Random, rows: int) -> list[str]:
    """Updates of random rows of the narrow table, no row twice: none fall together in a batch."""
    return [
        f"UPDATE {practice.NARROW} SET PayAmt = PayAmt + {turn % 97 + 1} WHERE PayNum = {key}"
        for turn, key in enumerate(chance.sample(range(1, rows + 1), TRANSACTIONS))
    ]


def _on_tables(chance: random.Random, tables: Sequence[str]) -> list[str]:
    """Rows with random keys into random tables."""
    return [
        f"INSERT INTO {chance.choice(tables)} VALUES {practice.payment(chance.getrandbits(60))}"
        for _ in range(TRANSACTIONS)
    ]


def _table(number: int) -> str:
    return f"scaled_{number:03d}"


def _result(bench: str, of: str, curve: Curve) -> Result:
    each = {size: _microseconds(spent) for size, spent in curve.items()}
    costs = [sum(cost[name] for name in COUNTED) for cost in each.values()]
    walls = [cost["wall"] for cost in each.values()]
    middle: dict[str, Any] = {}
    for size, spent in curve.items():
        runs = sorted(spent, key=_cpu)[len(spent) // 2].runs(TRANSACTIONS)
        middle |= {f"{size:,} {of}, {leg}": runs[leg] for leg in LEGS}
    return Result(
        bench,
        round(costs[-1] / costs[0], 2),
        details={
            "of": of,
            "transactions": TRANSACTIONS,
            "microseconds_each": {str(size): cost for size, cost in each.items()},
            "wall_ratio": round(walls[-1] / walls[0], 2),
            "runs": described(middle),
            "pinning": PINNING,
        },
    )


def _microseconds(found: Sequence[Spent]) -> dict[str, float]:
    """Medians for a transaction: the wall's, and each process' CPU time."""
    scale = 1e6 / TRANSACTIONS
    cpu = {name: round(median(s.cpu[name] for s in found) * scale, 1) for name in found[0].cpu}
    return {"wall": round(median(s.seconds for s in found) * scale, 1), **cpu}


def _cpu(spent: Spent) -> float:
    return sum(spent.cpu[name] for name in COUNTED)

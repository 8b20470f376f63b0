"""kill -9 at every boundary of both legs: nothing lost, nothing doubled, no hand needed."""

from __future__ import annotations

import ast
import random
from itertools import cycle
from pathlib import Path

import pytest

from config import failpoints
from replicator.sandbox.cluster import Engine
from replicator.sandbox.waiting import DeadlineExpired
from tests.faults.conftest import GetTrial
from tests.faults.trial import TABLES, TIMES, Trial

ROOT = Path(__file__).parents[2]
ENGINES: tuple[Engine, ...] = ("InnoDB", "MyISAM")

FIRST_COPY = {
    "copy.begun", "copy.group_committed", "copy.ended",
    "window.staged", "window.before_end", "window.ended",
}  # fmt: skip
"""Passed by a copy of everything only: that is asked for first."""
SPOILT = {"conflict.before_commit"}
"""Passed when the replica's rows are not what they should be, and the stream meets one."""
MENDED = {"mend.taken", "mend.read", "mend.before_commit"}
"""Passed when somebody asks for rows to be mended by key."""
READ_AGAIN = {"window.read_again"}
"""Passed by each copy of the table whose changes tell of rows in parts only."""


def _pairs() -> list[tuple[str, str, Engine]]:
    """A point of each leg at a time, and the engine; more times, also the other engine."""
    loader = cycle(failpoints.LOADER)
    pairs = []
    for number, point in enumerate(failpoints.REPLICATOR):
        other = next(loader)
        pairs.extend((point, other, ENGINES[(number + time) % 2]) for time in range(TIMES))
    return sorted(pairs, key=lambda pair: pair[2])  # one pipeline after the other


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("first", "second", "engine"), _pairs())
def test_a_death_at_any_point_loses_nothing_and_doubles_nothing(
    trial: GetTrial, first: str, second: str, engine: Engine
) -> None:
    the = trial(engine)
    the.asked.set()
    daemons = the.order(first), the.order(second)
    if first in FIRST_COPY:
        the.copy_everything()
    if first in SPOILT | MENDED:  # a reload of the table would be the end of it, and come first
        the.rotation = tuple(table for table in TABLES if table != "visit")
    if first in SPOILT:
        the.spoil()
    if first in MENDED:
        the.spoil_quietly()
    if first in READ_AGAIN:
        the.request("mover")
    the.wait_for_death(*daemons)
    the.rotation = TABLES
    the.settle()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(TIMES))
def test_deaths_in_random_sequence_lose_nothing_and_double_nothing(
    trial: GetTrial, engine: Engine, seed: int
) -> None:
    the = trial(engine)
    the.asked.set()
    dice = random.Random(f"{engine}/{seed}")
    for _ in range(8):
        _kill_at_random(the, dice)
    the.settle()
    the.verify()


def _kill_at_random(the: Trial, dice: random.Random) -> None:
    """Each leg at a point of its own, or wherever it is when it does not come there soon."""
    daemons = [
        the.order(dice.choice(list(points)), passing=dice.randint(1, 6))
        for points in (failpoints.REPLICATOR, failpoints.LOADER)
    ]
    if dice.random() < 0.2:
        the.copy_everything()
    try:
        the.wait_for_death(*daemons, deadline=dice.uniform(2, 5))
    except DeadlineExpired:
        the.no_orders()
        for daemon in daemons:
            the.restart(daemon)


def _reached() -> dict[str, list[str]]:
    """Every place in the code that names a point, by point."""
    found: dict[str, list[str]] = {}
    for package in ("config", "replicator", "loader"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "reach":
                    (name,) = node.args
                    assert isinstance(name, ast.Constant), f"{path}: a point has a constant name"
                    found.setdefault(name.value, []).append(path.relative_to(ROOT).parts[0])
    return found


def test_the_catalogue_names_every_point_in_the_code_and_no_other() -> None:
    reached = _reached()
    assert set(reached) == set(failpoints.POINTS)
    for name, legs in reached.items():
        leg = "replicator" if name in failpoints.REPLICATOR else "loader"
        assert legs == [leg], f"{name} stands in one place of its leg"

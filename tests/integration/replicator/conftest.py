"""`leg`: leg 1 on fresh databases; `new_leg(rules=…, copy_chunk_rows=3)` where it differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from config.tables import TableRules
from replicator.sandbox.databases import MySQLDatabase

from .leg import Leg

NewLeg = Callable[..., Leg]


@pytest.fixture
def new_leg(source_db: MySQLDatabase, replica_db: MySQLDatabase) -> Iterator[NewLeg]:
    made: list[Leg] = []

    def make(
        rules: TableRules = TableRules(),  # noqa: B008 (frozen)
        source: MySQLDatabase | None = None,
        **tuning: Any,
    ) -> Leg:
        made.append(Leg(source or source_db, replica_db, rules, **tuning))
        return made[-1]

    yield make
    for leg in made:
        leg.close()


@pytest.fixture
def leg(new_leg: NewLeg) -> Leg:
    return new_leg()

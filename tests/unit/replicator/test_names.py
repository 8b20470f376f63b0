"""Which ways to keep names go together; those that no server on Linux has are tried here alone."""

from __future__ import annotations

from typing import Any, Self

import pytest

from config.errors import ConfigError
from replicator.statements import _require_same_names


class Replica:
    """Answers every question with its `lower_case_table_names`."""

    def __init__(self, names: int) -> None:
        self.names = names

    def cursor(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def execute(self, _sql: str, _arguments: object = None) -> int:
        return 1

    def fetchall(self) -> list[tuple[Any, ...]]:
        return [(self.names,)]


@pytest.mark.parametrize(("source", "replica"), [(0, 0), (1, 0), (1, 1)])
def test_names_that_stay_different_are_taken(source: int, replica: int) -> None:
    _require_same_names(source, Replica(replica), "opendental", "copy")


@pytest.mark.parametrize(
    ("source", "replica", "said"),
    [
        (0, 1, "would be one on the replica"),
        (0, 2, "would be one on the replica"),
        (1, 2, "would be one on the replica"),
        (2, 0, "otherwise than its catalog"),
    ],
)
def test_names_that_could_meet_are_refused(source: int, replica: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        _require_same_names(source, Replica(replica), "opendental", "copy")
    assert "lower_case_table_names=" in refused.value.hint


def test_a_database_has_the_name_that_the_binlog_gives_it() -> None:
    _require_same_names(0, Replica(0), "OpenDental", "Copy")
    with pytest.raises(ConfigError, match="OPENDENTAL_SOURCE_DB=OpenDental"):
        _require_same_names(1, Replica(0), "OpenDental", "Copy")
    with pytest.raises(ConfigError, match="MYSQL_REPLICATION_DB=Copy"):
        _require_same_names(1, Replica(1), "opendental", "Copy")

"""A replica is of its source's family, and never of an older release series."""

from __future__ import annotations

import pytest

from config.errors import ConfigError
from replicator.pair import require_fitting
from replicator.source import Identity

OLD, NEW, MYSQL = "10.11.19-MariaDB-log", "11.8.6-MariaDB", "9.7.0"


@pytest.mark.parametrize(
    ("source", "replica"),
    [
        (OLD, "10.11.6-MariaDB"),  # within a series, either may be ahead
        ("10.11.6-MariaDB", OLD),
        (OLD, NEW),
        ("8.0.41", MYSQL),
        (MYSQL, MYSQL),
    ],
)
def test_a_replica_as_new_as_its_source_is_taken(source: str, replica: str) -> None:
    require_fitting(Identity(1, "", source), Identity(2, "", replica))


@pytest.mark.parametrize(
    ("source", "replica", "said", "remedy"),
    [
        (NEW, OLD, f"the replica ({OLD}) is older than its source ({NEW})", "MariaDB 11.8 or"),
        ("10.11.6-MariaDB", "10.6.22-MariaDB", "is older than its source", "MariaDB 10.11 or"),
        (MYSQL, "8.4.4", f"the replica (8.4.4) is older than its source ({MYSQL})", "MySQL 9.7 or"),
        (MYSQL, NEW, f"source ({MYSQL}) and replica ({NEW}) are of different", "MySQL with MySQL"),
        (OLD, MYSQL, f"source ({OLD}) and replica ({MYSQL}) are of different", "MariaDB with"),
    ],
)
def test_any_other_is_refused_by_name(source: str, replica: str, said: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as refused:
        require_fitting(Identity(1, "", source), Identity(2, "", replica))
    assert said in str(refused.value)
    assert remedy in refused.value.hint

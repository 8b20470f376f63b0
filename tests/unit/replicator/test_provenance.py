"""What a list of binlog files says about a position, and two beginnings of a file about it."""

from __future__ import annotations

import pytest

from config.errors import PositionLost, ReplicatorError, SourceReset
from replicator.binlog.position import SourcePosition
from replicator.provenance import BinlogFile, require_created, require_file

FILES = [BinlogFile("bin.000007", 900), BinlogFile("bin.000008", 800), BinlogFile("bin.000010", 50)]


@pytest.mark.parametrize("place", [("bin.000007", 4), ("bin.000008", 800), ("bin.000010", 50)])
def test_a_position_within_a_file_is_there(place: tuple[str, int]) -> None:
    require_file(FILES, SourcePosition(*place))


@pytest.mark.parametrize(
    ("place", "kind", "said"),
    [
        (("bin.000006", 4), PositionLost, "no longer has .* its oldest is bin.000007"),
        (("bin.000009", 4), PositionLost, "no longer has"),
        (("bin.000011", 4), SourceReset, "numbering began again"),
        (("bin.000008", 801), SourceReset, "ends at 800, before the replica's position"),
        (("bin.000010", 51), SourceReset, "lost the end of its binlog"),
        (("mysql-bin.000008", 4), PositionLost, "other names than mysql-bin.000008: bin.000010"),
    ],
)
def test_what_became_of_a_position_that_is_not_there_is_told_apart(
    place: tuple[str, int], kind: type[ReplicatorError], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        require_file(FILES, SourcePosition(*place))
    assert "replicator resync --all" in caught.value.hint


def test_no_files_at_all_are_other_files() -> None:
    with pytest.raises(PositionLost):
        require_file([], SourcePosition("bin.000001", 4))


def test_a_file_begun_at_another_second_is_another_file() -> None:
    require_created("bin.000001", 1_795_000_000, 1_795_000_000)
    with pytest.raises(SourceReset, match="begun on 2026-11-18 11:06:41 UTC") as caught:
        require_created("bin.000001", 1_795_000_000, 1_795_000_001)
    assert "2026-11-18 11:06:40" in str(caught.value)

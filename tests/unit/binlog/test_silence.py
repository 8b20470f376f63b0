"""A silent server is asked, and its answer judged."""

from __future__ import annotations

import pytest

from config.errors import ConnectionLost, SourceReset
from replicator.binlog.position import SourcePosition
from replicator.binlog.silence import Silence


def at(offset: int, file: int = 7) -> SourcePosition:
    return SourcePosition(f"bin.{file:06}", offset)


@pytest.fixture
def silence() -> Silence:
    return Silence("source", 5.0, now=100.0)


def test_a_server_is_asked_after_a_while_of_silence_and_again_after_another(
    silence: Silence,
) -> None:
    assert not silence.due(104.9)
    assert silence.due(105)
    silence.judge(at(10), at(10), 105)
    assert not silence.due(109)
    assert silence.due(110)
    silence.broken(110)
    assert not silence.due(114)


def test_where_nothing_happens_silence_is_right(silence: Silence) -> None:
    for now in range(105, 200, 5):
        silence.judge(at(10), at(10), now)


@pytest.mark.parametrize("end", [at(9), at(500, file=6)])
def test_a_binlog_that_ends_before_what_was_read_was_begun_anew(
    silence: Silence, end: SourcePosition
) -> None:
    with pytest.raises(SourceReset, match="RESET MASTER"):
        silence.judge(at(10), end, 105)


def test_what_is_just_on_its_way_is_waited_for_once(silence: Silence) -> None:
    silence.judge(at(10), at(20), 105)
    silence.judge(at(20), at(30), 110)
    with pytest.raises(ConnectionLost, match="nothing of it comes"):
        silence.judge(at(20), at(30), 115)


def test_what_came_late_came(silence: Silence) -> None:
    silence.judge(at(10), at(20), 105)
    silence.broken(106)
    silence.judge(at(10), at(20), 111)

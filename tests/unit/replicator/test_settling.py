"""What a server says of owned GTIDs is read, and a wait for them ends when they are given up."""

from __future__ import annotations

from typing import Any

import pytest

from config.errors import ServerBusy
from replicator import settling
from replicator.settling import PositionHistory, parse_owned
from replicator.source import Identity

ONE = "9bb316be-e706-11f1-8a0d-02fc00000001"
TWO = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
MYSQL = Identity(1, ONE, "9.7.4")


@pytest.mark.parametrize(
    ("text", "owned"),
    [
        ("", set()),
        (f"{ONE}:169#15", {(ONE, "", 169)}),
        # As MySQL 9.7 prints it: nothing stands between a thread and the next server.
        (
            f"{ONE}:171#16:170#14:169#15{ONE}:tagg:1#18{TWO}:7#17",
            {(ONE, "", 171), (ONE, "", 170), (ONE, "", 169), (ONE, "tagg", 1), (TWO, "", 7)},
        ),
        (f"{ONE}:1#2,\n{TWO}:3#4", {(ONE, "", 1), (TWO, "", 3)}),
    ],
)
def test_owned_gtids_are_read(text: str, owned: set[tuple[str, str, int]]) -> None:
    assert parse_owned(text) == owned


class Source:
    """Answers as a MySQL server whose transactions own these GTIDs, one answer after the other."""

    def __init__(self, *owned: str, mode: str = "ON") -> None:
        self.owned, self.mode, self.asked = list(owned), mode, 0

    def cursor(self) -> Source:
        return self

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, sql: str, *_: Any) -> None:
        self.sql = sql

    def fetchall(self) -> list[tuple[Any, ...]]:
        if "STATUS WHERE" in self.sql:
            return []  # no semi-synchronous replication
        if "gtid_mode" in self.sql:
            return [(self.mode,)]
        if "gtid_owned" in self.sql:
            self.asked += 1
            return [(self.owned.pop(0) if len(self.owned) > 1 else self.owned[0],)]
        return [("binlog.000001", 4)]


def test_the_wait_ends_when_those_that_were_owned_then_are_given_up() -> None:
    source = Source(f"{ONE}:1#9:2#8", f"{ONE}:2#8:3#7", f"{ONE}:2#8", f"{ONE}:4#6")
    _position, wait = PositionHistory(source, MYSQL, gap=99.0).ripening()
    wait()
    assert source.asked == 4


def test_nothing_is_waited_for_where_nothing_was_owned() -> None:
    source = Source("")
    PositionHistory(source, MYSQL, gap=99.0).ripening()[1]()
    assert source.asked == 1


def test_a_transaction_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "PATIENCE", 0.0)
    wait = PositionHistory(Source(f"{ONE}:1#9"), MYSQL, gap=99.0).wait_for_all()
    with pytest.raises(ServerBusy, match="1 transactions") as caught:
        wait()
    assert "PROCESSLIST" in caught.value.hint


@pytest.mark.parametrize("mode", ["OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE"])
def test_without_gtids_time_must_pass(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("replicator.settling.time.sleep", slept.append)
    PositionHistory(Source("", mode=mode), MYSQL, gap=5.0).ripening()[1]()
    assert [4.0 < seconds <= 5.0 for seconds in slept] == [True]

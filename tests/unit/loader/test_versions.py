"""The fold that keeps deleted rows' last versions, and every version where that is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from config.keeping import Keeping
from loader.fold import State
from loader.rows import DELETE, INSERT, UPDATE, RowChange, TablePlan
from loader.values import ValueFault
from loader.versions import Version, Versions, VersionsFold

FAULT = ValueFault("v", b"a\0b", "NUL in text")


@dataclass
class Events:
    """Each event is a list of changes already."""

    held: list[list[RowChange]] = field(default_factory=list)

    def decode(self, event: bytes, _plan: TablePlan) -> list[RowChange]:
        return self.held[int(event)]


def folded(*events: list[RowChange], soft: bool = True, history: bool = True) -> VersionsFold:
    fold = VersionsFold(cast("Any", None), Events(list(events)), Keeping(soft, history))
    for number in range(len(events)):
        fold.take([str(number).encode()], f"t{number}".encode())
    return fold


def put(key: bytes, row: bytes, operation: int = INSERT, *faults: ValueFault) -> RowChange:
    return RowChange(operation, key, row, faults)


def gone(key: bytes) -> RowChange:
    return RowChange(DELETE, key, None, ())


def test_a_deleted_key_has_the_version_before_it() -> None:
    fold = folded([put(b"1", b"1\ta"), gone(b"2")], [put(b"1", b"1\tb", UPDATE)], [gone(b"1")])
    assert list(fold.states()) == [
        State(b"2", None, b"t0"), State(b"1", None, b"t2", b"1\tb", b"t1")
    ]  # fmt: skip
    assert list(fold.changes) == [1, 1, 2]


def test_a_key_that_comes_back_is_an_ordinary_row() -> None:
    fold = folded([gone(b"1")], [put(b"1", b"1\ta")])
    assert list(fold.states()) == [State(b"1", b"1\ta", b"t1")]


def test_two_deletions_keep_the_last_version_there_was() -> None:
    fold = folded([put(b"1", b"1\ta")], [gone(b"1")], [gone(b"1")])
    assert list(fold.states()) == [State(b"1", None, b"t2", b"1\ta", b"t0")]


def test_faults_are_those_of_the_version_that_is_kept() -> None:
    events = [put(b"1", b"1\ta", INSERT, FAULT)], [gone(b"1")]
    assert folded(*events).faults == {b"1": (FAULT,)}
    assert folded(*events, soft=False).faults == {}


def test_versions_end_where_the_next_begins() -> None:
    versions = folded(
        [put(b"1", b"1\ta"), put(b"1", b"1\tb", UPDATE)],
        [gone(b"1"), put(b"2", b"2\ta")],
        [put(b"1", b"1\tc")],
    ).versions
    assert versions is not None
    assert list(versions.closed()) == [(b"1", b"t0"), (b"2", b"t1")]
    assert list(versions.opened()) == [
        (b"1\ta", b"t0", b"t0"), (b"1\tb", b"t0", b"t1"), (b"2\ta", b"t1", None),
        (b"1\tc", b"t2", None),
    ]  # fmt: skip


def test_without_a_history_no_versions_are_held() -> None:
    fold = folded([put(b"1", b"1\ta")], history=False)
    assert fold.versions is None
    assert fold.held_bytes < folded([put(b"1", b"1\ta")]).held_bytes


def test_overwritten_versions_count_as_held() -> None:
    once = folded([put(b"1", b"1\ta" * 100)]).held_bytes
    often = folded(*[[put(b"1", b"1\ta" * 100)] for _ in range(50)]).held_bytes
    assert often > 49 * 300 + once


def test_a_refused_row_ends_and_one_that_could_not_be_taken_out_stays() -> None:
    rows = ((b"1", b"a", b"t0"), (b"2", b"a", b"t0"), (b"1", b"b", b"t1"), (b"3", b"a", b"t1"))
    every = Versions([Version(key, key + b"\t" + word, since) for key, word, since in rows])
    left = every.without({b"1"}, {b"3"})
    assert list(left.opened()) == [(b"1\ta", b"t0", b"t1"), (b"2\ta", b"t0", None)]

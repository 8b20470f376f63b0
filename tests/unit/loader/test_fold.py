"""Folding: the last state of each key wins, nothing else is left; compiled as in Python."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.errors import ReplicatorError
from loader.decoder import new_fold
from loader.fold import BLOCK_BYTES, CHANGED, FRESH, GONE, Fold, KeylessFold, PythonFold, State
from loader.rows import PythonDecoder, TablePlan
from replicator.binlog.schema import ColumnType
from tests.unit.loader.test_kernel import events, image, plan_of, rows_event

INT, TEXT, DATE = (ColumnType("int"), 3, 0), (ColumnType("text", charset="utf8mb4"), 252, 2), (
    ColumnType("date"), 10, 0)  # fmt: skip
KEYED, KEYLESS = plan_of(INT, TEXT, DATE, key=(0,)), plan_of(INT, TEXT)
NO_DATE, SOME_DATE = bytes(3), (2024 << 9 | 2 << 5 | 29).to_bytes(3, "little")
INSERT, UPDATE, DELETE = 23, 24, 25

Change = tuple[int, int, int, bytes, bool]
"""Event type, key, the key behind an update, text, and whether the date is one."""


def event_of(change: Change) -> bytes:
    kind, key, new_key, text, dated = change
    images = [_row(key, text, dated)]
    if kind == UPDATE:
        images.append(_row(new_key, text + b"'", dated))
    return rows_event(kind, 3, b"".join(images))


def _row(key: int, text: bytes, dated: bool) -> bytes:
    stored = len(text).to_bytes(2, "little") + text
    return image([key.to_bytes(4, "little"), stored, SOME_DATE if dated else NO_DATE])


changes = st.tuples(
    st.sampled_from([INSERT, UPDATE, DELETE]), st.integers(0, 5), st.integers(0, 5),
    st.sampled_from([b"", b"a", b"tab\t", b"\n"]), st.booleans(),
)  # fmt: skip
transactions = st.lists(
    st.tuples(st.lists(changes, max_size=6), st.sampled_from([b"first", b"second", b"\\N"])),
    max_size=8,
)


def make_kernel(plan: TablePlan) -> Fold:
    compiled = pytest.importorskip("loader.kernel_fold", reason="the compiled fold was not built")
    made: Fold = compiled.KernelFold(plan)
    return made


def make_python(plan: TablePlan) -> Fold:
    return PythonFold(plan, PythonDecoder())


both = pytest.mark.parametrize("make", [make_kernel, make_python])


def lines(fold: Fold, kind: int) -> list[bytes]:
    whole = b"".join(fold.lines(kind))
    assert not whole or whole.endswith(b"\n")
    found = whole.split(b"\n")[:-1]
    assert len(found) == fold.count(kind)
    return found


def all_of(fold: Fold) -> list[object]:
    """Everything that can be seen of a fold."""
    return [
        list(fold.states()), fold.size, fold.held_bytes, list(fold.changes), fold.faults,
        fold.unwritable, *(lines(fold, kind) for kind in (FRESH, CHANGED, GONE)),
    ]  # fmt: skip


def outcome(fold: Fold, pieces: Iterable[tuple[list[bytes], bytes]]) -> list[object]:
    try:
        taken = [fold.take(piece, stamp) for piece, stamp in pieces]
    except ReplicatorError as error:
        return [type(error), str(error)]
    return [taken, *all_of(fold)]


@given(transactions)
def test_the_compiled_fold_says_what_pythons_says(
    found: list[tuple[list[Change], bytes]],
) -> None:
    pieces = [([event_of(change) for change in piece], stamp) for piece, stamp in found]
    assert outcome(make_kernel(KEYED), pieces) == outcome(make_python(KEYED), pieces)


@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=200)
@given(events(), st.binary(max_size=3), st.integers(0, 400))
def test_of_any_types_and_of_damaged_events_too(
    found: tuple[bytes, TablePlan], junk: bytes, at: int
) -> None:
    event, plan = found
    if not plan.key:
        return
    damaged = event[:at] + junk + event[at + len(junk) :]
    for piece in ([event, event], [event, damaged], [damaged], [event[:at]]):
        pieces = [(piece, b"then")]
        assert outcome(make_kernel(plan), pieces) == outcome(make_python(plan), pieces)


@both
@given(found=transactions)
def test_a_fold_leaves_what_a_dictionary_would(
    make: Callable[[TablePlan], Fold], found: list[tuple[list[Change], bytes]]
) -> None:
    model: dict[int, tuple[bytes | None, bytes]] = {}
    began: dict[int, bool] = {}
    fold = make(KEYED)
    for piece, stamp in found:
        fold.take([event_of(change) for change in piece], stamp)
        for kind, key, new_key, text, _ in piece:
            moved = kind == UPDATE and key != new_key
            if moved or kind == DELETE:
                began.setdefault(key, False)
                model[key] = (None, stamp)
            if kind != DELETE:
                last = new_key if kind == UPDATE else key
                began.setdefault(last, moved or kind == INSERT)
                model[last] = (text + b"'" if kind == UPDATE else text, stamp)
    assert {int(s.key): (_text(s), s.source_ts) for s in fold.states()} == model
    fresh = {int(line.split(b"\t")[0]) for line in lines(fold, FRESH)}
    assert fresh == {key for key in model if began[key] and model[key][0] is not None}
    gone = {int(line) for line in lines(fold, GONE)}
    assert gone == {key for key in model if model[key][0] is None}
    assert fold.size == len(model)


def _text(state: State) -> bytes | None:
    if state.row is None:
        return None
    return state.row.split(b"\t")[1].replace(b"\\t", b"\t").replace(b"\\n", b"\n")


@both
def test_many_keys_come_out_in_blocks_of_whole_lines(make: Callable[[TablePlan], Fold]) -> None:
    fold, count = make(KEYED), 20_000
    text = b"x" * 50
    keys = list(range(count))
    random.Random(1).shuffle(keys)
    fold.take([event_of((INSERT, key, 0, text, True)) for key in keys], b"now")
    found = list(fold.lines(FRESH))
    assert len(found) > 3
    assert all(block.endswith(b"\n") and len(block) < BLOCK_BYTES + 100 for block in found)
    assert {int(line.split(b"\t")[0]) for line in lines(fold, FRESH)} == set(keys)
    assert fold.held_bytes > count * len(text)


@both
def test_the_faults_of_an_overwritten_row_are_gone(make: Callable[[TablePlan], Fold]) -> None:
    fold = make(KEYED)
    fold.take([event_of((INSERT, 1, 0, b"a", False)), event_of((INSERT, 2, 0, b"a", False))], b"")
    assert set(fold.faults) == {b"1", b"2"}
    assert fold.faults[b"1"][0].original == b"0000-00-00"
    fold.take([event_of((UPDATE, 1, 1, b"a", True)), event_of((DELETE, 2, 0, b"", True))], b"")
    assert fold.faults == {}


@both
def test_a_row_whose_key_cannot_be_held_is_only_noted(make: Callable[[TablePlan], Fold]) -> None:
    fold = make(plan_of(INT, TEXT, DATE, key=(2,)))
    fold.take([event_of((INSERT, 1, 0, b"a", False))], b"now")
    assert fold.size == 0
    assert [fault.original for fault in fold.unwritable] == [b"0000-00-00"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=30))
def test_without_a_key_a_fold_counts_copies(steps: list[tuple[bool, int]]) -> None:
    fold = KeylessFold(KEYLESS, PythonDecoder())
    net: Counter[bytes] = Counter()
    for adds, number in steps:
        row = image([number.to_bytes(4, "little"), b"\0\0"])
        fold.take([rows_event(INSERT if adds else DELETE, 2, row)], b"now")
        net[b"%d\t" % number] += 1 if adds else -1
    assert {row: copies.net for row, copies in fold.copies.items()} == {
        row: count for row, count in net.items() if count
    }
    assert sum(fold.changes) == len(steps)


def test_the_fold_fits_the_plan() -> None:
    assert isinstance(new_fold(KEYLESS), KeylessFold)
    assert new_fold(KEYED).plan is KEYED
    assert isinstance(new_fold(KEYED, "python"), PythonFold)

"""Which differences are real: the rule of `settling`, with looks played back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from replicator.cli.settling import Settled, Sides, settle

Looks = Sequence[Mapping[str, Sides]]


def judged(first: Mapping[str, Sides], *looks: Mapping[str, Sides], until: float = 99) -> Settled:
    """Settle with the looks given; the last is repeated. Time passes at every pause."""
    now = [0.0]
    played: Iterator[Mapping[str, Sides]] = iter(looks)
    last: list[Mapping[str, Sides]] = [{}]

    def look(_keys: Sequence[str]) -> Mapping[str, Sides]:
        last[0] = next(played, last[0])
        return last[0]

    def pause(_seconds: float) -> None:
        now[0] += 1

    return settle(first, look, deadline=until, clock=lambda: now[0], pause=pause)


def test_a_row_that_catches_up_is_no_difference() -> None:
    settled = judged({"1": ("a", "b")}, {"1": ("a", "a")})
    assert (settled.different, settled.unsettled) == ({}, [])


def test_a_row_that_is_gone_from_both_sides_is_no_difference() -> None:
    assert judged({"1": ("a", None)}, {}).different == {}


def test_a_row_that_stands_still_and_differs_is_different() -> None:
    still = {"1": ("a", "b"), "2": ("a", None), "3": (None, "b")}
    assert judged(still, still, still).different == {"1": "changed", "2": "missing", "3": "extra"}


def test_one_equal_look_at_the_left_side_is_not_enough() -> None:
    settled = judged({"1": ("a", None)}, {"1": ("a", None)}, {"1": ("a", "a")})
    assert settled.different == {}


def test_a_row_that_changes_at_every_look_is_unsettled_at_the_deadline() -> None:
    looks = [{"1": (str(n), str(n - 1))} for n in range(1, 9)]
    settled = judged({"1": ("0", None)}, *looks, until=6)
    assert (settled.different, settled.unsettled) == ({}, ["1"])


def test_a_row_that_comes_to_rest_is_judged_then() -> None:
    looks: Looks = [{"1": ("b", "a")}, {"1": ("c", "b")}, {"1": ("c", "b")}, {"1": ("c", "b")}]
    assert judged({"1": ("a", None)}, *looks).different == {"1": "changed"}


def test_nothing_is_judged_while_its_table_is_being_reloaded() -> None:
    now = [0.0]

    def pause(_seconds: float) -> None:
        now[0] += 1

    settled = settle(
        {"1": ("a", "b")},
        lambda _keys: {"1": ("a", "b")},
        deadline=5,
        clock=lambda: now[0],
        pause=pause,
        steady=lambda _key: False,
    )
    assert settled.unsettled == ["1"]

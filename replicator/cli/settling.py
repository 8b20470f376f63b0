"""Which differences are real, when both sides go on changing. Pure but for its callbacks.

Left: keys that differed at a first look. Right: the ones that stayed different
while the left side's value stood still, and those that never stood still.

Why two more looks: each look reads the left side first, then waits until the right
side has passed that moment. So a value that was the same at two looks must have
arrived by the second; that a MyISAM source shows a row before it logs it is why
one more is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

CONFIRMATIONS = 2
PAUSE_SECONDS = 0.3

Key = TypeVar("Key", bound=Hashable)
Sides = tuple[str | None, str | None]
"""Fingerprints of a row on the left and on the right; None: there is no such row."""

CHANGED, MISSING, EXTRA = "changed", "missing", "extra"


def kind(sides: Sides) -> str:
    """What the right side has done to the row."""
    left, right = sides
    return MISSING if right is None else EXTRA if left is None else CHANGED


@dataclass(slots=True)
class Settled(Generic[Key]):
    """What became of the suspects; those that are in neither turned out to be equal."""

    different: dict[Key, str] = field(default_factory=dict)
    unsettled: list[Key] = field(default_factory=list)


def settle(
    suspects: Mapping[Key, Sides],
    look: Callable[[Sequence[Key]], Mapping[Key, Sides]],
    *,
    deadline: float,
    clock: Callable[[], float],
    pause: Callable[[float], None],
    steady: Callable[[Key], bool] = lambda _key: True,
) -> Settled[Key]:
    """Look again at `suspects` until each is equal or certain, or `deadline` is past.

    `look` reads the keys that it is given; one that it does not return is on neither side.
    `steady` says whether a key's value may be judged now (its table is not being reloaded).
    """
    settled: Settled[Key] = Settled()
    waiting = {key: (sides, 0) for key, sides in suspects.items()}
    while waiting:
        pause(PAUSE_SECONDS)
        judged = {key for key in waiting if steady(key)}
        now = look(list(waiting))
        following: dict[Key, tuple[Sides, int]] = {}
        for key, (before, confirmed) in waiting.items():
            sides = now.get(key, (None, None))
            if sides[0] == sides[1]:
                continue
            still = sides[0] == before[0] and key in judged
            looks = confirmed + 1 if still else 0
            if looks >= CONFIRMATIONS:
                settled.different[key] = kind(sides)
            else:
                following[key] = (sides, looks)
        waiting = following
        if waiting and clock() >= deadline:
            settled.unsettled = list(waiting)
            break
    return settled

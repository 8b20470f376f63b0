"""Damage real rows events, and hold the compiled fold to what Python's makes of them.

A program, run by `test_kernel_fuzz` under AddressSanitizer:

    fold_fuzzer.py KERNEL_FOLD.so CORPUS SEED COUNT

The checked build of the kernel, whose walk over images the fold uses, stands beside
KERNEL_FOLD.so. CORPUS and the last line on standard output are as `kernel_fuzzer`'s.
"""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from config.errors import ReplicatorError
from loader.fold import CHANGED, FRESH, GONE, Fold, PythonFold
from loader.rows import PythonDecoder, TablePlan
from tests.integration.checked_build import module_at
from tests.integration.loader.kernel_fuzzer import Fuzzer

STAMPS = (b"2024-01-01 00:00:00+00", b"\\N")
Take = tuple[list[bytes], bytes]
"""Events of one commit, and its time."""


def takes_of(fuzzer: Fuzzer) -> tuple[list[Take], TablePlan] | None:
    """Whole events and a damaged one, of one plan, some more than once."""
    event, plan = fuzzer.draw()
    if not plan.key or len(event) < 5:
        return None
    chance = fuzzer.chance
    whole = [e for (_, e), p in zip(fuzzer.corpus, fuzzer.plans, strict=True) if p is plan]
    takes = []
    for _ in range(chance.randrange(1, 4)):
        events = chance.choices([*whole, event], k=chance.randrange(1, 4))
        takes.append((events, chance.choice(STAMPS)))
    takes.append(([event], chance.choice(STAMPS)))
    return takes, plan


def outcome(fold: Fold, takes: list[Take]) -> list[object]:
    """All that can be seen of a fold, or what its error tells."""
    try:
        taken = [fold.take(events, stamp) for events, stamp in takes]
    except ReplicatorError as error:
        return [type(error).__name__, str(error), error.hint]
    lines = [b"".join(fold.lines(kind)) for kind in (FRESH, CHANGED, GONE)]
    return [
        taken, list(fold.states()), fold.size, fold.held_bytes, list(fold.changes), fold.faults,
        fold.unwritable, lines, [fold.count(kind) for kind in (FRESH, CHANGED, GONE)],
    ]  # fmt: skip


def main(path: str, corpus: str, seed: str, count: str) -> int:
    (kernel,) = Path(path).parent.glob("kernel.*.so")
    sys.modules["loader.kernel"] = module_at("loader.kernel", str(kernel))
    compiled = module_at("loader.kernel_fold", path)
    fuzzer = Fuzzer(pickle.loads(Path(corpus).read_bytes()), int(seed))
    ended: Counter[str] = Counter()
    for number in range(int(count)):
        drawn = takes_of(fuzzer)
        if drawn is None:
            continue
        takes, plan = drawn
        expected = outcome(PythonFold(plan, PythonDecoder()), takes)
        if outcome(compiled.KernelFold(plan), takes) != expected:
            print(f"number {number} of seed {seed} ends otherwise:", takes, plan)
            return 1
        ended[str(expected[0]) if isinstance(expected[0], str) else "folded"] += 1
    print(dict(ended))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

"""Damage real rows events and table maps, and hold the kernel to the Python decoder's verdict.

A program, run by `test_kernel_fuzz` under AddressSanitizer:

    kernel_fuzzer.py KERNEL.so CORPUS SEED COUNT

CORPUS is a pickled list of (TABLE_MAP event, rows event). The last line on standard output
tells how the COUNT damaged events ended; the exit code is 0 if each ended as in Python.
"""

from __future__ import annotations

import pickle
import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from loader.rows import PythonDecoder, TablePlan, plan_for
from replicator.binlog.events import parse_table_map
from tests.integration.checked_build import module_at
from tests.integration.loader.kernel_events import as_v2, outcome

TELLING = b"\x00\x01\x7f\x80\xfe\xff"


class Fuzzer:
    """Draws damaged events and the plans to read them by."""

    def __init__(self, corpus: list[tuple[bytes, bytes]], seed: int) -> None:
        self.chance = random.Random(seed)
        self.corpus = [(parse_table_map(table_map), event) for table_map, event in corpus]
        self.plans = [plan_for(table_map) for table_map, _ in self.corpus]

    def draw(self) -> tuple[bytes, TablePlan]:
        at = self.chance.randrange(len(self.corpus))
        event, plan = self.corpus[at][1], self.plans[at]
        if self.chance.random() < 0.3:
            event = as_v2(event)
        match self.chance.randrange(10):
            case 0:  # an event read by another table's plan of the same width
                alike = [p for p in self.plans if len(p.skips) == len(plan.skips)]
                plan = self.chance.choice(alike)
            case 1 | 2:
                plan = self.damaged_plan(at) or plan
            case _:
                event = self.damaged(event, 5 if self.chance.random() < 0.1 else 27)
        return event, plan

    def damaged(self, data: bytes, start: int) -> bytes:
        """A few bytes from `start` on changed, put in or left out."""
        chance, changed = self.chance, bytearray(data)
        for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
            at = chance.randrange(start, max(len(changed), start + 1))
            match chance.randrange(8):
                case 0:
                    del changed[at:]
                case 1:
                    del changed[at : at + chance.randrange(1, 9)]
                case 2:
                    changed[at:at] = chance.randbytes(chance.randrange(1, 9))
                case 3:
                    changed += chance.randbytes(chance.randrange(1, 40))
                case 4 | 5:
                    changed[at : at + 1] = bytes([chance.choice(TELLING)])
                case _:
                    changed[at : at + 1] = chance.randbytes(1)
        return bytes(changed)

    def damaged_plan(self, at: int) -> TablePlan | None:
        """The plan of a table map of which the types or what is told of them is damaged."""
        raw = self.corpus[at][0].raw
        changed = bytearray(raw)
        for _ in range(self.chance.choice([1, 2, 4])):
            changed[self.chance.randrange(40, len(changed))] = self.chance.randrange(256)
        try:
            return plan_for(parse_table_map(bytes(changed)))
        except Exception:  # what a damaged table map meets is not the decoder's matter
            return None


def main(path: str, corpus: str, seed: str, count: str) -> int:
    kernel, python = module_at("loader.kernel", path).KernelDecoder(), PythonDecoder()
    fuzzer = Fuzzer(pickle.loads(Path(corpus).read_bytes()), int(seed))
    ended: Counter[str] = Counter()
    for number in range(int(count)):
        event, plan = fuzzer.draw()
        if len(event) < 5:
            continue
        expected = outcome(python, event, plan)
        if outcome(kernel, event, plan) != expected:
            print(f"number {number} of seed {seed} ends otherwise: {event.hex()}", plan)
            return 1
        ended[str(expected[0]) if expected and isinstance(expected[0], str) else "decoded"] += 1
    print(dict(ended))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

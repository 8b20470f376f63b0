"""Damage real blocks of rows and the plans to read them by, and feed them to the row kernel.

A program, run by `test_rowkernel_fuzz` under AddressSanitizer:

    rowkernel_fuzzer.py ROWKERNEL.so CORPUS SEED COUNT

CORPUS is a pickled list of (table, plan without encoders, hidden hashes, block, event's head).
The last line on standard output tells how the COUNT damaged blocks ended; the exit code is 0
if each became an event or was refused.
"""

from __future__ import annotations

import pickle
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from config.errors import SchemaDrift
from tests.integration.checked_build import module_at

TELLING = b"\x00\x01\x04\x07\x0b\x0c\x7f\x80\xfb\xfc\xfd\xfe\xff"
WIRES = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 16, 246, 252, 253, 254]

Column = tuple[str, int, int, int, int, int]
Sample = tuple[str, list[Column], int, bytes, bytes]


def called(value: bytes) -> bytes:
    """Stands in for a Python encoder: refuses some values, and makes long ones of others."""
    if value[:1] == b"\xff":
        raise ValueError
    return value * 3


class Fuzzer:
    """Draws damaged blocks and plans."""

    def __init__(self, corpus: list[Sample], seed: int) -> None:
        self.chance = random.Random(seed)
        self.corpus = corpus

    def draw(self) -> Sample:
        table, plan, hidden, block, head = self.chance.choice(self.corpus)
        match self.chance.randrange(8):
            case 0:
                plan, hidden = self.chance.choice(self.corpus)[1:3]
            case 1 | 2:
                plan = self.damaged_plan(plan)
            case 3:
                plan, block = self.damaged_plan(plan), self.damaged(block)
            case _:
                block = self.damaged(block)
        return table, plan, hidden, block, head

    def damaged(self, block: bytes) -> bytes:
        """A few bytes changed, put in or left out; the packets' lengths mended half of the time."""
        chance, changed = self.chance, bytearray(block)
        for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
            at = chance.randrange(max(len(changed), 1))
            match chance.randrange(7):
                case 0:
                    del changed[at:]
                case 1:
                    del changed[at : at + chance.randrange(1, 9)]
                case 2:
                    changed[at:at] = chance.randbytes(chance.randrange(1, 9))
                case 3 | 4:
                    changed[at : at + 1] = bytes([chance.choice(TELLING)])
                case _:
                    changed[at : at + 1] = chance.randbytes(1)
        if chance.random() < 0.5 and len(changed) > 4:
            changed[:4] = (len(changed) - 4).to_bytes(3, "little") + b"\0"
        elif chance.random() < 0.1:
            changed[:3] = b"\xff\xff\xff"
        return bytes(changed)

    def damaged_plan(self, plan: list[Column]) -> list[Column]:
        changed = list(plan)
        for _ in range(self.chance.choice([1, 2, 4])):
            at = self.chance.randrange(len(changed))
            name, wire, kind, *numbers = changed[at]
            match self.chance.randrange(3):
                case 0:
                    wire = self.chance.choice(WIRES)
                case 1:
                    kind = self.chance.randrange(-1, 14)
                case _:
                    numbers[self.chance.randrange(3)] = self.chance.choice(
                        [-1, 0, 1, 2, 3, 4, 6, 7, 8, 9, 30, 65, 66, 255, 1 << 30]
                    )
            changed[at] = (name, wire, kind, *numbers)  # type: ignore[assignment]
        return changed


def outcome(kernel: Any, sample: Sample) -> str:
    table, plan, hidden, block, head = sample
    try:
        made = kernel.RowKernel(table, [(*column, called) for column in plan], hidden)
    except ValueError:
        return "no plan"
    try:
        event, rows, last = made.encode(block, head)
    except SchemaDrift:
        return "refused"
    assert int.from_bytes(event[9:13], "little") == len(event)
    assert event[:9] == head[:9]
    assert (0 < last <= len(block)) if rows else last == 0
    return "encoded"


def main(path: str, corpus: str, seed: str, count: str) -> int:
    kernel = module_at("replicator.binlog.rowkernel", path)
    fuzzer = Fuzzer(pickle.loads(Path(corpus).read_bytes()), int(seed))
    for sample in fuzzer.corpus:
        assert outcome(kernel, sample) in ("encoded", "refused")  # by the stand-in encoder
    ended = Counter(outcome(kernel, fuzzer.draw()) for _ in range(int(count)))
    print(dict(ended))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

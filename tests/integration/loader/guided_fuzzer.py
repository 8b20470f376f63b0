"""Damage rows events and table maps, and go on from what led the kernel where it had not been.

A program, run by `test_kernel_fuzz` under AddressSanitizer and with the edges counted
(`tests/integration/edges.c`):

    guided_fuzzer.py KERNEL.so CORPUS SEED COUNT EDGES.so guided|blind

An input is a table map and a rows event. One that passed an edge of the kernel for the first
time, or more often than any before, joins the corpus and is damaged further; `blind` damages
nothing but what it was given. Each that is new in this sense is held to the Python decoder's
verdict. The last line on standard output: how many edges are known, and how inputs ended.
"""

from __future__ import annotations

import ctypes
import pickle
import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from config.errors import ReplicatorError
from loader.rows import PythonDecoder, TablePlan, plan_for
from replicator.binlog.events import parse_table_map
from tests.integration.checked_build import module_at
from tests.integration.loader.kernel_events import outcome

TELLING = b"\x00\x01\x7f\x80\xfa\xfb\xfc\xfd\xfe\xff"
TYPES = bytes([1, 2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 245, 246, 252, 253, 254])
MAP_BODY, ROWS_BODY = 27, 27
LARGEST = 4096
Input = tuple[bytes, bytes]


class Mutator:
    """Makes an input of one or two others."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def __call__(self, corpus: list[Input]) -> Input:
        dice = self.dice
        # The newest are where something was found last.
        at = max(dice.randrange(len(corpus)), dice.randrange(len(corpus)))
        table_map, event = corpus[at]
        other_map, other_event = dice.choice(corpus)
        match dice.randrange(8):
            case 0:
                table_map = other_map
            case 1:
                cut = dice.randrange(ROWS_BODY, max(len(event), ROWS_BODY) + 1)
                event = event[:cut] + other_event[max(ROWS_BODY, len(other_event) - cut) :]
            case 2 | 3:
                table_map = self.damaged(table_map, MAP_BODY)
            case _:
                event = self.damaged(event, 5 if dice.random() < 0.1 else ROWS_BODY)
        if dice.random() < 0.1:  # another operation, or version, on the same images
            event = event[:4] + bytes([dice.choice([23, 24, 25, 30, 31, 32])]) + event[5:]
        return table_map, event[:LARGEST]

    def damaged(self, data: bytes, start: int) -> bytes:
        dice, changed = self.dice, bytearray(data)
        for _ in range(dice.choice([1, 1, 1, 2, 3, 8])):
            at = dice.randrange(start, max(len(changed), start + 1))
            match dice.randrange(9):
                case 0:
                    del changed[at:]
                case 1:
                    del changed[at : at + dice.randrange(1, 9)]
                case 2:
                    changed[at:at] = dice.randbytes(dice.randrange(1, 9))
                case 3:
                    changed[at:at] = changed[at : at + dice.randrange(1, 40)]
                case 4 | 5:
                    changed[at : at + 1] = bytes([dice.choice(TELLING)])
                case 6:
                    changed[at : at + 1] = bytes([dice.choice(TYPES)])
                case _:
                    changed[at : at + 1] = dice.randbytes(1)
        return bytes(changed)


class Plans:
    """Table maps, compiled; None for those that no plan is made of."""

    def __init__(self) -> None:
        self._known: dict[bytes, TablePlan | None] = {}

    def of(self, table_map: bytes) -> TablePlan | None:
        if table_map not in self._known:
            if len(self._known) > 2000:
                self._known.clear()
            try:
                self._known[table_map] = plan_for(parse_table_map(table_map))
            except ReplicatorError:
                self._known[table_map] = None
        return self._known[table_map]


def main(path: str, corpus_path: str, seed: str, count: str, edges_path: str, how: str) -> int:
    edges = ctypes.CDLL(edges_path)
    kernel, python = module_at("loader.kernel", path).KernelDecoder(), PythonDecoder()
    corpus: list[Input] = pickle.loads(Path(corpus_path).read_bytes())
    mutate, plans = Mutator(int(seed)), Plans()
    ended: Counter[str] = Counter()
    seeds = list(corpus)
    for number in range(int(count)):
        given = seeds[number] if number < len(seeds) else mutate(corpus)
        plan = plans.of(given[0])
        if plan is None or len(given[1]) < 5:
            ended["no plan"] += 1
            continue
        edges.edges_begin()
        found = outcome(kernel, given[1], plan)
        if edges.edges_end():
            if found != outcome(python, given[1], plan):
                print(f"number {number} of seed {seed} ends otherwise:", *map(bytes.hex, given))
                return 1
            ended["new"] += 1
            if how == "guided":
                corpus.append(given)
        ended[str(found[0]) if found and isinstance(found[0], str) else "decoded"] += 1
    print({"edges": edges.edges_known(), **ended})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

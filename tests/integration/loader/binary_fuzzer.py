"""Damage lines of COPY text, and hold what becomes binary of them to what Python reads.

A program, run by `test_binary_copy` under AddressSanitizer:

    binary_fuzzer.py BINARY_COPY.so CORPUS SEED COUNT

CORPUS is a pickled list of lines with the types of their columns. The last line on standard
output is a dict: how many damaged blocks became binary, and how many were not for it.
"""

from __future__ import annotations

import pickle
import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.integration.checked_build import module_at
from tests.integration.loader.binary_reading import assert_same

Line = tuple[tuple[int, ...], bytes]
ODD = (
    b"\\N", b"\\", b"\t", b"\n", b"\r", b"\0", b"-", b"+", b".", b":", b"0", b"9", b" ", b"e",
    b"NaN", b"inf", b"\xff", b"\\.", b"\\x", b"Z", b"+00", b"99999999999999999999", b"60", b"24",
)  # fmt: skip


def damaged(block: bytes, chance: random.Random) -> bytes:
    """The block with a few of its bytes gone, doubled, or otherwise."""
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(block) + 1)
        behind = min(len(block), at + chance.randrange(4))
        kind = chance.randrange(4)
        if kind == 0:
            block = block[:at] + block[behind:]
        elif kind == 1:
            block = block[:at] + chance.choice(ODD) + block[behind:]
        elif kind == 2:
            block = block[:at] + block[at:behind] * 2 + block[behind:]
        else:
            block = block[:at] + chance.randbytes(behind - at) + block[behind:]
    return block[: chance.randrange(len(block) + 1)] if chance.random() < 0.1 else block


def main(path: str, corpus: str, seed: str, count: str) -> int:
    compiled = module_at("loader.binary_copy", path)
    found: list[Line] = pickle.loads(Path(corpus).read_bytes())
    chance = random.Random(int(seed))
    ended: Counter[str] = Counter()
    for number in range(int(count)):
        types, line = chance.choice(found)
        same = [other for kinds, other in found if kinds == types]
        lines = [line, *chance.choices(same, k=chance.randrange(3))]
        block = damaged(b"".join(lines), chance)
        made = compiled.Transcoder(types).transcode(block)
        if made is None:
            ended["not for binary"] += 1
            continue
        try:
            assert_same(block, made, types)
        except Exception as error:
            print(f"number {number} of seed {seed}: {error!r}", types, block, made)
            return 1
        ended["binary"] += 1
    print(dict(ended))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

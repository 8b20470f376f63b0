"""Damage real blocks of rows, and hold the copy's kernel to the Python reader's verdict.

A program, run by `test_copyrows_fuzz` under AddressSanitizer:

    copyrows_fuzzer.py COPYROWS.so CORPUS SEED COUNT

CORPUS is a pickled list of (table schema, block). The last line on standard output tells how
the COUNT damaged blocks ended; the exit code is 0 if each ended as in Python.
"""

from __future__ import annotations

import pickle
import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4]))

from loader.load.tablereader import PythonReader
from replicator.binlog.schema import TableSchema
from tests.integration.checked_build import module_at
from tests.integration.loader.load.select_blocks import outcome

TELLING = b"\x00\x01\x7f\x80\xfa\xfb\xfc\xfd\xfe\xff-.:0129\\ \te"


def framed(packets: list[bytes]) -> bytes:
    return b"".join(
        len(packet).to_bytes(3, "little") + bytes([number & 0xFF]) + packet
        for number, packet in enumerate(packets)
    )


def packets_of(block: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(block):
        end = at + 4 + int.from_bytes(block[at : at + 3], "little")
        found.append(block[at + 4 : end])
        at = end
    return found


class Fuzzer:
    """Draws damaged blocks and the schemas to read them by."""

    def __init__(self, corpus: list[tuple[TableSchema, bytes]], seed: int) -> None:
        self.chance = random.Random(seed)
        self.corpus = corpus

    def draw(self) -> tuple[TableSchema, bytes]:
        schema, block = self.chance.choice(self.corpus)
        match self.chance.randrange(10):
            case 0:  # another table's rows
                alike = [s for s, _ in self.corpus if len(s.columns) == len(schema.columns)]
                return self.chance.choice(alike), block
            case 1:  # a giant row of theirs
                return schema, b"\xff\xff\xff\x00" + self.damaged(packets_of(block)[0])
            case 2 | 3 | 4 | 5 | 6:  # damage that the packets' borders outlive
                packets = packets_of(block)
                at = self.chance.randrange(len(packets))
                packets[at] = self.damaged(packets[at])
                return schema, framed(packets)
            case _:
                return schema, self.damaged(block)

    def damaged(self, data: bytes) -> bytes:
        """A few bytes changed, put in or left out."""
        chance, changed = self.chance, bytearray(data)
        for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
            at = chance.randrange(max(len(changed), 1))
            match chance.randrange(9):
                case 0:
                    del changed[at:]
                case 1:
                    del changed[at : at + chance.randrange(1, 9)]
                case 2:
                    changed[at:at] = chance.randbytes(chance.randrange(1, 9))
                case 3:
                    changed += chance.randbytes(chance.randrange(1, 40))
                case 4 | 5 | 6 | 7:
                    changed[at : at + 1] = bytes([chance.choice(TELLING)])
                case _:
                    changed[at : at + 1] = chance.randbytes(1)
        return bytes(changed)


def main(path: str, corpus: str, seed: str, count: str) -> int:
    kernel = module_at("loader.load.copyrows", path).KernelReader
    fuzzer = Fuzzer(pickle.loads(Path(corpus).read_bytes()), int(seed))
    ended: Counter[str] = Counter()
    for number in range(int(count)):
        schema, block = fuzzer.draw()
        expected = outcome(PythonReader, schema, [block])
        if outcome(kernel, schema, [block]) != expected:
            print(f"number {number} of seed {seed} ends otherwise: {block.hex()}", schema)
            return 1
        ended[str(expected[0]) if len(expected) == 2 else "converted"] += 1
    print(dict(ended))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

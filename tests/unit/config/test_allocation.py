"""What is freed is used again: the kernel need not hand out the same pages for each batch."""

from __future__ import annotations

import subprocess
import sys

BATCHES = """
import resource, sys
if sys.argv[1] == "kept":
    from config.allocation import keep_freed_memory
    keep_freed_memory()

def batches(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        [b"x" * (2 << 20) for _ in range(6)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

batches(2)
print(batches(10))
"""
PAGES_OF_A_BATCH = 6 * (2 << 20) // 4096


def faults(how: str) -> int:
    made = subprocess.run(
        [sys.executable, "-c", BATCHES, how], capture_output=True, check=True, text=True
    )
    return int(made.stdout)


def test_ten_batches_share_their_pages() -> None:
    assert faults("kept") < PAGES_OF_A_BATCH // 2


def test_by_default_each_batch_has_pages_of_its_own() -> None:
    """Else the module could go."""
    assert faults("as it is") > 5 * PAGES_OF_A_BATCH

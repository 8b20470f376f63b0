"""Memory that a daemon has freed stays its own for the next batch.

Left: a program that handles batches of some megabytes, one like the other, for months. Right: the
same program with the C library told to keep what it freed, up to a bound. By default glibc gives
the end of the heap back as soon as a few megabytes of it are free; the kernel then clears the same
pages anew for each batch, which cost the replicator as much as all else that it does with wide
rows. Larger blocks, which one huge row or transaction needs, still go back at once.

Source: mallopt(3).
"""

from __future__ import annotations

import ctypes
from typing import Final

KEPT_BYTES: Final = 16 << 20
"""Free memory that is kept: the buffers of a batch or two."""
_LARGE_BYTES: Final = 4 << 20
"""From here on a block is given back when it is freed."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # <malloc.h>


def keep_freed_memory() -> None:
    """From now on; nothing where the C library is another one than glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)

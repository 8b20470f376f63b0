"""COPY text as COPY's binary form; see binary_copy.pyx."""

from collections.abc import Sequence

HEADER: bytes
TRAILER: bytes

class Transcoder:
    def __init__(self, types: Sequence[int]) -> None: ...
    def transcode(self, lines: bytes) -> bytes | None: ...

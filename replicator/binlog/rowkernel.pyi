"""The compiled row encoder; see rowkernel.pyx."""

from collections.abc import Callable

class RowKernel:
    def __init__(
        self,
        table: str,
        plan: list[tuple[str, int, int, int, int, int, Callable[[bytes], bytes]]],
        hidden_hashes: int,
    ) -> None: ...
    def encode(self, block: bytes, head: bytes) -> tuple[bytes, int, int]: ...

def in_base64(data: bytes, start: int, end: int, head: bytes, tail: bytes) -> bytes: ...

from collections.abc import Callable

from replicator.plain import Way

class Run:
    end: int
    transactions: int
    size: int
    rows: list[bytes]
    ways: set[Way]
    flags: int
    second: int
    gtid: bytes
    commit: bytes

def gather(
    events: list[bytes],
    at: int,
    find_way: Callable[[bytes], Way | None],
    flags: int,
    second: int,
    room: int,
) -> Run: ...
def merged(events: list[bytes], limit: int) -> list[bytes]: ...

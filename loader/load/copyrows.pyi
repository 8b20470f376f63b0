"""The compiled row reader; see copyrows.pyx."""

from loader.values import ValueFault
from replicator.binlog.schema import TableSchema

class KernelReader:
    table: str
    rows: int
    def __init__(self, table_schema: TableSchema, ending: bytes) -> None: ...
    def convert(self, block: bytes) -> bytes: ...
    def take_faults(self) -> list[tuple[str, ValueFault]]: ...

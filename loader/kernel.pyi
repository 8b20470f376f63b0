"""The compiled row decoder; see kernel.pyx."""

from loader.rows import RowChange, TablePlan

class KernelDecoder:
    def decode(self, event: bytes, plan: TablePlan) -> list[RowChange]: ...

"""Copy rows into a table around those that PostgreSQL refuses.

Left: lines of COPY text, block by block. Right: all lines in the table but the refused ones,
which are entered in the quarantine: for a helper table in `etl_quarantine_copy`, whence the
merge takes them. Each block is copied under a savepoint, and what is refused of it is found by
halves. The rows are the reader's, so keys are spelled as the stream spells them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import structlog
from psycopg import sql

from config.connections import PostgresConnection
from loader.copying import copy_around
from loader.load.tablereader import Fault, RowReader, unheld_rows
from loader.masking import kept
from loader.quarantine import entries
from loader.quarantine.entries import Refused
from loader.quarantine.refusals import Reason
from loader.quarantine.unheld import selected_rows
from loader.schema import RawTable
from loader.tracking import Offset
from loader.values import NULL
from replicator.binlog.schema import TableSchema

log = structlog.get_logger()


class UnheldNoting:
    """A reader that also keeps the rows whose key PostgreSQL cannot hold: see `quarantine.unheld`.

    The reader itself leaves nothing of such a row but its faults, under no name.
    """

    def __init__(self, reader: RowReader, table_schema: TableSchema, source_ts: bytes) -> None:
        self.unheld: list[Refused] = []
        self._reader = reader
        self._schema = table_schema
        self._source_ts = source_ts
        self._faults: list[Fault] = []

    @property
    def rows(self) -> int:
        """See `RowReader`."""
        return self._reader.rows

    def convert(self, block: bytes) -> bytes:
        """See `RowReader`."""
        lines = self._reader.convert(block)
        faults = self._reader.take_faults()
        if any(not name for name, _ in faults):
            rows = unheld_rows(self._schema, block)
            self.unheld += selected_rows(self._schema, rows, self._source_ts)
        self._faults += faults
        return lines

    def take_faults(self) -> list[Fault]:
        """See `RowReader`."""
        faults, self._faults = self._faults, []
        return faults


class CarefulCopy:
    """The refused rows of one table's copy; `offset` says what the copy shows."""

    def __init__(
        self,
        connection: PostgresConnection,
        table_schema: TableSchema,
        shape: RawTable,
        offset: Offset,
        *,
        into: str,
    ) -> None:
        self.reasons: Counter[str] = Counter()
        self._connection = connection
        self._schema = table_schema
        self._shape = shape
        self._offset = offset
        self._into = into
        self._stamp = offset.source_ts.encode() if offset.source_ts else NULL
        self._keyless: Counter[bytes] = Counter()
        self._why: dict[bytes, Reason] = {}

    def put(self, copy: sql.Composed, lines: bytes, ending: bytes) -> None:
        """COPY whole lines, each of which closes with `ending`."""
        around = copy_around(self._connection, copy, lines)
        found = [(line.removesuffix(ending), why) for line, why in around]
        self.reasons.update(why.text for _, why in found)
        if self._schema.primary_key:
            self._enter([self._named(row, why) for row, why in found])
        else:
            self._keyless.update(row for row, _ in found)
            self._why.update(found)

    def _named(self, row: bytes, why: Reason) -> Refused:
        fields = row.split(b"\t")
        key = b"\t".join(fields[index] for index in kept(self._schema).primary_key)
        return Refused(key, row, self._stamp, why)

    def _enter(self, found: Sequence[Refused]) -> None:
        if found:
            entries.add(
                self._connection,
                self._schema.name,
                self._shape,
                self._schema.hash,
                found,
                self._offset,
                into=self._into,
            )

    def enter_unheld(self, found: Sequence[Refused]) -> None:
        """Enter rows whose key cannot be held; a copy without refused rows may have such."""
        self._enter(found)
        self._tell(Counter(one.reason.text for one in found))

    def end(self) -> int:
        """The copy is whole; the rows that were refused."""
        self._enter(
            [
                Refused(None, row, self._stamp, self._why[row], copies=copies)
                for row, copies in self._keyless.items()
            ]
        )
        self._tell(self.reasons)
        return self.reasons.total()

    def _tell(self, reasons: Counter[str]) -> None:
        if reasons:
            log.warning(
                "rows_quarantined",
                table=self._schema.name,
                rows=reasons.total(),
                reasons=dict(reasons),
                position=str(self._offset.replica),
                remedy=f"replicator quarantine list {self._schema.name}",
            )

"""Source against replica, by checksums that both servers compute with the same SQL.

Left: tables whose schemas are equal on both. Right: suspects, the keys at which
rows differed at one look, and the means to look at them again. Every look reads
the source, waits until the replica shows the source's position of that moment,
and only then reads the replica.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pymysql

from config.connections import connect_mysql, connect_source
from config.connections import quote_mysql_identifier as quote
from config.errors import Halt, translated
from config.settings import MySQLServer, Settings
from replicator.binlog.schema import TableSchema
from replicator.cli import checksum, keys
from replicator.cli.barrier import Barrier
from replicator.cli.keys import Literals
from replicator.cli.settling import Sides
from replicator.tracking import execute, fetch

BATCH_UNITS = 40
BATCH_CHUNKS = 4
"""Rows of so many chunks are asked for at once, in at most so many parts."""
CHANGED_UNDER_US = frozenset({1054, 1146, 1412})
WHOLE: Literals = ()
"""Stands for the key of a table that is compared as a whole."""

Suspect = tuple[str, Literals]
"""A table and a key."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A range of one table's keys, both ends open where None."""

    table: str
    schema: TableSchema
    after: Literals | None = None
    upto: Literals | None = None
    rows: int = 0
    """About how many."""

    @property
    def where(self) -> str:
        """The range as a WHERE clause."""
        return keys.between(keys.names(self.schema), self.after, self.upto)


@dataclass(frozen=True, slots=True)
class Compared:
    """A chunk at one look: its rows on the source, and whether the replica's sums are equal."""

    chunk: Chunk
    rows: int
    equal: bool


class TableChangedMeanwhile(Exception):
    """The tables' definitions moved while they were read."""

    def __init__(self, tables: Iterable[str]) -> None:
        super().__init__("definition changed")
        self.tables = frozenset(tables)


class SourceComparison:
    """Two connections that give bytes, and the barrier between them."""

    def __init__(self, settings: Settings, barrier: Barrier, chunk_rows: int) -> None:
        self._servers: tuple[MySQLServer, MySQLServer] = (settings.source, settings.replication)
        bytes_only: dict[str, Any] = {"use_unicode": False, "conv": {}}
        self._source = connect_source(settings, **bytes_only)
        self._replica = connect_mysql(
            settings.replication, database=settings.replication.db, **bytes_only
        )
        for server, connection in zip(self._servers, (self._source, self._replica), strict=True):
            with translated(server.label):
                for statement in checksum.SESSION:
                    execute(connection, statement)
        self._barrier = barrier
        self._chunk_rows = chunk_rows

    def close(self) -> None:
        """Close both connections."""
        self._source.close()
        self._replica.close()

    # --- first look ----------------------------------------------------------------------

    def chunks(self, schema: TableSchema, about: int) -> Iterator[Chunk]:
        """The table in ranges of its key; `about` is the server's estimate of its rows."""
        table = schema.name
        if about <= self._chunk_rows or not keys.chunkable(schema):
            yield Chunk(table, schema, rows=about)
            return
        after: Literals | None = None
        while True:
            upto = self._boundary(schema, after)
            yield Chunk(table, schema, after, upto, self._chunk_rows)
            if upto is None:
                return
            after = upto

    def _boundary(self, schema: TableSchema, after: Literals | None) -> Literals | None:
        """The key `chunk_rows` rows behind `after`; None where fewer follow."""
        names = keys.names(schema)
        listed = ", ".join(names)
        rows = self._ask(
            self._source,
            f"SELECT {listed} FROM {quote(schema.name)}{keys.between(names, after, None)}"
            f" ORDER BY {listed} LIMIT {self._chunk_rows - 1}, 1",
            [schema.name],
        )
        return keys.literals(schema, rows[0]) if rows else None

    def batches(self, chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
        """Chunks in groups that are asked for together."""
        batch: list[Chunk] = []
        rows = 0
        for chunk in chunks:
            batch.append(chunk)
            rows += chunk.rows
            if len(batch) >= BATCH_UNITS or rows >= BATCH_CHUNKS * self._chunk_rows:
                yield batch
                batch, rows = [], 0
        if batch:
            yield batch

    def compare(self, batch: Sequence[Chunk]) -> list[Compared]:
        """Sum up every chunk on both sides."""
        sql = " UNION ALL ".join(
            checksum.summary(number, chunk.table, chunk.schema, chunk.where)
            for number, chunk in enumerate(batch)
        )
        tables = [chunk.table for chunk in batch]
        left = self._sums(self._source, sql, tables)
        self._barrier.replica_shows_source()
        right = self._sums(self._replica, sql, tables)
        return [
            Compared(chunk, int(left[number][0]), left[number] == right[number])
            for number, chunk in enumerate(batch)
        ]

    def _sums(self, connection: Any, sql: str, tables: list[str]) -> dict[int, tuple[bytes, ...]]:
        sums = {int(row[0]): tuple(row[1:]) for row in self._ask(connection, sql, tables)}
        for number, (rows, digested, *_) in sums.items():
            if rows != digested:
                raise Halt(
                    f"rows of {tables[number]} are too large for the server to sum up",
                    "Raise max_allowed_packet on source and replica.",
                )
        return sums

    # --- closer looks --------------------------------------------------------------------

    def drill(self, chunk: Chunk) -> dict[Suspect, Sides]:
        """Single keys that differ within a chunk."""
        if not keys.chunkable(chunk.schema):
            return self._whole(chunk.schema)
        return self._differing(chunk.schema, chunk.where)

    def look(self, schema: TableSchema, wanted: Sequence[Literals]) -> dict[Suspect, Sides]:
        """The given keys of a table again; those that are equal are left out."""
        if not keys.chunkable(schema):
            return self._whole(schema)
        return self._differing(schema, keys.among(keys.names(schema), wanted))

    def _differing(self, schema: TableSchema, where: str) -> dict[Suspect, Sides]:
        sql = checksum.digests(schema.name, schema, keys.names(schema), where)
        left = self._digests(self._source, schema, sql)
        self._barrier.replica_shows_source()
        right = self._digests(self._replica, schema, sql)
        return {
            (schema.name, key): (left.get(key), right.get(key))
            for key in left.keys() | right.keys()
            if left.get(key) != right.get(key)
        }

    def _digests(self, connection: Any, schema: TableSchema, sql: str) -> dict[Literals, str]:
        return {
            keys.literals(schema, row[:-1]): row[-1].decode("ascii")
            for row in self._ask(connection, sql, [schema.name])
        }

    def _whole(self, schema: TableSchema) -> dict[Suspect, Sides]:
        sql = checksum.summary(0, schema.name, schema, "")
        left = self._sums(self._source, sql, [schema.name])[0]
        self._barrier.replica_shows_source()
        right = self._sums(self._replica, sql, [schema.name])[0]
        sides = (str(left), str(right))
        return {} if left == right else {(schema.name, WHOLE): sides}

    def _ask(self, connection: Any, sql: str, tables: Iterable[str]) -> list[tuple[Any, ...]]:
        server = self._servers[0 if connection is self._source else 1]
        with translated(server.label):
            try:
                return fetch(connection, sql)
            except pymysql.MySQLError as error:
                if error.args and error.args[0] in CHANGED_UNDER_US:
                    raise TableChangedMeanwhile(tables) from None
                raise

"""Move many rows between tables of PostgreSQL where some of them are refused.

Left: a SELECT over helper tables, and the statement that should have moved all of it at once.
Right: the same statement done for all rows but the refused ones, and these as `Refused`, read
back. The rows are numbered in a temporary table in the order of their keys; which numbers are
refused is found by halves, under savepoints (`quarantine.refusals`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from psycopg import sql

from config.connections import PostgresConnection
from loader import schema
from loader.load.spelling import SESSION, spelled
from loader.naming import OURS
from loader.quarantine.entries import DELETE, UPSERT, Refused
from loader.quarantine.refusals import Reason, attempt, refused
from loader.rawsql import LOADED_AT, SOURCE_TS, same_key
from loader.schema import RawTable, quoted
from loader.types import raw_name
from loader.values import NULL
from replicator.binlog.schema import TableSchema

_NUMBERED = f"_numbered{OURS}"
_N = "_number_of_the_row"


class NumberedRows:
    """Rows to be moved to, or keys to be deleted from, a table; `close` when done."""

    def __init__(
        self,
        connection: PostgresConnection,
        table: sql.Identifier,
        shape: RawTable,
        table_schema: TableSchema,
        select: sql.Composed,
    ) -> None:
        """`select` gives all that goes with a table's rows (`RawTable.carried`)."""
        self._connection = connection
        self._table = table
        self._shape = shape
        self._columns = {raw_name(column.name): column for column in table_schema.columns}
        self._rows = sql.Identifier("pg_temp", _NUMBERED)
        for setting in SESSION:
            connection.execute(setting)
        connection.execute(
            sql.SQL(
                "CREATE TEMPORARY TABLE {} AS SELECT row_number() OVER (ORDER BY {}) AS {}, s.*"
                " FROM ({}) AS s"
            ).format(sql.Identifier(_NUMBERED), quoted(shape.key), sql.Identifier(_N), select)
        )
        connection.execute(
            sql.SQL("CREATE UNIQUE INDEX ON {} ({})").format(self._rows, sql.Identifier(_N))
        )
        row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(self._rows)).fetchone()
        self.count = int(row[0]) if row else 0

    def close(self) -> None:
        """Drop the temporary table."""
        self._connection.execute(sql.SQL("DROP TABLE {}").format(self._rows))

    def put(self, conflict: sql.Composable, *, old: bool) -> list[Refused]:
        """Insert all that can be; `old`: the table may hold older versions of the rows.

        What was refused for another row's sake is tried again at the end. A deleted row that
        is refused is only not kept.
        """
        names = self._shape.carried
        insert = sql.SQL("INSERT INTO {} ({}, {}) SELECT {}, statement_timestamp() FROM {}").format(
            self._table, quoted(names), sql.Identifier(LOADED_AT), quoted(names), self._rows
        )

        def write(numbers: Sequence[int]) -> Reason | None:
            return self._try(insert + _where(numbers, "") + conflict)

        found = {number: (why, False) for number, why in refused(range(1, self.count + 1), write)}
        if old:
            found = {n: (why, self._stays(n)) for n, (why, _) in found.items()}
        again = [number for number, (why, _) in found.items() if why.liftable]
        still = dict(refused(again, write))
        for number in again:
            if number not in still:
                del found[number]
        found = {number: held for number, held in found.items() if self._is_live(number)}
        return [replace(one, operation=UPSERT) for one in self._read(found)]

    def _is_live(self, number: int) -> bool:
        if not self._shape.soft:
            return True
        which = _where([number], "") + schema.live(self._shape, _NUMBERED)
        row = self._connection.execute(sql.SQL("SELECT FROM {}").format(self._rows) + which)
        return row.fetchone() is not None

    def remove(self, at: str | None) -> list[Refused]:
        """Delete all from the table that can be, or mark it as deleted at `at`."""
        marking = sql.SQL("{} FROM {} AS s").format(
            schema.marking(self._table, "r", schema.moment(at)), self._rows
        )

        def write(numbers: Sequence[int]) -> Reason | None:
            if not self._shape.soft:
                return self._try(self._deletion(numbers))
            same = sql.SQL(" AND ") + same_key(self._shape.key, "r", "s")
            return self._try(marking + _where(numbers, "s") + same)

        found = {number: (why, True) for number, why in refused(range(1, self.count + 1), write)}
        return [replace(one, row=None, operation=DELETE) for one in self._read(found)]

    def _stays(self, number: int) -> bool:
        """Delete an older version; does something refuse that?"""
        return self._try(self._deletion([number])) is not None

    def _deletion(self, numbers: Sequence[int]) -> sql.Composed:
        statement = sql.SQL("DELETE FROM {} AS r USING {} AS s").format(self._table, self._rows)
        return (
            statement
            + _where(numbers, "s")
            + sql.SQL(" AND ")
            + same_key(self._shape.key, "r", "s")
            + schema.live(self._shape, "r")
        )

    def _try(self, statement: sql.Composed) -> Reason | None:
        def run() -> None:
            self._connection.execute(statement)

        return attempt(self._connection, run)

    def _read(self, found: dict[int, tuple[Reason, bool]]) -> Iterator[Refused]:
        """The refused rows, spelled as the stream spells them."""
        texts = sql.SQL(", ").join(
            sql.SQL("{}::text").format(sql.Identifier(name)) for name in self._shape.names
        )
        for number, (why, stale) in found.items():
            row = self._connection.execute(
                sql.SQL("SELECT {}, {}::text FROM {}").format(
                    texts, sql.Identifier(SOURCE_TS), self._rows
                )
                + _where([number], "")
            ).fetchone()
            assert row is not None
            fields = {
                name: spelled(self._columns[name], text)
                for name, text in zip(self._shape.names, row[:-1], strict=True)
            }
            key = b"\t".join(fields[name] for name in self._shape.key)
            stamp = row[-1].encode() if row[-1] else NULL
            yield Refused(key, b"\t".join(fields.values()), stamp, why, stale=stale)


def _where(numbers: Sequence[int], alias: str) -> sql.Composed:
    """The rows of these numbers; a range is told by its ends."""
    name = sql.Identifier(alias, _N) if alias else sql.Identifier(_N)
    if isinstance(numbers, range):
        low, high = sql.Literal(numbers[0]), sql.Literal(numbers[-1])
        return sql.SQL(" WHERE {} BETWEEN {} AND {}").format(name, low, high)
    return sql.SQL(" WHERE {} = ANY({})").format(name, sql.Literal(list(numbers)))

"""Both legs in this process, between three real databases; the test steps them itself.

`Legs` carries what the source committed into `raw` (`catch_up`); `Table` is a table of the
catalogue's kinds on the source, which knows what `raw` must show: what the source's SELECT
prints, but for values that PostgreSQL cannot hold.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import psycopg
from psycopg import sql
from pydantic import SecretStr

from config.connections import quote_mysql_identifier as quote
from config.settings import PostgresServer, Settings
from config.tables import TableRules
from loader.daemon import Loader
from loader.types import raw_name
from replicator.sandbox.databases import MySQLDatabase, PostgresDatabase
from tests.end_to_end.values.catalogue import Family, Kind, Unholdable
from tests.integration.replicator.leg import Leg

DEADLINE = 90.0
KEY = "id"
Cell = tuple[str, str]
"""A row's id, and a column."""


class Legs:
    """Leg 1 and leg 2; `close` when done."""

    def __init__(
        self, source: MySQLDatabase, replica: MySQLDatabase, raw: PostgresDatabase
    ) -> None:
        self.source, self.replica, self.raw = source, replica, raw
        self.first = Leg(source, replica, TableRules())
        self._settings = _settings(self.first.settings, raw)
        self._second = Loader(self._settings)

    def close(self) -> None:
        self.first.close()
        self._second.close()

    def catch_up(self) -> None:
        """Step both until `raw` shows what the source shows now, nothing being copied or loaded."""
        self.first.catch_up()
        goal = self.first.position()
        assert goal is not None
        end = time.monotonic() + DEADLINE
        while not self._arrived((goal.file, goal.offset)):
            assert time.monotonic() < end, f"leg 2 waits in vain: {self._unsettled()}"
            self._second.step()

    def resync(self, tables: Iterable[str]) -> None:
        """Copy tables anew in leg 1 and load them anew in leg 2."""
        self.first.resync(*tables)
        self.first.catch_up()
        self.first.source.execute("FLUSH BINARY LOGS")  # so that there is something to reach
        self.catch_up()

    def _arrived(self, goal: tuple[str, int]) -> bool:
        try:
            found = self.raw.query(
                "SELECT source_binlog_file, source_binlog_position FROM raw.etl_binlog_offset"
            )
        except psycopg.errors.UndefinedTable:
            return False
        return bool(found) and found[0] >= goal and not self._unsettled()

    def _unsettled(self) -> list[str]:
        """Tables that are not streaming in `raw`, and requests that leg 2 has not served."""
        states = dict(
            self.raw.query("SELECT table_name, transformation_status FROM raw.etl_transform_status")
        )
        known = [name for name, state in self.first.states().items() if state == "streaming"]
        waiting = [f"request for {name}" for name, _state in self.first.requests("loading")]
        return [name for name in known if states.get(name) != "streaming"] + waiting


def _settings(leg: Settings, raw: PostgresDatabase) -> Settings:
    analytics = PostgresServer(
        host="127.0.0.1",
        port=raw.server.port,
        db=raw.name,
        user=raw.user,
        password=SecretStr(raw.password),
    )
    tuning = leg.loader.model_copy(update={"heartbeat_seconds": 10.0, "poll_seconds": 0.02})
    return leg.model_copy(update={"analytics": analytics, "loader": tuning})


class Table:
    """A table on the source: a column for each kind, a row for each of their literals."""

    def __init__(self, legs: Legs, name: str, family: Family, *, engine: str | None = None) -> None:
        self.name = name
        self._legs = legs
        self._family = family
        self._unholdable = _cells(family)
        columns = [f"{KEY} int NOT NULL PRIMARY KEY", "touched int NOT NULL DEFAULT 0"]
        columns += [f"{quote(name)} {kind.definition}" for name, kind in family.items()]
        storage = f" ENGINE={engine}" if engine else ""
        self._change(f"CREATE TABLE {quote(name)} ({', '.join(columns)}){storage}")

    def fill(self) -> None:
        """A row for each literal: the columns that have fewer are NULL in the last ones."""
        kinds = {name: _literals(kind) for name, kind in self._family.items()}
        count = max(map(len, kinds.values()))
        inserts = []
        for row in range(count):
            given = {name: some[row] for name, some in kinds.items() if row < len(some)}
            names = ", ".join(map(quote, [KEY, *given]))
            values = ", ".join([str(row), *given.values()])
            inserts.append(f"INSERT INTO {quote(self.name)} ({names}) VALUES ({values})")
        inserts.append(f"INSERT INTO {quote(self.name)} ({KEY}) VALUES ({count})")
        self._change(*inserts)

    def touch(self) -> None:
        """Change every row, but none of the kinds' values."""
        self._change(f"UPDATE {quote(self.name)} SET touched = touched + 1")

    def move(self, by: int) -> None:
        """Change every row's key."""
        order = "DESC" if by > 0 else "ASC"
        self._change(f"UPDATE {quote(self.name)} SET {KEY} = {KEY} + {by} ORDER BY {KEY} {order}")
        self._unholdable = {
            (str(int(row) + by), name): bad for (row, name), bad in self._unholdable.items()
        }

    def thin_out(self) -> None:
        """Delete every other row."""
        self._change(f"DELETE FROM {quote(self.name)} WHERE {KEY} % 2 = 1")
        self._unholdable = {
            (row, name): bad for (row, name), bad in self._unholdable.items() if not int(row) % 2
        }

    def _change(self, *statements: str) -> None:
        with closing(self._legs.source.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'")
            for statement in statements:
                cursor.execute(statement)

    def widen(self, family: Family) -> None:
        """The table has got these columns; they hold no more than they did."""
        self._family = family

    # --- the oracle ----------------------------------------------------------------------

    def assert_exact(self) -> None:
        """Row by row and column by column what the source's SELECT prints, and the exceptions."""
        source, raw = self._source_rows(), self.raw_rows()
        for (row, name), bad in self._unholdable.items():
            assert source[row][name] is not None
            source[row][name] = None if bad.shown is None else self._same(name, bad.shown)
        assert raw.keys() == source.keys(), self.name
        wrong = [
            (row, name, self._definition(name), source[row][name], raw[row][name])
            for row in source
            for name in source[row]
            if source[row][name] != raw[row][name]
        ]
        assert not wrong, (self.name, len(wrong), wrong[:10])
        self.assert_exceptions()

    def assert_exceptions(self) -> None:
        """Each value that PostgreSQL cannot hold is there with the bytes that the source has."""
        found = self._legs.raw.query(
            "SELECT key, column_name, reason, upper(encode(original, 'hex'))"
            " FROM raw.etl_value_exceptions WHERE table_name = %s",
            (self.name,),
        )
        expected = [
            (row, name, bad.reason, self._original(row, name))
            for (row, name), bad in self._unholdable.items()
        ]
        one, other = Counter(found), Counter(expected)
        assert one == other, (self.name, "too many", one - other, "missing", other - one)

    def _source_rows(self) -> dict[str, dict[str, object]]:
        printed = [
            f"{kind.printing.mysql.format(quote(name))}" for name, kind in self._family.items()
        ]
        rows = self._ask(f"SELECT {', '.join([KEY, 'touched', *printed])} FROM {quote(self.name)}")
        return self._rows(rows)

    def raw_rows(self) -> dict[str, dict[str, object]]:
        with self._legs.raw.connect() as connection:
            connection.execute("SET timezone = 'UTC'; SET extra_float_digits = 3")
            printed = [
                kind.printing.postgres.format(sql.Identifier(raw_name(name)).as_string(connection))
                for name, kind in self._family.items()
            ]
            table = sql.Identifier("raw", raw_name(self.name)).as_string(connection)
            query = f"SELECT {', '.join([KEY, 'touched', *printed])} FROM {table}"
            return self._rows(connection.execute(query.encode()).fetchall())

    def _rows(self, rows: Iterable[tuple[Any, ...]]) -> dict[str, dict[str, object]]:
        return {
            str(row[0]): {
                "touched": row[1],
                **{
                    name: None if value is None else self._same(name, value)
                    for name, value in zip(self._family, row[2:], strict=True)
                },
            }
            for row in rows
        }

    def _same(self, name: str, value: object) -> object:
        return self._family[name].printing.same(value)

    def _definition(self, name: str) -> str:
        return self._family[name].definition if name in self._family else "int"

    def _original(self, row: str, name: str) -> str:
        printed = self._family[name].printing.original.format(quote(name))
        found = self._ask(f"SELECT {printed} FROM {quote(self.name)} WHERE {KEY} = {row}")
        return str(found[0][0])

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        with closing(self._legs.source.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00', sql_mode = ''")
            cursor.execute(query)
            return list(cursor.fetchall())

    def loaded_at(self) -> list[tuple[Any, ...]]:
        """When each row of `raw` was written."""
        table = raw_name(self.name).replace('"', '""')
        return self._legs.raw.query(f'SELECT {KEY}, _loaded_at FROM raw."{table}" ORDER BY {KEY}')


def _literals(kind: Kind) -> list[str]:
    return [*kind.literals, *(bad.literal for bad in kind.unholdable)]


def _cells(family: Family) -> dict[Cell, Unholdable]:
    return {
        (str(len(kind.literals) + number), name): bad
        for name, kind in family.items()
        for number, bad in enumerate(kind.unholdable)
    }

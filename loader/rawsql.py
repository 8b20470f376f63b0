"""The SQL that changes a raw table's rows; text only, nothing is sent.

Left: a table's name and shape, and where its changes go. Right: statements, in the
form for prepared ones (parameters are `%s`) and for staged rows. All of a row's
columns are named, so that the order of the columns in `raw` does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from config.connections import PostgresConnection
from loader.schema import STAGE, TOUCHED, RawTable, helper_name, quoted
from loader.types import raw_name

LOADED_AT, SOURCE_TS = "_loaded_at", "_source_ts"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a table's changes go: into its raw table, into its touched table, or both."""

    table: str
    into_raw: bool
    into_touched: bool

    @property
    def raw(self) -> str:
        """The raw table's name."""
        return raw_name(self.table)

    @property
    def touched(self) -> str:
        """The touched table's name."""
        return helper_name(TOUCHED, self.table)


@dataclass(frozen=True, slots=True)
class Stage:
    """A temporary table that rows or keys are copied into: its name, columns, and model."""

    name: str
    columns: tuple[str, ...]
    like: str


class Statements:
    """The SQL of one table under one plan; composed once, prepared by the server."""

    def __init__(self, connection: PostgresConnection, target: Target, shape: RawTable) -> None:
        self.shape = shape
        self._render = connection
        self._table = sql.Identifier(target.raw)
        self._touched = sql.Identifier(target.touched)
        # In statements with parameters psycopg reads every per cent sign as a placeholder's.
        self._safe_table = _safe(target.raw)
        self._safe_touched = _safe(target.touched)
        self._row = (*shape.names, SOURCE_TS)
        self._state = ("_key", "_deleted", *self._row)
        self.rows = Stage(helper_name(STAGE, target.table), self._row, target.raw)
        self.keys = Stage(helper_name(f"{STAGE}keys_", target.table), shape.key, target.raw)
        self.states = Stage(
            helper_name(f"{STAGE}touched_", target.table), self._state, target.touched
        )
        self.upsert = self._text(self._upsert())
        self.delete = self._text(self._delete())
        self.touch = self._text(self._touch())
        self.touch_name = self._text(
            sql.SQL(
                "INSERT INTO {} (_key, _deleted) VALUES (%s, true) ON CONFLICT DO NOTHING"
            ).format(self._safe_touched)
        )
        self.copy = self._text(_copy(self._table, self._row))
        self.staged_upsert = self._text(self._staged_upsert())
        self.staged_delete = self._text(self._staged_delete())
        self.staged_touch = self._text(self._staged_touch())

    def _text(self, statement: sql.Composed) -> bytes:
        return statement.as_bytes(self._render)

    def _upsert(self) -> sql.Composed:
        values = sql.SQL(", ").join([sql.Placeholder()] * len(self._row))
        head = sql.SQL("INSERT INTO {} ({}, {}) VALUES ({}, statement_timestamp())").format(
            self._safe_table, _percent_safe(self._row), sql.Identifier(LOADED_AT), values
        )
        return head + self._on_conflict(percent=True) if self.shape.key else head

    def _on_conflict(self, *, percent: bool = False) -> sql.Composed:
        names = (*self._row, LOADED_AT)
        spelled = [n.replace("%", "%%") for n in names] if percent else list(names)
        key = [n.replace("%", "%%") for n in self.shape.key] if percent else self.shape.key
        return sql.SQL(" ON CONFLICT ({}) DO UPDATE SET {}").format(
            quoted(key), _excluded(map(sql.Identifier, spelled))
        )

    def _delete(self) -> sql.Composed:
        if self.shape.key:
            return sql.SQL("DELETE FROM {} WHERE {}").format(
                self._safe_table, _equal_to_parameters(self.shape.key, "=")
            )
        return sql.SQL(
            "DELETE FROM {} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {} WHERE {} LIMIT %s))"
        ).format(
            self._safe_table,
            self._safe_table,
            _equal_to_parameters(self.shape.names, "IS NOT DISTINCT FROM"),
        )

    def _touch(self) -> sql.Composed:
        """Record a key's last state: key text, deleted or not, all columns, source time."""
        spelled = [_safe(n) for n in self._state]
        return sql.SQL(
            "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (_key) DO UPDATE SET {}"
        ).format(
            self._safe_touched,
            sql.SQL(", ").join(spelled),
            sql.SQL(", ").join([sql.Placeholder()] * len(spelled)),
            _excluded(spelled[1:]),
        )

    def _staged_upsert(self) -> sql.Composed:
        """Everything staged into the raw table."""
        head = sql.SQL("INSERT INTO {} ({}, {}) SELECT {}, statement_timestamp() FROM {}").format(
            self._table,
            quoted(self._row),
            sql.Identifier(LOADED_AT),
            quoted(self._row),
            _temporary(self.rows),
        )
        return head + self._on_conflict() if self.shape.key else head

    def _staged_delete(self) -> sql.Composed:
        """The raw rows whose keys are staged out of it."""
        return sql.SQL("DELETE FROM {} AS r USING {} AS s WHERE {}").format(
            self._table, _temporary(self.keys), same_key(self.shape.key, "r", "s")
        )

    def _staged_touch(self) -> sql.Composed:
        """Everything staged into the touched table."""
        return sql.SQL(
            "INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT (_key) DO UPDATE SET {}"
        ).format(
            self._touched,
            quoted(self._state),
            quoted(self._state),
            _temporary(self.states),
            _excluded(map(sql.Identifier, self._state[1:])),
        )


def create_stage(stage: Stage) -> sql.Composed:
    """The stage for the rest of the session, empty after each commit."""
    return sql.SQL(
        "CREATE TEMPORARY TABLE {} ON COMMIT DELETE ROWS AS SELECT {} FROM {} WITH NO DATA"
    ).format(sql.Identifier(stage.name), quoted(stage.columns), sql.Identifier(stage.like))


def drop_stage(stage: Stage) -> sql.Composed:
    """Without the stage."""
    return sql.SQL("DROP TABLE {}").format(_temporary(stage))


def truncate_stage(stage: Stage) -> sql.Composed:
    """Empty before the commit."""
    return sql.SQL("TRUNCATE {}").format(_temporary(stage))


def copy_stage(stage: Stage) -> sql.Composed:
    """COPY into the stage."""
    return _copy(_temporary(stage), stage.columns)


def _temporary(stage: Stage) -> sql.Identifier:
    return sql.Identifier("pg_temp", stage.name)


def _copy(table: sql.Identifier, columns: Iterable[str]) -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN").format(table, quoted(columns))


def _excluded(names: Iterable[sql.Identifier]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{} = EXCLUDED.{}").format(n, n) for n in names)


def _safe(name: str) -> sql.Identifier:
    """An identifier for a statement with parameters."""
    return sql.Identifier(name.replace("%", "%%"))


def _percent_safe(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(_safe, names))


def _equal_to_parameters(names: Iterable[str], operator: str) -> sql.Composed:
    word = sql.SQL(operator)
    return sql.SQL(" AND ").join(
        sql.SQL("{} {} {}").format(_safe(n), word, sql.Placeholder()) for n in names
    )


def same_key(key: Iterable[str], left: str, right: str) -> sql.Composed:
    """`left.k = right.k` for every key column."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, n), sql.Identifier(right, n)) for n in key
    )


def create_touched(connection: PostgresConnection, target: Target, shape: RawTable) -> None:
    """Create the table of touched keys where it is missing."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(c.name), sql.SQL(c.type)) for c in shape.columns
    )
    connection.execute("SET LOCAL client_min_messages = warning")
    connection.execute(
        sql.SQL(
            "CREATE UNLOGGED TABLE IF NOT EXISTS {} (_key text PRIMARY KEY,"
            " _deleted boolean NOT NULL, {}, {} timestamptz)"
        ).format(sql.Identifier(target.touched), columns, sql.Identifier(SOURCE_TS))
    )

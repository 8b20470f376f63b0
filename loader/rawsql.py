"""The SQL that changes a raw table's rows; text only, nothing is sent.

Left: a table's name and shape, and where its changes go. Right: statements, in the
form for prepared ones (parameters are `%s`) and for staged rows. All of a row's
columns are named, so that the order of the columns in `raw` does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from psycopg import sql

from config.connections import PostgresConnection
from loader.copying import Copy, copies
from loader.keeping import DELETED_AT
from loader.naming import STAGE, TOUCHED, helper_name
from loader.schema import (
    LOADED_AT,
    MARK,
    SOURCE_TS,
    RawTable,
    column_definition,
    quoted,
)
from loader.types import raw_name

__all__ = [
    "LOADED_AT", "SOURCE_TS", "Stage", "Statements", "Target", "create_touched", "same_key",
    "spelled_safely",
]  # fmt: skip


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
    """The SQL of one table under one plan; composed once, when it is first needed.

    Of a wide table each is long, and few tables ever need more than two or three.
    """

    def __init__(self, connection: PostgresConnection, target: Target, shape: RawTable) -> None:
        self.shape = shape
        self._render = connection
        self._table = sql.Identifier(target.raw)
        self._touched = sql.Identifier(target.touched)
        # In statements with parameters psycopg reads every per cent sign as a placeholder's.
        self._safe_table = spelled_safely(target.raw)
        self._safe_touched = spelled_safely(target.touched)
        self._row = shape.carried
        self._state = ("_key", "_deleted", *self._row)
        self.rows = Stage(helper_name(STAGE, target.table), self._row, target.raw)
        keys = (*shape.key, DELETED_AT) if shape.soft else shape.key
        self.keys = Stage(helper_name(f"{STAGE}keys_", target.table), keys, target.raw)
        self.states = Stage(
            helper_name(f"{STAGE}touched_", target.table), self._state, target.touched
        )

    @cached_property
    def upsert(self) -> bytes:
        """Write one row, of a new key or a known one; as parameters, as the next five."""
        return self._text(self._upsert())

    @cached_property
    def delete(self) -> bytes:
        """Let a key have no row, or a marked one."""
        return self._text(self._mark() if self.shape.soft else self._delete())

    @cached_property
    def erase(self) -> bytes:
        """Let a key have no row."""
        return self._text(self._delete())

    @cached_property
    def touch(self) -> bytes:
        """Record a key's last state in the touched table."""
        return self._text(self._touch(self._touched_again(spelled_safely)))

    @cached_property
    def touch_erased(self) -> bytes:
        """Record there that a key has no row."""
        return self._text(self._touch(_excluded(map(spelled_safely, self._state[1:]))))

    @cached_property
    def touch_name(self) -> bytes:
        """Record there a key that only has a name."""
        return self._text(
            sql.SQL(
                "INSERT INTO {} (_key, _deleted) VALUES (%s, true) ON CONFLICT DO NOTHING"
            ).format(self._safe_touched)
        )

    @cached_property
    def copy(self) -> Copy:
        """COPY straight into the raw table."""
        return copies(self._render, self._table, self._row, ours=False)

    @cached_property
    def staged_upsert(self) -> bytes:
        """What `upsert` does, with all staged rows; likewise the next two."""
        return self._text(self._staged_upsert())

    @cached_property
    def staged_delete(self) -> bytes:
        """What `delete` does."""
        return self._text(self._staged_delete())

    @cached_property
    def staged_touch(self) -> bytes:
        """What `touch` does."""
        return self._text(self._staged_touch())

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
        """Take a row away; one that is kept for it is marked stays."""
        if self.shape.key:
            spare = sql.SQL(" AND {} IS NULL").format(sql.Identifier(DELETED_AT))
            return sql.SQL("DELETE FROM {} WHERE {}{}").format(
                self._safe_table,
                _equal_to_parameters(self.shape.key, "="),
                spare if self.shape.soft else sql.SQL(""),
            )
        return sql.SQL(
            "DELETE FROM {} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {} WHERE {} LIMIT %s))"
        ).format(
            self._safe_table,
            self._safe_table,
            _equal_to_parameters(self.shape.names, "IS NOT DISTINCT FROM"),
        )

    def _mark(self) -> sql.Composed:
        """Mark a row as deleted: its key, then when. What is marked stays as it was."""
        at = sql.Identifier(DELETED_AT)
        return sql.SQL(
            "UPDATE {} SET {} = %s, {} = statement_timestamp() WHERE {} IS NULL AND {}"
        ).format(
            self._safe_table,
            at,
            sql.Identifier(LOADED_AT),
            at,
            _equal_to_parameters(self.shape.key, "="),
        )

    def _touch(self, again: sql.Composed) -> sql.Composed:
        """Record a key's last state: key text, deleted or not, all columns, source time."""
        spelled = [spelled_safely(n) for n in self._state]
        return sql.SQL(
            "INSERT INTO {} AS x ({}) VALUES ({}) ON CONFLICT (_key) DO UPDATE SET {}"
        ).format(
            self._safe_touched,
            sql.SQL(", ").join(spelled),
            sql.SQL(", ").join([sql.Placeholder()] * len(spelled)),
            again,
        )

    def _touched_again(self, spell: Callable[[str], sql.Identifier]) -> sql.Composed:
        """What becomes of a key that was touched before.

        Where deleted rows are kept a deletion leaves the row that is there: see `create_touched`.
        """
        if not self.shape.soft:
            return _excluded(map(spell, self._state[1:]))
        row = sql.SQL(", ").join(
            sql.SQL("{} = CASE WHEN EXCLUDED._deleted THEN x.{} ELSE EXCLUDED.{} END").format(
                spell(n), spell(n), spell(n)
            )
            for n in (*self.shape.names, SOURCE_TS)
        )
        return sql.SQL("_deleted = x._deleted AND EXCLUDED._deleted, {}, {}").format(
            _excluded([spell(DELETED_AT)]), row
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
        """The raw rows whose keys are staged out of it, or marked."""
        if self.shape.soft:
            at = sql.Identifier(DELETED_AT)
            return sql.SQL(
                "UPDATE {} AS r SET {} = s.{}, {} = statement_timestamp() FROM {} AS s"
                " WHERE {} AND r.{} IS NULL"
            ).format(
                self._table,
                at,
                at,
                sql.Identifier(LOADED_AT),
                _temporary(self.keys),
                same_key(self.shape.key, "r", "s"),
                at,
            )
        return sql.SQL("DELETE FROM {} AS r USING {} AS s WHERE {}").format(
            self._table, _temporary(self.keys), same_key(self.shape.key, "r", "s")
        )

    def _staged_touch(self) -> sql.Composed:
        """Everything staged into the touched table."""
        return sql.SQL(
            "INSERT INTO {} AS x ({}) SELECT {} FROM {} ON CONFLICT (_key) DO UPDATE SET {}"
        ).format(
            self._touched,
            quoted(self._state),
            quoted(self._state),
            _temporary(self.states),
            self._touched_again(sql.Identifier),
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


def copy_stage(connection: PostgresConnection, stage: Stage) -> Copy:
    """COPY into the stage."""
    return copies(connection, _temporary(stage), stage.columns, ours=True)


def _temporary(stage: Stage) -> sql.Identifier:
    return sql.Identifier("pg_temp", stage.name)


def _excluded(names: Iterable[sql.Identifier]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{} = EXCLUDED.{}").format(n, n) for n in names)


def spelled_safely(name: str) -> sql.Identifier:
    """An identifier for a statement with parameters."""
    return sql.Identifier(name.replace("%", "%%"))


def _percent_safe(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(spelled_safely, names))


def _equal_to_parameters(names: Iterable[str], operator: str) -> sql.Composed:
    word = sql.SQL(operator)
    return sql.SQL(" AND ").join(
        sql.SQL("{} {} {}").format(spelled_safely(n), word, sql.Placeholder()) for n in names
    )


def same_key(key: Iterable[str], left: str, right: str) -> sql.Composed:
    """`left.k = right.k` for every key column."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, n), sql.Identifier(right, n)) for n in key
    )


def create_touched(connection: PostgresConnection, target: Target, shape: RawTable) -> None:
    """Create the table of touched keys where it is missing.

    `_deleted` says that the key's row is not to be had. In a table that keeps deleted rows it
    has a time of deletion: whatever version of the row is at hand is the last one. Where
    `_deleted` is false and there is such a time, the row is here, and deleted. Without
    a time the key is to have no row at all (the quarantine has it).
    """
    closing = [MARK] if shape.soft else []
    columns = sql.SQL(", ").join(map(column_definition, (*shape.columns, *closing)))
    connection.execute("SET LOCAL client_min_messages = warning")
    connection.execute(
        sql.SQL(
            "CREATE UNLOGGED TABLE IF NOT EXISTS {} (_key text PRIMARY KEY,"
            " _deleted boolean NOT NULL, {}, {} timestamptz)"
        ).format(sql.Identifier(target.touched), columns, sql.Identifier(SOURCE_TS))
    )

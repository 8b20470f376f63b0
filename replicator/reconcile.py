"""Bring a copied table through its window: rows that may or may not be there already.

Left: rows events from between the positions at which the table's chunks were
read. Right: the same rows in the table, whatever its chunks held: each after
image replaces what has its key, each before image removes it. Values are not
decoded: images are written, as they came, into an empty scratch table of the same
shape, and the server moves them from there by key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import pymysql

from config.connections import quote_mysql_identifier as quote
from config.errors import UnknownEvent
from replicator.batch import binlog_statement, rewritten_map
from replicator.binlog.catalog import read_catalog
from replicator.binlog.events import EventType, TableMap
from replicator.binlog.rowimage import rows_event, split_rows
from replicator.tracking import execute, execute_bytes, fetch

_DUPLICATE_KEY = 1062


def hidden_name(prefix: str, table: str) -> str:
    """A name for a table of ours that belongs to `table`; 64 characters at most."""
    if len(prefix) + len(table) <= 64:
        return prefix + table
    digest = hashlib.sha256(table.encode()).hexdigest()[:8]
    return f"{prefix}{table[: 55 - len(prefix)]}_{digest}"


def drop_scratch(admin: Any, target: str) -> None:
    """Remove what a reconciliation of `target` left behind, if anything."""
    execute(admin, f"DROP TABLE IF EXISTS {quote(_scratch_name(target))}")


def _scratch_name(target: str) -> str:
    return hidden_name("_resync_rows_", target)


class Reconciler:
    """Applies rows events to a table in its copy window; the caller holds the transaction."""

    def __init__(self, connection: Any, admin: Any, database: str) -> None:
        """`admin` writes no binlog and holds no transaction: scratch tables come and go on it."""
        self._connection = connection
        self._admin = admin
        self._database = database
        self._shapes: dict[str, _Shape] = {}

    def _shape(self, target: str) -> _Shape:
        shape = self._shapes.get(target)
        if shape is None:
            scratch = _scratch_name(target)
            drop_scratch(self._admin, target)
            execute(self._admin, f"CREATE TABLE {quote(scratch)} LIKE {quote(target)}")
            shape = _read_shape(self._admin, self._database, target, scratch)
            self._shapes[target] = shape
        return shape

    def finish_others(self, targets: Collection[str]) -> None:
        """Drop the scratch tables of all targets but these."""
        for target in set(self._shapes).difference(targets):
            self.finish(target)

    def finish(self, target: str) -> None:
        """The target's window is passed: its scratch table goes."""
        if self._shapes.pop(target, None) is not None:
            drop_scratch(self._admin, target)

    def apply(self, target: str, table_map: TableMap, event: bytes) -> bool:
        """Apply one rows event; False where the table has no key to do it by."""
        shape = self._shape(target)
        if not shape.key:
            return False
        images = split_rows(event, table_map)
        try:
            self._apply_images(shape, table_map, event, images)
        except pymysql.IntegrityError as error:
            if error.args[0] != _DUPLICATE_KEY or len(images) == 1:
                raise
            for pair in images:  # a key twice in one event: one row after the other
                self._apply_images(shape, table_map, event, [pair])
        return True

    def _apply_images(
        self,
        shape: _Shape,
        table_map: TableMap,
        event: bytes,
        images: list[tuple[bytes | None, bytes | None]],
    ) -> None:
        befores = [before for before, _ in images if before is not None]
        afters = [after for _, after in images if after is not None]
        if befores:
            self._stage(shape, table_map, event, befores)
            execute(self._connection, shape.remove)
            execute(self._connection, shape.empty)
        if afters:
            self._stage(shape, table_map, event, afters)
            execute(self._connection, shape.put)
            execute(self._connection, shape.empty)

    def _stage(self, shape: _Shape, table_map: TableMap, event: bytes, images: list[bytes]) -> None:
        if event[4] == EventType.PARTIAL_UPDATE_ROWS:
            raise UnknownEvent(
                f"table {shape.target} was changed by partial JSON updates while it was copied",
                hint="SET GLOBAL binlog_row_value_options = ''; on the source, then resync it.",
            )
        staged = rows_event(
            table_map.table_id,
            len(table_map.column_types),
            images,
            timestamp=int.from_bytes(event[:4], "little"),
            server_id=int.from_bytes(event[5:9], "little"),
            version=2 if event[4] >= EventType.WRITE_ROWS else 1,
        )
        header = rewritten_map(table_map, self._database, shape.scratch)
        execute_bytes(self._connection, binlog_statement(header + staged))


class _Shape:
    """The statements that move rows from a scratch table into its target."""

    def __init__(self, target: str, scratch: str, columns: list[str], key: list[str]) -> None:
        self.target, self.scratch, self.key = target, scratch, key
        names = ", ".join(map(quote, columns))
        using = ", ".join(map(quote, key))
        to, source = quote(target), quote(scratch)
        self.put = f"REPLACE INTO {to} ({names}) SELECT {names} FROM {source}"
        self.remove = f"DELETE {to} FROM {to} JOIN {source} USING ({using})"
        self.empty = f"DELETE FROM {source}"


def _read_shape(connection: Any, database: str, target: str, scratch: str) -> _Shape:
    columns = [
        name
        for name, generated in fetch(
            connection,
            "SELECT column_name, COALESCE(generation_expression, '') FROM"
            " information_schema.columns WHERE table_schema=%s AND table_name=%s"
            " ORDER BY ordinal_position",
            [database, target],
        )
        if not generated
    ]
    catalog = read_catalog(connection, database, [target])[target]
    key = [catalog.columns[at].name for at in catalog.primary_key]
    return _Shape(target, scratch, columns, key)

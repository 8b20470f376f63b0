"""Bring a copied table through its window: rows that may or may not be there already.

Left: rows events from between the positions at which the table's chunks were read. Right:
the same rows in the table, whatever its chunks held. Values are not decoded: images are
written, as they came, into an empty scratch table of the same shape, and the server moves
them from there by key.

Why it is exact. What the table holds of a key was read somewhere in the window, so it may be
ahead of the event that we apply, and is never behind the events applied before. Then
* a *whole* row (`window_rows`) replaces what has its key, and a row that goes is removed: from
  there on the key's row is exact, whatever it was;
* *parts* of a row that stays under its key are set in the row that is there. If that was read
  later, it holds these values or newer ones of the same columns, which events to come bring
  again: behind the last event each column has its last value. If no row is there, it was read
  when this one had gone: the key is *noted*, until an event tells that it went, or all of it;
* a row that *moved* to a key, and of which the event holds parts only, cannot be taken from its
  old key: another row may have been read there. What is there is removed, the new key noted.
Noted keys are read from the source again when the window has passed (`TableCopier.read_again`);
that is a window of its own for them. In it, and wherever the copy's own window is behind us
(`settled`), rows whose keys are not noted are exact, and move as the source moved them.

A second unique key may stand in the way, because rows in the table are of different moments.
A whole row pushes out what it conflicts with: the two were never there together, so the one
that was pushed out was read later, and the event that gave it the value is to come, and finds
it missing. A row changed in parts may be a mixture that never was: it gives way, and is noted.

Where a table has no key, or its keys cannot be noted, the outcome says that it must be
copied again. See decision 15. So it does where a row is refused: the window may hold a schema
change that the table was copied behind, and rows from before it, of another shape.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from typing import Any

import pymysql
import structlog

from config.errors import ConfigError, Halt, SchemaDrift, classify
from config.failpoints import reach
from replicator.batch import rewritten_map
from replicator.binlog.events import EventType, TableMap
from replicator.binlog.rowimage import rows_event
from replicator.binlog.rowsplit import RowSplitter
from replicator.packets import execute_events
from replicator.scratch import Scratch, create_scratch, drop_scratch
from replicator.tracking import execute, fetch
from replicator.window_rows import Images, WindowRows, sort_rows

log = structlog.get_logger(__name__)

_DUPLICATE_KEY, _NOT_FOUND = 1062, 1032


class Outcome(Enum):
    """What became of an event."""

    EXACT = "exact"
    NOTED = "noted"
    """The table has rows that must be read again: hold it."""
    COPY_AGAIN = "copy again"
    """It cannot be done by key: the table must be copied again."""


class _CannotNote(Exception):
    """A key has no literal to be noted by."""


class Reconciler:
    """Applies rows events to a table in its copy window; the caller holds the transaction."""

    def __init__(self, connection: Any, admin: Any, database: str) -> None:
        """`admin` writes no binlog and holds no transaction: scratch tables come and go on it."""
        self._connection = connection
        self._admin = admin
        self._database = database
        self._scratches: dict[str, Scratch] = {}
        self._noted: set[str] = set()

    def _scratch(self, target: str) -> Scratch:
        scratch = self._scratches.get(target)
        if scratch is None:
            scratch = create_scratch(self._admin, self._database, target)
            self._scratches[target] = scratch
            sql = "SELECT 1 FROM etl_copy_again WHERE target_table=%s LIMIT 1"
            if fetch(self._connection, sql, [target]):
                self._noted.add(target)
        return scratch

    def finish_others(self, targets: Collection[str]) -> None:
        """Drop the scratch tables of all targets but these."""
        for target in set(self._scratches).difference(targets):
            self.finish(target)

    def finish(self, target: str) -> None:
        """The target's window is passed: its scratch table goes."""
        self._noted.discard(target)
        if self._scratches.pop(target, None) is not None:
            drop_scratch(self._admin, target)

    def apply(
        self, target: str, table_map: TableMap, event: bytes, *, settled: bool = False
    ) -> Outcome:
        """Apply one rows event; `settled`: rows whose keys are not noted are exact."""
        try:
            return self._reconcile(target, table_map, event, settled)
        except (pymysql.MySQLError, Halt) as error:
            known = classify(error, server="replica")
            if not isinstance(known, Halt) or isinstance(known, ConfigError):
                raise
            log.info("row_not_reconciled", table=target, reason=str(known))
            return Outcome.COPY_AGAIN

    def _reconcile(self, target: str, table_map: TableMap, event: bytes, settled: bool) -> Outcome:
        scratch = self._scratch(target)
        if not scratch.key:
            return Outcome.COPY_AGAIN
        splitter = RowSplitter.of(table_map)
        if splitter.width <= max(scratch.key):
            raise SchemaDrift(f"table {target} has other columns than the source's rows")
        cut = splitter.cut(event)
        work = _Work(
            self._connection, self._database, scratch, table_map, event, target in self._noted
        )
        try:
            for rows in sort_rows(cut, splitter, scratch.key, scratch.stored, settled=settled):
                work.do(rows, settled=settled)
        except _CannotNote:
            return Outcome.COPY_AGAIN
        if not work.noted and target not in self._noted:
            return Outcome.EXACT
        self._noted.add(target)
        return Outcome.NOTED

    def put(self, target: str, table_map: TableMap, event: bytes) -> None:
        """Put rows of a chunk where a second unique key keeps them from being inserted."""
        self._reconcile(target, table_map, event, settled=False)

    def put_again(self, target: str, table_map: TableMap, event: bytes) -> None:
        """Put rows that were read again, and remember that they may be ahead of the stream."""
        scratch = self._scratch(target)
        splitter = RowSplitter.of(table_map)
        work = _Work(self._connection, self._database, scratch, table_map, event, noted=True)
        for rows in sort_rows(splitter.cut(event), splitter, scratch.key, scratch.stored):
            work.put_again(rows.whole)
        self._noted.add(target)


class _Work:
    """One event's way into its table."""

    def __init__(
        self,
        connection: Any,
        database: str,
        scratch: Scratch,
        table_map: TableMap,
        event: bytes,
        noted: bool,
    ) -> None:
        self._connection = connection
        self._database = database
        self._scratch = scratch
        self._table_map = table_map
        self._event = event
        self.noted = noted
        """May the target have noted keys?"""

    def do(self, rows: WindowRows, *, settled: bool) -> None:
        """Bring these rows into the table."""
        if rows.event and settled and self._moved_as_it_was(rows):
            return
        self._remove(rows.gone)
        self._put(rows.whole)
        self._change(rows.parts)
        self._set_aside(rows.moved)

    def _remove(self, gone: Images) -> None:
        if self._staged(gone, self._remove):
            self._run(self._scratch.remove)
            self._clear()

    def _put(self, whole: Images) -> None:
        if self._staged(whole, self._put):
            reach("window.staged")
            self._run(self._scratch.put)
            self._clear()

    def put_again(self, whole: Images) -> None:
        """Put whole rows whose keys stay noted, as read again."""
        if self._staged(whole, self.put_again):
            self._run(self._scratch.put)
            self._run(self._scratch.note_read)
            self._run(self._scratch.empty)

    def _clear(self) -> None:
        """The keys' rows are certain now; and the scratch table is empty again."""
        if self.noted:
            self._run(self._scratch.clear)
        self._run(self._scratch.empty)

    def _change(self, parts: Images) -> None:
        if not self._staged(parts, self._change):
            return
        self._note_absent()
        change = self._scratch.change(parts.columns)
        try:
            if change is not None:
                self._run(change)
        except pymysql.IntegrityError as error:
            if error.args[0] != _DUPLICATE_KEY:
                raise
            if len(parts.images) > 1:
                self._run(self._scratch.empty)
                self._one_by_one(parts, self._change)
                return
            self._run(self._scratch.remove)  # it gives way
            self._note()
        self._run(self._scratch.empty)

    def _set_aside(self, moved: Images) -> None:
        if self._staged(moved, self._set_aside):
            self._run(self._scratch.remove)
            self._note()
            self._run(self._scratch.empty)

    def _note_absent(self) -> None:
        if not self._scratch.readable:
            if fetch(self._connection, self._scratch.count_absent)[0][0]:
                raise _CannotNote
        elif execute(self._connection, self._scratch.note_absent):
            self.noted = True

    def _note(self) -> None:
        if not self._scratch.readable:
            raise _CannotNote
        self._run(self._scratch.note)
        self.noted = True

    def _moved_as_it_was(self, rows: WindowRows) -> bool:
        """Let the server apply the row's own event, if the row is certain and nothing opposes."""
        if not self._scratch.readable or not self._staged(rows.gone, self._remove):
            return False
        ((certain,),) = fetch(self._connection, self._scratch.count_certain)
        self._run(self._scratch.empty)
        if not certain:
            return False
        self._run("SAVEPOINT etl_window_row")
        header = rewritten_map(self._table_map, self._database, self._scratch.target)
        try:
            execute_events(self._connection, header + rows.event, self._scratch.target)
        except pymysql.MySQLError as error:
            if error.args[0] not in (_DUPLICATE_KEY, _NOT_FOUND):
                raise
            self._run("ROLLBACK TO SAVEPOINT etl_window_row")
            return False
        return True

    def _staged(self, images: Images, treat: Callable[[Images], None]) -> bool:
        """Write the images, if there are any, into the scratch table.

        False where two of them cannot stand in it together (a second unique key), and `treat` was
        called with each alone.
        """
        if not images:
            return False
        staged = rows_event(
            self._table_map.table_id,
            len(self._table_map.column_types),
            images.images,
            columns=images.columns,
            timestamp=int.from_bytes(self._event[:4], "little"),
            server_id=int.from_bytes(self._event[5:9], "little"),
            version=2 if self._event[4] >= EventType.WRITE_ROWS else 1,
        )
        header = rewritten_map(self._table_map, self._database, self._scratch.name)
        try:
            execute_events(self._connection, header + staged, self._scratch.target)
        except pymysql.IntegrityError as error:
            if error.args[0] != _DUPLICATE_KEY or len(images.images) == 1:
                raise
            self._one_by_one(images, treat)
            return False
        return True

    def _one_by_one(self, images: Images, treat: Callable[[Images], None]) -> None:
        for image in images.images:
            treat(Images(images.columns, [image]))

    def _run(self, sql: str) -> None:
        execute(self._connection, sql)

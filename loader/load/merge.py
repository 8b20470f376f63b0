"""Put a whole copy of a table in place, in the stream's own transaction.

Left: a copy in a helper table, and the keys that the stream touched since the
copying began. Right: the raw table as it is at the stream's position. A touched
key's last state came with its event, so the copy yields to it; for every other key
the copy is right. Rows that are the same already are not written, so they keep
their `_loaded_at`, and readers of `raw` see the old rows until this commits.

The copy's rows in quarantine take the place of the table's, but for touched keys, whose
entries came with the stream. Where `raw` refuses rows the caller undoes all and merges again
with `refuse`: then every statement that brings rows is done for all but the refused ones, and
those go to `refuse`. Of a row that was refused no older version stays in `raw` if that can be.

Where deleted rows are kept, a key that the copy lacks is marked instead of deleted, and rows
that were marked before are left alone: no copy has them. What the stream deleted meanwhile is
marked in the copy, or brought into it, with its own time; what the copy lacks for another
reason was deleted at some moment before the copy, and gets the copy's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from psycopg import sql

from config.connections import PostgresConnection
from loader import naming, schema, tracking
from loader.ddl import altering, shapes
from loader.ddl.rekeeping import follow_history, settle_history
from loader.ddl.remasking import is_rekeyed, settle_masks
from loader.keeping import DELETED_AT, keeping_of
from loader.load.numbered import NumberedRows
from loader.load.reload import LoadedTable, shape_of
from loader.load.spelling import SESSION
from loader.naming import LOAD, RELOAD, TOUCHED, helper_name
from loader.quarantine import entries
from loader.quarantine.entries import Refused
from loader.quarantine.refusals import attempt, pipeline
from loader.sameness import same_values
from loader.schema import RawTable, quoted
from loader.types import raw_name
from loader.upsert import LOADED_AT, same_key
from replicator.binlog.schema import TableSchema

Refuse = Callable[[Sequence[Refused]], None]
"""Enters rows of the table being merged that were refused."""


def helpers_of(table: str) -> list[str]:
    """Every helper table that a table may have."""
    return [helper_name(prefix, table) for prefix in (LOAD, RELOAD, TOUCHED)]


def discard_copies(connection: PostgresConnection, table: str) -> None:
    """Drop what copies of a table have left that nobody wants; none may be under way."""
    helpers = [helper_name(prefix, table) for prefix in (LOAD, RELOAD)]
    schema.drop_helpers(connection, helpers)
    for helper in helpers:
        tracking.clear_all_exceptions(connection, helper)
    entries.clear_copy(connection, table)


def merge(
    connection: PostgresConnection,
    loaded: LoadedTable,
    table_schema: TableSchema,
    *,
    hidden: bool,
    touched: bool,
    exceptions: bool,
    quarantined: bool = False,
    behind: bool = False,
    refuse: Refuse | None = None,
) -> int:
    """Merge one copy; return the rows written.

    `hidden`: the stream wrote this table's changes only to the touched table.
    `touched`: there is such a table. `exceptions`, `quarantined`: the table or its copy has or
    had value exceptions, rows in quarantine. `behind`: what the raw table shows is of an earlier
    moment, and stays until now. `refuse`: see the module.
    """
    name = raw_name(loaded.request.table)
    helper = loaded.request.helper
    shape = shape_of(table_schema)
    beside = helper_name(TOUCHED, loaded.request.table)
    careful = Careful(table_schema, refuse) if refuse is not None else None
    at = loaded.mark.source_ts if loaded.mark else None
    job = _Merge(connection, name, helper, beside, careful, at)
    before = shapes.read(connection, loaded.request.table)
    with pipeline(connection) if loaded.request.first and not careful else nullcontext():
        if quarantined:
            entries.move_copy(connection, loaded.request.table, beside if touched else None)
        if loaded.request.first:
            if touched:
                job.replay_touched(helper, shape)
            job.rename(helper)
            rows = loaded.rows
        elif is_rekeyed(before, table_schema) or not job.reshape(shape):
            job.replace(shape, touched=touched)
            if touched:
                job.replay_touched(name, shape)
            rows = loaded.rows
        elif behind or hidden:
            if touched:
                job.replay_touched(helper, shape)
                job.mark_touched(name, shape)
            rows = job.write_differences(shape, touched=False)
        else:
            rows = job.write_differences(shape, touched=touched)
        if exceptions:
            job.move_exceptions(loaded.request.table, shape, touched=touched)
        if touched or not loaded.request.first:
            schema.drop_helpers(connection, helpers_of(loaded.request.table))
        settle_masks(connection, loaded.request.table, before, table_schema)
        settle_history(connection, loaded.request.table, before, table_schema, at)
        follow_history(connection, loaded.request.table, keeping_of(table_schema), at)
        tracking.note_loaded(connection, loaded.request.table, rows, table_schema.hash)
        shapes.store(connection, table_schema)
    return rows


def take_rows(
    connection: PostgresConnection, name: str, source: str, shape: RawTable, at: str | None
) -> None:
    """Give the raw table `name` the shape and the rows of the raw table `source`, as of `at`."""
    job = _Merge(connection, name, source, source, at=at)
    if shape.key and job.reshape(shape):
        job.write_differences(shape, touched=False)
    else:
        job.replace(shape)


def bring_along(connection: PostgresConnection, name: str, touched: str, shape: RawTable) -> None:
    """Bring the raw table `name` up to date with a touched table."""
    _Merge(connection, name, name, touched).replay_touched(name, shape)


@dataclass(frozen=True, slots=True)
class Careful:
    """What it takes to merge around refused rows: their schema, and who takes them."""

    schema: TableSchema
    refuse: Refuse


class _Merge:
    """The statements of one merge."""

    def __init__(
        self,
        connection: PostgresConnection,
        name: str,
        helper: str,
        touched: str,
        careful: Careful | None = None,
        at: str | None = None,
    ) -> None:
        """`at`: the source's commit time behind the copy, for rows that it lacks."""
        self._connection = connection
        self._name = name
        self._table = sql.Identifier(name)
        self._copy = sql.Identifier(helper)
        self._helper = helper
        self._touched = sql.Identifier(touched)
        self._careful = careful
        self._at = at

    def reshape(self, shape: RawTable) -> bool:
        """Alter the raw table in place where its rows can stay."""
        current = schema.read_tables(self._connection, [self._name]).get(self._name)
        change = schema.diff(current, shape) if current else None
        if change is None or not (change.in_place or self._marked_rows_stay(change, shape)):
            return False
        if change:
            altering.apply_in_place(self._connection, self._name, change)
        return True

    @staticmethod
    def _marked_rows_stay(change: schema.TableDiff, shape: RawTable) -> bool:
        """Can rows that no copy has stay, without the values that do not fit any more?"""
        return shape.soft and not change.key_changed and not set(change.unsafe) & set(shape.key)

    def rename(self, helper: str) -> None:
        """Let the copy become the raw table."""
        naming.rename_table(self._connection, helper, self._name)

    def replace(self, shape: RawTable, *, touched: bool = False) -> None:
        """Give the raw table the copy's shape and rows instead of its own.

        Rows of touched keys are replaced at once; refused ones among them are not the last word.
        """
        current = schema.read_tables(self._connection, [self._name]).get(self._name)
        if current is None:
            schema.create_table(self._connection, self._name, shape)
            if shape.key:
                naming.add_key(self._connection, self._name, shape.key)
        else:
            altering.warn_of_kept_rows(self._connection, self._name, current)
            change = schema.diff(current, shape)
            altering.apply_emptied(self._connection, self._name, change, shape.key)
        spare = self._untouched(shape, "l", self._careful is not None and touched)
        self._put(
            self._table,
            shape,
            sql.SQL("FROM {} AS l WHERE true{}").format(self._copy, spare),
        )

    def replay_touched(self, target: str, shape: RawTable) -> None:
        """Bring a copy up to the stream's position."""
        table = sql.Identifier(target)
        same = same_key(shape.key, "r", "x")
        spare: sql.Composable = sql.SQL("")
        if shape.soft:  # see `create_touched`
            self.mark_touched(target, shape)
            spare = sql.SQL(" AND (NOT x._deleted OR x.{} IS NULL{})").format(
                sql.Identifier(DELETED_AT), schema.live(shape, "r")
            )
        self._connection.execute(
            sql.SQL("DELETE FROM {} AS r USING {} AS x WHERE {}{}").format(
                table, self._touched, same, spare
            )
        )
        self._put(table, shape, sql.SQL("FROM {} AS l WHERE NOT _deleted").format(self._touched))

    def mark_touched(self, target: str, shape: RawTable) -> None:
        """Mark rows that the stream deleted, whatever version of them is at hand."""
        if not shape.soft:
            return
        when = sql.Identifier("x", DELETED_AT)
        statement = schema.marking(sql.Identifier(target), "r", when) + sql.SQL(
            " FROM {} AS x WHERE {} AND x._deleted AND {} IS NOT NULL{}"
        ).format(self._touched, same_key(shape.key, "r", "x"), when, schema.live(shape, "r"))
        if self._careful is None:
            self._connection.execute(statement)
        else:  # what is refused is met again as a row that the copy lacks
            attempt(self._connection, lambda: self._run(statement))

    def _run(self, statement: sql.Composed) -> None:
        self._connection.execute(statement)

    def write_differences(self, shape: RawTable, *, touched: bool) -> int:
        """Delete or mark what the copy lacks, write what differs; touched keys are right."""
        deleted = self._remove(
            shape,
            sql.SQL("NOT EXISTS (SELECT FROM {} AS l WHERE {}){}{}").format(
                self._copy,
                same_key(shape.key, "l", "r"),
                self._untouched(shape, "r", touched),
                schema.live(shape, "r"),
            ),
        )
        sets = sql.SQL(", ").join(
            sql.SQL("{} = EXCLUDED.{}").format(sql.Identifier(n), sql.Identifier(n))
            for n in (*shape.carried, LOADED_AT)
        )
        written = self._put(
            self._table,
            shape,
            sql.SQL("FROM {} AS l WHERE NOT EXISTS (SELECT FROM {} AS r WHERE {} AND {}){}").format(
                self._copy,
                self._table,
                same_key(shape.key, "r", "l"),
                same_values(shape, "r", "l"),
                self._untouched(shape, "l", touched),
            ),
            sql.SQL(" ON CONFLICT ({}) DO UPDATE SET {}").format(quoted(shape.key), sets),
        )
        return deleted + written

    # --- rows, all at once or all but the refused ones -----------------------------------

    def _put(
        self,
        table: sql.Identifier,
        shape: RawTable,
        rows: sql.Composed,
        conflict: sql.Composable | None = None,
    ) -> int:
        """Insert the rows that `rows`, from its FROM on, selects as `l`; how many."""
        names = shape.carried
        listed = sql.SQL(", ").join(sql.Identifier("l", name) for name in names)
        ending = conflict or sql.SQL("")
        if self._careful is not None:
            select = sql.SQL("SELECT {} {}").format(listed, rows)
            return self._carefully(
                table, shape, select, lambda found: found.put(ending, old=conflict is not None)
            )
        return self._connection.execute(
            sql.SQL("INSERT INTO {} ({}, {}) SELECT {}, statement_timestamp() {}{}").format(
                table, quoted(names), sql.Identifier(LOADED_AT), listed, rows, ending
            )
        ).rowcount

    def _remove(self, shape: RawTable, which: sql.Composed) -> int:
        """Delete, or mark, rows of the raw table; `which` tells of each, as `r`."""
        if self._careful is not None:
            names = sql.SQL(", ").join(sql.Identifier("r", name) for name in shape.carried)
            select = sql.SQL("SELECT {} FROM {} AS r WHERE {}").format(names, self._table, which)
            return self._carefully(self._table, shape, select, lambda all_: all_.remove(self._at))
        remove = (
            schema.marking(self._table, "r", schema.moment(self._at))
            if shape.soft
            else sql.SQL("DELETE FROM {} AS r").format(self._table)
        )
        return self._connection.execute(remove + sql.SQL(" WHERE ") + which).rowcount

    def _carefully(
        self,
        table: sql.Identifier,
        shape: RawTable,
        select: sql.Composed,
        move: Callable[[NumberedRows], list[Refused]],
    ) -> int:
        assert self._careful is not None
        found = NumberedRows(self._connection, table, shape, self._careful.schema, select)
        refused = move(found)
        found.close()
        self._careful.refuse(refused)
        return found.count - len(refused)

    def _untouched(self, shape: RawTable, alias: str, touched: bool) -> sql.Composable:
        if not touched:
            return sql.SQL("")
        return sql.SQL(" AND NOT EXISTS (SELECT FROM {} AS x WHERE {})").format(
            self._touched, same_key(shape.key, "x", alias)
        )

    def _of_no_marked_row(self, shape: RawTable) -> sql.Composable:
        if not shape.soft:
            return sql.SQL("")
        for setting in SESSION:
            self._connection.execute(setting)
        key = sql.SQL(" || E'\\t' || ").join(map(_copy_text, shape.key))
        return sql.SQL(
            " AND NOT EXISTS (SELECT FROM {} AS r WHERE r.{} IS NOT NULL AND {} = e.key)"
        ).format(self._table, sql.Identifier(DELETED_AT), key)

    def move_exceptions(self, table: str, shape: RawTable, *, touched: bool) -> None:
        """The copy's exceptions take the old ones' place, but for touched keys.

        Those of rows that are marked as deleted go on saying what these held.
        """
        spare: sql.Composable = (
            sql.SQL(" AND key NOT IN (SELECT _key FROM {})").format(self._touched)
            if touched
            else sql.SQL("")
        )
        self._connection.execute(
            sql.SQL("DELETE FROM etl_value_exceptions AS e WHERE table_name = {}{}{}").format(
                sql.Literal(table), spare, self._of_no_marked_row(shape)
            )
        )
        self._connection.execute(
            sql.SQL(
                "UPDATE etl_value_exceptions SET table_name = {} WHERE table_name = {}{}"
            ).format(sql.Literal(table), sql.Literal(self._helper), spare)
        )
        self._connection.execute(
            "DELETE FROM etl_value_exceptions WHERE table_name = %s", [self._helper]
        )


def _copy_text(column: str) -> sql.Composable:
    """A key's column as it stands in a row's name (`quarantine.entries.row_name`)."""
    text: sql.Composable = sql.SQL("r.{}::text").format(sql.Identifier(column))
    for character, spelled in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = sql.SQL("replace({}, {}, {})").format(text, character, spelled)
    return text

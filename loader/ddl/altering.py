"""Change a raw table under its dependants: columns, types, key. In the caller's transaction.

Left: a `TableDiff` (a shape to reach) or an `Evolution` (what an ALTER did). Right: the
same table, its OID, indexes, grants and statistics kept. Views that read a column whose
type changes are taken down and put back. Where that cannot be, and where a view reads a
column that is dropped, the column is *retired*: it stays under the name `_retired_<name>`
for those views alone, nullable, empty in rows written from then on, and marked by its
comment. Every later change of the table tries to drop it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import psycopg
import structlog
from psycopg import sql

from config.connections import PostgresConnection
from config.errors import SchemaDrift
from loader import naming, schema
from loader.ddl.conversions import Check
from loader.ddl.dependants import ViewsInTheWay, around
from loader.ddl.evolution import Evolution
from loader.keeping import DELETED_AT
from loader.schema import RETIRED_MARK, RawTable, TableDiff
from loader.types import MAX_NAME_BYTES, RawColumn, shortened

log = structlog.get_logger()


def apply_in_place(connection: PostgresConnection, table: str, change: TableDiff) -> None:
    """Alter a raw table that keeps its rows.

    Where not `change.in_place`, columns whose values may not survive are emptied: the rows that
    are kept for deleted ones have NULL there, all others are written anew.
    """
    _add(connection, table, ((column, None) for column in change.added))
    safe = [column for column in change.retyped if column.name not in change.unsafe]
    _retype(connection, table, safe, keep=True)
    unsafe = [column for column in change.retyped if column.name in change.unsafe]
    _retype(connection, table, unsafe, keep=False)
    drop_columns(connection, table, change.dropped)
    if change.soft is not None:
        keep_deleted(connection, table, soft=change.soft)


def keep_deleted(connection: PostgresConnection, table: str, *, soft: bool) -> None:
    """Let a raw table keep deleted rows from now on, or let go those that it has."""
    if soft:
        _add(connection, table, [(schema.MARK, None)])
        return
    marked = sql.Identifier(DELETED_AT)
    gone = connection.execute(
        sql.SQL("DELETE FROM {} WHERE {} IS NOT NULL").format(sql.Identifier(table), marked)
    ).rowcount
    drop_columns(connection, table, [DELETED_AT])
    if gone:
        log.warning("deleted_rows_let_go", table=table, rows=gone, reason="tables.toml says so")


def warn_of_kept_rows(connection: PostgresConnection, table: str, current: RawTable) -> None:
    """A raw table is about to be emptied, and with it go the deleted rows that it kept."""
    if not current.soft:
        return
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM {} WHERE {} IS NOT NULL").format(
            sql.Identifier(table), sql.Identifier(DELETED_AT)
        )
    ).fetchone()
    if row and row[0]:
        log.warning(
            "deleted_rows_let_go",
            table=table,
            rows=int(row[0]),
            reason="its key is another one, or deleted rows are not to be kept any more",
        )


def apply_emptied(
    connection: PostgresConnection, table: str, change: TableDiff, key: tuple[str, ...]
) -> None:
    """Empty a raw table and give it another shape, key included, under its dependants."""
    schema.empty_table(connection, table)
    if change.key_changed:
        _drop_key(connection, table)
    _add(connection, table, ((column, None) for column in change.added))
    _retype(connection, table, change.retyped, keep=False)
    drop_columns(connection, table, change.dropped)
    if change.soft is not None:
        keep_deleted(connection, table, soft=change.soft)
    if change.key_changed and key:
        naming.add_key(connection, table, key)


def evolve(connection: PostgresConnection, table: str, change: Evolution) -> bool:
    """Do what an ALTER did; False, with nothing changed, where its rows must be loaded anew."""
    if not _holds(connection, table, change.checks):
        return False
    try:
        with connection.transaction():
            _evolve(connection, table, change)
    except (psycopg.DataError, psycopg.IntegrityError):
        return False
    return True


def _evolve(connection: PostgresConnection, table: str, change: Evolution) -> None:
    if change.key is not None:
        _drop_key(connection, table)
    drop_columns(connection, table, change.dropped)
    _rename(connection, table, change.renamed)
    _retype(connection, table, change.retyped, keep=True)
    _add(connection, table, change.added)
    if change.key:
        naming.add_key(connection, table, change.key)


_VIOLATIONS = {
    "null": "{column} IS NULL",
    "zero": "{column} = 0",
    "range": "{column} NOT BETWEEN {low} AND {high}",
    "digits": "abs({column}) >= power(10::numeric, {high})",
    "length": "length({column}) > {high}",
}


def _holds(connection: PostgresConnection, table: str, checks: Sequence[Check]) -> bool:
    """Do all rows meet the conditions under which a cast is exact?"""
    if not checks:
        return True
    violations = [
        sql.SQL(_VIOLATIONS[check.kind]).format(
            column=sql.Identifier(check.column),
            low=sql.Literal(check.low),
            high=sql.Literal(check.high),
        )
        for check in checks
    ]
    row = connection.execute(
        sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {})").format(
            sql.Identifier(table), sql.SQL(" OR ").join(violations)
        )
    ).fetchone()
    return row is not None and not row[0]


def _alter(connection: PostgresConnection, table: str, actions: Iterable[sql.Composed]) -> None:
    found = list(actions)
    if found:
        connection.execute(
            sql.SQL("ALTER TABLE {} {}").format(sql.Identifier(table), sql.SQL(", ").join(found))
        )


def _add(
    connection: PostgresConnection, table: str, columns: Iterable[tuple[RawColumn, str | None]]
) -> None:
    """Add columns; a fill stands in the rows that are there, without any being rewritten."""
    added = list(columns)
    filled = [column for column, fill in added if fill is not None]
    _alter(connection, table, (_addition(column, fill) for column, fill in added))
    _alter(
        connection,
        table,
        (
            sql.SQL("ALTER COLUMN {} DROP DEFAULT").format(sql.Identifier(column.name))
            for column in filled
        ),
    )


def _addition(column: RawColumn, fill: str | None) -> sql.Composed:
    definition = schema.column_definition(column)
    if fill is None:
        return sql.SQL("ADD COLUMN {}").format(definition)
    return sql.SQL("ADD COLUMN {} DEFAULT {}").format(definition, sql.Literal(fill))


def _rename(connection: PostgresConnection, table: str, renames: Sequence[tuple[str, str]]) -> None:
    """Rename columns, views following; over names in between where they change places."""
    taken = {old for old, _ in renames}
    steps = list(renames)
    if any(new in taken for _, new in renames):
        between = [(old, shortened(f"_renaming_{n}_{old}", MAX_NAME_BYTES))
                   for n, (old, _) in enumerate(renames)]  # fmt: skip
        steps = between + [
            (name, new) for (_, name), (_, new) in zip(between, renames, strict=True)
        ]
    for old, new in steps:
        connection.execute(
            sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                sql.Identifier(table), sql.Identifier(old), sql.Identifier(new)
            )
        )


def _retype(
    connection: PostgresConnection, table: str, columns: Sequence[RawColumn], *, keep: bool
) -> None:
    """Change types, views standing aside; one by one where some of those cannot."""
    if not columns:
        return
    names = [column.name for column in columns]
    try:
        around(
            connection,
            table,
            names,
            lambda: _alter(connection, table, (_new_type(c, keep=keep) for c in columns)),
        )
    except ViewsInTheWay as views:
        if len(columns) == 1:
            _replace_column(connection, table, columns[0], views, keep=keep)
            return
        for column in columns:
            _retype(connection, table, [column], keep=keep)


def _new_type(column: RawColumn, *, keep: bool) -> sql.Composed:
    name, kind = sql.Identifier(column.name), schema.type_name(column.type)
    using = name if keep else sql.SQL("NULL")
    return sql.SQL("ALTER COLUMN {} TYPE {} USING {}::{}").format(name, kind, using, kind)


def _replace_column(
    connection: PostgresConnection,
    table: str,
    column: RawColumn,
    views: ViewsInTheWay,
    *,
    keep: bool,
) -> None:
    """Leave the old column to the views, and begin a new one of the same name beside it."""
    key = _key_of(connection, table)
    in_key = column.name in key
    if in_key:
        _drop_key(connection, table)
    old = _retire(connection, table, column.name, views.views, views.reason)
    _add(connection, table, [(column, None)])
    if keep:
        connection.execute(
            sql.SQL("UPDATE {} SET {} = {}::{}").format(
                sql.Identifier(table),
                sql.Identifier(column.name),
                sql.Identifier(old),
                schema.type_name(column.type),
            )
        )
    if in_key:
        naming.add_key(connection, table, key)


def drop_columns(connection: PostgresConnection, table: str, names: Iterable[str]) -> None:
    """Drop columns, and retired ones that no view reads any more; retire what one reads."""
    for name in retired_columns(connection, table):
        _try_drop(connection, table, name)
    for name in names:
        if not _try_drop(connection, table, name):
            views = schema.dependants(connection, table, name)
            _retire(connection, table, name, views, "the source dropped it")


def _try_drop(connection: PostgresConnection, table: str, name: str) -> bool:
    try:
        with connection.transaction():
            connection.execute(
                sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                    sql.Identifier(table), sql.Identifier(name)
                )
            )
    except psycopg.errors.DependentObjectsStillExist:
        return False
    return True


def _retire(
    connection: PostgresConnection,
    table: str,
    name: str,
    views: Collection[str],
    reason: str,
) -> str:
    """Set a column aside for the views that read it; return its new name."""
    taken = set(_column_names(connection, table))
    retired = shortened(f"_retired_{name}", MAX_NAME_BYTES)
    number = 1
    while retired in taken:
        number += 1
        retired = shortened(f"_retired_{number}_{name}", MAX_NAME_BYTES)
    target, column = sql.Identifier(table), sql.Identifier(name)
    connection.execute(sql.SQL("ALTER TABLE {} ALTER {} DROP NOT NULL").format(target, column))
    _rename(connection, table, [(name, retired)])
    connection.execute(
        sql.SQL("COMMENT ON COLUMN {} IS {}").format(
            sql.Identifier(table, retired),
            sql.Literal(f"{RETIRED_MARK}; was {name}. Kept for {', '.join(sorted(views))}."),
        )
    )
    log.warning(
        "column_retired",
        table=table,
        column=name,
        kept_as=retired,
        views=sorted(views),
        reason=reason,
        hint="Change these views; the column goes with the table's next change, or by ALTER TABLE"
        " … DROP COLUMN.",
    )
    return retired


_COLUMNS = """
SELECT attname, coalesce(col_description(attrelid, attnum), '') FROM pg_attribute
WHERE attnum > 0 AND NOT attisdropped AND attrelid = (
  SELECT oid FROM pg_class WHERE relname = %s AND relnamespace =
    (SELECT oid FROM pg_namespace WHERE nspname = current_schema()))
ORDER BY attnum
"""


def _column_names(connection: PostgresConnection, table: str) -> list[str]:
    return [name for name, _ in connection.execute(_COLUMNS, [table])]


def retired_columns(connection: PostgresConnection, table: str) -> list[str]:
    """Columns that only views keep."""
    rows = connection.execute(_COLUMNS, [table])
    return [name for name, comment in rows if comment.startswith(RETIRED_MARK)]


def _key_of(connection: PostgresConnection, table: str) -> tuple[str, ...]:
    found = schema.read_tables(connection, [table]).get(table)
    return found.key if found else ()


def _drop_key(connection: PostgresConnection, table: str) -> None:
    """Drop the primary key, and the NOT NULLs that it leaves behind."""
    name = naming.key_of(connection, table)
    if name is None:
        return
    key = _key_of(connection, table)
    drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
        sql.Identifier(table), sql.Identifier(name)
    )
    try:
        around(connection, table, key, lambda: connection.execute(drop))
    except ViewsInTheWay as views:
        raise SchemaDrift(
            f"the key of raw table {table} changed, and {', '.join(views.views)} depend on it:"
            f" {views.reason}",
            hint="Drop or change these views; then start the loader again.",
        ) from None
    target = sql.Identifier(table)
    nullable = [sql.SQL("ALTER COLUMN {} DROP NOT NULL").format(sql.Identifier(n)) for n in key]
    connection.execute(sql.SQL("ALTER TABLE {} {}").format(target, sql.SQL(", ").join(nullable)))

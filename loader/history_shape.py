"""The shape of a history: its columns, the index by its key, and how both follow the table's.

Left: the raw table's shape, or what an ALTER did to it. Right: the history altered in the caller's
transaction, so that it takes rows of that shape; its rows are `history`'s. No earlier version
loses a value: a column that is dropped stays, and one whose old values might not fit its new type
stays under another name. A column that comes is filled in open versions by `fill_fresh`, from the
raw table: the source changed a table, not its rows, so no version ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg
import structlog
from psycopg import sql

from config.connections import PostgresConnection
from loader import schema
from loader.keeping import HISTORY, HISTORY_COLUMNS, KEY, OPEN
from loader.rawsql import same_key
from loader.sameness import same_values
from loader.schema import RawTable, column_definition, quoted
from loader.types import MAX_NAME_BYTES, RawColumn, shortened

log = structlog.get_logger()

_FRESH = "Not filled in open versions yet"
"""The comment of a column that came with rows whose values for it only the raw table has."""


def history_name(place: str) -> str:
    """The history of the raw table `place`."""
    return shortened(place + HISTORY, MAX_NAME_BYTES)


def read_columns(connection: PostgresConnection, place: str) -> dict[str, str]:
    """A history's columns for the row, with their types; {} where there is no history."""
    name = history_name(place)
    found = schema.read_tables(connection, [name]).get(name)
    if found is None:
        return {}
    return {c.name: c.type for c in found.columns if c.name not in HISTORY_COLUMNS}


def fit(
    connection: PostgresConnection,
    place: str,
    shape: RawTable,
    at: str | None,
    castable: Iterable[str] = (),
) -> bool:
    """Let the history take rows of this shape; True where `reconcile` is to follow.

    `castable`: columns whose values survive a cast to their new type, whatever they are.
    """
    current = read_columns(connection, place)
    if not current:
        _create(connection, place, shape)
        return True
    changed = False
    for column in shape.columns:
        have = current.get(column.name)
        if have is None:
            _add_fresh(connection, place, column)
            changed = True
        elif have != column.type:
            widened = column.name in castable or schema.widens(have, column.type)
            if not (widened and _retype(connection, place, column)):
                set_aside(connection, place, column.name)
                _add_fresh(connection, place, column)
            changed = True
    if _key_of(connection, place) != shape.key:
        close_all(connection, place, at, exact=False)
        _index(connection, place, shape.key)
        changed = True
    return changed


def _create(connection: PostgresConnection, place: str, shape: RawTable) -> None:
    own = sql.SQL(
        "_version bigint GENERATED ALWAYS AS IDENTITY, _valid_from timestamptz NOT NULL,"
        " _valid_to timestamptz, _from_exact boolean NOT NULL, _to_exact boolean"
    )
    connection.execute(
        sql.SQL("CREATE TABLE {} ({})").format(
            history_table(place), sql.SQL(", ").join([*map(column_definition, shape.columns), own])
        )
    )
    _index(connection, place, shape.key)


def _index(connection: PostgresConnection, place: str, key: Sequence[str]) -> None:
    """A key has one open version at most; its versions are found by it."""
    connection.execute("SET LOCAL client_min_messages = warning")
    for ending, columns, where in (
        (OPEN, key, sql.SQL(" WHERE _valid_to IS NULL")),
        (KEY, (*key, "_version"), sql.SQL("")),
    ):
        name = sql.Identifier(index_name(place, ending))
        connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(name))
        connection.execute(
            sql.SQL("CREATE UNIQUE INDEX {} ON {} ({}){}").format(
                name, history_table(place), quoted(columns), where
            )
        )


def index_name(place: str, ending: str) -> str:
    """The name of one of a history's two indexes."""
    return shortened(history_name(place) + ending, MAX_NAME_BYTES)


def fits(connection: PostgresConnection, place: str, shape: RawTable) -> bool:
    """Is there a history that takes rows of this shape?"""
    current = read_columns(connection, place)
    same = all(current.get(column.name) == column.type for column in shape.columns)
    return same and bool(current) and _key_of(connection, place) == shape.key


def _key_of(connection: PostgresConnection, place: str) -> tuple[str, ...]:
    """The columns by which open versions are told apart."""
    rows = connection.execute(
        "SELECT a.attname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
        " JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey::int2[])"
        " WHERE c.relname = %s AND c.relnamespace ="
        " (SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
        " ORDER BY array_position(i.indkey::int2[], a.attnum)",
        [index_name(place, OPEN)],
    )
    return tuple(name for (name,) in rows)


def _add_fresh(connection: PostgresConnection, place: str, column: RawColumn) -> None:
    add_column(connection, place, column)
    _comment(connection, place, column.name, _FRESH)


def add_column(
    connection: PostgresConnection, place: str, column: RawColumn, fill: str | None = None
) -> None:
    """Add a column; `fill` stands in all versions there are, as in the source's own rows."""
    history, name = history_table(place), sql.Identifier(column.name)
    default = sql.SQL(" DEFAULT {}").format(fill) if fill is not None else sql.SQL("")
    definition = column_definition(column)
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD COLUMN {}{}").format(history, definition, default)
    )
    if fill is not None:
        connection.execute(
            sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP DEFAULT").format(history, name)
        )


def _retype(connection: PostgresConnection, place: str, column: RawColumn) -> bool:
    name, kind = sql.Identifier(column.name), schema.type_name(column.type)
    try:
        with connection.transaction():
            connection.execute(
                sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {} USING {}::{}").format(
                    history_table(place), name, kind, name, kind
                )
            )
    except (psycopg.DataError, psycopg.errors.FeatureNotSupported):
        return False  # an old value does not fit, or a view reads the column
    return True


def set_aside(connection: PostgresConnection, place: str, name: str) -> None:
    """Let a column keep its values under another name."""
    taken = read_columns(connection, place)
    number = 1
    while (former := shortened(f"_former_{number}_{name}", MAX_NAME_BYTES)) in taken:
        number += 1
    rename_column(connection, place, name, former)
    log.info("history_column_set_aside", table=place, column=name, kept_as=former)


def rename_column(connection: PostgresConnection, place: str, old: str, new: str) -> None:
    """Let a column go by another name."""
    connection.execute(
        sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
            history_table(place), sql.Identifier(old), sql.Identifier(new)
        )
    )


def forget_values(connection: PostgresConnection, place: str, names: Iterable[str]) -> None:
    """Take the values of columns out of all versions, also those that were set aside."""
    there = read_columns(connection, place)
    wanted = set(names)
    found = [c for c in there if c in wanted or _former_of(c) in wanted]
    if found:
        nothing = sql.SQL(", ").join(sql.SQL("{} = NULL").format(sql.Identifier(c)) for c in found)
        connection.execute(sql.SQL("UPDATE {} SET {}").format(history_table(place), nothing))


def _former_of(name: str) -> str:
    _, _, rest = name.removeprefix("_former_").partition("_")
    return rest if name.startswith("_former_") else ""


def _comment(connection: PostgresConnection, place: str, column: str, text: str | None) -> None:
    connection.execute(
        sql.SQL("COMMENT ON COLUMN {} IS {}").format(
            sql.Identifier(history_name(place), column), text
        )
    )


def fill_fresh(connection: PostgresConnection, place: str, shape: RawTable) -> None:
    """Give open versions what their rows have in columns that came: that ends no version."""
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = (SELECT oid FROM pg_class WHERE"
        " relname = %s AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname ="
        " current_schema())) AND col_description(attrelid, attnum) = %s AND NOT attisdropped",
        [history_name(place), _FRESH],
    )
    fresh = [name for (name,) in rows]
    wanted = [name for name in shape.names if name in fresh]
    if wanted:
        others = tuple(column for column in shape.columns if column.name not in wanted)
        values = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(n), sql.Identifier("r", n)) for n in wanted
        )
        connection.execute(
            sql.SQL(
                "UPDATE {} AS h SET {} FROM {} AS r WHERE h._valid_to IS NULL AND {} AND {}{}"
            ).format(
                history_table(place),
                values,
                sql.Identifier(place),
                same_key(shape.key, "r", "h"),
                same_values(RawTable(others, shape.key), "r", "h"),
                schema.live(shape, "r"),
            )
        )
    for name in fresh:
        _comment(connection, place, name, None)


def history_table(place: str) -> sql.Identifier:
    """The same as an identifier."""
    return sql.Identifier(history_name(place))


def close_all(connection: PostgresConnection, place: str, at: str | None, *, exact: bool) -> None:
    """No row is there any more."""
    if read_columns(connection, place):
        connection.execute(
            sql.SQL("UPDATE {} SET _valid_to = {}, _to_exact = {} WHERE _valid_to IS NULL").format(
                history_table(place), schema.moment(at), exact
            )
        )

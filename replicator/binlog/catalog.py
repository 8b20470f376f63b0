"""What a server's catalog says of its tables, as plain values.

From the left comes a connection, to the right go `CatalogTable`s: columns in
binlog order with the details that rows are stored by, and the primary key as
the server itself sees it. `schema` and `rowimage` build on these values, so
that information_schema is read in one place and in one way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pymysql
from pymysql.cursors import Cursor, DictCursor

from config.errors import ServerBusy

_OLD_TEMPORAL = "/* mariadb-5.3 */"
_UTF8 = {"utf8": "utf8mb3"}
_MOST_LOOKS = 50
_ESCAPED = {"\\": "\\", "0": "\0", "n": "\n", "r": "\r"}


@dataclass(frozen=True, slots=True)
class CatalogColumn:
    """A column as the catalog has it; lengths of None mean that the type has none."""

    name: str
    data_type: str
    nullable: bool
    unsigned: bool = False
    characters: int | None = None
    octets: int | None = None
    precision: int | None = None
    scale: int | None = None
    fsp: int = 0
    charset: str | None = None
    members: tuple[str, ...] = ()
    compressed: bool = False
    old_temporal: bool = False
    """Stored in the format of before MySQL 5.6 (mysql56_temporal_format=OFF)."""
    short_year: bool = False
    vector_type: bool = False
    """MySQL's VECTOR, which has a type of its own in the binlog; MariaDB's is VARBINARY there."""


@dataclass(frozen=True, slots=True)
class CatalogTable:
    """A base table; `columns` are those that its row images have, but for hidden hashes."""

    database: str
    name: str
    columns: tuple[CatalogColumn, ...]
    primary_key: tuple[int, ...]
    """Column indexes in key order: the first unique key without NULLs stands in for a missing
    primary key, as in the server (`TABLE_SHARE::primary_key`)."""
    hidden_hashes: tuple[bool, ...] = ()
    """Columns DB_ROW_HASH_<n> behind the others, one for each unique key over long columns:
    may it be NULL, as any column of its key may?"""
    system_versioned: bool = False


def read_catalog(
    connection: pymysql.Connection[Cursor], database: str, tables: Collection[str] | None = None
) -> dict[str, CatalogTable]:
    """Base tables of `database` by name; only those in `tables` unless that is None."""
    if tables is not None and not tables:
        return {}
    for _ in range(_MOST_LOOKS):
        kinds = {
            row["TABLE_NAME"]: row["TABLE_TYPE"]
            for row in _rows(connection, "TABLES", "TABLE_NAME", database, tables)
            if row["TABLE_TYPE"] in ("BASE TABLE", "SYSTEM VERSIONED")
        }
        columns = _by_table(_rows(connection, "COLUMNS", "ORDINAL_POSITION", database, tables))
        keys = _by_table(_rows(connection, "STATISTICS", None, database, tables))
        if not _torn(columns, keys):
            return {
                name: _table(
                    database, name, kind == "SYSTEM VERSIONED", columns[name], keys.get(name, [])
                )
                for name, kind in kinds.items()
                if name in columns
            }
    raise ServerBusy("tables change faster than information_schema tells of them")


def _torn(
    columns: Mapping[str, list[dict[str, Any]]], keys: Mapping[str, list[dict[str, Any]]]
) -> bool:
    """Has a table that was changed between the views a key over columns that it had not before?"""
    there = {name: {row["COLUMN_NAME"] for row in rows} for name, rows in columns.items()}
    return any(
        part["COLUMN_NAME"] is not None and part["COLUMN_NAME"] not in there[name]
        for name, parts in keys.items()
        if name in there
        for part in parts
    )


def _rows(
    connection: pymysql.Connection[Cursor],
    view: str,
    order: str | None,
    database: str,
    tables: Collection[str] | None,
) -> list[dict[str, Any]]:
    """Rows of an information_schema view; every column, for old servers lack some."""
    sql = f"SELECT * FROM information_schema.{view} WHERE TABLE_SCHEMA = %s"
    arguments: list[Any] = [database]
    if tables is not None:
        sql += " AND TABLE_NAME IN %s"
        arguments.append(tuple(tables))
    if order:
        sql += f" ORDER BY {order}"
    with connection.cursor(DictCursor) as cursor:
        cursor.execute(sql, arguments)
        found = [{key.upper(): value for key, value in row.items()} for row in cursor.fetchall()]
    # The catalog compares names without regard to case; tables may differ in it alone.
    return [row for row in found if tables is None or row["TABLE_NAME"] in tables]


def _by_table(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["TABLE_NAME"], []).append(row)
    return grouped


def _table(
    database: str,
    name: str,
    versioned: bool,
    column_rows: list[dict[str, Any]],
    key_rows: list[dict[str, Any]],
) -> CatalogTable:
    columns = [_column(row) for row in column_rows]
    positions = {column.name: at for at, column in enumerate(columns)}
    keys = _unique_keys(key_rows)
    primary = _primary_key(keys, columns, positions)
    implicit = versioned and not any(_is_period(row) for row in column_rows)
    if implicit:  # the catalog hides these two, yet row images and primary keys have them
        columns += [CatalogColumn(n, "timestamp", False, fsp=6) for n in ("row_start", "row_end")]
        primary = (*primary, len(columns) - 1) if primary else primary
    hashes = tuple(
        any(columns[positions[part["COLUMN_NAME"]]].nullable for part in parts)
        for parts in keys.values()
        if parts[0]["INDEX_TYPE"] == "HASH"
    )
    return CatalogTable(database, name, tuple(columns), primary, hashes, versioned)


def _is_period(row: Mapping[str, Any]) -> bool:
    return str(row.get("GENERATION_EXPRESSION") or "").upper() == "ROW START"


def _unique_keys(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Unique keys in the server's own order, their parts in key order."""
    keys: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if not int(row["NON_UNIQUE"]):
            keys.setdefault(row["INDEX_NAME"], []).append(row)
    for parts in keys.values():
        parts.sort(key=lambda row: int(row["SEQ_IN_INDEX"]))
    return keys


def _primary_key(
    keys: Mapping[str, list[dict[str, Any]]],
    columns: list[CatalogColumn],
    positions: Mapping[str, int],
) -> tuple[int, ...]:
    def stands_in(parts: list[dict[str, Any]]) -> bool:
        return all(
            part["COLUMN_NAME"] is not None  # as it is where MySQL keys an expression
            and part["SUB_PART"] is None
            and part["INDEX_TYPE"] == "BTREE"
            and not columns[positions[part["COLUMN_NAME"]]].nullable
            for part in parts
        )

    chosen = keys.get("PRIMARY") or next(filter(stands_in, keys.values()), [])
    return tuple(positions[part["COLUMN_NAME"]] for part in chosen)


def _column(row: Mapping[str, Any]) -> CatalogColumn:
    spelled = str(row["COLUMN_TYPE"])
    data_type = str(row["DATA_TYPE"]).lower()
    charset = row["CHARACTER_SET_NAME"]
    enumerated = data_type in ("enum", "set")
    return CatalogColumn(
        name=row["COLUMN_NAME"],
        data_type=data_type,
        nullable=row["IS_NULLABLE"] == "YES",
        unsigned=not enumerated and "unsigned" in spelled,
        characters=_number(row["CHARACTER_MAXIMUM_LENGTH"]),
        octets=_number(row["CHARACTER_OCTET_LENGTH"]),
        precision=_number(row["NUMERIC_PRECISION"]),
        scale=_number(row["NUMERIC_SCALE"]),
        fsp=_number(row.get("DATETIME_PRECISION")) or 0,
        charset=_UTF8.get(charset, charset) if charset != "binary" else None,
        members=parse_members(spelled) if enumerated else (),
        compressed=not enumerated and "COMPRESSED" in spelled,
        old_temporal=not enumerated and _OLD_TEMPORAL in spelled,
        short_year=spelled == "year(2)",
        vector_type=data_type == "vector" and "SRS_ID" in row,  # a column of MySQL's alone
    )


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def parse_members(column_type: str) -> tuple[str, ...]:
    """The members of `enum('a','it''s')` as the catalog spells it."""
    members: list[str] = []
    current: list[str] | None = None
    at = column_type.index("(") + 1
    while at < len(column_type):
        character = column_type[at]
        following = column_type[at + 1 : at + 2]
        if current is None:
            if character == "'":
                current = []
        elif character == "'" and following == "'":
            current.append("'")
            at += 1
        elif character == "'":
            members.append("".join(current))
            current = None
        elif character == "\\" and following in _ESCAPED:
            current.append(_ESCAPED[following])
            at += 1
        else:
            current.append(character)
        at += 1
    return tuple(members)

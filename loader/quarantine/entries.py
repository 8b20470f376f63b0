"""`raw.etl_quarantine`: rows that PostgreSQL refused, one entry for each key's last version.

Left: rows with the reason and the position, in the transaction of the rows around them.
Right: the same for whoever works them off; `keeping` is the loader's account of them.

A key has one entry at most, `key` being its COPY text as in etl_value_exceptions (of a very
long key, and of a row without a key, a digest). `row_image` is the row as COPY text, with the
columns that it was read under and the hash of the schema that those belong to: enough to write
it again. It is left out where it is larger than `MOST_IMAGE`; the replica has the row.
`reason` holds SQLSTATE and names, never a value. `raw_has_old_row` says that an older version
could not be taken out of `raw` either, as something there refused its removal.

`etl_quarantine_copy` is of the same form, for rows of copies that are not merged yet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from psycopg import sql

from config.connections import PostgresConnection
from loader.quarantine.refusals import Reason
from loader.rows import UNHELD
from loader.schema import RawTable
from loader.tracking import Offset
from loader.values import NULL, escaped, unescaped

TABLE: Final = "etl_quarantine"
COPY: Final = "etl_quarantine_copy"
UPSERT, DELETE = "upsert", "delete"
MOST_KEY = 2000
"""Bytes of a key's text; PostgreSQL's indexes hold no more than 2704."""
MOST_IMAGE = 64 << 20

_DDL = """
CREATE TABLE IF NOT EXISTS etl_quarantine (
  table_name text NOT NULL,
  key text NOT NULL,
  key_values json,
  operation text NOT NULL,
  reason text NOT NULL,
  copies bigint NOT NULL DEFAULT 1,
  raw_has_old_row boolean NOT NULL DEFAULT false,
  row_image bytea,
  image_columns text[] NOT NULL,
  schema_hash text NOT NULL,
  replica_binlog_file text,
  replica_binlog_position bigint,
  source_binlog_file text,
  source_binlog_position bigint,
  source_event_timestamp timestamptz,
  quarantined_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  attempts bigint NOT NULL DEFAULT 1,
  replay_requested_at timestamptz,
  PRIMARY KEY (table_name, key));
CREATE UNLOGGED TABLE IF NOT EXISTS etl_quarantine_copy (LIKE etl_quarantine INCLUDING ALL);
"""


def create_tables(connection: PostgresConnection) -> None:
    """Create our tables where they are missing; copies that were under way are void. Commits."""
    connection.execute("SET LOCAL client_min_messages = warning")
    connection.execute(_DDL)
    connection.execute("DELETE FROM etl_quarantine_copy")
    connection.commit()


@dataclass(frozen=True, slots=True)
class Refused:
    """A version of a row that PostgreSQL did not take.

    `key` and `row` are COPY text; without a row it is a deletion that was refused. `key` is None
    in a table without a key. `stale`: an older version of it could not be removed from `raw`.
    """

    key: bytes | None
    row: bytes | None
    source_ts: bytes
    reason: Reason
    copies: int = 1
    operation: str = UPSERT
    stale: bool = False

    @property
    def name(self) -> str:
        """How its entry is called."""
        if self.key is None:
            return row_name(self.row or b"", has_key=False)
        return row_name(self.key, has_key=True)


def row_name(key: bytes | None, *, has_key: bool) -> str:
    """How tracking tables call a row: its key's COPY text, or a digest of a long one or a row."""
    if key is None:
        return ""
    if has_key and len(key) <= MOST_KEY:
        return key.decode()
    return "sha256:" + hashlib.sha256(key).hexdigest()


def add(
    connection: PostgresConnection,
    table: str,
    shape: RawTable,
    schema_hash: str,
    refused: Iterable[Refused],
    offset: Offset | None,
    *,
    into: str = TABLE,
) -> None:
    """Enter refused versions, each in the place of an earlier one of its key."""
    source = offset.source if offset else None
    where = [
        offset.replica.file if offset else None,
        offset.replica.offset if offset else None,
        source.file if source else None,
        source.offset if source else None,
    ]
    rows = [
        [table, one.name, _key_values(one, shape), one.operation, one.reason.text, one.copies,
         one.stale, _image(one.row), list(shape.names), schema_hash, *where, _moment(one.source_ts)]
        for one in refused
    ]  # fmt: skip
    with connection.cursor() as cursor:
        cursor.executemany(_add(into), rows)


_COLUMNS = (
    "table_name", "key", "key_values", "operation", "reason", "copies", "raw_has_old_row",
    "row_image", "image_columns", "schema_hash", "replica_binlog_file", "replica_binlog_position",
    "source_binlog_file", "source_binlog_position", "source_event_timestamp",
)  # fmt: skip


def _add(into: str) -> sql.Composed:
    names = [sql.Identifier(name) for name in _COLUMNS]
    rest = ("quarantined_at", "attempts", "replay_requested_at")
    replaced = [sql.Identifier(name) for name in (*_COLUMNS[2:], *rest)]
    return sql.SQL(
        "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (table_name, key) DO UPDATE SET {}"
    ).format(
        sql.Identifier(into),
        sql.SQL(", ").join(names),
        sql.SQL(", ").join([sql.Placeholder()] * len(names)),
        sql.SQL(", ").join(sql.SQL("{} = EXCLUDED.{}").format(n, n) for n in replaced),
    )


def _key_values(one: Refused, shape: RawTable) -> str | None:
    if one.key is None:
        return None
    values = [_readable(field) for field in one.key.split(b"\t")]
    return json.dumps(dict(zip(shape.key, values, strict=True)), ensure_ascii=False)


def _readable(field: bytes) -> str | None:
    """A key's field as people read it; of one that PostgreSQL cannot hold, the original bytes."""
    if field.startswith(UNHELD):
        original = bytes.fromhex(field[len(UNHELD) :].decode())
        return original.replace(b"\0", rb"\0").decode(errors="backslashreplace")
    value = unescaped(field)
    return None if value is None else value.decode()


def _image(row: bytes | None) -> bytes | None:
    return None if row is None or len(row) > MOST_IMAGE else row


def _moment(source_ts: bytes) -> str | None:
    return None if source_ts == NULL else source_ts.decode()


# --- clearing ------------------------------------------------------------------------------


def clear(connection: PostgresConnection, table: str, names: Collection[str]) -> int:
    """Forget the entries of rows that are about to be written or deleted; how many there were."""
    return connection.execute(
        "DELETE FROM etl_quarantine WHERE table_name = %s AND key = ANY(%s)", [table, list(names)]
    ).rowcount


def clear_all(connection: PostgresConnection, table: str) -> None:
    """Forget all entries of a table."""
    connection.execute("DELETE FROM etl_quarantine WHERE table_name = %s", [table])


def take_copies(
    connection: PostgresConnection, table: str, names: Collection[str]
) -> dict[str, int]:
    """Take entries of a table without a key out: copies to add, or (negative) to take away."""
    rows = connection.execute(
        "DELETE FROM etl_quarantine WHERE table_name = %s AND key = ANY(%s)"
        " RETURNING key, CASE operation WHEN 'delete' THEN -copies ELSE copies END",
        [table, list(names)],
    )
    return {name: int(copies) for name, copies in rows}


def move_copy(connection: PostgresConnection, table: str, touched: str | None) -> None:
    """A copy's entries take the place of the table's, but for keys in `touched`."""
    spare: sql.Composable = (
        sql.SQL(" AND key NOT IN (SELECT _key FROM {})").format(sql.Identifier(touched))
        if touched
        else sql.SQL("")
    )
    whose = sql.SQL(" WHERE table_name = {}").format(sql.Literal(table))
    connection.execute(sql.SQL("DELETE FROM etl_quarantine") + whose + spare)
    names = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
    connection.execute(
        sql.SQL(
            "INSERT INTO etl_quarantine ({}) SELECT {} FROM etl_quarantine_copy{}{}"
            " ON CONFLICT DO NOTHING"
        ).format(names, names, whose, spare)
    )
    connection.execute(sql.SQL("DELETE FROM etl_quarantine_copy") + whose)


def clear_copy(connection: PostgresConnection, table: str) -> None:
    """A copy of the table begins."""
    connection.execute("DELETE FROM etl_quarantine_copy WHERE table_name = %s", [table])


# --- reading -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """An entry, as far as it takes to write its row again."""

    table: str
    name: str
    key_values: dict[str, str | None] | None
    operation: str
    copies: int
    image: bytes | None
    columns: tuple[str, ...]
    schema_hash: str
    source_ts: bytes

    def key(self, shape: RawTable) -> bytes | None:
        """The key's COPY text; None in a table without one."""
        values = self.key_values
        if values is None:
            return None
        return b"\t".join(_field(values[name]) for name in shape.key)


def _field(value: str | None) -> bytes:
    return NULL if value is None else escaped(value.encode())


def counts(connection: PostgresConnection) -> dict[str, int]:
    """Rows in quarantine by table, of those that have any; a row without a key counts each copy."""
    rows = connection.execute("SELECT table_name, sum(copies) FROM etl_quarantine GROUP BY 1")
    return {name: int(count) for name, count in rows}


def any_of(connection: PostgresConnection, table: str) -> bool:
    """Has the table rows in quarantine?"""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM etl_quarantine WHERE table_name = %s)", [table]
    ).fetchone()
    return row is not None and bool(row[0])


def requested(
    connection: PostgresConnection, tables: Sequence[str], most: int, most_bytes: int
) -> list[tuple[str, str]]:
    """Tables and names of entries that somebody asked to replay, oldest first, not too many."""
    rows = connection.execute(
        "SELECT table_name, key FROM (SELECT table_name, key, quarantined_at,"
        " sum(coalesce(octet_length(row_image), 0)) OVER (ORDER BY quarantined_at, table_name, key"
        " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM etl_quarantine"
        " WHERE replay_requested_at IS NOT NULL AND table_name = ANY(%s)) AS wanted"
        " WHERE coalesce(before, 0) < %s ORDER BY quarantined_at, table_name, key LIMIT %s",
        [list(tables), most_bytes, most],
    )
    return [(table, name) for table, name in rows]


def read(connection: PostgresConnection, table: str, names: Sequence[str]) -> list[Held]:
    """A table's entries of these names, in this order."""
    rows = connection.execute(
        "SELECT q.table_name, q.key, q.key_values, q.operation, q.copies, q.row_image,"
        " q.image_columns, q.schema_hash, q.source_event_timestamp"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS w(key, place)"
        " JOIN etl_quarantine AS q ON q.key = w.key WHERE q.table_name = %s ORDER BY w.place",
        [list(names), table],
    )
    return [
        Held(name, key, values, operation, copies, image, tuple(columns), digest, _stamp(moment))
        for name, key, values, operation, copies, image, columns, digest, moment in rows
    ]


def _stamp(moment: datetime | None) -> bytes:
    if moment is None:
        return NULL
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00").encode()


def refuse_again(
    connection: PostgresConnection, table: str, again: Sequence[tuple[str, str, bool | None]]
) -> None:
    """A replay was refused: name, why, and whether `raw` has an older version (None: as before)."""
    if not again:
        return
    connection.execute(
        "UPDATE etl_quarantine AS q SET reason = w.reason, attempts = q.attempts + 1,"
        " raw_has_old_row = coalesce(w.stale, q.raw_has_old_row), replay_requested_at = NULL"
        " FROM unnest(%s::text[], %s::text[], %s::boolean[]) AS w(key, reason, stale)"
        " WHERE q.table_name = %s AND q.key = w.key",
        [*([one[place] for one in again] for place in range(3)), table],
    )

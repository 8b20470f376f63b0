"""The loader's own tables in PostgreSQL: how far `raw` has come, and each table's state.

Left: positions and states, in the transaction of the rows that they belong to.
Right: the same on the next start, and for whoever asks how fresh `raw` is. All
names are unqualified: the connection's search path is the raw schema.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC

from psycopg import sql
from psycopg.rows import dict_row

from config.connections import PostgresConnection
from config.errors import AlreadyRunning, ConnectionLost
from config.metrics import VALUE_EXCEPTIONS
from loader.values import ValueFault
from replicator.binlog.position import ReplicaPosition, SourcePosition

STREAM = "loader"

WAITING, LOADING, STREAMING, RELOADING, DROPPED = (
    "waiting",
    "loading",
    "streaming",
    "reloading",
    "dropped",
)

KEPT_DROPPED = 1000
"""Tables that are gone whose states are kept, for a day, for whoever asks where they went."""

_DDL = """
CREATE TABLE IF NOT EXISTS etl_transform_status (
  table_name text PRIMARY KEY,
  last_transformed timestamptz,
  rows_transformed bigint NOT NULL DEFAULT 0,
  transformation_status text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  schema_hash text);
CREATE TABLE IF NOT EXISTS etl_binlog_offset (
  stream text PRIMARY KEY,
  replica_server_id bigint NOT NULL,
  binlog_file text NOT NULL,
  binlog_position bigint NOT NULL,
  gtid_set text NOT NULL DEFAULT '',
  source_binlog_file text,
  source_binlog_position bigint,
  source_event_timestamp timestamptz,
  updated_at timestamptz NOT NULL,
  binlog_created bigint NOT NULL DEFAULT 0,
  chained boolean NOT NULL DEFAULT false);
CREATE TABLE IF NOT EXISTS etl_value_exceptions (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  table_name text NOT NULL,
  key text NOT NULL,
  column_name text NOT NULL,
  original bytea NOT NULL,
  reason text NOT NULL,
  source_binlog_file text,
  source_binlog_position bigint,
  seen_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE INDEX IF NOT EXISTS etl_value_exceptions_by_table ON etl_value_exceptions (table_name);
CREATE TABLE IF NOT EXISTS etl_load_watermark (
  table_name text PRIMARY KEY,
  source_binlog_file text NOT NULL,
  source_binlog_position bigint NOT NULL);
"""


_ADDED = (
    ("binlog_created", "bigint NOT NULL DEFAULT 0"),
    ("chained", "boolean NOT NULL DEFAULT false"),
)
"""Columns of etl_binlog_offset that older versions lack: appended in place."""


@dataclass(frozen=True, slots=True)
class Offset:
    """Where `raw` stands: the replica position written, and the source's behind it."""

    replica: ReplicaPosition
    replica_server_id: int
    gtid: str = ""
    source: SourcePosition | None = None
    source_ts: str | None = None
    """The source commit time as PostgreSQL reads it, UTC."""
    created: int = 0
    """When the replica began the position's binlog file, in seconds since 1970; 0: not known."""
    chained: bool = False
    """Is `source` exactly where leg 1's offset row stood here? At first it may be earlier."""
    applied_at: str | None = None
    """When leg 1 sent this to the replica, by its clock (UTC), as MySQL writes it; not stored."""


@dataclass(frozen=True, slots=True)
class TableStatus:
    """A row of etl_transform_status, as far as the loader needs it."""

    state: str
    schema_hash: str | None


def create_tables(connection: PostgresConnection, schema: str) -> None:
    """Create the schema and the tracking tables where they are missing; commits."""
    found = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema])
    if found.fetchone() is None:
        statement = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema))
        connection.execute(statement)
    connection.execute("SET LOCAL client_min_messages = warning")
    connection.execute(_DDL)
    found = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'etl_binlog_offset'::regclass"
    )
    there = {row[0] for row in found}
    for column, definition in _ADDED:
        if column not in there:  # else the statement would lock readers out, and be locked out
            statement = sql.SQL("ALTER TABLE etl_binlog_offset ADD COLUMN {} ").format(
                sql.Identifier(column)
            ) + sql.SQL(definition)
            connection.execute(statement)
    connection.commit()


def writer_lock_key(database: str, schema: str) -> int:
    """The advisory lock of the schema's one loader, as a signed 64-bit number."""
    digest = hashlib.sha256(f"loader|{database}|{schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def copier_lock_key(database: str, schema: str) -> int:
    """The advisory lock that the loader's copying connections share."""
    digest = hashlib.sha256(f"loader copies|{database}|{schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def lock_writer(connection: PostgresConnection, database: str, schema: str, wait: float) -> None:
    """Become the schema's only loader for as long as `connection` lives.

    Waits up to `wait` seconds for a predecessor's dying connection, then raises AlreadyRunning;
    also for the connections beside it that copy tables, each of which shares a second lock.
    """
    _notice_dead_peers(connection)
    key, side = writer_lock_key(database, schema), copier_lock_key(database, schema)
    deadline = time.monotonic() + wait
    for each in (key, side):
        while not _locked(connection, "SELECT pg_try_advisory_lock(%s)", [each]):
            if time.monotonic() > deadline:
                raise AlreadyRunning(
                    f"another loader already writes to schema {schema} of database {database}",
                    hint="Stop it first: systemctl stop loader, or find it with SELECT pid,"
                    " application_name FROM pg_stat_activity",
                )
            time.sleep(0.2)
    _locked(connection, "SELECT pg_advisory_unlock(%s)", [side])


def lock_copier(connection: PostgresConnection, database: str, schema: str, writer: int) -> None:
    """Let a connection copy tables while the backend `writer` is the schema's only loader.

    First it takes its share of the second lock, then it looks for the first: whoever becomes
    the loader afterwards waits for this connection's end.
    """
    _notice_dead_peers(connection)
    side = copier_lock_key(database, schema)
    key = writer_lock_key(database, schema) % (1 << 64)
    held = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted"
        " AND mode = 'ExclusiveLock' AND objsubid = 1 AND classid = %s::bigint::oid"
        " AND objid = %s::bigint::oid AND pid = %s AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
    shared = _locked(connection, "SELECT pg_try_advisory_lock_shared(%s)", [side])
    if not shared or not _locked(connection, held, [key >> 32, key & 0xFFFFFFFF, writer]):
        raise ConnectionLost("PostgreSQL no longer knows this loader's lock")


def _locked(connection: PostgresConnection, query: str, parameters: list[int]) -> bool:
    row = connection.execute(query, parameters).fetchone()
    connection.commit()
    return row is not None and bool(row[0])


def _notice_dead_peers(connection: PostgresConnection) -> None:
    """Let the server see within half a minute that our host is gone: its locks go with it.

    Keep-alives ask a host that owes nothing; one that owes an acknowledgement is given up by the
    other, which else takes a quarter of an hour.
    """
    connection.execute(
        "SELECT set_config('tcp_keepalives_idle', '15', false),"
        " set_config('tcp_keepalives_interval', '5', false),"
        " set_config('tcp_keepalives_count', '3', false),"
        " set_config('tcp_user_timeout', '30000', false)"
    )
    connection.commit()


def read_offset(connection: PostgresConnection) -> Offset | None:
    """The stored offset, or None on the first start."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SELECT * FROM etl_binlog_offset WHERE stream = %s", [STREAM])
        row = cursor.fetchone()
    if row is None:
        return None
    file, moment = row["source_binlog_file"], row["source_event_timestamp"]
    return Offset(
        ReplicaPosition(row["binlog_file"], row["binlog_position"]),
        row["replica_server_id"],
        row["gtid_set"],
        SourcePosition(file, row["source_binlog_position"]) if file else None,
        moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00") if moment else None,
        row.get("binlog_created", 0),  # `status` may look before the loader has made them
        row.get("chained", False),
    )


def write_offset(connection: PostgresConnection, offset: Offset) -> None:
    """Store the offset in the open transaction."""
    source = offset.source
    connection.execute(
        "INSERT INTO etl_binlog_offset (stream, replica_server_id, binlog_file, binlog_position,"
        " gtid_set, source_binlog_file, source_binlog_position, source_event_timestamp,"
        " binlog_created, chained, updated_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, statement_timestamp())"
        " ON CONFLICT (stream) DO UPDATE SET"
        " replica_server_id = EXCLUDED.replica_server_id, binlog_file = EXCLUDED.binlog_file,"
        " binlog_position = EXCLUDED.binlog_position, gtid_set = EXCLUDED.gtid_set,"
        " source_binlog_file = EXCLUDED.source_binlog_file,"
        " source_binlog_position = EXCLUDED.source_binlog_position,"
        " source_event_timestamp = EXCLUDED.source_event_timestamp,"
        " binlog_created = EXCLUDED.binlog_created, chained = EXCLUDED.chained,"
        " updated_at = EXCLUDED.updated_at",
        [
            STREAM,
            offset.replica_server_id,
            offset.replica.file,
            offset.replica.offset,
            offset.gtid,
            source.file if source else None,
            source.offset if source else None,
            offset.source_ts,
            offset.created,
            offset.chained,
        ],
    )


def read_statuses(connection: PostgresConnection) -> dict[str, TableStatus]:
    """Every table's state."""
    rows = connection.execute(
        "SELECT table_name, transformation_status, schema_hash FROM etl_transform_status"
    )
    return {name: TableStatus(state, schema_hash) for name, state, schema_hash in rows}


def set_state(connection: PostgresConnection, tables: Iterable[str], state: str) -> None:
    """Set the state of `tables`, creating their rows."""
    connection.execute(
        "INSERT INTO etl_transform_status (table_name, transformation_status)"
        " SELECT unnest(%s::text[]), %s ON CONFLICT (table_name) DO UPDATE SET"
        " transformation_status = EXCLUDED.transformation_status,"
        " updated_at = statement_timestamp()"
        " WHERE etl_transform_status.transformation_status <> EXCLUDED.transformation_status",
        [sorted(tables), state],
    )


def forget_dropped(connection: PostgresConnection) -> None:
    """Forget tables that have been gone for a day, and all but the last thousand that are gone."""
    connection.execute(
        "DELETE FROM etl_transform_status WHERE table_name IN (SELECT table_name FROM"
        " (SELECT table_name, updated_at, row_number() OVER (ORDER BY updated_at DESC) AS place"
        " FROM etl_transform_status WHERE transformation_status = %s) AS gone"
        " WHERE updated_at < statement_timestamp() - interval '1 day' OR place > %s)",
        [DROPPED, KEPT_DROPPED],
    )


def note_loaded(connection: PostgresConnection, table: str, rows: int, schema_hash: str) -> None:
    """A table was (re)loaded as a whole and streams from here."""
    connection.execute(
        "INSERT INTO etl_transform_status (table_name, last_transformed, rows_transformed,"
        " transformation_status, schema_hash) VALUES (%s, statement_timestamp(), %s, %s, %s)"
        " ON CONFLICT (table_name) DO UPDATE SET last_transformed = EXCLUDED.last_transformed,"
        " rows_transformed = etl_transform_status.rows_transformed + EXCLUDED.rows_transformed,"
        " transformation_status = EXCLUDED.transformation_status,"
        " schema_hash = EXCLUDED.schema_hash, updated_at = statement_timestamp()",
        [table, rows, STREAMING, schema_hash],
    )


def note_written(connection: PostgresConnection, written: Mapping[str, tuple[int, str]]) -> None:
    """Rows were written by the stream: table to (rows, schema hash)."""
    connection.execute(
        "UPDATE etl_transform_status AS s SET last_transformed = statement_timestamp(),"
        " rows_transformed = s.rows_transformed + w.rows, schema_hash = w.schema_hash,"
        " updated_at = statement_timestamp()"
        " FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS w(name, rows, schema_hash)"
        " WHERE s.table_name = w.name",
        [
            list(written),
            [rows for rows, _ in written.values()],
            [schema_hash for _, schema_hash in written.values()],
        ],
    )


def read_watermarks(connection: PostgresConnection) -> dict[str, SourcePosition]:
    """Keyless tables' watermarks: their events up to there are in `raw` already."""
    rows = connection.execute(
        "SELECT table_name, source_binlog_file, source_binlog_position FROM etl_load_watermark"
    )
    return {name: SourcePosition(file, offset) for name, file, offset in rows}


def set_watermark(
    connection: PostgresConnection, table: str, watermark: SourcePosition | None
) -> None:
    """Remember, or forget, the watermark of a table without a key."""
    connection.execute("DELETE FROM etl_load_watermark WHERE table_name = %s", [table])
    if watermark is not None:
        connection.execute(
            "INSERT INTO etl_load_watermark VALUES (%s, %s, %s)",
            [table, watermark.file, watermark.offset],
        )


def tables_with_exceptions(connection: PostgresConnection) -> set[str]:
    """Tables that have value exceptions."""
    rows = connection.execute("SELECT DISTINCT table_name FROM etl_value_exceptions")
    return {name for (name,) in rows}


def clear_exceptions(connection: PostgresConnection, table: str, keys: Collection[str]) -> None:
    """Forget the exceptions of rows that are about to be written or deleted."""
    connection.execute(
        "DELETE FROM etl_value_exceptions WHERE table_name = %s AND key = ANY(%s)",
        [table, list(keys)],
    )


def clear_all_exceptions(connection: PostgresConnection, table: str) -> None:
    """Forget all exceptions of a table."""
    connection.execute("DELETE FROM etl_value_exceptions WHERE table_name = %s", [table])


def rename_exceptions(connection: PostgresConnection, old: str, new: str) -> None:
    """Exceptions noted under a raw or helper table's name belong to the table `new`."""
    if old != new:
        connection.execute(
            "UPDATE etl_value_exceptions SET table_name = %s WHERE table_name = %s", [new, old]
        )


def add_exceptions(
    connection: PostgresConnection,
    table: str,
    faults: Iterable[tuple[str, ValueFault]],
    source: SourcePosition | None,
) -> None:
    """Keep the original bytes of values that PostgreSQL cannot hold: (key, fault) each."""
    file, offset = (source.file, source.offset) if source else (None, None)
    copy = (
        "COPY etl_value_exceptions (table_name, key, column_name, original, reason,"
        " source_binlog_file, source_binlog_position) FROM STDIN"
    )
    with connection.cursor() as cursor, cursor.copy(copy) as sink:
        for key, fault in faults:
            VALUE_EXCEPTIONS.labels(fault.reason).inc()
            sink.write_row((table, key, fault.column, fault.original, fault.reason, file, offset))

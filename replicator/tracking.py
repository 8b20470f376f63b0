"""What leg 1 remembers, in tables beside the rows: offsets and the states of tables.

The seed's `etl_extract_status` keeps its columns. Positions stand in
`etl_binlog_offset`, a row a stream. Every tracking table of the replica is defined here;
`copy_progress.py` reads and writes those of unfinished copies, `resync_requests.py` and
`mend_requests.py` what was asked for.
All functions take a connection and leave commits to the caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from config import control, records
from config.failpoints import reach
from replicator.binlog.gtidset import GtidSet
from replicator.binlog.position import SourcePosition

_COM_QUERY = 3

MAIN = "main"
RESYNC = "resync"
RESERVED_PREFIXES = ("etl_", "_resync_", "_old_")
"""Table names in the replica's database that are ours; a source table may not bear them."""

_ASCII = "CHARACTER SET ascii COLLATE ascii_bin"
_NAME = "varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"

DEFINITIONS = (
    # The row image that exact.py writes by hand follows this column order: see offset_row.py.
    f"""CREATE TABLE IF NOT EXISTS etl_binlog_offset (
      stream varchar(64) {_ASCII} NOT NULL,
      binlog_file varchar(255) {_ASCII} NOT NULL,
      binlog_position bigint unsigned NOT NULL,
      source_server_id bigint unsigned NOT NULL,
      source_server_uuid varchar(64) {_ASCII} NOT NULL,
      gtid_set longtext {_ASCII} NOT NULL,
      event_timestamp datetime(6) NULL,
      pending_ddl longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
      updated_at datetime(6) NOT NULL,
      binlog_created bigint unsigned NOT NULL DEFAULT 0,
      PRIMARY KEY (stream, binlog_file, binlog_position)
    ) ENGINE=InnoDB""",
    f"""CREATE TABLE IF NOT EXISTS etl_extract_status (
      table_name {_NAME} NOT NULL PRIMARY KEY,
      last_extracted datetime(6) NULL,
      rows_extracted bigint unsigned NOT NULL DEFAULT 0,
      extraction_status varchar(32) {_ASCII} NOT NULL,
      schema_hash char(64) {_ASCII} NULL
    ) ENGINE=InnoDB""",
    f"""CREATE TABLE IF NOT EXISTS etl_copy_progress (
      target_table {_NAME} NOT NULL PRIMARY KEY,
      source_table {_NAME} NOT NULL,
      low_file varchar(255) {_ASCII} NULL, low_position bigint unsigned NULL,
      high_file varchar(255) {_ASCII} NULL, high_position bigint unsigned NULL,
      copy_key longtext {_ASCII} NULL,
      rows_copied bigint unsigned NOT NULL DEFAULT 0,
      rows_expected bigint unsigned NOT NULL DEFAULT 0
    ) ENGINE=InnoDB""",
    f"""CREATE TABLE IF NOT EXISTS etl_copy_again (
      target_table {_NAME} NOT NULL,
      key_hash binary(32) NOT NULL,
      key_literals longtext {_ASCII} NOT NULL,
      read_again tinyint NOT NULL DEFAULT 0,
      PRIMARY KEY (target_table, key_hash)
    ) ENGINE=InnoDB""",
    f"""CREATE TABLE IF NOT EXISTS etl_resync_request (
      id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
      table_name {_NAME} NOT NULL,
      requested_at datetime(6) NOT NULL,
      state varchar(16) {_ASCII} NOT NULL,
      rows_total bigint unsigned NOT NULL DEFAULT 0,
      rows_copied bigint unsigned NOT NULL DEFAULT 0,
      message text CHARACTER SET utf8mb4 NULL,
      updated_at datetime(6) NOT NULL,
      reason varchar(16) {_ASCII} NOT NULL DEFAULT 'asked'
    ) ENGINE=InnoDB""",
    f"""CREATE TABLE IF NOT EXISTS etl_mend_request (
      id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
      table_name {_NAME} NOT NULL,
      side varchar(16) {_ASCII} NOT NULL,
      key_literals longtext {_ASCII} NOT NULL,
      requested_at datetime(6) NOT NULL,
      state varchar(16) {_ASCII} NOT NULL,
      rows_mended bigint unsigned NOT NULL DEFAULT 0,
      reload_id bigint unsigned NULL,
      message text CHARACTER SET utf8mb4 NULL,
      updated_at datetime(6) NOT NULL
    ) ENGINE=InnoDB""",
    f"""CREATE TABLE IF NOT EXISTS etl_source_zone (
      id tinyint unsigned NOT NULL PRIMARY KEY,
      fingerprint varchar(64) {_ASCII} NOT NULL,
      known_from bigint unsigned NOT NULL
    ) ENGINE=InnoDB""",
    *records.DEFINITIONS,
    *control.DEFINITIONS,
)


_ADDED = (
    ("etl_binlog_offset", "binlog_created", "bigint unsigned NOT NULL DEFAULT 0"),
    ("etl_resync_request", "reason", f"varchar(16) {_ASCII} NOT NULL DEFAULT 'asked'"),
)
"""Columns that older versions' tables lack: appended in place."""


class TableState:
    """Words of `etl_extract_status.extraction_status`."""

    COPYING = "copying"
    """The first copy has not read it whole yet."""
    RECONCILING = "reconciling"
    """Copied; the stream has not passed the end of its copy's window."""
    STREAMING = "streaming"
    """Exact at the stream's position."""
    QUEUED = "queued"
    """Not exact; skipped until its resync has taken its place."""
    VANISHED = "vanished"
    """Gone on the source before the stream has told why; skipped until it does."""
    EXCLUDED = "excluded"
    """Left out by tables.toml since; what was carried before stays as it was."""


@dataclass(frozen=True, slots=True)
class Offset:
    """A row of `etl_binlog_offset`: up to where a stream's changes are in the replica."""

    stream: str
    position: SourcePosition
    server_id: int
    server_uuid: str
    gtid: str = ""
    """The GTID set that is executed here, as `GtidSet` writes it; "" where there are no GTIDs."""
    event_timestamp: datetime | None = None
    pending_ddl: str | None = None
    binlog_created: int = 0
    """When the source began the position's binlog file, in seconds since 1970; 0: not known."""

    def executed(self, gtid: str) -> Offset:
        """The same with one more GTID in its set."""
        gtids = GtidSet.parse(self.gtid)
        gtids.add(gtid)
        return replace(self, gtid=str(gtids))

    def at(self, position: SourcePosition) -> Offset:
        """The same stream further on."""
        return replace(self, position=position)


def utc_now() -> datetime:
    """Now, without zone, as the tracking tables store it."""
    return datetime.now(UTC).replace(tzinfo=None)


def execute(connection: Any, sql: str, arguments: Sequence[object] = ()) -> int:
    """Run one statement; the number of rows it touched."""
    with connection.cursor() as cursor:
        return int(cursor.execute(sql, arguments or None))


def execute_bytes(connection: Any, statement: bytes) -> None:
    """Run a statement whose bytes are to reach the server as they are."""
    execute_command(connection, _COM_QUERY, statement)


def execute_command(connection: Any, number: int, content: bytes) -> None:
    """Run a command of the protocol that is answered as a statement is."""
    connection._execute_command(number, content)
    reach("replica.sent")
    connection._read_query_result()


def fetch(connection: Any, sql: str, arguments: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """Run one query; all its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments or None)
        return list(cursor.fetchall())


def ensure(connection: Any) -> None:
    """Create the tracking tables that are missing."""
    for definition in DEFINITIONS:
        name = definition.split("EXISTS ")[1].split(" ")[0]
        if not fetch(connection, "SHOW TABLES LIKE %s", [name.replace("_", r"\_")]):
            execute(connection, definition)
    for table, column, definition in _ADDED:
        if not fetch(
            connection, f"SHOW COLUMNS FROM {table} LIKE %s", [column.replace("_", r"\_")]
        ):
            execute(connection, f"ALTER TABLE {table} ADD COLUMN {column} {definition}")


# --- offsets -----------------------------------------------------------------------------

_OFFSET_COLUMNS = (
    "stream, binlog_file, binlog_position, source_server_id, source_server_uuid, gtid_set,"
    " event_timestamp, pending_ddl, binlog_created"
)


def read_offset(connection: Any, stream: str) -> Offset | None:
    """The stream's offset row, or None where it has never started."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM etl_binlog_offset WHERE stream=%s", [stream])
        row = cursor.fetchone()
        names = [column[0] for column in cursor.description]
    if row is None:
        return None
    value = dict(zip(names, row, strict=True))
    return Offset(
        value["stream"],
        SourcePosition(value["binlog_file"], value["binlog_position"]),
        value["source_server_id"],
        value["source_server_uuid"],
        value["gtid_set"],
        value["event_timestamp"],
        value["pending_ddl"],
        value.get("binlog_created", 0),  # `status` may look before leg 1 has made it
    )


def write_offset(connection: Any, offset: Offset) -> None:
    """Set the stream's offset row by SQL (streams in flight move it by row event instead)."""
    forget_offset(connection, offset.stream)
    execute(
        connection,
        f"INSERT INTO etl_binlog_offset ({_OFFSET_COLUMNS}, updated_at)"
        " VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)",
        [
            offset.stream,
            offset.position.file,
            offset.position.offset,
            offset.server_id,
            offset.server_uuid,
            offset.gtid,
            offset.event_timestamp,
            offset.pending_ddl,
            offset.binlog_created,
            utc_now(),
        ],
    )


def forget_offset(connection: Any, stream: str) -> None:
    """Remove a stream that has ended."""
    execute(connection, "DELETE FROM etl_binlog_offset WHERE stream=%s", [stream])


def set_pending(connection: Any, stream: str, pending: dict[str, Any] | None) -> None:
    """Record what is about to be done outside a transaction, or that it is done."""
    text = None if pending is None else json.dumps(pending, sort_keys=True)
    execute(
        connection,
        "UPDATE etl_binlog_offset SET pending_ddl=%s, updated_at=%s WHERE stream=%s",
        [text, utc_now(), stream],
    )


# --- table states ------------------------------------------------------------------------


def table_states(connection: Any) -> dict[str, str]:
    """Every known table's state."""
    return dict(fetch(connection, "SELECT table_name, extraction_status FROM etl_extract_status"))


def set_state(
    connection: Any,
    table: str,
    state: str,
    *,
    schema_hash: str | None = None,
    rows: int | None = None,
) -> None:
    """Set a table's state; its hash and copied rows too where given."""
    execute(
        connection,
        "INSERT INTO etl_extract_status"
        " (table_name, last_extracted, rows_extracted, extraction_status, schema_hash)"
        " VALUES (%s,%s,%s,%s,%s) ON DUPLICATE KEY UPDATE"
        " last_extracted=VALUES(last_extracted), extraction_status=VALUES(extraction_status),"
        " rows_extracted=IF(%s, VALUES(rows_extracted), rows_extracted),"
        " schema_hash=COALESCE(VALUES(schema_hash), schema_hash)",
        [table, utc_now(), rows or 0, state, schema_hash, rows is not None],
    )


def set_states(connection: Any, state: str, tables: Iterable[str] | Mapping[str, int]) -> None:
    """Set the state of many tables at once; their copied rows too where a mapping has them."""
    rows = tables if isinstance(tables, Mapping) else dict.fromkeys(tables, 0)
    counted = " rows_extracted=VALUES(rows_extracted)," if isinstance(tables, Mapping) else ""
    if not rows:
        return
    now = utc_now()
    execute(
        connection,
        "INSERT INTO etl_extract_status"
        " (table_name, last_extracted, rows_extracted, extraction_status)"
        f" VALUES {','.join(['(%s,%s,%s,%s)'] * len(rows))} ON DUPLICATE KEY UPDATE"
        f" last_extracted=VALUES(last_extracted),{counted}"
        " extraction_status=VALUES(extraction_status)",
        [value for table, count in rows.items() for value in (table, now, count, state)],
    )


def touch_tables(connection: Any, tables: Iterable[str]) -> None:
    """Note that changes of these tables have been applied."""
    now = utc_now()
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE etl_extract_status SET last_extracted=%s WHERE table_name=%s",
            [(now, table) for table in sorted(tables)],
        )


def forget_table(connection: Any, table: str) -> None:
    """A dropped table has no state."""
    execute(connection, "DELETE FROM etl_extract_status WHERE table_name=%s", [table])

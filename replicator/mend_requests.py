"""Rows that are to be mended by key: what `verify --repair` asks leg 1 for.

Left: a table, a side, keys as SQL literals. Right: rows of `etl_mend_request`, which leg 1 takes
up one after the other, and what became of them. A request without keys is for the whole table.

Keys go into statements that the source is asked with. So whatever stands in the table, only
literals are taken from it: numbers, hex strings, dates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from replicator.tracking import execute, fetch, utc_now

REPLICA, RAW = "replica", "raw"
"""What is wrong: the replica's rows, so that the source's take their place there and, by the
replica's binlog, in `raw`; or only those in `raw`."""

QUEUED, DONE, RELOADING, FAILED = "queued", "done", "reloading", "failed"
"""RELOADING: the table is reloaded instead, by the request `reload_id`."""

MOST_KEYS = 1000
"""Keys of one request: what it takes to mend them is one transaction."""

Literals = tuple[str, ...]

_LITERAL = re.compile(r"-?\d+(\.\d+)?|(_[a-z0-9]+ )?x'[0-9a-fA-F]*'|'[0-9:. -]+'")


@dataclass(frozen=True, slots=True)
class MendRequest:
    """Rows of one table that are to be mended; all of it where `keys` is empty."""

    id: int
    table: str
    side: str
    keys: tuple[Literals, ...]


@dataclass(frozen=True, slots=True)
class MendState:
    """What became of a request."""

    id: int
    table: str
    side: str
    state: str
    rows: int
    reload: int | None
    message: str | None


def queue_mend(connection: Any, table: str, side: str, keys: Sequence[Literals]) -> int:
    """Ask for rows to be mended; the request's number. The caller commits."""
    now = utc_now()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO etl_mend_request (table_name, side, key_literals, requested_at, state,"
            " updated_at) VALUES (%s,%s,%s,%s,%s,%s)",
            [table, side, json.dumps([list(key) for key in keys]), now, QUEUED, now],
        )
        return int(cursor.lastrowid)


def waiting(connection: Any) -> list[MendRequest]:
    """The requests that wait, the oldest first."""
    rows = fetch(
        connection,
        "SELECT id, table_name, side, key_literals FROM etl_mend_request WHERE state=%s"
        " ORDER BY id",
        [QUEUED],
    )
    return [MendRequest(number, table, side, _keys(text)) for number, table, side, text in rows]


def _keys(text: str) -> tuple[Literals, ...]:
    keys = tuple(tuple(str(word) for word in key) for key in json.loads(text))
    if all(_LITERAL.fullmatch(word) for key in keys for word in key):
        return keys
    return ()  # none of ours: the whole table, then


def end_mend(
    connection: Any,
    number: int,
    state: str,
    *,
    rows: int = 0,
    reload: int | None = None,
    message: str | None = None,
) -> None:
    """Note what became of a request."""
    execute(
        connection,
        "UPDATE etl_mend_request SET state=%s, rows_mended=%s, reload_id=%s, message=%s,"
        " updated_at=%s WHERE id=%s",
        [state, rows, reload, message, utc_now(), number],
    )


def mends(connection: Any, numbers: Sequence[int]) -> list[MendState]:
    """What became of these requests."""
    rows = fetch(
        connection,
        "SELECT id, table_name, side, state, rows_mended, reload_id, message"
        " FROM etl_mend_request WHERE id IN %s ORDER BY id",
        [tuple(numbers)],
    )
    return [MendState(*row) for row in rows]

"""Tables that are to be reloaded in full, row by row of `etl_resync_request`.

Left: what an operator, a conflict or a lost position asks for. Right: requests that leg 1 takes
up one after the other (`resync_desk.py`), and that leg 2 answers when their table is in `raw`.
All functions take a connection and leave commits to the caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from replicator.tracking import TableState, execute, fetch, table_states, utc_now

CONFLICT = "conflict"


class RequestState:
    """Words of `etl_resync_request.state`."""

    QUEUED = "queued"
    RESTARTING = "restarting"
    """Part of a copy of everything, from a new position."""
    COPYING = "copying"
    CATCHING_UP = "catching_up"
    LOADING = "loading"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ResyncRequest:
    """A table that is to be reloaded in full."""

    id: int
    table: str
    state: str
    reason: str = "asked"
    """Who asked: CONFLICT where the daemon did, since the table's rows were not what they should
    be; it must not go on without it."""


def queue_resync(connection: Any, tables: Iterable[str]) -> list[int]:
    """Ask for tables to be reloaded; a table that already waits is not queued twice."""
    tables = list(tables)
    for table in tables:  # what a copy of everything began, a copy of its own must end
        _move_restarted(connection, table, RequestState.QUEUED)
    waiting = {
        table: number
        for number, table in fetch(
            connection,
            "SELECT id, table_name FROM etl_resync_request WHERE state=%s",
            [RequestState.QUEUED],
        )
    }
    numbers = []
    for table in tables:
        if table not in waiting:
            now = utc_now()
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
                    " VALUES (%s,%s,%s,%s)",
                    [table, now, RequestState.QUEUED, now],
                )
                waiting[table] = cursor.lastrowid
        numbers.append(int(waiting[table]))
    return numbers


def ask_leg_2(connection: Any, tables: Iterable[str]) -> list[int]:
    """Let leg 2 reload tables that are exact on the replica, as it does behind a resync."""
    now = utc_now()
    numbers = []
    for table in tables:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
                " VALUES (%s,%s,%s,%s)",
                [table, now, RequestState.LOADING, now],
            )
            numbers.append(int(cursor.lastrowid))
    return numbers


def queue_repair(connection: Any, table: str) -> None:
    """Ask for a table's reload since its rows are not what they should be, and remember when."""
    (number,) = queue_resync(connection, [table])
    execute(
        connection,
        "UPDATE etl_resync_request SET reason=%s, requested_at=%s WHERE id=%s",
        [CONFLICT, utc_now(), number],
    )


def open_requests(connection: Any) -> set[str]:
    """The tables whose reload waits, or is under way on the replica."""
    return {
        row[0]
        for row in fetch(
            connection,
            "SELECT table_name FROM etl_resync_request WHERE state IN (%s,%s,%s)",
            [RequestState.QUEUED, RequestState.COPYING, RequestState.CATCHING_UP],
        )
    }


def need_request(connection: Any, table: str) -> None:
    """The table's open request must not fail: the stream has left the table to it."""
    execute(
        connection,
        "UPDATE etl_resync_request SET reason=%s WHERE table_name=%s AND state IN (%s,%s,%s)",
        [
            CONFLICT,
            table,
            RequestState.QUEUED,
            RequestState.COPYING,
            RequestState.CATCHING_UP,
        ],
    )


def repairs_since(connection: Any, table: str, moment: datetime) -> int:
    """How often a table's reload was asked for by `queue_repair` from that moment on."""
    rows = fetch(
        connection,
        "SELECT COUNT(*) FROM etl_resync_request"
        " WHERE table_name=%s AND reason=%s AND requested_at >= %s",
        [table, CONFLICT, moment],
    )
    return int(rows[0][0])


def open_request(connection: Any) -> ResyncRequest | None:
    """The request to work on: one that has begun, else the oldest that waits."""
    rows = fetch(
        connection,
        "SELECT id, table_name, state, reason FROM etl_resync_request WHERE state IN (%s,%s,%s)"
        " ORDER BY state=%s, id LIMIT 1",
        [
            RequestState.QUEUED,
            RequestState.COPYING,
            RequestState.CATCHING_UP,
            RequestState.QUEUED,
        ],
    )
    return ResyncRequest(*rows[0]) if rows else None


def set_request(
    connection: Any,
    number: int,
    state: str,
    *,
    copied: int | None = None,
    total: int | None = None,
    message: str | None = None,
) -> None:
    """Move a request on, with its progress in rows."""
    execute(
        connection,
        "UPDATE etl_resync_request SET state=%s, rows_copied=COALESCE(%s, rows_copied),"
        " rows_total=COALESCE(%s, rows_total), message=%s, updated_at=%s WHERE id=%s",
        [state, copied, total, message, utc_now(), number],
    )


def everything_requested(connection: Any) -> bool:
    """Does a request wait for each and every table that we know?"""
    left_out = (TableState.EXCLUDED, TableState.VANISHED)
    states = {t for t, state in table_states(connection).items() if state not in left_out}
    waiting = {
        row[0]
        for row in fetch(
            connection,
            "SELECT table_name FROM etl_resync_request WHERE state=%s",
            [RequestState.QUEUED],
        )
    }
    return bool(states) and states <= waiting


def restart_requests(connection: Any) -> None:
    """The waiting requests are being answered by a copy of everything."""
    execute(
        connection,
        "UPDATE etl_resync_request SET state=%s, updated_at=%s WHERE state IN (%s,%s,%s)",
        [
            RequestState.RESTARTING,
            utc_now(),
            RequestState.QUEUED,
            RequestState.COPYING,
            RequestState.CATCHING_UP,
        ],
    )


def answer_restarted(connection: Any, table: str) -> None:
    """The table's part of a copy of everything is exact on the replica: leg 2 reloads it."""
    _move_restarted(connection, table, RequestState.LOADING)


def fail_restarted(connection: Any, table: str) -> None:
    """The table is not on the source any more."""
    _move_restarted(connection, table, RequestState.FAILED, "not on the source any more")


def _move_restarted(connection: Any, table: str, state: str, message: str | None = None) -> None:
    execute(
        connection,
        "UPDATE etl_resync_request SET state=%s, message=%s, updated_at=%s"
        " WHERE table_name=%s AND state=%s",
        [state, message, utc_now(), table, RequestState.RESTARTING],
    )

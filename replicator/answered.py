"""Requests that were answered long ago are forgotten.

Left: the rows of `etl_resync_request` and `etl_mend_request`, and the time. Right: fewer of them.
What waits or is worked on stays, and so does what somebody may still ask for: whatever was
answered within the last hour (whoever asked may wait for it, and repairs within an hour are
counted), and a table's last resync where it failed, for `status` shows it. Each table's newest row
stays too, whatever it says: a server that is started again may give the number behind the highest
it finds, and leg 2 knows requests by their numbers.

They are found by a plain SELECT and removed by number: nobody who enters a request, or moves one
on, waits for that.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from replicator import mend_requests
from replicator.resync_requests import RequestState
from replicator.tracking import execute, fetch

KEPT: Final = 1000
"""So many answered ones are kept, for a day; those before them for an hour."""
LONG, SHORT = timedelta(days=1), timedelta(hours=1)
EVERY_SECONDS: Final = 600.0
MOST_AT_ONCE: Final = 1000

_ANSWERED: Final = {
    "etl_resync_request": (RequestState.DONE, RequestState.FAILED),
    "etl_mend_request": (mend_requests.DONE, mend_requests.FAILED, mend_requests.RELOADING),
}
_SHOWN: Final = {
    "etl_resync_request": (
        " AND (r.state <> 'failed' OR EXISTS (SELECT 1 FROM etl_resync_request n"
        " WHERE n.table_name = r.table_name AND n.id > r.id))"
    )
}


def forget_answered(connection: Any, now: datetime) -> int:
    """Remove what nobody asks for any more, some of it at a time; how many rows that were.

    The caller's connection commits by itself, and what it does is not logged: leg 2 reads requests
    in the replica's binlog.
    """
    return sum(_forget(connection, table, states, now) for table, states in _ANSWERED.items())


def _forget(connection: Any, table: str, states: tuple[str, ...], now: datetime) -> int:
    behind = fetch(
        connection,
        f"SELECT id FROM {table} WHERE state IN %s ORDER BY id DESC LIMIT 1 OFFSET {KEPT}",
        [states],
    )
    last = behind[0][0] if behind else 0
    found = fetch(
        connection,
        f"SELECT r.id FROM {table} r WHERE r.state IN %s"
        " AND (r.updated_at < %s OR (r.id <= %s AND r.updated_at < %s))"
        f" AND r.id < (SELECT MAX(id) FROM {table}){_SHOWN.get(table, '')}"
        f" ORDER BY r.id LIMIT {MOST_AT_ONCE}",
        [states, now - LONG, last, now - SHORT],
    )
    if found:
        numbers = tuple(number for (number,) in found)
        execute(connection, f"DELETE FROM {table} WHERE id IN %s", [numbers])
    return len(found)

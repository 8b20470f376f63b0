"""Leg 1's position taken over by a source that proves to be the right one.

Left: the stored offset, and `Provenance`. Right: the offset to go on from, stored. On the
same server that is the same place; on another, the place where its binlog stands at the
same transactions.

Positions that tables in the making hold, windows and half-made copies, are of the old server
and cannot be carried over, so nothing may be in the making. Nor may leg 2 compare the old
server's positions with the new one's, as it does for tables without a key until their copy's
watermark has passed: those it reloads behind the very transaction that moves the offset.
"""

from __future__ import annotations

from typing import Any

from config.errors import SourceReset, translated
from replicator import copy_progress, resync_requests, tracking
from replicator.session import Session
from replicator.tracking import Offset, TableState, execute, fetch


def settle_down(session: Session, offset: Offset) -> Offset:
    """The offset to go on from; raises what an operator must know where there is none."""
    with translated(session.settings.source.label):
        confirmed = session.provenance.confirm(offset)
    if confirmed != offset:
        with translated(session.settings.replication.label):
            _store(session.replica, offset, confirmed)
    return confirmed


def _store(replica: Any, offset: Offset, confirmed: Offset) -> None:
    moved = confirmed.position != offset.position
    if moved:
        _require_rest(replica, offset)
    execute(replica, "BEGIN")
    tracking.write_offset(replica, confirmed)
    if moved:
        resync_requests.ask_leg_2(replica, _keyless(replica))
    execute(replica, "COMMIT")


def _require_rest(replica: Any, offset: Offset) -> None:
    """`SourceReset` where something was under way that holds positions of the old source."""
    making = (TableState.COPYING, TableState.RECONCILING)
    states = tracking.table_states(replica).items()
    tables = {table for table, state in states if state in making}
    tables |= {progress.source for progress in copy_progress.copy_progresses(replica).values()}
    if tables or offset.pending_ddl:
        under_way = (
            f"{len(tables)} tables were being copied from it ({', '.join(sorted(tables)[:5])})"
            if tables
            else "a schema change was under way"
        )
        raise SourceReset(
            f"the source is another server, with the past of the old one; but {under_way}, and"
            " that cannot be taken up on another server",
            hint="Point OPENDENTAL_SOURCE_HOST back to the old one until that is done; or, to"
            " follow the new one, run replicator resync --all and start again.",
        )


def _keyless(replica: Any) -> list[str]:
    streaming = [t for t, s in tracking.table_states(replica).items() if s == TableState.STREAMING]
    keyed = {
        row[0]
        for row in fetch(
            replica,
            "SELECT table_name FROM information_schema.table_constraints"
            " WHERE table_schema = DATABASE() AND constraint_type = 'PRIMARY KEY'",
        )
    }
    return sorted(set(streaming) - keyed)

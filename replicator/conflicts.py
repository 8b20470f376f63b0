"""What the replica refused, and what becomes of it: halt, or reload the table and go on.

Left: what the driver raised, and which tables a statement changed behind which position.
Right: an error of ours, that names tables and codes and no value; or, where the operator
chose REPLICATOR_ON_CONFLICT=repair, a request to reload the one table whose row was refused.

A batch holds rows of many tables, and a server's message about one of them is no ground to act
upon. So the same transactions are applied again from the stored offset, each table's rows in a
statement of their own (`apart`), until one is refused: that one names its table. Nothing of this
is stored, for a process that dies meets the same refusal again.

Then one transaction on the replica notes the table as *queued*, and its reload as asked for. From
there on its changes are passed over, so it cannot stop the stream again; it stays on the replica,
and in `raw`, as it stood at the transaction before the refused one. The reload's own stream begins
with its copy and brings the table to the position of the main stream, where it takes the old one's
place as in every resync: exactly, and as a whole. The requests tell how often that was: the fourth
time within an hour halts, for then somebody goes on writing there.

A table whose reload the operator has asked for already is reloaded by that, in either mode, and as
often as he likes: that is how he goes on behind a halt.

What names no table (the offset row was moved: there is a second writer) halts in any case; in a
batch it looks like a conflict of its tables first, and the stream begins again from the moved
offset, which is where the other writer stands, or no position at all. An update that finds its
row by key is not refused, however wrong the row is: it becomes right by that, or stays for
`replicator verify` to find.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

import pymysql
import structlog

from config import metrics
from config.errors import ApplyConflict, classify
from config.failpoints import reach
from replicator import copy_progress, resync_requests, tracking
from replicator.binlog.position import SourcePosition
from replicator.resync_requests import RequestState
from replicator.tracking import TableState, execute

log = structlog.get_logger(__name__)

MOST_REPAIRS: Final = 3
WITHIN: Final = timedelta(hours=1)
"""A table is reloaded so often within this time; then it needs somebody to look."""

_NO_TABLE, _NO_KEY, _DUPLICATE_KEY, _DUPLICATE_UNIQUE = 1146, 1022, 1062, 1169
_ROW_NOT_FOUND, _MISMATCH, _TYPE_MISMATCH, _OTHER_TYPE = 1032, 1105, 1535, 1677
_THERE: Final = "a row that the source inserted is already there"
_UNFIT: Final = "the table's columns do not fit the source's (the replica's error log says how)"
_CONFLICTS: Final = {
    _DUPLICATE_KEY: _THERE,
    _NO_KEY: _THERE,
    _DUPLICATE_UNIQUE: _THERE,
    _ROW_NOT_FOUND: "a row that the source changed is not there",
    _NO_TABLE: "the table is not there",
    _MISMATCH: _UNFIT,
    _TYPE_MISMATCH: _UNFIT,
    _OTHER_TYPE: _UNFIT,
}


def refusal(error: BaseException, position: SourcePosition, tables: Iterable[str]) -> Exception:
    """The error to raise for `error`, which rows of `tables` behind `position` met."""
    code = error.args[0] if error.args else None
    if isinstance(error, pymysql.MySQLError) and code in _CONFLICTS:
        named = sorted(tables)
        names = ", ".join(named) or "etl_binlog_offset"
        return ApplyConflict(
            f"the replica refused rows behind {position} of {names} (error {code}):"
            f" {_CONFLICTS[int(code)]}",
            hint=f"Someone else wrote on the replica. replicator resync {' '.join(named)};"
            " or let REPLICATOR_ON_CONFLICT=repair do so whenever it happens"
            if named
            else "Another process moved the offset: make sure that one replicator runs.",
            tables=named,
        )
    return classify(error, server="replica")


class Conflicts:
    """What is to be done about conflicts of the main stream; outlives the daemon's sessions."""

    def __init__(self, on_conflict: str) -> None:
        self._repairing = on_conflict == "repair"
        self.apart: SourcePosition | None = None
        """Up to here each table's rows go in a statement of their own."""
        self._table: str | None = None

    def met(
        self, conflict: ApplyConflict, at: SourcePosition, upto: SourcePosition, asked: set[str]
    ) -> None:
        """A transaction that begins between `at` and `upto` was refused; raises where that halts.

        `asked` are tables whose reload the operator has asked for. On return the next session
        begins with `begin_repair`.
        """
        if not (conflict.tables if self._repairing else conflict.tables & asked):
            raise conflict
        if self.apart is None or at > self.apart:
            self.apart = upto
            log.warning("conflict_met", reason=str(conflict), next="one table after the other")
            return
        (self._table,) = conflict.tables  # a statement holds one table's rows now
        log.warning("conflict_found", table=self._table, reason=str(conflict))

    def begin_repair(self, replica: Any) -> None:
        """Leave the table alone that was found, and have it reloaded."""
        table, self._table = self._table, None
        if table is not None:
            ask_for_repair(replica, table)


def ask_for_repair(replica: Any, table: str, request: int | None = None) -> None:
    """Note that the table is not exact, and to be reloaded; `request` ends in favour of that.

    Raises `ApplyConflict` where that has been done too often of late.
    """
    open_already = table in resync_requests.open_requests(replica) and request is None
    before = resync_requests.repairs_since(replica, table, tracking.utc_now() - WITHIN)
    if before >= MOST_REPAIRS and not open_already:
        raise ApplyConflict(
            f"table {table} on the replica was reloaded {before} times within an hour, since its"
            " rows were not what they should be, and they are not again",
            hint=f"Find out who writes to {table} on the replica; then: replicator resync {table}",
        )
    execute(replica, "BEGIN")
    if request is not None:
        resync_requests.set_request(
            replica, request, RequestState.FAILED, message="begun again: a conflict"
        )
    tracking.set_state(replica, table, TableState.QUEUED)
    copy_progress.forget_progress(replica, table)
    ask = resync_requests.need_request if open_already else resync_requests.queue_repair
    ask(replica, table)
    reach("conflict.before_commit")
    execute(replica, "COMMIT")
    metrics.CONFLICTS.labels("replicator", "repaired").inc()
    log.warning("conflict_repaired", table=table, how="it is reloaded", times=before + 1)

"""Say what the replica refused: a conflict of rows, or a failure that everything may have.

Left: what the driver raised, and which tables a statement changed behind which position.
Right: an error of ours, that names tables and codes and no value.
"""

from __future__ import annotations

from collections.abc import Iterable

import pymysql

from config.errors import ApplyConflict, classify
from replicator.binlog.position import SourcePosition

_DUPLICATE_KEY, _ROW_NOT_FOUND, _MISMATCH = 1062, 1032, 1105
_CONFLICTS = {
    _DUPLICATE_KEY: "a row that the source inserted is already there",
    _ROW_NOT_FOUND: "a row that the source changed is not there",
    _MISMATCH: "the table's columns do not fit the source's (the replica's error log says how)",
}


def refusal(error: BaseException, position: SourcePosition, tables: Iterable[str]) -> Exception:
    """The error to raise for `error`, which rows of `tables` behind `position` met."""
    code = error.args[0] if error.args else None
    if isinstance(error, pymysql.MySQLError) and code in _CONFLICTS:
        names = ", ".join(sorted(tables)) or "etl_binlog_offset"
        return ApplyConflict(
            f"the replica refused rows behind {position} of {names} (error {code}):"
            f" {_CONFLICTS[int(code)]}",
            hint=f"Someone else wrote on the replica. replicator resync {names}"
            if names != "etl_binlog_offset"
            else "Another process moved the offset: make sure that one replicator runs.",
        )
    return classify(error, server="replica")

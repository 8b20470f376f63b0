"""What `verify` found last, noted on the replica for metrics and pages.

Left: the report of a comparison of everything. Right: a row on the replica, or nothing where it
cannot be written: the comparison was made all the same.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pymysql

from config import records
from config.connections import connect_mysql
from config.errors import ReplicatorError
from config.settings import Settings
from replicator.cli.report import Report


def remember(settings: Settings, report: Report) -> None:
    """Note how many tables came out how."""
    if report.stopped:
        return
    server = settings.replication
    with suppress(ReplicatorError, pymysql.MySQLError, OSError):
        connection = connect_mysql(server, database=server.db)
        try:
            records.write_verify(connection, Counter(table.verdict for table in report.tables))
        finally:
            connection.close()

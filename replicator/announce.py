"""Tell a session on the replica which binlog format the events have that it will be given.

Left: the FORMAT_DESCRIPTION event of the source's stream. Right: the statements that
a session needs before its first `BINLOG` with rows, and again when the format changes.
Pure.

A MySQL server takes whoever describes a foreign format for a replica's applier, and what
follows without a GTID event for transactions that shall have none: with gtid_mode=ON it
then refuses every one (error 1782). The rows are to be the replica's own transactions.

Source: MySQL `sql/rpl_gtid.h`, NOT_YET_DETERMINED_GTID.
"""

from __future__ import annotations

from collections.abc import Iterator

from replicator.binlog.events import format_description_without_checksums
from replicator.binlog.statement import binlog_statement


def announcement(format_description: bytes, *, mariadb: bool) -> Iterator[bytes]:
    """The statements, in order; `mariadb`: is the replica of that family?"""
    yield binlog_statement(format_description_without_checksums(format_description))
    if not mariadb:
        yield b"SET SESSION gtid_next = 'AUTOMATIC'"

"""What a statement in the replica's binlog does to our tables. Pure.

Left: a QUERY event; right: the verdict of `replicator.binlog.ddl`, asked with the
replica's database on both sides, of which the loader reads only the tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from config.errors import StatementFormat, UnsupportedStatement
from replicator.binlog.charsets import charset_of, decode_text
from replicator.binlog.ddl import Execute, RowStatement, Unsupported, decide, dialect_of
from replicator.binlog.events import QueryEvent
from replicator.binlog.statusvars import parse_status_variables

_FIRST_MARIADB_10 = 100000
_HARMLESS = frozenset({"create index", "drop index"})
"""Kinds of statement that change neither rows nor columns, unless `rows_changed` says so."""


@dataclass(frozen=True, slots=True)
class Replica:
    """What must be known of the replica to read its statements."""

    database: str
    version: int
    """As a number: 101119 for MariaDB 10.11.19."""

    @property
    def flavour(self) -> str:
        """ "mariadb" or "mysql"."""
        return "mariadb" if self.version >= _FIRST_MARIADB_10 else "mysql"


def version_number(version: str) -> int:
    """`10.11.19-MariaDB-log` as 101119."""
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None:
        return 101100
    major, minor, patch = (int(number) for number in numbers.groups())
    return major * 10_000 + minor * 100 + patch


@dataclass(frozen=True, slots=True)
class TableChanges:
    """Tables that a statement created, dropped, emptied or altered."""

    created: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    truncated: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.created or self.dropped or self.truncated or self.altered)


def changes_of(query: QueryEvent, replica: Replica, carries: Callable[[str], bool]) -> TableChanges:
    """What a statement did to the tables that we carry.

    Raises StatementFormat for row changes logged as text, UnsupportedStatement for
    what cannot be read with certainty.
    """
    status = parse_status_variables(
        query.status_vars, "mariadb" if replica.flavour == "mariadb" else "mysql"
    )
    charset = charset_of(status.charset[0]) if status.charset else None
    verdict = decide(
        decode_text(query.statement, charset or "utf8mb4"),
        default_database=query.database,
        source_db=replica.database,
        replica_db=replica.database,
        carries=carries,
        dialect=dialect_of(status.sql_mode or 0, replica.version),
    )
    if isinstance(verdict, Unsupported):
        raise UnsupportedStatement(
            f"a statement on the replica cannot be followed: {verdict.reason}", hint=verdict.hint
        )
    if isinstance(verdict, RowStatement):
        raise StatementFormat(
            f"the replica's binlog holds row changes as a statement ({verdict.verb})",
            hint="On the replica: SET GLOBAL binlog_format = 'ROW'; then reload what it changed:"
            " replicator resync --all",
        )
    return _tables_of(verdict) if isinstance(verdict, Execute) else TableChanges()


def _tables_of(verdict: Execute) -> TableChanges:
    moved_away = tuple(old for old, _ in verdict.renames)
    moved_here = tuple(new for _, new in verdict.renames)
    created = _unique((*verdict.created, *moved_here))
    # A name that was moved away and taken again (a swap) is only created anew.
    dropped = tuple(n for n in _unique((*verdict.dropped, *moved_away)) if n not in created)
    settled = {*created, *dropped, *verdict.truncated}
    altered: tuple[str, ...] = ()
    if verdict.rows_changed or verdict.kind not in _HARMLESS:
        altered = tuple(name for name in verdict.tables if name not in settled)
    return TableChanges(created, dropped, verdict.truncated, altered)


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))

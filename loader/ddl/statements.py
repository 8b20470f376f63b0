"""What a statement in the replica's binlog does to our tables. Pure.

Left: a QUERY event; right: the verdict of `replicator.binlog.ddl`, asked with the
replica's database on both sides, of which the loader reads only the tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from config.errors import StatementFormat, UnsupportedStatement
from loader.ddl.alterations import Action, read_alterations
from replicator.binlog.charsets import charset_of, decode_text
from replicator.binlog.ddl import Execute, RowStatement, Unsupported, decide, dialect_of
from replicator.binlog.events import QueryEvent
from replicator.binlog.statusvars import ALTER_ROLLBACK, ALTER_START, parse_status_variables

_FIRST_MARIADB_10 = 100000
_READ = frozenset({"alter table", "create index", "drop index"})
"""Kinds of statement whose words tell what becomes of the table."""


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
    renames: tuple[tuple[str, str], ...] = ()
    """(from, to) in order; they come before `created` and `altered`."""
    alteration: tuple[Action, ...] | None = None
    """What happened to the columns of `altered`; None where only a reload can tell."""
    rows_changed: bool = False
    """Rows of `altered` may have come, gone or changed though no row event says so."""
    born_empty: bool = False
    """`created` is new for certain, and every row of it passes in the stream."""

    kept: bool = False
    """`created` is left alone where it is there already: IF NOT EXISTS."""

    @property
    def in_two_steps(self) -> bool:
        """Does it drop or rename a table, and change one beside that?"""
        changed = self.created or (self.altered and self.alteration != ())
        return bool((self.dropped or self.renames) and changed)

    def __bool__(self) -> bool:
        return bool(self.created or self.dropped or self.truncated or self.altered or self.renames)


def changes_of(query: QueryEvent, replica: Replica, carries: Callable[[str], bool]) -> TableChanges:
    """What a statement did to the tables that we carry.

    Raises StatementFormat for row changes logged as text, UnsupportedStatement for
    what cannot be read with certainty.
    """
    status = parse_status_variables(
        query.status_vars, "mariadb" if replica.flavour == "mariadb" else "mysql"
    )
    if status.alter_flags in (ALTER_START, ALTER_ROLLBACK):
        return TableChanges()  # a two-phase ALTER of MariaDB's: its COMMIT has it again
    charset = charset_of(status.charset[0]) if status.charset else None
    text = decode_text(query.statement, charset or "utf8mb4")
    dialect = dialect_of(status.sql_mode or 0, replica.version)
    verdict = decide(
        text,
        default_database=query.database,
        source_db=replica.database,
        replica_db=replica.database,
        carries=carries,
        dialect=dialect,
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
    if not isinstance(verdict, Execute):
        return TableChanges()
    changes = _tables_of(verdict)
    if len(changes.altered) == 1 and verdict.kind in _READ and not verdict.rows_changed:
        return replace(changes, alteration=read_alterations(text, dialect))
    return changes


def _tables_of(verdict: Execute) -> TableChanges:
    moved = {name for pair in verdict.renames for name in pair}
    created = verdict.created
    # A name that was dropped and taken again (OR REPLACE) is only created anew.
    dropped = tuple(name for name in verdict.dropped if name not in created)
    settled = {*created, *dropped, *verdict.truncated, *moved}
    altered = tuple(name for name in verdict.tables if name not in settled)
    if verdict.kind == "alter table" and verdict.renames:
        altered = (verdict.renames[-1][1],)
    return TableChanges(
        created,
        dropped,
        verdict.truncated,
        altered,
        verdict.renames,
        rows_changed=verdict.rows_changed,
        born_empty=verdict.kind == "create table" and not verdict.conditional,
        kept=verdict.conditional and not verdict.dropped,
    )

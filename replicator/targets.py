"""The tables that copies are written to, made as the source defines its own.

Left: SHOW CREATE TABLE on the source. Right: an empty table on the replica that repeats it, or
`CopyRefused` where none can. What a target was made from is remembered, for a copy whose window
is one moment must see that the source defines its table in the same way at that moment.
"""

from __future__ import annotations

import re
from typing import Any

import pymysql
import structlog

from config.connections import quote_mysql_identifier as quote
from config.errors import CopyRefused
from replicator import source as src
from replicator.binlog.ddl import Dialect, Execute, decide, unnumbered
from replicator.tracking import execute
from replicator.zones import require_stored_alike

log = structlog.get_logger(__name__)

_NO_SUCH_TABLE, _TABLE_EXISTS, _NO_KEY_FOR_NUMBERS = 1146, 1050, 1075
_NEXT_NUMBER = re.compile(r" AUTO_INCREMENT=\d+")
"""What each new row moves in a table's definition."""


class TableGone(Exception):
    """The table is not on the source any more."""


class TableChanged(Exception):
    """The table's definition changed while it was copied: begin again."""


class Targets:
    """`catalog` is a connection to the source, `replica` one that writes no binlog."""

    def __init__(
        self,
        catalog: Any,
        replica: Any,
        identity: src.Identity,
        replica_identity: src.Identity,
        replica_db: str,
    ) -> None:
        self._catalog = catalog
        self._replica = replica
        self._identity = identity
        self._replica_identity = replica_identity
        self._replica_db = replica_db
        self._definitions: dict[str, str] = {}
        """What the targets were made from; those of another process's are not known."""

    def create(self, table: str, target: str) -> None:
        """Create the target, empty, in the place of one that is there."""
        definition = self._definition(table)
        create = self._statement(table, target, definition)
        self._definitions[target] = _NEXT_NUMBER.sub("", definition)
        try:
            execute(self._replica, create)
        except pymysql.OperationalError as error:
            if error.args[0] == _NO_KEY_FOR_NUMBERS:
                log.info("numbering_left_out", table=table, reason="no key for it in InnoDB")
                create = unnumbered(create)
            elif error.args[0] != _TABLE_EXISTS:
                raise
            execute(self._replica, f"DROP TABLE IF EXISTS {quote(target)}")
            execute(self._replica, create)

    def require_same(self, table: str, target: str) -> None:
        """`TableChanged` unless the source defines the table as the target was defined."""
        known = self._definitions.get(target)
        if known is None or known != _NEXT_NUMBER.sub("", self._definition(table, whole=False)):
            raise TableChanged(table)

    def _definition(self, table: str, *, whole: bool = True) -> str:
        """SHOW CREATE TABLE; `whole`: refuse what it does not tell in full."""
        try:
            create = src.create_statement(self._catalog, table)
            if whole:
                src.require_whole_definition(self._catalog, table, create)
                require_stored_alike(
                    self._catalog, self._identity, self._replica_identity, table, create
                )
            return create
        except pymysql.ProgrammingError as error:
            if error.args[0] == _NO_SUCH_TABLE:
                raise TableGone(table) from None
            raise

    def _statement(self, table: str, target: str, create: str) -> str:
        if src.has_foreign_key(create):
            raise CopyRefused(
                f"table {table} has a foreign key: changes that it cascades are not in the binlog",
                hint=f'Drop the constraint on the source, or exclude "{table}" in tables.toml.',
            )
        head = f"CREATE TABLE {quote(table)} "
        if not create.startswith(head):
            raise CopyRefused(
                f"the definition of {table} is not one of a base table",
                hint=f'Exclude "{table}" in tables.toml.',
            )
        verdict = decide(
            f"CREATE TABLE {quote(target)} " + create[len(head) :],
            default_database=self._replica_db,
            source_db=self._replica_db,
            replica_db=self._replica_db,
            carries=lambda _table: True,
            dialect=Dialect(server_version=self._identity.number),
        )
        if not isinstance(verdict, Execute):
            raise CopyRefused(
                f"the definition of {table} cannot be repeated on the replica",
                hint=f'Exclude "{table}" in tables.toml.',
            )
        return verdict.sql

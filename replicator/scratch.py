"""The scratch table of a table in its copy's window, and the statements that speak of both.

Left: a table's catalog on the replica. Right: SQL that moves rows from the empty table of the
same shape, where images are written as they came, into the table, by primary key; and that
notes in `etl_copy_again` the keys of rows which must be read from the source again.

Keys are noted as SQL literals of their stored bytes, so that they can be asked for on either
server; not every type of column has such a literal (`readable`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from config.connections import quote_mysql_identifier as quote
from replicator.binlog.catalog import CatalogColumn, read_catalog
from replicator.tracking import execute, fetch

_PRINTED: Final = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "decimal"})
_QUOTED: Final = frozenset({"date", "datetime"})


def hidden_name(prefix: str, table: str) -> str:
    """A name for a table of ours that belongs to `table`; 64 characters at most."""
    if len(prefix) + len(table) <= 64:
        return prefix + table
    digest = hashlib.sha256(table.encode()).hexdigest()[:8]
    return f"{prefix}{table[: 55 - len(prefix)]}_{digest}"


_PREFIX: Final = "_old_etl_rows_"
KEYS_PREFIX: Final = "_old_etl_keys_"
"""Copies of some rows of a table (see `mending`): like all that begins so, of no use to a later
process. No table that is carried is called `etl_…`, so these names are nobody's hidden copy, and
no reload parks an old table under one."""


VIRTUAL_PREFIX: Final = "_old_etl_virt_"
"""Keys of rows whose virtual columns are read (see `virtual_columns`)."""


def scratch_name(target: str) -> str:
    """The scratch table of `target`."""
    return hidden_name(_PREFIX, target)


def drop_scratch(admin: Any, target: str) -> None:
    """Remove what a reconciliation of `target` left behind, if anything."""
    execute(admin, f"DROP TABLE IF EXISTS {quote(scratch_name(target))}")


def drop_left_over(admin: Any) -> None:
    """Remove the scratch tables, keys, and copies of some rows, of a process that has ended."""
    for prefix in (_PREFIX, KEYS_PREFIX, VIRTUAL_PREFIX):
        pattern = prefix.replace("_", r"\_") + "%"
        for (name,) in fetch(admin, "SHOW TABLES LIKE %s", [pattern]):
            execute(admin, f"DROP TABLE IF EXISTS {quote(name)}")


@dataclass(frozen=True, slots=True)
class ScratchColumn:
    """A column of the target as the statements need it."""

    name: str
    generated: bool = False
    touched: bool = False
    """Does an UPDATE set it to the time by itself?"""


class Scratch:
    """The statements for one target; columns are numbered as in its rows events."""

    def __init__(
        self, quoted_target: str, target: str, columns: Sequence[ScratchColumn],
        key: Sequence[CatalogColumn],
    ) -> None:  # fmt: skip
        """`quoted_target` is the target's name as a string of SQL."""
        self.target = target
        self.name = scratch_name(target)
        self._columns = columns
        names = [column.name for column in columns]
        self.key = tuple(names.index(column.name) for column in key)
        self.stored = sum(1 << at for at, column in enumerate(columns) if not column.generated)
        self._to, self._from = quote(target), quote(self.name)
        stored = ", ".join(quote(column.name) for column in columns if not column.generated)
        self._using = ", ".join(quote(column.name) for column in key)
        self.put = f"REPLACE INTO {self._to} ({stored}) SELECT {stored} FROM {self._from}"
        self.remove = f"DELETE {self._to} FROM {self._to} JOIN {self._from} USING ({self._using})"
        self.empty = f"DELETE FROM {self._from}"
        literals = [literal for literal in map(_literal, key) if literal]
        self.readable = bool(key) and len(literals) == len(key)
        """Can the target's rows be asked for by key?"""
        if key:
            self._absent = (
                f" LEFT JOIN {self._to} AS there USING ({self._using})"
                f" WHERE there.{quote(key[0].name)} IS NULL"
            )
            self.count_absent = f"SELECT COUNT(*) FROM {self._from}{self._absent}"
            """How many rows of the scratch table the target does not have."""
        if self.readable:
            self._speak_of_keys(quoted_target, literals)

    def _speak_of_keys(self, target: str, literals: list[str]) -> None:
        words = literals[0] if len(literals) == 1 else _joined(literals)
        digest = f"UNHEX(SHA2({words}, 256))"
        into = "INSERT INTO etl_copy_again (target_table, key_hash, key_literals, read_again)"
        keys = f"{into} SELECT {target}, {digest}, {words}, %s FROM {self._from} AS s"
        again = " ON DUPLICATE KEY UPDATE read_again = VALUES(read_again)"
        self.note = keys.replace("%s", "0") + again
        """All keys in the scratch table are to be read again."""
        self.note_absent = keys.replace("%s", "0") + self._absent + again
        """Those that the target does not have."""
        self.note_read = keys.replace("%s", "1") + again
        """All keys in the scratch table have been read again."""
        self.clear = (
            "DELETE again FROM etl_copy_again AS again"
            f" JOIN (SELECT {digest} AS digest FROM {self._from} AS s) AS named"
            f" ON again.key_hash = named.digest WHERE again.target_table = {target}"
        )
        """None of them need be read again."""
        self.count_certain = (
            f"SELECT COUNT(*) FROM {self._from} AS s JOIN {self._to} USING ({self._using})"
            f" LEFT JOIN etl_copy_again AS again ON again.target_table = {target}"
            f" AND again.key_hash = {digest} WHERE again.key_hash IS NULL"
        )
        """How many the target has, of those that are neither to be read again nor have been."""

    def change(self, columns: int) -> str | None:
        """Set these columns of the target's rows; None where nothing is stored in them."""
        changed = columns & self.stored & ~sum(1 << at for at in self.key)
        if not changed:
            return None
        words = []
        for at, column in enumerate(self._columns):
            name = quote(column.name)
            if changed >> at & 1:
                words.append(f"t.{name} = s.{name}")
            elif column.touched:  # unless it is set, the server sets it
                words.append(f"t.{name} = t.{name}")
        return (
            f"UPDATE {self._to} AS t JOIN {self._from} AS s USING ({self._using})"
            f" SET {', '.join(words)}"
        )


def create_scratch(admin: Any, database: str, target: str) -> Scratch:
    """Make the target's scratch table anew, and learn the target's shape."""
    drop_scratch(admin, target)
    execute(admin, f"CREATE TABLE {quote(scratch_name(target))} LIKE {quote(target)}")
    catalog = read_catalog(admin, database, [target])[target]
    known = {
        name: ScratchColumn(name, bool(generated), "on update" in str(extra).lower())
        for name, generated, extra in fetch(
            admin,
            "SELECT column_name, COALESCE(generation_expression, ''), extra FROM"
            " information_schema.columns WHERE table_schema=%s AND table_name=%s",
            [database, target],
        )
    }
    columns = [known.get(column.name) or ScratchColumn(column.name) for column in catalog.columns]
    key = [catalog.columns[at] for at in catalog.primary_key]
    return Scratch(admin.escape(target), target, columns, key)


def _literal(column: CatalogColumn) -> str | None:
    """SQL that prints the column's value, in table `s`, as a literal of its stored bytes."""
    name = f"s.{quote(column.name)}"
    if column.data_type in _PRINTED:
        return f"CAST({name} AS CHAR)"
    if column.data_type in ("char", "varchar"):
        return f"CONCAT('_{column.charset} x''', HEX({name}), '''')"
    if column.data_type in ("binary", "varbinary"):
        return f"CONCAT('x''', HEX({name}), '''')"
    if column.data_type in _QUOTED:
        return f"CONCAT('''', {name}, '''')"
    return None


def _joined(literals: list[str]) -> str:
    between = ", ', ', "
    return f"CONCAT({between.join(literals)})"

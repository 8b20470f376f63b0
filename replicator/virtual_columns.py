"""Virtual columns that rows events leave out, worked out before the events are applied.

A replica computes a VIRTUAL column for whoever reads the table, but not always for its own binlog,
which leg 2 lives on. What a rows event leaves out (`binlog_row_image` MINIMAL and NOBLOB do so)

* MariaDB before 11 logs as NULL where the row is new, and as it was before where it has changed;
* MySQL logs as NULL where the row has changed, but nothing that the column is worked out from.

Left: rows events, and the tables that they go to. Right: the same events, whose rows hold every
virtual column as they are then. The server itself works them out: within a savepoint the event is
applied as it came, the rows that it brought are read, and the savepoint is taken back, with what
was logged. All stored columns go on as they came, and nothing is asked of the table's past or
future: it stands at the event's very place, in the transaction that the event belongs to.

The rows are read on a connection of its own that sees what is not committed, since the writing
one would decode and convert; nobody else writes, and the writing one waits meanwhile. They are
found by their keys, which the event names: these are written, with the rows' numbers, into a
table of keys beside the target. An event that comes back to a key is taken row by row.

An event is left alone where it deletes (of a row that goes its key alone is asked), and where the
server would log it right. For MariaDB's system-versioned tables nothing is left out, but under
MINIMAL the source itself logs NULL: what they bring is always worked out. A table without a key is
logged whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from config.connections import quote_mysql_identifier as quote
from config.errors import UnknownEvent, translated
from replicator.batch import Segment
from replicator.binlog.catalog import CatalogTable, read_catalog
from replicator.binlog.events import TableMap, event_timestamp
from replicator.binlog.rowimage import TableLayout, build_table_map, rows_event
from replicator.binlog.rowsplit import (
    DELETE_EVENTS,
    WRITE_EVENTS,
    CutEvent,
    Row,
    RowSplitter,
    Values,
    image_of,
)
from replicator.binlog.rowvalues import Field, field_of
from replicator.packets import execute_events
from replicator.scratch import VIRTUAL_PREFIX, hidden_name
from replicator.tracking import execute, fetch

WORKED_OUT_FROM: Final = 110_800
"""From this MariaDB on a replica logs what it has worked out; of those after 10.11 it is the first
that is tried. MySQL does not yet."""
UNCOMMITTED: Final = "SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"
"""What a session executes that is to see what others have not committed."""
_ROW, _KEY = "etl_row", "etl_key_"
_TABLE_ID: Final = 1


@dataclass(frozen=True, slots=True)
class _Keys:
    """The table that keys are written into, and how the target's rows are read by them."""

    name: str
    layout: TableLayout
    table_map: bytes
    fields: dict[int, Field]
    """The target's virtual columns."""
    query: str
    """Reads the number of each key, and its row's virtual columns."""


@dataclass(frozen=True, slots=True)
class _Target:
    """A table that has virtual columns; its columns are numbered as in its rows events."""

    catalog: CatalogTable
    bases: dict[int, int]
    """Of each virtual column: those that it may be worked out from, as a bitmap."""


class VirtualColumns:
    """The virtual columns of one stream's tables; see the module."""

    def __init__(
        self,
        connection: Any,
        admin: Any,
        database: str,
        connect_reader: Callable[[], Any],
        *,
        mariadb: bool,
    ) -> None:
        """`connection` applies; `admin` writes no binlog and holds no transaction.

        `connect_reader` opens one that gives values as they are stored, and is `UNCOMMITTED`.
        """
        self._mariadb = mariadb
        self._connection = connection
        self._admin = admin
        self._database = database
        self._connect_reader = connect_reader
        self._reader: Any = None
        self._targets: dict[str, _Target | None] = {}
        self._keys: dict[str, _Keys] = {}

    def has(self, target: str) -> bool:
        """Has this table, as it is now, virtual columns?"""
        return self._target(target) is not None

    def lacks(self, target: str, table_map: TableMap, event: bytes) -> bool:
        """May the replica log rows of this event with wrong virtual columns?"""
        known = self._target(target)
        if known is None or event[4] in DELETE_EVENTS or not known.catalog.primary_key:
            return False
        if known.catalog.system_versioned:
            return True
        held = RowSplitter.of(table_map).after_columns(event)
        missing = [bases for column, bases in known.bases.items() if not held >> column & 1]
        if self._mariadb and event[4] not in WRITE_EVENTS:  # as they were before, they are right
            missing = [bases for bases in missing if bases & held]
        return bool(missing)

    def forget(self, targets: Iterable[str]) -> None:
        """These tables may be others from here on; no transaction is open."""
        for target in targets:
            self._targets.pop(target, None)
        self.rest()

    def rest(self) -> None:
        """Nothing is left behind while there is nothing to do; no transaction is open."""
        for keys in self._keys.values():
            execute(self._admin, f"DROP TABLE IF EXISTS {quote(keys.name)}")
        self._keys.clear()

    def completed(self, target: str, table_map: TableMap, event: bytes) -> Iterator[bytes]:
        """Events that do the same and lack no virtual column; apply each before the next is asked.

        The caller holds a transaction, in which all that came before has been applied.
        """
        known = self._target(target)
        if known is None:
            raise AssertionError("nothing is left out of a table without virtual columns")
        splitter = RowSplitter.of(table_map)
        cut = splitter.cut(event)
        keys = [_key_of(known.catalog, splitter, cut, row) for row in cut.rows]
        if _comes_back(keys):
            for row, (_before, key) in zip(cut.rows, keys, strict=True):
                alone = cut.alone(row)
                part = splitter.cut(alone)
                yield self._complete(known, table_map, splitter, part, alone, [key])
        else:
            after = [key for _before, key in keys]
            yield self._complete(known, table_map, splitter, cut, event, after)

    def _complete(
        self,
        known: _Target,
        table_map: TableMap,
        splitter: RowSplitter,
        cut: CutEvent,
        event: bytes,
        keys: Sequence[Values],
    ) -> bytes:
        fields = self._keys_of(known).fields
        found = self._read(known, table_map, event, keys)
        if len(found) != len(cut.rows):
            raise UnknownEvent(
                f"rows of table {known.catalog.name} are not found by the keys that they came with",
                hint=f"Reload the table: replicator resync {known.catalog.name}; and report it.",
            )
        columns, rows = 0, []
        for row, read in zip(cut.rows, found, strict=True):
            values = splitter.values(row.after or b"", cut.after_columns)
            for (column, field), value in zip(fields.items(), read[1:], strict=True):
                values[column] = None if value is None else field.encode(value)
            columns, image = image_of(values, splitter.width)
            rows.append(splitter.head_of_after(row, fields) + image)
        return splitter.retold(cut, columns, rows)

    def _read(
        self, known: _Target, table_map: TableMap, event: bytes, keys: Sequence[Values]
    ) -> list[Any]:
        """Number and virtual columns of each row as the event leaves it."""
        table = self._keys_of(known)
        segment = Segment()
        segment.add(self._database, known.catalog.name, table_map, event)
        execute(self._connection, "SAVEPOINT etl_virtual")
        execute_events(self._connection, segment.events(), known.catalog.name)
        images = []
        for number, key in enumerate(keys):
            ordered = (key[column] for column in known.catalog.primary_key)
            values = dict(enumerate((table.layout.fields[0].encode(b"%d" % number), *ordered)))
            images.append(image_of(values, table.layout.width)[1])
        written = rows_event(
            _TABLE_ID,
            table.layout.width,
            images,
            timestamp=event_timestamp(event),
            version=1 if self._mariadb else 2,
        )
        execute_events(self._connection, table.table_map + written, known.catalog.name)
        if self._reader is None:
            self._reader = self._connect_reader()
        found = fetch(self._reader, table.query)
        execute(self._connection, "ROLLBACK TO SAVEPOINT etl_virtual")
        return found

    def _target(self, name: str) -> _Target | None:
        if name not in self._targets:
            with translated("replica"):
                self._targets[name] = self._look_at(name)
        return self._targets[name]

    def _look_at(self, name: str) -> _Target | None:
        generated = fetch(
            self._admin,
            "SELECT column_name, generation_expression, extra LIKE '%%VIRTUAL%%', table_name"
            " FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
            " AND generation_expression NOT IN ('', 'ROW START', 'ROW END')",
            [self._database, name],
        )
        generated = [one for one in generated if one[3] == name]  # it compares without case
        virtual = {column for column, _how, is_virtual, _ in generated if is_virtual}
        if not virtual:
            return None
        catalog = read_catalog(self._admin, self._database, [name])[name]
        bases = bases_of(catalog, {column: how for column, how, _virtual, _ in generated})
        return _Target(
            catalog, {at: of for at, of in bases.items() if catalog.columns[at].name in virtual}
        )

    def _keys_of(self, known: _Target) -> _Keys:
        target = known.catalog.name
        if target not in self._keys:
            self._keys[target] = self._make_keys(known)
        return self._keys[target]

    def _make_keys(self, known: _Target) -> _Keys:
        catalog = known.catalog
        name = hidden_name(VIRTUAL_PREFIX, catalog.name)
        of = quote(catalog.name)
        key = [quote(catalog.columns[at].name) for at in catalog.primary_key]
        chosen = ", ".join(f"{column} AS {_KEY}{at}" for at, column in enumerate(key))
        execute(self._admin, f"DROP TABLE IF EXISTS {quote(name)}")
        execute(
            self._admin,
            f"CREATE TABLE {quote(name)} (PRIMARY KEY ({_ROW})) ENGINE=InnoDB"
            f" AS SELECT CAST(0 AS UNSIGNED) AS {_ROW}, {chosen} FROM {of} WHERE FALSE",
        )
        columns = read_catalog(self._admin, self._database, [name])[name].columns
        layout = TableLayout(name, tuple(field_of(name, column) for column in columns))
        every = " FOR SYSTEM_TIME ALL" if catalog.system_versioned else ""
        pairs = " AND ".join(f"{column} = {_KEY}{at}" for at, column in enumerate(key))
        fields = {at: field_of(catalog.name, catalog.columns[at]) for at in known.bases}
        read = ", ".join(field.expression for field in fields.values())
        return _Keys(
            name,
            layout,
            build_table_map(_TABLE_ID, self._database, layout),
            fields,
            f"SELECT {_ROW}, {read} FROM {quote(name)} STRAIGHT_JOIN {of}{every} ON {pairs}"
            f" ORDER BY {_ROW}",
        )


def bases_of(catalog: CatalogTable, expressions: dict[str, str]) -> dict[int, int]:
    """Of each generated column, those that its value may come from, as a bitmap.

    An expression names its columns; what it holds that only looks like a name does no harm.
    """
    texts = {
        at: expressions[column.name].replace("``", "`").lower()
        for at, column in enumerate(catalog.columns)
        if column.name in expressions
    }
    named = {
        at: {n for n, one in enumerate(catalog.columns) if one.name.lower() in text}
        for at, text in texts.items()
    }
    bases = {}
    for at in named:
        reached, new = set[int](), {at}
        while new:
            reached |= new
            new = {n for one in new for n in named.get(one, ())} - reached
        bases[at] = sum(1 << n for n in reached - {at})
    return bases


def _key_of(
    catalog: CatalogTable, splitter: RowSplitter, cut: CutEvent, row: Row
) -> tuple[Values, Values]:
    """The row's key before and after; nothing where there was no row before."""
    key = catalog.primary_key
    before = splitter.some_values(row.before or b"", cut.before_columns, key) if row.before else {}
    after = before | splitter.some_values(row.after or b"", cut.after_columns, key)
    if len(after) < len(key):
        raise UnknownEvent(
            f"an event of table {catalog.name} leaves out virtual columns, and part of its key",
            hint="On the source: SET GLOBAL binlog_row_image = 'FULL'; then replicator resync"
            " the table.",
        )
    return before, after


def _comes_back(keys: Sequence[tuple[Values, Values]]) -> bool:
    """Does a row begin under a key that an earlier one of the event has ended under?"""
    ended: set[frozenset[tuple[int, bytes | None]]] = set()
    for before, after in keys:
        if frozenset(before.items()) in ended:
            return True
        ended.add(frozenset(after.items()))
    return False

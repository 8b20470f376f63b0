"""Rows events that leave out generated columns, made whole before they are decoded.

Left: UPDATE and DELETE events of the replica's binlog as MariaDB writes them from 11.8.9 on:
whatever `binlog_row_image` says, their images hold no generated column, nor the hidden hash of
a long unique key. Right: the same events with every column, so that nobody behind this need
know. An event of a table that is not in `tables` is nobody's business here: the loader enters
one when its first such event is met, and begins again (`loader.daemon`).

A generated column is worked out by the replica itself, from the images' own bytes: they are
written, as inserted rows', into a *double* of the table, which is LIKE it but has no keys; an
INSERT takes the rows from there into a second one, since only that works out every generated
column on every version; and the columns are read. All this in a transaction that is not logged
and is rolled back. So the value is that of the row at its place in the stream, however far the
table has gone on since. Should the table have other columns by now, or none, a schema change is
on its way to us in the stream: `Incompletable` is raised, and the table is copied from behind
that change instead. (A replica that logs parts of rows is found when the loader starts.) Should
it have the same columns, but generated in other ways, `doubted` says so when the change arrives.

Rows come back in the order in which they were written, since InnoDB keeps a table without keys
in that order and the whole of it is read; and the primary key, which is read with them, is held
against the image's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import pymysql

from config.connections import MySQLConnection
from config.connections import quote_mysql_identifier as quote
from config.errors import CopyRefused, UnsupportedStatement
from loader.load.selected import SESSION
from loader.replica import binlog_end
from loader.rows import TablePlan
from replicator.binlog.catalog import read_catalog
from replicator.binlog.events import (
    TableMap,
    format_description_without_checksums,
    parse_table_map,
    rows_flags,
)
from replicator.binlog.position import BinlogPosition, ReplicaPosition
from replicator.binlog.rowimage import (
    Kind,
    TableLayout,
    build_table_map,
    rows_event,
)
from replicator.binlog.rowsplit import CutEvent, Image, RowSplitter, Values, image_of
from replicator.binlog.rowvalues import field_of
from replicator.binlog.statement import binlog_statement

_PREFIX: Final = "_old_etl_whole_"
"""Tables that begin so are nobody's: leg 1 carries and copies none of them."""
_TABLE_ID: Final = 1
_NO_SUCH_TABLE: Final = 1146
_NO_WAY, _PERIOD = "", "ROW START"
_NO_WAYS: Final = frozenset({_NO_WAY, _PERIOD, "ROW END"})
"""Of `generation_expression`: a column's that is none, and those of the time of a row's version."""
_CHUNK_BYTES: Final = 1 << 20
"""Images are written in statements of about this size."""
_UNSEEN: Final = (
    "SET SESSION sql_log_bin = 0",
    "/*M!100300 SET SESSION system_versioning_alter_history = 'KEEP' */",
)
_AS_IT_IS: Final = "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', check_constraint_checks = 0"


class Incompletable(Exception):
    """The table is not what it was when the event was written; its name."""

    def __init__(self, table: str) -> None:
        super().__init__(table)
        self.table = table


@dataclass(frozen=True, slots=True)
class _Doubles:
    """A table's two empty doubles on the replica, and how rows go through them."""

    table_map: bytes
    """Of the first."""
    layout: TableLayout
    generated: tuple[int, ...]
    checked: tuple[int, ...]
    """The primary key's columns, as far as both doubles have their values."""
    insert: str
    select: str


@dataclass(slots=True)
class Completer:
    """See the module. `connect` opens two connections: for rows as bytes, and for all else."""

    connect: Callable[[], tuple[MySQLConnection, MySQLConnection]]
    database: str
    tables: frozenset[str] = frozenset()
    """Those whose events are looked at."""
    format_description: bytes = b""
    """The replica's stream's last, as `BinlogStream` hands it over."""
    _rows: Any = None
    _plain: Any = None
    _doubles: dict[tuple[str, bytes, tuple[int, ...]], _Doubles] = field(default_factory=dict)
    _made_at: dict[str, ReplicaPosition] = field(default_factory=dict)
    """Where the replica's binlog ended when a table's doubles were made."""
    _names: set[str] = field(default_factory=set)
    """Of all tables that were made."""

    def complete(self, plan: TablePlan, table_map: TableMap, event: bytes) -> bytes:
        """The event with every column in its images, or `Incompletable`."""
        splitter = RowSplitter.of(table_map)
        cut = splitter.cut(event)
        sides = _sides(cut)
        missing = 0
        for columns, _images in sides:
            missing |= splitter.every_column & ~columns
        if not missing:
            return event
        width = len(plan.readers)
        rows = [[splitter.values(image, columns) for image in images] for columns, images in sides]
        if missing & ((1 << width) - 1):
            for side in rows:
                self._work_out(plan, table_map, side, width)
        for values in (values for side in rows for values in side):
            values.update(dict.fromkeys(range(width, splitter.width)))
        in_turn = (values for sides_of_row in zip(*rows, strict=True) for values in sides_of_row)
        images = [image_of(values, splitter.width)[1] for values in in_turn]
        return _event_of(event, splitter.width, images)

    def _work_out(
        self, plan: TablePlan, table_map: TableMap, rows: Sequence[Values], width: int
    ) -> None:
        """Add the generated columns to rows whose images hold the same columns."""
        try:
            doubles = self._doubles_of(plan, table_map, width)
            stored = set(range(width)).difference(doubles.generated)
            if any(not stored <= values.keys() for values in rows[:1]):
                raise Incompletable(plan.table)
            answers = self._ask(doubles, rows)
        except pymysql.MySQLError as error:
            self.close()
            if error.args[0] == _NO_SUCH_TABLE:
                raise Incompletable(plan.table) from None
            raise
        except (CopyRefused, UnsupportedStatement):  # stored in a way that no BINLOG can bring
            raise Incompletable(plan.table) from None
        if len(answers) != len(rows):
            raise Incompletable(plan.table)
        for values, answer in zip(rows, answers, strict=True):
            read = dict(zip((*doubles.generated, *doubles.checked), answer, strict=True))
            encoded = {
                at: None if value is None else doubles.layout.fields[at].encode(value)
                for at, value in read.items()
            }
            if any(encoded[at] != values[at] for at in doubles.checked):
                raise Incompletable(plan.table)
            values.update(encoded)

    def _ask(self, doubles: _Doubles, rows: Sequence[Values]) -> list[Any]:
        with self._rows.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            for event in _inserted(doubles, rows):
                cursor.execute(binlog_statement(doubles.table_map + event))
            cursor.execute(doubles.insert)
            cursor.execute(doubles.select)
            answers = list(cursor.fetchall())
            cursor.execute("ROLLBACK")
        return answers

    def _doubles_of(self, plan: TablePlan, table_map: TableMap, width: int) -> _Doubles:
        key = (plan.table, table_map.column_types, tuple(table_map.column_metadata))
        doubles = self._doubles.get(key)
        if doubles is None:
            self.forget()
            doubles = self._doubles[key] = self._made(plan, table_map, width)
        return doubles

    def _made(self, plan: TablePlan, table_map: TableMap, width: int) -> _Doubles:
        """Make the doubles, or raise `Incompletable` where the table is another one by now."""
        if self._plain is None:
            self._connect()
        self._made_at.pop(plan.table, None)
        digest = hashlib.sha256(plan.table.encode()).hexdigest()[:16]
        first, second = f"{_PREFIX}1_{digest}", f"{_PREFIX}2_{digest}"
        self._names |= {first, second}
        with self._plain.cursor() as cursor:
            _create_like(cursor, first, plan.table)
            catalog = read_catalog(self._plain, self.database, [first])[first]
            layout = TableLayout(first, tuple(field_of(plan.table, one) for one in catalog.columns))
            made = build_table_map(_TABLE_ID, self.database, layout)
            names = [one.name for one in catalog.columns]
            if (
                names != [one.name for one in plan.schema.columns]
                or _types(parse_table_map(made), width) != _types(table_map, width)
            ):  # fmt: skip
                raise Incompletable(plan.table)
            how = _generation(cursor, first)
            cursor.execute(f"ALTER TABLE {quote(first)} {_without_keys(cursor, first)}")
            _create_like(cursor, second, first)
        self._made_at[plan.table] = binlog_end(self._plain)
        generated = [at for at, name in enumerate(names) if how.get(name, _PERIOD) not in _NO_WAYS]
        stored = [at for at, name in enumerate(names) if how.get(name, _PERIOD) == _NO_WAY]
        checked = [at for at in plan.schema.primary_key if at in stored]
        columns = ", ".join(quote(names[at]) for at in stored)
        every = " FOR SYSTEM_TIME ALL" if catalog.system_versioned else ""
        read = ", ".join(layout.fields[at].expression for at in (*generated, *checked))
        return _Doubles(
            made,
            layout,
            tuple(generated),
            tuple(checked),
            f"INSERT INTO {quote(second)} ({columns}) SELECT {columns} FROM {quote(first)}{every}"
            " USE INDEX ()",
            f"SELECT {read} FROM {quote(second)} USE INDEX ()",
        )

    def _connect(self) -> None:
        self._rows, self._plain = self.connect()
        for connection in (self._rows, self._plain):
            connection.select_db(self.database)
        announced = format_description_without_checksums(self.format_description)
        with self._plain.cursor() as cursor:
            for statement in _UNSEEN:
                cursor.execute(statement)
            cursor.execute("SHOW TABLES LIKE %s", (_PREFIX.replace("_", r"\_") + "%",))
            for (name,) in cursor.fetchall():
                cursor.execute(f"DROP TABLE IF EXISTS {quote(name)}")
        with self._rows.cursor() as cursor:
            for words in (*_UNSEEN, *SESSION, _AS_IT_IS, binlog_statement(announced)):
                cursor.execute(words)

    def doubted(self, at: BinlogPosition) -> set[str]:
        """Tables whose doubles may be what a statement that ends at `at` has made of them.

        They had the right columns, but how those are generated may be another matter.
        """
        self._made_at = {name: made for name, made in self._made_at.items() if made >= at}
        return set(self._made_at)

    def forget(self) -> None:
        """Tables may be others from here on: their doubles are made anew when they are needed."""
        self._doubles.clear()

    def close(self) -> None:
        """Drop the doubles, and hang up."""
        rows, plain = self._rows, self._plain
        names, self._names = self._names, set()
        self._rows = self._plain = None
        self.forget()
        with suppress(pymysql.MySQLError, OSError):
            if rows is not None:
                rows.close()  # first, as its transaction may hold a double
            if plain is not None:
                with plain.cursor() as cursor:
                    for name in names:
                        cursor.execute(f"DROP TABLE IF EXISTS {quote(name)}")
                plain.close()


def _sides(cut: CutEvent) -> list[tuple[int, list[Image]]]:
    """The columns and the images of what the event's rows were, and of what they are then."""
    before = [row.before for row in cut.rows if row.before is not None]
    after = [row.after for row in cut.rows if row.after is not None]
    both = ((cut.before_columns, before), (cut.after_columns, after))
    return [(columns, images) for columns, images in both if images]


def _event_of(event: bytes, width: int, images: list[Image]) -> bytes:
    """An event like this one, of these images, which hold every column."""
    kind, version = next(
        (kind, version)
        for kind in Kind
        for version, code in enumerate(kind.value, start=1)
        if code == event[4]
    )
    return rows_event(
        int.from_bytes(event[19:25], "little"),
        width,
        images,
        kind=kind,
        flags=rows_flags(event),
        version=version,
        server_id=int.from_bytes(event[5:9], "little"),
        timestamp=int.from_bytes(event[:4], "little"),
    )


def _inserted(doubles: _Doubles, rows: Sequence[Values]) -> Iterator[bytes]:
    """Events that insert the rows' stored columns into a table's double."""
    width = len(doubles.layout.fields)
    wanted = frozenset(range(width)).difference(doubles.generated)
    columns, images, size = 0, [], 0
    for values in rows:
        stored = {at: value for at, value in values.items() if at in wanted}
        columns, image = image_of(stored, width)
        images.append(image)
        size += len(image)
        if size >= _CHUNK_BYTES:
            yield rows_event(_TABLE_ID, width, images, columns=columns)
            images, size = [], 0
    if images:
        yield rows_event(_TABLE_ID, width, images, columns=columns)


def _types(table_map: TableMap, width: int) -> tuple[bytes, tuple[int, ...]]:
    """How the first columns are stored."""
    return table_map.column_types[:width], tuple(table_map.column_metadata[:width])


def _create_like(cursor: Any, name: str, table: str) -> None:
    cursor.execute(f"DROP TABLE IF EXISTS {quote(name)}")
    cursor.execute(f"CREATE TABLE {quote(name)} LIKE {quote(table)}")


def _generation(cursor: Any, name: str) -> dict[str, str]:
    """How each column is generated; periods that no statement named are not among them."""
    cursor.execute(
        "SELECT column_name, COALESCE(generation_expression, '') FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND table_name = %s",
        (name,),
    )
    return {str(column): str(how).upper() for column, how in cursor.fetchall()}


def _without_keys(cursor: Any, name: str) -> str:
    """What ALTER TABLE must do to a table so that it keeps rows in the order in which they come."""
    cursor.execute(
        "SELECT DISTINCT index_name FROM information_schema.statistics"
        " WHERE table_schema = DATABASE() AND table_name = %s",
        (name,),
    )
    keys = [key for (key,) in cursor.fetchall()]
    cursor.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
        " AND table_name = %s AND extra LIKE '%%auto_increment%%'",
        (name,),
    )
    numbered = [f"ADD KEY ({quote(one)})" for (one,) in cursor.fetchall()]
    cursor.execute(
        "SELECT create_options LIKE '%%partitioned%%' FROM information_schema.tables"
        " WHERE table_schema = DATABASE() AND table_name = %s",
        (name,),
    )
    whole = " REMOVE PARTITIONING" if cursor.fetchone()[0] else ""
    dropped = [f"DROP KEY {quote(key)}" for key in keys]
    return ", ".join([*dropped, *numbered, "ENGINE = InnoDB"]) + whole

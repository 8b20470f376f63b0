"""Write a folded batch into `raw`: COPY, upsert, delete, in the caller's transaction.

From the left, `batch` gives the last state of each key; to the right go rows in the
raw tables. The caller adds the offset and commits, so that rows and position move
together. Many rows of a table go by COPY through a temporary staging table; few go
as prepared statements in one pipeline, which spares the round trips.

While a table is being loaded its writes are also kept in its *touched* table (see
`reload`): every touched key's last state, so that the merge knows which rows of the
copy are out of date.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql

from config.connections import PostgresConnection
from loader import schema, tracking
from loader.batch import Image, TableFold
from loader.schema import STAGE, TOUCHED, RawTable, helper_name, quoted
from loader.types import raw_name
from loader.values import ValueFault, escaped, fields_of
from replicator.binlog.position import SourcePosition

FEW_ROWS = 100
"""Up to so many rows of a table are written by prepared statements."""

LOADED_AT, SOURCE_TS = "_loaded_at", "_source_ts"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a table's changes go: into its raw table, into its touched table, or both."""

    table: str
    into_raw: bool
    into_touched: bool

    @property
    def raw(self) -> str:
        """The raw table's name."""
        return raw_name(self.table)

    @property
    def touched(self) -> str:
        """The touched table's name."""
        return helper_name(TOUCHED, self.table)


class Statements:
    """The SQL of one table under one plan; composed once, prepared by the server."""

    def __init__(self, connection: PostgresConnection, target: Target, shape: RawTable) -> None:
        self.shape = shape
        self._render = connection
        self._table = sql.Identifier(target.raw)
        self._touched = sql.Identifier(target.touched)
        # In statements with parameters psycopg reads every per cent sign as a placeholder's.
        self._safe_table = _safe(target.raw)
        self._safe_touched = _safe(target.touched)
        self.stage = helper_name(STAGE, target.table)
        self.upsert = self._text(self._upsert())
        self.delete = self._text(self._delete())
        self.touch = self._text(self._touch())

    def _text(self, statement: sql.Composed) -> bytes:
        return statement.as_bytes(self._render)

    def _upsert(self) -> sql.Composed:
        values = sql.SQL(", ").join([sql.Placeholder()] * (len(self.shape.columns) + 1))
        head = sql.SQL("INSERT INTO {} ({}, {}, {}) VALUES ({}, statement_timestamp())").format(
            self._safe_table,
            _percent_safe(self.shape.names),
            sql.Identifier(SOURCE_TS),
            sql.Identifier(LOADED_AT),
            values,
        )
        return head + self._on_conflict(percent=True) if self.shape.key else head

    def _on_conflict(self, *, percent: bool = False) -> sql.Composed:
        names = (*self.shape.names, SOURCE_TS, LOADED_AT)
        spelled = [n.replace("%", "%%") for n in names] if percent else list(names)
        key = [n.replace("%", "%%") for n in self.shape.key] if percent else self.shape.key
        sets = sql.SQL(", ").join(
            sql.SQL("{} = EXCLUDED.{}").format(sql.Identifier(n), sql.Identifier(n))
            for n in spelled
        )
        return sql.SQL(" ON CONFLICT ({}) DO UPDATE SET {}").format(quoted(key), sets)

    def _delete(self) -> sql.Composed:
        if self.shape.key:
            return sql.SQL("DELETE FROM {} WHERE {}").format(
                self._safe_table, _equal_to_parameters(self.shape.key, "=")
            )
        return sql.SQL(
            "DELETE FROM {} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {} WHERE {} LIMIT %s))"
        ).format(
            self._safe_table,
            self._safe_table,
            _equal_to_parameters(self.shape.names, "IS NOT DISTINCT FROM"),
        )

    def _touch(self) -> sql.Composed:
        """Record a key's last state: key text, deleted or not, all columns, source time."""
        names = ("_key", "_deleted", *self.shape.names, SOURCE_TS)
        spelled = [_safe(n) for n in names]
        sets = sql.SQL(", ").join(
            sql.SQL("{} = EXCLUDED.{}").format(name, name) for name in spelled[1:]
        )
        return sql.SQL(
            "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (_key) DO UPDATE SET {}"
        ).format(
            self._safe_touched,
            sql.SQL(", ").join(spelled),
            sql.SQL(", ").join([sql.Placeholder()] * len(names)),
            sets,
        )

    def staged_upsert(self) -> sql.Composed:
        """Everything staged into the raw table."""
        names = (*self.shape.names, SOURCE_TS)
        head = sql.SQL("INSERT INTO {} ({}, {}) SELECT {}, statement_timestamp() FROM {}").format(
            self._table,
            quoted(names),
            sql.Identifier(LOADED_AT),
            quoted(names),
            sql.Identifier(self.stage),
        )
        return head + self._on_conflict() if self.shape.key else head

    def staged_delete(self) -> sql.Composed:
        """The raw rows whose keys are staged out of it."""
        return sql.SQL("DELETE FROM {} AS r USING {} AS s WHERE {}").format(
            self._table, sql.Identifier(self.stage), same_key(self.shape.key, "r", "s")
        )

    def staged_touch(self) -> sql.Composed:
        """Everything staged into the touched table."""
        names = ("_key", "_deleted", *self.shape.names, SOURCE_TS)
        sets = sql.SQL(", ").join(
            sql.SQL("{} = EXCLUDED.{}").format(sql.Identifier(n), sql.Identifier(n))
            for n in names[1:]
        )
        return sql.SQL(
            "INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT (_key) DO UPDATE SET {}"
        ).format(self._touched, quoted(names), quoted(names), sql.Identifier(self.stage), sets)


def _safe(name: str) -> sql.Identifier:
    """An identifier for a statement with parameters."""
    return sql.Identifier(name.replace("%", "%%"))


def _percent_safe(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(_safe, names))


def _equal_to_parameters(names: Iterable[str], operator: str) -> sql.Composed:
    word = sql.SQL(operator)
    return sql.SQL(" AND ").join(
        sql.SQL("{} {} {}").format(_safe(n), word, sql.Placeholder()) for n in names
    )


def same_key(key: Iterable[str], left: str, right: str) -> sql.Composed:
    """`left.k = right.k` for every key column."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, n), sql.Identifier(right, n)) for n in key
    )


def create_touched(connection: PostgresConnection, target: Target, shape: RawTable) -> None:
    """Create the table of touched keys where it is missing."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(c.name), sql.SQL(c.type)) for c in shape.columns
    )
    connection.execute("SET LOCAL client_min_messages = warning")
    connection.execute(
        sql.SQL(
            "CREATE UNLOGGED TABLE IF NOT EXISTS {} (_key text PRIMARY KEY,"
            " _deleted boolean NOT NULL, {}, {} timestamptz)"
        ).format(sql.Identifier(target.touched), columns, sql.Identifier(SOURCE_TS))
    )


class FoldWriter:
    """Writes one table's fold; one for each table and plan, kept between batches."""

    def __init__(self, connection: PostgresConnection, target: Target, shape: RawTable) -> None:
        self._connection = connection
        self.target = target
        self._shape = shape
        self._sql = Statements(connection, target, shape)

    def is_small(self, fold: TableFold) -> bool:
        """May the fold go by prepared statements in a pipeline?"""
        return fold.size <= FEW_ROWS or not self._shape.key

    def write_small(self, fold: TableFold) -> None:
        """Send everything as prepared statements; errors surface when the pipeline ends."""
        if not self._shape.key:
            self._write_copies(fold)
            return
        if self.target.into_raw:
            for key, image in fold.images.items():
                if image.row is None:
                    self._send(self._sql.delete, _parameters(key))
            for image in fold.images.values():
                if image.row is not None:
                    self._send(self._sql.upsert, [*_parameters(image.row), _ts(image)])
        if self.target.into_touched:
            for key, image in fold.images.items():
                self._send(self._sql.touch, self._touch_parameters(key, image))

    def _touch_parameters(self, key: bytes, image: Image) -> list[str | int | None]:
        return [key.decode(), image.row is None, *self._row_or_key(key, image), _ts(image)]

    def _row_or_key(self, key: bytes, image: Image) -> list[str | None]:
        if image.row is not None:
            return _parameters(image.row)
        held = dict(zip(self._shape.key, _parameters(key), strict=True))
        return [held.get(name) for name in self._shape.names]

    def _write_copies(self, fold: TableFold) -> None:
        for row, net in fold.copies.items():
            if net < 0:
                self._send(self._sql.delete, [*_parameters(row), -net])
        for row, net in fold.copies.items():
            for _ in range(net):
                stamp = _ts(fold.copied_at[row])
                self._send(self._sql.upsert, [*_parameters(row), stamp])

    def _send(self, statement: bytes, parameters: Sequence[str | int | None]) -> None:
        self._connection.execute(statement, parameters, prepare=True)

    def write_large(self, fold: TableFold) -> None:
        """Write through a staging table."""
        deleted = [(k, i) for k, i in fold.images.items() if i.row is None]
        kept = [(k, i) for k, i in fold.images.items() if i.row is not None]
        if self.target.into_raw and deleted:
            self._stage(self._shape.key, (key for key, _ in deleted))
            self._finish(self._sql.staged_delete())
        if self.target.into_raw and kept:
            rows = ((image.row or b"") + b"\t" + image.source_ts for _, image in kept)
            self._stage((*self._shape.names, SOURCE_TS), rows)
            self._finish(self._sql.staged_upsert())
        if self.target.into_touched and fold.images:
            self._stage_touched(fold)

    def _stage_touched(self, fold: TableFold) -> None:
        names = ("_key", "_deleted", *self._shape.names, SOURCE_TS)
        self._stage(names, self._touched_rows(fold), like=self.target.touched)
        self._finish(self._sql.staged_touch())

    def _touched_rows(self, fold: TableFold) -> Iterator[bytes]:
        places = {name: index for index, name in enumerate(self._shape.key)}
        for key, image in fold.images.items():
            row = image.row
            if row is None:
                held = key.split(b"\t")
                row = b"\t".join(
                    held[places[name]] if name in places else b"\\N" for name in self._shape.names
                )
            deleted = b"t" if image.row is None else b"f"
            yield b"\t".join((escaped(key), deleted, row, image.source_ts))

    def _stage(self, names: Iterable[str], rows: Iterable[bytes], like: str | None = None) -> None:
        stage, columns = sql.Identifier(self._sql.stage), quoted(list(names))
        self._connection.execute(
            sql.SQL(
                "CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA"
            ).format(stage, columns, sql.Identifier(like or self.target.raw))
        )
        copy = sql.SQL("COPY pg_temp.{} ({}) FROM STDIN").format(stage, columns)
        with self._connection.cursor() as cursor, cursor.copy(copy) as sink:
            for block in blocks(rows):
                sink.write(block)

    def _finish(self, statement: sql.Composed) -> None:
        self._connection.execute(statement)
        self._connection.execute(
            sql.SQL("DROP TABLE pg_temp.{}").format(sql.Identifier(self._sql.stage))
        )


def blocks(rows: Iterable[bytes], size: int = 1 << 17) -> Iterator[bytes]:
    """COPY text rows joined into blocks of about `size` bytes."""
    held: list[bytes] = []
    length = 0
    for row in rows:
        held.append(row)
        length += len(row) + 1
        if length >= size:
            yield b"\n".join(held) + b"\n"
            held, length = [], 0
    if held:
        yield b"\n".join(held) + b"\n"


def _parameters(row: bytes) -> list[str | None]:
    return [None if field is None else field.decode() for field in fields_of(row)]


def _ts(image: Image) -> str | None:
    return _parameters(image.source_ts)[0]


def exception_key(key: bytes | None, *, has_key: bool) -> str:
    """How etl_value_exceptions names a row: its key's COPY text, or the whole row's digest."""
    if key is None:
        return ""
    return key.decode() if has_key else "sha256:" + hashlib.sha256(key).hexdigest()


def faults_of(fold: TableFold) -> list[tuple[str, ValueFault]]:
    """Every fault that a fold leaves behind, with its row's name."""
    has_key = bool(fold.plan.key)
    images = fold.images.items() if has_key else fold.copied_at.items()
    found = [
        (exception_key(key, has_key=has_key), fault)
        for key, image in images
        for fault in image.faults
    ]
    return found + [("", fault) for fault in fold.unwritable]


def write_exceptions(
    connection: PostgresConnection,
    fold: TableFold,
    known: set[str],
    source: SourcePosition | None,
) -> None:
    """Bring etl_value_exceptions in line with a fold; `known` names the tables that have any."""
    table = fold.plan.table
    if table in known and fold.plan.key:
        keys = [exception_key(key, has_key=True) for key in fold.images]
        tracking.clear_exceptions(connection, table, keys)
    faults = faults_of(fold)
    if faults:
        tracking.add_exceptions(connection, table, faults, source)
        known.add(table)


def ensure_shape(connection: PostgresConnection, table: str, shape: RawTable) -> bool:
    """Alter a raw table towards `shape` where its rows can stay; False where they cannot."""
    name = raw_name(table)
    current = schema.read_tables(connection, [name]).get(name)
    if current is None:
        return False
    change = schema.diff(current, shape)
    if change and not change.in_place:
        return False
    if change:
        schema.apply_in_place(connection, name, change)
    return True

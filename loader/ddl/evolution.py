"""From a table's schema and an ALTER's actions: the next schema, and what `raw` must do. Pure.

Left: the schema at this place of the stream, the actions, and what the catalog says
now, which may be later: it only lends charsets and keys. Right: an `Evolution`, or
`Uncertain`, and then the table is reloaded. A table map or the catalog proves the
next schema right or wrong afterwards (`following`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from loader.ddl.alterations import Action, Add, AddKey, Drop, DropKey, Modify, Rename, UniqueKeys
from loader.ddl.conversions import Check, checks_of
from loader.ddl.definitions import Definition
from loader.ddl.literals import Uncertain, fill_of
from loader.types import RawColumn, raw_name, raw_type
from replicator.binlog.schema import Column, ColumnType, TableSchema


@dataclass(frozen=True, slots=True)
class Evolution:
    """What to do to a raw table, in this order; names are those in `raw`."""

    schema: TableSchema
    checks: tuple[Check, ...] = ()
    """On the columns under their old names."""
    renamed: tuple[tuple[str, str], ...] = ()
    dropped: tuple[str, ...] = ()
    """Under their old names."""
    retyped: tuple[RawColumn, ...] = ()
    """Under their new names."""
    added: tuple[tuple[RawColumn, str | None], ...] = ()
    key: tuple[str, ...] | None = None
    """The new key; None where it stays."""

    def __bool__(self) -> bool:
        """Is there anything to do, or to look at?"""
        changed = self.renamed or self.dropped or self.retyped or self.added
        return bool(changed or self.checks or self.key is not None)

    @property
    def renews_values(self) -> bool:
        """Does it touch values that are there, or the names of rows?"""
        return bool(self.retyped or self.checks or self.key is not None)


@dataclass(slots=True)
class _Place:
    """A column on its way: where it came from, or what it is filled with."""

    column: Column
    origin: Column | None
    fill: str | None = None
    checks: list[Check] = field(default_factory=list)


def evolve(
    schema: TableSchema, actions: Sequence[Action], catalog: TableSchema | None
) -> Evolution:
    """See the module; raises Uncertain."""
    table = _Table(schema, catalog)
    for action in actions:
        table.take(action)
    return table.evolution()


class _Table:
    def __init__(self, schema: TableSchema, catalog: TableSchema | None) -> None:
        self._old = schema
        self._catalog = catalog
        self._places = [_Place(column, column) for column in schema.columns]
        self._dropped: list[str] = []
        self._key: tuple[str, ...] = tuple(schema.columns[at].name for at in schema.primary_key)
        self._ask_catalog = False

    def take(self, action: Action) -> None:
        match action:
            case Add(column, conditional):
                self._add(column, conditional=conditional)
            case Drop(name, conditional):
                self._drop(name, conditional=conditional)
            case Modify(old, column):
                self._modify(old, column)
            case Rename(old, new):
                place = self._place(old)
                self._rename(place, new)
            case AddKey(columns):
                self._add_key(columns)
            case DropKey():
                self._key, self._ask_catalog = (), True
            case UniqueKeys():
                self._ask_catalog = True

    def _find(self, name: str) -> _Place | None:
        wanted = name.lower()
        return next((p for p in self._places if p.column.name.lower() == wanted), None)

    def _place(self, name: str) -> _Place:
        place = self._find(name)
        if place is None:
            raise Uncertain
        return place

    def _add(self, wanted: Definition, *, conditional: bool) -> None:
        if self._find(wanted.name) is not None:
            if conditional:
                return
            raise Uncertain
        column = self._column(wanted, None)
        if wanted.numbered:
            raise Uncertain
        place = _Place(column, None, fill_of(column.type, column.nullable, wanted.default))
        self._insert(place, wanted.after)

    def _insert(self, place: _Place, after: str | None) -> None:
        if after is None:
            self._places.append(place)
        elif after == "":
            self._places.insert(0, place)
        else:
            self._places.insert(self._places.index(self._place(after)) + 1, place)

    def _drop(self, name: str, *, conditional: bool) -> None:
        place = self._find(name)
        if place is None:
            if conditional:
                return
            raise Uncertain
        if place.column.name in self._key or place.origin is None:
            raise Uncertain
        self._ask_catalog = self._ask_catalog or not self._key
        self._dropped.append(place.origin.name)
        self._places.remove(place)

    def _modify(self, old: str, wanted: Definition) -> None:
        place = self._place(old)
        if place.origin is None:
            raise Uncertain
        column = self._column(wanted, place.column)
        place.checks += checks_of(
            replace(place.column, name=place.origin.name), column, numbered=wanted.numbered
        )
        was_nullable = place.column.nullable
        self._rename(place, wanted.name)
        in_key = wanted.name in self._key
        if in_key and column.nullable:
            # A primary key stays NOT NULL; a unique key that stood in for one does no longer.
            now = self._in_catalog(wanted.name)
            if now is None or now.nullable:
                raise Uncertain("a column of its key may be NULL now")
        if not self._key and was_nullable != column.nullable:
            self._ask_catalog = True
        place.column = replace(column, nullable=column.nullable and not in_key)
        if wanted.after is not None:
            self._places.remove(place)
            self._insert(place, wanted.after)

    def _rename(self, place: _Place, new: str) -> None:
        old = place.column.name
        self._key = tuple(new if name == old else name for name in self._key)
        place.column = replace(place.column, name=new)

    def _add_key(self, columns: tuple[str, ...]) -> None:
        places = [self._place(name) for name in columns]
        for place in places:
            if place.column.nullable:
                if place.origin is not None:
                    place.checks.append(Check(place.origin.name, "null"))
                place.column = replace(place.column, nullable=False)
            if place.origin is None:
                raise Uncertain
        self._key = tuple(place.column.name for place in places)
        self._ask_catalog = False

    def _column(self, wanted: Definition, old: Column | None) -> Column:
        kind = wanted.type
        if _has_charset(kind):
            kind = replace(kind, charset=self._charset(wanted, old))
        return Column(wanted.name, kind, wanted.nullable, None)

    def _charset(self, wanted: Definition, old: Column | None) -> str:
        now = self._in_catalog(wanted.name)
        if now is not None and now.type.base == wanted.type.base and now.type.charset:
            return now.type.charset
        named = {"utf8": "utf8mb3"}.get(wanted.charset or "", wanted.charset)
        if named == "binary":
            raise Uncertain
        if named:
            return named
        if old is not None and old.type.charset:
            return old.type.charset
        used = Counter(c.type.charset for c in self._old.columns if c.type.charset)
        return (used.most_common(1) or [("utf8mb4", 0)])[0][0] or "utf8mb4"

    def _in_catalog(self, name: str) -> Column | None:
        columns = self._catalog.columns if self._catalog else ()
        return next((c for c in columns if c.name.lower() == name.lower()), None)

    def evolution(self) -> Evolution:
        schema = self._schema()
        old_key = tuple(self._old.columns[at].name for at in self._old.primary_key)
        origins = {p.column.name: p.origin.name for p in self._places if p.origin}
        new_key = tuple(schema.columns[at].name for at in schema.primary_key)
        same_key = tuple(origins.get(name, "") for name in new_key) == old_key
        kept = [(p.origin, p.column) for p in self._places if p.origin is not None]
        return Evolution(
            schema=schema,
            checks=tuple(
                replace(check, column=raw_name(check.column))
                for place in self._places
                for check in place.checks
            ),
            renamed=tuple(
                (raw_name(o.name), raw_name(c.name)) for o, c in kept if o.name != c.name
            ),
            dropped=tuple(map(raw_name, self._dropped)),
            retyped=tuple(_raw(c) for o, c in kept if raw_type(o) != raw_type(c)),
            added=tuple((_raw(p.column), p.fill) for p in self._places if p.origin is None),
            key=None if same_key else tuple(map(raw_name, new_key)),
        )

    def _schema(self) -> TableSchema:
        columns = tuple(place.column for place in self._places)
        key = self._key_now(columns) if self._ask_catalog else self._key
        places = {name: number for number, name in enumerate(key, 1)}
        names = [column.name for column in columns]
        return replace(
            self._old,
            columns=tuple(replace(c, key_position=places.get(c.name)) for c in columns),
            primary_key=tuple(names.index(name) for name in key),
        )

    def _key_now(self, columns: tuple[Column, ...]) -> tuple[str, ...]:
        """The key where the statement does not tell it: a unique one may stand in for a primary.

        The catalog may be later than this place of the stream. Where it has the key that we
        have, that stays: should it have gone and come again, a table map in between says so.
        """
        now = self._catalog
        if now is None:
            raise Uncertain("the replica has no such table any more, to tell its key")
        key = tuple(now.columns[at].name for at in now.primary_key)
        if [name.lower() for name in key] == [name.lower() for name in self._key]:
            return self._key
        if _without_keys(now.columns) != _without_keys(columns):
            raise Uncertain("its key is not certain, and the replica has changed it further")
        return key


def _without_keys(columns: Sequence[Column]) -> list[Column]:
    return [replace(column, key_position=None) for column in columns]


def _has_charset(kind: ColumnType) -> bool:
    return kind.base in ("char", "varchar", "enum", "set") or kind.base.endswith("text")


def _raw(column: Column) -> RawColumn:
    return RawColumn(raw_name(column.name), raw_type(column))

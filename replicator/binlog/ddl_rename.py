"""RENAME TABLE: pairs in order, some of which may leave our database or enter it.

Where all names are ours the statement stays as it is. Otherwise the replica
renames what it has: a table that leaves is first parked under a name of our
own, because a later pair may bring it back or take its name, and dropped
afterwards; a table that arrives must be copied from the source.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from replicator.binlog.ddl_reader import Place, Reader, TableName
from replicator.binlog.ddl_tables import aside
from replicator.binlog.ddl_verdict import Execute, Verdict

PARKED_PREFIX = "_old_moved_"
_LONGEST_NAME = 64

Pair = tuple[TableName, TableName]


def rename_tables(reader: Reader) -> Verdict:
    """`RENAME TABLE [IF EXISTS] a [WAIT n | NOWAIT] TO b, …`, read up to the word TABLE."""
    reader.take("IF", "EXISTS")
    pairs = _pairs(reader)
    places = [reader.scope.place(name) for pair in pairs for name in pair]
    if Place.OURS not in places:
        return aside(Place.EXCLUDED if Place.EXCLUDED in places else Place.ELSEWHERE)
    if set(places) == {Place.OURS} and _all_present(reader, pairs):
        return _as_written(reader, pairs)
    return _across(reader, pairs)


def _pairs(reader: Reader) -> list[Pair]:
    pairs: list[Pair] = []
    while not pairs or reader.take_sign(","):
        old = reader.table()
        if reader.take("WAIT"):
            reader.at += 1
        reader.take("NOWAIT")
        reader.take("TO")
        pairs.append((old, reader.table()))
    return pairs


def _all_present(reader: Reader, pairs: list[Pair]) -> bool:
    """Whether the replica has every table that is renamed, as far as that is known.

    What it lacks is a view on the source: RENAME TABLE renames those too.
    """
    made: set[str] = set()
    for old, new in pairs:
        table = reader.scope.shown(old.table)
        if table not in made and not reader.scope.present(table):
            return False
        made.add(reader.scope.shown(new.table))
    return True


def _as_written(reader: Reader, pairs: list[Pair]) -> Execute:
    for pair in pairs:
        for name in pair:
            reader.rewrite(name)
    shown = reader.scope.shown
    renames = tuple((shown(old.table), shown(new.table)) for old, new in pairs)
    return Execute(sql=reader.sql(), kind="rename table", tables=_flat(renames), renames=renames)


@dataclass
class _Walk:
    """The renames so far: where the tables that the replica has are now, by the source's names."""

    here: dict[tuple[str, str], str] = field(default_factory=dict)
    strange: set[str] = field(default_factory=set)  # our names that hold tables from elsewhere
    gone: set[str] = field(default_factory=set)  # our names whose table has moved on
    steps: list[tuple[str, str]] = field(default_factory=list)


def _across(reader: Reader, pairs: list[Pair]) -> Execute:
    walk = _Walk()
    for old, new in pairs:
        _step(reader, walk, old, new)
    parked = [table for table in walk.here.values() if table.startswith(PARKED_PREFIX)]
    dropped = tuple(old for old, new in walk.steps if new in parked)
    if len(walk.steps) == len(dropped):
        return _all_left(reader, walk, dropped)
    renames = tuple(walk.steps)
    return Execute(
        sql=_rename_sql(reader, renames),
        kind="rename table",
        tables=_flat(tuple(pair for pair in renames if pair[1] not in parked), dropped),
        renames=tuple(pair for pair in renames if pair[1] not in parked),
        dropped=dropped,
        needs_copy=tuple(sorted(walk.strange)),
        then=_drop_sql(reader, parked),
    )


def _step(reader: Reader, walk: _Walk, old: TableName, new: TableName) -> None:
    """Follow one pair; only what the replica holds is renamed there."""
    source, target = _key(reader, old), _key(reader, new)
    held = walk.here.pop(source, "") or _held(reader, walk, old)
    if _ours(reader, old):
        walk.gone.add(source[1])
        walk.strange.discard(source[1])
    if held:
        arrives = target[1] if _ours(reader, new) else _parked(len(walk.steps), target[1])
        walk.steps.append((held, arrives))
        walk.here[target] = arrives
    elif _ours(reader, new):
        walk.strange.add(target[1])


def _held(reader: Reader, walk: _Walk, name: TableName) -> str:
    """The table that the replica holds under a name which no pair has touched yet."""
    table = reader.scope.shown(name.table)
    untouched = table not in walk.strange and table not in walk.gone
    known = _ours(reader, name) and untouched and reader.scope.present(table)
    return table if known else ""


def _all_left(reader: Reader, walk: _Walk, dropped: tuple[str, ...]) -> Execute:
    """Nothing was renamed within our database: what left is dropped, what came is copied."""
    needed = tuple(sorted(walk.strange))
    return Execute(
        sql=_drop_sql(reader, list(dropped))[0] if dropped else "",
        kind="rename table",
        tables=_flat((), dropped, needed),
        dropped=dropped,
        needs_copy=needed,
    )


def _rename_sql(reader: Reader, renames: tuple[tuple[str, str], ...]) -> str:
    pairs = (f"{reader.qualified(old)} TO {reader.qualified(new)}" for old, new in renames)
    return "RENAME TABLE " + ", ".join(pairs)


def _drop_sql(reader: Reader, tables: list[str]) -> tuple[str, ...]:
    names = ", ".join(reader.qualified(table) for table in tables)
    return (f"DROP TABLE IF EXISTS {names}",) if tables else ()


def _key(reader: Reader, name: TableName) -> tuple[str, str]:
    return name.database, reader.scope.shown(name.table)


def _ours(reader: Reader, name: TableName) -> bool:
    return reader.scope.place(name) is Place.OURS


def _parked(number: int, table: str) -> str:
    return f"{PARKED_PREFIX}{number}_{table}"[:_LONGEST_NAME]


def _flat(renames: tuple[tuple[str, str], ...], *others: tuple[str, ...]) -> tuple[str, ...]:
    """Every table once, in the order of its first mention."""
    names = [name for pair in renames for name in pair]
    names += [name for group in others for name in group]
    return tuple(dict.fromkeys(names))

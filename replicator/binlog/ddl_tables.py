"""What statements about tables and their indexes do to us.

Each function gets a `Reader` that stands right after the words that announced
the statement (CREATE TABLE, DROP INDEX …) and returns a verdict. Where the
replica cannot know the rows (a table moved in from another database, or made
from a SELECT) the verdict asks for a copy of that table instead of guessing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

from replicator.binlog import ddl_body as body
from replicator.binlog.ddl_lexer import Kind
from replicator.binlog.ddl_reader import Place, Reader, Scope, TableName, Unreadable
from replicator.binlog.ddl_verdict import Execute, Skip, Unsupported, Verdict

OTHER_DATABASE = Skip("other database")
EXCLUDED_TABLE = Skip("excluded table")

_ALTERATIONS = frozenset(
    [
        "ADD",
        "ALTER",
        "ANALYZE",
        "CHANGE",
        "CHECK",
        "COALESCE",
        "CONVERT",
        "DISABLE",
        "DISCARD",
        "DROP",
        "ENABLE",
        "EXCHANGE",
        "FORCE",
        "IMPORT",
        "MODIFY",
        "OPTIMIZE",
        "ORDER",
        "REBUILD",
        "REMOVE",
        "RENAME",
        "REORGANIZE",
        "REPAIR",
        "TRUNCATE",
    ]
)
_UNREPEATABLE = frozenset(
    [
        "RAND",
        "RANDOM_BYTES",
        "UUID",
        "UUID_SHORT",
        "UUID_V4",
        "UUID_V7",
        "SYS_GUID",
        "NEXTVAL",
        "SETVAL",
        "LASTVAL",
        "SYSDATE",
        "CONNECTION_ID",
        "DATABASE",
        "FOUND_ROWS",
        "LAST_INSERT_ID",
        "ROW_COUNT",
        "SCHEMA",
        "VERSION",
        "USER",
        "SESSION_USER",
        "SYSTEM_USER",
        "CURRENT_USER",
    ]
)
_UNREPEATABLE_BARE = frozenset(["CURRENT_USER", "CURRENT_ROLE"])
"""What needs no brackets to be called."""
_NO_COLUMNS = frozenset(
    [
        "CHECK",
        "CONSTRAINT",
        "FOREIGN",
        "FULLTEXT",
        "INDEX",
        "KEY",
        "PARTITION",
        "PERIOD",
        "PRIMARY",
        "SPATIAL",
        "SYSTEM",
        "UNIQUE",
        "VECTOR",
    ]
)
_FOREIGN_PARENT = Unsupported(
    "a foreign key leads to a table that the replica does not hold, whose cascades change rows "
    "that no event shows",
    "Carry the referenced table too (config/tables.toml), or drop the foreign key on the source; "
    "then resync this table.",
)
_CASCADE = Unsupported(
    "a foreign key changes rows of its table by itself (CASCADE, SET NULL), and the binlog does"
    " not show these changes",
    "Drop the foreign key on the source, or exclude the table (config/tables.toml); then pass the"
    " statement with a full copy: stop the replicator, run replicator resync --all, and start it"
    " again.",
)
_ENGINE_CHANGED_KEYS = "foreign keys that the source's engine does not enforce became plain keys"


def aside(place: Place) -> Skip:
    """The verdict on a statement that concerns only a table that is not carried."""
    return EXCLUDED_TABLE if place is Place.EXCLUDED else OTHER_DATABASE


def create_table(reader: Reader, *, or_replace: bool) -> Verdict:
    conditional = reader.take("IF", "NOT", "EXISTS") or or_replace
    name = reader.table()
    place = reader.scope.place(name)
    if place is not Place.OURS:
        return aside(place)
    reader.rewrite(name)
    shown = reader.scope.shown(name.table)
    made = Execute(
        sql="",
        kind="create table",
        tables=(shown,),
        created=(shown,),
        dropped=(shown,) if or_replace else (),
        conditional=conditional,
    )
    bracketed = reader.sign_at(reader.at) == "("
    if reader.word_at(reader.at + bracketed) == "LIKE":
        return _create_like(reader, made, reader.at + bracketed + 1)
    if _selects(reader):
        return replace(made, needs_copy=(shown,))
    return _create_defined(reader, made)


def _create_like(reader: Reader, made: Execute, index: int) -> Verdict:
    model = reader.table_at(index + (reader.sign_at(index) == "."))
    if reader.scope.place(model) is not Place.OURS:
        return replace(made, needs_copy=made.tables)
    reader.rewrite(model)
    return replace(made, sql=reader.sql(), like=reader.scope.shown(model.table))


def _selects(reader: Reader) -> bool:
    """Whether rows come along: `CREATE TABLE t … SELECT`, in brackets or not, AS or not."""
    for index, depth, _ in reader.walk(reader.at):
        word, before = reader.word_at(index), reader.sign_at(index - 1)
        query = word in ("SELECT", "VALUES", "WITH") and reader.word_at(index + 1) != "SYSTEM"
        if query and (depth == 0 or (before == "(" and _only_brackets(reader, index))):
            return True
        if depth == 0 and word == "TABLE" and reader.word_at(index - 1) == "AS":
            return True
    return False


def _only_brackets(reader: Reader, index: int) -> bool:
    """Whether nothing but opening brackets and AS stand between the name and `index`."""
    between = range(reader.at, index)
    return all(reader.sign_at(at) == "(" or reader.word_at(at) == "AS" for at in between)


def _cut_start_transaction(reader: Reader, start: int) -> bool:
    """Take out MySQL's START TRANSACTION, which stands among the table's options.

    It would admit nothing but rows behind it; the table is made first, by itself.
    """
    for index, depth, _ in reader.walk(start):
        words = (reader.word_at(index), reader.word_at(index + 1))
        if depth == 0 and words == ("START", "TRANSACTION"):
            reader.cut(reader.code[index].start, reader.code[index + 1].end)
            return True
    return False


def _create_defined(reader: Reader, made: Execute) -> Verdict:
    start = reader.at
    parents = body.rewrite_qualifiers(reader, start)
    body.drop_sequence_defaults(reader, start)
    named = body.engines_named(reader, start)
    engines = body.rewrite_engines(reader, start, top=lambda _: True)
    notes: tuple[str, ...] = ()
    if parents and not body.enforces_foreign_keys(named or (reader.scope.source_engine,)):
        if not named and body.cascades(reader, start):
            return _CASCADE  # the session's default engine may have been another than the server's
        body.drop_idle_foreign_keys(reader, start)
        notes = (_ENGINE_CHANGED_KEYS,)
    elif body.foreign(reader, parents):
        return _FOREIGN_PARENT
    elif body.cascades(reader, start):
        return _CASCADE
    opens = _cut_start_transaction(reader, start)
    return replace(made, sql=reader.sql(), engines=engines, notes=notes, starts_transaction=opens)


@dataclass
class _Alteration:
    """What the actions of one ALTER TABLE add up to."""

    target: TableName | None = None
    exchanged: TableName | None = None
    split_off: TableName | None = None
    absorbed: TableName | None = None
    rows_changed: bool = False
    unrepeatable: bool = False
    imports: bool = False
    discards: bool = False
    added: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    column_renames: list[tuple[str, str]] = field(default_factory=list)

    def reuses_names(self) -> bool:
        """Whether a column's name stands for another column afterwards."""
        gone = self.removed | {old.lower() for old, _ in self.column_renames}
        come = self.added | {new.lower() for _, new in self.column_renames}
        return bool(gone & come)


def alter_table(reader: Reader, *, ignore: bool) -> Verdict:
    reader.take("IF", "EXISTS")
    name = reader.table()
    if reader.take("WAIT"):
        reader.at += 1
    reader.take("NOWAIT")
    found = _alteration(reader, ignore)
    place = reader.scope.place(name)
    if found.target is not None:
        arrives = reader.scope.place(found.target)
        if place is not Place.OURS or arrives is not Place.OURS:
            return _moved(reader, name, found.target)
    if place is not Place.OURS:
        return _exchange_elsewhere(reader, found) or aside(place)
    return _altered(reader, name, found)


def _alteration(reader: Reader, ignore: bool) -> _Alteration:
    found = _Alteration(rows_changed=ignore, unrepeatable=ignore)
    for first, last in body.segments(reader, reader.at, len(reader.code)):
        _note_action(reader, first, last, found)
    found.rows_changed |= found.reuses_names()
    return found


def _note_action(reader: Reader, first: int, last: int, found: _Alteration) -> None:
    """Take down what the action between two indexes means beyond its own text."""
    verb, second = reader.word_at(first), reader.word_at(first + 1)
    if verb == "RENAME" and second not in ("COLUMN", "INDEX", "KEY"):
        skipped = second in ("TO", "AS") or reader.sign_at(first + 1) == "="
        found.target = reader.table_at(first + 1 + skipped)
    elif verb == "EXCHANGE":
        found.exchanged = reader.table_at(_after(reader, first, last, "WITH", "TABLE"))
        found.rows_changed = True
    elif verb == "CONVERT" and second == "PARTITION":
        found.split_off = reader.table_at(_after(reader, first, last, "TO", "TABLE"))
        found.rows_changed = True
    elif verb == "CONVERT" and second == "TABLE":
        found.absorbed = reader.table_at(first + 2)
        found.rows_changed = True
    elif verb in ("TRUNCATE", "DROP") and second == "PARTITION":
        found.rows_changed = True
    elif verb in ("IMPORT", "DISCARD"):
        found.imports, found.discards = verb == "IMPORT", verb == "DISCARD"
    elif verb in ("ADD", "DROP"):
        _note_column(reader, first, last, found)
    elif verb == "CHANGE" or (verb, second) == ("RENAME", "COLUMN"):
        _note_column_rename(reader, first, found)


def _note_column(reader: Reader, first: int, last: int, found: _Alteration) -> None:
    """A column that is new may fill itself in an order or from a source that is not ours."""
    removing = reader.word_at(first) == "DROP"
    index = _column_at(reader, first + 1)
    if reader.word_at(index) in _NO_COLUMNS:
        found.rows_changed |= removing and reader.word_at(index) == "SYSTEM"
        return
    columns = found.removed if removing else found.added
    starts = [index]
    if reader.sign_at(index) == "(":
        inside = body.segments(reader, index + 1, body.closing(reader, index))
        starts = [_column_at(reader, start) for start, _ in inside]
    columns.update(reader.code[start].name.lower() for start in starts if start < last)
    if not removing:
        found.unrepeatable |= _unrepeatable(reader, range(first, last))


def _note_column_rename(reader: Reader, first: int, found: _Alteration) -> None:
    """CHANGE [COLUMN] [IF EXISTS] a b …, and RENAME COLUMN [IF EXISTS] a TO b."""
    index = _column_at(reader, first + 1)
    old = reader.token(index)
    new = reader.token(index + 1 + (reader.word_at(first) == "RENAME"))
    if old is not None and new is not None and old.name != new.name:
        found.column_renames.append((old.name, new.name))


def _column_at(reader: Reader, index: int) -> int:
    """The index of a column's name behind COLUMN and IF [NOT] EXISTS, any of which may lack."""
    index += reader.word_at(index) == "COLUMN"
    if reader.word_at(index) == "IF":
        index += 3 if reader.word_at(index + 1) == "NOT" else 2
    return index


def _unrepeatable(reader: Reader, places: range) -> bool:
    """Whether a new column's values depend on the order of rows, or on chance."""
    words = [reader.word_at(at) for at in places]
    called = {reader.word_at(at) for at in places if reader.sign_at(at + 1) == "("}
    bare = set(words) & _UNREPEATABLE_BARE
    variable = any(reader.code[at].kind is Kind.VARIABLE for at in places)
    sequence = any(
        pair in (("NEXT", "VALUE"), ("PREVIOUS", "VALUE")) for pair in itertools.pairwise(words)
    )
    return "AUTO_INCREMENT" in words or bool(called & _UNREPEATABLE or bare) or variable or sequence


def _after(reader: Reader, first: int, last: int, *words: str) -> int:
    """The index behind the first occurrence of two words between `first` and `last`."""
    for index in range(first, last):
        if (reader.word_at(index), reader.word_at(index + 1)) == words:
            return index + len(words)
    return last


def _altered(reader: Reader, name: TableName, found: _Alteration) -> Verdict:
    start, scope = reader.at, reader.scope
    reader.rewrite(name)
    shown = scope.shown(name.table)
    if found.discards:
        return Skip("tablespace")
    partners = [n for n in (found.exchanged, found.split_off, found.absorbed) if n]
    if any(scope.place(partner) is not Place.OURS for partner in partners) or found.imports:
        return Execute(sql="", kind="alter table", tables=(shown,), needs_copy=(shown,))
    if found.target is not None:
        reader.rewrite(found.target)
    if body.foreign(reader, body.rewrite_qualifiers(reader, start)):
        return _FOREIGN_PARENT
    if body.cascades(reader, start):
        return _CASCADE
    body.drop_sequence_defaults(reader, start)
    option = _option_places(reader, start)
    engines = body.rewrite_engines(reader, start, top=option.__contains__)
    body.relax_algorithms(reader, iter(sorted(option)))
    return _with_partners(
        scope,
        Execute(
            sql=reader.sql(),
            kind="alter table",
            tables=(shown,),
            engines=engines,
            column_renames=tuple(found.column_renames),
            rows_changed=found.rows_changed or found.unrepeatable,
            needs_copy=(shown,) if found.unrepeatable else (),
        ),
        found,
    )


def _with_partners(scope: Scope, made: Execute, found: _Alteration) -> Execute:
    """Add the other tables that an ALTER renames to, exchanges with, makes or swallows."""

    def shown(name: TableName | None) -> tuple[str, ...]:
        return (scope.shown(name.table),) if name else ()

    renamed = shown(found.target)
    others = renamed + shown(found.exchanged) + shown(found.split_off) + shown(found.absorbed)
    return replace(
        made,
        tables=tuple(dict.fromkeys(made.tables + others)),
        renames=tuple((made.tables[0], target) for target in renamed),
        created=shown(found.split_off),
        dropped=shown(found.absorbed),
        needs_copy=renamed if renamed and made.needs_copy else made.needs_copy,
    )


def _option_places(reader: Reader, start: int) -> set[int]:
    """Indexes in actions that are table options, where ENGINE cannot be a column's name."""
    places: set[int] = set()
    for first, last in body.segments(reader, start, len(reader.code)):
        if reader.word_at(first) not in _ALTERATIONS:
            places.update(range(first, last))
    return places


def _exchange_elsewhere(reader: Reader, found: _Alteration) -> Verdict | None:
    """A table elsewhere was altered, and one of ours gave it rows or took them."""
    for partner in (found.exchanged, found.split_off):
        if partner is not None and reader.scope.place(partner) is Place.OURS:
            table = (reader.scope.shown(partner.table),)
            return Execute(sql="", kind="alter table", tables=table, needs_copy=table)
    if found.absorbed is not None and reader.scope.place(found.absorbed) is Place.OURS:
        return _dropped(reader, found.absorbed, kind="alter table")
    return None


def _moved(reader: Reader, name: TableName, target: TableName) -> Verdict:
    """A table left for where we do not follow, or came from there."""
    if reader.scope.place(name) is Place.OURS:
        return _dropped(reader, name, kind="alter table")
    if reader.scope.place(target) is Place.OURS:
        table = (reader.scope.shown(target.table),)
        return Execute(sql="", kind="alter table", tables=table, created=table, needs_copy=table)
    return aside(reader.scope.place(name))


def _dropped(reader: Reader, name: TableName, *, kind: str) -> Execute:
    shown = reader.scope.shown(name.table)
    sql = f"DROP TABLE IF EXISTS {reader.qualified(shown)}"
    return Execute(sql=sql, kind=kind, tables=(shown,), dropped=(shown,))


def drop_table(reader: Reader) -> Verdict:
    """DROP TABLE: only ours remain; one that is gone already is no error."""
    before = reader.code[reader.at - 1].end
    if not reader.take("IF", "EXISTS"):
        reader.insert(before, " IF EXISTS")
    names = reader.tables()
    ours = [name for name in names if reader.scope.place(name) is Place.OURS]
    if not ours:
        return aside(reader.scope.place(names[0]))
    shown = tuple(reader.scope.shown(name.table) for name in ours)
    if len(ours) < len(names):
        kept = ", ".join(reader.qualified(table) for table in shown)
        reader.edits[names[0].start, names[-1].table_token.end] = kept
    else:
        for name in ours:
            reader.rewrite(name)
    return Execute(sql=reader.sql(), kind="drop table", tables=shown, dropped=shown)


def truncate(reader: Reader) -> Verdict:
    reader.take("TABLE")
    name = reader.table()
    place = reader.scope.place(name)
    if place is not Place.OURS:
        return aside(place)
    reader.rewrite(name)
    shown = (reader.scope.shown(name.table),)
    return Execute(sql=reader.sql(), kind="truncate table", tables=shown, truncated=shown)


def index(reader: Reader, *, kind: str) -> Verdict:
    """CREATE INDEX and DROP INDEX, read up to the words INDEX IF [NOT] EXISTS."""
    reader.take("IF", "NOT", "EXISTS")
    reader.take("IF", "EXISTS")
    reader.at += 1
    if reader.take_any("USING", "TYPE"):
        reader.at += 1
    if not reader.take("ON"):
        raise Unreadable("ON was expected behind the index's name")
    name = reader.table()
    place = reader.scope.place(name)
    if place is not Place.OURS:
        return aside(place)
    reader.rewrite(name)
    body.rewrite_qualifiers(reader, reader.at)
    places = (at for at, depth, _ in reader.walk(reader.at) if depth == 0)
    body.relax_algorithms(reader, places)
    return Execute(sql=reader.sql(), kind=kind, tables=(reader.scope.shown(name.table),))


def empty_memory_table(reader: Reader) -> Verdict | None:
    """``DELETE FROM `db`.`t` ``: what a restarted server logs for tables in memory."""
    reader.take("DELETE", "FROM")
    if not (reader.name_at(reader.at) and reader.sign_at(reader.at + 1) == "."):
        return None
    name = reader.table()
    if not reader.done or name.table_token.kind is not Kind.QUOTED:
        return None
    place = reader.scope.place(name)
    if place is not Place.OURS:
        return aside(place)
    reader.rewrite(name)
    shown = (reader.scope.shown(name.table),)
    return Execute(sql=reader.sql(), kind="delete all", tables=shown)

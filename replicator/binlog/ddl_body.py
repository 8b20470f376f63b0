"""What stands behind a table's name in CREATE and ALTER: definitions, options, partitions.

From the left comes a `Reader` that has read the name; to the right it has got
edits: our database's name wherever it qualifies, the replica's storage engine,
algorithms that only the source's engine has. Nothing here decides what the
statement means; `ddl_tables` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from replicator.binlog.ddl_lexer import Kind, Token
from replicator.binlog.ddl_reader import Place, Reader, TableName

_SEQUENCE_FUNCTIONS = ("NEXTVAL", "LASTVAL", "SETVAL")
_PARTS = ("PARTITION", "SUBPARTITION")
_ENFORCES_FOREIGN_KEYS = ("INNODB",)


def rewrite_qualifiers(reader: Reader, start: int) -> tuple[TableName, ...]:
    """Rewrite every name that our database qualifies; return the parents of foreign keys.

    `a.b.c` is always database, table and column. `a.b` is a column of a table,
    unless it stands where only a table can: there its first part is a database.
    """
    parents: list[TableName] = []
    unions = _union_tables(reader, start)
    for index, length in reader.chains(start):
        if length == 3 and reader.scope.is_source(reader.code[index].name):
            reader.rewrite(reader.table_at(index))
        elif length < 3 and (index in unions or _names_table(reader, index)):
            name = reader.table_at(index)
            reader.rewrite(name)
            if reader.word_at(index - 1) == "REFERENCES":
                parents.append(name)
    return tuple(parents)


def _names_table(reader: Reader, index: int) -> bool:
    before, earlier = reader.word_at(index - 1), reader.word_at(index - 2)
    if before == "REFERENCES":
        return True
    if before == "TABLE":
        return earlier in ("WITH", "TO", "CONVERT")
    if before == "FOR":
        return earlier == "VALUE"
    return reader.sign_at(index - 1) == "(" and earlier in _SEQUENCE_FUNCTIONS


def drop_sequence_defaults(reader: Reader, start: int) -> None:
    """Take out defaults that draw from a sequence: rows bring their values, and the replica has
    no sequences, whose every draw it would have to repeat."""
    for index in range(start, len(reader.code)):
        if reader.word_at(index) != "DEFAULT":
            continue
        last = _sequence_default(reader, index + 1)
        if last is None:
            continue
        begin = reader.code[index].start
        if reader.word_at(index - 1) == "SET":  # ALTER [COLUMN] c SET DEFAULT …
            reader.replace(reader.code[index - 1], "DROP")
            begin = reader.code[index].end
        reader.cut(begin, reader.code[last].end)


def drop_numbering(reader: Reader, start: int) -> None:
    """Take out AUTO_INCREMENT of columns: rows bring their numbers."""
    for index, depth, _ in reader.walk(start):
        if depth == 1 and reader.word_at(index) == "AUTO_INCREMENT":
            reader.cut(reader.code[index].start, reader.code[index].end)


def _sequence_default(reader: Reader, at: int) -> int | None:
    """The index of the last token of a default that begins at `at` and draws from a sequence."""
    if reader.sign_at(at) == "(":
        last = closing(reader, at)
        draws = any(_draws(reader, index) for index in range(at + 1, last))
        return last if draws and last < len(reader.code) else None
    if not _draws(reader, at):
        return None
    if reader.sign_at(at + 1) == "(":
        return closing(reader, at + 1)
    return at + (5 if reader.sign_at(at + 4) == "." else 3)


def _draws(reader: Reader, at: int) -> bool:
    if reader.word_at(at) in _SEQUENCE_FUNCTIONS:
        return reader.sign_at(at + 1) == "("
    words = (reader.word_at(at), reader.word_at(at + 1), reader.word_at(at + 2))
    return words in (("NEXT", "VALUE", "FOR"), ("PREVIOUS", "VALUE", "FOR"))


def _union_tables(reader: Reader, start: int) -> set[int]:
    """Indexes inside the list of `UNION = (t1, t2)` of a MERGE table."""
    inside: set[int] = set()
    for index, depth, _ in reader.walk(start):
        if depth == 0 and reader.word_at(index) == "UNION":
            opening = index + 1 + (reader.sign_at(index + 1) == "=")
            inside.update(range(opening + 1, closing(reader, opening)))
    return inside


def closing(reader: Reader, opening: int) -> int:
    """The index of the parenthesis that closes the one at `opening`, or the end."""
    for index, depth, _ in reader.walk(opening):
        if depth == 0 and index > opening:
            return index
    return len(reader.code)


def foreign(reader: Reader, parents: tuple[TableName, ...]) -> bool:
    """Whether a foreign key leads to a table that the replica does not have.

    An unqualified parent lives beside its child, whatever the default database.
    """
    for name in parents:
        beside = TableName(reader.scope.source_db, name.table, None, name.table_token)
        if reader.scope.place(name if name.database_token else beside) is not Place.OURS:
            return True
    return False


def cascades(reader: Reader, start: int) -> bool:
    """Whether a foreign key's action writes rows: ON DELETE or ON UPDATE CASCADE or SET …"""
    return any(
        reader.word_at(index) == "ON"
        and reader.word_at(index + 1) in ("DELETE", "UPDATE")
        and reader.word_at(index + 2) in ("CASCADE", "SET")
        for index in range(start, len(reader.code))
    )


def rewrite_engines(reader: Reader, start: int, top: Callable[[int], bool]) -> tuple[str, ...]:
    """Replace storage engines; return those of the source, as written, in order.

    `top` says whether an index outside parentheses may hold a table option.
    """
    replaced: list[str] = []
    for value in _engine_values(reader, start, top):
        if _engine_name(value).lower() != reader.scope.engine.lower():
            reader.replace(value, reader.scope.engine)
            replaced.append(_engine_name(value))
    return tuple(dict.fromkeys(replaced))


def engines_named(reader: Reader, start: int) -> tuple[str, ...]:
    """Every storage engine that a CREATE TABLE names, as written."""
    return tuple(_engine_name(value) for value in _engine_values(reader, start, lambda _: True))


def _engine_values(reader: Reader, start: int, top: Callable[[int], bool]) -> Iterator[Token]:
    for index, depth, opener in reader.walk(start):
        if reader.word_at(index) != "ENGINE":
            continue
        if reader.word_at(index - 1) in (*_PARTS, "TABLESPACE"):
            continue
        if opener in _PARTS or (depth == 0 and top(index)):
            value = option_value(reader, index)
            if value is not None and value.kind in (Kind.WORD, Kind.QUOTED, Kind.STRING):
                yield value


def option_value(reader: Reader, index: int) -> Token | None:
    """The value of the option at `index`, with or without an equals sign before it."""
    return reader.token(index + 1 + (reader.sign_at(index + 1) == "="))


def _engine_name(value: Token) -> str:
    return value.text[1:-1] if value.kind is Kind.STRING else value.name


def enforces_foreign_keys(engines: tuple[str, ...]) -> bool:
    return all(engine.upper() in _ENFORCES_FOREIGN_KEYS for engine in engines)


def drop_idle_foreign_keys(reader: Reader, opening: int) -> bool:
    """Take out foreign keys that the source's engine read over, keeping their index.

    MyISAM and its like accept FOREIGN KEY and only make the index; the replica's
    InnoDB would enforce it. Returns whether any was found.
    """
    found = False
    for first, last in segments(reader, opening + 1, closing(reader, opening)):
        words = [reader.word_at(index) for index in range(first, last)]
        if "REFERENCES" not in words:
            continue
        reference = first + words.index("REFERENCES")
        if "FOREIGN" in words[:3]:
            _keep_index(reader, first, first + words.index("FOREIGN"))
        reader.cut(reader.code[reference].start, _reference_end(reader, reference, last))
        found = True
    return found


def _keep_index(reader: Reader, first: int, foreign_at: int) -> None:
    """`CONSTRAINT c FOREIGN KEY i (a)` → `KEY i (a)`, and c names it where i is missing."""
    unnamed = reader.sign_at(foreign_at + 2) == "("
    inherited = foreign_at - first == 2 and unnamed
    start = reader.code[first].start
    kept = f" {reader.code[first + 1].text}" if inherited else ""
    reader.cut(start, reader.code[foreign_at].end)
    reader.replace(reader.code[foreign_at + 1], f"KEY{kept}")


def _reference_end(reader: Reader, reference: int, last: int) -> int:
    """Where `REFERENCES t (a) MATCH … ON DELETE … ON UPDATE …` ends."""
    name = reader.table_at(reference + 1)
    index = reference + (2 if name.database_token is None else 4)
    if reader.sign_at(index) == "(":
        index = closing(reader, index) + 1
    while index < last and reader.word_at(index) in ("MATCH", "ON"):
        index += 2 if reader.word_at(index) == "MATCH" else _action_length(reader, index)
    return reader.code[index - 1].end


def _action_length(reader: Reader, index: int) -> int:
    """ON DELETE CASCADE is three words; SET NULL, SET DEFAULT and NO ACTION make it four."""
    return 4 if reader.word_at(index + 2) in ("SET", "NO") else 3


def segments(reader: Reader, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(first, end) of the parts between `start` and `end` that commas outside brackets divide."""
    first = start
    for index, depth, _ in reader.walk(start):
        if index >= end:
            break
        if depth == 0 and reader.sign_at(index) == ",":
            yield first, index
            first = index + 1
    if first < end:
        yield first, end


def relax_algorithms(reader: Reader, starts: Iterator[int]) -> None:
    """ALGORITHM and LOCK only say how; what the source's engine can do, ours may not."""
    for index in starts:
        value = option_value(reader, index)
        if reader.word_at(index) in ("ALGORITHM", "LOCK") and value is not None:
            reader.replace(value, "DEFAULT")

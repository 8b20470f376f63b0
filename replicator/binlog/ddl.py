"""Which statements of the binlog pass to the replica, are rewritten, skipped, or stop us.

From the left comes the text of one QUERY event and whose it is; to the right
goes a verdict (`ddl_verdict`). Pure: the same words always get the same answer,
and an answer that is not certain is `Unsupported`, or a copy of the table.

This module looks at a statement's first words and hands it on; `ddl_tables`
and `ddl_rename` know the statements about tables. Leg 2 asks too, with the
replica's database as both `source_db` and `replica_db`, and reads only the
tables of the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from replicator.binlog import ddl_tables as tables
from replicator.binlog.ddl_body import drop_numbering
from replicator.binlog.ddl_lexer import Dialect, Kind, dialect_of
from replicator.binlog.ddl_reader import NOWHERE, Reader, Scope, Unreadable, quote
from replicator.binlog.ddl_rename import rename_tables
from replicator.binlog.ddl_verdict import (
    Execute,
    RowStatement,
    Skip,
    TransactionControl,
    Unsupported,
    Verdict,
)

__all__ = [
    "Dialect",
    "Execute",
    "RowStatement",
    "Skip",
    "TransactionControl",
    "Unsupported",
    "Verdict",
    "decide",
    "dialect_of",
    "unnumbered",
]


def decide(
    statement: str,
    *,
    default_database: str,
    source_db: str,
    replica_db: str,
    engine: str = "InnoDB",
    carries: Callable[[str], bool],
    dialect: Dialect = Dialect(),  # noqa: B008 (frozen)
    lower_case_table_names: int = 0,
    source_engine: str = "InnoDB",
    present: Callable[[str], bool] = lambda _: True,
) -> Verdict:
    """What to do about `statement`, which ran in `default_database` on the source.

    The SQL of an `Execute` wants `replica_db` as default database: unqualified
    names stay unqualified. `engine` is the replica's storage engine;
    `source_engine` the source's `default_storage_engine`, for tables that name
    none. `lower_case_table_names` is the source's. `carries` says whether the
    rules keep a table; `present` whether the replica has it (for RENAME, which
    renames views too: what is absent is asked for as a copy).
    """
    scope = Scope(
        default_database=default_database,
        source_db=source_db,
        replica_db=replica_db,
        engine=engine,
        source_engine=source_engine,
        lower_case_table_names=lower_case_table_names,
        carries=carries,
        present=present,
    )
    reader = Reader(statement, dialect, scope)
    if reader.torn:
        return _unreadable("a quote or a comment in it never ends")
    try:
        return _decide(reader)
    except Unreadable as why:
        return _unreadable(str(why))


def unnumbered(create: str) -> str:
    """A CREATE TABLE as SHOW CREATE TABLE tells it, no column of which numbers rows."""
    reader = Reader(create, Dialect(), NOWHERE)
    drop_numbering(reader, 0)
    return reader.sql()


def _unreadable(why: str) -> Unsupported:
    return Unsupported(
        f"a statement in the binlog cannot be understood: {why}",
        "Pass it with a full copy, made behind it: stop the replicator, run"
        " replicator resync --all, and start it again.",
    )


def _decide(reader: Reader) -> Verdict:
    if reader.done:
        return Skip("comment")
    if reader.take("SET", "STATEMENT"):
        _enter_set_statement(reader)
    verb = reader.word
    if verb in _TRANSACTION or (reader.word, reader.word_at(reader.at + 1)) == _START:
        return TransactionControl(verb.lower())
    if verb in _SKIPPED_VERBS:
        return Skip(_SKIPPED_VERBS[verb])
    if verb in _ROWS or reader.sign_at(reader.at) == "(":
        return _rows(reader, verb)
    if verb in _SCHEMA:
        reader.at += 1
        return _SCHEMA[verb](reader)
    return _unknown(verb or "this statement")


def _unknown(what: str) -> Unsupported:
    return Unsupported(
        f"{what} is not a statement that we know how to carry over",
        "Pass it with a full copy, made behind it: stop the replicator, run"
        " replicator resync --all, and start it again.",
    )


_START: Final = ("START", "TRANSACTION")
_TRANSACTION: Final = frozenset(["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "XA"])
_ROWS: Final = frozenset(
    [
        "CALL",
        "DELETE",
        "DO",
        "EXECUTE",
        "HANDLER",
        "INSERT",
        "LOAD",
        "REPLACE",
        "SELECT",
        "TABLE",
        "UPDATE",
        "VALUES",
        "WITH",
    ]
)
_SKIPPED_VERBS: Final = {
    "ANALYZE": "maintenance",
    "CACHE": "maintenance",
    "CHECK": "maintenance",
    "CHECKSUM": "maintenance",
    "FLUSH": "maintenance",
    "LOCK": "maintenance",
    "OPTIMIZE": "maintenance",
    "REPAIR": "repair",
    "UNLOCK": "maintenance",
    "CHANGE": "server administration",
    "INSTALL": "server administration",
    "KILL": "server administration",
    "PURGE": "server administration",
    "RESET": "server administration",
    "START": "server administration",
    "STOP": "server administration",
    "UNINSTALL": "server administration",
    "GRANT": "user",
    "REVOKE": "user",
}
_SKIPPED_OBJECTS: Final = {
    "EVENT": "event",
    "FUNCTION": "routine",
    "LIBRARY": "routine",
    "PACKAGE": "routine",
    "PROCEDURE": "routine",
    "TRIGGER": "trigger",
    "VIEW": "view",
    "ROLE": "user",
    "USER": "user",
    "CATALOG": "server administration",
    "INSTANCE": "server administration",
    "LOGFILE": "server administration",
    "PREPARE": "server administration",
    "RESOURCE": "server administration",
    "SERVER": "server administration",
    "TABLESPACE": "server administration",
    "UNDO": "server administration",
}
_MODIFIERS: Final = frozenset(
    [
        "AGGREGATE",
        "FULLTEXT",
        "IGNORE",
        "OFFLINE",
        "ONLINE",
        "PUBLIC",
        "SPATIAL",
        "UNIQUE",
        "VECTOR",
    ]
)


def _enter_set_statement(reader: Reader) -> None:
    """`SET STATEMENT a=1, b=2 FOR …`: go behind FOR; what would mislead us is replaced."""
    for index, depth, _ in reader.walk(reader.at):
        if depth == 0 and reader.word_at(index) == "FOR":
            reader.at = index + 1
            return
        value = reader.token(index + 2)
        if reader.sign_at(index + 1) == "=" and value is not None:
            variable = reader.word_at(index)
            if variable in ("DEFAULT_STORAGE_ENGINE", "STORAGE_ENGINE"):
                reader.replace(value, reader.scope.engine)
            elif variable == "MAX_STATEMENT_TIME":
                reader.replace(value, "0")
    raise Unreadable("SET STATEMENT without FOR")


def _rows(reader: Reader, verb: str) -> Verdict:
    """Row changes in statement form: ours if our database is the default or is named."""
    if verb == "LOAD" and reader.word_at(reader.at + 1) == "INDEX":
        return Skip("maintenance")
    if verb == "DELETE" and (emptied := tables.empty_memory_table(reader)) is not None:
        return emptied
    scope = reader.scope
    named = any(
        length > 1 and scope.is_source(reader.code[index].name)
        for index, length in reader.chains(0)
    )
    if named or scope.is_source(scope.default_database):
        return RowStatement(verb.lower() or "select")
    return tables.OTHER_DATABASE


def _create(reader: Reader) -> Verdict:
    or_replace = reader.take("OR", "REPLACE")
    temporary = _modifiers(reader)
    what = reader.word
    reader.at += 1
    if temporary and what in ("TABLE", "SEQUENCE"):
        return Skip("temporary table")
    if what == "TABLE":
        return tables.create_table(reader, or_replace=or_replace)
    if what == "INDEX":
        return tables.index(reader, kind="create index")
    if what == "SEQUENCE":
        return Skip("sequence")
    if what in ("DATABASE", "SCHEMA"):
        return _create_database(reader, or_replace)
    return _skipped_object("CREATE", what)


def _alter(reader: Reader) -> Verdict:
    ignore = "IGNORE" in (reader.word, reader.word_at(reader.at + 1))
    _modifiers(reader)
    what = reader.word
    reader.at += 1
    if what == "TABLE":
        return tables.alter_table(reader, ignore=ignore)
    if what == "SEQUENCE":
        return Skip("sequence")
    if what in ("DATABASE", "SCHEMA"):
        return _alter_database(reader)
    return _skipped_object("ALTER", what)


def _drop(reader: Reader) -> Verdict:
    temporary = _modifiers(reader)
    what = reader.word
    reader.at += 1
    if temporary and what in ("TABLE", "TABLES", "SEQUENCE"):
        return Skip("temporary table")
    if what in ("TABLE", "TABLES"):
        return tables.drop_table(reader)
    if what == "SEQUENCE":
        return Skip("sequence")
    if what == "INDEX":
        return tables.index(reader, kind="drop index")
    if what in ("DATABASE", "SCHEMA"):
        return _drop_database(reader)
    return _skipped_object("DROP", what)


def _rename(reader: Reader) -> Verdict:
    what = reader.take_any("TABLE", "TABLES", "USER")
    if what == "USER":
        return Skip("user")
    return rename_tables(reader) if what else _unknown(f"RENAME {reader.word}".strip())


def _set(reader: Reader) -> Verdict:
    if reader.word in ("PASSWORD", "DEFAULT", "ROLE"):
        return Skip("user")
    return _unknown("SET")


def _modifiers(reader: Reader) -> bool:
    """Step over what may stand before the kind of object; return whether TEMPORARY did."""
    temporary = False
    while not reader.done:
        if reader.take("TEMPORARY"):
            temporary = True
        elif reader.take("DEFINER"):
            _account(reader)
        elif reader.take("ALGORITHM") or reader.take("SQL", "SECURITY"):
            reader.take_sign("=")
            reader.at += 1
        elif not reader.take_any(*_MODIFIERS) and not reader.take("SPATIAL", "REFERENCE"):
            break
    return temporary


def _account(reader: Reader) -> None:
    """`= user@host`, where the host is scanned as a variable; or `= CURRENT_USER()`."""
    reader.take_sign("=")
    reader.at += 1
    token = reader.token(reader.at)
    if token is not None and token.kind is Kind.VARIABLE:
        reader.at += 1
        if token.text == "@":
            reader.at += 1
    while reader.take_sign("(") or reader.take_sign(")"):
        pass


def _skipped_object(verb: str, what: str) -> Verdict:
    if what in _SKIPPED_OBJECTS:
        return Skip(_SKIPPED_OBJECTS[what])
    return _unknown(f"{verb} {what}".strip())


def _create_database(reader: Reader, or_replace: bool) -> Verdict:
    if_absent = reader.take("IF", "NOT", "EXISTS")
    if not _names_source(reader):
        return tables.OTHER_DATABASE
    if if_absent and not or_replace:
        return Skip("database")
    return Unsupported(
        "the replicated database was created anew on the source, so what it held is gone",
        "If that was meant, drop the replica's database and start again: it is copied anew.",
    )


def _drop_database(reader: Reader) -> Verdict:
    reader.take("IF", "EXISTS")
    if not _names_source(reader):
        return tables.OTHER_DATABASE
    return Unsupported(
        "the replicated database was dropped on the source; the replica keeps its copy",
        "If that was meant, drop the replica's database and start again when the source has "
        "one. If not, the replica holds what was lost.",
    )


def _alter_database(reader: Reader) -> Verdict:
    """A new default charset counts: later tables that name none take it."""
    words = [reader.word_at(index) for index in range(reader.at, len(reader.code))]
    if "UPGRADE" in words or words[:1] == ["READ"]:
        return Skip("database")
    if reader.word in _DATABASE_OPTIONS and not _is_option_free_name(reader):
        if not reader.scope.is_source(reader.scope.default_database):
            return tables.OTHER_DATABASE
        reader.insert(reader.code[reader.at - 1].end, f" {quote(reader.scope.replica_db)}")
    elif not _names_source(reader):
        return tables.OTHER_DATABASE
    else:
        reader.rewrite_database(reader.code[reader.at])
    return Execute(sql=reader.sql(), kind="alter database")


_DATABASE_OPTIONS: Final = frozenset(
    ["CHARACTER", "CHARSET", "CHAR", "COLLATE", "COMMENT", "DEFAULT", "ENCRYPTION"]
)


def _is_option_free_name(reader: Reader) -> bool:
    """Whether an option's word is the database's name: `ALTER DATABASE comment CHARSET utf8`."""
    following = reader.word_at(reader.at + 1)
    return following in _DATABASE_OPTIONS and reader.word not in ("DEFAULT", "CHARACTER", "CHAR")


def _names_source(reader: Reader) -> bool:
    token = reader.token(reader.at)
    return token is not None and reader.scope.is_source(token.name)


_SCHEMA: Final[dict[str, Callable[[Reader], Verdict]]] = {
    "CREATE": _create,
    "ALTER": _alter,
    "DROP": _drop,
    "RENAME": _rename,
    "SET": _set,
    "TRUNCATE": tables.truncate,
}

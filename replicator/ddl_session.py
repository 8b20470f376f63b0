"""The session that a schema change of the source needs on the replica.

From the left comes a QUERY event; to the right go SET statements that make
the replica's session what the source's was, as far as it bears on the change,
and the statement's text. What an event leaves out is the server's default at
the source, which `SessionContext` knows. `reset_statements` undoes it all.

The list follows `Query_log_event::do_apply_event` of both servers. Three
settings are never taken over: directories of tables are the source's own
affair, options that only the source's engine knows must not stop ours, and
tables that name no engine get the replica's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from config.errors import UnsupportedStatement
from replicator.binlog import statusvars
from replicator.binlog.charsets import charset_of, decode_text, encode_text
from replicator.binlog.ddl import Execute, Skip, Verdict, decide
from replicator.binlog.ddl_lexer import FIRST_MARIADB_10, Dialect, dialect_of
from replicator.binlog.events import QueryEvent
from replicator.binlog.statusvars import (
    ALTER_ROLLBACK,
    ALTER_START,
    Flavour,
    StatusVariables,
    parse_status_variables,
)

__all__ = [
    "SessionContext",
    "decide_query",
    "dialect",
    "reset_statements",
    "session_statements",
    "statement_bytes",
    "statement_text",
]

_MODE_IGNORE_BAD_TABLE_OPTIONS: Final = 1 << 4  # MariaDB
_MODE_NO_DIR_IN_CREATE: Final = 1 << 7
_UTF8MB4: Final = 45
_COLLATIONS_FROM: Final = 110200  # MariaDB 11.2 brought character_set_collations
_INVISIBLE_KEYS_FROM: Final = 80030
_STANDARD_KEYS_FROM: Final = 80400

# MariaDB 10.x: the first patch release of a minor one that logs explicit_defaults_for_timestamp.
_LOGS_TIMESTAMP_DEFAULTS: Final = {5: 17, 6: 9, 7: 5, 8: 4, 9: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionContext:
    """What events leave out: facts about the two servers, read when the stream is opened.

    `time_zone` stands wherever the source's session had SYSTEM: an offset such
    as "-05:00", or a name that the replica has loaded. `collation_names` maps
    the replica's collation ids to names; only MariaDB 11.2 and later need it.
    """

    source_version: int
    """As a number: 101119 is MariaDB 10.11.19, 90704 is MySQL 9.7.4."""
    replica_version: int
    time_zone: str = "SYSTEM"
    explicit_defaults_for_timestamp: bool = False
    """The source's global value, for sources whose events do not tell."""
    engine: str = "InnoDB"
    collation_names: Mapping[int, str] = field(default_factory=dict)

    @property
    def flavour(self) -> Flavour:
        return "mariadb" if self.source_version >= FIRST_MARIADB_10 else "mysql"


def decide_query(
    query: QueryEvent,
    context: SessionContext,
    *,
    source_db: str,
    replica_db: str,
    carries: Callable[[str], bool],
    lower_case_table_names: int = 0,
    source_engine: str = "InnoDB",
    present: Callable[[str], bool] = lambda _: True,
) -> Verdict:
    """`ddl.decide` on an event, with what the event itself says about its statement.

    A two-phase ALTER of MariaDB is in the binlog twice, and only its COMMIT
    counts. A statement that failed on the source is there when it left traces.
    """
    if status_of(query, context).alter_flags in (ALTER_START, ALTER_ROLLBACK):
        return Skip("unfinished alter")
    verdict = decide(
        statement_text(query, context),
        default_database=query.database,
        source_db=source_db,
        replica_db=replica_db,
        engine=context.engine,
        carries=carries,
        dialect=dialect(query, context),
        lower_case_table_names=lower_case_table_names,
        source_engine=source_engine,
        present=present,
    )
    if query.error_code and isinstance(verdict, Execute):
        return _half_done(verdict, query.error_code)
    return verdict


_UNKNOWN_TABLE: Final = 1051


def _half_done(verdict: Execute, error_code: int) -> Execute:
    """What a change that failed on the source did there: only the source can tell.

    But for DROP: it fails with 1051 after it has dropped all tables that there were.
    """
    if verdict.kind == "drop table" and error_code == _UNKNOWN_TABLE:
        return verdict
    return Execute(sql="", kind=verdict.kind, tables=verdict.tables, needs_copy=verdict.tables)


def status_of(query: QueryEvent, context: SessionContext) -> StatusVariables:
    return parse_status_variables(query.status_vars, context.flavour)


def dialect(query: QueryEvent, context: SessionContext) -> Dialect:
    """How the source read the statement: for `ddl.decide`."""
    return dialect_of(status_of(query, context).sql_mode or 0, context.source_version)


def statement_text(query: QueryEvent, context: SessionContext) -> str:
    """The statement, decoded from its client's character set without loss.

    Raises UnsupportedStatement where that cannot be done.
    """
    return decode_text(query.statement, _client_charset(status_of(query, context)))


def statement_bytes(sql: str, query: QueryEvent, context: SessionContext) -> bytes:
    """`sql` as the session of `session_statements` wants to be sent it."""
    return encode_text(sql, _client_charset(status_of(query, context)))


def session_statements(
    query: QueryEvent, context: SessionContext, *, time_zone: str | None = None
) -> list[str]:
    """SET statements to run before the statement of `query`, in plain ASCII.

    `time_zone` is what the event's zone is to be told as, where its name means nothing there.
    """
    status = status_of(query, context)
    settings = _common(query, status, context)
    if time_zone is not None:
        settings["time_zone"] = _text(time_zone)
    if context.flavour == "mariadb":
        settings |= _mariadb(status, context)
    else:
        settings |= _mysql(status, context)
    return [_set(settings)]


def reset_statements(context: SessionContext) -> list[str]:
    """SET statements that bring back what a new connection has."""
    names = [*_COMMON_NAMES, *(_MARIADB_NAMES if context.flavour == "mariadb" else _MYSQL_NAMES)]
    if _has_collations(context):
        names.append("character_set_collations")
    if context.flavour == "mysql":
        names += [name for name, since in _MYSQL_SINCE if context.replica_version >= since]
    values = dict.fromkeys(names, "DEFAULT")
    # MySQL takes the opposite for the default of what it keeps as "no … checks".
    values |= {name: f"@@GLOBAL.{name}" for name in ("foreign_key_checks", "unique_checks")}
    return [_set(values), "SET NAMES utf8mb4"]


def _set(settings: Mapping[str, str]) -> str:
    return "SET " + ", ".join(f"SESSION {name} = {value}" for name, value in settings.items())


def _common(query: QueryEvent, status: StatusVariables, context: SessionContext) -> dict[str, str]:
    increment, offset = status.auto_increment or (1, 1)
    own = _MODE_NO_DIR_IN_CREATE
    if context.flavour == "mariadb":
        own |= _MODE_IGNORE_BAD_TABLE_OPTIONS
    return {
        "timestamp": f"{query.timestamp}.{status.microseconds or 0:06d}",
        "sql_mode": str((status.sql_mode or 0) | own),
        "foreign_key_checks": _switch(not status.flag(statusvars.OPTION_NO_FOREIGN_KEYS)),
        "unique_checks": _switch(not status.flag(statusvars.OPTION_RELAXED_UNIQUE_CHECKS)),
        "sql_auto_is_null": _switch(status.flag(statusvars.OPTION_AUTO_IS_NULL)),
        **_charset_settings(status),
        "auto_increment_increment": str(increment),
        "auto_increment_offset": str(offset),
        "time_zone": _time_zone(status, context),
        "lc_time_names": str(status.lc_time_names or 0),
        "innodb_strict_mode": "OFF",
        "default_storage_engine": context.engine,
    }


def _charset_settings(status: StatusVariables) -> dict[str, str]:
    """MariaDB takes ids for collations, but names alone for the client's character set."""
    database = status.collation_database
    _, connection, server = status.charset or (_UTF8MB4, _UTF8MB4, _UTF8MB4)
    return {
        "character_set_client": _client_charset(status),
        "collation_connection": str(connection),
        "collation_server": str(server),
        "collation_database": "DEFAULT" if database is None else str(database),
    }


def _client_charset(status: StatusVariables) -> str:
    collation = status.charset[0] if status.charset else _UTF8MB4
    charset = charset_of(collation)
    if charset is None:
        raise UnsupportedStatement(
            f"a statement's character set is unknown to us (collation id {collation})",
            "Upgrade this program, or run the change again from a client that uses utf8mb4.",
        )
    return charset


def _time_zone(status: StatusVariables, context: SessionContext) -> str:
    zone = status.time_zone or "SYSTEM"
    return _text(context.time_zone if zone == "SYSTEM" else zone)


def _mariadb(status: StatusVariables, context: SessionContext) -> dict[str, str]:
    settings = {
        "check_constraint_checks": _switch(not status.flag(statusvars.OPTION_NO_CHECK_CONSTRAINTS)),
        "explicit_defaults_for_timestamp": _switch(_timestamp_defaults(status, context)),
        "sql_if_exists": _switch(status.flag(statusvars.OPTION_IF_EXISTS)),
        "system_versioning_insert_history": _switch(status.flag(statusvars.OPTION_INSERT_HISTORY)),
        "system_versioning_alter_history": "KEEP",
    }
    if _has_collations(context):
        settings["character_set_collations"] = _collations(status, context)
    return settings


def _timestamp_defaults(status: StatusVariables, context: SessionContext) -> bool:
    """From the event where the source's release writes it there, else the source's global."""
    major, rest = divmod(context.source_version, 10000)
    minor, patch = divmod(rest, 100)
    if major > 10 or minor >= 10 or patch >= _LOGS_TIMESTAMP_DEFAULTS.get(minor, 100):
        return status.flag(statusvars.OPTION_EXPLICIT_TIMESTAMP_DEFAULTS)
    return context.explicit_defaults_for_timestamp


def _has_collations(context: SessionContext) -> bool:
    return context.flavour == "mariadb" and context.replica_version >= _COLLATIONS_FROM


def _collations(status: StatusVariables, context: SessionContext) -> str:
    """`'utf8mb4=utf8mb4_uca1400_ai_ci,…'`: the collation that each bare character set means."""
    pairs = []
    for charset, collation in status.collations or ():
        names = charset_of(charset), context.collation_names.get(collation)
        if None in names:
            raise UnsupportedStatement(
                f"the replica does not know the source's collation {collation}",
                "Run a replica of at least the source's version.",
            )
        pairs.append("{}={}".format(*names))
    return _text(",".join(pairs))


def _mysql(status: StatusVariables, context: SessionContext) -> dict[str, str]:
    explicit = status.explicit_defaults_for_timestamp
    if explicit is None:
        explicit = context.explicit_defaults_for_timestamp
    settings = {"explicit_defaults_for_timestamp": _switch(explicit)}
    if status.default_collation_for_utf8mb4 is not None:
        settings["default_collation_for_utf8mb4"] = str(status.default_collation_for_utf8mb4)
    if status.sql_require_primary_key is not None:
        settings["sql_require_primary_key"] = _switch(status.sql_require_primary_key)
    if status.default_table_encryption is not None:
        settings["default_table_encryption"] = _switch(status.default_table_encryption)
    for name, since in _MYSQL_SINCE:
        if context.replica_version >= since and name not in _FROM_EVENT:
            settings[name] = "OFF"
    return settings


def _switch(on: bool) -> str:
    return "ON" if on else "OFF"


def _text(value: str) -> str:
    """A string literal that means the same under every sql_mode."""
    if not value.isascii() or "'" in value or "\\" in value:
        raise UnsupportedStatement(
            "a session variable of the source holds characters that we do not expect there",
            "Look at the source's time zone and collation settings.",
        )
    return f"'{value}'"


_COMMON_NAMES: Final = (
    "timestamp",
    "sql_mode",
    "foreign_key_checks",
    "unique_checks",
    "sql_auto_is_null",
    "collation_server",
    "collation_database",
    "auto_increment_increment",
    "auto_increment_offset",
    "time_zone",
    "lc_time_names",
    "innodb_strict_mode",
    "default_storage_engine",
    "explicit_defaults_for_timestamp",
)
_MARIADB_NAMES: Final = (
    "check_constraint_checks",
    "sql_if_exists",
    "system_versioning_insert_history",
    "system_versioning_alter_history",
)
_MYSQL_NAMES: Final = ()
_MYSQL_SINCE: Final = (
    ("default_collation_for_utf8mb4", 80011),
    ("sql_require_primary_key", 80013),
    ("default_table_encryption", 80016),
    ("sql_generate_invisible_primary_key", _INVISIBLE_KEYS_FROM),
    ("restrict_fk_on_non_standard_key", _STANDARD_KEYS_FROM),
)
_FROM_EVENT: Final = (
    "default_collation_for_utf8mb4",
    "sql_require_primary_key",
    "default_table_encryption",
)

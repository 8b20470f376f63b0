"""Read the statements of one source's binlog: their text, their meaning, their session.

Left: a QUERY event. Right: a verdict on it, and the SET statements and bytes with
which the replica runs it. Binds what is constant for a source (versions, database
names, filter) so that the main stream and a resync's own stream judge alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from config.errors import ConfigError
from replicator.binlog.ddl import Verdict
from replicator.binlog.events import QueryEvent
from replicator.ddl_session import (
    SessionContext,
    decide_query,
    reset_statements,
    session_statements,
    statement_bytes,
    statement_text,
)
from replicator.source import Identity
from replicator.tracking import fetch

_NAMES_AS_GIVEN = 2
"""lower_case_table_names of macOS: stored as given, compared and logged in lower case."""
_COLLATIONS_OF_MANY_CHARSETS = 101000
"""MariaDB 10.10 brought collations that are one name, and an id, for each of several charsets."""


class Statements:
    """Statements of `source_db` as they concern `replica_db`."""

    def __init__(
        self,
        context: SessionContext,
        *,
        source_db: str,
        replica_db: str,
        carries: Callable[[str], bool],
        lower_case_table_names: int,
        source_engine: str,
    ) -> None:
        self._context = context
        self._source_db = source_db
        self._replica_db = replica_db
        self._carries = carries
        self._lower_case_table_names = lower_case_table_names
        self._source_engine = source_engine

    def verdict(
        self, query: QueryEvent, present: Callable[[str], bool] = lambda _table: True
    ) -> Verdict:
        """What the statement means for the replica; `present` tells which tables it has."""
        return decide_query(
            query,
            self._context,
            source_db=self._source_db,
            replica_db=self._replica_db,
            carries=self._carries,
            lower_case_table_names=self._lower_case_table_names,
            source_engine=self._source_engine,
            present=present,
        )

    def text(self, query: QueryEvent) -> str:
        """The statement's text."""
        return statement_text(query, self._context)

    def encoded(self, sql: str, query: QueryEvent) -> bytes:
        """`sql` as the session of `session` is to be sent it."""
        return statement_bytes(sql, query, self._context)

    def session(self, query: QueryEvent) -> list[str]:
        """What to set before the statement runs."""
        return session_statements(query, self._context)

    def reset(self) -> list[str]:
        """What to set after it."""
        return reset_statements(self._context)


def _collation_names(replica: Identity) -> str:
    """A query for ids and names. MariaDB's younger collations have an id for each charset."""
    if replica.mariadb and replica.number >= _COLLATIONS_OF_MANY_CHARSETS:
        return (
            "SELECT id, full_collation_name"
            " FROM information_schema.collation_character_set_applicability"
        )
    return "SELECT id, collation_name FROM information_schema.collations"


def read_statements(
    catalog: Any,
    replica: Any,
    source: Identity,
    replica_identity: Identity,
    *,
    source_db: str,
    replica_db: str,
    carries: Callable[[str], bool],
) -> Statements:
    """Ask both servers for what their binlog events leave out."""
    zone, timestamp_defaults, names, engine = fetch(
        catalog,
        "SELECT @@global.time_zone,"
        " @@global.explicit_defaults_for_timestamp, @@lower_case_table_names,"
        " @@global.default_storage_engine",
    )[0]
    if int(names) == _NAMES_AS_GIVEN:
        raise ConfigError(
            "source: lower_case_table_names=2: its binlog spells a table's name otherwise than its"
            " catalog",
            "Set lower_case_table_names=1 on the source, which such a server allows.",
        )
    context = SessionContext(
        source_version=source.number,
        replica_version=replica_identity.number,
        time_zone=_offset_of(catalog) if zone == "SYSTEM" else str(zone),
        explicit_defaults_for_timestamp=bool(timestamp_defaults),
        collation_names=dict(fetch(replica, _collation_names(replica_identity))),
    )
    return Statements(
        context,
        source_db=source_db,
        replica_db=replica_db,
        carries=carries,
        lower_case_table_names=int(names),
        source_engine=str(engine),
    )


def _offset_of(catalog: Any) -> str:
    """The source's present offset from UTC, such as `-05:00`: its zone's name may be unknown."""
    seconds = int(
        fetch(
            catalog,
            "SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), CONVERT_TZ(UTC_TIMESTAMP(),"
            " '+00:00', 'SYSTEM'))",
        )[0][0]
    )
    sign, minutes = "-" if seconds < 0 else "+", abs(seconds) // 60
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"

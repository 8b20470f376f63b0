"""Read the statements of one source's binlog: their text, their meaning, their session.

Left: a QUERY event. Right: a verdict on it, and the SET statements and bytes with
which the replica runs it. Binds what is constant for a source (versions, database
names, filter) so that the main stream and a resync's own stream judge alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import structlog

from config.connections import quote_mysql_identifier as quote
from config.errors import ConfigError
from replicator.binlog.ddl import Execute, Unsupported, Verdict
from replicator.binlog.events import QueryEvent
from replicator.binlog.zone_dependence import depends_on_zone, stored_by_clock
from replicator.ddl_session import (
    SessionContext,
    decide_query,
    dialect,
    reset_statements,
    session_statements,
    statement_bytes,
    statement_text,
    status_of,
)
from replicator.pair import brings_versions, ends_differ
from replicator.source import Identity
from replicator.tracking import fetch
from replicator.zones import SYSTEM, Span, Zones

log = structlog.get_logger(__name__)

_MAKE_ANEW = ("create table", "alter table", "create index", "drop index")
"""Kinds of statements that may write rows which are in no row event."""
_AS_TOLD, _LOWER, _NAMES_AS_GIVEN = 0, 1, 2
"""lower_case_table_names of Linux, of Windows, and of macOS, where names are stored as given, but
compared and logged in lower case."""
_COLLATIONS_OF_MANY_CHARSETS = 101000
"""MariaDB 10.10 brought collations that are one name, and an id, for each of several charsets."""


class Statements:
    """Statements of `source_db` as they concern `replica_db`."""

    def __init__(
        self,
        context: SessionContext,
        zones: Zones,
        *,
        source_db: str,
        replica_db: str,
        carries: Callable[[str], bool],
        lower_case_table_names: int,
        source_engine: str,
    ) -> None:
        self._context = context
        self._zones = zones
        self._source_db = source_db
        self._replica_db = replica_db
        self._carries = carries
        self._lower_case_table_names = lower_case_table_names
        self._source_engine = source_engine

    def verdict(
        self, query: QueryEvent, present: Callable[[str], bool] = lambda _table: True
    ) -> Verdict:
        """What the statement means for the replica; `present` tells which tables it has."""
        verdict = decide_query(
            query,
            self._context,
            source_db=self._source_db,
            replica_db=self._replica_db,
            carries=self._carries,
            lower_case_table_names=self._lower_case_table_names,
            source_engine=self._source_engine,
            present=present,
        )
        if isinstance(verdict, Execute) and self._versions_differ(query):
            return Unsupported(
                f"table {', '.join(verdict.tables)} is system-versioned, and the replica is of"
                " MariaDB 11.5 or newer, where present versions of rows are marked otherwise",
                "Exclude the table in tables.toml until the source's server is upgraded too.",
            )
        return verdict

    def _versions_differ(self, query: QueryEvent) -> bool:
        """Does it bring versions of rows whose ends would be others on the replica?"""
        context = self._context
        if context.flavour != "mariadb":
            return False
        return ends_differ(context.source_version, context.replica_version) and brings_versions(
            self.text(query), dialect(query, context)
        )

    def text(self, query: QueryEvent) -> str:
        """The statement's text."""
        return statement_text(query, self._context)

    def encoded(self, sql: str, query: QueryEvent) -> bytes:
        """`sql` as the session of `session` is to be sent it."""
        return statement_bytes(sql, query, self._context)

    def session(self, query: QueryEvent) -> list[str]:
        """What to set before the statement runs. For the main thread: it asks the source."""
        return session_statements(query, self._context, time_zone=self._offset(query) or "+00:00")

    def exact(self, query: QueryEvent, verdict: Execute, replica: Any) -> Execute:
        """The same verdict; or that its tables must be copied, where one offset is not enough.

        Rows get values by the statement that are in no row event. Where these depend on what the
        source's time zone was at other moments than the statement's (`zone_dependence`), and it
        was not always the same, only the source can tell them. So it is with what MySQL does where
        it makes a table anew: it writes TIMESTAMPs by the clock, and of an hour that came twice
        it takes one; whatever the statement was about. `replica` knows the table as it
        is before the statement. For the main thread: it asks the source.
        """
        if verdict.sql and not verdict.needs_copy and verdict.kind in _MAKE_ANEW:
            why = self._reason_to_copy(query, verdict, replica)
            if why:
                log.info("copied_for_its_time_zone", tables=list(verdict.tables), reason=why)
                return copied(verdict)
        return verdict

    def _reason_to_copy(self, query: QueryEvent, verdict: Execute, replica: Any) -> str:
        """Why the source's zone keeps the replica from doing the same; empty where it does not."""
        zone, table = self._zone(query), verdict.tables[0]
        if self._offset(query) is None:
            return f"the source does not know the zone {zone} any more"
        timestamps = _timestamps(replica, table)
        text, spoken = self.text(query), dialect(query, self._context)
        mysql = self._context.flavour == "mysql"
        if mysql and stored_by_clock(text, spoken, timestamps) and not self._zones.is_utc(zone):
            return "a stored column is generated in the session's zone"
        if depends_on_zone(text, spoken, timestamps):
            return "" if self._zones.is_fixed(zone) else "moments of summer and winter are told"
        if not mysql or not timestamps or self._zones.is_fixed(zone):
            return ""
        repeated = _has_moments(replica, table, timestamps, self._zones.repeated(zone))
        return "moments of an hour that came twice" if repeated else ""

    def _zone(self, query: QueryEvent) -> str:
        """The session's; a statement that asked for none has none in its event."""
        return status_of(query, self._context).time_zone or SYSTEM

    def _offset(self, query: QueryEvent) -> str | None:
        """The session's at the statement's moment; None where the source knows it no more."""
        return self._zones.offset_at(self._zone(query), query.timestamp)

    def reset(self) -> list[str]:
        """What to set after it."""
        return reset_statements(self._context)


def _timestamps(replica: Any, table: str) -> dict[str, int]:
    """The table's TIMESTAMP columns, with their decimals."""
    return dict(
        fetch(
            replica,
            "SELECT column_name, datetime_precision FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND table_name = %s AND data_type = 'timestamp'",
            [table],
        )
    )


def _has_moments(replica: Any, table: str, columns: Iterable[str], spans: Iterable[Span]) -> bool:
    """Has the table a row with a moment of these spans in one of these TIMESTAMP columns?"""
    within = [
        f"{quote(column)} >= '{first}' AND {quote(column)} < '{end}'"
        for column in columns
        for first, end in spans
    ]
    if not within:
        return False
    found = f"SELECT 1 FROM {quote(table)} WHERE {' OR '.join(within)} LIMIT 1"
    return bool(fetch(replica, found))


def copied(verdict: Execute) -> Execute:
    """The same change by a copy: nothing is run but what drops the tables that it takes away."""
    gone = {old for old, _new in verdict.renames} | set(verdict.dropped) - set(verdict.created)
    left = tuple(table for table in verdict.tables if table not in gone)
    drop = f"DROP TABLE IF EXISTS {', '.join(map(quote, sorted(gone)))}" if gone else ""
    return replace(verdict, sql=drop, then=(), needs_copy=left)


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
    zone_known_from: int = 0,
) -> Statements:
    """Ask both servers for what their binlog events leave out."""
    timestamp_defaults, names, engine = fetch(
        catalog,
        "SELECT @@global.explicit_defaults_for_timestamp, @@lower_case_table_names,"
        " @@global.default_storage_engine",
    )[0]
    _require_same_names(int(names), replica, source_db, replica_db)
    context = SessionContext(
        source_version=source.number,
        replica_version=replica_identity.number,
        explicit_defaults_for_timestamp=bool(timestamp_defaults),
        collation_names=dict(fetch(replica, _collation_names(replica_identity))),
    )
    return Statements(
        context,
        Zones(catalog, zone_known_from),
        source_db=source_db,
        replica_db=replica_db,
        carries=carries,
        lower_case_table_names=int(names),
        source_engine=str(engine),
    )


def _require_same_names(source: int, replica: Any, source_db: str, replica_db: str) -> None:
    """`ConfigError` where one table could bear two names, or two tables one.

    A source in lower case goes with any replica, as its names are all in lower case already.
    """
    ((other,),) = fetch(replica, "SELECT @@lower_case_table_names")
    if source == _NAMES_AS_GIVEN:
        raise ConfigError(
            "source: lower_case_table_names=2: its binlog spells a table's name otherwise than its"
            " catalog",
            "Set lower_case_table_names=1 on the source, which such a server allows.",
        )
    if int(other) == _NAMES_AS_GIVEN or (source == _AS_TOLD and int(other) != _AS_TOLD):
        raise ConfigError(
            f"source: lower_case_table_names={source}, and replica: lower_case_table_names={other}:"
            " names that are different tables on the source would be one on the replica",
            "Set up the replica's server anew with lower_case_table_names=0: it cannot be changed"
            " where there are tables already.",
        )
    for role, value, name in (
        ("OPENDENTAL_SOURCE_DB", source, source_db),
        ("MYSQL_REPLICATION_DB", int(other), replica_db),
    ):
        if value == _LOWER and name != name.lower():
            raise ConfigError(
                f"{role}={name}: with lower_case_table_names=1 the server's binlog has the"
                f" database as {name.lower()}",
                f"Set {role}={name.lower()}",
            )

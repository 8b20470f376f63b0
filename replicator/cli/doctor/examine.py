"""Put reading and judging together: settings in, every finding out.

A server that cannot be reached is a finding, and the others are still looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Final, TypeVar

from config.connections import MySQLConnection, connect_mysql, connect_postgres
from config.errors import ReplicatorError, translated
from config.settings import MySQLServer, Settings
from config.tables import TableRules
from replicator.binlog.stream import BinlogStream
from replicator.cli.doctor import facts as read
from replicator.cli.doctor.analytics import ANALYTICS, analytics_findings
from replicator.cli.doctor.facts import MySQLFacts
from replicator.cli.doctor.facts_analytics import PostgresFacts, read_postgres
from replicator.cli.doctor.finding import Finding, fail
from replicator.cli.doctor.here import here_findings
from replicator.cli.doctor.replica import REPLICA, replica_findings
from replicator.cli.doctor.source import SOURCE, source_findings
from replicator.provenance import Provenance
from replicator.source import identify

Facts = TypeVar("Facts", MySQLFacts, PostgresFacts)
_THIS_MACHINE: Final = ("127.", "::1", "localhost")
_ANSWER_SECONDS: Final = 5.0
_OTHER_ID: Final = 0x2800_0000
"""Turns a leg's server id into one that nobody else uses: a second reader of one ends the first."""


def examine(settings: Settings, rules: TableRules) -> Iterator[Finding]:
    """Look at everything that the pipeline rests on; nothing is changed anywhere."""
    source = _look(SOURCE, lambda: _mysql(settings.source, settings.replicator.server_id))
    replica = _look(REPLICA, lambda: _mysql(settings.replication, settings.loader.server_id))
    analytics = _look(ANALYTICS, lambda: _postgres(settings))
    source_facts = None if isinstance(source, Finding) else source
    replica_facts = None if isinstance(replica, Finding) else replica
    if isinstance(source, Finding):
        yield source
    else:
        yield from source_findings(source, settings, rules, replica_facts)
    if isinstance(replica, Finding):
        yield replica
    else:
        yield from replica_findings(replica, settings, source_facts, rules)
    if isinstance(analytics, Finding):
        yield analytics
    else:
        yield from analytics_findings(analytics, settings, _carried_bytes(source_facts, rules))
    yield from here_findings()


def _carried_bytes(source: MySQLFacts | None, rules: TableRules) -> int | None:
    if source is None:
        return None
    return sum(table.bytes for table in source.tables if rules.carries(table.name))


def _look(server: str, facts: Callable[[], Facts]) -> Facts | Finding:
    try:
        return facts()
    except ReplicatorError as error:
        return fail(server, "connection", str(error), "a server that lets us in", error.hint)


def _mysql(server: MySQLServer, server_id: int) -> MySQLFacts:
    look = read.read_source if server.role == "source" else read.read_replica
    with closing(connect_mysql(server)) as connection, translated(server.label):
        return look(
            connection,
            server.db,
            here=server.host.startswith(_THIS_MACHINE),
            began=partial(_began, connection, server, server_id ^ _OTHER_ID),
        )


def _began(connection: MySQLConnection, server: MySQLServer, server_id: int, file: str) -> int:
    """When the server began a binlog file, as the file's own head tells."""

    def stream() -> BinlogStream:
        return BinlogStream(
            lambda: connect_mysql(server),
            server_id=server_id,
            heartbeat_seconds=_ANSWER_SECONDS,
            name=server.label,
        )

    return Provenance(connection, identify(connection), stream).created(file)


def _postgres(settings: Settings) -> PostgresFacts:
    server = settings.analytics
    with (
        closing(connect_postgres(server, application_name="replicator check")) as connection,
        translated(server.label),
    ):
        return read_postgres(
            connection, server.schema_name, here=server.host.startswith((*_THIS_MACHINE, "/"))
        )

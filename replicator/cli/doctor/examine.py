"""Put reading and judging together: settings in, every finding out.

A server that cannot be reached is a finding, and the others are still looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeVar

from config.connections import connect_mysql, connect_postgres
from config.errors import ReplicatorError, translated
from config.settings import MySQLServer, Settings
from config.tables import TableRules
from replicator.cli.doctor import facts as read
from replicator.cli.doctor.analytics import ANALYTICS, analytics_findings
from replicator.cli.doctor.facts import MySQLFacts, PostgresFacts
from replicator.cli.doctor.finding import Finding, fail
from replicator.cli.doctor.here import here_findings
from replicator.cli.doctor.replica import REPLICA, replica_findings
from replicator.cli.doctor.source import SOURCE, source_findings

Facts = TypeVar("Facts", MySQLFacts, PostgresFacts)


def examine(settings: Settings, rules: TableRules) -> Iterator[Finding]:
    """Look at everything that the pipeline rests on; nothing is changed anywhere."""
    source = _look(SOURCE, lambda: _mysql(settings.source, with_tables=True))
    if isinstance(source, Finding):
        yield source
    else:
        yield from source_findings(source, settings, rules)
    replica = _look(REPLICA, lambda: _mysql(settings.replication, with_tables=False))
    if isinstance(replica, Finding):
        yield replica
    else:
        known = None if isinstance(source, Finding) else source
        yield from replica_findings(replica, settings, known)
    analytics = _look(ANALYTICS, lambda: _postgres(settings))
    if isinstance(analytics, Finding):
        yield analytics
    else:
        yield from analytics_findings(analytics, settings)
    yield from here_findings()


def _look(server: str, facts: Callable[[], Facts]) -> Facts | Finding:
    try:
        return facts()
    except ReplicatorError as error:
        return fail(server, "connection", str(error), "a server that lets us in", error.hint)


def _mysql(server: MySQLServer, *, with_tables: bool) -> MySQLFacts:
    with closing(connect_mysql(server)) as connection, translated(server.label):
        return read.read_mysql(connection, server.db, with_tables=with_tables)


def _postgres(settings: Settings) -> PostgresFacts:
    server = settings.analytics
    with (
        closing(connect_postgres(server, application_name="replicator check")) as connection,
        translated(server.label),
    ):
        return read.read_postgres(connection, server.schema_name)

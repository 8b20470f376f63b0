"""`check --grants`: the accounts that the settings name, as SQL to paste, for each server.

Left: settings, and what each server says it is. Right: a script for each server. The statements
are those of `replicator.grants`, which the sandbox and the tests run under.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from config.settings import MySQLServer, Settings
from replicator import grants
from replicator.cli.doctor.greeting import greeted
from replicator.source import Identity

_ASSUMED = (Identity(0, "", "10.11.0-MariaDB"), Identity(0, "", "8.4.0"))
"""What is printed for a server that does not answer."""


@dataclass(frozen=True, slots=True)
class Script:
    """What an administrator of one server pastes there."""

    server: str
    place: str
    version: str
    statements: tuple[str, ...]


def scripts(settings: Settings) -> Iterator[Script]:
    """A script for each server; two, for both families, where a server does not answer."""
    locks = settings.replicator.copy_lock == "short"
    for identity in _identities(settings.source):
        needed = grants.source_privileges(identity, locks=locks)
        yield _script("source", settings.source, identity, needed)
    for identity in _identities(settings.replication):
        needed = grants.replica_privileges(identity)
        yield _script("replica", settings.replication, identity, needed)
    server = settings.analytics
    place = f"{server.host}:{server.port}"
    statements = grants.postgres_account_statements(server.user, server.db)
    yield Script("analytics", place, "PostgreSQL 13 or newer", tuple(statements))


def _identities(server: MySQLServer) -> tuple[Identity, ...]:
    answered = greeted(server)
    return _ASSUMED if answered is None else (answered,)


def _script(
    name: str, server: MySQLServer, identity: Identity, needed: tuple[grants.Privilege, ...]
) -> Script:
    version = identity.version if identity.mariadb else f"MySQL {identity.version}"
    if identity in _ASSUMED:
        version += " or like it: the server does not answer, so choose"
    statements = tuple(grants.mysql_account_statements(server, needed))
    return Script(name, f"{server.host}:{server.port}", version, statements)


def as_sql(found: Iterable[Script]) -> str:
    """All of it, with a comment before each server's part."""
    last = f"-- Put a password for {grants.PLACEHOLDER}, and our host for '%' where it is known."
    parts = [[_heading(each), *each.statements] for each in found]
    return "\n\n".join("\n".join(part) for part in [*parts, [last]])


def _heading(script: Script) -> str:
    return f"-- {script.server} {script.place} ({script.version}), as an administrator there"

"""Which replica a source may have: of its family, and of its release series or a newer one.

Left: who the two servers are. Right: nothing, or one error that names both.

Row events are applied, and schema changes executed, as the source wrote them. A newer server
takes what an older one of its family logs; that is the order in which replicas are upgraded. An
older one lacks what a newer one has: types such as UUID and VECTOR, collations, words of
DDL. It might go well until somebody uses one of them, and then it would stop on any day. So it
does not begin. A series is what a version begins with: 10.11, 11.8, 9.7. Within one, servers
take each other's binlogs.

One thing is not the same on a newer MariaDB. System versioning marks the present version of a row
by the last moment that a TIMESTAMP has, and that is in 2106 from 11.5 on, and was in 2038. A
newer replica would take the source's present rows for versions that end in 2038. Between two such
servers a table with versions is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from config.errors import ConfigError
from replicator.binlog.ddl_lexer import Dialect
from replicator.binlog.ddl_reader import NOWHERE, Reader
from replicator.source import Identity
from replicator.tracking import fetch

_ENDS_LATER = 110_500
"""From this MariaDB on the last moment is 2106-02-07 06:28:15 UTC."""


def require_fitting(source: Identity, replica: Identity) -> None:
    """`ConfigError` where the one's binlog would not be safe with the other."""
    if source.family != replica.family:
        raise ConfigError(
            f"source ({source.version}) and replica ({replica.version}) are of different families",
            hint="Run the replica on the source's family: MariaDB with MariaDB, MySQL with"
            " MySQL. Row events are applied as they are, and the families differ there.",
        )
    if is_older(replica, source):
        wanted = f"{source.family} {source.series[0]}.{source.series[1]}"
        raise ConfigError(
            f"the replica ({replica.version}) is older than its source ({source.version})",
            hint=f"Upgrade the replica's server to {wanted} or newer, and start again where it"
            " stopped. The replica's server is always upgraded before the source's.",
        )


def is_older(replica: Identity, source: Identity) -> bool:
    """Is the replica of an older release series?"""
    return replica.series < source.series


def ends_differ(source: int, replica: int) -> bool:
    """Do the two, by their version numbers, mark a present version of a row otherwise?"""
    return source < _ENDS_LATER <= replica


def brings_versions(statement: str, dialect: Dialect) -> bool:
    """Does a CREATE or ALTER TABLE speak of system versioning, other than to end it?"""
    reader = Reader(statement, dialect, NOWHERE)
    words = ["", *(reader.word_at(at) for at in range(len(reader.code)))]
    return any(
        (word, following) == ("SYSTEM", "VERSIONING") and before != "DROP"
        for before, word, following in zip(words, words[1:], words[2:], strict=False)
    )


def require_no_versions(replica: Any, database: str, carries: Callable[[str], bool]) -> None:
    """`ConfigError` for a table with versions that the replica had before it was upgraded."""
    found = fetch(
        replica,
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
        " AND table_type = 'SYSTEM VERSIONED' ORDER BY table_name",
        [database],
    )
    names = [str(name) for (name,) in found if carries(str(name))]
    if names:
        raise ConfigError(
            f"table {', '.join(names)} is system-versioned, and from MariaDB 11.5 on the present"
            " versions of its rows are marked otherwise than the source does it",
            hint="Exclude it in tables.toml, or run the replica on the source's release series"
            " until the source is upgraded.",
        )

"""What is OpenDental's own about a source. Pure; docs/opendental.md tells where it is known from.

Left: what was read on the source. Right: findings; nothing here keeps the pipeline from working.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from config.connections import quote_mysql_identifier as quote
from config.settings import Settings
from replicator.cli.doctor.facts import MySQLFacts
from replicator.cli.doctor.finding import Finding, Mend, ok, warn
from replicator.cli.doctor.shared import listed

_BACKUP = re.compile(r"backup", re.IGNORECASE)
"""`<database>backup_MM_dd_yyyy`, and `_1`, `_2` … behind it; people's own copies as well."""


def opendental_findings(server: str, facts: MySQLFacts, settings: Settings) -> Iterator[Finding]:
    """Its version, an update under way, what the binlog changes in it, its backups."""
    known = facts.opendental
    if known is None:
        yield warn(
            server,
            "OpenDental",
            "no ProgramVersion in table preference",
            "OpenDental's own database",
            "See that OPENDENTAL_SOURCE_DB names it; any other database works as well.",
        )
    else:
        database = f", database {known.database}" if known.database else ""
        yield ok(server, "OpenDental", f"program {known.program}{database}")
        yield _update(server, facts)
        yield _binlog(server, facts)
    copies = [d for d in facts.databases if _BACKUP.search(d) and d != settings.source.db]
    if copies:
        yield warn(
            server,
            "backup databases",
            listed(copies),
            "none: each pre-upgrade copy fills the disk, and the binlog when it is made",
            Mend(
                "Once the practice agrees that they are no longer needed:",
                sql=tuple(f"DROP DATABASE {quote(name)};" for name in copies),
            ),
        )
    else:
        yield ok(server, "backup databases", "none")


def _update(server: str, facts: MySQLFacts) -> Finding:
    assert facts.opendental is not None
    if not facts.opendental.updating:
        return ok(server, "OpenDental's update", "none under way")
    return warn(
        server,
        "OpenDental's update",
        "one is under way, or was broken off",
        "none: it alters hundreds of tables, and what it breaks off it leaves half done",
        "Wait for its end before the first copy; the preference UpdateInProgressOnComputerName"
        " says who makes it.",
    )


def _binlog(server: str, facts: MySQLFacts) -> Finding:
    """Not a fault: a practice should know before it is asked about it."""
    when = "" if facts.variable("log_bin") in ("ON", "1") else "once it is on, "
    told = f"{when}OpenDental takes this server for one of several: see docs/opendental.md"
    return ok(server, "OpenDental with a binlog", told)

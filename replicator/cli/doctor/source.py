"""What must hold on the source. Pure.

Left: what was read there, and the settings. Right: findings whose remedies an
administrator of the source pastes there: SQL, or lines for [mysqld] in its my.cnf.
We ourselves change nothing on the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from config.settings import Settings
from config.tables import TableRules
from replicator.cli.doctor.facts import MySQLFacts
from replicator.cli.doctor.finding import Finding, fail, ok, warn
from replicator.cli.doctor.shared import (
    clock,
    expiry_line,
    retention_seconds,
    transport,
    value_in_my_cnf,
)

SOURCE = "source"
DAY = 86_400
_KEEP_SECONDS = 3 * DAY
_KEEP_DAYS_LINE = expiry_line(7 * DAY)
_PARTIAL_IMAGES = frozenset({"MINIMAL", "NOBLOB"})
_BACKUP = re.compile(r"backup", re.IGNORECASE)
_WRITES = frozenset(
    {"ALL PRIVILEGES", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "SUPER"}
)


def source_findings(facts: MySQLFacts, settings: Settings, rules: TableRules) -> Iterator[Finding]:
    """Everything about the source, in the order in which it would be mended."""
    yield ok(SOURCE, "version", facts.identity.version)
    yield from _binlog(facts)
    yield from _identity(facts, settings)
    yield from _privileges(facts, settings)
    yield clock(SOURCE, facts.skew_seconds)
    yield transport(
        SOURCE,
        host=settings.source.host,
        encrypted=facts.encrypted,
        prefix="OPENDENTAL_SOURCE",
        strict="verify_identity",
    )
    if settings.source.db not in facts.databases:
        yield fail(
            SOURCE,
            "database",
            f"no database {settings.source.db} in sight",
            "OpenDental's database, readable",
            "Set OPENDENTAL_SOURCE_DB, or grant SELECT on it.",
        )
        return
    yield ok(SOURCE, "database", f"{settings.source.db}, {len(facts.tables)} tables")
    yield from _tables(facts, settings, rules)
    yield from _opendental(facts, settings)


def _binlog(facts: MySQLFacts) -> Iterator[Finding]:
    # OpenDental's vendor recipe for replication sets no binlog_format, hence each by itself.
    yield value_in_my_cnf(SOURCE, facts, "log_bin", ("ON", "1"), "log_bin=mysql-bin")
    yield value_in_my_cnf(SOURCE, facts, "binlog_format", ("ROW",), "binlog_format=ROW")
    yield _row_image(facts)
    if facts.variable("binlog_checksum") in ("", "CRC32"):
        yield ok(SOURCE, "binlog_checksum", facts.variable("binlog_checksum") or "none")
    else:
        yield warn(
            SOURCE,
            "binlog_checksum",
            facts.variable("binlog_checksum"),
            "CRC32, so that damaged bytes are noticed",
            "SET GLOBAL binlog_checksum = 'CRC32'; and in my.cnf: binlog_checksum=CRC32",
        )
    kept = retention_seconds(facts)
    if kept is not None and kept < _KEEP_SECONDS:
        yield warn(
            SOURCE,
            "binlog retention",
            f"{kept / DAY:.1f} days",
            "3 days or more, to outlast a weekend without the replicator",
            _KEEP_DAYS_LINE,
        )
    else:
        shown = "for ever" if kept is None else f"{kept / DAY:.1f} days"
        yield ok(SOURCE, "binlog retention", f"{shown}, {facts.binlog_bytes:,} bytes now")


def _row_image(facts: MySQLFacts) -> Finding:
    """Parts of rows are carried like whole ones, as long as the binlog holds what changed.

    MariaDB's does not where a REPLACE that leaves out columns becomes an update: the columns'
    defaults are missing then, for its own replicas too.
    """
    found = facts.variable("binlog_row_image") or "FULL"
    if facts.identity.mariadb and found in _PARTIAL_IMAGES:
        return warn(
            SOURCE,
            "binlog_row_image",
            found,
            "FULL, or that nobody uses REPLACE with some of a table's columns: what such a"
            " REPLACE gives the others is not in MariaDB's binlog",
            "SET GLOBAL binlog_row_image = 'FULL'; and in my.cnf: binlog_row_image=FULL",
        )
    return ok(SOURCE, "binlog_row_image", found)


def _identity(facts: MySQLFacts, settings: Settings) -> Iterator[Finding]:
    number = facts.identity.server_id
    if number == 0:
        yield fail(SOURCE, "server_id", 0, "a number above 0", "In my.cnf: server_id=1")
    elif number == settings.replicator.server_id:
        yield fail(
            SOURCE,
            "server_id",
            number,
            "another number than the replicator's own",
            "Set REPLICATOR_SERVER_ID to another number, or remove it to have one derived.",
        )
    else:
        yield ok(SOURCE, "server_id", number)


def _privileges(facts: MySQLFacts, settings: Settings) -> Iterator[Finding]:
    monitor = "BINLOG MONITOR" if facts.identity.mariadb else "REPLICATION CLIENT"
    follower = facts.holds("REPLICATION SLAVE") or facts.holds("REPLICATION REPLICA")
    database = settings.source.db
    needed = [
        ("REPLICATION SLAVE", "*.*", follower),
        (monitor, "*.*", facts.holds(monitor) or facts.holds("SUPER")),
        ("SELECT", f"`{database}`.*", facts.holds("SELECT", database)),
    ]
    if settings.replicator.copy_lock == "short":
        held = facts.holds("LOCK TABLES", database)
        needed.append(("LOCK TABLES", f"`{database}`.*", held))
    for privilege, scope, held in needed:
        if held:
            yield ok(SOURCE, f"privilege {privilege}", "granted")
        else:
            yield fail(
                SOURCE,
                f"privilege {privilege}",
                "not granted",
                f"granted on {scope}",
                f"GRANT {privilege} ON {scope} TO {facts.account};",
            )
    writes = sorted(facts.held() & _WRITES)
    if writes:
        yield warn(
            SOURCE,
            "too many privileges",
            ", ".join(writes),
            "an account that can only read",
            f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {facts.account};"
            f" GRANT REPLICATION SLAVE, {monitor} ON *.* TO {facts.account};"
            f" GRANT SELECT ON `{database}`.* TO {facts.account};",
        )
    else:
        yield ok(SOURCE, "too many privileges", "none: the account can only read")


def _tables(facts: MySQLFacts, settings: Settings, rules: TableRules) -> Iterator[Finding]:
    carried = [table for table in facts.tables if rules.carries(table.name)]
    keyless = [t for t in carried if not t.has_key]
    locked = settings.replicator.copy_lock == "short"
    waiting = [t.name for t in keyless if t.engine.lower() != "innodb" and not locked]
    if waiting:
        yield warn(
            SOURCE,
            "tables without a key",
            _names(waiting),
            "a primary key, or permission for a short lock while such a table is copied",
            "Set REPLICATOR_COPY_LOCK=short and"
            f" GRANT LOCK TABLES ON `{settings.source.db}`.* TO {facts.account};"
            " or exclude the tables in tables.toml.",
        )
    elif keyless:
        yield ok(SOURCE, "tables without a key", f"{len(keyless)}, copied as a whole")
    else:
        yield ok(SOURCE, "tables without a key", "none")
    foreign = [t.name for t in carried if t.has_foreign_key]
    if foreign:
        yield fail(
            SOURCE,
            "foreign keys",
            _names(foreign),
            "none: changes that they cascade are not in the binlog",
            "Drop the constraints on the source, or exclude the tables in tables.toml.",
        )
    engines = sorted({t.engine for t in carried if t.engine})
    size = sum(t.bytes for t in carried)
    yield ok(
        SOURCE,
        "tables carried",
        f"{len(carried)} ({', '.join(engines) or 'no engine'}), {size:,} bytes;"
        " the replica stores InnoDB",
    )


def _opendental(facts: MySQLFacts, settings: Settings) -> Iterator[Finding]:
    if facts.opendental_version is None:
        yield warn(
            SOURCE,
            "OpenDental",
            "no ProgramVersion in table preference",
            "OpenDental's own database",
            "See that OPENDENTAL_SOURCE_DB names it; any other database works as well.",
        )
    else:
        yield ok(SOURCE, "OpenDental", facts.opendental_version)
    copies = [d for d in facts.databases if _BACKUP.search(d) and d != settings.source.db]
    if copies:
        yield warn(
            SOURCE,
            "backup databases",
            _names(copies),
            "none: each pre-upgrade copy fills the binlog once more",
            "Drop the copies that are no longer needed, when the practice agrees.",
        )


def _names(names: list[str], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")

"""What must hold on the source. Pure.

Left: what was read there and on the replica, and the settings. Right: findings whose remedies an
administrator of the source pastes there: SQL, or lines for [mysqld] in its my.cnf.
We ourselves change nothing on the source. What is OpenDental's own is in `opendental`.
"""

from __future__ import annotations

from collections.abc import Iterator

from config.connections import quote_mysql_identifier as quote
from config.settings import Settings
from config.tables import TableRules
from replicator.cli.doctor.facts import MySQLFacts, TableFacts
from replicator.cli.doctor.finding import Finding, Mend, fail, ok, warn
from replicator.cli.doctor.opendental import opendental_findings
from replicator.cli.doctor.privacy import privacy_findings
from replicator.cli.doctor.shared import (
    DAY,
    checksum,
    clock,
    expiry,
    growth,
    listed,
    privileges,
    retention_seconds,
    set_global,
    too_many,
    transport,
    value_in_my_cnf,
)
from replicator.grants import database_scope, source_privileges

SOURCE = "source"
_OLDEST = 50500
_KEEP_SECONDS = 3 * DAY
_KEEP_BETTER = 7 * DAY
_NEAR = 0.5
"""Of the retention: a replicator so far behind may find its binlog purged when it comes back."""
_PARTIAL_IMAGES = frozenset({"MINIMAL", "NOBLOB"})
_LASTING_ENGINES = frozenset({"innodb", "myisam", "aria"})
_RECIPE = " (OpenDental's own recipe for replication does not set it)"


def source_findings(
    facts: MySQLFacts, settings: Settings, rules: TableRules, replica: MySQLFacts | None = None
) -> Iterator[Finding]:
    """Everything about the source, in the order in which it would be mended."""
    yield _version(facts)
    yield from _binlog(facts)
    yield from _retention(facts, replica)
    yield from _identity(facts, settings)
    yield _gtids(facts)
    needed = source_privileges(facts.identity, locks=settings.replicator.copy_lock == "short")
    yield from privileges(SOURCE, facts, needed, settings.source.db)
    yield too_many(SOURCE, facts, needed, settings.source.db, owns=False)
    yield clock(SOURCE, facts.skew_seconds)
    yield _time_zone(facts)
    yield transport(
        SOURCE,
        host=settings.source.host,
        mode=settings.source.ssl_mode,
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
    yield from _charset(facts, replica)
    yield from _tables(facts, settings, rules)
    yield from privacy_findings(facts, rules, SOURCE)
    yield from opendental_findings(SOURCE, facts, settings)


def _version(facts: MySQLFacts) -> Finding:
    if facts.identity.number >= _OLDEST:
        return ok(SOURCE, "version", facts.identity.version)
    return fail(
        SOURCE,
        "version",
        facts.identity.version,
        "5.5 or newer: older servers log rows in forms that are not read here",
        "Upgrade the source's server.",
    )


def _binlog(facts: MySQLFacts) -> Iterator[Finding]:
    yield value_in_my_cnf(SOURCE, facts, "log_bin", ("ON", "1"), "log_bin=mysql-bin")
    yield value_in_my_cnf(
        SOURCE, facts, "binlog_format", ("ROW",), "binlog_format=ROW", why=_RECIPE
    )
    yield _row_image(facts)
    yield checksum(SOURCE, facts)
    if facts.variable("sync_binlog") in ("", "1"):
        yield ok(SOURCE, "sync_binlog", facts.variable("sync_binlog") or "not known here")
    else:
        yield warn(
            SOURCE,
            "sync_binlog",
            facts.variable("sync_binlog"),
            "1, or a crash of the machine may take changes back that were read already, and the"
            " replicator halts",
            set_global("sync_binlog", "1"),
        )


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
            set_global("binlog_row_image", "FULL", quoted=True),
        )
    return ok(SOURCE, "binlog_row_image", found)


def _retention(facts: MySQLFacts, replica: MySQLFacts | None) -> Iterator[Finding]:
    kept = retention_seconds(facts)
    if kept is not None and kept < _KEEP_SECONDS:
        yield warn(
            SOURCE,
            "binlog retention",
            f"{kept / DAY:.1f} days",
            "3 days or more, to outlast a weekend without the replicator",
            expiry(facts.identity, _KEEP_BETTER),
        )
    else:
        shown = "for ever" if kept is None else f"{kept / DAY:.1f} days"
        yield ok(SOURCE, "binlog retention", f"{shown}, {facts.binlog_bytes:,} bytes now")
    yield from growth(SOURCE, facts)
    if replica is not None and replica.standing is not None and facts.binlog_files:
        yield _lag(facts, replica, kept)


def _lag(facts: MySQLFacts, replica: MySQLFacts, kept: float | None) -> Finding:
    """Is what the replicator must read next still there, and for how long?"""
    standing, check = replica.standing, "position"
    assert standing is not None
    if standing.file not in facts.binlog_files:
        return fail(
            SOURCE,
            check,
            f"the replicator stands in {standing.file}, which the source no longer has",
            f"one of its files, {facts.binlog_files[0]} to {facts.binlog_files[-1]}",
            "Copy everything again: replicator resync --all",
        )
    idle = standing.file == facts.binlog_files[-1]
    if kept is None or standing.age_seconds is None or idle or standing.age_seconds < kept * _NEAR:
        return ok(SOURCE, check, f"the replicator stands in {standing.file}")
    longer = int(standing.age_seconds * 4)
    return warn(
        SOURCE,
        check,
        f"the replicator is {standing.age_seconds / 3600:.1f} hours behind, and binlogs are kept"
        f" for {kept / 3600:.1f}",
        "a replicator that is nearer than half of that",
        Mend(
            "Start the replicator; keep binlogs for longer meanwhile:",
            sql=expiry(facts.identity, longer).sql,
            my_cnf=expiry(facts.identity, longer).my_cnf,
        ),
    )


def _identity(facts: MySQLFacts, settings: Settings) -> Iterator[Finding]:
    number = facts.identity.server_id
    if number == 0:
        yield fail(SOURCE, "server_id", 0, "a number above 0", Mend(my_cnf=("server_id=1",)))
    elif number == settings.replicator.server_id:
        yield fail(
            SOURCE,
            "server_id",
            f"{number}: the replicator's own",
            "another number than the replicator's",
            Mend("An empty value has one derived:", settings=("REPLICATOR_SERVER_ID=",)),
        )
    else:
        yield ok(SOURCE, "server_id", number)


def _gtids(facts: MySQLFacts) -> Finding:
    """They are not needed; with them, another server may take the source's place."""
    if facts.identity.mariadb:
        return ok(SOURCE, "GTID", f"domain {facts.variables.get('gtid_domain_id', '0')}")
    mode = facts.variable("gtid_mode") or "OFF"
    if mode in ("ON", "OFF"):
        without = ": a fail-over to another server needs replicator resync --all"
        return ok(SOURCE, "GTID", mode + (without if mode == "OFF" else ""))
    return warn(
        SOURCE,
        "GTID",
        mode,
        "ON or OFF: half way, a fail-over cannot be followed",
        Mend(
            "One step at a time, each when the one before holds on all of its servers:",
            sql=tuple(f"SET GLOBAL gtid_mode = {step};" for step in _GTID_STEPS[mode]),
            my_cnf=("gtid_mode=ON", "enforce_gtid_consistency=ON"),
        ),
    )


_GTID_STEPS = {"OFF_PERMISSIVE": ("ON_PERMISSIVE", "ON"), "ON_PERMISSIVE": ("ON",)}


def _time_zone(facts: MySQLFacts) -> Finding:
    """Whatever it is: TIMESTAMPs are logged in UTC, and DDL's zones are asked of the source."""
    zone = facts.variables.get("time_zone", "SYSTEM")
    machine = facts.variables.get("system_time_zone", "")
    return ok(SOURCE, "time zone", f"{zone} ({machine})" if zone == "SYSTEM" else zone)


def _charset(facts: MySQLFacts, replica: MySQLFacts | None) -> Iterator[Finding]:
    if replica is None:
        return
    unknown = sorted(facts.collations - replica.collations)
    if unknown:
        yield fail(
            SOURCE,
            "charset",
            listed(unknown),
            "collations that the replica's server knows",
            f"Upgrade the replica's server ({replica.identity.version}).",
        )
    else:
        yield ok(SOURCE, "charset", listed(sorted(facts.collations)) or "no text")


def _tables(facts: MySQLFacts, settings: Settings, rules: TableRules) -> Iterator[Finding]:
    carried = [table for table in facts.tables if rules.carries(table.name)]
    database = settings.source.db
    yield from _keyless([t for t in carried if not t.has_key], facts, settings)
    foreign = [t for t in carried if t.has_foreign_key]
    if foreign:
        yield fail(
            SOURCE,
            "foreign keys",
            listed([t.name for t in foreign]),
            "none: changes that they cascade are not in the binlog",
            Mend(
                "Drop the constraints, or exclude the tables in tables.toml:",
                sql=tuple(_dropped(database, table, key) for table in foreign for key in
                          table.foreign_keys),
            ),
        )  # fmt: skip
    else:
        yield ok(SOURCE, "foreign keys", "none")
    fleeting = [t for t in carried if t.engine and t.engine.lower() not in _LASTING_ENGINES]
    if fleeting:
        yield warn(
            SOURCE,
            "engines",
            listed([f"{t.name} ({t.engine})" for t in fleeting]),
            "InnoDB, MyISAM or Aria: what others hold may change without a trace in the binlog",
            Mend(
                "Exclude the tables in tables.toml, or give them another engine:",
                sql=tuple(
                    f"ALTER TABLE {quote(database)}.{quote(t.name)} ENGINE=InnoDB;"
                    for t in fleeting
                ),
            ),
        )
    else:
        engines = sorted({t.engine for t in carried if t.engine})
        yield ok(SOURCE, "engines", f"{', '.join(engines) or 'none'}; the replica stores InnoDB")
    size = sum(t.bytes for t in carried)
    yield ok(SOURCE, "tables carried", f"{len(carried)}, {size:,} bytes")


def _keyless(keyless: list[TableFacts], facts: MySQLFacts, settings: Settings) -> Iterator[Finding]:
    names = listed([t.name for t in keyless])
    yield ok(SOURCE, "tables without a key", f"{names}: copied as a whole" if names else "none")
    locked = settings.replicator.copy_lock == "short"
    waiting = [t.name for t in keyless if t.engine.lower() != "innodb" and not locked]
    if not waiting:
        yield ok(SOURCE, "tables that need a lock", "none")
        return
    grant = f"GRANT LOCK TABLES ON {database_scope(settings.source.db)} TO {facts.account};"
    yield warn(
        SOURCE,
        "tables that need a lock",
        listed(waiting),
        "a primary key, or permission for a short lock while such a table is copied",
        Mend(
            "Exclude the tables in tables.toml, or allow the lock:",
            sql=(grant,),
            settings=("REPLICATOR_COPY_LOCK=short",),
        ),
    )


def _dropped(database: str, table: TableFacts, key: str) -> str:
    return (
        f"ALTER TABLE {quote(database)}.{quote(table.name)}"
        f" DROP FOREIGN KEY {quote(key.replace('``', '`'))};"
    )

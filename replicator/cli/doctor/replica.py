"""What must hold on the replica's server. Pure.

Left: what was read there, the source's identity, the settings. Right: findings
whose remedies are for the replica, which is ours to change.
"""

from __future__ import annotations

from collections.abc import Iterator

from config.settings import Settings
from config.tables import TableRules
from replicator.cli.doctor.facts import MySQLFacts
from replicator.cli.doctor.finding import Finding, Mend, fail, ok, warn
from replicator.cli.doctor.shared import (
    DAY,
    checksum,
    clock,
    expiry,
    growth,
    privileges,
    retention_seconds,
    room,
    set_global,
    too_many,
    transport,
    value_in_my_cnf,
)
from replicator.grants import replica_privileges
from replicator.pair import is_older

REPLICA = "replica"
_LEAST_PACKET = 16 << 20
_COPY_FACTOR = 2
"""A first copy is stored, and logged for leg 2."""


def replica_findings(
    facts: MySQLFacts, settings: Settings, source: MySQLFacts | None, rules: TableRules
) -> Iterator[Finding]:
    """Everything about the replica; `source` is None where the source could not be read."""
    yield _version(facts, source)
    if source is not None and source.identity.family != facts.identity.family:
        return  # what else must hold depends on the family
    for name, value, line in (
        ("log_bin", ("ON", "1"), "log_bin=replica-bin"),
        ("binlog_format", ("ROW",), "binlog_format=ROW"),
        ("binlog_row_image", ("FULL",), "binlog_row_image=FULL"),
        ("binlog_row_metadata", ("FULL",), "binlog_row_metadata=FULL"),
    ):
        yield value_in_my_cnf(REPLICA, facts, name, value, line)
    if facts.variable("binlog_row_value_options"):
        yield fail(
            REPLICA,
            "binlog_row_value_options",
            facts.variable("binlog_row_value_options"),
            "nothing: the loader needs whole JSON documents",
            Mend(
                sql=("SET GLOBAL binlog_row_value_options = '';",),
                my_cnf=("binlog_row_value_options=",),
            ),
        )
    if facts.variable("mysql56_temporal_format") in ("OFF", "0"):
        yield fail(
            REPLICA,
            "mysql56_temporal_format",
            "OFF",
            "ON: the source's times would be stored otherwise here",
            set_global("mysql56_temporal_format", "ON"),
        )
    yield checksum(REPLICA, facts)
    yield from _names(facts, source)
    yield from _retention(facts, settings)
    yield from growth(REPLICA, facts)
    yield _server_id(facts, settings, source)
    yield from _limits(facts)
    needed = replica_privileges(facts.identity)
    yield from privileges(REPLICA, facts, needed, settings.replication.db)
    yield too_many(REPLICA, facts, needed, settings.replication.db, owns=True)
    yield clock(REPLICA, facts.skew_seconds)
    yield transport(
        REPLICA,
        host=settings.replication.host,
        mode=settings.replication.ssl_mode,
        encrypted=facts.encrypted,
        prefix="MYSQL_REPLICATION",
        strict="verify_identity",
    )
    if source is not None:
        yield _room_for_copy(facts, source, rules)


def _room_for_copy(facts: MySQLFacts, source: MySQLFacts, rules: TableRules) -> Finding:
    """What the first copy needs beyond what it has brought already."""
    size = sum(table.bytes for table in source.tables if rules.carries(table.name))
    there = sum(table.bytes for table in facts.tables)
    needed = max(0, size - there) * _COPY_FACTOR
    look = f"df -h {facts.variables.get('datadir', '')}".rstrip()
    return room(REPLICA, "room for the copy", needed, facts.disk_free_bytes, look)


def _version(facts: MySQLFacts, source: MySQLFacts | None) -> Finding:
    if source is not None and source.identity.family != facts.identity.family:
        family = source.identity.family
        return fail(
            REPLICA,
            "version",
            facts.identity.version,
            f"a server of the source's family ({family}, {source.identity.version})",
            f"Install {family} for the replica, at least of the source's version.",
        )
    if source is not None and source.identity.number > facts.identity.number:
        verdict = fail if is_older(facts.identity, source.identity) else warn
        return verdict(
            REPLICA,
            "version",
            facts.identity.version,
            f"the source's {source.identity.version} or newer, to understand all that it logs",
            "Upgrade the replica's server.",
        )
    return ok(REPLICA, "version", facts.identity.version)


def _names(facts: MySQLFacts, source: MySQLFacts | None) -> Iterator[Finding]:
    """Two of the source's tables must not have one name here."""
    name = "lower_case_table_names"
    here = facts.variable(name)
    there = "" if source is None else source.variable(name)
    if here == "2" or (here == "1" and there == "0"):
        yield fail(
            REPLICA,
            name,
            f"{here}, and {there or 'not known'} on the source",
            "0: names that differ in their case are different tables on the source",
            Mend("Set up the replica's server anew, before it has tables:", my_cnf=(f"{name}=0",)),
        )


def _retention(facts: MySQLFacts, settings: Settings) -> Iterator[Finding]:
    """The loader purges what it has passed; the server itself must not purge before that."""
    kept, better = retention_seconds(facts), expiry(facts.identity, 3 * DAY)
    most = int(facts.variables.get("max_binlog_total_size") or 0)
    if most:
        yield warn(
            REPLICA,
            "max_binlog_total_size",
            f"{most:,} bytes",
            "0, no limit: a backlog of the loader's may be larger",
            set_global("max_binlog_total_size", "0"),
        )
    if kept is None and settings.loader.binlog_reserve_bytes == 0:
        yield warn(
            REPLICA,
            "binlog retention",
            f"for ever, {facts.binlog_bytes:,} bytes now, and LOADER_BINLOG_RESERVE_BYTES is off",
            "an end: the disk fills with what the loader has long read",
            better,
        )
    elif kept is not None and kept < DAY:
        yield warn(
            REPLICA,
            "binlog retention",
            f"{kept / 3600:.1f} hours",
            "a day or more, to outlast a stop of the loader",
            better,
        )
    else:
        told = "until the loader has passed them" if kept is None else f"{kept / DAY:.1f} days"
        yield ok(REPLICA, "binlog retention", told)


def _server_id(facts: MySQLFacts, settings: Settings, source: MySQLFacts | None) -> Finding:
    number = facts.identity.server_id
    others = {settings.loader.server_id: "the loader's (LOADER_SERVER_ID)"}
    if source is not None:
        others[source.identity.server_id] = "the source's"
    if number == 0 or number in others:
        whose = others.get(number, "no number at all")
        free = next(each for each in range(1, 9) if each not in others)
        return fail(
            REPLICA,
            "server_id",
            f"{number}: {whose}",
            "a number of its own",
            Mend(my_cnf=(f"server_id={free}",)),
        )
    return ok(REPLICA, "server_id", number)


def _limits(facts: MySQLFacts) -> Iterator[Finding]:
    packet = int(facts.variables.get("max_allowed_packet", "0"))
    if packet < _LEAST_PACKET:
        yield fail(
            REPLICA,
            "max_allowed_packet",
            f"{packet:,} bytes",
            f"{_LEAST_PACKET:,} bytes or more: a batch is one statement",
            set_global("max_allowed_packet", "1073741824"),
        )
    else:
        yield ok(REPLICA, "max_allowed_packet", f"{packet:,} bytes")
    for name in ("slave_exec_mode", "rbr_exec_mode"):
        if facts.variable(name) == "IDEMPOTENT":
            yield fail(
                REPLICA,
                name,
                "IDEMPOTENT",
                "STRICT, or the chain of offsets could pass over a lost row",
                set_global(name, "STRICT", quoted=True),
            )
    if facts.variable("read_only") in ("ON", "1"):
        yield fail(
            REPLICA,
            "read_only",
            "ON",
            "OFF: the replicator writes here",
            set_global("read_only", "OFF"),
        )
    careless = {
        name: facts.variable(name)
        for name in ("innodb_flush_log_at_trx_commit", "sync_binlog")
        if facts.variable(name) not in ("", "1")
    }
    if careless:
        yield warn(
            REPLICA,
            "durability",
            ", ".join(f"{name}={value}" for name, value in careless.items()),
            "1, or a power cut may set the replica back behind what raw shows",
            Mend(
                sql=tuple(f"SET GLOBAL {name} = 1;" for name in careless),
                my_cnf=tuple(f"{name}=1" for name in careless),
            ),
        )
    else:
        yield ok(REPLICA, "durability", "each commit waits for the disk")

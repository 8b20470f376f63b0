"""What must hold on the replica's server. Pure.

Left: what was read there, the source's identity, the settings. Right: findings
whose remedies are for the replica, which is ours to change.
"""

from __future__ import annotations

from collections.abc import Iterator

from config.settings import Settings
from replicator.cli.doctor.facts import MySQLFacts
from replicator.cli.doctor.finding import Finding, Verdict, fail, ok, warn
from replicator.cli.doctor.shared import (
    clock,
    expiry_line,
    retention_seconds,
    transport,
    value_in_my_cnf,
)

REPLICA = "replica"
_DAY = 86_400
_MARIADB_GRANTS = (
    "BINLOG REPLAY",
    "BINLOG ADMIN",
    "REPLICATION SLAVE",
    "BINLOG MONITOR",
    "PROCESS",
)
_MYSQL_GRANTS = (
    "BINLOG_ADMIN",
    "SESSION_VARIABLES_ADMIN",
    "REPLICATION SLAVE",
    "REPLICATION CLIENT",
    "PROCESS",
)
_LEAST_PACKET = 16 << 20


def replica_findings(
    facts: MySQLFacts, settings: Settings, source: MySQLFacts | None
) -> Iterator[Finding]:
    """Everything about the replica; `source` is None where the source could not be read."""
    flavour = _flavour(facts, source)
    yield flavour
    if flavour.verdict is Verdict.FAIL:
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
            "SET GLOBAL binlog_row_value_options = ''; and remove it from my.cnf",
        )
    if facts.variable("mysql56_temporal_format") in ("OFF", "0"):
        yield fail(
            REPLICA,
            "mysql56_temporal_format",
            "OFF",
            "ON: the source's times would be stored otherwise here",
            "SET GLOBAL mysql56_temporal_format = ON; and take it out of my.cnf",
        )
    yield from _names(facts, source)
    yield _retention(facts)
    yield _server_id(facts, settings, source)
    yield from _limits(facts)
    yield from _privileges(facts, settings)
    yield clock(REPLICA, facts.skew_seconds)
    yield transport(
        REPLICA,
        host=settings.replication.host,
        encrypted=facts.encrypted,
        prefix="MYSQL_REPLICATION",
        strict="verify_identity",
    )


def _flavour(facts: MySQLFacts, source: MySQLFacts | None) -> Finding:
    if source is not None and source.identity.mariadb != facts.identity.mariadb:
        family = "MariaDB" if source.identity.mariadb else "MySQL"
        return fail(
            REPLICA,
            "version",
            facts.identity.version,
            f"a server of the source's family ({family}, {source.identity.version})",
            f"Install {family} for the replica, at least of the source's version.",
        )
    if source is not None and source.identity.number > facts.identity.number:
        return warn(
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
            f"Set up the replica's server anew with {name}=0, before it has tables.",
        )


def _retention(facts: MySQLFacts) -> Finding:
    kept = retention_seconds(facts)
    if kept is None:
        return warn(
            REPLICA,
            "binlog retention",
            f"for ever, {facts.binlog_bytes:,} bytes now",
            "an end: the disk fills with what the loader has long read",
            expiry_line(3 * _DAY),
        )
    if kept < _DAY:
        return warn(
            REPLICA,
            "binlog retention",
            f"{kept / 3600:.1f} hours",
            "a day or more, to outlast a stop of the loader",
            expiry_line(3 * _DAY),
        )
    return ok(REPLICA, "binlog retention", f"{kept / _DAY:.1f} days")


def _server_id(facts: MySQLFacts, settings: Settings, source: MySQLFacts | None) -> Finding:
    number = facts.identity.server_id
    others = {settings.loader.server_id: "the loader's (LOADER_SERVER_ID)"}
    if source is not None:
        others[source.identity.server_id] = "the source's"
    if number == 0 or number in others:
        whose = others.get(number, "no number at all")
        return fail(
            REPLICA,
            "server_id",
            f"{number}: {whose}",
            "a number of its own",
            "In the replica's my.cnf, then restart: server_id=2",
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
            "SET GLOBAL max_allowed_packet = 1073741824; and in my.cnf: max_allowed_packet=1G",
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
                f"SET GLOBAL {name} = 'STRICT'; and take it out of my.cnf",
            )
    if facts.variable("read_only") in ("ON", "1"):
        yield fail(
            REPLICA,
            "read_only",
            "ON",
            "OFF: the replicator writes here",
            "SET GLOBAL read_only = OFF; and take read_only out of my.cnf",
        )
    if facts.variable("innodb_flush_log_at_trx_commit") not in ("", "1"):
        yield warn(
            REPLICA,
            "durability",
            f"innodb_flush_log_at_trx_commit={facts.variable('innodb_flush_log_at_trx_commit')}",
            "1, or a power cut may set the replica back behind what raw shows",
            "SET GLOBAL innodb_flush_log_at_trx_commit = 1; and the same in my.cnf",
        )
    else:
        yield ok(REPLICA, "durability", "innodb_flush_log_at_trx_commit=1")


def _privileges(facts: MySQLFacts, settings: Settings) -> Iterator[Finding]:
    database = settings.replication.db
    for privilege in _MARIADB_GRANTS if facts.identity.mariadb else _MYSQL_GRANTS:
        if facts.holds(privilege) or facts.holds("SUPER"):
            yield ok(REPLICA, f"privilege {privilege}", "granted")
        else:
            yield fail(
                REPLICA,
                f"privilege {privilege}",
                "not granted",
                "granted on *.*",
                f"GRANT {privilege} ON *.* TO {facts.account};",
            )
    if facts.holds("CREATE", database) and facts.holds("INSERT", database):
        yield ok(REPLICA, "privileges on the database", "granted")
    else:
        pattern = database.replace("_", r"\_")
        yield fail(
            REPLICA,
            "privileges on the database",
            "not granted",
            f"all privileges on {database}",
            f"GRANT ALL PRIVILEGES ON `{pattern}`.* TO {facts.account};",
        )

"""Each fault, planted in otherwise sound facts, is found and told with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings, load_settings
from config.tables import TableRules
from replicator.cli.doctor import Finding, Verdict, worst
from replicator.cli.doctor.analytics import analytics_findings
from replicator.cli.doctor.facts import MySQLFacts, PostgresFacts, TableFacts, parse_grants
from replicator.cli.doctor.here import COMPILED, kernel_finding
from replicator.cli.doctor.replica import replica_findings
from replicator.cli.doctor.source import source_findings
from replicator.source import Identity

SOURCE_GRANTS = parse_grants(
    [
        "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `reader`@`%` IDENTIFIED BY PASSWORD 'x'",
        r"GRANT SELECT ON `open\_dental`.* TO `reader`@`%`",
    ]
)
REPLICA_GRANTS = parse_grants(
    [
        "GRANT PROCESS, REPLICATION SLAVE, BINLOG MONITOR, BINLOG ADMIN, BINLOG REPLAY ON *.*"
        " TO `writer`@`%`",
        "GRANT ALL PRIVILEGES ON `opendental_replication`.* TO `writer`@`%`",
    ]
)
LOGGING = {
    "log_bin": "ON",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_checksum": "CRC32",
    "binlog_expire_logs_seconds": "604800",
}
SOURCE = MySQLFacts(
    Identity(1, "", "10.11.6-MariaDB"),
    "'reader'@'%'",
    LOGGING,
    SOURCE_GRANTS,
    skew_seconds=0.1,
    encrypted=True,
    databases=("information_schema", "open_dental"),
    tables=(TableFacts("patient", "MyISAM", 4096, True, False),),
    opendental_version="24.1.1.0",
)
REPLICA = MySQLFacts(
    Identity(2, "", "10.11.6-MariaDB"),
    "'writer'@'%'",
    {
        **LOGGING,
        "binlog_row_metadata": "FULL",
        "max_allowed_packet": "1073741824",
        "innodb_flush_log_at_trx_commit": "1",
        "slave_exec_mode": "STRICT",
        "read_only": "OFF",
    },
    REPLICA_GRANTS,
    skew_seconds=0.0,
    encrypted=True,
    databases=(),
)
ANALYTICS = PostgresFacts(
    150004, "writer", "UTF8", True, True, True, False, True, False, 0.0, {"fsync": "on"}
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    environ = {
        "OPENDENTAL_SOURCE_HOST": "practice.example",
        "OPENDENTAL_SOURCE_DB": "open_dental",
        "OPENDENTAL_SOURCE_USER": "reader",
        "OPENDENTAL_SOURCE_PASSWORD": "x",
        "MYSQL_REPLICATION_HOST": "127.0.0.1",
        "MYSQL_REPLICATION_PORT": "3305",
        "MYSQL_REPLICATION_DB": "opendental_replication",
        "MYSQL_REPLICATION_USER": "writer",
        "MYSQL_REPLICATION_PASSWORD": "x",
        "POSTGRES_ANALYTICS_HOST": "warehouse.example",
        "POSTGRES_ANALYTICS_DB": "opendental_analytics",
        "POSTGRES_ANALYTICS_USER": "writer",
        "POSTGRES_ANALYTICS_PASSWORD": "x",
    }
    (tmp_path / "env").touch()
    return load_settings(tmp_path / "env", environ)


def of_source(settings: Settings, facts: MySQLFacts) -> list[Finding]:
    return list(source_findings(facts, settings, TableRules()))


def of_replica(settings: Settings, facts: MySQLFacts) -> list[Finding]:
    return list(replica_findings(facts, settings, SOURCE))


def of_analytics(settings: Settings, facts: PostgresFacts) -> list[Finding]:
    return list(analytics_findings(facts, settings))


def variable(facts: MySQLFacts, **values: str) -> MySQLFacts:
    return replace(facts, variables={**facts.variables, **values})


def without(facts: MySQLFacts, privilege: str) -> MySQLFacts:
    return replace(facts, grants={s: held - {privilege} for s, held in facts.grants.items()})


def test_sound_servers_are_all_ok(settings: Settings) -> None:
    findings = [
        *of_source(settings, SOURCE),
        *of_replica(settings, REPLICA),
        *of_analytics(settings, ANALYTICS),
    ]
    assert [f for f in findings if f.verdict is not Verdict.OK] == []
    assert worst(findings) is Verdict.OK


KEYLESS = TableFacts("screen", "MyISAM", 0, False, False)
FOREIGN = TableFacts("child", "InnoDB", 0, True, True)
TOO_MANY = {"*.*": frozenset({"ALL PRIVILEGES"})}

SOURCE_FAULTS: dict[str, tuple[MySQLFacts, str, Verdict, str]] = {
    "no binlog": (variable(SOURCE, log_bin="OFF"), "log_bin", Verdict.FAIL, "log_bin=mysql-bin"),
    "statement format": (
        variable(SOURCE, binlog_format="MIXED"),
        "binlog_format",
        Verdict.FAIL,
        "binlog_format=ROW",
    ),
    "partial images": (
        variable(SOURCE, binlog_row_image="MINIMAL"),
        "binlog_row_image",
        Verdict.WARN,
        "SET GLOBAL binlog_row_image = 'FULL'",
    ),
    "no checksums": (
        variable(SOURCE, binlog_checksum="NONE"),
        "binlog_checksum",
        Verdict.WARN,
        "SET GLOBAL binlog_checksum = 'CRC32'",
    ),
    "short retention": (
        variable(SOURCE, binlog_expire_logs_seconds="3600"),
        "binlog retention",
        Verdict.WARN,
        "SET GLOBAL binlog_expire_logs_seconds = 604800",
    ),
    "no server id": (
        replace(SOURCE, identity=replace(SOURCE.identity, server_id=0)),
        "server_id",
        Verdict.FAIL,
        "server_id=1",
    ),
    "may not follow": (
        without(SOURCE, "REPLICATION SLAVE"),
        "privilege REPLICATION SLAVE",
        Verdict.FAIL,
        "GRANT REPLICATION SLAVE ON *.* TO 'reader'@'%';",
    ),
    "may not monitor": (
        without(SOURCE, "BINLOG MONITOR"),
        "privilege BINLOG MONITOR",
        Verdict.FAIL,
        "GRANT BINLOG MONITOR ON *.* TO 'reader'@'%';",
    ),
    "may not read": (
        without(SOURCE, "SELECT"),
        "privilege SELECT",
        Verdict.FAIL,
        "GRANT SELECT ON `open_dental`.* TO 'reader'@'%';",
    ),
    "may write": (
        replace(SOURCE, grants=TOO_MANY),
        "too many privileges",
        Verdict.WARN,
        "REVOKE ALL PRIVILEGES, GRANT OPTION FROM 'reader'@'%';",
    ),
    "wrong clock": (replace(SOURCE, skew_seconds=-9.0), "clock", Verdict.WARN, "timedatectl"),
    "bare connection": (
        replace(SOURCE, encrypted=False),
        "TLS",
        Verdict.WARN,
        "OPENDENTAL_SOURCE_SSL_MODE=verify_identity",
    ),
    "no database": (
        replace(SOURCE, databases=("information_schema",)),
        "database",
        Verdict.FAIL,
        "OPENDENTAL_SOURCE_DB",
    ),
    "keyless MyISAM table": (
        replace(SOURCE, tables=(*SOURCE.tables, KEYLESS)),
        "tables without a key",
        Verdict.WARN,
        "REPLICATOR_COPY_LOCK=short",
    ),
    "foreign key": (
        replace(SOURCE, tables=(*SOURCE.tables, FOREIGN)),
        "foreign keys",
        Verdict.FAIL,
        "Drop the constraints",
    ),
    "not OpenDental": (
        replace(SOURCE, opendental_version=None),
        "OpenDental",
        Verdict.WARN,
        "OPENDENTAL_SOURCE_DB",
    ),
    "backup databases": (
        replace(SOURCE, databases=(*SOURCE.databases, "open_dentalbackup_11_01_2026")),
        "backup databases",
        Verdict.WARN,
        "Drop the copies",
    ),
}
REPLICA_FAULTS: dict[str, tuple[MySQLFacts, str, Verdict, str]] = {
    "other family": (
        replace(REPLICA, identity=Identity(2, "u", "9.7.4")),
        "version",
        Verdict.FAIL,
        "Install MariaDB",
    ),
    "older than the source": (
        replace(REPLICA, identity=Identity(2, "", "10.6.1-MariaDB")),
        "version",
        Verdict.WARN,
        "Upgrade",
    ),
    "minimal metadata": (
        variable(REPLICA, binlog_row_metadata="NO_LOG"),
        "binlog_row_metadata",
        Verdict.FAIL,
        "binlog_row_metadata=FULL",
    ),
    "times of old": (
        variable(REPLICA, mysql56_temporal_format="OFF"),
        "mysql56_temporal_format",
        Verdict.FAIL,
        "SET GLOBAL mysql56_temporal_format = ON",
    ),
    "names as given": (
        variable(REPLICA, lower_case_table_names="2"),
        "lower_case_table_names",
        Verdict.FAIL,
        "lower_case_table_names=0",
    ),
    "binlogs for ever": (
        variable(REPLICA, binlog_expire_logs_seconds="0"),
        "binlog retention",
        Verdict.WARN,
        "binlog_expire_logs_seconds",
    ),
    "binlogs for an hour": (
        variable(REPLICA, binlog_expire_logs_seconds="3600"),
        "binlog retention",
        Verdict.WARN,
        "binlog_expire_logs_seconds",
    ),
    "the source's server id": (
        replace(REPLICA, identity=replace(REPLICA.identity, server_id=1)),
        "server_id",
        Verdict.FAIL,
        "server_id=2",
    ),
    "small packets": (
        variable(REPLICA, max_allowed_packet="1048576"),
        "max_allowed_packet",
        Verdict.FAIL,
        "SET GLOBAL max_allowed_packet",
    ),
    "idempotent": (
        variable(REPLICA, slave_exec_mode="IDEMPOTENT"),
        "slave_exec_mode",
        Verdict.FAIL,
        "SET GLOBAL slave_exec_mode = 'STRICT'",
    ),
    "read only": (
        variable(REPLICA, read_only="ON"),
        "read_only",
        Verdict.FAIL,
        "SET GLOBAL read_only = OFF",
    ),
    "careless": (
        variable(REPLICA, innodb_flush_log_at_trx_commit="2"),
        "durability",
        Verdict.WARN,
        "innodb_flush_log_at_trx_commit = 1",
    ),
    "may not apply": (
        without(REPLICA, "BINLOG REPLAY"),
        "privilege BINLOG REPLAY",
        Verdict.FAIL,
        "GRANT BINLOG REPLAY ON *.* TO 'writer'@'%';",
    ),
    "may not create": (
        without(REPLICA, "ALL PRIVILEGES"),
        "privileges on the database",
        Verdict.FAIL,
        r"GRANT ALL PRIVILEGES ON `opendental\_replication`.* TO 'writer'@'%';",
    ),
}
ANALYTICS_FAULTS: dict[str, tuple[PostgresFacts, str, Verdict, str]] = {
    "old": (replace(ANALYTICS, version=120009), "version", Verdict.FAIL, "pg_upgrade"),
    "encoding": (
        replace(ANALYTICS, encoding="LATIN1"),
        "encoding",
        Verdict.FAIL,
        "ENCODING 'UTF8'",
    ),
    "no schema": (
        replace(
            ANALYTICS, schema_exists=False, may_create_in_schema=False, may_create_schema=False
        ),
        "schema raw",
        Verdict.FAIL,
        'CREATE SCHEMA "raw" AUTHORIZATION "writer";',
    ),
    "another's schema": (
        replace(ANALYTICS, may_create_in_schema=False),
        "schema raw",
        Verdict.FAIL,
        'ALTER SCHEMA "raw" OWNER TO "writer";',
    ),
    "superuser": (
        replace(ANALYTICS, superuser=True),
        "too many privileges",
        Verdict.WARN,
        'ALTER ROLE "writer" NOSUPERUSER;',
    ),
    "standby": (replace(ANALYTICS, read_only=True), "writable", Verdict.FAIL, "primary"),
    "no fsync": (
        replace(ANALYTICS, settings={"fsync": "off"}),
        "durability",
        Verdict.WARN,
        "ALTER SYSTEM RESET fsync",
    ),
    "bare connection": (
        replace(ANALYTICS, encrypted=False),
        "TLS",
        Verdict.WARN,
        "POSTGRES_ANALYTICS_SSL_MODE=verify-full",
    ),
}


def _only(findings: list[Finding], wanted: tuple[Any, str, Verdict, str]) -> None:
    _, check, verdict, remedy = wanted
    wrong = [f for f in findings if f.verdict is not Verdict.OK]
    assert [(f.check, f.verdict) for f in wrong] == [(check, verdict)]
    assert remedy in wrong[0].remedy
    assert wrong[0].needed


def cases(faults: dict[str, Any]) -> Callable[[Any], Any]:
    return pytest.mark.parametrize("fault", faults.values(), ids=faults)


@cases(SOURCE_FAULTS)
def test_a_fault_of_the_source(settings: Settings, fault: Any) -> None:
    _only(of_source(settings, fault[0]), fault)


@cases(REPLICA_FAULTS)
def test_a_fault_of_the_replica(settings: Settings, fault: Any) -> None:
    _only(of_replica(settings, fault[0]), fault)


@cases(ANALYTICS_FAULTS)
def test_a_fault_of_the_analytics_server(settings: Settings, fault: Any) -> None:
    _only(of_analytics(settings, fault[0]), fault)


def test_a_schema_that_can_be_created_is_fine(settings: Settings) -> None:
    facts = replace(ANALYTICS, schema_exists=False, may_create_in_schema=False)
    assert worst(of_analytics(settings, facts)) is Verdict.OK


def test_an_installation_without_compiled_modules_is_told_to_be_slow() -> None:
    assert kernel_finding([]).verdict is Verdict.OK
    found = kernel_finding(["loader.kernel"])
    assert found.verdict is Verdict.WARN
    assert "loader.kernel" in found.found
    assert "slowly" in found.found
    assert "compiler" in found.remedy


def test_every_module_in_cython_is_asked_for() -> None:
    root = Path(__file__).parents[4]
    sources = [
        path for package in ("loader", "replicator") for path in (root / package).rglob("*.pyx")
    ]
    assert sorted(".".join(p.relative_to(root).with_suffix("").parts) for p in sources) == [
        *COMPILED
    ]


def test_grants_of_several_lines_add_up() -> None:
    found = parse_grants(
        [
            "GRANT SELECT (`a`, `b`), LOCK TABLES ON `od`.`t` TO `u`@`%`",
            "GRANT USAGE ON *.* TO `u`@`%`",
            "GRANT INSERT ON `od`.`t` TO `u`@`%`",
            "GRANT `role` TO `u`@`%`",
        ]
    )
    assert found == {"`od`.`t`": {"SELECT", "LOCK TABLES", "INSERT"}, "*.*": {"USAGE"}}


@pytest.mark.parametrize(
    ("version", "image"),
    [("9.7.4", "MINIMAL"), ("9.7.4", "NOBLOB"), ("11.8.2-MariaDB", "FULL_NODUP")],
)
def test_parts_of_rows_that_hold_all_that_changed_are_as_good_as_whole_ones(
    settings: Settings, version: str, image: str
) -> None:
    facts = replace(variable(SOURCE, binlog_row_image=image), identity=Identity(1, "", version))
    (found,) = (f for f in of_source(settings, facts) if f.check == "binlog_row_image")
    assert (found.verdict, found.found) == (Verdict.OK, image)

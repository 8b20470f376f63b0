"""Each fault, planted in otherwise sound facts, is found and told with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.privacy import Mask, PrivacyRules, Rule
from config.settings import Settings, load_settings
from config.tables import TableRules
from replicator.cli.doctor import Finding, Verdict, worst
from replicator.cli.doctor.analytics import analytics_findings
from replicator.cli.doctor.facts import (
    MySQLFacts,
    OpenDental,
    Standing,
    TableFacts,
)
from replicator.cli.doctor.facts_analytics import PostgresFacts
from replicator.cli.doctor.finding import Mend
from replicator.cli.doctor.held import Held, parse_grants, roles_in, united
from replicator.cli.doctor.here import COMPILED, kernel_finding
from replicator.cli.doctor.privacy import privacy_findings
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
        "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, INDEX, ALTER"
        r" ON `opendental\_replication`.* TO `writer`@`%`",
    ]
)
LOGGING = {
    "log_bin": "ON",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_checksum": "CRC32",
    "binlog_expire_logs_seconds": "604800",
    "sync_binlog": "1",
}
DAY = 86_400.0
SOURCE = MySQLFacts(
    Identity(1, "", "10.11.6-MariaDB"),
    "'reader'@'%'",
    LOGGING,
    Held(SOURCE_GRANTS),
    skew_seconds=0.1,
    encrypted=True,
    databases=("information_schema", "open_dental"),
    tables=(TableFacts("patient", "MyISAM", 4096, True, False),),
    opendental=OpenDental("24.1.1.0", "24.1.0.0"),
    binlog_files=("mysql-bin.000007", "mysql-bin.000008", "mysql-bin.000009"),
    binlog_bytes=7_000_000,
    binlog_age_seconds=7 * DAY,
    disk_free_bytes=10_000_000,
    collations=frozenset({"utf8mb3_general_ci"}),
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
    Held(REPLICA_GRANTS),
    skew_seconds=0.0,
    encrypted=True,
    databases=(),
    disk_free_bytes=10_000_000,
    collations=frozenset({"utf8mb3_general_ci", "utf8mb4_general_ci"}),
    standing=Standing("mysql-bin.000009", 1.0),
)
ANALYTICS = PostgresFacts(
    version=150004,
    account="writer",
    encoding="UTF8",
    may_create_schema=True,
    schema_exists=True,
    may_create_in_schema=True,
    superuser=False,
    encrypted=True,
    read_only=False,
    may_make_temporary=True,
    raw_bytes=7_000_000,
    skew_seconds=0.0,
    settings={"fsync": "on"},
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    environ = {
        "OPENDENTAL_SOURCE_HOST": "practice.example",
        "OPENDENTAL_SOURCE_DB": "open_dental",
        "OPENDENTAL_SOURCE_USER": "reader",
        "OPENDENTAL_SOURCE_PASSWORD": "x",
        "OPENDENTAL_SOURCE_SSL_MODE": "verify_identity",
        "MYSQL_REPLICATION_HOST": "127.0.0.1",
        "MYSQL_REPLICATION_PORT": "3305",
        "MYSQL_REPLICATION_DB": "opendental_replication",
        "MYSQL_REPLICATION_USER": "writer",
        "MYSQL_REPLICATION_PASSWORD": "x",
        "POSTGRES_ANALYTICS_HOST": "warehouse.example",
        "POSTGRES_ANALYTICS_DB": "opendental_analytics",
        "POSTGRES_ANALYTICS_USER": "writer",
        "POSTGRES_ANALYTICS_PASSWORD": "x",
        "POSTGRES_ANALYTICS_SSL_MODE": "verify-full",
    }
    (tmp_path / "env").touch()
    return load_settings(tmp_path / "env", environ)


def of_source(settings: Settings, facts: MySQLFacts) -> list[Finding]:
    return list(source_findings(facts, settings, TableRules(), REPLICA))


def of_replica(settings: Settings, facts: MySQLFacts) -> list[Finding]:
    return list(replica_findings(facts, settings, SOURCE, TableRules()))


def of_analytics(settings: Settings, facts: PostgresFacts) -> list[Finding]:
    return list(analytics_findings(facts, settings, 4096))


def variable(facts: MySQLFacts, **values: str) -> MySQLFacts:
    return replace(facts, variables={**facts.variables, **values})


def without(facts: MySQLFacts, privilege: str) -> MySQLFacts:
    active = {scope: held - {privilege} for scope, held in facts.held.active.items()}
    return replace(facts, held=Held(active))


def test_sound_servers_are_all_ok(settings: Settings) -> None:
    findings = [
        *of_source(settings, SOURCE),
        *of_replica(settings, REPLICA),
        *of_analytics(settings, ANALYTICS),
    ]
    assert [f for f in findings if f.verdict is not Verdict.OK] == []
    assert worst(findings) is Verdict.OK


KEYLESS = TableFacts("screen", "MyISAM", 0, False, False)
FOREIGN = TableFacts("child", "InnoDB", 0, True, True, ("of_parent",))
FLEETING = TableFacts("board", "MEMORY", 0, True, False)
TOO_MANY = {"*.*": frozenset({"ALL PRIVILEGES", "GRANT OPTION"})}

OF_MYSQL = replace(
    SOURCE,
    identity=replace(SOURCE.identity, version="8.4.2"),
    held=Held(
        {
            "*.*": frozenset({"REPLICATION SLAVE", "REPLICATION CLIENT"}),
            r"`open\_dental`.*": frozenset({"SELECT"}),
        }
    ),
)
FILE = {"*.*": frozenset({"FILE"})}
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
        r"GRANT SELECT ON `open\_dental`.* TO 'reader'@'%';",
    ),
    "may write": (
        replace(SOURCE, held=Held(TOO_MANY)),
        "too many privileges",
        Verdict.WARN,
        "REVOKE ALL PRIVILEGES, GRANT OPTION FROM 'reader'@'%';",
    ),
    "may write files by a role that it may take": (
        replace(SOURCE, held=Held(SOURCE_GRANTS, FILE, roles=("`clerk`",))),
        "too many privileges",
        Verdict.WARN,
        "REVOKE `clerk` FROM 'reader'@'%'; REVOKE ALL PRIVILEGES, GRANT OPTION",
    ),
    "may write files as everybody may": (
        replace(SOURCE, held=Held(united(SOURCE_GRANTS, FILE), by_public=FILE)),
        "too many privileges",
        Verdict.WARN,
        "see first who else rests on it. REVOKE FILE ON *.* FROM PUBLIC;",
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
        "tables that need a lock",
        Verdict.WARN,
        "REPLICATOR_COPY_LOCK=short",
    ),
    "foreign key": (
        replace(SOURCE, tables=(*SOURCE.tables, FOREIGN)),
        "foreign keys",
        Verdict.FAIL,
        "ALTER TABLE `open_dental`.`child` DROP FOREIGN KEY `of_parent`;",
    ),
    "fleeting engine": (
        replace(SOURCE, tables=(*SOURCE.tables, FLEETING)),
        "engines",
        Verdict.WARN,
        "ALTER TABLE `open_dental`.`board` ENGINE=InnoDB;",
    ),
    "careless binlog": (
        variable(SOURCE, sync_binlog="0"),
        "sync_binlog",
        Verdict.WARN,
        "SET GLOBAL sync_binlog = 1",
    ),
    "ancient": (
        replace(OF_MYSQL, identity=replace(SOURCE.identity, version="5.1.73")),
        "version",
        Verdict.FAIL,
        "Upgrade",
    ),
    "GTIDs half way": (
        variable(OF_MYSQL, gtid_mode="OFF_PERMISSIVE"),
        "GTID",
        Verdict.WARN,
        "SET GLOBAL gtid_mode = ON_PERMISSIVE; SET GLOBAL gtid_mode = ON;",
    ),
    "binlogs that fill the disk": (
        replace(SOURCE, binlog_bytes=50_000_000, binlog_age_seconds=DAY),
        "binlog growth",
        Verdict.WARN,
        "SET GLOBAL binlog_expire_logs_seconds = 14400;",
    ),
    "unknown collation": (
        replace(SOURCE, collations=frozenset({"utf8mb4_uca1400_ai_ci"})),
        "charset",
        Verdict.FAIL,
        "Upgrade the replica",
    ),
    "an update under way": (
        replace(SOURCE, opendental=OpenDental("24.1.1.0", "24.1.0.0", updating=True)),
        "OpenDental's update",
        Verdict.WARN,
        "UpdateInProgressOnComputerName",
    ),
    "not OpenDental": (
        replace(SOURCE, opendental=None),
        "OpenDental",
        Verdict.WARN,
        "OPENDENTAL_SOURCE_DB",
    ),
    "backup databases": (
        replace(SOURCE, databases=(*SOURCE.databases, "open_dentalbackup_11_01_2026")),
        "backup databases",
        Verdict.WARN,
        "DROP DATABASE `open_dentalbackup_11_01_2026`;",
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
        Verdict.FAIL,
        "Upgrade",
    ),
    "older within a series": (
        replace(REPLICA, identity=Identity(2, "", "10.11.5-MariaDB")),
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
    "binlogs for so many bytes": (
        variable(REPLICA, max_binlog_total_size="1073741824"),
        "max_binlog_total_size",
        Verdict.WARN,
        "SET GLOBAL max_binlog_total_size = 0",
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
        without(REPLICA, "CREATE"),
        "privilege CREATE",
        Verdict.FAIL,
        r"GRANT CREATE ON `opendental\_replication`.* TO 'writer'@'%';",
    ),
    "may do anything": (
        replace(REPLICA, held=Held(REPLICA_GRANTS | TOO_MANY)),
        "too many privileges",
        Verdict.WARN,
        "REVOKE ALL PRIVILEGES, GRANT OPTION FROM 'writer'@'%'; GRANT BINLOG REPLAY",
    ),
    "no room": (
        replace(REPLICA, disk_free_bytes=4096),
        "room for the copy",
        Verdict.FAIL,
        "more room",
    ),
    "no checksums": (
        variable(REPLICA, binlog_checksum="NONE"),
        "binlog_checksum",
        Verdict.WARN,
        "SET GLOBAL binlog_checksum = 'CRC32'",
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
        'GRANT CREATE ON DATABASE "opendental_analytics" TO "writer";',
    ),
    "another's schema": (
        replace(ANALYTICS, may_create_in_schema=False),
        "schema raw",
        Verdict.FAIL,
        'ALTER SCHEMA "raw" OWNER TO "writer";',
    ),
    "no temporary tables": (
        replace(ANALYTICS, may_make_temporary=False),
        "privilege TEMPORARY",
        Verdict.FAIL,
        'GRANT TEMPORARY ON DATABASE "opendental_analytics" TO "writer";',
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
    "no room": (
        replace(ANALYTICS, raw_bytes=0, disk_free_bytes=4096),
        "room for the copy",
        Verdict.FAIL,
        "more room",
    ),
    "room that cannot be seen": (
        replace(ANALYTICS, raw_bytes=0),
        "room for the copy",
        Verdict.WARN,
        "Look on its machine: df -h",
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


def test_what_a_role_would_give_is_not_held_and_that_is_said(settings: Settings) -> None:
    asleep = {"*.*": frozenset({"REPLICATION SLAVE"})}
    facts = without(SOURCE, "REPLICATION SLAVE")
    facts = replace(facts, held=Held(facts.held.active, asleep, roles=("`clerk`",)))
    (found,) = [f for f in of_source(settings, facts) if f.check == "privilege REPLICATION SLAVE"]
    assert found.verdict is Verdict.FAIL
    assert found.found == "only by a role that is not active at login: cannot read the binlog"
    assert found.sql == ("GRANT REPLICATION SLAVE ON *.* TO 'reader'@'%';",)


@pytest.mark.parametrize(
    ("line", "roles"),
    [
        ("GRANT `reader` TO `u`@`%`", ["`reader`"]),
        ("GRANT `a`@`%`,`b, c`@`localhost` TO `u`@`%`", ["`a`@`%`", "`b, c`@`localhost`"]),
        ("GRANT `it``s` TO `u`@`%` WITH ADMIN OPTION", ["`it``s`"]),
        ("GRANT SELECT ON `role`.* TO `u`@`%`", []),
        ("GRANT USAGE ON *.* TO `u`@`%`", []),
        ("SET DEFAULT ROLE `reader` FOR `u`@`%`", []),
    ],
)
def test_the_roles_that_a_line_grants(line: str, roles: list[str]) -> None:
    assert roles_in(line) == roles


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


@pytest.mark.parametrize(
    ("standing", "verdict", "told"),
    [
        (Standing("mysql-bin.000009", 30 * DAY), Verdict.OK, "stands in mysql-bin.000009"),
        (Standing("mysql-bin.000008", DAY), Verdict.OK, "stands in mysql-bin.000008"),
        (Standing("mysql-bin.000008", 4 * DAY), Verdict.WARN, "96.0 hours behind"),
        (Standing("mysql-bin.000003", DAY), Verdict.FAIL, "no longer has"),
    ],
    ids=["idle", "near", "far behind", "purged"],
)
def test_how_far_the_replicator_is_behind_is_held_against_the_retention(
    settings: Settings, standing: Standing, verdict: Verdict, told: str
) -> None:
    replica = replace(REPLICA, standing=standing)
    found = source_findings(SOURCE, settings, TableRules(), replica)
    (position,) = (f for f in found if f.check == "position")
    assert position.verdict is verdict
    assert told in position.found


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("10.5.8-MariaDB", "expire_logs_days=7"),
        ("10.6.1-MariaDB", "binlog_expire_logs_seconds=604800"),
        ("5.7.44", "expire_logs_days=7"),
        ("8.0.36", "binlog_expire_logs_seconds=604800"),
    ],
)
def test_the_line_that_keeps_binlogs_is_one_that_the_server_knows(
    settings: Settings, version: str, line: str
) -> None:
    facts = variable(
        replace(SOURCE, identity=Identity(1, "", version)), binlog_expire_logs_seconds="60"
    )
    (found,) = (f for f in of_source(settings, facts) if f.check == "binlog retention")
    assert found.my_cnf == (line,)


def test_a_certificate_that_nobody_looks_at_is_told(settings: Settings) -> None:
    trusting = settings.model_copy(
        update={"source": settings.source.model_copy(update={"ssl_mode": "required"})}
    )
    (found,) = (f for f in of_source(trusting, SOURCE) if f.check == "TLS")
    assert found.verdict is Verdict.WARN
    assert "nobody looks whose certificate" in found.found


def test_a_remedy_says_in_one_piece_what_its_lines_say() -> None:
    mend = Mend("First:", sql=("A;", "B;"), my_cnf=("a=1", "b=2"), settings=("X=1",))
    assert str(mend) == "First: A; B; in my.cnf, section [mysqld]: a=1, b=2 Set X=1"
    assert str(Mend(my_cnf=("a=1",))) == "In my.cnf, [mysqld], then restart: a=1"


# --- privacy -----------------------------------------------------------------------------------

PATIENT = TableFacts(
    "patient",
    "MyISAM",
    4096,
    True,
    False,
    columns={"PatNum": "bigint", "LName": "varchar", "Birthdate": "date",
             "PhoneType": "tinyint", "BillingType": "bigint", "AddrNote": "text"},
)  # fmt: skip


def _privacy(*rules: Rule) -> dict[str, Finding]:
    facts = replace(SOURCE, tables=(PATIENT,))
    made = TableRules(privacy=PrivacyRules(rules))
    return {found.check: found for found in privacy_findings(facts, made, "source")}


def test_without_rules_the_columns_that_look_like_patient_data_are_counted() -> None:
    found = _privacy()
    assert found["masked columns"].verdict is Verdict.OK
    assert "3 columns look like patient data" in found["masked columns"].found


def test_columns_on_which_no_rule_has_an_opinion_are_listed() -> None:
    found = _privacy(
        Rule("patient", "LName", Mask("redact")),
        Rule("patient", "Birth*", None),
        Rule("patient", "SNN", Mask("drop")),
    )
    bare = found["unmasked columns that look like patient data"]
    assert (bare.verdict, bare.found) == (Verdict.WARN, "patient.AddrNote")
    assert found["masked columns"].found == "1"
    assert "[mask.patient] SNN" in found["masks"].found


def test_rules_with_an_opinion_on_everything_leave_nothing_to_say() -> None:
    found = _privacy(Rule("*", "*", None))
    assert list(found) == ["masked columns"]

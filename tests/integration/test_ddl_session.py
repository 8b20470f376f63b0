"""Schema changes, read from a real binlog and run on a real replica, leave equal tables.

The oracle is the server's own SHOW CREATE TABLE, and SELECT for rows that both
sides were given alike before they were altered.
"""

from __future__ import annotations

import re
from contextlib import closing, suppress
from typing import Any

import pymysql
import pytest

from replicator.binlog.ddl import Execute, RowStatement, Skip, TransactionControl
from replicator.binlog.events import EventType, event_end, parse_query
from replicator.binlog.position import SourcePosition
from replicator.binlog.stream import BinlogStream
from replicator.ddl_session import (
    SessionContext,
    decide_query,
    reset_statements,
    session_statements,
    statement_bytes,
)
from replicator.sandbox.databases import MySQLDatabase
from tests.fix_servers import family

BOTH = "BOTH "
"""Before a statement: rows that the replica gets too, as row events would bring them."""
MARIADB, MYSQL = "mariadb: ", "mysql: "
"""Before a statement: only this family has it, or spells it so."""

SCENARIOS: dict[str, list[str]] = {
    "columns": [
        "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20) DEFAULT 'it''s', b INT) ENGINE=MyISAM",
        BOTH + "INSERT INTO t VALUES (1, 'x', 2), (2, NULL, -1)",
        "ALTER TABLE t ADD COLUMN c DATETIME(3) NOT NULL DEFAULT '2020-01-01' AFTER id, ADD d INT "
        "FIRST",
        "ALTER TABLE {db}.t MODIFY b BIGINT UNSIGNED NULL COMMENT '{db}.t ENGINE=MyISAM'",
        "alter table `{db}` . `t` change a `{db}` char(30) character set latin1, rename column d "
        "to `d``e`",
        MARIADB + "ALTER TABLE t ADD g INT AS (b + 1) PERSISTENT, ADD v INT AS (b * 2) VIRTUAL",
        MYSQL + "ALTER TABLE t ADD g INT AS (b + 1) STORED, ADD v INT AS (b * 2) VIRTUAL",
        "ALTER TABLE t ADD i INT INVISIBLE DEFAULT 5, ADD ts TIMESTAMP NOT NULL DEFAULT "
        "CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, DROP COLUMN c",
        "ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, COMMENT = 'é 😀'",
        "ALTER TABLE t ALTER b SET DEFAULT 7, ADD CONSTRAINT positive CHECK (t.b > -5)",
        "ALTER TABLE t ENGINE=MyISAM",
    ],
    "keys": [
        MARIADB + "CREATE TABLE t (a INT, b VARCHAR(300), c TEXT, KEY engine (a)) ENGINE=Aria",
        MYSQL + "CREATE TABLE t (a INT, b VARCHAR(300), c TEXT, KEY engine (a)) ENGINE=MyISAM",
        "CREATE UNIQUE INDEX i USING BTREE ON {db}.t (a, b(50)) COMMENT 'x'",
        "ALTER TABLE t ADD PRIMARY KEY (a), ADD FULLTEXT f (c), RENAME KEY i TO j",
        MARIADB + "CREATE INDEX IF NOT EXISTS k ON t (b(10)) ALGORITHM=COPY LOCK=SHARED",
        MYSQL + "CREATE INDEX k ON t (b(10)) ALGORITHM=COPY LOCK=SHARED",
        "DROP INDEX j ON `{db}`.`t`",
        "ALTER TABLE t DROP KEY engine, ALGORITHM=COPY, LOCK=EXCLUSIVE",
        "/*!40000 ALTER TABLE `t` DISABLE KEYS */",
    ],
    "create, copy, drop": [
        "CREATE TABLE IF NOT EXISTS `a b.c``d` (`x``y` INT) ENGINE=MyISAM",
        "CREATE TABLE `é表` LIKE `a b.c``d`",
        MARIADB + "CREATE OR REPLACE TABLE `é表` (LIKE {db}.`a b.c``d`)",
        MYSQL + "CREATE TABLE IF NOT EXISTS `é表` (LIKE {db}.`a b.c``d`)",
        "CREATE TABLE `{db}` (`{db}` INT, CHECK (`{db}`.`{db}` <> 3), b INT AS "
        "(`{db}`.`{db}`.`{db}` + 1))",
        "CREATE TABLE u (a INT); ",
        "CREATE TABLE selected (k INT KEY) SELECT 1 AS a, 'é' AS b LIMIT 0",
        "DROP TABLE `{db}`.u, `a b.c``d`",
        "CREATE TABLE never (a INT)",
        "DROP TABLE IF EXISTS never, absent /* a comment */ CASCADE",
    ],
    "rename": [
        "CREATE TABLE a (x INT)",
        "CREATE TABLE b (y INT)",
        "RENAME TABLE a TO swap, {db}.b TO a, swap TO b",
        "ALTER TABLE a RENAME TO {db}.c",
        "RENAME TABLE c TO tempConv_c1",
        "CREATE TABLE c LIKE tempConv_c1",
        "ALTER TABLE c MODIFY y BIGINT, RENAME AS d",
        "DROP TABLE tempConv_c1",
    ],
    "elsewhere": [
        "CREATE TABLE t (a INT)",
        "CREATE TABLE u (a INT)",
        "CREATE DATABASE {db}_backup",
        "CREATE TABLE {db}_backup.t SELECT * FROM {db}.t",
        "CREATE VIEW {db}.v AS SELECT * FROM t",
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1",
        "CREATE PROCEDURE p() BEGIN SELECT 1; END",
        "CREATE TEMPORARY TABLE temporary_one (a INT)",
        "DROP TABLE temporary_one, {db}_backup.t, u",
        "DROP DATABASE {db}_backup",
        "USE mysql",
        "ALTER TABLE {db}.t ADD b INT",
        "DROP TRIGGER {db}.g",
        "DROP VIEW {db}.v",
        "ANALYZE TABLE {db}.t",
    ],
    "partitions": [
        MARIADB
        + "CREATE TABLE p (a INT) ENGINE=MyISAM PARTITION BY RANGE (a) (PARTITION engine VALUES "
        "LESS THAN (5) ENGINE = MyISAM, PARTITION r VALUES LESS THAN MAXVALUE ENGINE = MyISAM)",
        MYSQL
        + "CREATE TABLE p (a INT) ENGINE=InnoDB PARTITION BY RANGE (a) (PARTITION engine VALUES "
        "LESS THAN (5) ENGINE = InnoDB, PARTITION r VALUES LESS THAN MAXVALUE ENGINE = InnoDB)",
        BOTH + "INSERT INTO p VALUES (1), (6)",
        MARIADB + "CREATE TABLE x (a INT) ENGINE=MyISAM",
        MYSQL + "CREATE TABLE x (a INT) ENGINE=InnoDB",
        "ALTER TABLE p EXCHANGE PARTITION engine WITH TABLE {db}.x",
        MARIADB
        + "ALTER TABLE p REORGANIZE PARTITION r INTO (PARTITION m VALUES LESS THAN (9) ENGINE "
        "MyISAM, PARTITION r VALUES LESS THAN MAXVALUE)",
        MYSQL
        + "ALTER TABLE p REORGANIZE PARTITION r INTO (PARTITION m VALUES LESS THAN (9) ENGINE "
        "InnoDB, PARTITION r VALUES LESS THAN MAXVALUE)",
        "ALTER TABLE p DROP PARTITION m",
        MARIADB + "ALTER TABLE p CONVERT PARTITION engine TO TABLE {db}.split",
        MYSQL + "ALTER TABLE p TRUNCATE PARTITION r",
    ],
    "foreign keys": [
        "SET default_storage_engine=InnoDB",
        "CREATE TABLE p (a INT PRIMARY KEY) ENGINE=InnoDB",
        "CREATE TABLE c (a INT, CONSTRAINT f FOREIGN KEY (a) REFERENCES {db}.p (a) ON DELETE "
        "RESTRICT) ENGINE=InnoDB",
        "SET foreign_key_checks=0",
        "CREATE TABLE d (a INT, FOREIGN KEY (a) REFERENCES later (a)) ENGINE=InnoDB",
        "CREATE TABLE m (a INT, b INT REFERENCES p (a), CONSTRAINT n FOREIGN KEY (a) REFERENCES "
        "p (a) ON DELETE SET NULL, FOREIGN KEY k (b) REFERENCES p (a)) ENGINE=MyISAM",
    ],
    "session": [
        "SET sql_mode='ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'",
        """CREATE TABLE "{db}"."q" ("a" VARCHAR(9) DEFAULT 'b\\', c INT DEFAULT 1)""",
        "SET sql_mode='NO_ZERO_DATE,STRICT_ALL_TABLES'",
        "SET explicit_defaults_for_timestamp=0",
        "CREATE TABLE ts (a TIMESTAMP, b TIMESTAMP(6) NULL)",
        "SET sql_mode='', time_zone='+05:30', timestamp=1700000000.654321",
        BOTH + "INSERT INTO ts VALUES ('2024-03-31 02:30:00', '2024-10-27 01:30:00')",
        "ALTER TABLE ts MODIFY a DATETIME, ADD c DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6), ADD d "
        "VARCHAR(20) DEFAULT (DATE_FORMAT(NOW(), '%M'))",
        "SET lc_time_names='de_DE'",
        "ALTER TABLE ts ADD e TIMESTAMP NOT NULL DEFAULT '2024-01-01 00:00:00'",
        "SET NAMES latin1 COLLATE latin1_german2_ci",
        "CREATE TABLE `ä` (`ö` VARCHAR(5) DEFAULT 'ü€', CHECK (`ö` <> 'ß')) COMMENT 'ÄÖÜ'",
        "SET NAMES utf8mb3, collation_connection=utf8mb3_bin, collation_server=latin2_bin",
        "CREATE TABLE `ж` (a ENUM('ж', 'я'), b SET('é') CHARACTER SET latin1) COMMENT 'ж'",
        "SET NAMES sjis",
        "CREATE TABLE s (a VARCHAR(9) DEFAULT 'ソ表' COMMENT 'ソ') DEFAULT CHARSET sjis",
        "SET NAMES utf8mb4, unique_checks=0, auto_increment_increment=7",
        MARIADB + "SET check_constraint_checks=0",
        "CREATE TABLE z (id INT AUTO_INCREMENT PRIMARY KEY, d DATE DEFAULT '0000-00-00')",
        MARIADB + "SET STATEMENT max_statement_time=100 FOR ALTER TABLE z ADD b INT",
        MARIADB + "SET sql_if_exists=1",
        MYSQL + "SET default_collation_for_utf8mb4=utf8mb4_general_ci",
        MYSQL + "CREATE TABLE g (a TEXT CHARACTER SET utf8mb4) CHARSET utf8mb4",
        "DROP TABLE z",
    ],
    "what only mysql has": [
        MYSQL + "SET default_storage_engine=InnoDB",
        MYSQL + "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20), j JSON, g POINT SRID 4326,"
        " u VARCHAR(9) CHARACTER SET latin1, v VECTOR(3), d JSON DEFAULT (JSON_ARRAY(1, 'x')))",
        BOTH + MYSQL + "INSERT INTO t (id, a, j) VALUES (1, 'x', '[1, 2]'), (2, NULL, NULL)",
        MYSQL + "CREATE INDEX lower_a ON t ((LOWER(a)) DESC, u)",
        MYSQL + "CREATE INDEX many ON t ((CAST(j AS UNSIGNED ARRAY)))",
        MYSQL + "ALTER TABLE t ALTER INDEX lower_a INVISIBLE",
        MYSQL + "ALTER TABLE t ADD COLUMN b INT NOT NULL DEFAULT 7 FIRST, ALGORITHM=INSTANT",
        MYSQL + "ALTER TABLE t DROP COLUMN v, ALGORITHM=INSTANT",
        MYSQL + "ALTER TABLE t ALTER COLUMN a SET INVISIBLE, ALTER COLUMN b SET DEFAULT (1 + 1)",
        MYSQL + "ALTER TABLE t ADD CONSTRAINT c CHECK (b > 0) NOT ENFORCED",
        MYSQL + "ALTER TABLE t ALTER CHECK c ENFORCED, RENAME INDEX lower_a TO lowered",
        MYSQL + "ANALYZE TABLE t UPDATE HISTOGRAM ON b WITH 4 BUCKETS",
        MYSQL + "CREATE ROLE IF NOT EXISTS analyst_of_{db}",
        MYSQL + "GRANT SELECT ON {db}.t TO analyst_of_{db}",
        MYSQL + "DROP ROLE analyst_of_{db}",
        MYSQL + "SET sql_generate_invisible_primary_key=ON",
        MYSQL + "CREATE TABLE hidden_key (a INT)",
        MYSQL + "SET sql_generate_invisible_primary_key=OFF, sql_require_primary_key=ON",
        MYSQL + "CREATE TABLE keyed (a INT PRIMARY KEY) TABLESPACE=innodb_file_per_table"
        " AUTOEXTEND_SIZE=4M",
        MYSQL + "CREATE TABLE copied LIKE keyed",
        MYSQL + "SET sql_require_primary_key=OFF, print_identified_with_as_hex=ON",
        MYSQL + "CREATE TABLE k (a INT, b INT AS (a + 1) STORED NOT NULL, PRIMARY KEY (b, a))",
        MYSQL + "ALTER TABLE k DROP PRIMARY KEY, ADD my_row_id BIGINT UNSIGNED NOT NULL"
        " AUTO_INCREMENT INVISIBLE PRIMARY KEY",
        MYSQL + "DROP TABLE copied, keyed",
    ],
    "versioned": [
        MARIADB + "CREATE TABLE v (a INT) WITH SYSTEM VERSIONING",
        MARIADB + "SET system_versioning_alter_history=KEEP",
        MARIADB + "ALTER TABLE v ADD b INT",
        MARIADB + "CREATE TABLE e (a INT) /*!50100 PARTITION BY HASH (a) PARTITIONS 2 */",
        MARIADB + "CREATE /*M!100100 OR REPLACE */ TABLE e (a /*!80000 JSON */ /*M! BIGINT */)",
        "CREATE TABLE f (a INT /*!50000 UNSIGNED */ /*! COMMENT 'c' */)",
        "TRUNCATE TABLE f",
        "TRUNCATE {db}.f",
    ],
    "other engines' options": [
        MARIADB
        + "CREATE TABLE a (a INT) ENGINE=Aria TRANSACTIONAL=1 PAGE_CHECKSUM=1 ROW_FORMAT=PAGE",
        "CREATE TABLE b (a INT, KEY (a)) ENGINE=MyISAM ROW_FORMAT=FIXED MIN_ROWS=5 MAX_ROWS=99 "
        "PACK_KEYS=1 DELAY_KEY_WRITE=1 CHECKSUM=1 AVG_ROW_LENGTH=7",
        "CREATE TABLE c (a INT NOT NULL) ENGINE=CSV",
        "CREATE TABLE d (a INT, KEY USING HASH (a), UNIQUE u (a) USING BTREE) ENGINE=MEMORY",
        "CREATE TABLE e (g GEOMETRY NOT NULL, SPATIAL KEY (g), t TEXT, FULLTEXT (t)) ENGINE=MyISAM",
        "CREATE TABLE m (a INT, KEY (a)) ENGINE=MRG_MyISAM UNION=({db}.b) INSERT_METHOD=LAST",
    ],
    "altered in two phases": [
        "CREATE TABLE t (a INT)",
        MARIADB + "SET binlog_alter_two_phase=1",
        "ALTER TABLE {db}.t ADD b INT, ADD KEY (b)",
    ],
    "the database's own charset": [
        "ALTER DATABASE {db} CHARACTER SET latin2",
        "CREATE TABLE t (a CHAR(3))",
        "ALTER DATABASE COLLATE utf8mb4_bin",
        "CREATE TABLE u (a CHAR(3))",
    ],
}


class Replica:
    """Runs what `decide` says on the replica, and remembers what else it said."""

    def __init__(self, source: MySQLDatabase, replica: MySQLDatabase) -> None:
        self.source, self.replica = source, replica
        version = _version(source)
        self.context = SessionContext(
            source_version=version,
            replica_version=_version(replica),
            collation_names=_collation_names(replica),
        )
        self.connection = replica.connect_as_account(charset="utf8mb4")
        self.verdicts: list[Any] = []

    def apply(self, event: bytes) -> None:
        query = parse_query(event)
        verdict = decide_query(
            query,
            self.context,
            source_db=self.source.name,
            replica_db=self.replica.name,
            carries=lambda table: not table.startswith("tempdash"),
            source_engine="MyISAM",
        )
        self.verdicts.append(verdict)
        if isinstance(verdict, Execute):
            self._run(session_statements(query, self.context))
            for sql in verdict.statements:
                self._run([statement_bytes(sql, query, self.context)])
            self._run(reset_statements(self.context))

    def _run(self, statements: list[Any]) -> None:
        for statement in statements:
            self.connection.query(statement)


def _version(database: MySQLDatabase) -> int:
    ((text,),) = database.query("SELECT VERSION()")
    major, minor, patch = re.findall(r"\d+", text)[:3]
    return int(major) * 10000 + int(minor) * 100 + int(patch)


def _collation_names(database: MySQLDatabase) -> dict[int, str]:
    """What MariaDB 11.2 and later need to know; others have nothing to tell."""
    if _version(database) < 110200:
        return {}
    view = "information_schema.collation_character_set_applicability"
    return dict(database.query(f"SELECT id, full_collation_name FROM {view}"))


def _position(database: MySQLDatabase) -> SourcePosition:
    file, offset = database.binlog_end()
    return SourcePosition(file, offset)


def _queries(source: MySQLDatabase, start: SourcePosition) -> list[bytes]:
    """The QUERY events between `start` and the binlog's present end."""
    end = _position(source).offset
    stream = BinlogStream(
        source.connect_as_account, server_id=4_000_000_123, heartbeat_seconds=5, name="source"
    )
    found: list[bytes] = []
    with closing(stream):
        stream.open(start)
        reached = start.offset
        while reached < end:
            for event in stream.read(timeout=10):
                reached = max(reached, event_end(event))
                if event[4] == EventType.QUERY:
                    found.append(event)
    return found


def _tables(database: MySQLDatabase) -> dict[str, tuple[str, Any]]:
    """Definition and rows of every table; the engine is the one thing that may differ."""
    found = {}
    with closing(database.connect(charset="utf8mb4")) as connection, connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute("SHOW FULL TABLES WHERE Table_type NOT LIKE '%VIEW'")
        for name, kind in cursor.fetchall():
            quoted = "`" + name.replace("`", "``") + "`"
            cursor.execute(f"SHOW CREATE TABLE {quoted}")
            ((_, definition),) = cursor.fetchall()
            rows: list[Any] = []
            if kind != "SEQUENCE":
                cursor.execute(f"SELECT * FROM {quoted}")
                rows = sorted(cursor.fetchall(), key=repr)
            found[_plain(name)] = (_plain(definition), rows)
    return found


def _plain(definition: str) -> str:
    definition = re.sub(r"ENGINE ?= ?\w+", "ENGINE", definition)
    definition = re.sub(r" (PAGE_CHECKSUM|AUTO_INCREMENT|INSERT_METHOD)=\w+", "", definition)
    definition = re.sub(r" UNION=\(.*\)", "", definition)
    if family() == "mysql":  # it shows what the engine made of these
        definition = re.sub(r" USING HASH| ROW_FORMAT=\w+", "", definition)
    return re.sub(r"opendental(_replication)?_\d+", "{db}", definition)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_schema_changes_arrive_as_the_source_made_them(
    scenario: str, source_db: MySQLDatabase, replica_db: MySQLDatabase
) -> None:
    replica_db.execute(f"ALTER DATABASE `{replica_db.name}` CHARACTER SET utf8mb3")
    start = _position(source_db)
    replica = Replica(source_db, replica_db)
    seen = 0
    with closing(source_db.connect(charset="utf8mb4")) as source, closing(replica.connection):
        for template in SCENARIOS[scenario]:
            both = template.startswith(BOTH)
            statement = _of_this_family(template.removeprefix(BOTH))
            if statement is None:
                continue
            statement = statement.replace("{db}", source_db.name)
            _run_on_source(source, statement)
            if both:
                seen += _follow(replica, start, seen)
                _insert_on_replica(source, replica_db, statement)
        _follow(replica, start, seen)
    assert _tables(replica_db) == _tables(source_db)
    expected = (Execute, Skip, TransactionControl)
    assert [v for v in replica.verdicts if not isinstance(v, expected)] == []


def _of_this_family(template: str) -> str | None:
    for mark in (MARIADB, MYSQL):
        if template.startswith(mark):
            return template.removeprefix(mark) if mark.startswith(family()) else None
    return template


def _run_on_source(source: Any, statement: str) -> None:
    """Send text in the character set that the session has now, as a client of that charset does."""
    source.query("SELECT @@character_set_client")
    ((charset,),) = source._result.rows
    codec = {"latin1": "cp1252", "sjis": "cp932"}.get(charset, "utf-8")
    source.query(statement.rstrip("; ").encode(codec))


def _insert_on_replica(source: Any, replica: MySQLDatabase, statement: str) -> None:
    source.query("SELECT @@time_zone, @@sql_mode")
    ((zone, mode),) = source._result.rows
    with closing(replica.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET time_zone = %s, sql_mode = %s", (zone, mode))
        cursor.execute(statement)


def _follow(replica: Replica, start: SourcePosition, seen: int) -> int:
    """Apply the QUERY events that came since `seen` of them; return how many."""
    events = _queries(replica.source, start)[seen:]
    for event in events:
        replica.apply(event)
    return len(events)


def test_the_session_is_neutral_again_after_a_change(
    source_db: MySQLDatabase, replica_db: MySQLDatabase
) -> None:
    start = _position(source_db)
    replica = Replica(source_db, replica_db)
    before = _variables(replica.connection)
    with closing(source_db.connect(charset="latin1")) as source:
        for statement in (
            "SET sql_mode='ANSI_QUOTES', time_zone='-09:30', foreign_key_checks=0, timestamp=99.5",
            "SET unique_checks=0, lc_time_names='fr_FR', auto_increment_increment=3",
            "SET collation_connection=latin1_bin, collation_server=ascii_bin",
            "SET sql_auto_is_null=1, collation_database=latin2_bin",
            MARIADB + "SET check_constraint_checks=0, sql_if_exists=1",
            MYSQL + "SET default_collation_for_utf8mb4=utf8mb4_general_ci",
            MYSQL + "SET sql_require_primary_key=ON, explicit_defaults_for_timestamp=OFF",
            "CREATE TABLE t (a TIMESTAMP DEFAULT NOW(), PRIMARY KEY (a))",
        ):
            if (of_ours := _of_this_family(statement)) is not None:
                source.query(of_ours)
    _follow(replica, start, 0)
    changed = dict(_variables(replica.connection) - before)
    replica.connection.close()
    assert changed == {}


def _variables(connection: Any) -> set[tuple[str, str]]:
    moving = (
        "timestamp",
        "last_gtid",
        "rand_seed1",
        "rand_seed2",
        "last_insert_id",
        "pseudo",
        "gtid_",
        "statement_id",
    )
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION VARIABLES")
        return {(n, v) for n, v in cursor.fetchall() if not n.startswith(moving)}


def test_a_tables_rows_that_only_the_source_knows_are_asked_for(
    source_db: MySQLDatabase, replica_db: MySQLDatabase
) -> None:
    start = _position(source_db)
    replica = Replica(source_db, replica_db)
    other = source_db.name + "_backup"
    for statement in (
        f"CREATE DATABASE {other}",
        f"CREATE TABLE {other}.t (a INT)",
        "CREATE TABLE u (a INT)",
        f"RENAME TABLE {other}.t TO t, u TO {other}.u",
        f"DROP DATABASE {other}",
    ):
        source_db.execute(statement)
    _follow(replica, start, 0)
    replica.connection.close()
    assert [v.needs_copy for v in replica.verdicts if isinstance(v, Execute)] == [(), ("t",)]
    assert replica_db.query("SHOW TABLES") == []


def test_a_change_that_failed_on_the_source_leaves_what_it_left_there(
    source_db: MySQLDatabase, replica_db: MySQLDatabase
) -> None:
    replica_db.execute(f"ALTER DATABASE `{replica_db.name}` CHARACTER SET utf8mb3")
    start = _position(source_db)
    replica = Replica(source_db, replica_db)
    replaces = "CREATE OR REPLACE" if family() == "mariadb" else "CREATE"
    for statement in (
        "CREATE TABLE t (a INT)",
        "CREATE TABLE u (a INT)",
        f"{replaces} TABLE t (a INT PRIMARY KEY) SELECT 1 AS a UNION ALL SELECT 1",
        "CREATE TABLE w (a INT PRIMARY KEY) SELECT 1 AS a UNION ALL SELECT 1",
        "DROP TABLE u, absent",
    ):
        with suppress(pymysql.MySQLError):
            source_db.execute(statement)
    _follow(replica, start, 0)
    replica.connection.close()
    left = _tables(source_db)
    assert left == _tables(replica_db)
    assert sorted(left) == ([] if family() == "mariadb" else ["t", "u"])  # MySQL takes all back


def test_statement_format_is_told_from_schema_changes(
    source_db: MySQLDatabase, replica_db: MySQLDatabase
) -> None:
    source_db.execute("CREATE TABLE t (a INT)")
    start = _position(source_db)
    replica = Replica(source_db, replica_db)
    with closing(source_db.connect()) as source:
        source.query("SET binlog_format = STATEMENT")
        source.query("INSERT INTO t VALUES (1)")
        source.query("UPDATE t SET a = 2")
    _follow(replica, start, 0)
    replica.connection.close()
    rows = [verdict for verdict in replica.verdicts if isinstance(verdict, RowStatement)]
    assert rows == [RowStatement("insert"), RowStatement("update")]


def test_a_change_that_the_replica_refuses_reaches_the_caller(
    source_db: MySQLDatabase, replica_db: MySQLDatabase
) -> None:
    source_db.execute("CREATE TABLE t (a INT)")
    start = _position(source_db)
    source_db.execute("ALTER TABLE t ADD b INT")
    replica = Replica(source_db, replica_db)
    with closing(replica.connection), pytest.raises(pymysql.MySQLError):
        _follow(replica, start, 0)

"""What a source may do to its tables: statements by kind, run as they are, on tables of a prefix.

Left: a prefix. Right: statements that make two tables with rows, and then those of one
scenario. In a statement `{t}` and `{u}` stand for those tables, `{p}` for the prefix
that any other table's name begins with. Half of the scenarios change rows between and after
the schema changes, so that a table map follows; the others leave the catalog alone to tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SETUP = (
    "CREATE TABLE {t} (id INT PRIMARY KEY, v VARCHAR(20) NOT NULL DEFAULT 'v', n INT,"
    " at DATETIME, KEY by_v (v)) ENGINE=InnoDB",
    "CREATE TABLE {u} (id INT PRIMARY KEY, v VARCHAR(20) NOT NULL DEFAULT 'v', n INT,"
    " at DATETIME, KEY by_v (v)) ENGINE=InnoDB",
    "INSERT INTO {t} VALUES (1, 'one', 1, '2020-01-01'), (2, 'two', NULL, NULL), (3, 'ü', 3, NULL)",
    "INSERT INTO {u} VALUES (1, 'u', 10, NULL), (9, 'nine', 90, '2020-02-29 12:00:00')",
)
PARTS = (
    "CREATE TABLE {p}parts (id INT NOT NULL, n INT, PRIMARY KEY (id)) ENGINE=InnoDB"
    " PARTITION BY RANGE (id) (PARTITION low VALUES LESS THAN (10), PARTITION mid VALUES LESS"
    " THAN (20), PARTITION rest VALUES LESS THAN MAXVALUE)",
    "INSERT INTO {p}parts VALUES (1, 1), (5, 5), (11, 11), (15, 15), (21, 21), (100, 100)",
)
TOUCH = "UPDATE {t} SET v = CONCAT(v, '!') WHERE id < 3"


@dataclass(frozen=True)
class Scenario:
    """Statements of one connection, in order. `family`: the only one that knows them."""

    statements: tuple[str, ...]
    family: str | None = None
    made: tuple[str, ...] = ()
    """What stands before the loader's and the replicator's first look, beside SETUP."""

    def before(self) -> Iterator[str]:
        yield from (*SETUP, *self.made)


def _(*statements: str, family: str | None = None, made: tuple[str, ...] = ()) -> Scenario:
    return Scenario(statements, family, made)


COLUMNS = {
    "add": _("ALTER TABLE {t} ADD COLUMN c INT NOT NULL DEFAULT 5", TOUCH),
    "add first and after": _(
        "ALTER TABLE {t} ADD a BIGINT FIRST, ADD b TEXT AFTER id, ADD (c DATE, d TIME)"
    ),
    "add with a default of now": _(
        "ALTER TABLE {t} ADD made DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)"
        " ON UPDATE CURRENT_TIMESTAMP(3)",
        TOUCH,
    ),
    "add an expression": _("ALTER TABLE {t} ADD w VARCHAR(40) DEFAULT (CONCAT('x', 'y'))", TOUCH),
    "add a random one": _(
        "ALTER TABLE {t} ADD w CHAR(36) DEFAULT (UUID())", TOUCH, family="mariadb"
    ),
    "add generated": _(
        "ALTER TABLE {t} ADD twice INT AS (n * 2) VIRTUAL, ADD thrice INT AS (n * 3) STORED",
        "INSERT INTO {t} (id, n) VALUES (50, 7)",
        "ALTER TABLE {t} MODIFY thrice INT AS (n * 4) STORED",
        "ALTER TABLE {t} DROP COLUMN twice",
        TOUCH,
    ),
    "add invisible": _(
        "ALTER TABLE {t} ADD hidden INT INVISIBLE DEFAULT 8",
        "INSERT INTO {t} (id, hidden) VALUES (70, 71)",
    ),
    "add numbered": _("ALTER TABLE {u} DROP PRIMARY KEY,"
                      " ADD num INT NOT NULL AUTO_INCREMENT PRIMARY KEY FIRST"),
    "drop": _("ALTER TABLE {t} DROP COLUMN n, DROP COLUMN at", TOUCH),
    "drop and add again": _("ALTER TABLE {t} DROP n", "ALTER TABLE {t} ADD n TINYINT DEFAULT 3"),
    "modify": _(
        "ALTER TABLE {t} MODIFY n BIGINT NOT NULL DEFAULT 0, MODIFY v VARCHAR(300) FIRST", TOUCH
    ),
    "modify on update": _(
        "ALTER TABLE {t} MODIFY at TIMESTAMP NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP", TOUCH
    ),
    "change": _("ALTER TABLE {t} CHANGE v `the v` VARCHAR(99) NOT NULL AFTER n",
                "INSERT INTO {t} (id, `the v`) VALUES (80, 'v')"),
    "rename column": _("ALTER TABLE {t} RENAME COLUMN v TO w, RENAME COLUMN n TO v"),
    "set and drop default": _(
        "ALTER TABLE {t} ALTER COLUMN n SET DEFAULT 77, ALTER v DROP DEFAULT",
        "INSERT INTO {t} (id, v) VALUES (81, 'x')",
    ),
    "an enum that grows": _(
        "ALTER TABLE {t} ADD e ENUM('a','b') NOT NULL DEFAULT 'b', ADD s SET('x','y')",
        "UPDATE {t} SET e = 'a', s = 'x,y' WHERE id = 1",
        "ALTER TABLE {t} MODIFY e ENUM('a','b','c') NOT NULL, MODIFY s SET('x','y','z')",
        "UPDATE {t} SET e = 'c', s = 'z' WHERE id = 2",
        "ALTER TABLE {t} MODIFY e ENUM('c','a','b')",
    ),
    "text as numbers and back": _(
        "ALTER TABLE {t} ADD x VARCHAR(20) DEFAULT '12'",
        "ALTER TABLE {t} MODIFY x INT", "ALTER TABLE {t} MODIFY x VARCHAR(9)", TOUCH,
    ),
    "names that need quoting": _(
        "CREATE TABLE `{p}a b``c\"d` (`select` INT PRIMARY KEY, `x y` INT, `z``z` INT, `q\"q` INT)",
        "INSERT INTO `{p}a b``c\"d` VALUES (1, 2, 3, 4)",
        "ALTER TABLE `{p}a b``c\"d` ADD `from` INT DEFAULT 5, CHANGE `z``z` `日本` INT,"
        " DROP COLUMN `x y`",
        "INSERT INTO `{p}a b``c\"d` VALUES (2, 2, 3, 4)",
    ),
    "qualified, in any case": _(
        "alter\n\ttable `opendental` . `{t}`\n  -- a note\n add column C int default 3 # another",
        "AlTeR TaBlE opendental.{t} aDd CoLuMn (d INT, `E` INT)",
        "INSERT INTO {t} (ID, V, c) VALUES (82, 'x', 1)",
    ),
    "a table and a column of the database's name": _(
        "CREATE TABLE {p}x (opendental INT PRIMARY KEY, b INT)",
        "ALTER TABLE {p}x ADD opendental2 INT AS (`opendental` + 1) STORED",
        "ALTER TABLE opendental.{p}x DROP opendental2, CHANGE opendental num INT",
        "INSERT INTO {p}x (num, b) VALUES (1, 1)",
    ),
    "a table without a key": _(
        "ALTER TABLE {p}k ADD c INT DEFAULT 4",
        "INSERT INTO {p}k VALUES (1, 'a', 5)",
        "ALTER TABLE {p}k DROP COLUMN b",
        "ALTER TABLE {p}k MODIFY a BIGINT",
        "DELETE FROM {p}k WHERE a = 2",
        made=("CREATE TABLE {p}k (a INT, b VARCHAR(5))",
              "INSERT INTO {p}k VALUES (1, 'a'), (1, 'a'), (2, 'b')"),
    ),
}  # fmt: skip

KEYS = {
    "indexes": _(
        "ALTER TABLE {t} ADD INDEX i (n), ADD UNIQUE KEY w (id, v), ADD FULLTEXT KEY f (v)",
        "ALTER TABLE {t} DROP INDEX i, RENAME INDEX w TO x",
        "CREATE INDEX j ON {t} (v(5) DESC)",
        "DROP INDEX by_v ON opendental.{t}",
        TOUCH,
    ),
    "an index goes with its column": _(
        "ALTER TABLE {t} ADD INDEX i (n), ADD c INT NOT NULL DEFAULT 1",
        "ALTER TABLE {t} DROP INDEX i, DROP COLUMN n",
        "ALTER TABLE {t} ADD d INT",
    ),
    "another primary key": _("ALTER TABLE {t} DROP PRIMARY KEY, ADD PRIMARY KEY (v, id)", TOUCH),
    "no primary key": _("ALTER TABLE {t} DROP PRIMARY KEY", "INSERT INTO {t} SELECT * FROM {u}"),
    "a primary key at last": _(
        "ALTER TABLE {p}k ADD PRIMARY KEY (a)", "UPDATE {p}k SET b = 'x' WHERE a = 1",
        made=("CREATE TABLE {p}k (a INT NOT NULL, b VARCHAR(5))",
              "INSERT INTO {p}k VALUES (1, 'a'), (2, 'b')"),
    ),
    "a unique key stands in": _(
        "CREATE UNIQUE INDEX only ON {p}k (a)",
        "UPDATE {p}k SET b = 'x' WHERE a = 1",
        "ALTER TABLE {p}k DROP INDEX only",
        "INSERT INTO {p}k VALUES (1, 'again')",
        "DELETE FROM {p}k WHERE b = 'again'",
        "ALTER TABLE {p}k ADD UNIQUE KEY once (a)",
        "DROP INDEX once ON {p}k",
        "INSERT INTO {p}k VALUES (2, 'more')",
        made=("CREATE TABLE {p}k (a INT NOT NULL, b VARCHAR(5))",
              "INSERT INTO {p}k VALUES (1, 'a'), (2, 'b')"),
    ),
    "the primary key by DROP INDEX": _(
        "DROP INDEX `PRIMARY` ON {t}", "INSERT INTO {t} (id, v) VALUES (1, 'twice')"
    ),
    "the primary key by ALTER … DROP INDEX": _(
        "ALTER TABLE {t} DROP INDEX `PRIMARY`", "INSERT INTO {t} (id, v) VALUES (1, 'twice')"
    ),
    "an invisible index": _("ALTER TABLE {t} ALTER INDEX by_v INVISIBLE", TOUCH, family="mysql"),
    "an ignored index": _("ALTER TABLE {t} ALTER INDEX by_v IGNORED", TOUCH, family="mariadb"),
    "checks": _(
        "ALTER TABLE {t} ADD CONSTRAINT positive CHECK (id > 0)",
        "ALTER TABLE {t} DROP CONSTRAINT positive",
        TOUCH,
    ),
}  # fmt: skip

OPTIONS = {
    "comments": _("ALTER TABLE {t} COMMENT = 'it''s DROP TABLE {t};', MODIFY n INT COMMENT 'x,y'"),
    "charset": _(
        "ALTER TABLE {t} CONVERT TO CHARACTER SET latin1",
        "INSERT INTO {t} (id, v) VALUES (90, 'é')",
        "ALTER TABLE {t} DEFAULT CHARACTER SET utf8mb4, ADD w VARCHAR(10)",
        "UPDATE {t} SET w = '日本' WHERE id = 90",
        "ALTER TABLE {t} MODIFY v VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    ),
    "engine and force": _(
        "ALTER TABLE {t} ENGINE=MyISAM", TOUCH, "ALTER TABLE {t} ENGINE=InnoDB, FORCE",
        "ALTER TABLE {t} ROW_FORMAT=DYNAMIC", TOUCH,
    ),
    "how it is done": _(
        "ALTER TABLE {t} ADD c INT, ALGORITHM=INPLACE, LOCK=NONE",
        "ALTER TABLE {t} ADD d INT, ALGORITHM=COPY, LOCK=SHARED",
        "CREATE INDEX i ON {t} (n) ALGORITHM=INPLACE LOCK=NONE",
        TOUCH,
    ),
    "versioned comments": _(
        "ALTER TABLE {t} ADD a INT /*!50000 NOT NULL DEFAULT 4 */ /* plain */",
        "ALTER TABLE {t} /*!99999999 DROP COLUMN a, */ ADD /*!40000 COLUMN */ b INT",
        "/*!40000 ALTER TABLE `{t}` DISABLE KEYS */",
        "ALTER TABLE {t} ADD old DATETIME /* mariadb-5.3 */ DEFAULT NULL",
        TOUCH,
    ),
    "comments for MariaDB": _(
        "ALTER TABLE {t} ADD a INT /*M!100100 NOT NULL DEFAULT 4 */, ADD b INT /*!80000 BAD */",
        TOUCH,
        family="mariadb",
    ),
    "order and numbers": _("ALTER TABLE {u} ORDER BY n", "ALTER TABLE {u} AUTO_INCREMENT = 5000"),
    "set statement": _(
        "SET STATEMENT max_statement_time = 100 FOR ALTER TABLE {t} ADD c INT DEFAULT 9",
        TOUCH, family="mariadb",
    ),
}  # fmt: skip

PARTITIONS = {
    "dropped, emptied, added": _(
        "ALTER TABLE {p}parts DROP PARTITION low",
        "INSERT INTO {p}parts VALUES (3, 3)",
        "ALTER TABLE {p}parts TRUNCATE PARTITION mid",
        "UPDATE {p}parts SET n = n + 1",
        made=PARTS,
    ),
    "exchanged": _(
        "CREATE TABLE {p}plain (id INT NOT NULL, n INT, PRIMARY KEY (id)) ENGINE=InnoDB",
        "INSERT INTO {p}plain VALUES (2, 22), (3, 33)",
        "ALTER TABLE {p}parts EXCHANGE PARTITION low WITH TABLE opendental.{p}plain",
        "UPDATE {p}parts SET n = n + 1",
        "DELETE FROM {p}plain WHERE id = 5",
        made=PARTS,
    ),
    "reorganised": _(
        "ALTER TABLE {p}parts REORGANIZE PARTITION low INTO (PARTITION lowest VALUES LESS THAN (3),"
        " PARTITION lower VALUES LESS THAN (10))",
        "ALTER TABLE {p}parts REBUILD PARTITION lower",
        "UPDATE {p}parts SET n = n + 1",
        "ALTER TABLE {p}parts REMOVE PARTITIONING",
        "ALTER TABLE {p}parts PARTITION BY HASH (id) PARTITIONS 3",
        "ALTER TABLE {p}parts COALESCE PARTITION 1",
        "ALTER TABLE {p}parts ADD PARTITION PARTITIONS 2",
        "DELETE FROM {p}parts WHERE id = 11",
        made=PARTS,
    ),
    "split off and taken in": _(
        "ALTER TABLE {p}parts CONVERT PARTITION low TO TABLE {p}low",
        "UPDATE {p}low SET n = n + 100",
        "UPDATE {p}parts SET n = n + 1",
        "ALTER TABLE {p}parts DROP PARTITION mid",
        "CREATE TABLE {p}more LIKE {p}low",
        "INSERT INTO {p}more VALUES (4, 4)",
        made=PARTS,
        family="mariadb",
    ),
}  # fmt: skip

TABLES = {
    "create like": _(
        "CREATE TABLE {p}like LIKE {t}", "INSERT INTO {p}like SELECT * FROM {t}",
        "CREATE TABLE IF NOT EXISTS {p}like (LIKE {u})",
    ),
    "create select": _(
        "CREATE TABLE {p}selected SELECT * FROM {t}",
        "CREATE TABLE {p}keyed (PRIMARY KEY (id)) AS SELECT id, n + 1 AS more FROM {u}",
        "UPDATE {p}keyed SET more = 5 WHERE id = 1",
        "DELETE FROM {p}selected WHERE id = 1",
    ),
    "create or replace": _(
        "CREATE OR REPLACE TABLE {t} (word VARCHAR(9) PRIMARY KEY)",
        "INSERT INTO {t} VALUES ('a')",
        "CREATE OR REPLACE TABLE {p}other LIKE {u}",
        "CREATE OR REPLACE TABLE {p}third SELECT * FROM {u}",
        "CREATE OR REPLACE TABLE {u} SELECT * FROM {t}",
        family="mariadb",
    ),
    "create if not exists": _(
        "CREATE TABLE IF NOT EXISTS {t} (nothing INT)",
        "CREATE TABLE IF NOT EXISTS {p}new (id INT PRIMARY KEY, n INT)",
        "INSERT INTO {p}new VALUES (1, 1)",
        TOUCH,
    ),
    "drop several": _("DROP TABLE {t}, {u}"),
    "drop some": _("DROP TABLE IF EXISTS {p}absent, {t}, {p}neither", "DROP TABLE IF EXISTS {t}"),
    "drop and create": _(
        "DROP TABLE {t}", "CREATE TABLE {t} (id BIGINT PRIMARY KEY, fresh TEXT)",
        "INSERT INTO {t} VALUES (1, 'x')",
    ),
    "truncate": _("TRUNCATE {t}", "INSERT INTO {t} (id) VALUES (5)", "TRUNCATE TABLE `{u}`"),
    "truncate between rows": _(
        "INSERT INTO {t} (id) VALUES (50), (51)", "TRUNCATE TABLE {t}",
        "INSERT INTO {t} (id) VALUES (50)", "ALTER TABLE {t} ADD c INT DEFAULT 2",
    ),
    "swap": _("RENAME TABLE {t} TO {p}x, {u} TO {t}, {p}x TO {u}", TOUCH),
    "a ring of three": _(
        "CREATE TABLE {p}w (w INT PRIMARY KEY)", "INSERT INTO {p}w VALUES (7)",
        "RENAME TABLE {t} TO {p}x, {u} TO {t}, {p}w TO {u}, {p}x TO {p}w",
        "INSERT INTO {u} VALUES (8)",
    ),
    "renamed for good": _("RENAME TABLE {t} TO {p}new", "INSERT INTO {p}new (id) VALUES (4)"),
    "renamed and altered": _(
        "ALTER TABLE {t} RENAME TO {p}new, ADD c INT DEFAULT 1",
        "ALTER TABLE {p}new RENAME AS {p}newer",
        "INSERT INTO {p}newer (id) VALUES (4)",
    ),
    "renamed and made anew": _(
        "RENAME TABLE {t} TO {p}old", "CREATE TABLE {t} LIKE {p}old",
        "ALTER TABLE {t} MODIFY v VARCHAR(300), ADD c INT NOT NULL",
        "INSERT INTO {t} (id, v, n, at) SELECT * FROM {p}old", "DROP TABLE {p}old",
    ),
    "elsewhere and back": _(
        "CREATE DATABASE IF NOT EXISTS elsewhere",
        "RENAME TABLE {t} TO elsewhere.{t}",
        "INSERT INTO elsewhere.{t} (id, v) VALUES (30, 'x')",
        "ALTER TABLE elsewhere.{t} ADD away INT DEFAULT 3",
        "RENAME TABLE elsewhere.{t} TO opendental.{t}",
        TOUCH,
    ),
    "in and out at once": _(
        "CREATE DATABASE IF NOT EXISTS elsewhere",
        "CREATE TABLE elsewhere.{p}in SELECT * FROM {u}",
        "RENAME TABLE {t} TO elsewhere.{p}out, elsewhere.{p}in TO {t}",
        "DROP TABLE elsewhere.{p}out, {u}",
    ),
    "copied away before an upgrade": _(
        "CREATE DATABASE IF NOT EXISTS elsewhere",
        "CREATE TABLE elsewhere.{p}backup LIKE {t}",
        "INSERT INTO elsewhere.{p}backup SELECT * FROM {t}",
        "ALTER TABLE elsewhere.{p}backup ADD x INT",
        "DROP TABLE elsewhere.{p}backup",
        TOUCH,
    ),
    "temporary": _(
        "CREATE TEMPORARY TABLE {p}temp (id INT PRIMARY KEY)",
        "INSERT INTO {p}temp VALUES (1)",
        "ALTER TABLE {p}temp ADD c INT",
        "CREATE TEMPORARY TABLE {t} (id INT, shadow INT)",
        "INSERT INTO {t} VALUES (1, 1)",
        "TRUNCATE TABLE {p}temp",
        "DROP TEMPORARY TABLE {p}temp, {t}",
        TOUCH,
    ),
    "run-time tables": _(
        "CREATE TABLE tempdash{n} (id INT PRIMARY KEY)",
        "INSERT INTO tempdash{n} VALUES (1)",
        "ALTER TABLE tempdash{n} ADD c INT",
        "CREATE TABLE tempehrmeasure{n} SELECT * FROM {t}",
        "DROP TABLE tempdash{n}, tempehrmeasure{n}",
    ),
    "views and programs": _(
        "CREATE VIEW {p}view AS SELECT * FROM {t}",
        "CREATE TRIGGER {p}trigger BEFORE UPDATE ON {t} FOR EACH ROW SET NEW.n = 42",
        "CREATE PROCEDURE {p}procedure() UPDATE {u} SET n = 43",
        "CREATE FUNCTION {p}function() RETURNS INT DETERMINISTIC RETURN 1",
        "CREATE EVENT {p}event ON SCHEDULE EVERY 1 DAY DO DELETE FROM {t}",
        TOUCH,
        "CALL {p}procedure()",
        "RENAME TABLE {p}view TO {p}seen",
        "ALTER EVENT {p}event DISABLE",
        "DROP EVENT {p}event",
        "DROP FUNCTION {p}function",
        "DROP PROCEDURE {p}procedure",
        "DROP TRIGGER {p}trigger",
        "DROP VIEW {p}seen",
    ),
    "maintenance": _(
        "ANALYZE TABLE {t}", "OPTIMIZE TABLE {t}", "CHECK TABLE {t}", "FLUSH TABLES {t}",
        "UNLOCK TABLES", "LOCK TABLES {t} WRITE", TOUCH, "UNLOCK TABLES",
    ),
    "foreign keys that only refuse": _(
        "CREATE TABLE {p}child (id INT PRIMARY KEY, parent INT, CONSTRAINT {p}fk FOREIGN KEY"
        " (parent) REFERENCES opendental.{t} (id) ON DELETE RESTRICT ON UPDATE NO ACTION)"
        " ENGINE=InnoDB",
        "INSERT INTO {p}child VALUES (1, 1)",
        "ALTER TABLE {p}child DROP FOREIGN KEY {p}fk",
        "DELETE FROM {t} WHERE id = 1",
    ),
    "a tablespace's journey": _(
        "FLUSH TABLES {u} FOR EXPORT", "UNLOCK TABLES", "ALTER TABLE {u} DISCARD TABLESPACE",
        "DROP TABLE {u}",
    ),
    "rows of two tables in one transaction, and then DDL": _(
        "BEGIN", "UPDATE {t} SET n = 5", "UPDATE {u} SET n = 6",
        "ALTER TABLE {u} ADD c INT DEFAULT 1", "UPDATE {u} SET c = 2",
    ),
}  # fmt: skip

MARIADB = {
    "system versioning": _(
        "ALTER TABLE {t} ADD SYSTEM VERSIONING",
        "UPDATE {t} SET n = 100 WHERE id = 1",
        "DELETE FROM {t} WHERE id = 2",
        "SET system_versioning_alter_history = KEEP",
        "ALTER TABLE {t} ADD c INT DEFAULT 5",
        "UPDATE {t} SET n = 101 WHERE id = 1",
        "ALTER TABLE {t} DROP SYSTEM VERSIONING",
        TOUCH,
    ),
    "made with system versioning": _(
        "CREATE TABLE {p}v (id INT PRIMARY KEY, n INT, s TIMESTAMP(6) GENERATED ALWAYS AS ROW"
        " START, e TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e))"
        " WITH SYSTEM VERSIONING ENGINE=InnoDB",
        "INSERT INTO {p}v (id, n) VALUES (1, 1), (2, 2), (3, 3)",
        "UPDATE {p}v SET n = 10 WHERE id = 1",
        "DELETE FROM {p}v WHERE id = 2",
        "INSERT INTO {p}v (id, n) VALUES (2, 22)",
    ),
    "a sequence": _(
        "CREATE SEQUENCE {p}s START WITH 10 INCREMENT BY 5",
        "SELECT NEXTVAL({p}s)",
        "INSERT INTO {t} (id, n) VALUES (60, NEXTVAL({p}s))",
        "CREATE TABLE {p}d (id INT PRIMARY KEY DEFAULT NEXTVAL({p}s), n INT)",
        "INSERT INTO {p}d (n) VALUES (1), (2), (3)",
        "ALTER SEQUENCE {p}s RESTART 100",
        "ALTER TABLE {t} ADD c INT DEFAULT (NEXT VALUE FOR {p}s)",
        "INSERT INTO {p}d (n) VALUES (4)",
        "ALTER TABLE {p}d MODIFY id INT",
        "ALTER TABLE {t} ALTER c DROP DEFAULT",
        "DROP SEQUENCE {p}s",
    ),
    "a sequence that stays": _(
        "CREATE SEQUENCE {p}s",
        "ALTER TABLE {t} ADD c BIGINT NOT NULL DEFAULT NEXTVAL({p}s)",
        "INSERT INTO {t} (id) VALUES (60), (61)",
        "RENAME TABLE {p}s TO {p}r",
        "ALTER TABLE {t} ALTER COLUMN c SET DEFAULT (NEXT VALUE FOR {p}r)",
        "INSERT INTO {t} (id) VALUES (62)",
    ),
    "versions that stay": _(
        "ALTER TABLE {t} ADD SYSTEM VERSIONING",
        "UPDATE {t} SET n = 100 WHERE id = 1",
        "SET system_versioning_alter_history = KEEP",
        "ALTER TABLE {t} ADD c INT DEFAULT 5, DROP at",
        "UPDATE {t} SET n = 101 WHERE id = 1",
        "DELETE FROM {t} WHERE id = 2",
    ),
    "two phases": _(
        "SET SESSION binlog_alter_two_phase = 1",
        "ALTER TABLE {t} ADD COLUMN c INT DEFAULT 5, ADD KEY (c)",
        TOUCH,
        "ALTER TABLE {t} MODIFY c BIGINT, DROP COLUMN n",
        "SET SESSION binlog_alter_two_phase = 0",
        TOUCH,
    ),
    "altered at once by two": _("ALTER ONLINE TABLE {t} ADD c INT DEFAULT 5", TOUCH),
    "ALTER IGNORE": _(
        "UPDATE {t} SET n = 5", "ALTER IGNORE TABLE {t} ADD UNIQUE KEY (n)",
        "INSERT INTO {t} (id, n) VALUES (61, 61)",
    ),
}  # fmt: skip

GROUPS = {"columns": COLUMNS, "keys": KEYS, "options": OPTIONS, "partitions": PARTITIONS,
          "tables": TABLES}  # fmt: skip


def scenarios(family: str, *, newer: bool = False) -> dict[str, Scenario]:
    """All that a family knows, by name; `newer`: and that a newer replica is not refused."""
    found = {name: s for group in GROUPS.values() for name, s in group.items()}
    if family == "mariadb":
        found |= MARIADB
    if newer:  # replicator.pair
        found = {n: s for n, s in found.items() if "SYSTEM VERSIONING" not in str(s.statements)}
    return {name: s for name, s in found.items() if s.family in (None, family)}

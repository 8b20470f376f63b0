"""Rows are told apart by their keys' bytes, whatever the server's collation calls equal.

A case-insensitive key that changes from 'a' to 'A' is another row to PostgreSQL: the old one
must go. Two keys that differ in what a collation leaves out are two rows. Numbers that print
alike, and numbers that print otherwise than they are stored, are told apart by their bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicator.sandbox.databases import MySQLDatabase
from tests.end_to_end.values import printing
from tests.end_to_end.values.legs import Legs
from tests.end_to_end.values.printing import Printing
from tests.fix_servers import family


@dataclass(frozen=True)
class Key:
    """A key column, values for it, and changes of values into others."""

    definition: str
    printing: Printing
    literals: tuple[str, ...]
    changes: tuple[tuple[str, str], ...] = ()
    part: str = ""
    """Of a key over the beginning of a value."""


def _keys() -> dict[str, Key]:
    text = printing.TEXT
    folding = (("'a'", "'A'"), ("'é'", "'E'"), ("'ß'", "'ẞ'"), ("'x'", "'x '"))
    words = ("'a'", "'é'", "'ß'", "'x'", "'zz'", "''")
    mariadb = family() == "mariadb"
    no_pad = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
    spaces = ("'a'", "'a '", "'a  '", "' a'", "''", "' '")
    return {
        "case_insensitive": Key(
            "varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", text, words, folding
        ),
        "accents": Key(
            "varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci", text,
            ("'a'", "'o'", "'n'"), (("'a'", "'å'"), ("'o'", "'ö'"), ("'n'", "'Ñ'")),
        ),
        "no_pad": Key(
            f"varchar(20) CHARACTER SET utf8mb4 COLLATE {no_pad}", text, spaces,
            (("'a '", "'b'"), ("''", "'  '")),
        ),
        "binary_collation": Key(
            "varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", text,
            ("'a'", "'A'", "'á'", "'\\\\'", "'\\t'", "'\\n'", "'\\\\N'"), (("'a'", "'b'"),),
        ),
        "padded": Key("char(5) CHARACTER SET latin1", text, ("'a'", "'ab '"), (("'a'", "'Ä'"),)),
        "prefixed_text": Key(
            "text CHARACTER SET utf8mb4", text, ("'abcd'", "'b'", "''"),
            (("'abcd'", "'ABCde'"), ("'b'", "'b '")), "(3)",
        ),
        "prefixed_blob": Key(
            "blob", printing.BYTES, ("X'000102FF'", "X'00'", "X'0001'", "''"),
            (("X'00'", "X'0000'"),), "(4)",
        ),
        "float": Key(
            "float", printing.FLOAT,
            ("0e0", "1.401298464324817e-45", "3.4028234663852886e38", "16777217e0", "0.1e0",
             "-0.1e0", "1.17549421e-38", "123456.79e0", "123456.8e0"),
            (("0e0", "(0e0 * -1e0)"), ("16777216e0", "16777218e0")),
        ),
        "double": Key(
            "double", printing.DOUBLE,
            ("(0e0 * -1e0)", "5e-324", "1.7976931348623157e308", "0.1e0", "0.30000000000000004e0",
             "0.3e0", "-2.2250738585072014e-308"),
            (("0e0", "0e0 + 0e0"),),
        ),
        "decimal": Key(
            "decimal(65,30)", printing.NUMBER, ("'1.5'", "'-1e-30'", "'1e-30'", f"'{'9' * 35}'"),
            (("'1.5'", "'1.50000000000000000000000000001'"),),
        ),
        "datetime": Key(
            "datetime(6)", printing.MOMENT,
            ("'0001-01-01'", "'9999-12-31 23:59:59.999999'", "'2020-01-01 00:00:00.000001'"),
            (("'0001-01-01'", "'0001-01-01 00:00:00.000001'"),),
        ),
        "timestamp": Key(
            "timestamp(3)", printing.MOMENT, ("'1970-01-01 00:00:01'", "'2024-11-03 05:30:00.001'",
            "'2024-11-03 06:30:00.001'"),
        ),
        "time": Key(
            "time(2)", printing.SPAN, ("'-838:59:59'", "'-00:00:00.01'", "'00:00:00'", "'26:00'"),
            (("'00:00:00'", "'00:00:00.01'"),),
        ),
        "bit": Key("bit(64)", printing.bits(64), ("0", "1", "18446744073709551615"), (("1", "2"),)),
        "unsigned": Key(
            "bigint unsigned", printing.NUMBER,
            ("0", "18446744073709551615", "9223372036854775808", "9223372036854775807"),
            (("0", "1"),),
        ),
        "enum": Key("enum('a','b','B c','é') CHARACTER SET latin1", text, ("1", "2", "4"),
                    (("1", "3"),)),
        "set": Key("set('a','b','c')", text, ("0", "1", "5", "7"), (("1", "2"),)),
        "binary": Key(
            "binary(4)", printing.BYTES, ("''", "X'61'", "X'6100FF'"), (("''", "X'20'"),)
        ),
        "varbinary": Key(
            "varbinary(20)", printing.BYTES, ("''", "X'61'", "X'6100'", "X'00'"),
            (("X'61'", "X'41'"),),
        ),
        "utf16": Key("varchar(9) CHARACTER SET utf16", text, ("'😀'", "'é'"), (("'é'", "'É'"),)),
        "japanese": Key(
            "varchar(9) CHARACTER SET sjis", text, ("'ア'", "'あ'"), (("'あ'", "'ぁ'"),)
        ),
    }  # fmt: skip


NAMES = ("case_insensitive", "accents", "no_pad", "binary_collation", "padded", "prefixed_text",
         "prefixed_blob", "float", "double", "decimal", "datetime", "timestamp", "time", "bit",
         "unsigned", "enum", "set", "binary", "varbinary", "utf16", "japanese")  # fmt: skip


def test_every_key_is_exact_whichever_way_its_rows_come_and_change(legs: Legs) -> None:
    keys = _keys()
    assert tuple(keys) == NAMES
    for name, key in keys.items():
        _create(legs.source, f"copied_{name}", key)
        _insert(legs.source, f"copied_{name}", key)
    legs.catch_up()
    for name, key in keys.items():
        _create(legs.source, f"streamed_{name}", key)
    legs.catch_up()
    for name, key in keys.items():
        _insert(legs.source, f"streamed_{name}", key)
    legs.catch_up()
    tables = [
        (f"{way}_{name}", key) for name, key in keys.items() for way in ("copied", "streamed")
    ]
    _assert_exact(legs, tables)
    for table, key in tables:
        for old, new in key.changes:
            legs.source.execute(f"UPDATE `{table}` SET k = {new}, v = v + 1 WHERE k = {old}")
    legs.catch_up()
    _assert_exact(legs, tables)
    for table, _key in tables:  # and within one batch: back and forth, away and anew
        legs.source.execute(f"UPDATE `{table}` SET v = v + 1")
        legs.source.execute(f"DELETE FROM `{table}` WHERE v % 2 = 0")
        legs.source.execute(f"INSERT IGNORE INTO `{table}` SELECT v + 10, k FROM `{table}`")
    legs.catch_up()
    _assert_exact(legs, tables)
    legs.resync([table for table, _ in tables])
    _assert_exact(legs, tables)


def _create(source: MySQLDatabase, table: str, key: Key) -> None:
    engine = "" if key.part else " ENGINE=InnoDB"
    source.execute(
        f"CREATE TABLE `{table}` (v int, k {key.definition} NOT NULL,"
        f" PRIMARY KEY (k{key.part})){engine}"
    )


def _insert(source: MySQLDatabase, table: str, key: Key) -> None:
    source.execute("SET time_zone = '+00:00', sql_mode = ''")
    for number, literal in enumerate(key.literals):
        source.execute(f"INSERT INTO `{table}` VALUES ({number}, {literal})")


def _assert_exact(legs: Legs, tables: list[tuple[str, Key]]) -> None:
    legs.source.execute("SET time_zone = '+00:00'")
    for table, key in tables:
        printed = key.printing.mysql.format("k")
        source = legs.source.query(f"SELECT {printed}, v FROM `{table}`")
        with legs.raw.connect() as connection:
            connection.execute("SET timezone = 'UTC'")
            query = f'SELECT {key.printing.postgres.format("k")}, v FROM raw."{table}"'
            raw = connection.execute(query.encode()).fetchall()
        same = key.printing.same
        assert sorted((repr(same(k)), v) for k, v in raw) == sorted(
            (repr(same(k)), v) for k, v in source
        ), (table, key.definition)


def test_a_key_with_a_nul_is_no_other_rows_key(legs: Legs) -> None:
    """A NUL shows as backslash and zero elsewhere; as a key that might be another row's."""
    legs.source.execute(
        "CREATE TABLE t (k varchar(9) COLLATE utf8mb3_bin PRIMARY KEY, v varchar(9))"
    )
    legs.source.execute("INSERT INTO t VALUES ('a\\0', 'a\\0'), ('a\\\\0', 'b'), ('c', 'd')")
    legs.catch_up()
    expected = [("a\\0", "b"), ("c", "d")]
    assert sorted(legs.raw.query("SELECT k, v FROM raw.t")) == expected
    legs.source.execute("UPDATE t SET v = CONCAT(v, '!')")
    legs.source.execute("INSERT INTO t VALUES ('b\\0', 'n')")
    legs.catch_up()
    assert sorted(legs.raw.query("SELECT k, v FROM raw.t")) == [("a\\0", "b!"), ("c", "d!")]
    legs.source.execute("UPDATE t SET k = 'e' WHERE k = 'b\\0'")
    legs.source.execute("DELETE FROM t WHERE k = 'a\\0'")
    legs.catch_up()
    assert sorted(legs.raw.query("SELECT k, v FROM raw.t")) == [
        ("a\\0", "b!"), ("c", "d!"), ("e", "n"),
    ]  # fmt: skip


def test_a_key_that_fills_an_index_of_the_server_is_exact(legs: Legs) -> None:
    """3,000 bytes, which PostgreSQL's index takes where they can be packed."""
    legs.source.execute("CREATE TABLE t (k varbinary(3000) PRIMARY KEY, v int) ENGINE=InnoDB")
    legs.source.execute("INSERT INTO t VALUES (REPEAT('x', 3000), 1)")
    legs.catch_up()
    legs.source.execute("INSERT INTO t VALUES (REPEAT('y', 3000), 2)")
    legs.catch_up()
    assert sorted(legs.raw.query("SELECT v, length(k) FROM raw.t")) == [(1, 3000), (2, 3000)]

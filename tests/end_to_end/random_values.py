"""Columns that a random table may have: each family's type as SQL text, and values for it.

From the left comes the server's family; to the right go literals, most of them at the ends
of what a type can hold. A value that does not fit is part of the game: the source bends it
or refuses it, and what it stored is what must arrive.
"""

from __future__ import annotations

from hypothesis import strategies as st

Draw = st.DrawFn

TEXTS = ["''", "'a'", "'A '", "'synthetic'", "'ünï日本😀'", "'tab\\tline\\nend'", "'\\\\N'",
         "REPEAT('x', 200)", "'0'", "'-1'", "'2024-02-29'", "CHAR(0)",
         "CHAR(1, 31, 127)"]  # fmt: skip
LATIN = ["''", "'abc'", "'é€'", "'A '"]
BYTES = ["''", "x'00ff'", "x'5c4e'", "x'feff'", "REPEAT('y', 300)"]
DATES = ["'2024-02-29'", "'0001-01-01'", "'9999-12-31'", "'0000-00-00'", "'2020-00-15'"]
MOMENTS = ["'2024-02-29 12:34:56.789012'", "'0001-01-01 00:00:00'", "'0000-00-00 00:00:00'",
           "'9999-12-31 23:59:59'"]  # fmt: skip
STAMPS = ["'2024-02-29 12:34:56.987654'", "'1970-01-02 00:00:00'", "'0000-00-00 00:00:00'"]

_COMMON: dict[str, list[str]] = {
    "int": ["0", "1", "-1", "2147483647", "-2147483648"],
    "int unsigned": ["0", "4294967295"],
    "int(6) unsigned zerofill": ["0", "7", "4294967295"],
    "tinyint": ["0", "1", "-128", "127"],
    "tinyint unsigned": ["0", "255"],
    "smallint": ["-32768", "32767"],
    "smallint unsigned": ["0", "65535"],
    "mediumint": ["-8388608", "8388607"],
    "mediumint unsigned": ["0", "16777215"],
    "bigint": ["0", "9223372036854775807", "-9223372036854775808"],
    "bigint unsigned": ["0", "18446744073709551615"],
    "decimal(12,3)": ["0", "-123456789.125", "999999999.999", "0.001"],
    "decimal(38,10)": ["0", "1.5", "-9999999999999999999999999999.9999999999"],
    "decimal(65,30)": ["0", "-0.000000000000000000000000000001", "9999999999e24"],
    "float": ["0", "-0e0", "0.1", "-3.4e38", "1e-40"],
    "double": ["0", "-0e0", "0.1", "-1.7e308", "5e-324"],
    "char(10)": LATIN,
    "char(4) CHARACTER SET utf8mb4": ["''", "'日本😀'", "'a b '"],
    "varchar(30)": TEXTS[:7],
    "varchar(300)": TEXTS,
    "varchar(60) CHARACTER SET latin1": LATIN,
    "varchar(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin": TEXTS[:7],
    "varchar(20) CHARACTER SET utf16": ["''", "'日本😀'"],
    "varchar(20) CHARACTER SET sjis": ["''", "'日本'", "'abc'"],
    "tinytext": TEXTS,
    "text": TEXTS,
    "mediumtext": TEXTS,
    "longtext CHARACTER SET utf8mb4": [*TEXTS, "REPEAT('日', 30000)"],
    "tinyblob": BYTES[:4],
    "blob": BYTES,
    "longblob": BYTES,
    "binary(8)": ["''", "x'00'", "x'0102030405060708'", "'a '"],
    "varbinary(20)": BYTES[:4],
    "date": DATES,
    "datetime": MOMENTS,
    "datetime(6)": MOMENTS,
    "timestamp NULL": STAMPS,
    "timestamp(3) NULL": STAMPS,
    "time": ["'-01:00:00'", "'838:59:59'", "'00:00:00'"],
    "time(4)": ["'-00:00:00.0001'", "'12:34:56.7891'"],
    "year": ["0", "1901", "2155"],
    "bit(1)": ["b'0'", "b'1'"],
    "bit(20)": ["b'0'", "b'11111111111111111111'"],
    "bit(64)": ["b'0'", "x'ffffffffffffffff'"],
    "enum('a','b','ç')": ["'a'", "'b'", "3", "0"],
    "set('x','y','z')": ["''", "'x,z'", "7"],
    "point": ["POINT(1, 2)", "POINT(-1e100, 5e-324)"],
}
_OF_FAMILY: dict[str, dict[str, list[str]]] = {
    "mariadb": {
        "varchar(300) COMPRESSED": TEXTS,
        "mediumtext COMPRESSED": [*TEXTS, "REPEAT('synthetic ', 400)"],
        "blob COMPRESSED": BYTES,
        "json": ["'{}'", "'[1, 2.50, \"ü\"]'", "'null'"],
    },
    "mysql": {
        "json": ["'{}'", "'[1, -2, true, null, \"ü😀\"]'", "'null'",
                 "'{\"b\": {\"a\": []}, \"a\": 1}'"],
    },
}  # fmt: skip
FAMILIES = {family: {**_COMMON, **own} for family, own in _OF_FAMILY.items()}

KEYABLE = [
    "int", "bigint", "bigint unsigned", "varchar(30)", "char(10)", "date", "smallint unsigned",
    "decimal(12,3)", "datetime(6)", "binary(8)", "enum('a','b','ç')",
]  # fmt: skip
CHANGES_TO = {
    "int": ["bigint", "decimal(12,3)", "varchar(30)", "double", "int unsigned", "smallint"],
    "tinyint": ["smallint unsigned", "int", "bigint", "bit(20)"],
    "bigint": ["int", "decimal(38,10)", "bigint unsigned"],
    "varchar(30)": ["varchar(300)", "text", "varbinary(20)", "varchar(60) CHARACTER SET latin1"],
    "varchar(300)": ["varchar(30)", "mediumtext", "varchar(20) CHARACTER SET utf16"],
    "date": ["datetime", "datetime(6)", "varchar(30)"],
    "datetime": ["datetime(6)", "date", "timestamp NULL"],
    "datetime(6)": ["datetime", "time(4)"],
    "float": ["double", "decimal(12,3)"],
    "double": ["float"],
    "text": ["mediumtext", "varchar(300)", "blob"],
    "blob": ["varbinary(20)", "longblob"],
    "decimal(12,3)": ["decimal(38,10)", "double", "int"],
    "enum('a','b','ç')": ["varchar(30)", "int", "enum('a','b','ç','d')", "enum('ç','a')"],
    "set('x','y','z')": ["set('x','y','z','w')", "varchar(30)"],
    "bit(1)": ["bit(20)", "int"],
}
_LATER = {
    "enum('a','b','ç','d')": ["'d'", "1"],
    "enum('ç','a')": ["'a'"],
    "set('x','y','z','w')": ["15"],
}
"""What only an ALTER brings."""


def value(draw: Draw, server: str, family: str, *, null: bool = True) -> str:
    choices = FAMILIES[server].get(family) or _LATER[family]
    return draw(st.sampled_from([*choices, "NULL"] if null else choices))


def a_family(draw: Draw, server: str) -> str:
    return draw(st.sampled_from(sorted(FAMILIES[server])))


def can_default(family: str) -> bool:
    """May a column of it have a literal default on every server?"""
    return not any(word in family for word in ("text", "blob", "json", "point", "COMPRESSED"))


_WHOLE = ["bigint AS ({} % 7)", "int AS ({} IS NULL)",
          "decimal(40,0) AS (CAST({} AS DECIMAL(40,0)) + 1)"]  # fmt: skip
_WRITTEN = ["int AS (CHAR_LENGTH({}))", "varchar(9) CHARACTER SET utf8mb4 AS (LEFT({}, 3))",
            "longtext AS (CONCAT('<', {}, '>'))"]  # fmt: skip
_DAYS = ["int AS (YEAR({}))", "date AS (LAST_DAY({}))", "varchar(30) AS (CONCAT('on ', {}))"]


def computed(draw: Draw, column: str, family: str) -> str:
    """The definition of a column that the server works out from this one.

    Not by the clock: what it shows of a TIMESTAMP is another for each session that reads.
    """
    word = family.partition("(")[0].partition(" ")[0]
    if word.endswith("int"):
        kinds = _WHOLE
    elif word.endswith(("char", "text")):
        kinds = _WRITTEN
    elif word in ("date", "datetime"):
        kinds = _DAYS
    else:
        kinds = _WHOLE[1:2]
    kind = draw(st.sampled_from(["VIRTUAL", "VIRTUAL", "STORED"]))
    return f"{draw(st.sampled_from(kinds)).format(column)} {kind}"

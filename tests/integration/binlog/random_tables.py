"""Random columns of every type, with values at and around their limits as SQL literals.

What only MariaDB has (compressed columns, addresses, unique keys over whole texts, YEAR(2))
is left out where the run is on MySQL.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.fix_servers import family

Draw = st.DrawFn
SearchStrategy = st.SearchStrategy


@dataclass(frozen=True)
class RandomColumn:
    """A column's definition without its name, and a row's worth of SQL literals for it."""

    definition: str
    literals: tuple[str, ...]


CHARSETS = {
    "utf8mb4": 4, "utf8mb3": 3, "latin1": 1, "ascii": 1, "ucs2": 2, "utf16": 4, "utf16le": 4,
    "utf32": 4, "sjis": 2, "gbk": 2, "big5": 2, "ujis": 3, "cp1251": 1, "greek": 1, "koi8r": 1,
    "armscii8": 1, "cp932": 2, "eucjpms": 3, "hebrew": 1, "tis620": 1,
}  # fmt: skip
ALPHABET = string.ascii_letters + string.digits + " '\\\"\0\n\t%éäß€Жя日本語Ω😀"


def on_mariadb() -> bool:
    """Asked while drawing: a strategy is made before the run knows its servers."""
    return family() == "mariadb"


def hexed(raw: bytes) -> str:
    return f"x'{raw.hex()}'" if raw else "''"


def text_literal(text: str) -> str:
    return f"CONVERT({hexed(text.encode())} USING utf8mb4)"


def clock(draw: Draw, fsp: int, hours: int) -> str:
    h, m, s = draw(st.integers(0, hours)), draw(st.integers(0, 59)), draw(st.integers(0, 59))
    fraction = draw(st.sampled_from([0, 1, 10**fsp - 1, 5 * 10**fsp // 10])) if fsp else 0
    return f"{h:02}:{m:02}:{s:02}" + (f".{fraction:0{fsp}}" if fsp else "")


DATES = ["0000-00-00", "2020-00-15", "2020-02-00", "0001-01-01", "9999-12-31", "2024-02-29",
         "1969-12-31", "0000-01-01", "1000-10-10"]  # fmt: skip


@st.composite
def integers(draw: Draw) -> tuple[str, SearchStrategy[str]]:
    kind, bits = draw(st.sampled_from(
        [("tinyint", 8), ("smallint", 16), ("mediumint", 24), ("int", 32), ("bigint", 64)]
    ))  # fmt: skip
    unsigned = draw(st.sampled_from(["", " unsigned", " unsigned zerofill"]))
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    some = st.sampled_from([low, high, 0, 1]) | st.integers(low, high)
    return f"{kind}{unsigned}", some.map(str)


@st.composite
def floats(draw: Draw) -> tuple[str, SearchStrategy[str]]:
    kind = draw(st.sampled_from(["float", "double", "float unsigned", "float(9,3)",
                                 "double(20,5)", "double unsigned"]))  # fmt: skip
    width = 32 if kind.startswith("float") else 64
    least = 0 if "unsigned" in kind else None
    some = st.floats(min_value=least, allow_nan=False, allow_infinity=False, width=width)
    edges = ["0e0", "1e-45", "5e-324", "3.4028234663852886e38", "0.1e0"]
    edges += [] if "unsigned" in kind else ["-1e-60", "-1e-45", "-0.1e0"]
    return kind, st.sampled_from(edges) | some.map(lambda number: f"{number!r}e0".replace(
        "e0", "" if "e" in repr(number) else "e0"))  # fmt: skip


@st.composite
def decimals(draw: Draw) -> tuple[str, SearchStrategy[str]]:
    precision = draw(st.sampled_from([1, 9, 10, 18, 19, 27, 65]) | st.integers(1, 65))
    scale = draw(st.integers(0, min(precision, 30)))
    unsigned = draw(st.sampled_from(["", " unsigned", " zerofill"]))
    top = 10**precision - 1
    low = 0 if unsigned else -top
    digits = st.sampled_from([low, top, 0, 1]) | st.integers(low, top)
    literal = digits.map(lambda number: f"'{number}e-{scale}'")
    return f"decimal({precision},{scale}){unsigned}", literal


@st.composite
def bits(draw: Draw) -> tuple[str, SearchStrategy[str]]:
    width = draw(st.sampled_from([1, 7, 8, 9, 63, 64]) | st.integers(1, 64))
    top = 2**width - 1
    number = st.sampled_from([0, 1, top]) | st.integers(0, top)
    return f"bit({width})", number.map(lambda value: f"b'{value:b}'")


@st.composite
def texts(draw: Draw) -> tuple[str, SearchStrategy[str]]:
    charset = draw(st.sampled_from(sorted(CHARSETS)))
    most = 255 * 4 // CHARSETS[charset] if draw(st.booleans()) else 300
    kind = draw(st.sampled_from(["char", "varchar", "tinytext", "text", "mediumtext", "longtext"]))
    length = {
        "char": draw(st.sampled_from([0, 1, 63, 64, 85, 86, 127, 128, 255])),
        "varchar": draw(st.sampled_from([0, 1, 63, 64, 85, 86, 255, 256, most])),
    }.get(kind)
    packed = (
        " compressed"
        if kind != "char" and length != 0 and draw(st.integers(0, 5)) == 0 and on_mariadb()
        else ""
    )
    size = f"({length})" if length is not None else ""
    limit = min(length if length is not None else 50, 50)
    some = st.text(ALPHABET, max_size=limit).map(text_literal)
    if limit and kind not in ("tinytext",):
        some |= st.sampled_from([text_literal("x" * (length or 500))])
    return f"{kind}{size}{packed} character set {charset}", some


@st.composite
def binaries(draw: Draw) -> tuple[str, SearchStrategy[str]]:
    length = draw(st.sampled_from([1, 16, 127, 128, 255]))
    compressed = ["blob compressed", "varbinary(300) compressed"] if on_mariadb() else []
    kind = draw(st.sampled_from([f"binary({length})", f"varbinary({length})", "varbinary(256)",
                                 "varbinary(700)", "tinyblob", "blob", "mediumblob", "longblob",
                                 *compressed]))  # fmt: skip
    limit = length if f"({length})" in kind else 100
    return kind, st.binary(max_size=limit).map(hexed) | st.sampled_from(["x'00'", "x'20'", "''"])


def members(draw: Draw, most: int) -> tuple[str, int]:
    charset = draw(st.sampled_from(["utf8mb4", "utf8mb3", "latin1", "ucs2", "cp1251", "armscii8"]))
    many = draw(st.sampled_from([1, 2, 8, 9, 16, 17, 24, 25, 32, 33, most]))
    special = {"latin1": "é€", "cp1251": "Жя", "armscii8": "x"}.get(charset, "日é\\'")
    names = [f"m{number}{special if number == 1 else ''}" for number in range(min(many, most))]
    listed = ",".join("'" + n.replace("\\", "\\\\").replace("'", "''") + "'" for n in names)
    return f"({listed}) character set {charset}", len(names)


@st.composite
def enums(draw: Draw) -> tuple[str, SearchStrategy[str]]:
    listed, count = members(draw, draw(st.sampled_from([255, 256, 300])))
    return "enum" + listed, (st.sampled_from([0, 1, count]) | st.integers(0, count)).map(str)


@st.composite
def sets(draw: Draw) -> tuple[str, SearchStrategy[str]]:
    listed, count = members(draw, 64)
    top = 2**count - 1
    return "set" + listed, (st.sampled_from([0, 1, top]) | st.integers(0, top)).map(str)


@st.composite
def moments(draw: Draw) -> tuple[str, SearchStrategy[str]]:
    short = ["year(2)"] if on_mariadb() else []
    kind = draw(st.sampled_from(["date", "datetime", "timestamp", "time", "year", *short]))
    if kind.startswith("year"):
        years = st.sampled_from(["0", "1901", "2155", "1970", "2069"])
        return kind, years if kind == "year" else st.sampled_from(["'70'", "'69'", "'1'", "'99'"])
    fsp = 0 if kind == "date" else draw(st.integers(0, 6))

    @st.composite
    def literal(draw: Draw) -> str:
        if kind == "timestamp":
            day = draw(st.sampled_from(["1970-01-02", "2038-01-18", "2024-02-29"]))
            return draw(
                st.sampled_from(["'0000-00-00 00:00:00'", f"'{day} {clock(draw, fsp, 23)}'"])
            )
        if kind == "time":
            sign = draw(st.sampled_from(["", "-"]))
            return f"'{sign}{clock(draw, fsp, draw(st.sampled_from([0, 23, 837])))}'"
        day = draw(st.sampled_from(DATES) | st.dates().map(str))
        return f"'{day}'" if kind == "date" else f"'{day} {clock(draw, fsp, 23)}'"

    # Without NULL spelled out, old servers make a TIMESTAMP NOT NULL.
    return (f"{kind}({fsp})" if fsp else kind) + " null" * (kind == "timestamp"), literal()


@st.composite
def geometries(draw: Draw) -> tuple[str, SearchStrategy[str]]:
    kind = draw(st.sampled_from(["geometry", "point"]))
    return kind, st.sampled_from(["POINT(1,2)", "ST_GeomFromText('POINT(-1 0.1)', 4326)"])


@st.composite
def addresses(draw: Draw) -> tuple[str, SearchStrategy[str]]:
    kind = draw(st.sampled_from(["uuid", "inet6", "inet4"]))
    if kind == "uuid":
        return kind, st.uuids().map(lambda value: f"'{value}'") | st.sampled_from(
            ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffff00'",
             "'00112233-4455-6677-8899-aabbccddeeff'", "'00112233-4455-7677-8899-aabbccddeeff'",
             "'00112233-4455-5677-0899-aabbccddee00'", "'00112233-4455-0677-8899-aabbccddeeff'"]
        )  # fmt: skip
    if kind == "inet4":
        return kind, st.ip_addresses(v=4).map(lambda value: f"'{value}'")
    return kind, st.ip_addresses(v=6).map(lambda value: f"'{value}'")


JSON_SCALARS = [
    "NULL", "CAST('true' AS JSON)", "CAST('false' AS JSON)", "0", "1", "-1", "32767", "32768",
    "-32768", "-32769", "2147483647", "2147483648", "-2147483648", "-2147483649",
    "9223372036854775807", "-9223372036854775808", "18446744073709551615",
    "CAST(0 AS UNSIGNED)", "CAST(65535 AS UNSIGNED)", "CAST(65536 AS UNSIGNED)",
    "CAST(4294967296 AS UNSIGNED)", "0e0", "CAST('-0.0' AS JSON)", "1.0e0", "1e15", "1e16",
    "1e-14", "1e-15", "1e-16", "5e-324", "1.7976931348623157e308", "1.50", "-0.001", "0.0", "3.0",
    "CAST(3 AS DECIMAL(30,0))", "CAST(0.5 AS DECIMAL(65,30))", "CAST('-9e34' AS DECIMAL(65,30))",
    "CAST('2020-01-02' AS DATE)", "TIME'-838:59:59'", "TIME'01:02:03.000004'", "TIME'00:00:00'",
    "TIMESTAMP'9999-12-31 23:59:59.999999'", "TIMESTAMP'0001-01-01 00:00:00'",
    "CAST(FROM_UNIXTIME(1.5) AS JSON)", "x'00ff'", "CAST('' AS BINARY)",
    "CAST(REPEAT('b', 100) AS BINARY)", "CAST(CAST(1 AS YEAR) AS JSON)",
    "ST_GeomFromText('POINT(1 2.5)')", "''", "'2020-01-02'", "'base64:type15:AQI='", "'3'",
    "REPEAT('s', 127)", "REPEAT('s', 128)", "REPEAT('long', 4096)", "REPEAT('longer', 11000)",
]  # fmt: skip
"""Each kind of element that MySQL's JSON knows, at the borders of its forms, and their doubles."""


def json_elements() -> SearchStrategy[str]:
    numbers = st.floats(allow_nan=False, allow_infinity=False).map(lambda one: f"({one!r}+0e0)")
    texts = st.text(ALPHABET, max_size=20).map(text_literal)
    wholes = st.integers(-(2**63), 2**64 - 1).map(str)
    return st.sampled_from(JSON_SCALARS) | numbers | texts | wholes


def json_containers(inner: SearchStrategy[str]) -> SearchStrategy[str]:
    keys = st.text(ALPHABET, max_size=5).map(text_literal)
    members = st.lists(st.tuples(keys, inner).map(", ".join), max_size=5)
    arrays = st.lists(inner, max_size=5).map(lambda some: f"JSON_ARRAY({', '.join(some)})")
    return arrays | members.map(lambda some: f"JSON_OBJECT({', '.join(some)})")


@st.composite
def documents(draw: Draw) -> tuple[str, SearchStrategy[str]]:
    whole = st.recursive(json_elements(), json_containers, max_leaves=12)
    top = json_elements().map(lambda one: f"JSON_EXTRACT(JSON_ARRAY({one}), '$[0]')")
    return draw(st.just("json")), json_containers(whole) | top


MARIADB_ALONE, MYSQL_ALONE = {"addresses"}, {"documents"}

FAMILIES: dict[str, Callable[[], SearchStrategy[tuple[str, SearchStrategy[str]]]]] = {
    "integers": integers, "floats": floats, "decimals": decimals, "bits": bits, "texts": texts,
    "binaries": binaries, "enums": enums, "sets": sets, "moments": moments,
    "geometries": geometries, "addresses": addresses, "documents": documents,
}  # fmt: skip


@st.composite
def columns(draw: Draw, rows: int) -> RandomColumn:
    known = sorted(FAMILIES.keys() - (MYSQL_ALONE if on_mariadb() else MARIADB_ALONE))
    definition, literal = draw(FAMILIES[draw(st.sampled_from(known))]())
    nullable = draw(st.booleans())
    some = literal | st.just("NULL") if nullable else literal
    if not nullable:
        definition = definition.removesuffix(" null") + " not null"
    definition += draw(st.sampled_from(["", "", " invisible"])) if nullable else ""
    return RandomColumn(definition, tuple(draw(some) for _ in range(rows)))


@dataclass(frozen=True)
class RandomTable:
    """A table's definition behind its name, and rows as lists of literals."""

    definition: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


KEYS = ["PRIMARY KEY (id)", "PRIMARY KEY (other, id)", "PRIMARY KEY (code(3), id)", "UNIQUE (id)",
        "KEY (id)", "UNIQUE (code), UNIQUE (other, id)", "UNIQUE (long_text), KEY (id)",
        "UNIQUE (perhaps), UNIQUE (code(2)), UNIQUE (other)"]  # fmt: skip


@st.composite
def tables(draw: Draw, rows: int = 3) -> RandomTable:
    """Random columns around a few fixed ones, generated ones among them, and some key."""
    some = draw(st.lists(columns(rows), min_size=1, max_size=9))
    names = tuple(f"c{at}" for at in range(len(some)))
    fixed = ("id", "code", "other", "perhaps", "long_text")
    key = draw(st.sampled_from([key for key in KEYS if on_mariadb() or "long_text" not in key]))
    lines = [
        "id int NOT NULL", "code varchar(20) NOT NULL", "twice bigint AS (id * 2) VIRTUAL",
        *(f"{name} {column.definition}" for name, column in zip(names, some, strict=True)),
        "kept int AS (id + 1) STORED", "other smallint unsigned NOT NULL", "perhaps int",
        "long_text text",
    ]  # fmt: skip
    values = tuple(
        (str(row), f"'k{row}'", str(row + 60000), "NULL" if row else "7", f"'long {row}'",
         *(column.literals[row] for column in some))
        for row in range(rows)
    )  # fmt: skip
    return RandomTable(f"({', '.join([*lines, key])})", fixed + names, values)

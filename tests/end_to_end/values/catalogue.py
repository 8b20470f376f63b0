"""Every type of the servers with its interesting values, listed once: the tests of values draw
their tables from here.

A `Kind` is a column's definition, SQL literals for it, and how both sides print a value of it
(`printing`). Literals that PostgreSQL cannot hold stand apart, each with what `raw` shows instead
and the reason that `raw.etl_value_exceptions` gives. Kinds of one family share a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.end_to_end.values import printing
from tests.end_to_end.values.printing import Printing


@dataclass(frozen=True)
class Unholdable:
    """A literal that PostgreSQL cannot hold; `shown` as `printing` prints it in `raw`."""

    literal: str
    reason: str
    shown: object = None


@dataclass(frozen=True)
class Kind:
    """A column: its definition without a name, and values for it."""

    definition: str
    printing: Printing
    literals: tuple[str, ...]
    unholdable: tuple[Unholdable, ...] = ()


NO_DATE = "no such date in PostgreSQL"
Family = dict[str, Kind]
"""Columns of one table by their names."""


def _kinds(definitions: Iterable[str], how: Printing, *literals: str) -> list[Kind]:
    return [Kind(definition, how, literals) for definition in definitions]


def _family(*groups: Iterable[Kind]) -> Family:
    kinds = [kind for group in groups for kind in group]
    return {f"c{number}": kind for number, kind in enumerate(kinds)}


# --- numbers -------------------------------------------------------------------------------------


def _integers() -> list[Kind]:
    widths = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
    made = []
    for name, bits in widths.items():
        top, half = 2**bits - 1, 2 ** (bits - 1)
        signed = (f"{-half}", f"{half - 1}", "-1", "0", "1", f"{half // 2}")
        made += _kinds([name], printing.NUMBER, *signed)
        unsigned = ("0", f"{top}", f"{half}", f"{half - 1}", "1")
        made += _kinds([f"{name} unsigned", f"{name} zerofill"], printing.NUMBER, *unsigned)
    return [*made, *_kinds(["bool"], printing.NUMBER, "0", "1", "42", "-128")]


def _decimals() -> list[Kind]:
    made = []
    for precision, scale in (
        (65, 30), (65, 0), (30, 30), (1, 0), (1, 1), (9, 0), (9, 9), (10, 2), (18, 9), (19, 10),
        (27, 18), (38, 4),
    ):  # fmt: skip
        digits = "9" * precision
        top = f"{digits[scale:] or '0'}.{digits[:scale]}".rstrip(".")
        least = f"0.{'0' * (scale - 1)}1" if scale else "1"
        some = (f"'{top}'", f"'-{top}'", f"'{least}'", f"'-{least}'", "0", "'1e0'", "'-0.0'")
        if precision == scale:
            some = tuple(one for one in some if "e" not in one)
        made += _kinds([f"decimal({precision},{scale})"], printing.NUMBER, *some)
    return [
        *made,
        *_kinds(["decimal(12,3) unsigned", "decimal(12,3) zerofill"], printing.NUMBER,
                "0", "'999999999.999'", "'0.001'"),
    ]  # fmt: skip


FLOATS = (
    "0e0", "1e0", "0.1e0", "16777217e0", "3.4028234663852886e38", "1.1754943508222875e-38",
    "1.401298464324817e-45", "1e-42", "3.1415927410125732e0", "123456.789e0", "9.999999e-5",
    "8388609e0", "1e10", "33554433e0", "1.17549421e-38",
)  # fmt: skip
DOUBLES = (
    *FLOATS, "1.7976931348623157e308", "2.2250738585072014e-308", "5e-324",
    "2.225073858507201e-308", "4.9e-320", "9007199254740993e0", "0.30000000000000004e0", "1e15",
    "1e16", "123456789012345680e0", "1e22", "1e23", "5e-5", "0.0001e0", "1234567.1234567e0",
    "1.0000000000000002e0", "179769313486231570e0", "4503599627370497.5e0",
)  # fmt: skip
NEGATIVE_ZERO = "(0e0 * -1e0)"


def _floats() -> list[Kind]:
    def signed(literals: tuple[str, ...]) -> tuple[str, ...]:
        return (*literals, *(f"-{one}" for one in literals[1:]), NEGATIVE_ZERO)

    rounded = ("0e0", "3.14159e0", "-1234.5678e0", "0.0005e0", "1e-3", NEGATIVE_ZERO)
    return [
        *_kinds(["float"], printing.FLOAT, *signed(FLOATS)),
        *_kinds(["float unsigned"], printing.FLOAT, *FLOATS),
        *_kinds(["double"], printing.DOUBLE, *signed(DOUBLES)),
        *_kinds(["double unsigned"], printing.DOUBLE, *DOUBLES),
        *_kinds(["float(9,3)"], printing.FLOAT, *rounded),
        *_kinds(["double(20,5)"], printing.DOUBLE, *rounded),
    ]


def _bits() -> list[Kind]:
    made = []
    for width in range(1, 65):
        top = 2**width - 1
        numbers = {0, 1, top, top // 3, 1 << (width - 1)}
        literals = [f"b'{number:b}'" for number in sorted(numbers)]
        made += _kinds([f"bit({width})"], printing.bits(width), *literals)
    return made


# --- time ----------------------------------------------------------------------------------------

IMPOSSIBLE_DAYS = (
    "0000-00-00", "2020-00-15", "2020-02-00", "2020-00-00", "0000-01-01", "2020-02-31",
    "2023-02-29", "0000-02-29", "9999-00-00",
)  # fmt: skip
DAYS = ("0001-01-01", "9999-12-31", "2024-02-29", "1582-10-10", "1000-01-01", "1900-03-01",
        "0099-12-31", "2000-02-29")  # fmt: skip


def _fractions(fsp: int) -> list[str]:
    """Fractions at both ends and around the middle, with their point."""
    if not fsp:
        return [""]
    return [f".{number:0{fsp}d}" for number in sorted({0, 1, 10**fsp // 2, 10**fsp - 1})]


def _moments(fsp: int) -> Iterable[str]:
    for number, day in enumerate(DAYS):
        clock = ("00:00:00", "23:59:59", "12:34:56")[number % 3]
        for fraction in _fractions(fsp)[: 4 if number < 2 else 1]:
            yield f"'{day} {clock}{fraction}'"


def _datetimes() -> list[Kind]:
    made = []
    for fsp in range(7):
        bad = [
            Unholdable(f"'{day} 10:20:30{fraction}'", NO_DATE)
            for day in IMPOSSIBLE_DAYS
            for fraction in _fractions(fsp)[-1:]
        ]
        definition = f"datetime({fsp})"
        made.append(Kind(definition, printing.MOMENT, tuple(_moments(fsp)), tuple(bad)))
    return made


def _timestamps(last: str) -> list[Kind]:
    """`last`: where the server's range ends, to the second, in UTC."""
    made = []
    for fsp in range(7):
        moments = [
            f"'{second}{fraction}'"
            for second in (
                "1970-01-01 00:00:01", last, "2000-02-29 23:59:59",
                # In New York: an hour that is left out, and one that comes twice.
                "2024-03-10 06:59:59", "2024-03-10 07:00:00",
                "2024-11-03 05:30:00", "2024-11-03 06:30:00",
            )
            for fraction in _fractions(fsp)
        ]  # fmt: skip
        zero = Unholdable("'0000-00-00 00:00:00'", NO_DATE)
        made.append(Kind(f"timestamp({fsp}) NULL", printing.MOMENT, tuple(moments), (zero,)))
    return made


def _times() -> list[Kind]:
    made = []
    for fsp in range(7):
        spans = [
            f"'{sign}{clock}{fraction}'"
            for sign in ("", "-")
            for clock in ("00:00:00", "01:00:00", "838:59:58", "100:00:00", "24:00:00", "23:59:59")
            for fraction in _fractions(fsp)
        ]
        last = f"838:59:59{'.' + '0' * fsp if fsp else ''}"
        literals = (*spans, f"'{last}'", f"'-{last}'")
        made.append(Kind(f"time({fsp})", printing.SPAN, literals))
    return made


def _days() -> list[Kind]:
    bad = tuple(Unholdable(f"'{day}'", NO_DATE) for day in IMPOSSIBLE_DAYS)
    days = tuple(f"'{day}'" for day in DAYS)
    return [
        Kind("date", printing.DAY, days, bad),
        *_kinds(["year"], printing.NUMBER, "0", "1901", "2155", "1970", "2000", "2069"),
    ]


# --- text ----------------------------------------------------------------------------------------

TEXTS = (
    "''", "' '", "'a  '", "'  a'", "'\\\\N'", "'\\\\'", "'\\\\.'", "'\\\\\\\\t'",
    "'tab\\tnl\\ncr\\rend'", "'\\b\\Z\\'\"`%s%%'",
    "UNHEX('0102030405060708090B0C0E0F101112131415161718191A1B1C1D1E1F7F')",
    "'NULL'", "'é'", "'Straße'", "'\\\\x41'", "'{}'",
)  # fmt: skip
WIDE_TEXTS = ("'日本語'", "'e\\u0301'", "_utf8mb4 X'65CC81'", "_utf8mb4 X'EFBFBF'",
              "_utf8mb4 X'EFBFBD'", "_utf8mb4 X'EFBBBF61'", "_utf8mb4 X'E280A8'",
              "_utf8mb4 X'C280'", "_utf8mb4 X'DFBF'", "_utf8mb4 X'E0A080'",
              "_utf8mb4 X'EE8080'", "_utf8mb4 X'EFB790'")  # fmt: skip
ASTRAL_TEXTS = ("'😀'", "_utf8mb4 X'F0908080'", "_utf8mb4 X'F48FBFBF'", "REPEAT('😀', 60)")


def _nul(literal: str, shown: str) -> Unholdable:
    return Unholdable(literal, "NUL in text", shown.encode().hex().upper())


NULS = (_nul("'a\\0b'", "a\\0b"), _nul("UNHEX('00')", "\\0"), _nul("'\\0\\t\\0'", "\\0\t\\0"))


def _texts() -> list[Kind]:
    mb4 = (*TEXTS, *WIDE_TEXTS, *ASTRAL_TEXTS)
    sets = {"utf8mb4": mb4, "utf8mb3": (*TEXTS, *WIDE_TEXTS), "latin1": TEXTS}
    made = [
        Kind(f"{definition} CHARACTER SET {charset}", printing.TEXT, literals, NULS)
        for charset, literals in sets.items()
        for definition in ("varchar(255)", "varchar(300)", "tinytext", "text", "mediumtext",
                           "longtext")
    ]  # fmt: skip
    # CHAR gives its values without the spaces at their ends, to everybody.
    made += [
        Kind(f"char({length}) CHARACTER SET {charset}", printing.TEXT, literals, NULS)
        for charset, literals in sets.items()
        for length in (60, 255)
    ]
    made += _kinds(["char(0)", "varchar(0)"], printing.TEXT, "''")
    large = (
        "REPEAT('x', 70000)",
        "REPEAT('é', 70000)",
        "REPEAT('\\\\', 70000)",
        "REPEAT('\\t', 9)",
    )
    return [*made, *_kinds(["mediumtext CHARACTER SET utf8mb4"], printing.DIGEST, *large)]


def _surrogates(family: str) -> list[Kind]:
    """Halves of pairs, which no text has; some servers take them in some character sets."""
    invalid = [Unholdable(f"_ucs2 X'{raw}'", "not valid ucs2") for raw in ("D83D", "D83DDE00")]
    kinds = [Kind("varchar(20) CHARACTER SET ucs2", printing.TEXT, ("'ok'",), tuple(invalid))]
    if family == "mysql":
        return kinds
    for charset, raw in (("utf8mb3", "EDA0BD"), ("utf8mb4", "61EDB08062"), ("utf32", "0000D800")):
        bad = Unholdable(f"_{charset} X'{raw}'", f"not valid {charset}")
        kinds.append(Kind(f"varchar(20) CHARACTER SET {charset}", printing.TEXT, ("'ok'",), (bad,)))
    return kinds


# --- bytes ---------------------------------------------------------------------------------------

BYTES = ("''", "X'00'", "X'20'", "X'5C'", "X'5C4E'", "X'090A0D'", "X'FF'", "X'0001000200'",
         "X'61000000'", "X'DEADBEEF'", "X'80'", "X'0000'")  # fmt: skip
GEOMETRIES = {
    "point": ("POINT(0 0)", "POINT(-1.5 1e-300)", "POINT(1e300 -0.1)"),
    "linestring": ("LINESTRING(0 0,1 1,2 0.5)",),
    "polygon": ("POLYGON((0 0,4 0,4 4,0 4,0 0),(1 1,2 1,2 2,1 2,1 1))",),
    "multipoint": ("MULTIPOINT(0 0,1 1)",),
    "multilinestring": ("MULTILINESTRING((0 0,1 1),(2 2,3 3))",),
    "multipolygon": ("MULTIPOLYGON(((0 0,1 0,1 1,0 0)),((2 2,3 2,3 3,2 2)))",),
    "geometrycollection": ("GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))",
                           "GEOMETRYCOLLECTION EMPTY"),
}  # fmt: skip


def _bytes() -> list[Kind]:
    whole = ["varbinary(200)", "varbinary(300)", "tinyblob", "blob", "mediumblob", "longblob"]
    whole += ["binary(5)", "binary(16)", "binary(255)"]
    every = f"X'{bytes(range(256)).hex()}'"
    return [
        *_kinds(whole, printing.BYTES, *BYTES),
        *_kinds(["blob", "varbinary(256)"], printing.BYTES, every),
        *_kinds(["binary(0)", "varbinary(0)"], printing.BYTES, "''"),
        *_kinds(["mediumblob"], printing.BYTES_DIGEST, "REPEAT(X'00', 70000)"),
    ]


def _geometries() -> list[Kind]:
    made = [
        Kind(name, printing.BYTES, tuple(f"ST_GeomFromText('{text}')" for text in texts))
        for name, texts in GEOMETRIES.items()
    ]
    anything = [
        f"ST_GeomFromText('{text}'{srid})"
        for text in ("POINT(1 2)", *(texts[-1] for texts in GEOMETRIES.values()))
        for srid in ("", ", 0", ", 4326")
        if "300" not in text
    ]
    return [*made, *_kinds(["geometry"], printing.BYTES, *anything)]


# --- lists ---------------------------------------------------------------------------------------

MEMBERS = (
    "a",
    "b c",
    "",
    "ü",
    "it''s",
    'x"y',
    "\\\\",
    "%s",
    "日",
    "a.b",
    "tab\\there",
    "NULL",
    "ß",
)


def _lists() -> list[Kind]:
    words = ",".join(f"'{member}'" for member in MEMBERS)
    plain = ",".join(f"'{member}'" for member in MEMBERS if member)
    numbers = tuple(str(number) for number in range(len(MEMBERS) + 1))
    many = ",".join(f"'m{number}'" for number in range(300))
    full = ",".join(f"'s{number}'" for number in range(64))
    latin = "'é','ß','€','ÿ'"
    sets = ("0", "1", "2", "3", str(2 ** (len(MEMBERS) - 1) - 1))
    kinds = [
        *_kinds([f"enum({words}) CHARACTER SET utf8mb4"], printing.TEXT, *numbers),
        *_kinds([f"enum({words}) CHARACTER SET utf8mb3"], printing.TEXT, *numbers),
        *_kinds([f"enum({many})"], printing.TEXT, "0", "1", "255", "256", "300"),
        *_kinds([f"enum({latin}) CHARACTER SET latin1"], printing.TEXT, "0", "1", "2", "3", "4"),
        *_kinds(["enum('Ž','ů') CHARACTER SET keybcs2"], printing.TEXT, "0", "1", "2"),
        *_kinds(["enum('あ','～') CHARACTER SET eucjpms"], printing.TEXT, "0", "1", "2"),
        *_kinds([f"set({plain}) CHARACTER SET utf8mb4"], printing.TEXT, *sets),
        *_kinds([f"set({full})"], printing.TEXT, "0", "1", str(2**63), str(2**64 - 1), str(2**32)),
        *_kinds([f"set({latin}) CHARACTER SET latin1"], printing.TEXT, "0", "15", "8"),
        *_kinds(["set('','a','b')"], printing.TEXT, "0", "1", "2", "3", "7"),
        *_kinds(["enum('?','a') CHARACTER SET utf8mb4"], printing.TEXT, "0", "1", "2"),
    ]
    nul = _nul("1", "n\\0l")
    return [*kinds, Kind("enum('n\\0l','ok')", printing.TEXT, ("2",), (nul,))]


def _beyond_utf8mb3() -> list[Kind]:
    """Members that no catalog spells: a first copy refuses them, the stream knows them."""
    return [
        *_kinds(["enum('😀','😁','a') CHARACTER SET utf8mb4"], printing.TEXT, "0", "1", "2", "3"),
        *_kinds(["set('😀','ä') CHARACTER SET utf8mb4"], printing.TEXT, "0", "1", "3"),
    ]


# --- what only one family of servers has ---------------------------------------------------------


def _of_mariadb() -> list[Kind]:
    uuids = (
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffff00",
        "00112233-4455-6677-8899-aabbccddeeff",
        "00112233-4455-1677-8899-aabbccddeeff",
        "00112233-4455-7677-8899-aabbccddeeff",
        "123e4567-e89b-12d3-a456-426655440000",
    )
    inet6 = ("::", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::", "::ffff:1.2.3.4")
    inet4 = ("0.0.0.0", "255.255.255.255", "1.2.3.0")  # fmt: skip
    packed = ("''", "'short'", "REPEAT('long ', 500)", "REPEAT(' ', 300)")
    return [
        *_kinds(["uuid"], printing.address(16), *(f"'{one}'" for one in uuids)),
        *_kinds(["inet6"], printing.address(16), *(f"'{one}'" for one in inet6)),
        *_kinds(["inet4"], printing.address(4), *(f"'{one}'" for one in inet4)),
        *_kinds(["text COMPRESSED CHARACTER SET utf8mb4", "varchar(3000) COMPRESSED",
                 "longtext COMPRESSED CHARACTER SET ucs2"], printing.TEXT, *packed, "'é'"),
        *_kinds(["blob COMPRESSED", "varbinary(3000) COMPRESSED"], printing.BYTES, *packed,
                "X'00'"),
        *_kinds(["json"], printing.TEXT, "'{}'", "'[1, \"\\\\u0000\", 1e400]'", "'null'"),
        *_kinds(["year(2)"], printing.SHORT_YEAR, "'70'", "'69'", "'1'", "'99'", "'0'"),
        Kind("varchar(20) COMPRESSED CHARACTER SET utf8mb4", printing.TEXT, ("'a'",), NULS[:1]),
    ]  # fmt: skip


def _vectors(make: str) -> list[Kind]:
    some = (f"{make}('[1,2,3]')", f"{make}('[-0.5,1e-30,3.4e38]')", f"{make}('[0,0,0]')")
    return _kinds(["vector(3)"], printing.BYTES, *some)


JSON_VALUES = (
    "null", "true", "false", "0", "-1", "65535", "65536", "4294967296", "9223372036854775807",
    "-9223372036854775808", "18446744073709551615", "1.5", "1e308", "-1e-308", "5e-324", "0.1",
    "123456789012345678901234567890", '""', '"a"', '"日本😀\\\\u00e9"',
    '"q\\\\"\\\\\\\\/\\\\b\\\\f\\\\n\\\\r\\\\t"',
    '"\\\\u0001"', '"\\\\\\\\u0000"', "{}", "[]", '[[[[[]]]], {"a": {"b": [1, null]}}]',
    '{"": 1, "b": 2, "aa": 3, "é": 4}', "[1, 2.0, 3e0]", '{"k\\\\"ey": "v"}',
)  # fmt: skip
JSON_EXPRESSIONS = (
    "CAST(CAST('2020-01-02' AS DATE) AS JSON)", "CAST(TIME'-838:59:59' AS JSON)",
    "CAST(TIMESTAMP'9999-12-31 23:59:59.999999' AS JSON)",
    "CAST(CAST(1.50 AS DECIMAL(65,30)) AS JSON)",
    "JSON_ARRAY(X'00FF')", "JSON_ARRAY(CAST(18446744073709551615 AS UNSIGNED))",
    "CAST(ST_GeomFromText('POINT(1 2.5)') AS JSON)", "JSON_OBJECT('k', REPEAT('x', 70000))",
    "JSON_ARRAY(REPEAT('s', 127), REPEAT('s', 128), REPEAT('s', 16384))", "JSON_ARRAY(b'101')",
    "JSON_ARRAY(CAST(0.5 AS DECIMAL(20,10)), NOW(6), CURDATE(), YEAR('2020-01-01'))",
)  # fmt: skip


def _of_mysql() -> list[Kind]:
    nul = [
        Unholdable(f"'{text}'", "NUL in JSON")
        for text in ('"\\\\u0000"', '{"a\\\\u0000": 1}', '["\\\\\\\\\\\\u0000"]')
    ]
    literals = (*(f"'{value}'" for value in JSON_VALUES), *JSON_EXPRESSIONS)
    return [Kind("json", printing.JSON, literals, tuple(nul))]


# --- families ------------------------------------------------------------------------------------


def _generated() -> Family:
    """Columns that the server works out, and columns that SELECT * does not show."""
    number, text = printing.NUMBER, printing.TEXT
    return {
        "base": Kind("int", number, ("1", "-7", "2147483647")),
        "virtual_sum": Kind("bigint AS (base + 1) VIRTUAL", number, ()),
        "stored_text": Kind("varchar(30) AS (CONCAT('é', base)) STORED", text, ()),
        "virtual_text": Kind(
            "varchar(30) CHARACTER SET latin1 AS (CONCAT('n', base)) VIRTUAL", text, ()
        ),
        "hidden": Kind("int INVISIBLE", number, ("5", "6")),
        "hidden_default": Kind("varchar(9) DEFAULT 'seen' INVISIBLE", text, ("'set'",)),
        "stored_hidden": Kind("int AS (base * 2 DIV 3) STORED INVISIBLE", number, ()),
    }  # fmt: skip


def families(server: str) -> dict[str, Family]:
    """The tables' columns for a server, by the server's name as `--servers` has it."""
    mariadb = server.startswith("mariadb")
    wide_timestamps = server == "mariadb-11.8"
    made = {
        "numbers": _family(_integers(), _decimals()),
        "floats": _family(_floats()),
        "bits": _family(_bits()),
        "days": _family(_days(), _datetimes()),
        "moments": _family(
            _timestamps("2106-02-07 06:28:14" if wide_timestamps else "2038-01-19 03:14:07"),
            _times(),
        ),
        "texts": _family(_texts()),
        "surrogates": _family(_surrogates("mariadb" if mariadb else "mysql")),
        "bytes": _family(_bytes()),
        "geometries": _family(_geometries()),
        "lists": _family(_lists()),
        "generated": _generated(),
        "own": _family(_of_mariadb() if mariadb else _of_mysql()),
    }
    if server != "mariadb":
        made["vectors"] = _family(_vectors("VEC_FromText" if mariadb else "STRING_TO_VECTOR"))
    return made


BEYOND_UTF8MB3 = _family(_beyond_utf8mb3())

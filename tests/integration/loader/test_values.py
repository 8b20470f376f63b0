"""Every type of the replica arrives exactly, by the stream and by a load alike.

The oracle is the server's own SELECT; the drivers turn both sides into Python values.
"""

from __future__ import annotations

from contextlib import closing

import pytest

from loader.values import stamp_text
from replicator.sandbox.databases import PostgresDatabase
from tests.fix_servers import family

from .conftest import Harness, Replica

NUMBERS = (
    "ti tinyint, tu tinyint unsigned, si smallint, su smallint unsigned, mi mediumint,"
    " mu mediumint unsigned, i int, iu int unsigned, bi bigint, bu bigint unsigned,"
    " z int(8) unsigned zerofill, bo bool, y year, d1 decimal(65,30), d2 decimal(10,2),"
    " d3 decimal(9,9), d4 decimal(18,0) unsigned, d5 decimal(1,0), f float, g double,"
    " f2 float(7,3), g2 double(10,2), b1 bit(1), b7 bit(7), b64 bit(64), b13 bit(13)"
)
NUMBER_ROWS = (
    "-128, 0, -32768, 0, -8388608, 0, -2147483648, 0, -9223372036854775808, 0, 0, 0, 0,"
    " -99999999999999999999999999999999999.999999999999999999999999999999, -99999999.99,"
    " -0.999999999, 0, -9, -3.402823466e38, -1.7976931348623157e308, -1234.567, -12345678.99,"
    " b'0', b'0', b'0', b'0'",
    "127, 255, 32767, 65535, 8388607, 16777215, 2147483647, 4294967295, 9223372036854775807,"
    " 18446744073709551615, 4294967295, 1, 2155,"
    " 99999999999999999999999999999999999.999999999999999999999999999999, 99999999.99,"
    " 0.999999999, 999999999999999999, 9, 3.402823466e38, 1.7976931348623157e308, 1234.567,"
    " 12345678.99, b'1', b'1111111', b'1' << 63 | 1, b'1010101010101'",
    "-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, 42, 0, 1901, -0.000000000000000000000000000001, 0.01,"
    " -0.000000001, 1, 0, 1.17549435e-38, 4.9406564584124654e-324, 0.1, 0.1, 0, 5, 1, 4096",
    "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1970, 0, 0, 0, 0, 0, 0e0 * -1, 0e0 * -1, 0, 0, 0, 0, 0, 0",
    "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2000, 1.5, 10, 0.5, 7, 1, 0.1, 0.1, 16777217, 0.005,"
    " 0, 0, 0, 0",
    "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2000, 1234567890.1234567891, 10, 0.5, 7, 1, 1e-45,"
    " 2.2250738585072014e-308, 3.14159, 1.1, 0, 0, 0, 0",
)
TIMES = (
    "d date, dt datetime, dt1 datetime(1), dt3 datetime(3), dt6 datetime(6),"
    " ts timestamp NULL, ts2 timestamp(2) NULL, ts6 timestamp(6) NULL,"
    " t time, t1 time(1), t4 time(4), t6 time(6)"
)
TIME_ROWS = (
    "'0001-01-01', '0001-01-01 00:00:00', '0001-01-01', '9999-12-31 23:59:59.999',"
    " '9999-12-31 23:59:59.999999', '1970-01-01 00:00:01', '2038-01-19 03:14:07.99',"
    " '2038-01-19 03:14:07.999999', '-838:59:59', '838:59:58.9', '-00:00:00.0001',"
    " '-838:59:58.999999'",
    "'2024-02-29', '2024-02-29 12:34:56', '2000-01-01 00:00:00.5', '2000-01-01 00:00:00.005',"
    " '2000-01-01 00:00:00.000001', '2024-03-10 02:30:00', '1999-12-31 23:59:59.01',"
    " '2024-10-27 01:30:00.123456', '-01:00:00', '-00:00:00.5', '100:00:00.1234',"
    " '00:00:00.000001'",
    "'1000-01-01', '1582-10-10 00:00:00', '1899-12-31', '1900-01-01', '2000-06-15 01:02:03.4',"
    " '1980-01-01', '1980-01-01', '1980-01-01', '00:00:00', '00:00:00', '-12:34:56.5', '24:00:00'",
)
STRINGS = (
    "c char(10), cb char(20) CHARACTER SET utf8mb3, v varchar(300), v8 varchar(60),"
    " l varchar(40) CHARACTER SET latin1, u2 varchar(40) CHARACTER SET ucs2,"
    " u16 text CHARACTER SET utf16, a varchar(20) CHARACTER SET ascii,"
    " w1 text CHARACTER SET cp1250, cy varchar(30) CHARACTER SET koi8r, tt tinytext, tx text,"
    " mt mediumtext, lt longtext, js json, b binary(5), vb varchar(0), vbi varbinary(300),"
    " tb tinyblob, bl blob, mb mediumblob, lb longblob,"
    " e enum('a','b c','','ü','it''s, x'), s set('x','y','z','ä'),"
    " el enum('é','ß') CHARACTER SET latin1, cmp text COMPRESSED, cv varchar(1000) COMPRESSED,"
    " big char(255) CHARACTER SET utf8mb4"
)
if family() == "mysql":  # it has no compressed columns
    STRINGS = STRINGS.replace(" COMPRESSED", "")
STRING_ROWS = (
    "'', '', '', '', '', '', '', '', '', '', '', '', '', '', '{}', '', '', '', '', '', '', '',"
    " '', '', 'é', '', '', ''",
    "'a  ', 'é ü', REPEAT('x', 300), 'tab\\tnl\\ncr\\rbs\\\\N', 'äöü€ÿ', 'Ωß', '😀 a', '~',"
    " 'ěšč', 'жук', 'q', 'line\\nline', REPEAT('ö', 70000), '\\\\.', '[1, \"x\\\\u00e9\"]',"
    " X'01000200', '', X'00ff0a09', X'00', X'5c4e', REPEAT(X'00', 70000), X'deadbeef',"
    " 'it''s, x', 'x,z,ä', 'ß', REPEAT('comp', 1000), 'short', REPEAT('😀', 255)",
    "'\\\\N', '\\\\', ' lead', 'e\\u0301', UNHEX('818D8F909D'), 'x', 'x', 'x', 'x', 'x',"
    " REPEAT('t', 255), '\\b\\f\\v\\'\"', 'm', 'l', 'null', X'0000000000', '', X'5c', X'09', X'0a',"
    " X'0d', X'', 'a', 'y', 'é', '', REPEAT('z', 999), '\\\\t'",
)


@pytest.mark.parametrize(
    ("columns", "rows"),
    [(NUMBERS, NUMBER_ROWS), (TIMES, TIME_ROWS), (STRINGS, STRING_ROWS)],
    ids=["numbers", "times", "strings"],
)
def test_every_type_arrives_exactly(
    replica: Replica, harness: Harness, columns: str, rows: tuple[str, ...]
) -> None:
    tables = ("loaded", "streamed")
    for table in tables:
        replica.create(table, f"id int PRIMARY KEY, {columns}")
    nulls = ", ".join(["NULL"] * _width(replica, "loaded"))
    every = [*rows, nulls]
    inserts = [f"VALUES ({number}, {row})" for number, row in enumerate(every)]
    replica.commit(*(f"INSERT INTO loaded {insert}" for insert in inserts))
    harness.catch_up()
    replica.commit(*(f"INSERT INTO streamed {insert}" for insert in inserts))
    harness.catch_up()
    harness.assert_same(*tables)
    assert not harness.raw.query("SELECT * FROM raw.etl_value_exceptions")
    replica.commit("UPDATE streamed SET id = id + 100", "UPDATE loaded SET id = id + 50")
    harness.catch_up()
    harness.assert_same(*tables)
    if columns is NUMBERS:
        _assert_signs_of_zero(harness)


def _width(replica: Replica, table: str) -> int:
    count = replica.database.query(
        "SELECT count(*) - 1 FROM information_schema.columns"
        " WHERE table_schema = DATABASE() AND table_name = %s",
        (table,),
    )
    return int(count[0][0])


def _assert_signs_of_zero(harness: Harness) -> None:
    """The drivers call 0.0 and -0.0 equal; their text tells them apart."""
    ours = harness.raw.query("SELECT id, f::float8::text, g::text FROM raw.loaded ORDER BY id")
    streamed = harness.raw.query(
        "SELECT id - 50, f::float8::text, g::text FROM raw.streamed ORDER BY id"
    )
    assert ours == streamed


BAD = "d date, dt datetime(3), ts timestamp NULL, v varchar(20), y year"
BAD_ROWS = (
    "'0000-00-00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', 'a\\0b', 0",
    "'2020-00-15', '2020-02-31 10:00:00', NULL, UNHEX('00'), 1999",
    "'0000-01-01', '0000-05-05 00:00:00.5', NULL, 'ok', 2000",
)


def test_what_postgresql_cannot_hold_is_kept_aside(replica: Replica, harness: Harness) -> None:
    for table in ("loaded", "streamed"):
        replica.create(table, f"id int PRIMARY KEY, {BAD}")
    relaxed = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'"
    rows = [f"({number}, {row})" for number, row in enumerate(BAD_ROWS)]
    replica.commit(relaxed, f"INSERT INTO loaded VALUES {', '.join(rows)}")
    harness.catch_up()
    replica.commit(relaxed, f"INSERT INTO streamed VALUES {', '.join(rows)}")
    harness.catch_up()
    for table in ("loaded", "streamed"):
        found = harness.raw.query(f"SELECT d, dt, ts, v, y FROM raw.{table} ORDER BY id")
        assert found == [
            (None, None, None, "a\\0b", 0),
            (None, None, None, "\\0", 1999),
            (None, None, None, "ok", 2000),
        ]
        kept = harness.raw.query(
            "SELECT key, column_name, reason FROM raw.etl_value_exceptions"
            " WHERE table_name = %s ORDER BY 1, 2",
            (table,),
        )
        impossible = "no such date in PostgreSQL"
        assert kept == [
            ("0", "d", impossible),
            ("0", "dt", impossible),
            ("0", "ts", impossible),
            ("0", "v", "NUL in text"),
            ("1", "d", impossible),
            ("1", "dt", impossible),
            ("1", "v", "NUL in text"),
            ("2", "d", impossible),
            ("2", "dt", impossible),
        ]


def test_a_good_version_of_a_row_clears_its_exceptions(replica: Replica, harness: Harness) -> None:
    replica.create("t", "id int PRIMARY KEY, d date")
    replica.commit("INSERT INTO t VALUES (1, '0000-00-00'), (2, '0000-00-00')")
    harness.catch_up()
    replica.commit("UPDATE t SET d = '2020-01-01' WHERE id = 1")
    harness.catch_up()
    assert harness.raw.query("SELECT key FROM raw.etl_value_exceptions") == [("2",)]


def test_bytes_that_are_not_text_are_kept_aside(replica: Replica, harness: Harness) -> None:
    replica.create("t", "id int PRIMARY KEY, v varchar(20) CHARACTER SET utf8mb4, w blob")
    harness.catch_up()
    # The server itself checks text that it is given; a change of the column's meaning does not.
    replica.commit("INSERT INTO t VALUES (1, 'fine', X'C3')")
    replica.ddl("ALTER TABLE t MODIFY v varbinary(20)")
    replica.commit("UPDATE t SET v = X'C328'")
    replica.ddl("ALTER TABLE t MODIFY v varchar(20) CHARACTER SET latin1")
    replica.commit("INSERT INTO t VALUES (2, X'8182', X'C3')")
    harness.catch_up()
    assert harness.raw.query("SELECT id, v FROM raw.t ORDER BY id") == [(1, "Ã("), (2, "\x81‚")]


@pytest.mark.parametrize("moment", ["2026-11-23 19:45:37+00", "1970-01-01 00:00:00.000001+00"])
@pytest.mark.parametrize("style", ["ISO, MDY", "SQL, DMY", "German", "Postgres, YMD"])
def test_a_source_time_is_the_same_however_it_is_spelled(
    analytics_db: PostgresDatabase, moment: str, style: str
) -> None:
    with closing(analytics_db.connect()) as connection:
        connection.execute("SELECT set_config('DateStyle', %s, false)", [style])
        connection.execute("SET TimeZone = 'America/New_York'")
        found = connection.execute(
            "SELECT %s::text::timestamptz = %s::text::timestamptz",
            [stamp_text(moment).decode(), moment],
        ).fetchone()
    assert found == (True,)

"""Lines that go as binary rows leave what they leave as text; what does not go so, goes as text."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.connections import PostgresConnection
from loader import copying, upsert
from loader.copying import copies, copy_as_text, copy_into
from loader.quarantine.refusals import Reason, refusal
from loader.values import bytea, clock_text, escaped, float4, float8, stamp_text
from replicator.sandbox.databases import PostgresDatabase
from tests.integration.checked_build import MUTATIONS, build_checked, run_fuzzer
from tests.integration.loader.binary_reading import (
    BIT,
    BOOL,
    BYTEA,
    DATE,
    FLOAT4,
    FLOAT8,
    INT2,
    INT4,
    INT8,
    INTERVAL,
    JSONB,
    NUMERIC,
    TEXT,
    TIMESTAMP,
    TIMESTAMPTZ,
    TYPES,
    assert_same,
)

from .conftest import Harness, Replica
from .test_values import (
    NUMBER_ROWS,
    NUMBERS,
    STRING_ROWS,
    STRINGS,
    TIME_ROWS,
    TIMES,
)

binary_copy = pytest.importorskip("loader.binary_copy", reason="the module was not built")

COLUMNS: dict[str, tuple[int, tuple[bytes, ...]]] = {
    "smallint": (INT2, (b"0", b"-0", b"-32768", b"32767", b"-1", b"007")),
    "integer": (INT4, (b"0", b"-2147483648", b"2147483647", b"42")),
    "bigint": (INT8, (b"0", b"-9223372036854775808", b"9223372036854775807", b"-7")),
    "boolean": (BOOL, (b"t", b"f")),
    "real": (
        FLOAT4,
        (b"0.0", b"-0.0", b"1e-45", b"1.401298464324817e-45", b"3.4028234663852886e+38",
         b"-3.4028234663852886e+38", b"0.10000000149011612", b"0.1", b"16777217.0",
         b"1.1754943508222875e-38", b"7.038531e-26", b"1.00000017881393432617187499",
         b"1.00000017881393432617187500"),
    ),
    "double precision": (
        FLOAT8,
        (b"0.0", b"-0.0", b"5e-324", b"2.2250738585072014e-308", b"1.7976931348623157e+308",
         b"-1.7976931348623157e+308", b"1e+22", b"1e23", b"0.1", b"9007199254740993.0", b"0",
         b"0.46633561093603615", b"9007199254740992.5", b"123456789012345678901234567890.0"),
    ),
    "numeric(65,30)": (
        NUMERIC,
        (b"0.000000000000000000000000000000", b"-0.000000000000000000000000000001",
         b"99999999999999999999999999999999999.999999999999999999999999999999",
         b"-99999999999999999999999999999999999.999999999999999999999999999999", b"1", b"10000"),
    ),
    "numeric(20,0)": (NUMERIC, (b"18446744073709551615", b"0", b"00012", b"-0", b"1.5", b"-2.5")),
    "numeric(9,9)": (NUMERIC, (b"0.000000001", b"-0.999999999", b"0.12345678949", b"0.1")),
    "numeric": (NUMERIC, (b"1.50", b"1.5", b"0.00", b"-0.0", b"100000000", b"0.0001", b"1234.5")),
    "bit(1)": (BIT, (b"0", b"1")),
    "bit(13)": (BIT, (b"1010101010101", b"0000000000001")),
    "bit(64)": (BIT, (b"1" * 64, b"0" * 64, b"1" + b"0" * 62 + b"1")),
    "bit varying(9)": (1562, (b"", b"1", b"101010101")),
    "date": (DATE, (b"0001-01-01", b"9999-12-31", b"2000-02-29", b"1999-12-31", b"1582-10-10")),
    "timestamp(0) without time zone": (
        TIMESTAMP, (b"0001-01-01 00:00:00", b"9999-12-31 23:59:59", b"2024-02-29 12:34:56.5"),
    ),
    "timestamp(6) without time zone": (
        TIMESTAMP,
        (b"0001-01-01 00:00:00.000001", b"9999-12-31 23:59:59.999999", b"2000-01-01 00:00:00.0",
         b"1999-12-31 23:59:59.999999", b"2024-03-10 02:30:00", b"1970-01-01 00:00:00.12"),
    ),
    "timestamp(2) with time zone": (
        TIMESTAMPTZ, (b"1970-01-01 00:00:01+00", b"2038-01-19 03:14:07.99+00",
                      b"2024-10-27 01:30:00.995+00"),
    ),
    "timestamp with time zone": (
        TIMESTAMPTZ,
        (b"20261123 112233.123456Z", b"00010101 000000Z", b"99991231 235959.999999Z",
         b"20240310 070000Z", b"2106-02-07 06:28:15.999999+00"),
    ),
    "interval": (
        INTERVAL,
        (b"00:00:00", b"-838:59:59", b"838:59:59.999999", b"24:00:00", b"-00:00:00.5",
         b"-00:00:00.000001", b"100:00:00.1234", b"1000:00:00"),
    ),
    "text": (
        TEXT,
        (b"", b"a", b"\\\\N", b"tab\\there", b"a\\nb\\rc\\\\d", "é😀 ж".encode(), b"\x01\x7f\x1f",
         b"12345678", b"1234567\\t", b"12345678\\\\12345678", b"x" * 5000, b"\\\\x41", b" a "),
    ),
    "character varying(5)": (1043, (b"", b"abcde", "äöüäö".encode(), b"abc    ")),
    "character(3)": (1042, (b"", b"ab", b"abc")),
    "jsonb": (
        JSONB, (b"{}", b"null", b'[1, "x\\\\u00e9", 1.50]', '{"b": "é", "a": -0.0}'.encode(),
                b' "\\\\n\\\\\\\\" '),
    ),
    "bytea": (BYTEA, (b"\\\\x", b"\\\\x00ff5c0a09", b"\\\\x" + b"ab" * 3000)),
}  # fmt: skip
"""For each type its oid, and texts that are for binary."""
NOT_FOR_BINARY: dict[str, tuple[bytes, ...]] = {
    "integer": (b"+1", b" 1", b"1 "),
    "boolean": (b"true", b"1", b"yes"),
    "double precision": (b"NaN", b"Infinity", b"-inf", b" 1.5", b".5", b"5.", b"0x1p3"),
    "real": (b"NaN", b"1.", b"-Infinity"),
    "numeric": (b"NaN", b"1e3", b".5", b"5.", b"+1", b" 1"),
    "bit(8)": (b"xff", b"b00000001", b"B00000001"),
    "date": (b"infinity", b"2024-1-2", b"20240102", b"0044-03-15 BC", b"12024-01-01", b"J2451187"),
    "timestamp(6) without time zone": (
        b"2024-01-01", b"2024-01-01 23:59:60", b"2024-01-01 24:00:00", b"2024-01-01T00:00:00",
        b"2024-01-01 00:00:00.1234567", b"2024-01-01 00:00:00+02", b"infinity",
    ),
    "timestamp with time zone": (
        b"now", b"2024-01-01 00:00:00", b"2024-01-01 00:00:00+02", b"20240101 000000",
        b"2024-01-01 00:00:00.5-00", b"2024-01-01 00:00:00Z",
    ),
    "interval": (b"1 day", b"1:02", b"00:00:60", b"10000:00:00", b"00:00:00.1234567", b"1:02:03"),
    "text": (b"\\x41", b"\\101", b"\\b", b"\\q", b"\\v"),
    "bytea": (b"\\\\xAB", b"abc", b"\\\\x00 01", b"\\\\\\\\"),
    "uuid": (b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",),
}  # fmt: skip
"""Texts that PostgreSQL takes, perhaps with luck, and that are left to it."""


@pytest.fixture
def postgres(analytics_db: PostgresDatabase) -> Iterator[PostgresConnection]:
    with closing(analytics_db.connect(autocommit=False)) as connection:
        connection.execute("SET TimeZone = 'America/New_York'")
        yield connection


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows go by COPY too, and every block is worth asking for."""
    monkeypatch.setattr(upsert, "FEW_ROWS", 0)
    monkeypatch.setattr(copying, "ASK_BYTES", 1)


@pytest.fixture
def sent(asked_for: None, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Which blocks went as binary rows."""
    forms: list[bool] = []
    really = copying._formed

    def formed(*arguments: Any) -> Iterator[tuple[bool, bytes]]:
        for is_binary, block in really(*arguments):
            forms.append(is_binary)
            yield is_binary, block

    monkeypatch.setattr(copying, "_formed", formed)
    return forms


def create(connection: PostgresConnection, types: list[str]) -> list[str]:
    """Tables `texts` and `binaries` of the same columns; the columns' names."""
    names = [f"c{number}" for number in range(len(types))]
    columns = ", ".join(f"{n} {kind}" for n, kind in zip(names, types, strict=True))
    for table in ("texts", "binaries"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.execute(f"CREATE TEMPORARY TABLE {table} (number int, {columns})")
    return ["number", *names]


def copy_both(connection: PostgresConnection, names: list[str], lines: list[bytes]) -> None:
    """Copy lines into both tables, each in its form; their rows must be the same."""
    blocks = [b"%d\t%s\n" % numbered for numbered in enumerate(lines)]
    texts, binaries = (
        copies(connection, psycopg.sql.Identifier(table), names, ours=False)
        for table in ("texts", "binaries")
    )
    copy_as_text(connection, texts.text, blocks)
    copy_into(connection, binaries, blocks)
    differs = " OR ".join(
        f"t.{n} IS DISTINCT FROM b.{n} OR t.{n}::text IS DISTINCT FROM b.{n}::text"
        for n in names[1:]
    )
    query = f"SELECT number FROM texts t FULL JOIN binaries b USING (number) WHERE {differs}"
    assert connection.execute(query).fetchall() == []
    count = connection.execute("SELECT count(*) FROM binaries").fetchone()
    assert count == (len(lines),)


@pytest.mark.parametrize("kind", COLUMNS)
def test_both_ends_of_each_type_are_what_their_text_is(
    postgres: PostgresConnection, sent: list[bool], kind: str
) -> None:
    oid, values = COLUMNS[kind]
    copy_both(postgres, create(postgres, [kind]), [*values, b"\\N"])
    assert sent == [True] * (len(values) + 1)
    of_a_column = [type_ for (type_,) in postgres.execute(
        "SELECT atttypid::int FROM pg_attribute WHERE attrelid = 'binaries'::regclass"
        " AND attname = 'c0'")]  # fmt: skip
    assert of_a_column == [oid]


@pytest.mark.parametrize("kind", NOT_FOR_BINARY)
def test_other_spellings_go_as_text_between_the_others(
    postgres: PostgresConnection, sent: list[bool], kind: str
) -> None:
    values = NOT_FOR_BINARY[kind]
    names = create(postgres, [kind])
    copy = copies(postgres, psycopg.sql.Identifier("binaries"), names, ours=True)
    postgres.commit()
    for value in values:
        block = b"1\t%s\n" % value
        copy_into(postgres, copy, [b"0\t\\N\n", block, b"2\t\\N\n"])
        there = postgres.execute("SELECT number, c0::text IS NULL FROM binaries ORDER BY 1")
        assert there.fetchall() == [(0, True), (1, False), (2, True)]
        postgres.execute("DELETE FROM binaries")
    assert sent == ([] if kind == "uuid" else [True, False, True] * len(values))
    if kind != "timestamp with time zone":  # `now` is not the same twice
        copy_both(postgres, names, list(values))


moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999))
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
floats = st.floats(allow_nan=False, allow_infinity=False)
DRAWN: dict[str, tuple[int, st.SearchStrategy[bytes]]] = {
    "smallint": (INT2, st.integers(-(2**15), 2**15 - 1).map(b"%d".__mod__)),
    "integer": (INT4, st.integers(-(2**31), 2**31 - 1).map(b"%d".__mod__)),
    "bigint": (INT8, st.integers(-(2**63), 2**63 - 1).map(b"%d".__mod__)),
    "boolean": (BOOL, st.sampled_from([b"t", b"f"])),
    "real": (FLOAT4, st.floats(allow_nan=False, allow_infinity=False, width=32).map(float4)),
    "double precision": (FLOAT8, floats.map(float8)),
    "numeric(65,30)": (
        NUMERIC,
        st.decimals(-(10**34), 10**34, places=30).map(lambda number: f"{number:f}".encode()),
    ),
    "bit(7)": (BIT, st.integers(0, 127).map(lambda bits: f"{bits:07b}".encode())),
    "date": (DATE, st.dates(date(1, 1, 1)).map(lambda day: day.isoformat().encode())),
    "timestamp(6) without time zone": (
        TIMESTAMP, moments.map(lambda moment: moment.isoformat(" ").encode()),
    ),
    "timestamp(3) with time zone": (
        TIMESTAMPTZ, moments.map(lambda moment: moment.isoformat(" ").encode() + b"+00"),
    ),
    "timestamp with time zone": (
        TIMESTAMPTZ,
        moments.map(lambda moment: stamp_text(moment.isoformat(" ") + "+00")),
    ),
    "interval": (
        INTERVAL,
        st.tuples(st.sampled_from(["", "-"]), st.integers(0, 838), st.times()).map(
            lambda parts: (parts[0] + _clock(parts[1], parts[2])).encode()
        ),
    ),
    "text": (TEXT, texts.map(str.encode).map(escaped)),
    "jsonb": (
        JSONB,
        st.recursive(
            st.none() | st.booleans() | st.integers() | texts.filter(str.isalnum),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner),
            max_leaves=4,
        ).map(lambda value: escaped(_json(value).encode())),
    ),
    "bytea": (BYTEA, st.binary().map(bytea)),
}  # fmt: skip


def _clock(hour: int, rest: time) -> str:
    return clock_text(hour, rest.minute, rest.second, rest.microsecond, 6)


def _json(value: object) -> str:
    import json  # noqa: PLC0415

    return json.dumps(value)


lines_of_all = st.lists(
    st.tuples(*(st.just(b"\\N") | drawn for _, drawn in DRAWN.values())).map(b"\t".join),
    min_size=1, max_size=20,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(lines_of_all)
def test_any_values_are_what_their_text_is(
    postgres: PostgresConnection, sent: list[bool], lines: list[bytes]
) -> None:
    sent.clear()
    copy_both(postgres, create(postgres, list(DRAWN)), lines)
    assert sent == [True] * len(lines)
    types = [oid for oid, _ in DRAWN.values()]
    block = b"".join(line + b"\n" for line in lines)
    assert assert_same(block, binary_copy.Transcoder(types).transcode(block), types) == len(lines)


# --- damage ------------------------------------------------------------------------------------


def corpus() -> list[tuple[tuple[int, ...], bytes]]:
    """Lines of each type alone, and of all together."""
    known = {oid: values for oid, values in COLUMNS.values() if oid in TYPES}
    alone = [((oid,), value + b"\n") for oid, values in known.items() for value in values]
    together = [
        (TYPES, b"\t".join(known[oid][n % len(known[oid])] for oid in TYPES) + b"\n")
        for n in range(8)
    ]
    return [line for line in [*alone, *together] if len(line[1]) < 2000]


def test_damaged_lines_are_read_within_their_bounds_and_never_otherwise(tmp_path: Path) -> None:
    built = build_checked("loader.binary_copy", tmp_path)
    path = tmp_path / "corpus"
    path.write_bytes(pickle.dumps(corpus()))
    program = Path(__file__).with_name("binary_fuzzer.py")
    ended = run_fuzzer(program, built, path)
    assert ended["binary"] > MUTATIONS // 10
    assert ended["not for binary"] > MUTATIONS // 10


@pytest.mark.parametrize(
    "lines",
    [b"1", b"\n", b"1\t2\n", b"1\n\n", b"\\.\n", b"\\N", b"\\\n", b"\\N\\N\n", b"1\r\n", b"1\0\n"],
)
def test_what_is_no_line_of_these_columns_is_not_for_binary(lines: bytes) -> None:
    assert binary_copy.Transcoder([INT4]).transcode(lines) is None


def test_types_without_a_binary_form_are_told() -> None:
    for types in ([], [INT4] * 1601, [2950], ["text"], [-1]):
        with pytest.raises(ValueError, match=r"type|columns"):
            binary_copy.Transcoder(types)
    assert binary_copy.Transcoder([INT4] * 1600).transcode(b"") == b""


# --- in the loader -----------------------------------------------------------------------------


def forty(first: int, rest: str) -> str:
    """One statement that inserts forty rows from `first` on: id, v, and `rest` of each."""
    rows = ", ".join(f"({number}, {number}{rest})" for number in range(first, first + 40))
    return f"INSERT INTO t VALUES {rows}"


def insert_forty(replica: Replica, harness: Harness, meanwhile: str = "") -> None:
    """A table `t` with the numbers 1 to 40; `meanwhile` is done in PostgreSQL before they come."""
    replica.create("t", "id int PRIMARY KEY, v int")
    harness.catch_up()
    if meanwhile:
        harness.raw.execute(meanwhile)
    replica.commit(forty(1, ""))
    harness.catch_up()


@pytest.mark.parametrize(
    ("columns", "rows"),
    [(NUMBERS, NUMBER_ROWS), (TIMES, TIME_ROWS), (STRINGS, STRING_ROWS)],
    ids=["numbers", "times", "strings"],
)
def test_every_type_of_the_replica_arrives_exactly(
    replica: Replica,
    harness: Harness,
    sent: list[bool],
    columns: str,
    rows: tuple[str, ...],
) -> None:
    replica.create("t", f"id int PRIMARY KEY, {columns}")
    harness.catch_up()
    replica.commit(*(f"INSERT INTO t VALUES ({n}, {row})" for n, row in enumerate(rows)))
    harness.catch_up()
    harness.assert_same("t")
    replica.commit("UPDATE t SET id = id + 50", "DELETE FROM t WHERE id = 51")
    harness.catch_up()
    harness.assert_same("t")
    assert set(sent) == {True}
    assert len(sent) >= 3  # new rows, keys that are gone, rows by a stage


def test_a_row_that_is_refused_in_binary_is_refused_alone(
    replica: Replica, harness: Harness, sent: list[bool]
) -> None:
    insert_forty(replica, harness, meanwhile="ALTER TABLE raw.t ADD CHECK (v <> 13)")
    assert sent == [True]  # and then all of them as text
    assert harness.raw.query("SELECT count(*), sum(v) FROM raw.t") == [(39, 820 - 13)]
    kept = harness.raw.query("SELECT table_name, reason FROM raw.etl_quarantine")
    assert [table for table, _ in kept] == ["t"]
    assert "23514" in kept[0][1]


def test_a_key_that_is_there_already_makes_the_batch_go_by_upsert(
    replica: Replica, harness: Harness, sent: list[bool]
) -> None:
    insert_forty(replica, harness, meanwhile="INSERT INTO raw.t VALUES (7, 0)")
    assert sent == [True]
    harness.assert_same("t")


def test_types_that_an_analyst_altered_meanwhile_are_those_that_rows_go_by(
    replica: Replica, harness: Harness, sent: list[bool]
) -> None:
    """The writer has seen the table before; text would have gone into whatever there is."""
    replica.create("t", "id int PRIMARY KEY, v int, j json, x text")
    harness.catch_up()
    replica.commit(forty(1, ", '{}', '[1]'"))
    harness.catch_up()
    harness.raw.execute(
        "ALTER TABLE raw.t ALTER v TYPE bigint, ALTER j TYPE text, ALTER x TYPE jsonb"
        " USING x::jsonb"
    )
    replica.commit(forty(41, ", '{}', '[1]'"))
    harness.catch_up_to_position()
    assert sent == [True, True]
    found = harness.raw.query("SELECT DISTINCT j::text, x::text FROM raw.t")
    assert found == [("{}", "[1]")]
    assert harness.raw.query("SELECT sum(v) FROM raw.t") == [(3240,)]


class Misleading:
    """Makes rows that the table does not take."""

    def __init__(self, made: bytes) -> None:
        self._made = made

    def transcode(self, _lines: bytes) -> bytes:
        return self._made


NOT_A_ROW = {
    "a value too short": struct.pack("!hi2si2s", 2, 2, b"ab", 2, b"cd"),
    "a value too long": struct.pack("!hi9si9s", 2, 9, b"a", 9, b"b"),
    "a column too few": struct.pack("!hi4s", 1, 4, b"abcd"),
    "cut off": struct.pack("!hi", 2, 400),
    "a length below zero": struct.pack("!hi", 2, -7),
}


@pytest.mark.parametrize("made", NOT_A_ROW.values(), ids=NOT_A_ROW)
def test_rows_that_postgresql_cannot_read_go_as_text_in_the_end(
    replica: Replica,
    harness: Harness,
    asked_for: None,
    monkeypatch: pytest.MonkeyPatch,
    made: bytes,
) -> None:
    asked: list[bool] = []
    reasons: list[Reason | None] = []
    really = copying._copy_binary

    def misled(_connection: object, _copy: object) -> Misleading:
        asked.append(True)
        return Misleading(made)

    def copied(*arguments: Any) -> None:
        try:
            really(*arguments)
        except psycopg.Error as error:
            reasons.append(refusal(error))
            raise

    monkeypatch.setattr(copying, "transcoder_of", misled)
    monkeypatch.setattr(copying, "_copy_binary", copied)
    insert_forty(replica, harness)
    assert asked
    assert len(reasons) == 1
    assert reasons[0] is not None
    harness.assert_same("t")
    assert not harness.raw.query("SELECT * FROM raw.etl_quarantine")


def test_without_the_module_everything_goes_as_text(
    postgres: PostgresConnection, sent: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "loader.binary_copy", None)
    copy_both(postgres, create(postgres, ["integer"]), [b"1", b"\\N"])
    assert sent == []

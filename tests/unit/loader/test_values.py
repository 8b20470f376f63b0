"""COPY text, names and types."""

from __future__ import annotations

import codecs
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader import charsets, jsonb, naming, types, values, wire
from loader.schema import RawTable, diff
from loader.types import RawColumn
from replicator.binlog.schema import Column, ColumnType


def column(base: str, **more: object) -> Column:
    return Column("c", ColumnType(base, **more), True, None)  # type: ignore[arg-type]


@given(st.binary())
def test_escaping_is_undone_by_unescaping(data: bytes) -> None:
    escaped = values.escaped(data)
    assert values.unescaped(escaped) == data
    assert not set(b"\t\n\r") & set(escaped)


def test_the_text_backslash_n_is_not_null() -> None:
    assert values.escaped(b"\\N") != values.NULL
    assert values.fields_of(b"\\\\N\t\\N\t") == [b"\\N", None, b""]


@given(st.lists(st.one_of(st.none(), st.binary()), min_size=1))
def test_a_row_of_fields_comes_apart_as_it_was(fields: list[bytes | None]) -> None:
    row = b"\t".join(values.NULL if f is None else values.escaped(f) for f in fields)
    assert values.fields_of(row) == fields


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_utf8_text_passes_and_a_nul_is_escaped_and_noted(text: str) -> None:
    faults: values.Faults = []
    result = values.text_of("c", "utf8mb4")(text.encode(), faults)
    assert result is not None
    assert values.unescaped(result) == text.replace("\0", "\\0").encode()
    assert bool(faults) == ("\0" in text)


def test_a_nul_in_a_key_is_nobodys_key() -> None:
    faults: values.Faults = []
    assert values.text_of("c", "utf8mb4", in_key=True)(b"a\0", faults) is None
    assert [fault.original for fault in faults] == [b"a\0"]


@pytest.mark.parametrize(
    ("text", "held"),
    [
        (rb'"\u0000"', False), (rb'"\\u0000"', True), (rb'"\\\u0000"', False),
        (rb'["\\\\u0000"]', True), (rb'{"a\u0000": 1}', False), (rb'"\\\\ \u0000"', False),
        (rb'"u0000"', True),
    ],
)  # fmt: skip
def test_only_a_nul_that_is_escaped_is_one(text: bytes, held: bool) -> None:
    faults: values.Faults = []
    assert (jsonb.jsonb("c", text, faults) is not None) == held
    assert bool(faults) != held


def test_a_date_that_is_none_is_kept_as_the_server_prints_it() -> None:
    read = wire.reader(column("datetime", fsp=3), 18, 3)
    packed = (((2020 * 13) << 5 | 15) << 17 | 10 << 12 | 20 << 6 | 30) + 0x8000000000
    faults: values.Faults = []
    value, at = read(packed.to_bytes(5, "big") + (1230).to_bytes(2, "big"), 0, faults)
    assert (value, at) == (None, 7)
    assert [fault.original for fault in faults] == [b"2020-00-15 10:20:30.123"]


@pytest.mark.parametrize(
    ("charset", "data", "text"),
    [
        ("latin1", bytes([0x81, 0x80, 0xE9]), "\x81€é"),
        ("utf8mb3", b"\xc3", None),
        ("utf8mb4", b"\xed\xa0\x80", None),
        ("ascii", b"\x80", None),
        ("ucs2", "Ω".encode("utf-16-be"), "Ω"),
        ("ucs2", "😀".encode("utf-16-be"), None),
        ("swe7", b"{|}", "äöå"),
        ("eucjpms", b"\x8f\xa2\xb7\xad\xa1", "～①"),
        ("cp1250", b"\xec", "ě"),
        ("no_such_set", b"a", None),
    ],
)
def test_text_is_read_strictly_in_its_own_charset(
    charset: str, data: bytes, text: str | None
) -> None:
    faults: values.Faults = []
    result = values.text_of("c", charset)(data, faults)
    assert result == (text.encode() if text is not None else None)
    assert [fault.original for fault in faults] == ([] if text is not None else [data])


def test_a_fault_shows_the_original_bytes_but_no_message_does() -> None:
    faults: values.Faults = []
    values.text_of("c", "ascii")(b"Sm\xefth", faults)
    assert faults[0].original == b"Sm\xefth"
    assert "Sm" not in faults[0].reason


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float_is_written_so_that_it_reads_back_the_same(number: float) -> None:
    read = wire.reader(column("float"), 4, 4)
    text, end = read(struct.pack("<f", number), 0, [])
    assert end == 4
    assert text is not None
    back = float(text)
    assert struct.pack("<f", back) == struct.pack("<f", number)
    assert math.copysign(1, back) == math.copysign(1, number)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (column("tinyint"), "smallint"),
        (column("tinyint", unsigned=True), "smallint"),
        (column("smallint", unsigned=True), "integer"),
        (column("mediumint", unsigned=True), "integer"),
        (column("int", unsigned=True), "bigint"),
        (column("bigint"), "bigint"),
        (column("bigint", unsigned=True), "numeric(20,0)"),
        (column("year"), "smallint"),
        (column("decimal", precision=65, scale=30), "numeric(65,30)"),
        (column("float"), "real"),
        (column("double"), "double precision"),
        (column("varchar", length=5, charset="utf8mb3"), "text"),
        (column("varbinary", length=5), "bytea"),
        (column("longblob"), "bytea"),
        (column("bit", length=9), "bit(9)"),
        (column("date"), "date"),
        (column("datetime", fsp=3), "timestamp(3) without time zone"),
        (column("timestamp"), "timestamp(0) with time zone"),
        (column("time", fsp=6), "interval"),
        (column("json"), "jsonb"),
        (column("point"), "bytea"),
        (column("enum", charset="latin1", values=("a",)), "text"),
    ],
)
def test_each_type_has_one_place_in_raw(kind: Column, raw: str) -> None:
    assert types.raw_type(kind) == raw


def test_an_unknown_type_halts_rather_than_being_guessed() -> None:
    with pytest.raises(types.SchemaDrift, match="vector"):
        types.raw_type(column("vector"))


OTHERS = [
    *("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"),
    *("_key", "_deleted", "_source_ts", "_loaded_at", "_deleted_at"),
]
"""Names that raw tables have for something else."""


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64))
def test_a_name_is_kept_unless_postgresql_would_cut_it(name: str) -> None:
    short = types.raw_name(name)
    assert len(short.encode()) <= 63
    assert (short == name) == (len(name.encode()) <= 63 and name not in OTHERS)
    assert types.raw_name(name) == short


@pytest.mark.parametrize("name", OTHERS)
def test_a_name_that_raw_tables_have_for_something_else_gets_a_digest(name: str) -> None:
    assert types.raw_name(name).startswith(name + "~")
    assert types.raw_name(name.upper()) == name.upper()


def test_names_that_only_differ_in_their_end_stay_different() -> None:
    assert types.raw_name("ü" * 40 + "a") != types.raw_name("ü" * 40 + "b")


def shape(key: str, **columns: str) -> RawTable:
    return RawTable(tuple(RawColumn(n, t) for n, t in columns.items()), (key,))


def test_a_diff_names_what_must_change() -> None:
    change = diff(
        shape("id", id="integer", a="text", n="smallint"),
        shape("id", n="bigint", id="integer", b="text"),
    )
    assert [c.name for c in change.added] == ["b"]
    assert change.dropped == ("a",)
    assert [c.name for c in change.retyped] == ["n"]
    assert change.in_place


@pytest.mark.parametrize(
    ("old", "new", "safe"),
    [
        ("smallint", "numeric(20,0)", True),
        ("bigint", "integer", False),
        ("real", "double precision", True),
        ("numeric(10,2)", "numeric(12,4)", True),
        ("numeric(10,2)", "numeric(12,6)", False),
        ("numeric(10,2)", "numeric(10,0)", False),
        ("timestamp(0) without time zone", "timestamp(6) without time zone", True),
        ("timestamp(0) without time zone", "timestamp(6) with time zone", False),
        ("text", "bytea", False),
        ("bit(3)", "bit(4)", False),
    ],
)
def test_only_a_widened_type_keeps_its_rows(old: str, new: str, safe: bool) -> None:
    assert diff(shape("id", id="integer", c=old), shape("id", id="integer", c=new)).in_place == safe


def test_a_changed_key_never_keeps_its_rows() -> None:
    assert not diff(shape("a", a="text", b="text"), shape("b", a="text", b="text")).in_place


def test_tables_that_are_the_same_need_nothing() -> None:
    same = shape("id", id="integer", c="text")
    assert not diff(same, shape("id", c="text", id="integer"))


def test_helper_names_of_long_tables_stay_apart() -> None:
    first, second = "t" * 62 + "1", "t" * 62 + "2"
    assert naming.helper_name("_load_", first) != naming.helper_name("_load_", second)


def test_every_single_byte_set_has_its_256_places() -> None:
    for name in ("latin1", "cp1250", "koi8r", "greek", "tis620"):
        table = charsets.single_byte_table(name)
        assert len(table) == 256
        assert codecs.charmap_decode(b"Abc", "strict", table)[0] == "Abc"


@pytest.mark.parametrize(
    ("moment", "stamp"),
    [
        ("2026-11-23 19:45:37+00", b"20261123 194537Z"),
        ("2026-11-23 00:00:00.000001+00", b"20261123 000000.000001Z"),
        ("2026-11-23 19:45:37", b"2026-11-23 19:45:37"),
        ("12026-11-23 19:45:37+00", b"12026-11-23 19:45:37+00"),
        (None, values.NULL),
    ],
)
def test_a_source_time_is_written_as_postgresql_reads_it_fastest(
    moment: str | None, stamp: bytes
) -> None:
    assert values.stamp_text(moment) == stamp

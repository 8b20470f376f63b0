"""Images are framed, cut and put together again; what does not add up is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import CopyRefused, SchemaDrift, UnknownEvent
from replicator.binlog.catalog import CatalogColumn, CatalogTable
from replicator.binlog.decimals import decimal_encoder
from replicator.binlog.events import parse_table_map
from replicator.binlog.rowimage import (
    Kind,
    RowImageEncoder,
    RowSplitter,
    TableLayout,
    build_table_map,
    rows_event,
    split_rows,
)
from replicator.binlog.rowsplit import image_of
from replicator.binlog.rowvalues import (
    datetime_encoder,
    encode_date,
    time_encoder,
)

COLUMNS = (
    CatalogColumn("id", "int", False),
    CatalogColumn("name", "varchar", True, characters=300, octets=300, charset="latin1"),
    CatalogColumn("note", "mediumtext", True, charset="utf8mb3"),
    CatalogColumn("fee", "decimal", True, precision=10, scale=2),
    CatalogColumn("at", "datetime", True, fsp=3),
    CatalogColumn("photo", "longblob", True),
    CatalogColumn("sex", "enum", True, charset="latin1", members=("f", "m")),
    CatalogColumn("code", "char", True, characters=255, octets=1020, charset="utf8mb4"),
    CatalogColumn("flags", "bit", True, precision=12),
)
LAYOUT = TableLayout.of(CatalogTable("db", "patient", COLUMNS, (0,)))
TABLE_MAP = parse_table_map(build_table_map(7, "db", LAYOUT))
ROW = (
    b"1",
    b"Ann",
    b"x" * 300,
    b"-12.50",
    b"2020-01-02 03:04:05.678",
    b"\0\1",
    b"2",
    b"c",
    b"\1\2",
)
NULLS = (b"2", *(None,) * 8)


def event(kind: Kind = Kind.WRITE, version: int = 1) -> bytes:
    encoder = RowImageEncoder(LAYOUT)
    return encoder.rows_event(7, [ROW, NULLS], kind=kind, version=version)


@pytest.mark.parametrize("version", [1, 2])
def test_images_come_out_as_they_went_in(version: int) -> None:
    encoder = RowImageEncoder(LAYOUT)
    one, two = encoder.encode(ROW), encoder.encode(NULLS)
    assert split_rows(event(version=version), TABLE_MAP) == [(None, one), (None, two)]
    assert split_rows(event(Kind.DELETE, version), TABLE_MAP) == [(one, None), (two, None)]
    assert split_rows(event(Kind.UPDATE, version), TABLE_MAP) == [(one, two)]
    assert rows_event(7, LAYOUT.width, [one, two], version=version) == event(version=version)


def test_an_image_is_cut_into_its_columns() -> None:
    splitter = RowSplitter.of(TABLE_MAP)
    image = RowImageEncoder(LAYOUT).encode(ROW)
    values = splitter.values(image)
    assert values[1] == b"\3\0Ann"
    assert b"".join(value or b"" for value in values.values()) == image[2:]
    nulls = splitter.values(RowImageEncoder(LAYOUT).encode(NULLS))
    assert list(nulls.values()) == [b"\2\0\0\0", *[None] * 8]
    with pytest.raises(UnknownEvent):
        splitter.values(image + b"\0")


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("version", [1, 2])
def test_an_event_cut_short_anywhere_is_refused_or_ends_between_rows(
    kind: Kind, version: int
) -> None:
    whole = event(kind, version)
    rows = split_rows(whole, TABLE_MAP)
    for length in range(len(whole)):
        try:
            fewer = split_rows(whole[:length], TABLE_MAP)
        except UnknownEvent:
            continue
        assert fewer == rows[: len(fewer)]
        assert len(fewer) < len(rows)


@given(st.integers(19, 400), st.integers(0, 255))
def test_a_damaged_byte_never_raises_anything_but_unknown_event(place: int, byte: int) -> None:
    damaged = bytearray(event())
    damaged[place % len(damaged)] = byte
    try:
        split_rows(bytes(damaged), TABLE_MAP)
    except UnknownEvent:
        return


@given(st.binary(max_size=120))
def test_random_bytes_never_raise_anything_but_unknown_event(body: bytes) -> None:
    for kind in range(20, 45):
        try:
            split_rows(bytes(4) + bytes([kind]) + bytes(14) + body, TABLE_MAP)
        except UnknownEvent:
            continue


@pytest.mark.parametrize("version", [1, 2])
def test_partial_images_are_cut_as_their_bitmaps_say(version: int) -> None:
    splitter = RowSplitter.of(TABLE_MAP)
    whole = splitter.values(RowImageEncoder(LAYOUT).encode(ROW))
    for wanted in ({0}, {0, 1}, {2, 5, 8}, {0, 3, 4, 6, 7}, set(range(9))):
        values = {column: whole[column] for column in wanted}
        columns, image = image_of(values, LAYOUT.width)
        assert columns == sum(1 << column for column in wanted)
        event = rows_event(
            7, LAYOUT.width, [image, image], kind=Kind.DELETE, columns=columns, version=version
        )
        cut = splitter.cut(event)
        assert (cut.before_columns, cut.after_columns) == (columns, 0)
        assert [row.before for row in cut.rows] == [image, image]
        assert splitter.values(image, columns) == values
        assert splitter.some_values(image, columns, (0, 5)) == {
            column: value for column, value in values.items() if column in (0, 5)
        }
        alone = splitter.cut(cut.alone(cut.rows[0]))
        assert alone.rows == cut.rows[:1]


def test_nulls_of_partial_images_are_those_of_their_own_columns() -> None:
    splitter = RowSplitter.of(TABLE_MAP)
    values = {0: b"\1\0\0\0", 3: None, 6: b"\2", 8: None}
    columns, image = image_of(values, LAYOUT.width)
    assert splitter.values(image, columns) == values


@given(st.binary(max_size=120), st.integers(0, 511), st.integers(0, 511))
def test_random_partial_events_never_raise_anything_but_unknown_event(
    body: bytes, before: int, after: int
) -> None:
    splitter = RowSplitter.of(TABLE_MAP)
    for kind in (23, 24, 25, 30, 31, 32, 39):
        head = bytes(4) + bytes([kind]) + bytes(14) + bytes(8)
        head += b"\2\0" if kind >= 30 else b""
        head += bytes([9]) + before.to_bytes(2, "little")
        try:
            cut = splitter.cut(head + after.to_bytes(2, "little") + body)
        except UnknownEvent:
            continue
        assert sum(len(row.raw) for row in cut.rows) <= len(body) + 2


def test_a_partial_row_image_is_refused_with_the_remedy() -> None:
    whole = bytearray(event())
    whole[28] = 0xFD  # the columns' bitmap
    with pytest.raises(UnknownEvent) as refusal:
        split_rows(bytes(whole), TABLE_MAP)
    assert "binlog_row_image" in refusal.value.hint


def test_a_system_versioned_table_is_refused() -> None:
    table = CatalogTable("db", "ledger", COLUMNS, (), system_versioned=True)
    with pytest.raises(CopyRefused, match="ledger"):
        TableLayout.of(table)


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, b"4294967296"), (0, b"Smith"), (1, b"S" * 301), (3, b"123456789.00"), (4, b"Smith"),
     (6, b"70000"), (7, b"S" * 1021), (8, b"\1")],
)  # fmt: skip
def test_a_misfit_names_its_column_and_not_its_value(at: int, value: bytes) -> None:
    row = (*ROW[:at], value, *ROW[at + 1 :])
    with pytest.raises(SchemaDrift) as refusal:
        RowImageEncoder(LAYOUT).encode(row)
    assert f"patient.{COLUMNS[at].name}" in str(refusal.value)
    assert value.decode("latin-1") not in str(refusal.value)


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(SchemaDrift, match="columns"):
        RowImageEncoder(LAYOUT).encode(ROW[1:])


def test_numbers_and_moments_are_stored_as_the_manual_has_them() -> None:
    assert decimal_encoder(14, 4)(b"1234567890.1234").hex() == "810dfb38d204d2"
    assert decimal_encoder(14, 4)(b"-1234567890.1234").hex() == "7ef204c72dfb2d"
    assert encode_date(b"2020-00-15") == bytes([0x0F, 0xC8, 0x0F])
    assert datetime_encoder(0)(b"0000-00-00 00:00:00").hex() == "8000000000"
    assert time_encoder(0)(b"-01:00:00").hex() == "7ff000"
    assert time_encoder(6)(b"-01:00:00.500000").hex() == "7feffff85ee0"

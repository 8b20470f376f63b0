"""Rows events, made here byte by byte, become row changes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import ReplicatorError, UnknownEvent
from loader import wire
from loader.rows import DELETE, INSERT, UPDATE, PythonDecoder, RowChange, TablePlan
from loader.types import raw_columns
from replicator.binlog.schema import Column, ColumnType, TableSchema

INT = Column("id", ColumnType("int"), False, 1)
TEXT = Column("v", ColumnType("varchar", length=20, charset="utf8mb4"), True, None)
CODES = ((3, 0), (15, 80))


def plan(*key: int, hidden: int = 0) -> TablePlan:
    table = TableSchema("t", (INT, TEXT), key)
    return TablePlan(
        table,
        raw_columns(table),
        key,
        tuple(wire.reader(c, *code) for c, code in zip(table.columns, CODES, strict=True)),
        tuple(wire.skipper(*code) for code in CODES) + ((8, 0),) * hidden,
    )


def image(number: int, text: str | None, hidden: int = 0) -> bytes:
    nulls = bytes([2 if text is None else 0])
    value = b"" if text is None else bytes([len(text.encode())]) + text.encode()
    return nulls + struct.pack("<i", number) + value + b"\xff" * 8 * hidden


def event(kind: int, *images: bytes, width: int = 2) -> bytes:
    present = bytes([(1 << width) - 1])
    bitmaps = present * (2 if kind in (24, 31) else 1)
    extra = b"\x02\x00" if kind >= 30 else b""
    return (
        bytes(4)
        + bytes([kind])
        + bytes(14 + 8)
        + extra
        + bytes([width])
        + bitmaps
        + b"".join(images)
    )


def decode(kind: int, *images: bytes, key: tuple[int, ...] = (0,)) -> list[RowChange]:
    return PythonDecoder().decode(event(kind, *images), plan(*key))


@pytest.mark.parametrize("kind", [23, 30])
def test_inserts_carry_key_and_row(kind: int) -> None:
    assert decode(kind, image(1, "a\tb"), image(-2, None)) == [
        RowChange(INSERT, b"1", b"1\ta\\tb", ()),
        RowChange(INSERT, b"-2", b"-2\t\\N", ()),
    ]


def test_an_update_is_one_change_unless_the_key_moves() -> None:
    assert decode(31, image(1, "a"), image(1, "b"), image(2, "x"), image(3, "x")) == [
        RowChange(UPDATE, b"1", b"1\tb", ()),
        RowChange(DELETE, b"2", None, ()),
        RowChange(INSERT, b"3", b"3\tx", ()),
    ]


def test_a_delete_needs_only_its_key() -> None:
    assert decode(25, image(7, "ignored")) == [RowChange(DELETE, b"7", None, ())]


def test_without_a_key_the_whole_row_is_the_key() -> None:
    assert decode(24, image(1, "a"), image(1, "b"), key=()) == [
        RowChange(DELETE, b"1\ta", None, ()),
        RowChange(INSERT, b"1\tb", b"1\tb", ()),
    ]


def test_columns_hidden_behind_the_last_are_stepped_over() -> None:
    rows = [image(1, "a", hidden=1), image(2, None, hidden=1)]
    changes = PythonDecoder().decode(event(23, *rows, width=3), plan(0, hidden=1))
    assert [change.row for change in changes] == [b"1\ta", b"2\t\\N"]


def test_a_row_image_that_lacks_columns_halts() -> None:
    partial = event(23, image(1, "a")).replace(b"\x02\x03", b"\x02\x01")
    with pytest.raises(UnknownEvent, match="lacks columns"):
        PythonDecoder().decode(partial, plan(0))


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_event_raises_our_error_or_decodes(data: st.DataObject) -> None:
    whole = bytearray(event(31, image(1, "abc"), image(1, None), image(2, "x"), image(4, "yy")))
    at = data.draw(st.integers(27, len(whole) - 1))
    if data.draw(st.booleans()):
        whole = whole[:at]
    else:
        whole[at] = data.draw(st.integers(0, 255))
    try:
        changes = PythonDecoder().decode(bytes(whole), plan(0))
    except ReplicatorError:
        return
    assert all(change.row is None or change.row.count(b"\t") == 1 for change in changes)

"""What an event does to the rows of a table that is in its copy's window."""

from __future__ import annotations

import pytest

from config.errors import UnknownEvent
from replicator.binlog.catalog import CatalogColumn, CatalogTable
from replicator.binlog.events import parse_table_map
from replicator.binlog.rowimage import Kind, TableLayout, build_table_map, rows_event
from replicator.binlog.rowsplit import RowSplitter, Values, image_of
from replicator.window_rows import WindowRows, sort_rows

COLUMNS = tuple(CatalogColumn(name, "int", True) for name in ("a", "b", "c", "d"))
LAYOUT = TableLayout.of(CatalogTable("db", "t", COLUMNS, (0,)))
SPLITTER = RowSplitter.of(parse_table_map(build_table_map(7, "db", LAYOUT)))
EVERY = 0b1111
STORED = 0b0111  # d is generated


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


def row(**values: int | None) -> Values:
    return {
        "abcd".index(name): None if value is None else number(value)
        for name, value in values.items()
    }


def event(kind: Kind, *rows: Values, after: int | None = None) -> bytes:
    """The rows' images; for updates before and after in turn, the latter of the columns `after`."""
    images = [image_of(values, 4) for values in rows]
    made = bytearray(
        rows_event(7, 4, [image for _, image in images], kind=kind, columns=images[0][0])
    )
    if kind is Kind.UPDATE:
        made[29] = images[1][0] if after is None else after
    return bytes(made)


def sort(made: bytes, *, settled: bool = False) -> list[WindowRows]:
    return sort_rows(SPLITTER.cut(made), SPLITTER, (0,), STORED, settled=settled)


def told(images: object) -> list[Values]:
    return [SPLITTER.values(image, images.columns) for image in images.images]  # type: ignore[attr-defined]


def test_an_insert_is_whole_whatever_it_leaves_out() -> None:
    (rows,) = sort(event(Kind.WRITE, row(a=1), row(a=2)))
    assert told(rows.whole) == [row(a=1), row(a=2)]
    assert not any((rows.gone, rows.parts, rows.moved))


def test_a_delete_names_keys() -> None:
    (rows,) = sort(event(Kind.DELETE, row(a=1), row(a=2)))
    assert told(rows.gone) == [row(a=1), row(a=2)]
    assert not any((rows.whole, rows.parts, rows.moved))


def test_an_update_whose_after_image_is_whole_replaces() -> None:
    whole = row(a=1, b=2, c=3, d=4)
    (rows,) = sort(event(Kind.UPDATE, whole, {**whole, **row(b=9)}))
    assert told(rows.whole) == [row(a=1, b=9, c=3, d=4)]
    assert not any((rows.gone, rows.parts, rows.moved))


def test_a_generated_column_is_not_missed() -> None:
    (rows,) = sort(event(Kind.UPDATE, row(a=1), row(a=1, b=None, c=3)))
    assert told(rows.whole) == [row(a=1, b=None, c=3)]


def test_two_images_may_be_whole_together() -> None:
    (rows,) = sort(event(Kind.UPDATE, row(a=1, b=2, c=3, d=4), row(a=5, c=None)))
    assert told(rows.gone) == [row(a=1, b=2, c=3, d=4)]
    assert told(rows.whole) == [row(a=5, b=2, c=None, d=4)]


def test_parts_keep_their_key() -> None:
    (rows,) = sort(event(Kind.UPDATE, row(a=1), row(b=5), row(a=2), row(b=None)))
    assert told(rows.parts) == [row(a=1, b=5), row(a=2, b=None)]
    assert not any((rows.gone, rows.whole, rows.moved))


def test_parts_under_another_key_are_not_enough() -> None:
    update = event(Kind.UPDATE, row(a=1), row(a=3, b=5), row(a=2), row(a=2, b=6))
    (rows,) = sort(update)
    assert told(rows.gone) == [row(a=1)]
    assert told(rows.moved) == [row(a=3)]
    assert told(rows.parts) == [row(a=2, b=6)]
    moved, stayed = sort(update, settled=True)
    assert SPLITTER.cut(moved.event).rows == SPLITTER.cut(update).rows[:1]
    assert not stayed.event
    assert told(stayed.parts) == [row(a=2, b=6)]


def test_rows_that_go_on_from_where_another_went_are_taken_one_by_one() -> None:
    parts = sort(event(Kind.UPDATE, row(a=1), row(a=2, b=1), row(a=2), row(a=3, b=1)))
    assert [told(rows.gone) for rows in parts] == [[row(a=1)], [row(a=2)]]
    assert [told(rows.moved) for rows in parts] == [[row(a=2)], [row(a=3)]]
    twice = sort(event(Kind.UPDATE, row(a=1), row(b=1), row(a=1), row(b=2)))
    assert [told(rows.parts) for rows in twice] == [[row(a=1, b=1)], [row(a=1, b=2)]]


def test_rows_that_make_room_before_they_are_followed_go_together() -> None:
    (rows,) = sort(event(Kind.UPDATE, row(a=2), row(a=3, b=1), row(a=1), row(a=2, b=1)))
    assert told(rows.gone) == [row(a=2), row(a=1)]
    assert told(rows.moved) == [row(a=3), row(a=2)]


def test_an_update_that_does_not_name_the_key_is_refused() -> None:
    with pytest.raises(UnknownEvent, match="primary key"):
        sort(event(Kind.UPDATE, row(b=1), row(b=2)))


def test_nothing_is_done_by_an_event_without_rows() -> None:
    assert sort(event(Kind.DELETE, row(a=1))[:-5]) == []

"""What virtual columns are worked out from, and events told again with more columns."""

from __future__ import annotations

import pytest

from replicator.binlog.catalog import CatalogColumn, CatalogTable
from replicator.binlog.rowimage import Kind, rows_event
from replicator.binlog.rowsplit import RowSplitter, image_of
from replicator.virtual_columns import bases_of


def bases(expressions: dict[str, str], *names: str) -> dict[str, set[str]]:
    columns = tuple(CatalogColumn(name, "int", True) for name in names)
    found = bases_of(CatalogTable("d", "t", columns, (0,)), expressions)
    return {
        names[at]: {name for n, name in enumerate(names) if of >> n & 1} for at, of in found.items()
    }


def test_a_column_is_worked_out_from_what_its_expression_names() -> None:
    assert bases({"w": "`v` * 2"}, "id", "v", "x", "w") == {"w": {"v"}}
    assert bases({"w": "concat(`A``b`,'`v')"}, "id", "a`B", "v", "w") == {"w": {"a`B", "v"}}
    assert bases({"w": "`Ärger`"}, "id", "ÄRGER", "w") == {"w": {"ÄRGER"}}
    assert bases({"w": "rand()"}, "id", "v", "w") == {"w": set()}


def test_what_is_worked_out_from_another_is_worked_out_from_all_that_this_is() -> None:
    expressions = {"w": "`s` + `w2`", "s": "`v` + 1", "w2": "`other`"}
    found = bases(expressions, "id", "v", "s", "w2", "w", "other")
    assert found == {"s": {"v"}, "w2": {"other"}, "w": {"s", "v", "w2", "other"}}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", list(Kind))
def test_an_event_is_told_again_with_more_columns(kind: Kind, version: int) -> None:
    splitter = RowSplitter("t", bytes([3] * 11), (0,) * 11)
    short = [image_of({0: bytes([n] * 4), 9: None}, 11) for n in range(6)]
    long = [image_of({0: bytes([n] * 4), 3: b"abcd", 9: None}, 11) for n in range(6)]
    made = rows_event(
        7, 11, [image for _, image in short], kind=kind, columns=short[0][0], version=version
    )
    cut = splitter.cut(made)
    assert splitter.after_columns(made) & splitter.every_column == 0b10_0000_0001
    whole = splitter.retold(cut, short[0][0], [row.raw for row in cut.rows])
    assert splitter.cut(whole).rows == cut.rows
    if kind is Kind.UPDATE:
        rows = [short[n][1] + long[n + 1][1] for n in (0, 2, 4)]
    else:
        rows = [image for _, image in long]
    told = splitter.retold(cut, long[0][0], rows)
    assert int.from_bytes(told[9:13], "little") == len(told)
    again = splitter.cut(told)
    assert again.before_columns == (long[0][0] if kind is Kind.DELETE else cut.before_columns)
    assert [row.raw for row in again.rows] == rows

"""Names that need care keep their tables and columns, through both legs and in `raw`."""

from __future__ import annotations

from loader.types import raw_name
from tests.end_to_end.values import printing
from tests.end_to_end.values.catalogue import Kind
from tests.end_to_end.values.legs import Legs, Table

NAMES = (
    'quo"te', "quo'te", "back`tick", "back\\slash", "per%cent %s %% %(x)s", "with space", "table",
    "select", "user", "UPPER", "semi;colon", "com*/ment", "/*!50000 x*/", "-- dash",
    "$dollar", "1st", "日本語", "ünï", "❤☃", "a.b", "sla/sh", "quest?ion", "{brace}", "new\nline",
    "tab\there", "é" * 64, "n" * 64, "n" * 63 + "m", "日" * 64, "日" * 63 + "本", "#hash",
    "@at", "null", "\\N", "NULL",
)  # fmt: skip


def _family() -> dict[str, Kind]:
    values = ("'v%s\\\\'", "''", "'\\t'")
    return {name: Kind("varchar(20)", printing.TEXT, values) for name in NAMES if name != "UPPER"}


def test_columns_keep_their_names(legs: Legs) -> None:
    columns = _family()
    keys = {name.lower(): kind for name, kind in columns.items()}
    assert len(keys) == len(columns) - 1  # null and NULL are one name to the server
    del columns["NULL"]
    copied = Table(legs, "copied", columns)
    copied.fill()
    legs.catch_up()
    copied.assert_exact()
    streamed = Table(legs, "streamed", columns)
    legs.catch_up()
    streamed.fill()
    legs.catch_up()
    for table in (copied, streamed):
        table.touch()
        table.move(10)
        legs.catch_up()
        table.assert_exact()
        table.thin_out()
        legs.catch_up()
        table.assert_exact()
    legs.resync(["copied", "streamed"])
    for table in (copied, streamed):
        table.assert_exact()


def test_tables_keep_their_names(legs: Legs) -> None:
    """Names that differ in case alone are two tables, and long ones that differ at the end."""
    names = [*(name for name in NAMES if not name.startswith("日日")), "Upper", "upper", "ctid"]
    kinds = {"v": Kind("varchar(70)", printing.TEXT, ("'x'", "''"))}
    copied = [Table(legs, name, kinds) for name in names[::2]]
    for table in copied:
        table.fill()
    legs.catch_up()
    streamed = [Table(legs, name, kinds) for name in names[1::2]]
    legs.catch_up()
    for table in streamed:
        table.fill()
    legs.catch_up()
    for table in (*copied, *streamed):
        table.move(5)
        table.touch()
    legs.catch_up()
    for table in (*copied, *streamed):
        table.assert_exact()
    found = legs.raw.query(
        "SELECT relname FROM pg_class WHERE relnamespace = 'raw'::regnamespace AND relkind = 'r'"
    )
    assert {name for (name,) in found} >= {raw_name(name) for name in names}
    assert len({raw_name(name) for name in names}) == len(names)


def test_names_that_raw_tables_have_for_other_things_get_a_digest(legs: Legs) -> None:
    names = (
        *(
            "ctid",
            "xmin",
            "tableoid",
            "_loaded_at",
            "_source_ts",
            "_deleted_at",
            "_key",
            "_deleted",
        ),
        "CTID",
    )
    table = Table(
        legs,
        "t",
        {name: Kind("int", printing.NUMBER, ("1", "2")) for name in names if name != "CTID"},
    )
    table.fill()
    legs.catch_up()
    table.assert_exact()
    table.touch()
    legs.catch_up()
    legs.resync(["t"])
    table.assert_exact()
    assert [raw_name(name) == name for name in names] == [False] * 8 + [True]

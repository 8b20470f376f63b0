"""Every type of the servers is in `raw` as the source's own SELECT prints it.

The ways: the first copy (leg 1 encodes rows that it selected, leg 2 selects them from the
replica), the stream (the server's own row images on both legs), UPDATE and DELETE of either,
and a resync, which selects again on both legs what came by the stream: it must find nothing to
write, since both ways write the same.
"""

from __future__ import annotations

import struct
from contextlib import closing
from typing import Any

import pytest

from config.errors import CopyRefused
from replicator import source
from tests.end_to_end.values import catalogue
from tests.end_to_end.values.legs import Legs, Table
from tests.fix_servers import Pair

FAMILIES = ("numbers", "floats", "bits", "days", "moments", "texts", "surrogates", "bytes",
            "geometries", "lists", "generated", "own", "vectors")  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_types_values_are_exact_whichever_way_they_come(
    legs: Legs, servers: Pair, name: str
) -> None:
    known = catalogue.families(servers.mysql)
    if name not in known:
        assert name == "vectors", "MariaDB 10.11 has none"
        return
    copied = Table(legs, "copied", known[name], engine="InnoDB")
    copied.fill()
    legs.catch_up()
    copied.assert_exact()
    streamed = Table(legs, "streamed", known[name])
    legs.catch_up()
    streamed.fill()
    legs.catch_up()
    streamed.assert_exact()
    for table in (copied, streamed):
        table.move(1000)
        table.touch()
        legs.catch_up()
        table.assert_exact()
        table.thin_out()
        legs.catch_up()
        table.assert_exact()
    before = streamed.loaded_at()
    legs.resync(["copied", "streamed"])
    for table in (copied, streamed):
        table.assert_exact()
    assert streamed.loaded_at() == before, "the two ways write something else"


def test_members_that_no_catalog_spells_are_exact_in_the_stream_and_refused_by_a_copy(
    legs: Legs,
) -> None:
    legs.catch_up()
    streamed = Table(legs, "streamed", catalogue.BEYOND_UTF8MB3)
    legs.catch_up()
    streamed.fill()
    legs.catch_up()
    streamed.assert_exact()
    streamed.touch()
    legs.catch_up()
    streamed.assert_exact()
    legs.first.resync("streamed")
    legs.first.step_until(lambda: legs.first.requests("failed"))
    legs.catch_up()
    streamed.assert_exact()
    connection = legs.source.connect()
    with closing(connection), pytest.raises(CopyRefused, match=r"streamed\.c[01] is defined with"):
        source.require_whole_definition(connection, "streamed", "enum('?')")


@pytest.mark.only_on("mysql", reason="MariaDB takes no such expression")
def test_a_generated_column_that_the_catalog_cannot_spell_is_refused(source_db: Any) -> None:
    source_db.execute(
        "CREATE TABLE t (a int, b varchar(30) CHARACTER SET utf8mb4 AS (CONCAT('😀', a)))"
    )
    with closing(source_db.connect()) as connection:
        create = source.create_statement(connection, "t")
        with pytest.raises(CopyRefused, match=r"t\.b is defined with"):
            source.require_whole_definition(connection, "t", create)


def test_floats_have_the_bits_of_their_literals(legs: Legs) -> None:
    table = Table(
        legs,
        "t",
        {
            "f": catalogue.Kind("float", catalogue.printing.FLOAT, catalogue.FLOATS),
            "d": catalogue.Kind("double", catalogue.printing.DOUBLE, catalogue.DOUBLES),
        },
    )
    table.fill()
    legs.catch_up()
    rows = table.raw_rows()
    for number, literal in enumerate(catalogue.FLOATS):
        assert rows[str(number)]["f"] == struct.pack(">f", float(literal)).hex()
    for number, literal in enumerate(catalogue.DOUBLES):
        assert rows[str(number)]["d"] == struct.pack(">d", float(literal)).hex()

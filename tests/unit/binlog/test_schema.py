"""One model of a table from both ends: what it keeps, what it drops, what it refuses."""

from __future__ import annotations

import struct

import pytest

from config.errors import SchemaDrift, UnsupportedStatement
from replicator.binlog.catalog import CatalogColumn, CatalogTable, parse_members
from replicator.binlog.events import parse_table_map
from replicator.binlog.rowimage import TableLayout, build_table_map
from replicator.binlog.schema import (
    Column,
    ColumnType,
    TableSchema,
    char_octets,
    schema_from_catalog,
    schema_from_table_map,
)

PATIENT = TableSchema(
    "patient",
    (
        Column("PatNum", ColumnType("bigint"), False, 1),
        Column("LName", ColumnType("varchar", length=100, charset="utf8mb3"), True, None),
    ),
    (0,),
)


def test_the_hash_is_the_same_for_ever() -> None:
    assert PATIENT.hash == "9eb5c747908b6a64d6d469b95341dc2a06b3d1b115e69ed36829867923335805"


def test_the_hash_knows_names_types_nullability_and_keys_but_not_the_tables_name() -> None:
    key, name = PATIENT.columns
    varied = [
        (key, Column("Lname", name.type, True, None)),
        (key, Column("LName", ColumnType("varchar", length=99, charset="utf8mb3"), True, None)),
        (key, Column("LName", ColumnType("varchar", length=100, charset="latin1"), True, None)),
        (key, Column("LName", name.type, False, None)),
        (key, Column("LName", name.type, True, 2)),
        (name, key),
        (key,),
    ]
    hashes = {TableSchema("patient", columns, (0,)).hash for columns in varied}
    assert len(hashes | {PATIENT.hash}) == len(varied) + 1
    assert TableSchema("other", PATIENT.columns, (0,)).hash == PATIENT.hash


def test_the_hash_takes_members_as_the_catalogs_show_them() -> None:
    def table(member: str) -> TableSchema:
        kind = ColumnType("enum", charset="utf8mb4", values=("é", member))
        return TableSchema("t", (Column("e", kind, True, None),), ())

    assert table("😀").hash == table("?").hash != table("€").hash


def test_a_table_map_without_names_is_refused_with_the_remedy() -> None:
    table = CatalogTable("db", "patient", (CatalogColumn("a", "int", False),), ())
    table_map = parse_table_map(build_table_map(1, "db", TableLayout.of(table)))
    with pytest.raises(SchemaDrift) as refusal:
        schema_from_table_map(table_map)
    assert "binlog_row_metadata" in refusal.value.hint


def test_members_are_read_as_the_catalog_spells_them() -> None:
    assert parse_members("enum('a','it''s','b,c','(','')") == ("a", "it's", "b,c", "(", "")
    assert parse_members(r"set('back\\slash','new\nline')") == ("back\\slash", "new\nline")


@pytest.mark.parametrize("octets", [0, 1, 255, 256, 511, 512, 765, 1020, 1023])
def test_the_length_of_a_char_survives_its_packing(octets: int) -> None:
    column = CatalogColumn("c", "char", True, characters=octets, octets=octets, charset="latin1")
    layout = TableLayout.of(CatalogTable("db", "t", (column,), ()))
    (meta,) = struct.unpack("<H", layout.fields[0].metadata)
    assert char_octets(meta) == octets


def test_types_that_the_stream_cannot_tell_apart_are_one() -> None:
    columns = (
        CatalogColumn("u", "uuid", True),
        CatalogColumn("i", "inet6", True),
        CatalogColumn("y", "year", True, short_year=True),
        CatalogColumn("g", "geomcollection", True),
    )
    types = [c.type for c in schema_from_catalog(CatalogTable("db", "t", columns, ())).columns]
    assert types == [
        ColumnType("binary", length=16),
        ColumnType("binary", length=16),
        ColumnType("year"),
        ColumnType("geometrycollection"),
    ]


def test_members_in_no_charset_that_are_not_ascii_are_refused() -> None:
    def table(member: str) -> CatalogTable:
        column = CatalogColumn("e", "enum", True, charset=None, members=(member,))
        return CatalogTable("db", "t", (column,), ())

    assert schema_from_catalog(table("plain")).columns[0].type.values == ("plain",)
    with pytest.raises(UnsupportedStatement, match=r"t\.e"):
        schema_from_catalog(table("Ä"))

"""ALTER TABLE read as actions; the values and types that follow from it."""

from __future__ import annotations

import pytest

from loader.ddl.alterations import Add, AddKey, Drop, DropKey, Modify, Rename, UniqueKeys
from loader.ddl.alterations import read_alterations as read
from loader.ddl.conversions import Check, checks_of
from loader.ddl.evolution import evolve
from loader.ddl.literals import Fill, Uncertain, fill_of, literal
from loader.ddl.moves import moves
from loader.types import RawColumn
from replicator.binlog.ddl import Dialect
from replicator.binlog.schema import Column, ColumnType, TableSchema

DIALECT = Dialect()


def _read(actions: str) -> object:
    return read(f"ALTER TABLE `a``b`.t {actions}", DIALECT)


def _schema() -> TableSchema:
    columns = (
        Column("id", ColumnType("int"), False, 1),
        Column("v", ColumnType("varchar", length=20, charset="utf8mb4"), True, None),
        Column("n", ColumnType("smallint"), True, None),
    )
    return TableSchema("t", columns, (0,))


def test_actions_are_read_in_order() -> None:
    found = _read(
        "ADD a int NOT NULL DEFAULT -5 FIRST, DROP COLUMN IF EXISTS `b c`, RENAME COLUMN d TO e,"
        " CHANGE f g varchar(20) CHARACTER SET latin1 COMMENT 'x, y (z)' AFTER a,"
        " DROP PRIMARY KEY, ADD PRIMARY KEY USING BTREE (g, a), ADD UNIQUE (g), ENGINE = InnoDB"
    )
    assert isinstance(found, tuple)
    kinds = [type(action) for action in found]
    assert kinds == [Add, Drop, Rename, Modify, DropKey, AddKey, UniqueKeys]
    added, dropped, renamed, changed = found[:4]
    assert (added.column.name, added.column.default, added.column.after) == ("a", Fill("-5"), "")
    assert dropped == Drop("b c", conditional=True)
    assert renamed == Rename("d", "e")
    assert (changed.old, changed.column.charset, changed.column.after) == ("f", "latin1", "a")
    assert found[5] == AddKey(("g", "a"))


@pytest.mark.parametrize(
    "actions",
    [
        "ADD INDEX (a), COMMENT = 'DROP COLUMN b'",
        "ADD KEY k (a), ADD FULLTEXT INDEX (b), ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES u (b)",
        "ALTER COLUMN a SET DEFAULT 5",
        "AUTO_INCREMENT = 7 ENGINE=MyISAM",
        "RENAME TO other",
        "DISABLE KEYS",
        "",
    ],
)
def test_what_touches_no_column_is_no_action(actions: str) -> None:
    assert _read(actions) == ()


@pytest.mark.parametrize(
    "actions",
    [
        "CONVERT TO CHARACTER SET utf8mb4",
        "ADD a int, ALTER COLUMN a SET DEFAULT 5",
        "ADD a int AS (b + 1)",
        "ADD a datetime DEFAULT CURRENT_TIMESTAMP",
        "ADD a varchar(5) DEFAULT 'it\\'s'",
        "ADD a int DEFAULT (1 + 1)",
        "ADD a int ZEROFILL",
        "ADD a geometry",
        "ADD a double(5,2)",
        "ADD a int INVISIBLE",
        "ADD PRIMARY KEY (a(10))",
        "ADD SYSTEM VERSIONING",
        "DROP PARTITION p",
        "PARTITION BY HASH (a)",
        "ENGINE = InnoDB WITH SYSTEM VERSIONING",
    ],
)
def test_what_is_not_on_the_list_is_beyond_us(actions: str) -> None:
    assert _read(actions) is None


@pytest.mark.parametrize(
    ("kind", "default", "value"),
    [
        (ColumnType("tinyint"), "127", "127"),
        (ColumnType("bigint", unsigned=True), "18446744073709551615", "18446744073709551615"),
        (ColumnType("decimal", precision=5, scale=2), "1.50", "1.50"),
        (ColumnType("double"), "0.1", "0.1"),
        (ColumnType("float"), "1.5", "1.5"),
        (ColumnType("date"), "'0001-01-01'", "0001-01-01"),
        (ColumnType("datetime", fsp=2), "'2024-02-29 23:59:59.12'", "2024-02-29 23:59:59.12"),
        (ColumnType("time"), "'-01:00:00'", "-01:00:00"),
        (ColumnType("varchar", length=3, charset="utf8mb4"), "'日本語'", "日本語"),
        (ColumnType("enum", charset="latin1", values=("a", "b")), "'b'", "b"),
    ],
)
def test_plain_defaults_are_known(kind: ColumnType, default: str, value: str) -> None:
    assert fill_of(kind, True, literal([default])) == value


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        (ColumnType("tinyint"), "128"),
        (ColumnType("int"), "1.5"),
        (ColumnType("decimal", precision=5, scale=1), "1.25"),
        (ColumnType("float"), "0.1"),
        (ColumnType("date"), "'0000-00-00'"),
        (ColumnType("date"), "'2023-02-29'"),
        (ColumnType("datetime"), "'2024-01-01 00:00:00.5'"),
        (ColumnType("timestamp"), "'2024-01-01 00:00:00'"),
        (ColumnType("char", length=5, charset="latin1"), "'a '"),
        (ColumnType("varchar", length=2, charset="latin1"), "'abc'"),
        (ColumnType("varchar", length=9, charset="latin1"), "'é'"),
        (ColumnType("bit", length=4), "'1'"),
    ],
)
def test_what_the_server_would_have_to_convert_is_uncertain(kind: ColumnType, default: str) -> None:
    with pytest.raises(Uncertain):
        fill_of(kind, True, literal([default]))


def test_conversions_ask_for_what_they_need() -> None:
    def column(kind: ColumnType, *, nullable: bool = True) -> Column:
        return Column("c", kind, nullable, None)

    small, large = ColumnType("smallint"), ColumnType("int", unsigned=True)
    assert checks_of(column(small), column(ColumnType("int")), numbered=False) == []
    assert checks_of(column(small), column(large, nullable=False), numbered=True) == [
        Check("c", "range", 0, 2**32 - 1),
        Check("c", "null"),
        Check("c", "zero"),
    ]
    with pytest.raises(Uncertain):
        checks_of(
            column(ColumnType("text", charset="latin1")),
            column(ColumnType("text", charset="utf8mb4")),
            numbered=False,
        )


def test_a_schema_evolves_as_the_server_would_have_it() -> None:
    actions = read(
        "ALTER TABLE t ADD a int NOT NULL DEFAULT 5 FIRST, DROP v, CHANGE n m bigint NOT NULL",
        DIALECT,
    )
    assert actions is not None
    change = evolve(_schema(), actions, None)
    assert [column.name for column in change.schema.columns] == ["a", "id", "m"]
    assert change.schema.primary_key == (1,)
    assert change.added == ((RawColumn("a", "integer"), "5"),)
    assert (change.dropped, change.renamed) == (("v",), (("n", "m"),))
    assert change.retyped == (RawColumn("m", "bigint"),)
    assert change.checks == (Check("n", "null"),)
    assert change.key is None


@pytest.mark.parametrize(
    "actions", ["DROP id", "ADD v int", "DROP PRIMARY KEY", "MODIFY other int", "DROP other"]
)
def test_what_does_not_fit_the_schema_is_uncertain(actions: str) -> None:
    found = read(f"ALTER TABLE t {actions}", DIALECT)
    assert found is not None
    with pytest.raises(Uncertain):
        evolve(_schema(), found, None)


@pytest.mark.parametrize(
    ("pairs", "moved", "gone"),
    [
        ([("a", "x")], {"x": "a"}, ("a",)),
        ([("a", "x"), ("b", "a"), ("x", "b")], {"a": "b", "b": "a"}, ()),
        ([("a", "x"), ("x", "a")], {}, ()),
        ([("a", "x"), ("b", "a")], {"x": "a", "a": "b"}, ("b",)),
        ([("unknown", "x")], {"x": None}, ()),
    ],
)
def test_names_after_a_rename(
    pairs: list[tuple[str, str]], moved: dict[str, str | None], gone: tuple[str, ...]
) -> None:
    found = moves(pairs, ["a", "b", "c"])
    assert (found.moved, found.gone) == (moved, gone)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("CREATE INDEX i ON t (a)", ()),
        ("CREATE FULLTEXT INDEX i ON t (a)", ()),
        ("create unique index i on t (a)", (UniqueKeys(),)),
        ("CREATE OR REPLACE INDEX i ON t (a)", (UniqueKeys(),)),
        ("DROP INDEX i ON t", (UniqueKeys(),)),
        ("DROP INDEX IF EXISTS `primary` ON t", (DropKey(),)),
        ("ALTER TABLE t DROP INDEX `PRIMARY`", (DropKey(),)),
        ("ALTER TABLE t DROP KEY IF EXISTS i, DROP CONSTRAINT c", (UniqueKeys(), UniqueKeys())),
    ],
)
def test_indexes_are_read_as_far_as_they_may_be_the_key(
    statement: str, expected: tuple[object, ...]
) -> None:
    assert read(statement, DIALECT) == expected


def test_a_key_that_the_catalog_still_has_stays_though_other_columns_are_further() -> None:
    later = TableSchema("t", (*_schema().columns, Column("z", ColumnType("int"), True, None)), (0,))
    actions = read("ALTER TABLE t DROP INDEX i, DROP COLUMN n", DIALECT)
    assert actions is not None
    found = evolve(_schema(), actions, later)
    assert (found.dropped, found.key) == (("n",), None)


def test_a_key_that_only_the_catalog_knows_is_taken_from_it() -> None:
    keyless = TableSchema(
        "t", tuple(Column(c.name, c.type, c.nullable, None) for c in _schema().columns), ()
    )
    found = evolve(keyless, [UniqueKeys()], _schema())
    assert found.key == ("id",)
    further = TableSchema("t", _schema().columns[:2], (0,))
    for catalog in (None, further):
        with pytest.raises(Uncertain):
            evolve(keyless, [UniqueKeys()], catalog)


def test_a_column_of_a_key_that_may_be_null_needs_the_catalogs_word() -> None:
    actions = read("ALTER TABLE t MODIFY id int NULL", DIALECT)
    assert actions is not None
    assert evolve(_schema(), actions, _schema()).schema.hash == _schema().hash
    with pytest.raises(Uncertain):
        evolve(_schema(), actions, None)

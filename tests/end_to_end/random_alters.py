"""Random ALTER TABLEs: one clause or several, and those that only a partitioned table takes."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from tests.end_to_end.random_model import Draw, Model, quoted, there
from tests.end_to_end.random_values import (
    CHANGES_TO,
    KEYABLE,
    a_family,
    can_default,
    computed,
    value,
)


def alter(draw: Draw, model: Model, name: str) -> str:
    clauses = [draw(st.sampled_from(CLAUSES))(draw, model, name)]
    while draw(st.integers(0, 2)) == 0:
        clauses.append(draw(st.sampled_from(CLAUSES))(draw, model, name))
    how = draw(st.sampled_from([*[""] * 6, ", ALGORITHM = COPY", ", ALGORITHM = INPLACE"]))
    return f"ALTER TABLE {there(name)} {', '.join(clauses)}{how}"


def partitions(draw: Draw, model: Model, name: str) -> str:
    """What is done with partitions, or a table that gets them."""
    table = model.tables[name]
    if not table.partitioned:
        table.partitioned = True
        return f"ALTER TABLE {there(name)} PARTITION BY HASH (id) PARTITIONS 2"
    what = draw(
        st.sampled_from(
            [
                "REMOVE PARTITIONING",
                "COALESCE PARTITION 1",
                "ADD PARTITION PARTITIONS 1",
                "TRUNCATE PARTITION p0",
                "DROP PARTITION p0",
                "REBUILD PARTITION p1",
                "REORGANIZE PARTITION p0, p1 INTO (PARTITION p1 VALUES LESS THAN (60))",
                "PARTITION BY KEY (id) PARTITIONS 2",
            ]
        )
    )
    table.partitioned = what != "REMOVE PARTITIONING"
    return f"ALTER TABLE {there(name)} {what}"


def _place(draw: Draw, model: Model, name: str) -> str:
    after = draw(st.sampled_from(sorted(model.tables[name].columns)))
    return draw(st.sampled_from(["", "", " FIRST", f" AFTER {quoted(after)}"]))


def add_column(draw: Draw, model: Model, name: str) -> str:
    column, family = model.fresh_column(), a_family(draw, model.server)
    endings = ["", "", " INVISIBLE"]
    if can_default(family):
        endings += [f" DEFAULT {value(draw, model.server, family, null=False)}"] * 2
    if "NULL" not in family:
        endings.append(" NOT NULL")
    ending, where = draw(st.sampled_from(endings)), _place(draw, model, name)
    model.tables[name].columns[column] = family
    if ending == " INVISIBLE":
        model.tables[name].hidden.add(column)
    return f"ADD COLUMN {quoted(column)} {family}{ending}{where}"


def add_computed(draw: Draw, model: Model, name: str) -> str:
    """A column that the server fills: the model never writes it."""
    column, columns = quoted(model.fresh_column()), model.tables[name].columns
    base = draw(st.sampled_from(sorted(columns)))
    kind = draw(
        st.sampled_from(
            [
                *[computed(draw, quoted(base), columns[base])] * 3,
                "varchar(20) AS (CONCAT('n', id)) STORED",
                "bigint AS (id * 3) STORED INVISIBLE",
                "timestamp NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP",
                "datetime(3) DEFAULT CURRENT_TIMESTAMP(3)",
                "varchar(40) DEFAULT (UUID())",
                "int DEFAULT (1 + 2)",
            ]
        )
    )
    return f"ADD COLUMN {column} {kind}{_place(draw, model, name)}"


def add_several(draw: Draw, model: Model, name: str) -> str:
    made = {model.fresh_column(): a_family(draw, model.server) for _ in range(2)}
    model.tables[name].columns |= made
    return "ADD COLUMN (" + ", ".join(f"{quoted(c)} {f}" for c, f in made.items()) + ")"


def drop_column(draw: Draw, model: Model, name: str) -> str:
    columns = model.tables[name].columns
    others = sorted(column for column in columns if column != "id")
    if len(others) < 2:  # keep something to change
        return "COMMENT = 'kept'"
    column = draw(st.sampled_from(others))
    del columns[column]
    return f"DROP COLUMN {quoted(column)}"


def modify_column(draw: Draw, model: Model, name: str) -> str:
    columns = model.tables[name].columns
    column = draw(st.sampled_from(sorted(columns)))
    if column == "id":
        ids = ["bigint NOT NULL", "int NOT NULL", "int NOT NULL AUTO_INCREMENT"]
        return f"MODIFY id {draw(st.sampled_from(ids))}{_place(draw, model, name)}"
    choices = [*CHANGES_TO.get(columns[column], []), a_family(draw, model.server)]
    columns[column] = draw(st.sampled_from(choices))
    null = "" if "NULL" in columns[column] else draw(st.sampled_from([*[""] * 5, " NOT NULL"]))
    return f"MODIFY {quoted(column)} {columns[column]}{null}{_place(draw, model, name)}"


def change_column(draw: Draw, model: Model, name: str) -> str:
    columns = model.tables[name].columns
    others = sorted(column for column in columns if column != "id")
    if not others:
        return "COMMENT = 'nothing to rename'"
    column, new = draw(st.sampled_from(others)), model.fresh_column()
    family = columns.pop(column)
    other = draw(st.sampled_from([family, *CHANGES_TO.get(family, [])]))
    change = f"CHANGE {quoted(column)} {quoted(new)} {other}{_place(draw, model, name)}"
    word = draw(st.sampled_from([change, f"RENAME COLUMN {quoted(column)} TO {quoted(new)}"]))
    columns[new] = other if word == change else family
    return word


def swap_columns(draw: Draw, model: Model, name: str) -> str:
    columns = model.tables[name].columns
    others = sorted(column for column in columns if column != "id")
    if len(others) < 2:
        return "FORCE"
    one, two = others[0], draw(st.sampled_from(others[1:]))
    columns[one], columns[two] = columns[two], columns[one]
    one, two = quoted(one), quoted(two)
    return f"RENAME COLUMN {one} TO {two}, RENAME COLUMN {two} TO {one}"


def keys(draw: Draw, model: Model, name: str) -> str:
    columns = model.tables[name].columns
    others = [c for c, f in columns.items() if f in KEYABLE and c != "id"] or sorted(columns)[:1]
    column = quoted(draw(st.sampled_from(others)))
    return draw(
        st.sampled_from(
            [
                f"ADD INDEX (id, {column})",
                f"ADD INDEX made (id, {column})",
                "ADD UNIQUE KEY unique_id (id)",
                "RENAME INDEX made TO renamed",
                "DROP INDEX unique_id",
                "DROP PRIMARY KEY",
                "DROP PRIMARY KEY, ADD PRIMARY KEY (id)",
                f"DROP PRIMARY KEY, ADD PRIMARY KEY (id, {column})",
                f"DROP PRIMARY KEY, ADD PRIMARY KEY ({column}, id)",
                "ADD PRIMARY KEY (id)",
            ]
        )
    )


def other_clause(draw: Draw, model: Model, name: str) -> str:
    column = quoted(draw(st.sampled_from(sorted(model.tables[name].columns))))
    return draw(
        st.sampled_from(
            [
                "COMMENT = 'synthetic'",
                "CONVERT TO CHARACTER SET utf8mb4",
                "CONVERT TO CHARACTER SET latin1",
                "DEFAULT CHARACTER SET utf8mb4",
                f"ALTER COLUMN {column} DROP DEFAULT",
                f"ALTER COLUMN {column} SET DEFAULT 5",
                "ENGINE = InnoDB",
                "ENGINE = MyISAM",
                "FORCE",
                "ORDER BY id",
                "DROP COLUMN twice",
            ]
        )
    )


CLAUSES: list[Callable[[Draw, Model, str], str]] = [
    *[add_column] * 6, add_computed, add_several, *[drop_column] * 3, *[modify_column] * 5,
    *[change_column] * 3, swap_columns, *[keys] * 3, *[other_clause] * 3,
]  # fmt: skip

"""Random programs: DDL and DML in random order from several connections, as SQL text.

A program is drawn statement by statement beside a rough model of what tables and
columns there are, so that most statements make sense; what the source refuses is
simply not part of history. Table names are `t0`, `t1`, … behind a prefix that whoever
runs the program chooses, so that programs do not meet each other's tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st

CONNECTIONS = 3
TABLES = 4
MOST_STATEMENTS = 40

Draw = st.DrawFn


@dataclass(frozen=True)
class Step:
    """One statement on one of the connections; `{p}` stands for the tables' prefix."""

    connection: int
    statement: str

    def sql(self, prefix: str) -> str:
        return self.statement.replace("{p}", prefix)


@dataclass
class Model:
    """What tables there should be: name → column → family."""

    tables: dict[str, dict[str, str]] = field(default_factory=dict)
    made: int = 0

    def fresh_column(self) -> str:
        self.made += 1
        return (
            f"c{self.made}" if self.made % 7 else f"Col `` {self.made}"
        )  # doubled: it stands between backquotes


def quoted(name: str) -> str:
    return f"`{name}`"


TEXTS = ["''", "'a'", "'A '", "'synthetic'", "'ünï日本😀'", "'tab\\tline\\nend'", "'\\\\N'",
         "REPEAT('x', 200)", "'0'", "'-1'", "'2024-02-29'"]  # fmt: skip
LATIN = ["''", "'abc'", "'é€'", "'A '"]
DATES = ["'2024-02-29'", "'0001-01-01'", "'9999-12-31'", "'0000-00-00'", "'2020-00-15'"]
MOMENTS = ["'2024-02-29 12:34:56.789012'", "'0001-01-01 00:00:00'", "'0000-00-00 00:00:00'",
           "'9999-12-31 23:59:59'"]  # fmt: skip
FAMILIES: dict[str, list[str]] = {
    "int": ["0", "1", "-1", "2147483647", "-2147483648"],
    "int unsigned": ["0", "4294967295"],
    "tinyint": ["0", "1", "-128", "127"],
    "smallint unsigned": ["0", "65535"],
    "mediumint": ["-8388608", "8388607"],
    "bigint": ["0", "9223372036854775807", "-9223372036854775808"],
    "bigint unsigned": ["0", "18446744073709551615"],
    "decimal(12,3)": ["0", "-123456789.125", "999999999.999", "0.001"],
    "decimal(38,10)": ["0", "1.5", "-9999999999999999999999999999.9999999999"],
    "float": ["0", "0.1", "-3.4e38", "1e-40"],
    "double": ["0", "0.1", "-1.7e308", "5e-324"],
    "char(10)": LATIN,
    "varchar(30)": TEXTS[:7],
    "varchar(300)": TEXTS,
    "varchar(60) CHARACTER SET latin1": LATIN,
    "text": TEXTS,
    "mediumtext": TEXTS,
    "blob": ["''", "x'00ff'", "x'5c4e'", "REPEAT('y', 300)"],
    "varbinary(20)": ["''", "x'00'", "x'feff'"],
    "date": DATES,
    "datetime": MOMENTS,
    "datetime(6)": MOMENTS,
    "timestamp NULL": ["'2024-02-29 12:34:56'", "'1970-01-02 00:00:00'", "'0000-00-00 00:00:00'"],
    "timestamp(3) NULL": ["'2024-02-29 12:34:56.123'"],
    "time": ["'-01:00:00'", "'838:59:59'", "'00:00:00'"],
    "time(4)": ["'-00:00:00.0001'", "'12:34:56.7891'"],
    "year": ["0", "1901", "2155"],
    "bit(1)": ["b'0'", "b'1'"],
    "bit(20)": ["b'0'", "b'11111111111111111111'"],
    "enum('a','b','ç')": ["'a'", "'b'", "3", "0"],
    "set('x','y','z')": ["''", "'x,z'", "7"],
}
KEY_FAMILIES = [
    "int",
    "bigint",
    "bigint unsigned",
    "varchar(30)",
    "char(10)",
    "date",
    "smallint unsigned",
]
WIDER = {
    "int": ["bigint", "decimal(12,3)", "varchar(30)", "double", "int unsigned"],
    "tinyint": ["smallint unsigned", "int", "bigint"],
    "varchar(30)": ["varchar(300)", "text", "varbinary(20)", "varchar(60) CHARACTER SET latin1"],
    "date": ["datetime", "datetime(6)", "varchar(30)"],
    "datetime": ["datetime(6)", "date", "timestamp NULL"],
    "float": ["double"],
    "text": ["mediumtext", "varchar(300)", "blob"],
    "decimal(12,3)": ["decimal(38,10)", "double", "int"],
    "enum('a','b','ç')": ["varchar(30)", "int"],
    "bit(1)": ["bit(20)", "int"],
}


def value(draw: Draw, family: str, *, null: bool = True) -> str:
    choices = FAMILIES[family]
    return draw(st.sampled_from([*choices, "NULL"] if null else choices))


def rows(draw: Draw, columns: dict[str, str], key: str | None, most: int = 5) -> str:
    """A list of rows; the column named id gets small numbers, so that rows meet again."""
    made = []
    for _ in range(draw(st.integers(1, most))):
        values = [
            str(draw(st.integers(1, 40))) if name == key else value(draw, family)
            for name, family in columns.items()
        ]
        made.append(f"({', '.join(values)})")
    return ", ".join(made)


def condition(draw: Draw) -> str:
    low = draw(st.integers(0, 40))
    return draw(
        st.sampled_from([f"id = {low}", f"id BETWEEN {low} AND {low + 8}", f"id % 3 = {low % 3}"])
    )


Action = Callable[[Draw, Model, str], str]


def create(draw: Draw, model: Model, table: str) -> str:
    columns = {"id": "int"}
    for _ in range(draw(st.integers(1, 6))):
        columns[model.fresh_column()] = draw(st.sampled_from(sorted(FAMILIES)))
    keyed = [n for n, f in columns.items() if f in KEY_FAMILIES]
    key = draw(
        st.sampled_from(
            ["PRIMARY KEY (id)"] * 4
            + [f"PRIMARY KEY (id, {quoted(keyed[-1])})", "UNIQUE (id)", "KEY (id)"]
        )
    )
    model.tables[table] = columns
    lines = [f"{quoted(n)} {f}" + (" NOT NULL" if n == "id" else "") for n, f in columns.items()]
    if draw(st.integers(0, 5)) == 0:
        lines.append("twice bigint AS (id * 2) " + draw(st.sampled_from(["VIRTUAL", "STORED"])))
    engine = draw(st.sampled_from(["", " ENGINE=InnoDB", " ENGINE=MyISAM"]))
    exists = draw(st.sampled_from(["", "IF NOT EXISTS "]))
    return f"CREATE TABLE {exists}{{p}}{table} ({', '.join([*lines, key])}){engine}"


def create_like(draw: Draw, model: Model, table: str) -> str:
    other = draw(st.sampled_from(sorted(model.tables)))
    model.tables.setdefault(table, dict(model.tables[other]))
    return f"CREATE TABLE {{p}}{table} LIKE {{p}}{other}"


def create_select(draw: Draw, model: Model, table: str) -> str:
    other = draw(st.sampled_from(sorted(model.tables)))
    model.tables.setdefault(table, dict(model.tables[other]))
    key = draw(st.sampled_from(["(PRIMARY KEY (id)) ", ""]))
    return f"CREATE TABLE {{p}}{table} {key}SELECT * FROM {{p}}{other}"


def insert(draw: Draw, model: Model, table: str) -> str:
    columns = model.tables[table]
    names = ", ".join(map(quoted, columns))
    word = draw(st.sampled_from(["INSERT", "INSERT IGNORE", "REPLACE"]))
    twice = " ON DUPLICATE KEY UPDATE id = id + 100" if word == "INSERT" else ""
    ending = draw(st.sampled_from(["", twice]))
    return f"{word} INTO {{p}}{table} ({names}) VALUES {rows(draw, columns, 'id')}{ending}"


def insert_select(draw: Draw, model: Model, table: str) -> str:
    other = draw(st.sampled_from(sorted(model.tables)))
    shared = [c for c in model.tables[table] if c in model.tables[other] and c != "id"]
    names = ", ".join(map(quoted, ["id", *shared]))
    chosen = ", ".join(["id + 50", *map(quoted, shared)])
    return f"INSERT IGNORE INTO {{p}}{table} ({names}) SELECT {chosen} FROM {{p}}{other}"


def update(draw: Draw, model: Model, table: str) -> str:
    columns = model.tables[table]
    name = draw(st.sampled_from(sorted(columns)))
    new = "id + 41" if name == "id" else value(draw, columns[name])
    return f"UPDATE IGNORE {{p}}{table} SET {quoted(name)} = {new} WHERE {condition(draw)}"


def delete(draw: Draw, model: Model, table: str) -> str:
    limit = draw(st.sampled_from(["", " LIMIT 2"]))
    return f"DELETE FROM {{p}}{table} WHERE {condition(draw)}{limit}"


def truncate(_draw: Draw, _model: Model, table: str) -> str:
    return f"TRUNCATE TABLE {{p}}{table}"


def drop(_draw: Draw, model: Model, table: str) -> str:
    model.tables.pop(table, None)
    return f"DROP TABLE IF EXISTS {{p}}{table}"


def rename(draw: Draw, model: Model, table: str) -> str:
    other = draw(st.sampled_from([f"t{n}" for n in range(TABLES) if f"t{n}" != table]))
    here, there = model.tables.pop(table), model.tables.pop(other, None)
    model.tables[other] = here
    if there is None:
        return f"RENAME TABLE {{p}}{table} TO {{p}}{other}"
    model.tables[table] = there
    return (
        f"RENAME TABLE {{p}}{table} TO {{p}}swap, {{p}}{other} TO {{p}}{table},"
        f" {{p}}swap TO {{p}}{other}"
    )


def alter(draw: Draw, model: Model, table: str) -> str:
    clauses = [draw(st.sampled_from(CLAUSES))(draw, model, table)]
    if draw(st.integers(0, 3)) == 0:
        clauses.append(draw(st.sampled_from(CLAUSES))(draw, model, table))
    return f"ALTER TABLE {{p}}{table} {', '.join(clauses)}"


def place(draw: Draw, model: Model, table: str) -> str:
    after = draw(st.sampled_from(sorted(model.tables[table])))
    return draw(st.sampled_from(["", "", " FIRST", f" AFTER {quoted(after)}"]))


def add_column(draw: Draw, model: Model, table: str) -> str:
    name, family = model.fresh_column(), draw(st.sampled_from(sorted(FAMILIES)))
    plain = not any(word in family for word in ("text", "blob"))
    default = f" DEFAULT {value(draw, family, null=False)}"
    ending = draw(st.sampled_from(["", default if plain else "", " NOT NULL"]))
    if "NULL" in family:
        ending = ending.replace(" NOT NULL", "")
    where = place(draw, model, table)
    model.tables[table][name] = family
    return f"ADD COLUMN {quoted(name)} {family}{ending}{where}"


def drop_column(draw: Draw, model: Model, table: str) -> str:
    columns = model.tables[table]
    others = sorted(name for name in columns if name != "id")
    if len(others) < 2:  # keep something to change
        return "COMMENT = 'kept'"
    name = draw(st.sampled_from(others))
    del columns[name]
    return f"DROP COLUMN {quoted(name)}"


def modify_column(draw: Draw, model: Model, table: str) -> str:
    columns = model.tables[table]
    name = draw(st.sampled_from(sorted(columns)))
    family = columns[name]
    wider = draw(
        st.sampled_from(WIDER.get(family, sorted(FAMILIES)) if name != "id" else ["bigint", "int"])
    )
    if name != "id":
        columns[name] = wider
    null = " NOT NULL" if name == "id" else ""
    return f"MODIFY {quoted(name)} {wider}{null}{place(draw, model, table)}"


def change_column(draw: Draw, model: Model, table: str) -> str:
    columns = model.tables[table]
    others = sorted(name for name in columns if name != "id")
    if not others:
        return "COMMENT = 'nothing to rename'"
    name, new = draw(st.sampled_from(others)), model.fresh_column()
    family = columns.pop(name)
    columns[new] = family
    return draw(
        st.sampled_from(
            [
                f"CHANGE {quoted(name)} {quoted(new)} {family}",
                f"RENAME COLUMN {quoted(name)} TO {quoted(new)}",
            ]
        )
    )


def other_clause(draw: Draw, model: Model, table: str) -> str:
    name = draw(st.sampled_from(sorted(model.tables[table])))
    return draw(
        st.sampled_from(
            [
                f"ADD INDEX (id, {quoted(name)})",
                "DROP PRIMARY KEY",
                "DROP PRIMARY KEY, ADD PRIMARY KEY (id)",
                "ADD PRIMARY KEY (id)",
                "COMMENT = 'synthetic'",
                "CONVERT TO CHARACTER SET utf8mb4",
                "CONVERT TO CHARACTER SET latin1",
                f"ALTER COLUMN {quoted(name)} DROP DEFAULT",
                "ENGINE = InnoDB",
                "ENGINE = MyISAM",
                "FORCE",
            ]
        )
    )


CLAUSES: list[Action] = [
    *[add_column] * 4, *[drop_column] * 2, *[modify_column] * 3, *[change_column] * 2, other_clause,
]  # fmt: skip
CHANGES: list[Action] = [
    *[insert] * 8, insert_select, *[update] * 5, *[delete] * 3, truncate, *[alter] * 5, rename,
    create_like, create_select, drop,
]  # fmt: skip
BORDERS = [
    "BEGIN",
    "BEGIN",
    "COMMIT",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
]


@st.composite
def programs(draw: Draw) -> list[Step]:
    """DDL and DML on up to four tables from three connections, with open transactions."""
    model = Model()
    steps = [Step(0, create(draw, model, "t0"))]
    for _ in range(draw(st.integers(5, MOST_STATEMENTS))):
        connection = draw(st.integers(0, CONNECTIONS - 1))
        if draw(st.integers(0, 5)) == 0:
            steps.append(Step(connection, draw(st.sampled_from(BORDERS))))
            continue
        table = draw(st.sampled_from([f"t{n}" for n in range(TABLES)]))
        if not model.tables:
            action: Action = create
        elif table in model.tables:
            action = draw(st.sampled_from(CHANGES))
        else:
            action = draw(st.sampled_from([create, create_like, create_select]))
        steps.append(Step(connection, action(draw, model, table)))
    return steps

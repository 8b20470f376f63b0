"""Random programs: DDL and DML in random order from several connections, as SQL text.

A program is drawn statement by statement beside a rough model of what tables and columns
there are and who holds them in an open transaction, so that most statements make sense;
what the source refuses is simply not part of history. Tables have four names, none of them
plain but the first, behind a prefix that whoever runs the program chooses, so that programs
do not meet each other's tables. What is changed by DDL other than ALTER stands here; rows
are in `random_rows`, ALTER's clauses in `random_alters`, types and values in `random_values`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.end_to_end import random_alters, random_rows
from tests.end_to_end.random_model import NAMES, Draw, Model, Table, quoted, there
from tests.end_to_end.random_values import KEYABLE, a_family, computed

CONNECTIONS = 3
FEWEST_STATEMENTS, MOST_STATEMENTS = 15, 60


@dataclass(frozen=True)
class Step:
    """One statement on one of the connections; `{p}` stands for the tables' prefix."""

    connection: int
    statement: str
    at_once: bool = False
    """Is it sent without waiting for the answer to the step before?"""

    def sql(self, prefix: str) -> str:
        return self.statement.replace("{p}", prefix)


class Program:
    """Steps in their order; it is told in full by whoever runs it, and here only named."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps

    def __repr__(self) -> str:
        return f"Program of {len(self.steps)} steps, see above"


PARTITIONS = [
    "PARTITION BY HASH (id) PARTITIONS 3",
    "PARTITION BY KEY (id) PARTITIONS 2",
    "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (20),"
    " PARTITION p1 VALUES LESS THAN (60), PARTITION p2 VALUES LESS THAN MAXVALUE)",
]
KEYS = [*["PRIMARY KEY (id)"] * 4, "UNIQUE (id)", "KEY (id)", "UNIQUE KEY one (id), KEY two (id)"]
OPTIONS = [*[""] * 4, " CHARSET latin1", " CHARSET utf8mb4", " COMMENT = 'synthetic; ''it'''",
           " ROW_FORMAT = DYNAMIC"]  # fmt: skip


def create(draw: Draw, model: Model, name: str) -> str:
    return _create(draw, model, name, draw(st.sampled_from(["", "IF NOT EXISTS "])))


def _create(draw: Draw, model: Model, name: str, exists: str, replace: str = "") -> str:
    table = Table({"id": "int"})
    for _ in range(draw(st.integers(1, 6))):
        table.columns[model.fresh_column()] = a_family(draw, model.server)
    table.hidden = {c for c in table.columns if c != "id" and draw(st.integers(0, 9)) == 0}
    lines = [f"{quoted(c)} {f}{_ending(table, c)}" for c, f in table.columns.items()]
    if draw(st.integers(0, 3)) == 0:
        base = draw(st.sampled_from(sorted(table.columns)))
        how = computed(draw, quoted(base), table.columns[base])
        lines.append(f"twice {how}{draw(st.sampled_from(['', ' INVISIBLE']))}")
    keys = list(KEYS)
    for column in [c for c, f in table.columns.items() if f in KEYABLE and c != "id"][-1:]:
        keys += [f"PRIMARY KEY (id, {quoted(column)})", f"PRIMARY KEY ({quoted(column)}, id)"]
    lines.append(draw(st.sampled_from(keys)))
    engine = draw(st.sampled_from(["", " ENGINE=InnoDB", " ENGINE=MyISAM"]))
    ending = engine + draw(st.sampled_from(OPTIONS))
    if draw(st.integers(0, 6)) == 0:
        table.partitioned = True
        ending += " " + draw(st.sampled_from(PARTITIONS))
    model.tables[name] = table
    return f"CREATE {replace}TABLE {exists}{there(name)} ({', '.join(lines)}){ending}"


def _ending(table: Table, column: str) -> str:
    if column in table.hidden:
        return " INVISIBLE"
    return " NOT NULL" if column == "id" else ""


def recreate(draw: Draw, model: Model, name: str) -> str:
    """CREATE OR REPLACE, where there is such a thing."""
    if model.server == "mariadb":
        return _create(draw, model, name, "", "OR REPLACE ")
    return drop(draw, model, name)


def create_like(draw: Draw, model: Model, name: str) -> str:
    other = draw(st.sampled_from(sorted(model.tables)))
    model.tables.setdefault(name, model.tables[other].copy())
    return f"CREATE TABLE {there(name)} LIKE {there(other)}"


def create_select(draw: Draw, model: Model, name: str) -> str:
    other = draw(st.sampled_from(sorted(model.tables)))
    model.tables.setdefault(name, model.tables[other].selected())
    key = draw(st.sampled_from(["(PRIMARY KEY (id)) ", "", "ENGINE=MyISAM "]))
    where = draw(st.sampled_from(["", "", " WHERE id < 0"]))
    return f"CREATE TABLE {there(name)} {key}SELECT * FROM {there(other)}{where}"


def truncate(_draw: Draw, _model: Model, name: str) -> str:
    return f"TRUNCATE TABLE {there(name)}"


def drop(draw: Draw, model: Model, name: str) -> str:
    """One table, or several, or some that are not there."""
    others = draw(st.lists(st.sampled_from(NAMES), max_size=2, unique=True))
    names = [name, *(o for o in others if o != name)] if draw(st.integers(0, 2)) == 0 else [name]
    for each in names:
        model.tables.pop(each, None)
    exists = draw(st.sampled_from(["IF EXISTS ", "IF EXISTS ", ""]))
    return f"DROP TABLE {exists}{', '.join(map(there, names))}"


def rename(draw: Draw, model: Model, name: str) -> str:
    """To a name that is free, or, if it is not, in exchange."""
    other = draw(st.sampled_from([n for n in NAMES if n != name]))
    here, before = model.tables.pop(name), model.tables.pop(other, None)
    model.tables[other] = here
    if before is None:
        return draw(
            st.sampled_from(
                [
                    f"RENAME TABLE {there(name)} TO {there(other)}",
                    f"ALTER TABLE {there(name)} RENAME TO {there(other)}",
                ]
            )
        )
    model.tables[name] = before
    return (
        f"RENAME TABLE {there(name)} TO {there('swap')}, {there(other)} TO {there(name)},"
        f" {there('swap')} TO {there(other)}"
    )


def temporary(_draw: Draw, _model: Model, name: str) -> str:
    """A session's own table never leaves it; its rows may come back into one that does."""
    return f"CREATE TEMPORARY TABLE IF NOT EXISTS {there('tmp')} SELECT id FROM {there(name)}"


def index(draw: Draw, model: Model, name: str) -> str:
    column = quoted(draw(st.sampled_from(sorted(model.tables[name].columns))))
    return draw(
        st.sampled_from(
            [
                f"CREATE INDEX made ON {there(name)} (id, {column})",
                f"CREATE UNIQUE INDEX unique_id ON {there(name)} (id)",
                f"DROP INDEX made ON {there(name)}",
            ]
        )
    )


Action = Callable[[Draw, Model, str], str]
ROWS: list[Action] = random_rows.ACTIONS
SHAPES: list[Action] = [
    *[random_alters.alter] * 10, *[random_alters.partitions] * 2, *[rename] * 2, *[truncate] * 2,
    create_like, create_select, *[drop] * 2, recreate, index, temporary,
]  # fmt: skip
BEGINNINGS: list[Action] = [*[create] * 2, create_like, create_select]
BORDERS = [*["BEGIN"] * 3, *["COMMIT"] * 3, "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s"]


def _step(draw: Draw, model: Model, connection: int) -> Iterator[Step]:
    if draw(st.integers(0, 6)) == 0:
        word = draw(st.sampled_from(BORDERS))
        model.border(connection, word)
        yield Step(connection, word)
        return
    name = draw(st.sampled_from(NAMES))
    if not model.tables:
        action: Action = create
    elif name not in model.tables:
        action = draw(st.sampled_from(BEGINNINGS))
    else:
        action = draw(st.sampled_from(ROWS if draw(st.integers(0, 5)) < 4 else SHAPES))
    if action in ROWS:
        model.held[connection].add(name)
        at_once = draw(st.booleans())
    else:
        at_once = not draw(st.integers(0, 5))
        # An open transaction keeps others from changing a table, and mostly has to end.
        for holder in model.holders(connection):
            if draw(st.integers(0, 7)):
                word = draw(st.sampled_from(["COMMIT", "COMMIT", "ROLLBACK"]))
                model.border(holder, word)
                yield Step(holder, word)
        model.border(connection, "COMMIT")
    yield Step(connection, action(draw, model, name), at_once)


@st.composite
def programs(draw: Draw, server: str) -> Program:
    """A program for a `mariadb` or a `mysql`: up to four tables, three connections."""
    model = Model(server)
    steps = [Step(0, create(draw, model, NAMES[0]))]
    for _ in range(draw(st.integers(FEWEST_STATEMENTS, MOST_STATEMENTS))):
        connection = draw(st.integers(0, CONNECTIONS - 1))
        steps += _step(draw, model, connection)
    return Program(steps)

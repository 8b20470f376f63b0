"""Random changes of rows, as SQL text: whatever a client may do to tables that are there."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from tests.end_to_end.random_model import Draw, Model, quoted, there
from tests.end_to_end.random_values import value


def _rows(draw: Draw, model: Model, columns: dict[str, str], most: int = 5) -> str:
    """A list of rows; the column named id gets small numbers, so that rows meet again."""
    made = []
    for _ in range(draw(st.integers(1, most))):
        values = [
            str(draw(st.integers(1, 40))) if name == "id" else value(draw, model.server, family)
            for name, family in columns.items()
        ]
        made.append(f"({', '.join(values)})")
    return ", ".join(made)


def _condition(draw: Draw, column: str = "id") -> str:
    low = draw(st.integers(0, 40))
    return draw(
        st.sampled_from(
            [
                f"{column} = {low}",
                f"{column} BETWEEN {low} AND {low + 8}",
                f"{column} % 3 = {low % 3}",
            ]
        )
    )


def insert(draw: Draw, model: Model, name: str) -> str:
    columns = model.tables[name].columns
    names = ", ".join(map(quoted, columns))
    word = draw(st.sampled_from(["INSERT", "INSERT", "INSERT IGNORE", "REPLACE"]))
    twice = " ON DUPLICATE KEY UPDATE id = id + 100" if word == "INSERT" else ""
    ending = draw(st.sampled_from(["", twice]))
    return f"{word} INTO {there(name)} ({names}) VALUES {_rows(draw, model, columns)}{ending}"


def insert_select(draw: Draw, model: Model, name: str) -> str:
    other = draw(st.sampled_from(sorted(model.tables)))
    mine, others = model.tables[name].columns, model.tables[other].columns
    shared = [c for c in mine if c in others and c != "id"]
    names = ", ".join(map(quoted, ["id", *shared]))
    chosen = ", ".join(["id + 50", *map(quoted, shared)])
    word = draw(st.sampled_from(["INSERT IGNORE", "REPLACE"]))
    return f"{word} INTO {there(name)} ({names}) SELECT {chosen} FROM {there(other)}"


def from_temporary(_draw: Draw, _model: Model, name: str) -> str:
    return f"INSERT IGNORE INTO {there(name)} (id) SELECT id + 200 FROM {there('tmp')}"


def update(draw: Draw, model: Model, name: str) -> str:
    columns = model.tables[name].columns
    changed = draw(st.lists(st.sampled_from(sorted(columns)), min_size=1, max_size=3, unique=True))
    new = [
        f"{quoted(c)} = {'id + 41' if c == 'id' else value(draw, model.server, columns[c])}"
        for c in changed
    ]
    ignore = draw(st.sampled_from(["IGNORE ", "IGNORE ", ""]))
    return f"UPDATE {ignore}{there(name)} SET {', '.join(new)} WHERE {_condition(draw)}"


def update_joined(draw: Draw, model: Model, name: str) -> str:
    other = draw(st.sampled_from(sorted(model.tables)))
    return (
        f"UPDATE IGNORE {there(name)} AS a JOIN {there(other)} AS b ON a.id = b.id + 1"
        f" SET a.id = a.id + 300 WHERE {_condition(draw, 'b.id')}"
    )


def delete(draw: Draw, model: Model, name: str) -> str:
    limit = draw(st.sampled_from(["", " ORDER BY id LIMIT 2", " LIMIT 1"]))
    return f"DELETE FROM {there(name)} WHERE {_condition(draw)}{limit}"


def delete_joined(draw: Draw, model: Model, name: str) -> str:
    other = draw(st.sampled_from(sorted(model.tables)))
    both = draw(st.sampled_from(["a", "a, b"]))
    return (
        f"DELETE {both} FROM {there(name)} AS a JOIN {there(other)} AS b ON a.id = b.id"
        f" WHERE {_condition(draw, 'a.id')}"
    )


ACTIONS: list[Callable[[Draw, Model, str], str]] = [
    *[insert] * 8, insert_select, from_temporary, *[update] * 6, update_joined, *[delete] * 3,
    delete_joined,
]  # fmt: skip

"""Steps, and how they are shown and done. Whoever runs a statement is told what it is first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "missing", "done"]


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL, and the form in which people may see it: without passwords."""

    sql: str
    shown: str = ""

    def __str__(self) -> str:
        return self.shown or self.sql


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that must hold; without statements it does."""

    server: str
    what: str
    statements: tuple[Statement, ...] = ()
    run: Callable[[Statement], object] = lambda _statement: None


@dataclass(slots=True)
class Told:
    """What became of a step."""

    server: str
    what: str
    state: State
    statements: list[str] = field(default_factory=list)


def carried_out(
    steps: Iterable[Step], show: Callable[[Told], None], *, dry: bool
) -> Iterator[Told]:
    """Each step, shown and then done, unless it is `dry`; raises what a server refuses."""
    for step in steps:
        shown = [str(statement) for statement in step.statements]
        told = Told(step.server, step.what, "missing" if shown else "ok", shown)
        show(told)
        if shown and not dry:
            for statement in step.statements:
                step.run(statement)
            told.state = "done"
        yield told


def runs_on(connection: Any) -> Callable[[Statement], object]:
    """Run statements there, as they stand: no parameters, no percent signs that mean something."""

    def run(statement: Statement) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement.sql)

    return run

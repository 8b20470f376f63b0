"""What PostgreSQL refuses for a row's sake, and which of many rows it means.

Left: an error of the server. Right: a `Reason`, or the finding that the error is not about
rows (a lost connection, a lock, a full disk, a missing grant or table): those are other
people's to wait out or to mend. A reason holds the SQLSTATE, its class in words, and names
of constraint and column. An error's message, detail and context quote values of the row, so
the error itself never leaves this module.

`refused` finds the bad ones among many units by halves: n units with k bad ones cost at most
about 2k·log2(n) attempts. What is left of a half is written before what is right of it, so of
two rows that exclude each other always the first is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from config.connections import PostgresConnection

_CLASSES = ("22", "23", "38", "54", "P0")
"""Data exceptions, integrity violations, what routines raise, limits, what PL/pgSQL raises:
PostgreSQL manual, "PostgreSQL Error Codes"."""
_LIFTABLE = frozenset({"23001", "23503", "23505", "23P01"})
"""Foreign keys, uniqueness, exclusion: another row's change may do away with these."""

Unit = TypeVar("Unit")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a row was refused, in words that hold nothing of it."""

    sqlstate: str
    text: str

    @property
    def liftable(self) -> bool:
        """May it have been another row that stood in the way?"""
        return self.sqlstate in _LIFTABLE


class Undoable(Protocol):
    """What we know of a transaction and must forget where a part of it is undone."""

    def held(self) -> object:
        """What is known now."""

    def restore(self, held: object) -> None:
        """Know again what was known then."""


def refusal(error: BaseException | None) -> Reason | None:
    """Why a row was refused; None where the error is about something else.

    A pipeline that ends may raise that it was aborted, with the error itself as the context.
    """
    while isinstance(error, psycopg.errors.PipelineAborted):
        error = error.__context__
    if not isinstance(error, psycopg.Error) or error.sqlstate is None:
        return None
    if not error.sqlstate.startswith(_CLASSES):
        return None
    return Reason(error.sqlstate, _words(error, error.sqlstate))


def _words(error: psycopg.Error, state: str) -> str:
    """The class of the error and the names that the server attached.

    Names in an error that a routine raised are whatever the routine gave, and are left out.
    """
    kind = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower()
    diag = error.diag
    raised = state.startswith(("38", "P0")) or "PL/" in (diag.context or "")
    named = {} if raised else {"constraint": diag.constraint_name, "column": diag.column_name}
    places = "".join(f", {word} {name}" for word, name in named.items() if name)
    return f"{kind} (SQLSTATE {state}{places})"


def begin(connection: PostgresConnection) -> None:
    """Be in a transaction: without one `connection.transaction()` would commit at its end."""
    if connection.info.transaction_status is TransactionStatus.IDLE:
        connection.execute("SELECT")


def attempt(
    connection: PostgresConnection, run: Callable[[], None], *known: Undoable
) -> Reason | None:
    """Run; where a row is refused undo all of it, and say why."""
    begin(connection)
    held = [each.held() for each in known]
    try:
        with connection.transaction():
            run()
    except psycopg.Error as error:
        why = refusal(error)
        if why is None:
            raise
        for each, before in zip(known, held, strict=True):
            each.restore(before)
        return why
    return None


@contextmanager
def pipeline(connection: PostgresConnection) -> Iterator[None]:
    """A pipeline that raises the first error, from within or at its end, and logs none.

    psycopg logs what its end raises beside an error from within: that the rest was aborted. And
    where a connection breaks off it may say only that the pipeline cannot be ended.
    """
    first: psycopg.Error | None = None
    try:
        with connection.pipeline():
            try:
                yield
            except psycopg.Error as error:
                first = error
    except psycopg.Error as error:
        raise first or _cause(error) from None
    if first is not None:
        raise first


def _cause(error: psycopg.Error) -> psycopg.Error:
    """What a server said before the pipeline could not be ended; else the error itself."""
    before = error.__context__
    unsaid = error.sqlstate is None and not isinstance(error, psycopg.errors.PipelineAborted)
    return before if unsaid and isinstance(before, psycopg.Error) else error


def refused(
    units: Sequence[Unit], write: Callable[[Sequence[Unit]], Reason | None]
) -> list[tuple[Unit, Reason]]:
    """The units that are refused, in order, each with why; all others are written.

    `write` writes some of the units, or none of them and says why. See the module.
    """
    found: list[tuple[Unit, Reason]] = []
    why = write(units) if units else None
    if why is not None:
        _narrow(units, why, write, found)
    return found


def _narrow(
    units: Sequence[Unit],
    why: Reason,
    write: Callable[[Sequence[Unit]], Reason | None],
    found: list[tuple[Unit, Reason]],
) -> None:
    """Find the bad ones among units that were refused together."""
    if len(units) == 1:
        found.append((units[0], why))
        return
    left, right = units[: len(units) // 2], units[len(units) // 2 :]
    on_the_left = write(left)
    if on_the_left is not None:
        _narrow(left, on_the_left, write, found)
    # Where the left is good the right is bad: it need not be tried as a whole.
    surely = on_the_left is None and len(right) > 1
    on_the_right = why if surely else write(right)
    if on_the_right is not None:
        _narrow(right, on_the_right, write, found)

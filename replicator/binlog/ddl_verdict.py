"""What a statement in the binlog means for us: the possible answers of `ddl.decide`.

To the right, leg 1 runs `Execute.statements` on the replica, queues a copy of
`needs_copy`, counts a `Skip`, and halts on `Unsupported` and `RowStatement`.
Leg 2, which asks about its own replica's database, only looks at the tables.

Names of tables are those in our database, unqualified, in the spelling that
the table maps of the stream have.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Execute:
    """A schema change of ours.

    `sql` is what the replica runs, empty when nothing can be run there; `then`
    are clean-ups to run after it, harmless when run twice. `needs_copy` names
    tables whose definition and rows only the source can give: they must be
    queued for a resync, and their events left aside until it has them.
    """

    sql: str
    kind: str
    """What was done, in lower case: "create table", "rename table", "drop index" …"""
    tables: tuple[str, ...] = ()
    """Every table that the statement concerns, under its old and its new name."""
    created: tuple[str, ...] = ()
    like: str = ""
    """The table whose definition, at this place of the stream, the created one gets."""
    dropped: tuple[str, ...] = ()
    truncated: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    """(from, to) in the order in which they happened: a swap is three of them."""
    column_renames: tuple[tuple[str, str], ...] = ()
    """(old, new) columns of the one table that an ALTER concerns."""
    needs_copy: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    """Storage engines, as written, that were replaced by the replica's."""
    notes: tuple[str, ...] = ()
    """What else differs from the source's statement, to be announced with `engines`."""
    rows_changed: bool = False
    """Rows may be gone or different although no row event says so: partitions dropped or
    exchanged, duplicates ignored, a column dropped and added again. Leg 2 reloads."""
    conditional: bool = False
    """`IF NOT EXISTS` or `OR REPLACE`: the source may have done nothing, or more."""
    starts_transaction: bool = False
    """MySQL's `CREATE TABLE … START TRANSACTION` (left out of `sql`): rows follow in the same
    transaction."""

    @property
    def statements(self) -> tuple[str, ...]:
        """What to run on the replica, in order; may be empty."""
        return ((self.sql,) if self.sql else ()) + self.then


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing of ours: `reason` is one of few stable words, to be counted and logged once."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Carrying on would make the replica differ: halt with `reason`; `hint` is the remedy."""

    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class RowStatement:
    """Row changes logged as a statement that may touch our database; `verb` says which."""

    verb: str


@dataclass(frozen=True, slots=True)
class TransactionControl:
    """BEGIN, COMMIT, SAVEPOINT, XA and their like: the reader of transactions knows them."""

    verb: str


Verdict = Execute | Skip | Unsupported | RowStatement | TransactionControl

"""Send COPY lines to PostgreSQL: in its binary form where that says the same, else as text.

Left: blocks of lines, and where they go. Right: rows in that table, in the caller's
transaction. Binary rows cost PostgreSQL two thirds of what text costs it (docs/performance.md).

*Exact*: the types are those that the table has, whatever we made of it once: PostgreSQL tells them,
and for a table that others can alter they are asked for under the lock that COPY itself takes, so
that they stay until the transaction ends. `binary_copy` turns a block into binary only where
it knows each value to the letter; any other block goes as text, in a COPY of its own between
two binary ones, which together are what one COPY of all of them would be. What is left
to PostgreSQL is the same either way: scales, character sets, constraints, triggers.

A refusal is raised as it comes; who writes carefully then writes by text (`upsert`).
Without the compiled module, and for types that it does not know, everything goes as text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from config.connections import PostgresConnection
from loader.quarantine.refusals import Reason, attempt, refused
from loader.schema import quoted

if TYPE_CHECKING:
    from loader.binary_copy import Transcoder

ASK_BYTES = 1 << 16
"""So long is a first block that its table's types are worth a question."""
LARGE_BYTES = 1 << 21
"""A block of more is one huge row: it goes as text, and is not held twice."""


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY into some columns of a table: as text, in binary, and what shows their types."""

    text: bytes
    binary: bytes
    types: bytes


def transcoder_of(connection: PostgresConnection, copy: Copy) -> Transcoder | None:
    """What makes lines binary for these columns as they are; None where nothing does."""
    try:
        from loader.binary_copy import Transcoder  # noqa: PLC0415 - may not have been built
    except ImportError:
        return None
    cursor = connection.execute(copy.types)
    while cursor.nextset():
        pass
    try:
        return Transcoder([column.type_code for column in cursor.description or ()])
    except ValueError:
        return None


def copy_as_text(
    connection: PostgresConnection, copy: bytes | sql.Composed, blocks: Iterable[bytes]
) -> None:
    """Send lines as they are; `copy` is the COPY statement."""
    with connection.cursor() as cursor, cursor.copy(copy) as sink:
        for block in blocks:
            sink.write(block)


def copy_around(
    connection: PostgresConnection, copy: sql.Composed, lines: bytes
) -> list[tuple[bytes, Reason]]:
    """Send whole lines as they are, but for those that PostgreSQL refuses; these, each with why."""

    def write(some: Sequence[bytes]) -> Reason | None:
        together = [b"\n".join(some) + b"\n"]
        return attempt(connection, lambda: copy_as_text(connection, copy, together))

    return refused(lines.split(b"\n")[:-1], write)


def copy_into(
    connection: PostgresConnection,
    copy: Copy,
    blocks: Iterable[bytes],
    ask: Callable[[], Transcoder | None] | None = None,
) -> None:
    """Send lines in whichever form; `ask` knows the table's types if PostgreSQL need not be asked.

    Few lines are not worth the question.
    """
    left = iter(blocks)
    first = next(left, b"")
    blocks = chain([first] if first else [], left)
    transcoder = None
    if len(first) >= ASK_BYTES:
        transcoder = ask() if ask is not None else transcoder_of(connection, copy)
    if transcoder is None:
        copy_as_text(connection, copy.text, blocks)
        return
    for is_binary, some in groupby(_formed(blocks, transcoder), key=lambda formed: formed[0]):
        if is_binary:
            _copy_binary(connection, copy, (block for _, block in some))
        else:
            copy_as_text(connection, copy.text, (block for _, block in some))


def _formed(blocks: Iterable[bytes], transcoder: Transcoder) -> Iterator[tuple[bool, bytes]]:
    for block in blocks:
        made = transcoder.transcode(block) if len(block) <= LARGE_BYTES else None
        yield (False, block) if made is None else (True, made)


def _copy_binary(connection: PostgresConnection, copy: Copy, blocks: Iterable[bytes]) -> None:
    """Send tuples. Should PostgreSQL not read them as they were meant, that is a refusal."""
    from loader.binary_copy import HEADER, TRAILER  # noqa: PLC0415 - it was built

    try:
        with connection.cursor() as cursor, cursor.copy(copy.binary) as sink:
            sink.write(HEADER)
            for block in blocks:
                sink.write(block)
            sink.write(TRAILER)
    except psycopg.errors.ProtocolViolation as error:
        raise psycopg.errors.InvalidBinaryRepresentation(*error.args) from error


def copies(
    connection: PostgresConnection, table: sql.Identifier, columns: Iterable[str], *, ours: bool
) -> Copy:
    """COPY into some columns of a table; `ours`: nobody else can alter it."""
    names = quoted(columns)
    text = sql.SQL("COPY {} ({}) FROM STDIN").format(table, names)
    types = sql.SQL("SELECT {} FROM {} LIMIT 0").format(names, table)
    if not ours:
        types = sql.SQL("LOCK TABLE ONLY {} IN ROW EXCLUSIVE MODE; ").format(table) + types
    binary = text + sql.SQL(" (FORMAT binary)")
    return Copy(*(each.as_bytes(connection) for each in (text, binary, types)))

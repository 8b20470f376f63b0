"""The benchmarks' own data: OpenDental's `patient`, and a payment-like table of five columns.

A bulk load in statements of many rows, and single-row transactions as a practice's programs
write them. All of it is made up, and the same each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from replicator.sandbox.data import RowMaker, insert_statement
from replicator.sandbox.schema import TABLES

WIDE, NARROW = "patient", "payment_like"
WIDE_ROWS_A_STATEMENT, NARROW_ROWS_A_STATEMENT = 500, 5_000
_NARROW_DDL = (
    f"CREATE TABLE {NARROW} (PayNum bigint PRIMARY KEY, PatNum bigint NOT NULL, PayDate date NOT"
    " NULL, PayAmt double NOT NULL, PayNote varchar(100) NOT NULL)"
)


def create(connection: Any, engine: str = "InnoDB") -> None:
    """Create both tables, empty, in the connection's database."""
    for ddl in (TABLES[WIDE].ddl(engine), f"{_NARROW_DDL} ENGINE={engine}"):
        _execute(connection, ddl)


def load_wide(connection: Any, rows: int, first: int = 1) -> None:
    """Insert `rows` patients with keys from `first` on, a transaction a statement."""
    for statement in _wide_statements(rows, first):
        _execute(connection, statement)


def load_narrow(connection: Any, rows: int, first: int = 1) -> None:
    """Insert `rows` payments with keys from `first` on, a transaction a statement."""
    for start in range(first, first + rows, NARROW_ROWS_A_STATEMENT):
        keys = range(start, min(start + NARROW_ROWS_A_STATEMENT, first + rows))
        _execute(connection, f"INSERT INTO {NARROW} VALUES {', '.join(map(_payment, keys))}")


def one_row_transactions(connection: Any, count: int, first: int) -> None:
    """`count` transactions of a row each: of ten, six inserts, then three updates, a delete."""
    for key in range(first, first + count):
        _execute(connection, _one_row(key))


def _wide_statements(rows: int, first: int) -> Iterator[str]:
    maker = RowMaker(TABLES[WIDE], seed=1, patients=1000)
    for start in range(first, first + rows, WIDE_ROWS_A_STATEMENT):
        keys = range(start, min(start + WIDE_ROWS_A_STATEMENT, first + rows))
        yield insert_statement(WIDE, [maker.row(key) for key in keys])


def _payment(key: int) -> str:
    day, amount = f"'2024-01-01' + INTERVAL {key % 900} DAY", key % 20000 / 100
    return f"({key}, {key % 977}, {day}, {amount}, 'note {key}')"


def _one_row(key: int) -> str:
    turn = key % 10
    if turn < 6:
        return f"INSERT INTO {NARROW} VALUES {_payment(key)}"
    inserted = key - 6
    if turn == 9:
        return f"DELETE FROM {NARROW} WHERE PayNum = {inserted}"
    return f"UPDATE {NARROW} SET PayAmt = {key}.5, PayNote = 'changed' WHERE PayNum = {inserted}"


def _execute(connection: Any, statement: str) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)

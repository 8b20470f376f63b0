"""The benchmarks' own data: 70 columns of OpenDental's `patient`, and a table of five columns.

A patient's row is filled as a reception fills it: names, address, contacts and balances;
most other texts stay empty and most other dates are OpenDental's "none". A bulk load in
statements of many rows, and single-row transactions as a practice's programs write them.
All of it is made up, and the same each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from replicator.sandbox.data import RowMaker
from replicator.sandbox.schema import TABLES, Column, Table

WIDE, NARROW = "patient", "payment_like"
WIDE_ROWS_A_STATEMENT, NARROW_ROWS_A_STATEMENT = 500, 5_000
TRANSACTIONS_A_PACKET = 100
SEED_ROWS = 5_000
_SEED = "bench_seed"
PATIENT = Table(WIDE, TABLES[WIDE].columns[:70], TABLES[WIDE].indexes[:1])
_FILLED = frozenset(
    {"LName", "FName", "Preferred", "Birthdate", "Address", "City", "State", "Zip", "HmPhone"}
    | {"WirelessPhone", "Email", "EstBalance", "Bal_0_30", "BalTotal", "InsEst"}
    | {"DateFirstVisit", "DateTStamp", "HasIns"}
)
_UNFILLED = {"d": "'0001-01-01'", "tm": "NULL", "r": "0", "v": "''", "c": "''", "x": "''"}
_NARROW_DDL = (
    f"CREATE TABLE {NARROW} (PayNum bigint PRIMARY KEY, PatNum bigint NOT NULL, PayDate date NOT"
    " NULL, PayAmt double NOT NULL, PayNote varchar(100) NOT NULL)"
)


def create(connection: Any, engine: str = "InnoDB") -> None:
    """Create both tables, empty, in the connection's database."""
    for ddl in (PATIENT.ddl(engine), f"{_NARROW_DDL} ENGINE={engine}"):
        _execute(connection, ddl)


def load_wide(connection: Any, rows: int, first: int = 1) -> None:
    """Insert `rows` patients with keys from `first` on, a transaction a statement."""
    for statement in _wide_statements(rows, first):
        _execute(connection, statement)


def fill_wide_unlogged(connection: Any, rows: int) -> None:
    """`rows` patients with keys from 1 on that no binlog tells of: a table to be copied."""
    _execute(connection, "SET SESSION sql_log_bin = 0")
    _execute(connection, f"CREATE DATABASE {_SEED}")
    _execute(connection, f"CREATE TABLE {_SEED}.{WIDE} LIKE {WIDE}")
    for statement in _wide_statements(SEED_ROWS, 1):
        _execute(connection, statement.replace(WIDE, f"{_SEED}`.`{WIDE}", 1))
    multiply_wide(connection, rows, 0)
    _execute(connection, f"ANALYZE NO_WRITE_TO_BINLOG TABLE {WIDE}")  # so that its size is known
    _execute(connection, "SET SESSION sql_log_bin = 1")


def multiply_wide(connection: Any, rows: int, shift: int) -> None:
    """`rows` patients with keys from `shift` + 1 on in one transaction, out of those made before.

    `rows` is a multiple of SEED_ROWS.
    """
    key, *others = (f"`{column.name}`" for column in PATIENT.columns)
    rest = ", ".join(others)
    _execute(
        connection,
        f"INSERT INTO {WIDE} ({key}, {rest}) SELECT STRAIGHT_JOIN {key} + {shift} + seq *"
        f" {SEED_ROWS}, {rest} FROM seq_0_to_{rows // SEED_ROWS - 1} JOIN {_SEED}.{WIDE}",
    )


def load_narrow(connection: Any, rows: int, first: int = 1) -> None:
    """Insert `rows` payments with keys from `first` on, a transaction a statement."""
    for start in range(first, first + rows, NARROW_ROWS_A_STATEMENT):
        keys = range(start, min(start + NARROW_ROWS_A_STATEMENT, first + rows))
        _execute(connection, f"INSERT INTO {NARROW} VALUES {', '.join(map(payment, keys))}")


def one_row_transactions(connection: Any, count: int, first: int) -> None:
    """`count` transactions of a row each: of ten, six inserts, then three updates, a delete."""
    each_by_itself(connection, [one_row(key) for key in range(first, first + count)])


def _wide_statements(rows: int, first: int) -> Iterator[str]:
    maker = RowMaker(PATIENT, seed=1, patients=1000)
    names = ",".join(f"`{column.name}`" for column in PATIENT.columns)
    for start in range(first, first + rows, WIDE_ROWS_A_STATEMENT):
        keys = range(start, min(start + WIDE_ROWS_A_STATEMENT, first + rows))
        values = ",".join(f"({','.join(_patient(maker, key))})" for key in keys)
        yield f"INSERT INTO `{WIDE}` ({names}) VALUES {values}"


def _patient(maker: RowMaker, key: int) -> list[str]:
    """A row's literals."""
    made = zip(PATIENT.columns, maker.row(key), strict=True)
    return [_as_filled(column, literal) for column, literal in made]


def _as_filled(column: Column, literal: str) -> str:
    return literal if column.name in _FILLED else _UNFILLED.get(column.code, literal)


def payment(key: int) -> str:
    """A row's literals."""
    day, amount = f"'2024-01-01' + INTERVAL {key % 900} DAY", key % 20000 / 100
    return f"({key}, {key % 977}, {day}, {amount}, 'note {key}')"


def each_by_itself(connection: Any, statements: Sequence[str]) -> None:
    """Execute statements that each commit by themselves.

    A packet brings many of them: the writer is not what is measured.
    """
    for start in range(0, len(statements), TRANSACTIONS_A_PACKET):
        some = statements[start : start + TRANSACTIONS_A_PACKET]
        _execute(connection, f"BEGIN NOT ATOMIC {'; '.join(some)}; END")


def one_row(key: int) -> str:
    """The statement of the transaction numbered `key`; each set of ten needs the ones before."""
    turn = key % 10
    if turn < 6:
        return f"INSERT INTO {NARROW} VALUES {payment(key)}"
    inserted = row_of(key)
    if turn == 9:
        return f"DELETE FROM {NARROW} WHERE PayNum = {inserted}"
    return f"UPDATE {NARROW} SET PayAmt = {key}.5, PayNote = 'changed' WHERE PayNum = {inserted}"


def row_of(key: int) -> int:
    """The row that the transaction numbered `key` writes."""
    return key if key % 10 < 6 else key - 6


def _execute(connection: Any, statement: str) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)

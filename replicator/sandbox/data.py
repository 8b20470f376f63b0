"""Plainly synthetic rows for the sandbox's tables: nobody could take them for a patient's.

From the left come a seed and a size; to the right go SQL literals, the same
ones each time, loaded many rows to a statement. Among ordinary values stand
those that make copies go wrong: `0001-01-01`, negative and over-long times,
NULL beside '', quotes, backslashes and line ends, three-byte characters,
floats without a short decimal form, and random primary keys up to 2^63-2.
Most columns draw from a small pool made once, so a row costs microseconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import pymysql
from pymysql.converters import escape_string
from pymysql.cursors import Cursor

from replicator.sandbox.schema import TABLES, Column, Table

POOL = 64  # values prepared for each column
STATEMENT_CHARACTERS = 500_000
BIGGEST_KEY = 2**63 - 2  # one below the type's limit, so that AUTO_INCREMENT still has a next

# Rows for each patient, as a practice's own inventory suggests.
ROWS_PER_PATIENT = {
    "patient": 1.0,
    "appointment": 3.0,
    "histappointment": 4.0,
    "treatment": 2.0,
    "procedurelog": 8.0,
    "claim": 2.0,
    "claimproc": 6.0,
    "payment": 2.0,
    "paysplit": 4.0,
    "adjustment": 0.5,
    "securitylog": 10.0,
    "sheetfield": 6.0,
    "commlog": 2.0,
    "clockevent": 0.3,
    "signalod": 0.5,
    "famaging": 0.5,
}
FIXED_ROWS = {"provider": 12, "procedurecode": 300, "definition": 80, "preference": 120}
RANDOM_KEYS = {"commlog", "paysplit", "securitylog", "sheetfield"}  # as OpenDental can be told to
_PATIENT_COLUMNS = {"PatNum", "Guarantor"}
_SIGNED_TIMES = {"OTimeHours", "OTimeAuto", "Adjust", "AdjustAuto", "Rate2Auto", "Rate3Auto"}

Progress = Callable[[str, int, int], None]


def quoted(text: str) -> str:
    """`text` as a SQL string literal for a session without NO_BACKSLASH_ESCAPES."""
    return f"'{escape_string(text)}'"


class RowMaker:
    """Makes rows of one table as lists of SQL literals, the same for the same seed."""

    def __init__(self, table: Table, *, seed: int, patients: int) -> None:
        self.table = table
        self.random = random.Random(f"{seed}/{table.name}")
        self._patients = max(1, patients)
        self._key = table.key_index
        self._pools = [
            [_value(column, self.random) for _ in range(POOL)] for column in table.columns
        ]
        columns = list(enumerate(table.columns))
        self._names = [i for i, column in columns if column.name in {"LName", "FName"}]
        self._references = [
            i for i, column in columns if column.name in _PATIENT_COLUMNS and i != self._key
        ]

    def row(self, key: int) -> list[str]:
        """One row's literals, in column order, with the primary key given."""
        draw = self.random.random
        literals = [pool[int(draw() * POOL)] for pool in self._pools]
        literals[self._key] = str(key)
        for i in self._names:
            literals[i] = f"'Synthetic-{key % 1_000_000:06d}'"
        for i in self._references:
            literals[i] = str(1 + int(draw() * self._patients))
        return literals

    def keys(self, count: int) -> Iterator[int]:
        """Distinct primary keys for a first load: 1, 2, 3… or random over the whole range."""
        if self.table.name not in RANDOM_KEYS:
            yield from range(1, count + 1)
            return
        seen: set[int] = set()
        while len(seen) < count:
            key = self.random.randint(1, BIGGEST_KEY)
            if key not in seen:
                seen.add(key)
                yield key

    def random_key(self) -> int:
        """A primary key that is free for all practical purposes."""
        return self.random.randint(2**40, BIGGEST_KEY)


def insert_statement(table: str, rows: Sequence[Sequence[str]], verb: str = "INSERT") -> str:
    """One multi-row INSERT (or REPLACE) of rows that are literals already.

    Columns are named, so that it works on while a table gains others.
    """
    names = ",".join(f"`{column.name}`" for column in TABLES[table].columns)
    values = ",".join(f"({','.join(row)})" for row in rows)
    return f"{verb} INTO `{table}` ({names}) VALUES {values}"


def row_counts(size: int) -> dict[str, int]:
    """How many rows each table gets in a practice of `size` patients."""
    scaled = {name: max(1, round(size * ratio)) for name, ratio in ROWS_PER_PATIENT.items()}
    return {name: {**FIXED_ROWS, **scaled}[name] for name in TABLES}


def load(
    connection: pymysql.Connection[Cursor],
    size: int = 1000,
    seed: int = 1,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Fill the empty tables of the connection's database; rows loaded, by table.

    `size` is the number of patients; the other tables follow in proportion,
    about 50 rows to a patient. `progress(table, done, total)` is called after
    each statement.
    """
    counts = row_counts(size)
    for name, count in counts.items():
        maker = RowMaker(TABLES[name], seed=seed, patients=size)
        done = 0
        for rows in _statements(maker, count):
            with connection.cursor() as cursor:
                cursor.execute(insert_statement(name, rows))
            done += len(rows)
            if progress is not None:
                progress(name, done, count)
    if not connection.get_autocommit():
        connection.commit()
    return counts


def _statements(maker: RowMaker, count: int) -> Iterator[list[list[str]]]:
    """The rows of a load, cut into statements of bounded length."""
    rows: list[list[str]] = []
    characters = 0
    for key in maker.keys(count):
        rows.append(maker.row(key))
        characters += sum(map(len, rows[-1])) + len(rows[-1])
        if characters >= STATEMENT_CHARACTERS:
            yield rows
            rows, characters = [], 0
    if rows:
        yield rows


def _value(column: Column, rng: random.Random) -> str:
    """One literal that the column can hold."""
    if column.nullable and rng.random() < 0.2:
        return "NULL"
    if column.code in "vc":
        return quoted(_short_text(column.length, rng))
    if column.code == "tm":
        return _time(column.name in _SIGNED_TIMES, rng)
    return _MAKERS[column.code](rng)


def _short_text(length: int, rng: random.Random) -> str:
    if length < 12:
        return rng.choice(["", "", "0", "1", "A", "é"])[:length]
    if rng.random() < 0.3:
        return ""
    return f"synthetic {rng.choice(_WORDS)} {rng.randrange(1000)}"[:length]


def _long_text(rng: random.Random) -> str:
    """Mostly a line or two, now and then a few thousand characters."""
    words = 400 if rng.random() < 0.05 else rng.randrange(12)
    return quoted(" ".join(["synthetic", *(rng.choice(_WORDS) for _ in range(words))]))


def _time(signed: bool, rng: random.Random) -> str:
    """A time of day; for a clock event a span, whose -01:00:00 means "not overridden"."""
    if signed:
        return rng.choice(["'-01:00:00'", "'00:00:00'", "'00:30:00'", "'-00:07:30'", "'127:15:00'"])
    return f"'{rng.randrange(24):02d}:{rng.randrange(60):02d}:00'"


def _date(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return "'0001-01-01'"
    return f"'{rng.randint(1930, 2030)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}'"


def _datetime(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return "'0001-01-01 00:00:00'"
    return f"{_date_since(2000, rng)} {rng.randrange(24):02d}:{rng.randrange(60):02d}:59'"


def _timestamp(rng: random.Random) -> str:
    return f"{_date_since(2005, rng)} {rng.randrange(4, 24):02d}:{rng.randrange(60):02d}:07'"


def _date_since(year: int, rng: random.Random) -> str:
    """The beginning of a literal: the caller closes its quote."""
    return f"'{rng.randint(year, 2030)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def _double(rng: random.Random) -> str:
    return rng.choice(["0", "0", repr(rng.randrange(200_000) / 100), "-12.5", repr(rng.random())])


def _integer(low: int, high: int) -> Callable[[random.Random], str]:
    """Small numbers as a practice has them, and now and then the type's own limits."""

    def make(rng: random.Random) -> str:
        if rng.random() < 0.05:
            return str(rng.choice([low, high]))
        return str(rng.randrange(0, 6 if high < 1000 else 300))

    return make


_WORDS = (
    "alpha",
    "bravo",
    "café",
    "naïve",
    "Größe",
    "señal",
    "東京",
    "Ωmega",
    "it's",
    'say "so"',
    "back\\slash",
    "line\r\nend",
    "tab\there",
    "100%",
    "under_score",
    "trailing ",
)
_MAKERS: dict[str, Callable[[random.Random], str]] = {
    "key": lambda _: "0",
    "b": _integer(0, 2**63 - 1),
    "i": _integer(-(2**31), 2**31 - 1),
    "s": _integer(-(2**15), 2**15 - 1),
    "su": _integer(0, 2**16 - 1),
    "t": _integer(-128, 127),
    "tu": _integer(0, 255),
    "t1": _integer(0, 1),
    "r": _double,
    "f": lambda rng: rng.choice(["0", "1", "8.25", "0.1", "16777217", "1.1754944e-38", "-3.3"]),
    "d": _date,
    "dt": _datetime,
    "ts": _timestamp,
    "x": _long_text,
}

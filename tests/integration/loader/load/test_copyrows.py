"""A copy's rows: compiled, in Python and from the stream, they are the same.

That the Python readers are right is `test_values`' business, where the server's own SELECT
is the oracle; here the compiled reader is held to them byte for byte, and a copied row to
what the stream's decoder makes of the same row's event.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, note, settings

from config.errors import UnknownEvent
from loader.decoder import best_decoder
from loader.load.tablereader import PythonReader
from loader.rows import plan_for
from replicator.sandbox.databases import MySQLDatabase
from tests.integration.binlog.logged import Log
from tests.integration.binlog.random_tables import RandomTable, tables
from tests.integration.loader.load.select_blocks import ENDING, blocks_of, outcome, schema_of
from tests.numbers import numbers

from ..test_values import NUMBER_ROWS, NUMBERS, STRING_ROWS, STRINGS, TIME_ROWS, TIMES

copyrows = pytest.importorskip("loader.load.copyrows", reason="the copy's kernel was not built")

modest = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@pytest.fixture
def lenient(replica_db: MySQLDatabase) -> MySQLDatabase:
    """A database whose session lets zero dates and the like in, as OpenDental's server does."""
    replica_db.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
    return replica_db


def _streamed(log: Log) -> list[tuple[bytes, list[tuple[str, str]]]]:
    """Rows that the stream's decoder makes of what was logged, and their faults."""
    decoder = best_decoder()
    return sorted(
        (change.row or b"", [(fault.column, fault.reason) for fault in change.faults])
        for table_map, event in log.rows()
        for change in decoder.decode(event, plan_for(table_map))
    )


def _copied(database: MySQLDatabase, table: str) -> list[tuple[bytes, list[tuple[str, str]]]]:
    """The same from a copy, row by row."""
    schema = schema_of(database, table)
    found = []
    reader = copyrows.KernelReader(schema, ENDING)
    for block in blocks_of(database, schema, block_bytes=1):
        at = 0
        while at < len(block):
            end = at + 4 + int.from_bytes(block[at : at + 3], "little")
            line = reader.convert(block[at:end]).removesuffix(ENDING + b"\n")
            faults = [(fault.column, fault.reason) for _, fault in reader.take_faults()]
            found.append((line, faults))
            at = end
    return sorted(found)


def _assert_alike(database: MySQLDatabase, table: str) -> None:
    schema = schema_of(database, table)
    blocks = blocks_of(database, schema)
    expected = outcome(PythonReader, schema, blocks)
    assert outcome(copyrows.KernelReader, schema, blocks) == expected
    small = blocks_of(database, schema, block_bytes=1)
    assert outcome(copyrows.KernelReader, schema, small) == expected


@modest
@given(table=tables(rows=4))
def test_rows_of_random_tables_are_copied_as_they_are_streamed(
    lenient: MySQLDatabase, table: RandomTable
) -> None:
    note(table.definition)
    lenient.execute("DROP TABLE IF EXISTS original")
    lenient.execute(f"CREATE TABLE original {table.definition}")
    log = Log(lenient)
    rows = ",".join(f"({', '.join(row)})" for row in table.rows)
    lenient.execute(f"INSERT IGNORE INTO original ({', '.join(table.names)}) VALUES {rows}")
    _assert_alike(lenient, "original")
    assert _copied(lenient, "original") == _streamed(log)


@pytest.mark.parametrize(
    ("columns", "rows"),
    [(NUMBERS, NUMBER_ROWS), (TIMES, TIME_ROWS), (STRINGS, STRING_ROWS)],
    ids=["numbers", "times", "strings"],
)
def test_every_type_is_copied_as_it_is_streamed(
    lenient: MySQLDatabase, columns: str, rows: tuple[str, ...]
) -> None:
    lenient.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    log = Log(lenient)
    for number, row in enumerate(rows):
        lenient.execute(f"INSERT INTO t VALUES ({number}, {row})")
    lenient.execute("INSERT INTO t (id) VALUES (1000)")
    _assert_alike(lenient, "t")
    assert _copied(lenient, "t") == _streamed(log)


DOUBLES = (
    "0", "-0e0", "1", "-1", "0.1", "1e-4", "9.9999e-5", "123456789012345", "1234567890123456",
    "9999999999999998", "1e16", "1e15", "999999999999999", "0.000123456789012345", "1e22", "1e23",
    "5e-324", "1.7976931348623157e308", "2.2250738585072014e-308", "0.30000000000000004",
    "100", "1e2", "123.456", "-99999999.99", "4503599627370497.5", "0.1e-6", "3.0000000000000004",
)  # fmt: skip


def test_doubles_are_spelled_as_the_stream_spells_them(lenient: MySQLDatabase) -> None:
    lenient.execute("CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, g double, f float)")
    log = Log(lenient)
    for number in DOUBLES:
        lenient.execute(f"INSERT INTO t (g, f) VALUES ({number}, IF({number} > 1e38, 1, {number}))")
    lenient.execute(
        f"INSERT INTO t (g, f) SELECT EXP(RAND(seq) * 80 - 40), RAND() FROM {numbers(1, 999)}"
    )
    _assert_alike(lenient, "t")
    assert _copied(lenient, "t") == _streamed(log)


def test_faults_come_with_their_rows_names_and_original_bytes(lenient: MySQLDatabase) -> None:
    lenient.execute("CREATE TABLE t (a int, b varchar(9), d date, v text, PRIMARY KEY (b, a))")
    lenient.execute(
        "INSERT INTO t VALUES (1, 'x\\ty', '0000-00-00', 'a\\0b'), (2, 'z', NULL, 'fine')"
    )
    schema = schema_of(lenient, "t")
    reader = copyrows.KernelReader(schema, b"")
    (block,) = blocks_of(lenient, schema)
    assert reader.convert(block) == b"1\tx\\ty\t\\N\ta\\\\0b\n2\tz\t\\N\tfine\n"
    assert [(name, *fault) for name, fault in reader.take_faults()] == [
        ("x\\ty\t1", "d", b"0000-00-00", "no such date in PostgreSQL"),
        ("x\\ty\t1", "v", b"a\0b", "NUL in text"),
    ]
    assert reader.take_faults() == []
    assert reader.rows == 2


def test_a_row_whose_key_cannot_be_held_only_leaves_its_faults(lenient: MySQLDatabase) -> None:
    lenient.execute("CREATE TABLE t (d date PRIMARY KEY, v int)")
    lenient.execute("INSERT INTO t VALUES ('0000-00-00', 1), ('2024-02-29', 2)")
    schema = schema_of(lenient, "t")
    blocks = blocks_of(lenient, schema)
    found = outcome(copyrows.KernelReader, schema, blocks)
    assert found == outcome(PythonReader, schema, blocks)
    assert found[0] == b"2024-02-29\t2" + ENDING + b"\n"
    assert [name for name, _ in found[1]] == [""]


def test_a_row_of_more_than_16_mib_is_copied(lenient: MySQLDatabase) -> None:
    lenient.execute("CREATE TABLE t (id int PRIMARY KEY, v longtext, n int)")
    lenient.execute("INSERT INTO t VALUES (1, 'small', 1)")
    lenient.execute("INSERT INTO t VALUES (2, REPEAT('é\\n', 6000000), 2)")
    schema = schema_of(lenient, "t")
    blocks = blocks_of(lenient, schema)
    text, faults, rows = outcome(copyrows.KernelReader, schema, blocks)
    assert (faults, rows) == ([], 2)
    assert text.split(b"\n")[1] == b"2\t" + "é\\n".encode() * 6000000 + b"\t2" + ENDING


def test_damaged_blocks_are_refused_as_in_python(lenient: MySQLDatabase) -> None:
    lenient.execute("CREATE TABLE t (id int PRIMARY KEY, g double, d date, v text)")
    lenient.execute("INSERT INTO t VALUES (7, 1e30, '2024-02-29', REPEAT('x', 300))")
    schema = schema_of(lenient, "t")
    (block,) = blocks_of(lenient, schema)
    for cut in range(1, len(block)):
        with pytest.raises(UnknownEvent):
            copyrows.KernelReader(schema, ENDING).convert(block[:cut])
        assert outcome(PythonReader, schema, [block[:cut]])[0] == "UnknownEvent"
    for at in range(len(block)):
        for byte in (0, 1, 0x7F, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF):
            damaged = block[:at] + bytes([byte]) + block[at + 1 :]
            expected = outcome(PythonReader, schema, [damaged])
            assert outcome(copyrows.KernelReader, schema, [damaged]) == expected

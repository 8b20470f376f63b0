"""What is kept of tables' plans is bounded by their columns, however many tables there are."""

from __future__ import annotations

import gc
from unittest.mock import Mock

import pytest

from config.tables import TableRules
from loader.batch import Batch
from loader.decoder import best_decoder, new_fold
from loader.intake import Intake
from loader.lifecycle import Tables
from loader.masking import Masker
from loader.rows import COLUMN_BYTES, KEPT_COLUMNS, TablePlan, plan_for
from loader.taking import PIECE_BYTES
from loader.tracking import STREAMING
from replicator.binlog.events import EventType, TableMap, with_header
from tests.unit.loader.test_kernel import image

DATABASE = b"clinic"
WIDTH = 742
TABLES = 3 * KEPT_COLUMNS // WIDTH
INT = b"\x03"


def lenenc(number: int) -> bytes:
    return bytes([number]) if number < 251 else b"\xfc" + number.to_bytes(2, "little")


def sized(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + lenenc(len(body)) + body


def wide(number: int) -> TableMap:
    """A table map of `WIDTH` INT columns with full metadata; the first is the key."""
    name, bitmap = b"wide%04d" % number, bytes((WIDTH + 7) // 8)
    names = b"".join(b"\x0a" + b"column%04d" % at for at in range(WIDTH))
    parts = (
        (100 + number).to_bytes(6, "little") + b"\x01\x00",
        bytes([len(DATABASE)]) + DATABASE + b"\x00" + bytes([len(name)]) + name + b"\x00",
        lenenc(WIDTH) + INT * WIDTH + lenenc(0) + bitmap,
        sized(1, bitmap) + sized(4, names) + sized(8, b"\x00"),
    )
    return TableMap(with_header(EventType.TABLE_MAP, 1, 1, 0, b"".join(parts)))


def row() -> bytes:
    """An event that inserts one row of such a table."""
    present = b"\xff" * ((WIDTH + 7) // 8)
    body = bytes(8) + lenenc(WIDTH) + present + image([bytes(4)] * WIDTH)
    return with_header(EventType.WRITE_ROWS_V1, 1, 1, 0, body)


def columns_alive() -> int:
    """Of all plans that anybody holds."""
    gc.collect()
    return sum(one.width for one in gc.get_objects() if isinstance(one, TablePlan))


@pytest.fixture
def intake() -> Intake:
    """One that carries tables which all stream."""
    rules, tables = TableRules(), Tables()
    for number in range(TABLES):
        tables.enter(tables.get(f"wide{number:04d}"), STREAMING)
    return Intake(DATABASE.decode(), rules, tables, Masker(rules, None), Mock(tables=set()))


def test_plans_of_many_wide_tables_are_forgotten(intake: Intake) -> None:
    before = columns_alive()
    for number in range(TABLES):
        intake.begin()
        intake.rows(wide(number), b"an event")
    intake.begin()
    assert columns_alive() - before <= KEPT_COLUMNS + 2 * WIDTH


def test_plans_that_rows_wait_for_stay_and_count_as_memory(intake: Intake) -> None:
    for number in range(TABLES):
        intake.rows(wide(number), b"an event")
    assert len(intake.open.events) == TABLES
    assert intake.open.bytes >= TABLES * WIDTH * COLUMN_BYTES > PIECE_BYTES


def test_plans_of_a_transaction_that_is_let_go_are_forgotten(intake: Intake) -> None:
    before = columns_alive()
    intake.rows(wide(0), b"an event")
    intake.let_go(for_good=True)
    for number in range(TABLES):
        intake.rows(wide(number), b"an event")
    assert not intake.open.events
    assert columns_alive() - before <= KEPT_COLUMNS + 2 * WIDTH


def test_the_kernels_fold_keeps_few_compiled_plans() -> None:
    pytest.importorskip("loader.kernel_fold")
    before = columns_alive()
    for number in range(TABLES):
        new_fold(plan_for(wide(number)), "kernel")
    assert columns_alive() - before <= KEPT_COLUMNS + WIDTH


def test_the_kernels_decoder_keeps_few_compiled_plans() -> None:
    pytest.importorskip("loader.kernel")
    decoder, before = best_decoder("kernel"), columns_alive()
    for number in range(TABLES):
        assert len(decoder.decode(row(), plan_for(wide(number)))) == 1
    assert columns_alive() - before <= KEPT_COLUMNS + WIDTH


def test_a_batch_counts_its_plans_as_memory() -> None:
    batch = Batch()
    for number in range(3):
        batch.fold(plan_for(wide(number)), [row()], b"", 0.0)
    assert batch.bytes >= 3 * WIDTH * COLUMN_BYTES

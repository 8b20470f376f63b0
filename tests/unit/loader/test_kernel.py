"""The compiled kernel says what the Python decoder says, of good bytes and of bad ones."""

from __future__ import annotations

import math
import random
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.errors import ConfigError, ReplicatorError
from loader import charsets, wire
from loader.decoder import best_decoder, is_compiled
from loader.rows import PythonDecoder, RowChange, RowDecoder, TablePlan
from loader.types import raw_columns
from loader.values import Faults
from replicator.binlog.schema import Column, ColumnType, TableSchema

kernel = pytest.importorskip("loader.kernel", reason="the row kernel was not built")

KERNEL = kernel.KernelDecoder()

Stored = tuple[ColumnType, int, int]
"""A type, and its code and metadata in a table map."""
NUMBERS = [
    *((ColumnType(base, unsigned), code, 0)
      for base, code in (("tinyint", 1), ("smallint", 2), ("mediumint", 9), ("int", 3),
                         ("bigint", 8)) for unsigned in (False, True)),
    (ColumnType("float"), 4, 4), (ColumnType("double"), 5, 8), (ColumnType("year"), 13, 0),
    *((ColumnType("bit", length=n), 16, n % 8 | n // 8 << 8) for n in (1, 7, 8, 9, 33, 63, 64)),
    *((ColumnType("decimal", precision=p, scale=s), 246, p | s << 8)
      for p, s in ((1, 0), (1, 1), (9, 9), (10, 2), (18, 9), (19, 10), (30, 30), (65, 0),
                   (65, 30))),
]  # fmt: skip
MOMENTS = [
    (ColumnType("date"), 10, 0), (ColumnType("date"), 14, 0),
    (ColumnType("time"), 11, 0), (ColumnType("datetime"), 12, 0), (ColumnType("timestamp"), 7, 0),
    *((ColumnType(base, fsp=fsp), code, fsp)
      for base, code in (("timestamp", 17), ("datetime", 18), ("time", 19)) for fsp in range(7)),
]  # fmt: skip
MEMBERS = ("a", "", "tab\t", "ü" * 40, "\\")
STRINGS = [
    *((ColumnType("varchar", length=60, charset=charset), 15, 240)
      for charset in ("utf8mb4", "utf8mb3", "ascii", "ucs2", "sjis", "no_such_set",
                      *charsets.SINGLE_BYTE_SETS)),
    (ColumnType("longtext", charset="utf8mb4"), 252, 4),
    (ColumnType("varbinary", length=300), 15, 300), (ColumnType("blob"), 252, 2),
    (ColumnType("binary", length=5), 254, 254 | 5 << 8), (ColumnType("point"), 255, 4),
    (ColumnType("char", length=255, charset="utf8mb4"), 254, 0xCE | 252 << 8),
    (ColumnType("text", charset="utf8mb4"), 140, 2),
    (ColumnType("enum", values=MEMBERS), 254, 247 | 1 << 8),
    (ColumnType("enum", values=MEMBERS), 254, 247 | 2 << 8),
    (ColumnType("set", values=MEMBERS), 254, 248 | 1 << 8),
    (ColumnType("set", values=tuple("abcdefgh" * 8)), 254, 248 | 8 << 8),
]  # fmt: skip
TYPES: list[Stored] = [*NUMBERS, *MOMENTS, *STRINGS]


def plan_of(*stored: Stored, key: tuple[int, ...] = (), hidden: int = 0) -> TablePlan:
    columns = tuple(Column(f"c{at}", kind, True, None) for at, (kind, _, _) in enumerate(stored))
    schema = TableSchema("t", columns, key)
    codes = [(code, metadata) for _kind, code, metadata in stored]
    return TablePlan(
        schema,
        raw_columns(schema),
        key,
        tuple(wire.reader(c, *code) for c, code in zip(columns, codes, strict=True)),
        tuple(wire.skipper(*code) for code in codes) + ((8, 0),) * hidden,
    )


def rows_event(kind: int, width: int, images: bytes) -> bytes:
    present = bytes([255] * ((width + 7) // 8)) * (2 if kind in (24, 31) else 1)
    extra = b"\x02\x00" if kind >= 30 else b""
    return bytes(4) + bytes([kind]) + bytes(22) + extra + bytes([width]) + present + images


def image(values: list[bytes | None]) -> bytes:
    nulls = sum(1 << at for at, value in enumerate(values) if value is None)
    return nulls.to_bytes((len(values) + 7) // 8, "little") + b"".join(v or b"" for v in values)


def outcome(decoder: RowDecoder, event: bytes, plan: TablePlan) -> list[RowChange] | list[str]:
    """The changes, or what the error tells."""
    try:
        return decoder.decode(event, plan)
    except ReplicatorError as error:
        return [type(error).__name__, str(error), error.hint]


def assert_alike(event: bytes, plan: TablePlan) -> None:
    assert outcome(KERNEL, event, plan) == outcome(PythonDecoder(), event, plan)


def values_of(plan: TablePlan, index: int) -> st.SearchStrategy[bytes]:
    """Bytes that fit a column: any at all, digits' limits, and text with all that is special."""
    fixed, prefix = plan.skips[index]
    if fixed:
        edges = st.sampled_from([b"\0", b"\xff", b"\x80", b"\x7f"]).map(lambda b: b * fixed)
        high = st.binary(min_size=fixed - 1, max_size=fixed - 1)
        return edges | st.binary(min_size=fixed, max_size=fixed) | high.map(lambda b: b"\x80" + b)
    text = st.text("abc \\\t\n\r\0é€日😀\x7f\x80\u200b", max_size=40).map(str.encode)
    plain = st.text("abcdefghij klm", max_size=40).map(str.encode)
    some = text | plain | st.binary(max_size=40)
    return some.map(lambda value: len(value).to_bytes(prefix, "little") + value)


@st.composite
def events(draw: st.DrawFn) -> tuple[bytes, TablePlan]:
    """An event that fits its plan, of any types, with whatever bytes as values."""
    stored = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=12))
    key = draw(st.lists(st.integers(0, len(stored) - 1), max_size=3, unique=True))
    plan = plan_of(*stored, key=tuple(key), hidden=draw(st.integers(0, 1)))
    kind = draw(st.sampled_from([23, 24, 25, 30, 31, 32]))
    images = []
    for _ in range(draw(st.integers(0, 3)) * (2 if kind in (24, 31) else 1)):
        values = [draw(st.none() | values_of(plan, at)) for at in range(len(plan.skips))]
        images.append(image(values))
        if draw(st.booleans()):
            images.append(images[-1])
    if kind in (24, 31):
        images = images[: len(images) & ~1]
    return rows_event(kind, len(plan.skips), b"".join(images)), plan


many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(events())
def test_any_bytes_of_any_type_become_the_same_changes(made: tuple[bytes, TablePlan]) -> None:
    assert_alike(*made)


@many
@given(events(), st.data())
def test_a_damaged_event_ends_alike(made: tuple[bytes, TablePlan], data: st.DataObject) -> None:
    event, plan = bytearray(made[0]), made[1]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(4, len(event) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert", "remove"])):
            case "set":
                event[at] = data.draw(st.integers(0, 255))
            case "cut" if at > 5:
                del event[at:]
            case "insert":
                event[at:at] = data.draw(st.binary(min_size=1, max_size=4))
            case "remove" if len(event) > 6:
                del event[at]
    assert_alike(bytes(event), plan)


@pytest.mark.parametrize("stored", TYPES, ids=lambda s: f"{s[0].base}-{s[0].charset}-{s[1]}-{s[2]}")
def test_each_type_alone_with_bytes_drawn_blindly(stored: Stored) -> None:
    plan = plan_of(stored)
    fixed, prefix = plan.skips[0]
    chance = random.Random(7)
    images = []
    for _ in range(400):
        value = chance.randbytes(fixed or chance.randrange(60))
        if chance.random() < 0.5:
            value = bytes(byte % 96 + 32 for byte in value)
        images.append(image([value if fixed else len(value).to_bytes(prefix, "little") + value]))
    assert_alike(rows_event(23, 1, b"".join(images)), plan)


@pytest.mark.parametrize(
    "character",
    [b"\xc0\x80", b"\xc1\xbf", b"\xc2\x80", b"\xdf\xbf", b"\xe0\x9f\xbf", b"\xe0\xa0\x80",
     b"\xed\x9f\xbf", b"\xed\xa0\x80", b"\xee\x80\x80", b"\xef\xbf\xbf", b"\xf0\x8f\xbf\xbf",
     b"\xf0\x90\x80\x80", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xc2",
     b"\xe1\x80", b"\xf1\x80\x80", b"\x80", b"\xff", b"\xc2\x41", b"\xe1\x80\x41",
     b"\xf1\x80\x80\x41", b"\0"],
)  # fmt: skip
@pytest.mark.parametrize("before", [b"", b"seven b", b"eight by", b"with\\a\tslash"])
def test_utf8_is_told_from_what_is_not(before: bytes, character: bytes) -> None:
    value = before + character
    stored = bytes([len(value)]) + value
    assert_alike(rows_event(23, 1, image([stored])), plan_of(STRINGS[0]))


def test_every_byte_of_every_single_byte_set_is_mapped_alike() -> None:
    for stored in STRINGS[: len(charsets.SINGLE_BYTE_SETS) + 6]:
        images = [image([b"\x03a" + bytes([byte]) + b"b"]) for byte in range(256)]
        assert_alike(rows_event(23, 1, b"".join(images)), plan_of(stored))


def doubles() -> Iterator[float]:
    """Numbers around every change of method: money, integers, limits, and their neighbours."""
    chance = random.Random(11)
    for _ in range(20_000):
        digits = chance.randrange(17)
        yield chance.randint(-(10**digits), 10**digits) / 10 ** chance.randrange(9)
        yield struct.unpack("<d", chance.randbytes(8))[0]
        yield struct.unpack("<f", chance.randbytes(4))[0]
    yield from (0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, sys.float_info.max)
    for limit in (1e-5, 1e-4, 9e8, 9e12, 1e15, 2.0**53, 1e16, 1e17, 1.005, 0.1, 8999999999999.99):
        for number in (limit, math.nextafter(limit, 0.0), math.nextafter(limit, math.inf)):
            yield from (number, -number)


def test_a_double_is_written_as_python_writes_it() -> None:
    numbers = list(doubles())
    images = b"".join(image([struct.pack("<d", number)]) for number in numbers)
    changes = kernel.KernelDecoder().decode(
        rows_event(23, 1, images), plan_of((ColumnType("double"), 5, 8))
    )
    assert [change.row for change in changes] == [repr(number).encode() for number in numbers]


def test_each_day_and_no_other_is_a_day() -> None:
    days = [(y, m, d) for y in range(1995, 2005) for m in range(16) for d in range(32)]
    images = b"".join(
        image([(y << 9 | m << 5 | d).to_bytes(3, "little")]) for y, m, d in days
    ) + b"".join(image([(y << 9 | 2 << 5 | 29).to_bytes(3, "little")]) for y in range(10050))
    assert_alike(rows_event(23, 1, images), plan_of((ColumnType("date"), 10, 0)))


def test_every_day_of_the_unix_clock_is_the_same_day() -> None:
    seconds = [day * 86400 + day % 86400 for day in range(0, 49710, 3)] + [2**32 - 1, 1]
    images = b"".join(image([second.to_bytes(4, "big")]) for second in seconds)
    assert_alike(rows_event(23, 1, images), plan_of((ColumnType("timestamp"), 17, 0)))


def test_a_long_value_and_many_columns_fit() -> None:
    text = ("x\\é\t" * 100_000).encode()
    long = plan_of((ColumnType("longtext", charset="utf8mb4"), 252, 4), NUMBERS[0], key=(1,))
    value = len(text).to_bytes(4, "little") + text
    assert_alike(rows_event(24, 2, image([value, b"\1"]) * 2 + image([None, b"\2"]) * 2), long)
    wide = plan_of(*(TYPES[0],) * 250, key=(249, 0))
    assert_alike(rows_event(31, 250, image([b"\5"] * 250) * 4), wide)
    wider = plan_of(*(TYPES[0],) * 251, key=(0,))
    event = rows_event(23, 251, image([b"\5"] * 251)).replace(b"\xfb", b"\xfc\xfb\0", 1)
    assert_alike(event, wider)


def test_what_is_not_a_rows_event_is_refused_alike() -> None:
    plan = plan_of(TYPES[0])
    for event in (rows_event(39, 1, b""), rows_event(19, 1, b""), rows_event(23, 1, b"")[:27]):
        assert_alike(event, plan)
    with pytest.raises(ReplicatorError, match="does not fit"):
        kernel.KernelDecoder().decode(b"", plan)


def test_a_reader_that_asks_for_the_decoder_again_does_not_disturb_it() -> None:
    decoder = kernel.KernelDecoder()
    plain = plan_of(TYPES[0])
    inner = rows_event(23, 1, image([b"\7"]))
    read = plain.readers[0]

    def nosy(data: bytes, at: int, faults: Faults) -> tuple[bytes | None, int]:
        assert decoder.decode(inner, plain)[0].row == b"7"
        return read(data, at, [])

    odd = TablePlan(plain.schema, plain.columns, (), (nosy,), plain.skips)
    rows = [change.row for change in decoder.decode(rows_event(23, 1, b"\0\1\0\2"), odd)]
    assert rows == [b"1", b"2"]


@contextmanager
def no_kernel() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "loader.kernel", None)
        yield


def test_the_kernel_is_chosen_where_it_was_built() -> None:
    assert isinstance(best_decoder(), kernel.KernelDecoder)
    assert is_compiled()
    assert isinstance(best_decoder("python"), PythonDecoder)


def test_without_the_kernel_python_decodes_unless_the_kernel_was_asked_for() -> None:
    with no_kernel():
        assert isinstance(best_decoder(), PythonDecoder)
        assert not is_compiled()
        with pytest.raises(ConfigError, match="not built"):
            best_decoder("kernel")

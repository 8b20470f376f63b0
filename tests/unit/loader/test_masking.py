"""Masks: what becomes of a value, by the stream and by a copy, compiled and not."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import struct
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.errors import ConfigError
from config.privacy import DROP, HASH, PREFIX, REDACT, YEAR, Mask, PrivacyRules, Rule
from config.tables import TableRules
from loader import wire
from loader.ddl import shapes
from loader.load import selected
from loader.load.reload import shape_of
from loader.masking import MaskedColumn, Masker, converting, kept, masks_of, reading
from loader.rows import DELETE, INSERT, UPDATE, PythonDecoder, RowChange, TablePlan
from loader.types import raw_columns, raw_type
from loader.values import Faults, ValueFault
from replicator.binlog.schema import Column, ColumnType, TableSchema

KEY = "a key of our own, which is long enough"
TEXT = ColumnType("varchar", length=60, charset="utf8mb4")
INT = ColumnType("int")


def masker(*rules: tuple[str, Mask | None], key: str | None = KEY, table: str = "t") -> Masker:
    made = tuple(Rule(table, column, mask) for column, mask in rules)
    return Masker(TableRules(privacy=PrivacyRules(made)), key)


def masked(kind: ColumnType, mask: Mask, *, key: bool = False) -> Column:
    column = Column("c", kind, True, 1 if key else None)
    table = TableSchema("t", (column, Column("d", INT, True, None)), ())
    return masker(("c", mask)).schema(table).columns[0]


def digest(value: bytes, key: str = KEY) -> bytes:
    return hmac.new(key.encode(), value, hashlib.sha256).hexdigest().encode()


def copied(kind: ColumnType, mask: Mask, value: bytes) -> tuple[bytes | None, Faults]:
    """A value of a SELECT under its mask."""
    faults: Faults = []
    return selected.converter(masked(kind, mask))(value, faults), faults


# --- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "mask", "value", "expected"),
    [
        (TEXT, Mask(REDACT), b"marigold", b"[redacted]"),
        (TEXT, Mask(REDACT), b"", b""),
        (INT, Mask(REDACT), b"17", None),
        (ColumnType("blob"), Mask(REDACT), b"marigold", None),
        (ColumnType("date"), Mask(REDACT), b"1980-05-06", None),
        (TEXT, Mask(PREFIX, 3), b"97301-1234", b"973"),
        (TEXT, Mask(PREFIX, 3), b"97", b"97"),
        (TEXT, Mask(PREFIX, 3), "äöüß".encode(), "äöü".encode()),
        (TEXT, Mask(PREFIX, 2), b"\t\nx", b"\\t\\n"),
        (TEXT, Mask(PREFIX, 3, ("036", "059")), b"03601", b"000"),
        (TEXT, Mask(PREFIX, 3, ("036", "059")), b"03701", b"037"),
        (ColumnType("date"), Mask(YEAR), b"1980-05-06", b"1980-01-01"),
        (ColumnType("date"), Mask(YEAR), b"0001-01-01", b"0001-01-01"),
        (ColumnType("date"), Mask(YEAR, since=1945), b"0001-01-01", b"0001-01-01"),
        (ColumnType("date"), Mask(YEAR, since=1945), b"1931-05-06", b"1945-01-01"),
        (ColumnType("date"), Mask(YEAR, since=1945), b"1946-05-06", b"1946-01-01"),
        (ColumnType("year"), Mask(YEAR), b"1980", b"1980"),
        (ColumnType("datetime"), Mask(YEAR), b"1980-05-06 07:08:09", b"1980-01-01 00:00:00"),
        (
            ColumnType("datetime", fsp=3),
            Mask(YEAR),
            b"1980-05-06 07:08:09.123",
            b"1980-01-01 00:00:00.000",
        ),
        (ColumnType("timestamp"), Mask(YEAR), b"1980-05-06 07:08:09", b"1980-01-01 00:00:00+00"),
        (TEXT, Mask(HASH), b"marigold", digest(b"marigold")),
        (TEXT, Mask(HASH), b"a\tb\\c", digest(b"a\tb\\c")),
        (TEXT, Mask(HASH), b"", b""),
        (INT, Mask(HASH), b"17", digest(b"17")),
        (ColumnType("bigint"), Mask(HASH), b"0", digest(b"0")),
    ],
)
def test_a_value_under_its_mask(
    kind: ColumnType, mask: Mask, value: bytes, expected: bytes | None
) -> None:
    assert copied(kind, mask, value) == (expected, [])


@pytest.mark.parametrize(
    ("kind", "mask", "value", "expected", "reason"),
    [
        (TEXT, Mask(REDACT), b"mari\0gold", b"[redacted]", None),
        (TEXT, Mask(REDACT), b"mari\xff", b"[redacted]", None),
        (TEXT, Mask(HASH), b"mari\0gold", digest(b"\0mari\0gold"), None),
        (TEXT, Mask(HASH), b"mari\xff", digest(b"\0mari\xff"), None),
        (ColumnType("date"), Mask(HASH), b"0000-00-00", digest(b"\x000000-00-00"), None),
        (TEXT, Mask(PREFIX, 3), b"mari\0gold", b"mar", "NUL in text"),
        (TEXT, Mask(PREFIX, 3), b"mari\xff", None, "not valid utf8mb4"),
        (ColumnType("date"), Mask(YEAR), b"1980-00-06", None, "no such date in PostgreSQL"),
        (ColumnType("date"), Mask(REDACT), b"1980-00-06", None, None),
    ],
)
def test_what_postgresql_cannot_hold_leaves_no_original_behind(
    kind: ColumnType, mask: Mask, value: bytes, expected: bytes | None, reason: str | None
) -> None:
    noted = [] if reason is None else [ValueFault("c", b"", reason)]
    assert copied(kind, mask, value) == (expected, noted)


def test_a_hash_is_the_same_in_every_table_and_another_with_another_key() -> None:
    def hashed(key: str, table: str) -> bytes | None:
        schema = TableSchema(table, (Column("x", TEXT, True, None),), ())
        column = masker(("x", Mask(HASH)), key=key, table="*").schema(schema).columns[0]
        return selected.converter(column)(b"marigold", [])

    assert hashed(KEY, "a") == hashed(KEY, "b") != hashed(KEY[::-1], "a")


# --- schemas ---------------------------------------------------------------------------------

PATIENT = TableSchema(
    "patient",
    (
        Column("SSN", TEXT, True, None),
        Column("PatNum", ColumnType("bigint"), False, 1),
        Column("LName", TEXT, True, None),
        Column("Fee", ColumnType("decimal", precision=9, scale=2), True, None),
        Column("Birthdate", ColumnType("date"), True, None),
    ),
    (1,),
)
RULES = (
    ("SSN", Mask(DROP)),
    ("PatNum", Mask(HASH)),
    ("LName", Mask(HASH)),
    ("Fee", Mask(REDACT)),
    ("Birthdate", Mask(YEAR)),
)


def test_the_raw_table_lacks_what_is_dropped_and_has_text_for_hashes() -> None:
    schema = masker(*RULES, table="patient").schema(PATIENT)
    shape = shape_of(schema)
    assert [(c.name, c.type) for c in shape.columns] == [
        ("PatNum", "text"),
        ("LName", "text"),
        ("Fee", "numeric(9,2)"),
        ("Birthdate", "date"),
    ]
    assert shape.key == ("PatNum",)
    assert shape_of(kept(schema)) == shape
    assert kept(schema).primary_key == (0,)
    assert kept(PATIENT) is PATIENT


def test_masks_tell_schemas_apart_and_leave_the_servers_hash() -> None:
    plain = masker(table="patient").schema(PATIENT)
    assert plain is PATIENT
    one = masker(("LName", Mask(HASH)), table="patient").schema(PATIENT)
    other = masker(("LName", Mask(HASH)), key=KEY[::-1], table="patient").schema(PATIENT)
    assert len({PATIENT, one, other}) == 3
    assert {one.hash, other.hash} == {PATIENT.hash}
    assert masker(("LName", None), table="patient").schema(one) == PATIENT


def test_a_stored_schema_has_its_masks_and_never_the_key() -> None:
    rules = (*RULES[:-1], ("Birthdate", Mask(YEAR, since=1945)))
    schema = masker(*rules, table="patient").schema(PATIENT)
    held = shapes._held(schema)
    assert KEY not in held
    assert KEY not in repr(schema)
    assert KEY not in json.dumps(asdict(schema))
    again = shapes._schema(json.loads(held))
    assert again == schema
    assert masks_of(again) == masks_of(schema)
    assert again.hash == schema.hash


def test_rules_that_changed_are_noticed() -> None:
    before = masker(*RULES, table="patient")
    schema = before.schema(PATIENT)
    assert not before.differs(schema)
    assert masker(*RULES[1:], table="patient").differs(schema)
    assert masker(*RULES, key=KEY[::-1], table="patient").differs(schema)
    assert masker(table="patient").differs(schema)
    assert before.differs(PATIENT)


@pytest.mark.parametrize(
    ("column", "mask", "said"),
    [
        ("PatNum", Mask(DROP), 'patient.PatNum: "drop" on a column of its key'),
        ("PatNum", Mask(REDACT), 'patient.PatNum: "redact" on a column of its key'),
        ("LName", Mask(YEAR), 'patient.LName: "year" of a varchar'),
        ("Fee", Mask(PREFIX, 3), 'patient.Fee: "prefix" of a decimal'),
        ("*", Mask(YEAR), "4 columns cannot be masked"),
        ("*", Mask(DROP), "patient: no column would be left"),
    ],
)
def test_a_mask_that_a_column_cannot_take_is_refused_by_name(
    column: str, mask: Mask, said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        masker((column, mask), table="patient").schema(PATIENT)
    assert '"keep"' in caught.value.hint


def test_a_document_is_not_hashed() -> None:
    with pytest.raises(ConfigError, match="a document"):
        masked(ColumnType("json"), Mask(HASH))


def test_hashing_without_a_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no key") as caught:
        masker(("LName", Mask(HASH)), key=None)
    assert "LOADER_PRIVACY_KEY_FILE" in caught.value.hint
    assert not masker(("LName", Mask(REDACT)), key=None).differs(
        TableSchema("t", (Column("d", INT, True, None),), ())
    )


def test_the_pipelines_own_tables_are_never_masked() -> None:
    offset = TableSchema("etl_binlog_offset", (Column("stream", TEXT, False, 1),), (0,))
    assert masker(("*", Mask(REDACT)), table="*").schema(offset) is offset


# --- rows events -----------------------------------------------------------------------------

CODES = ((15, 240), (8, 0), (15, 240), (246, 9 | 2 << 8), (10, 0))


def plan(schema: TableSchema, codes: tuple[tuple[int, int], ...] = CODES) -> TablePlan:
    """As `plan_for` makes it of a table map."""
    columns = list(zip(schema.columns, codes, strict=True))
    return TablePlan(
        schema,
        raw_columns(schema),
        schema.primary_key,
        tuple(reading(c, wire.reader(c, *code)) for c, code in columns),
        tuple(wire.skipper(*code) for code in codes),
    )


def image(number: int, *texts: bytes, nulls: int = 0) -> bytes:
    ssn, name = texts
    money = (0x80000000 | number).to_bytes(4, "big") + bytes([50])
    day = struct.pack("<I", 1980 << 9 | 5 << 5 | 6)[:3]
    return (bytes([nulls]) + bytes([len(ssn)]) + ssn + struct.pack("<q", number)
            + bytes([len(name)]) + name + money + day)  # fmt: skip


def event(kind: int, *images: bytes) -> bytes:
    present = b"\xff" * (2 if kind in (24, 31) else 1)
    extra = b"\x02\x00" if kind >= 30 else b""
    return bytes(4) + bytes([kind]) + bytes(22) + extra + b"\x05" + present + b"".join(images)


def test_a_row_image_under_masks() -> None:
    made = plan(masker(*RULES, table="patient").schema(PATIENT))
    seven = digest(b"7")
    row = b"\t".join((seven, digest(b"marigold"), b"\\N", b"1980-01-01"))
    decode = PythonDecoder().decode
    assert decode(event(30, image(7, b"periwinkle", b"marigold")), made) == [
        RowChange(INSERT, seven, row, ())
    ]
    assert decode(event(32, image(7, b"periwinkle", b"marigold")), made) == [
        RowChange(DELETE, seven, None, ())
    ]
    changed = decode(event(31, image(7, b"a", b"b"), image(7, b"periwinkle", b"marigold")), made)
    assert changed == [RowChange(UPDATE, seven, row, ())]


TYPES = (
    (INT, 3, 0), (ColumnType("bigint", True), 8, 0),
    (ColumnType("decimal", precision=9, scale=2), 246, 9 | 2 << 8), (ColumnType("double"), 5, 8),
    (ColumnType("date"), 10, 0), (ColumnType("datetime", fsp=3), 18, 3),
    (ColumnType("timestamp"), 17, 0), (ColumnType("time"), 19, 0), (ColumnType("year"), 13, 0),
    (TEXT, 15, 240), (ColumnType("varchar", length=60, charset="latin1"), 15, 60),
    (ColumnType("text", charset="utf8mb4"), 252, 2), (ColumnType("blob"), 252, 2),
    (ColumnType("enum", charset="utf8mb4", values=("a", "b")), 254, 247 | 1 << 8),
    (ColumnType("bit", length=9), 16, 1 | 1 << 8),
)  # fmt: skip
MASKS = (
    None, Mask(DROP), Mask(HASH), Mask(REDACT), Mask(YEAR), Mask(YEAR, since=1945), Mask(PREFIX, 3),
)  # fmt: skip


@st.composite
def masked_events(draw: st.DrawFn) -> tuple[bytes, TablePlan]:
    """Rows of any types under any masks that they can take."""
    chosen = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=10))
    key = draw(st.none() | st.integers(0, len(chosen) - 1))
    columns = [Column(f"c{n}", one[0], True, 1 if n == key else None)
               for n, one in enumerate(chosen)]  # fmt: skip
    schema = TableSchema("t", tuple(columns), () if key is None else (key,))
    rules: list[tuple[str, Mask | None]] = []
    for column in columns:
        mask = draw(st.sampled_from(MASKS))
        one = TableSchema("t", (column, Column("other", INT, True, None)), ())
        if mask is not None and not masker((column.name, mask)).faults(one):
            rules.append((column.name, mask))
    if len(rules) == len(columns) and all(mask == Mask(DROP) for _, mask in rules):
        rules = []
    made = masker(*rules).schema(schema)
    out = plan(made, tuple((code, meta) for _, code, meta in chosen))
    kind = draw(st.sampled_from([23, 24, 25]))
    images = []
    for _ in range(draw(st.integers(0, 3)) * (2 if kind == 24 else 1)):
        values = [draw(st.none() | _value(out.skips[at])) for at in range(len(chosen))]
        nulls = sum(1 << at for at, value in enumerate(values) if value is None)
        width = (len(values) + 7) // 8
        images.append(nulls.to_bytes(width, "little") + b"".join(v or b"" for v in values))
    present = b"\xff" * ((len(chosen) + 7) // 8) * (2 if kind == 24 else 1)
    head = bytes(4) + bytes([kind]) + bytes(22) + bytes([len(chosen)]) + present
    return head + b"".join(images), out


def _value(skip: tuple[int, int]) -> st.SearchStrategy[bytes]:
    fixed, prefix = skip
    if fixed:
        return st.binary(min_size=fixed, max_size=fixed)
    text = st.text("mari \\\t\n\0é€", max_size=20).map(str.encode) | st.binary(max_size=20)
    return text.map(lambda value: len(value).to_bytes(prefix, "little") + value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(masked_events())
def test_the_kernel_masks_as_python_does(made: tuple[bytes, TablePlan]) -> None:
    kernel = pytest.importorskip("loader.kernel", reason="the row kernel was not built")
    assert kernel.KernelDecoder().decode(*made) == PythonDecoder().decode(*made)
    columns = len(made[1].columns)
    for change in PythonDecoder().decode(*made):
        assert change.row is None or change.row.count(b"\t") == columns - 1


def test_a_masked_column_keeps_what_a_plain_one_has() -> None:
    column = masked(TEXT, Mask(HASH), key=True)
    assert isinstance(column, MaskedColumn)
    assert (column.name, column.type, column.key_position) == ("c", TEXT, 1)
    assert raw_type(column) == "text"
    plain = Column("c", TEXT, True, None)
    convert = selected.converter(plain)
    assert converting(plain, convert) is convert

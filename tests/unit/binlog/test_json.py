"""MySQL's JSON between its binary form and its text: what is broken is refused, never guessed."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.binlog.decimals import decimal_encoder, decimal_printer
from replicator.binlog.jsonencoding import encode_selected
from replicator.binlog.jsonprinting import printed_double, printed_json

# As MySQL 9.7 prints them (kinds of members, kinds of cells, text), and as it stores them.
KNOWN = [
    ("@n  null", "0400"),
    ("@b  true", "0401"),
    ("@i  1", "050100"),
    ("@i  70000", "0770110100"),
    ('@s  ""', "0c00"),
    ("@A  []", "0200000400"),
    ("@O  {}", "0000000400"),
    ('@S  "2020-01-02 03:04:05.678000"', "0f070870580a053144a519"),
    ('@A S ["2020-01-02 03:04:05.678000"]', "02010011000f0700070870580a053144a519"),
    ('@A M ["2020-01-02 03:04:05.670000"]', "02010011000f07000c0830390a053144a519"),
    ('@A T ["-01:02:03.400000"]', "02010011000f07000b0880e5f97cefffffff"),
    ('@A D ["2020-01-02"]', "02010011000f07000a08000000000044a519"),
    ("@A u [2001]", "020100070006d107"),
    ('@A o ["base64:type16:AQE="]', "0201000b000f070010020101"),
    ('@A o ["base64:type15:"]', "02010009000f07000f00"),
    ("@A d [0.10000000149011612]", "0201000f000b0700000000a09999b93f"),
    ("@A c [1.50]", "0201000d000f0700f60403028132"),
    ("@A c [-0.10]", "0201000d000f0700f60403027ff5"),
    ("@A c [0.0]", "0201000d000f0700f60402018000"),
    (
        "@A uuu [70000, 40000, 1]",
        "0203001100080d0006409c06010070110100",
    ),
    (
        "@A iiiiiui [70000, -70000, 40000, -32768, 2147483648, 4294967296, 3000000000]",
        "0207003d00071900071d000721000500800925000a2d000935007011010090eefeff409c0000"
        "00000080000000000000000001000000005ed0b200000000",
    ),
    (
        '@OOA bbnd {"a": {"b": [true, false, null, 1.5]}}',
        "00010030000b000100000c0061010024000b000100020c0062040018000401000402000400000b10"
        "00000000000000f83f",
    ),
]


def text_of(selected: str) -> str:
    return selected.split(" ", 2)[2]


@pytest.mark.parametrize(("selected", "stored"), KNOWN)
def test_known_documents_are_encoded_and_printed(selected: str, stored: str) -> None:
    raw = bytes.fromhex(stored)
    assert encode_selected(selected.encode()) == raw
    assert printed_json(raw) == text_of(selected)


@pytest.mark.parametrize(
    "selected",
    [
        "[1]",  # a bare text: the answer would not have fitted
        "",
        "@",
        "@A",
        "@A i",
        "@A i [1, 2]",
        "@A iii [1, 2]",
        "@A si [1, 2]",
        "@O i [1]",
        "@A  {}",
        "@i  1.5",
        "@i  99999999999999999999",
        "@u  -1",
        "@c  1e5",
        '@D  "2020"',
        '@T  "1"',
        '@M  "2020-01-01"',
        '@o  "text"',
        '@o  "base64:type300:AQE="',
        '@o  "base64:type15:?"',
        "@x  1",
        '@s  "open',
    ],
)
def test_a_selection_that_is_not_whole_is_refused(selected: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_selected(selected.encode())


@given(st.binary(max_size=60))
def test_bytes_that_are_no_document_are_refused_or_read_as_one(data: bytes) -> None:
    with suppress(ValueError):
        printed_json(data)


@given(st.sampled_from([one for _, one in KNOWN]), st.data())
def test_a_damaged_document_is_refused_or_read_as_another(stored: str, data: st.DataObject) -> None:
    raw = bytearray.fromhex(stored)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(raw)))
    with suppress(ValueError):
        printed_json(bytes(raw[:end]))


def test_offsets_that_lead_to_one_place_again_and_again_cost_no_more_than_the_bytes() -> None:
    """Arrays of arrays that overlap: an honest reading would never end."""
    layers = b""
    for depth in range(100):
        del depth
        inner = layers or b"\0\0\4\0"
        size = 4 + 8 * 3 + len(inner)
        layers = (
            (8).to_bytes(2, "little")
            + size.to_bytes(2, "little")
            + (b"\2" + (28).to_bytes(2, "little")) * 8
            + inner
        )
    with pytest.raises(ValueError, match="more elements"):
        printed_json(b"\2" + layers)


@given(st.integers(1, 65), st.data())
def test_decimals_are_printed_as_they_were_encoded(precision: int, data: st.DataObject) -> None:
    scale = data.draw(st.integers(0, min(30, precision)))
    digits = data.draw(st.integers(0, 10**precision - 1))
    sign = "-" if digits and data.draw(st.booleans()) else ""
    whole, fraction = divmod(digits, 10**scale)
    printed = f"{sign}{whole}" + (f".{fraction:0{scale}}" if scale else "")
    stored = decimal_encoder(precision, scale)(printed.encode())
    assert decimal_printer(precision, scale)(stored) == printed


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_printed_double_means_the_same_number(number: float) -> None:
    assert float(printed_double(number)).hex() == number.hex()

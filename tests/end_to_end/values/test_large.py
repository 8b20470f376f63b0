"""Values of sixteen megabytes and more, which no packet of the protocol holds whole."""

from __future__ import annotations

from tests.end_to_end.values import printing
from tests.end_to_end.values.catalogue import Kind
from tests.end_to_end.values.legs import Legs, Table

PACKET = (1 << 24) - 1


def test_values_larger_than_a_packet_are_exact_whichever_way_they_come(legs: Legs) -> None:
    family = {
        "bytes": Kind(
            "longblob", printing.BYTES_DIGEST, (f"REPEAT(X'5C', {PACKET - 1})",)
        ),
        "text": Kind(
            "longtext CHARACTER SET latin1", printing.DIGEST,
            ("''", f"REPEAT('é\\t', {PACKET} DIV 2 + 1)"),
        ),
    }  # fmt: skip
    copied = Table(legs, "copied", family)
    copied.fill()
    legs.catch_up()
    copied.assert_exact()
    streamed = Table(legs, "streamed", family)
    legs.catch_up()
    streamed.fill()
    legs.catch_up()
    streamed.assert_exact()
    streamed.touch()
    legs.catch_up()
    streamed.assert_exact()

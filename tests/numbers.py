"""Many rows in one statement, in words that every server of the matrix understands."""

from __future__ import annotations


def numbers(first: int, last: int) -> str:
    """A derived table whose column `seq` counts from `first` to `last`, for a FROM clause."""
    items = f"CONCAT('[0', REPEAT(',0', {last - first}), ']')"
    counted = f"JSON_TABLE({items}, '$[*]' COLUMNS (place FOR ORDINALITY)) AS counted"
    return f"(SELECT place + {first - 1} AS seq FROM {counted}) AS numbers"

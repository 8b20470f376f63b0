"""The verbs' pure parts: positions, counters, keys, reports, names, waiting."""

from __future__ import annotations

import json

import pytest

from config.errors import ConfigError
from replicator.binlog.lookout import bytes_behind
from replicator.binlog.position import SourcePosition
from replicator.binlog.schema import Column, ColumnType, TableSchema
from replicator.cli import checksum, keys
from replicator.cli.report import DIFFERENT, UNSETTLED, Report, TableReport
from replicator.cli.resync import chosen
from replicator.cli.scrape import LegCounters, counters_in, scrape
from replicator.sandbox.processes import free_port

FILES = [("bin.000007", 500), ("bin.000008", 1000), ("bin.000009", 300)]


def at(number: int, offset: int) -> SourcePosition:
    return SourcePosition(f"bin.{number:06d}", offset)


@pytest.mark.parametrize(
    ("here", "end", "behind"),
    [
        (at(9, 100), at(9, 300), 200),
        (at(7, 400), at(9, 300), 100 + 1000 + 300),
        (at(9, 300), at(9, 300), 0),
        (at(9, 300), at(8, 999), 0),
        (at(6, 10), at(9, 300), None),
    ],
)
def test_bytes_behind_are_counted_across_files(
    here: SourcePosition, end: SourcePosition, behind: int | None
) -> None:
    assert bytes_behind(FILES, here, end) == behind


METRICS = """
# TYPE replicator_transactions_total counter
replicator_transactions_total{leg="loader"} 7.0
replicator_transactions_total{leg="replicator"} 9.0
# TYPE replicator_rows_total counter
replicator_rows_total{leg="loader",operation="insert"} 10.0
replicator_rows_total{leg="loader",operation="delete"} 5.0
"""


def test_a_legs_counters_are_summed_over_operations() -> None:
    assert counters_in(METRICS, "loader") == LegCounters(7, 15)
    assert counters_in(METRICS, "replicator") == LegCounters(9, None)


def test_rates_are_unknown_over_a_restart_and_where_nobody_answers() -> None:
    now = LegCounters(7, 15)
    assert now.rates_since(LegCounters(5, 5), 2) == (1, 5)
    assert now.rates_since(LegCounters(8, 5), 2) == (None, 5)
    assert scrape("127.0.0.1", free_port(), "loader") == LegCounters()


def schema(*types: ColumnType, key: int = 1) -> TableSchema:
    columns = tuple(
        Column(f"C{n}", kind, False, n + 1 if n < key else None) for n, kind in enumerate(types)
    )
    return TableSchema("t", columns, tuple(range(key)))


BIGINT, TEXT = ColumnType("bigint"), ColumnType("varchar", length=9, charset="utf8mb3")


def test_a_range_of_a_single_key_has_two_simple_bounds() -> None:
    assert keys.between(["`k`"], ("3",), ("9",)) == " WHERE (`k` > 3) AND `k` <= 9"
    assert keys.between(["`k`"], None, None) == ""


def test_a_range_of_a_compound_key_is_lexicographic_and_bounded_for_the_index() -> None:
    assert keys.between(["a", "b"], ("1", "2"), None) == (
        " WHERE a >= 1 AND (a > 1 OR a = 1 AND b > 2)"
    )
    assert keys.between(["a", "b"], None, ("5", "6")) == (
        " WHERE a <= 5 AND NOT (a > 5 OR a = 5 AND b > 6)"
    )


def test_text_keys_are_bytes_with_their_charset_and_readable_again() -> None:
    literal = keys.literals(schema(TEXT), ["é'".encode()])
    assert literal == ("_utf8mb3 x'c3a927'",)
    assert keys.readable(literal[0]) == '"é\'"'
    assert keys.readable("42") == "42"


def test_only_keys_that_a_literal_can_name_are_cut_into_ranges() -> None:
    assert keys.chunkable(schema(BIGINT, TEXT, key=2))
    assert not keys.chunkable(schema(ColumnType("double")))
    assert not keys.chunkable(schema(BIGINT, key=0))
    assert keys.integral(schema(BIGINT, TEXT))
    assert not keys.integral(schema(TEXT))


def test_a_rows_digest_keeps_null_and_lengths_apart_and_floats_whole() -> None:
    digest = checksum.row_digest(schema(BIGINT, ColumnType("float"), ColumnType("longtext")))
    assert "COALESCE(CONCAT(OCTET_LENGTH(CAST(`C0` AS BINARY)), ':'" in digest
    assert "CAST(`C1` * 1e0 AS BINARY)" in digest
    assert "COALESCE(SHA2(`C2`, 256), 'N')" in digest


def test_unsettled_rows_count_only_when_asked_to_be_strict() -> None:
    table = TableReport("t")
    table.raw.worsen(UNSETTLED)
    report = Report([table])
    assert report.exact()
    assert not report.exact(strict=True)
    table.replica.worsen(DIFFERENT)
    assert not report.exact()
    assert json.loads(json.dumps(report.as_json()))["tables"][0]["verdict"] == "different"


def test_a_comparison_that_was_cut_short_is_not_exact() -> None:
    assert not Report([TableReport("t")], stopped="the loader stayed").exact()


def test_unknown_tables_are_all_named_with_near_ones() -> None:
    known = {"patient", "appointment", "Payment"}
    assert chosen(["patient", "patient"], known) == ["patient"]
    with pytest.raises(ConfigError) as refused:
        chosen(["patinet", "payment", "zzz"], known)
    assert "no table patinet is carried; did you mean patient?" in str(refused.value)
    assert "did you mean Payment" in str(refused.value)
    assert "no table zzz is carried" in str(refused.value)

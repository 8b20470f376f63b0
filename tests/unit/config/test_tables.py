"""Table rules: which names are carried, and how a wrong tables.toml is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.errors import ConfigError
from config.tables import DEFAULT_TABLES_FILE, TableRules, load_table_rules


@pytest.mark.parametrize("table", ["patient", "Patient", "tempConv_patient1", "x y", "ümlaut"])
def test_the_defaults_carry_a_practices_tables(table: str) -> None:
    assert TableRules().carries(table)


@pytest.mark.parametrize(
    "table",
    [
        "tempdash17",
        "TempDash17",
        "tempehrmeasure3",
        "etl_binlog_offset",
        "_resync_patient",
        "_old_x",
    ],
)
def test_the_defaults_leave_out_run_time_tables_and_our_own(table: str) -> None:
    assert not TableRules().carries(table)


def test_our_own_tables_are_left_out_whatever_the_rules_say() -> None:
    assert not TableRules(include=("etl_*",), exclude=()).carries("etl_binlog_offset")


def test_exclusion_wins_over_inclusion() -> None:
    rules = TableRules(include=("pat*", "claim?"), exclude=("patient*",))
    carried = [t for t in ("patfield", "patientnote", "claims", "claim", "x") if rules.carries(t)]
    assert carried == ["patfield", "claims"]


def test_an_empty_include_carries_nothing() -> None:
    assert not TableRules(include=(), exclude=()).carries("patient")


def test_a_pattern_matches_whole_names() -> None:
    rules = TableRules(include=("claim",), exclude=())
    assert [
        name for name in ("claim", "claimproc", "xclaim", "claim\n") if rules.carries(name)
    ] == ["claim"]


def test_the_packaged_file_says_what_the_defaults_say() -> None:
    assert load_table_rules(DEFAULT_TABLES_FILE) == TableRules()


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tables.toml"
    path.write_text(text)
    return path


def test_a_file_may_set_one_list_and_leave_the_other(tmp_path: Path) -> None:
    rules = load_table_rules(written(tmp_path, '[tables]\ninclude = ["patient"]\n'))
    assert rules == TableRules(include=("patient",))


def test_everything_wrong_with_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = 'colour = 1\n[tables]\ninclude = "patient"\nexclude = [1]\nexcept = []\n'
    with pytest.raises(ConfigError) as caught:
        load_table_rules(written(tmp_path, text))
    told = "\n".join(caught.value.faults)
    for word in ("colour", "tables.include", "tables.exclude", "tables.except"):
        assert word in told
    assert len(caught.value.faults) == 4


@pytest.mark.parametrize("text", ["[tables", "tables = 3"])
def test_a_file_that_is_not_what_it_should_be_is_a_config_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"tables\.toml"):
        load_table_rules(written(tmp_path, text))


def test_an_absent_file_is_a_config_error_that_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="REPLICATOR_TABLES="):
        load_table_rules(tmp_path / "absent.toml")

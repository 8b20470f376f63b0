"""[table.…] in tables.toml: what is kept of rows that are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.errors import ConfigError
from config.keeping import Keeping
from config.tables import TableRules, load_table_rules


def rules(tmp_path: Path, text: str) -> TableRules:
    path = tmp_path / "tables.toml"
    path.write_text(text)
    return load_table_rules(path)


def test_without_a_rule_raw_is_an_exact_mirror(tmp_path: Path) -> None:
    found = rules(tmp_path, "").keeping
    assert not found
    assert found.keeping("patient") == Keeping(soft=False, history=False)


def test_the_last_section_that_says_a_word_holds(tmp_path: Path) -> None:
    found = rules(
        tmp_path,
        '[table."*"]\ndeletes = "soft"\n[table.patient]\nhistory = true\n'
        '[table."*log"]\ndeletes = "hard"\n[table."security*"]\nhistory = true\n',
    ).keeping
    assert found.keeping("Appointment") == Keeping(soft=True)
    assert found.keeping("PATIENT") == Keeping(soft=True, history=True)
    assert found.keeping("commlog") == Keeping()
    assert found.keeping("securitylog") == Keeping(soft=False, history=True)


@pytest.mark.parametrize("name", ["tempConv_patient1", "_patient_gho"])
def test_second_names_have_their_tables_rule(tmp_path: Path, name: str) -> None:
    found = rules(tmp_path, '[table.patient]\ndeletes = "soft"\n').keeping
    assert found.keeping(name) == Keeping(soft=True)


def test_only_a_rule_that_keeps_something_calls_a_table_by_its_name(tmp_path: Path) -> None:
    found = rules(
        tmp_path, '[table."*"]\ndeletes = "soft"\n[table.a]\nhistory = true\n'
        '[table.b]\ndeletes = "hard"\n'
    ).keeping  # fmt: skip
    assert [found.names(name) for name in ("a", "b", "c")] == [True, False, False]


def test_sections_that_match_nothing_are_told(tmp_path: Path) -> None:
    found = rules(tmp_path, '[table.patint]\nhistory = true\n[table."p*"]\nhistory = true\n')
    assert found.keeping.idle(["patient"]) == ["[table.patint]"]


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        rules(
            tmp_path,
            '[table.a]\ndeletes = "gently"\n[table.b]\nhistory = "yes"\n[table.c]\nsoft = true\n'
            '[table.""]\nhistory = true\n[table]\nd = 1\n',
        )
    path = tmp_path / "tables.toml"
    assert set(refused.value.faults) == {
        f'{path}: [table.a] deletes: must be "soft" or "hard"',
        f"{path}: [table.b] history: must be true or false",
        f"{path}: [table.c]: unknown key soft; allowed: deletes, history",
        f"{path}: [table.]: an empty name matches nothing",
        f"{path}: table.d must be a section, [table.d]",
    }


def test_a_list_is_no_section(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"table must be sections"):
        rules(tmp_path, 'table = ["patient"]\n')

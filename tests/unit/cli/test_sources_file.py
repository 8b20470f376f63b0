"""dbt's sources.yml: brought in line, with every hand-written word kept."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from config.errors import ConfigError
from replicator.cli.sources_file import CarriedColumn, CarriedTable, Renewed, renewed, summary


def table(name: str, **columns: str) -> CarriedTable:
    return CarriedTable(name, tuple(CarriedColumn(*column) for column in columns.items()))


PATIENT = table("patient", PatNum="bigint", LName="text", _loaded_at="timestamp with time zone")
CLAIM = table("claim", ClaimNum="bigint", _loaded_at="timestamp with time zone")


def renew(
    text: str | None, *tables: CarriedTable, schema: str = "raw", named: Collection[str] = ()
) -> Renewed:
    return renewed(text, tables, schema=schema, named=named, label="sources.yml")


WHOLE = """\
# Tables and columns: `replicator dbt-sources` brings them up to date and keeps what people wrote.
version: 2
sources:
  - name: opendental_raw
    description: Raw OpenDental data from ELT pipeline
    schema: raw
    config:
      loaded_at_field: _loaded_at
    tables:
      - name: claim
        description: Raw claim data
        columns:
          - name: ClaimNum
            quote: true
            data_type: bigint
          - name: _loaded_at
            data_type: timestamp with time zone
            description: When the loader wrote this version of the row.
      - name: patient
        description: Raw patient data
        columns:
          - name: PatNum
            quote: true
            data_type: bigint
          - name: LName
            quote: true
            data_type: text
          - name: _loaded_at
            data_type: timestamp with time zone
            description: When the loader wrote this version of the row.
"""


def test_without_a_file_a_whole_one_is_written_in_the_order_of_names() -> None:
    new = renew(None, PATIENT, CLAIM)
    assert new.text == WHOLE
    assert new.changes == (
        "source opendental_raw is missing",
        "table claim is missing",
        "table patient is missing",
    )


def test_a_file_that_is_right_stays_as_it_is() -> None:
    assert renew(WHOLE, CLAIM, PATIENT) == Renewed(WHOLE, ())
    assert renew(WHOLE.replace("text", "'text'"), CLAIM, PATIENT).changes == ()


BY_HAND = """\
# Our practice's sources.
version: 2

sources:
  - name: elsewhere   # not the replicator's
    tables:
      - name: zebra
  - name: opendental_raw
    schema: raw
    tables:
      # The front desk's.
      - name: patient
        description: >
          Everybody who was ever here,
          and some who were not.
        config:
          freshness: {warn_after: {count: 1, period: day}}
        columns:
          - name: PatNum  # never reused
            data_type: integer
            description: "Who it is"
            data_tests: [unique]
          - name: Gone
            description: Nobody knows.
      - name: appointment
        description: Was carried once.
"""


def test_what_people_wrote_is_kept() -> None:
    new = renew(BY_HAND, PATIENT)
    assert new.changes == (
        "table appointment is not carried",
        "patient.Gone is not carried",
        "patient.PatNum is bigint",
        "patient.LName is missing",
        "patient._loaded_at is missing",
    )
    for kept in (
        "# Our practice's sources.\n",
        "name: elsewhere   # not the replicator's\n    tables:\n      - name: zebra\n",
        "# The front desk's.\n",
        ">\n          Everybody who was ever here,\n          and some who were not.\n",
        "freshness: {warn_after: {count: 1, period: day}}\n",
        "name: PatNum  # never reused\n            data_type: bigint\n",
        'description: "Who it is"\n            data_tests: [unique]\n',
    ):
        assert kept in new.text
    assert "Gone" not in new.text
    assert "appointment" not in new.text
    assert renew(new.text, PATIENT).changes == ()


def test_a_table_that_models_read_stays_and_is_marked_while_it_is_not_carried() -> None:
    without = renew(BY_HAND, PATIENT, named={"appointment", "treatment"})
    assert "table appointment is not carried" in without.changes
    assert "table treatment is missing" in without.changes
    assert "Was carried once." in without.text
    assert without.text.count("carried: false") == 2
    assert renew(without.text, PATIENT, named={"appointment", "treatment"}).changes == ()
    with_it = renew(without.text, PATIENT, table("treatment", TreatmentNum="bigint"))
    assert "table treatment is carried" in with_it.changes
    assert "carried: false" not in with_it.text


def test_another_order_is_a_change_of_its_own() -> None:
    head, _, tables = WHOLE.partition("      - name: claim")
    claim, _, patient = tables.partition("      - name: patient")
    turned = f"{head}      - name: patient{patient}      - name: claim{claim}"
    assert renew(turned, CLAIM, PATIENT) == Renewed(WHOLE, ("tables stand in another order",))


def test_the_schema_is_the_pipelines_unless_dbt_works_it_out() -> None:
    moved = renew(WHOLE, CLAIM, PATIENT, schema="other")
    assert moved.changes == ("the schema is other, not raw",)
    worked_out = WHOLE.replace("schema: raw", "schema: \"{{ env_var('S', 'raw') }}\"")
    assert renew(worked_out, CLAIM, PATIENT, schema="other").changes == ()


@pytest.mark.parametrize("name", ["No", "on", "null", "1", "1:30", "two words", "a: b", "#", "-"])
def test_names_that_yaml_takes_for_something_else_are_quoted(name: str) -> None:
    odd = table("odd", **{name: "text"})
    new = renew(None, odd)
    assert f'- name: "{name}"\n' in new.text
    assert renew(new.text, odd).changes == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sources: [", "not valid YAML, line 1"),
        ("a: 1\na: 2", "not valid YAML, line 2"),
        ("- 1", "it must hold `sources:`, a list"),
        ("sources: 1", "sources must be a list"),
        ("sources: [1]", "each source must be a mapping with a name"),
        ("sources: [{name: x}, {name: x}]", "source x stands there twice"),
        ("sources: [{name: opendental_raw, tables: {a: 1}}]", "tables must be a list"),
        (
            "sources: [{name: opendental_raw, tables: [{name: a}, {name: b, identifier: a}]}]",
            "table a stands there twice",
        ),
        (
            "sources: [{name: opendental_raw, tables: [{name: patient, columns: [PatNum]}]}]",
            "each column of patient must be a mapping with a name",
        ),
        ("\x00", "not valid YAML"),
    ],
)
def test_what_is_no_sources_file_is_told_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as told:
        renew(text, PATIENT)
    assert str(told.value).startswith(f"sources.yml: {reason}")


def test_a_summary_names_the_first_and_counts_the_rest() -> None:
    assert summary(["a", "b"]) == "a; b"
    assert summary(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"


def test_a_masked_column_says_so_until_it_is_masked_no_more() -> None:
    columns = (*PATIENT.columns[:1], CarriedColumn("LName", "text", "redact"))
    masked = renew(WHOLE, CLAIM, CarriedTable("patient", (*columns, PATIENT.columns[2])))
    assert masked.changes == ("patient.LName is masked (redact)",)
    assert "config:\n              meta:\n                masked: redact" in masked.text
    again = renew(masked.text, CLAIM, CarriedTable("patient", (*columns, PATIENT.columns[2])))
    assert again.changes == ()
    plain = renew(masked.text, CLAIM, PATIENT)
    assert plain.changes == ("patient.LName is no longer masked",)
    assert plain.text == WHOLE

"""Rules of privacy: which column has which mask, and how wrong ones are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.errors import ConfigError
from config.privacy import DROP, HASH, PREFIX, REDACT, YEAR, Mask, PrivacyRules
from config.settings import load_settings
from config.tables import load_table_rules

PATIENT = ("PatNum", "LName", "SSN", "Birthdate", "Zip")


def rules(tmp_path: Path, text: str) -> PrivacyRules:
    path = tmp_path / "tables.toml"
    path.write_text(text)
    return load_table_rules(path).privacy


def test_every_mask_is_read(tmp_path: Path) -> None:
    found = rules(
        tmp_path,
        '[mask.t]\na = "drop"\nb = "hash"\nc = "redact"\nd = "year"\ne = {year = 1945}\n'
        'f = {prefix = 3}\ng = {prefix = 2, zeroed = ["03", "55"]}\nh = "keep"\n',
    )
    assert found.masks("t", "abcdefghi") == {
        "a": Mask(DROP),
        "b": Mask(HASH),
        "c": Mask(REDACT),
        "d": Mask(YEAR),
        "e": Mask(YEAR, since=1945),
        "f": Mask(PREFIX, 3),
        "g": Mask(PREFIX, 2, ("03", "55")),
    }
    assert found.hashes
    assert not rules(tmp_path, '[mask.t]\na = "drop"\n').hashes


def test_of_several_rules_the_last_holds(tmp_path: Path) -> None:
    found = rules(
        tmp_path,
        '[mask."*"]\n"*Name" = "redact"\n[mask.provider]\nLName = "keep"\n'
        '[mask."prov*"]\nFName = "hash"\n',
    )
    assert found.masks("patient", PATIENT) == {"LName": Mask(REDACT)}
    assert found.masks("Provider", ("LName", "FName")) == {"FName": Mask(HASH)}


@pytest.mark.parametrize(
    "table",
    ["patient", "PATIENT", "tempConv_patient1", "tempConv_patient_12", "_patient_gho",
     "_patient_new", "_patient_old"],
)  # fmt: skip
def test_a_table_under_a_second_name_has_the_rules_of_its_first(tmp_path: Path, table: str) -> None:
    found = rules(tmp_path, '[mask.patient]\nssn = "drop"\n')
    assert found.masks(table, PATIENT) == {"SSN": Mask(DROP)}
    assert found.masks("patientnote", PATIENT) == {}


def test_rules_without_a_column_are_named_once(tmp_path: Path) -> None:
    found = rules(
        tmp_path, '[mask.patient]\nSNN = "drop"\nLName = "hash"\n[mask."pat*x"]\n"*" = "redact"\n'
    )
    idle = [str(rule) for rule in found.idle({"patient": PATIENT})]
    assert idle == ["[mask.patient] SNN", "[mask.pat*x] *"]


def test_the_profile_is_never_idle_and_yields_to_the_file(tmp_path: Path) -> None:
    found = rules(tmp_path, 'privacy = "limited"\n[mask.patient]\nLName = "hash"\n')
    assert found.idle({"patient": PATIENT}) == []
    assert found.masks("patient", PATIENT)["LName"] == Mask(HASH)
    assert found.masks("patient", PATIENT)["SSN"] == Mask(DROP)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('privacy = "safe"', 'privacy must be "limited"'),
        ("privacy = 1", 'privacy must be "limited"'),
        ('[tables]\nprivacy = "limited"', "privacy stands above the first section"),
        ('mask = "drop"', "mask must be sections"),
        ('[mask]\npatient = "drop"', "mask.patient must be a section"),
        ('[mask.patient]\nSSN = "remove"', "[mask.patient] SSN: must be"),
        ("[mask.patient]\nZip = {prefix = 0}", "[mask.patient] Zip: must be"),
        ("[mask.patient]\nZip = {prefix = 3, year = 1}", "[mask.patient] Zip: must be"),
        ("[mask.patient]\nZip = {prefix = true}", "[mask.patient] Zip: must be"),
        ('[mask.patient]\nZip = {prefix = 3, zeroed = "036"}', "[mask.patient] Zip: must be"),
        ('[mask.patient]\n"" = "drop"', "an empty name matches nothing"),
    ],
)
def test_wrong_rules_are_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        rules(tmp_path, text)


# --- the profile -----------------------------------------------------------------------------


def profile(tmp_path: Path) -> PrivacyRules:
    return rules(tmp_path, 'privacy = "limited"\n')


def test_the_profile_needs_no_key(tmp_path: Path) -> None:
    assert not profile(tmp_path).hashes


def test_the_profile_covers_a_patients_identifiers(tmp_path: Path) -> None:
    columns = [
        "PatNum", "LName", "FName", "MiddleI", "Preferred", "Birthdate", "SSN", "Address",
        "Address2", "City", "State", "Zip", "HmPhone", "WkPhone", "WirelessPhone", "Email",
        "Salutation", "ImageFolder", "AddrNote", "FamFinUrgNote", "MedUrgNote", "ApptModNote",
        "ChartNumber", "MedicaidID", "EmploymentNote", "County", "SchoolName", "DateTimeDeceased",
        "SecurityHash", "PatStatus", "Gender", "Guarantor", "PriProv", "FeeSched", "BillingType",
    ]  # fmt: skip
    kept = set(columns) - set(profile(tmp_path).masks("patient", columns))
    assert kept == {
        "PatNum", "State", "PatStatus", "Gender", "Guarantor", "PriProv", "FeeSched", "BillingType",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("commlog", "Note"), ("procnote", "Note"), ("preference", "ValueString"),
        ("securitylog", "LogText"), ("sheetfield", "FieldValue"), ("inssub", "SubscriberID"),
        ("userod", "Password"), ("a_plugins_table", "WirelessPhone"), ("programproperty",
        "PropertyValue"), ("smstomobile", "MobilePhoneNumber"), ("referral", "EMail"),
        ("wikilist_patients", "AnyColumn"),
    ],
)  # fmt: skip
def test_the_profile_covers_free_text_and_secrets(tmp_path: Path, table: str, column: str) -> None:
    assert profile(tmp_path).masks(table, [column])


def test_the_profile_leaves_who_treats_and_what_was_done(tmp_path: Path) -> None:
    found = profile(tmp_path)
    assert found.masks("provider", ["LName", "FName", "Abbr", "NationalProvID"]) == {}
    assert found.masks("procedurelog", ["ProcDate", "ProcFee", "CodeNum", "PatNum"]) == {}
    assert found.masks("clinic", ["Address", "City", "Phone"]) == {}


# --- the key ---------------------------------------------------------------------------------

ENVIRONMENT = {
    "OPENDENTAL_SOURCE_HOST": "a", "OPENDENTAL_SOURCE_USER": "u", "OPENDENTAL_SOURCE_PASSWORD": "p",
    "MYSQL_REPLICATION_HOST": "b", "MYSQL_REPLICATION_USER": "u", "MYSQL_REPLICATION_PASSWORD": "p",
    "POSTGRES_ANALYTICS_HOST": "c", "POSTGRES_ANALYTICS_USER": "u",
    "POSTGRES_ANALYTICS_PASSWORD": "p",
}  # fmt: skip
KEY = "k" * 31 + "y"


def key_of(**variables: str) -> str | None:
    key = load_settings(None, {**ENVIRONMENT, **variables}).loader.privacy_key
    return None if key is None else key.get_secret_value()


def test_the_key_comes_from_a_variable_a_file_or_a_credential(tmp_path: Path) -> None:
    (tmp_path / "loader_privacy_key").write_text(KEY + "\n")
    assert key_of() is None
    assert key_of(LOADER_PRIVACY_KEY=KEY) == KEY
    assert key_of(LOADER_PRIVACY_KEY_FILE=str(tmp_path / "loader_privacy_key")) == KEY
    assert key_of(CREDENTIALS_DIRECTORY=str(tmp_path)) == KEY


def test_a_short_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="LOADER_PRIVACY_KEY: ") as caught:
        key_of(LOADER_PRIVACY_KEY="marigold")
    assert "marigold" not in str(caught.value)
    with pytest.raises(ConfigError, match="LOADER_PRIVACY_KEY_FILE="):
        key_of(LOADER_PRIVACY_KEY_FILE=str(tmp_path / "none"))


def test_the_key_is_in_no_text_of_the_settings() -> None:
    settings = load_settings(None, {**ENVIRONMENT, "LOADER_PRIVACY_KEY": KEY})
    assert KEY not in repr(settings)

"""Settings: what the environment may say, and how every fault of it is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigError
from config.settings import (
    MySQLServer,
    Settings,
    derived_server_id,
    known_variables,
    load_settings,
)

SECRET = "hunter2-s3cret"
PREFIXES = ("OPENDENTAL_SOURCE", "MYSQL_REPLICATION", "POSTGRES_ANALYTICS")
COMPLETE = {
    f"{prefix}_{field}": value
    for prefix in PREFIXES
    for field, value in {"HOST": "db.example", "USER": "someone", "PASSWORD": SECRET}.items()
}


def load(changes: Mapping[str, str | None] | None = None, env_file: Path | None = None) -> Settings:
    environ = {**COMPLETE, **(changes or {})}
    return load_settings(env_file, {k: v for k, v in environ.items() if v is not None})


def faults_of(changes: Mapping[str, str | None]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(changes)
    return caught.value.faults


def test_host_user_and_password_are_enough_and_the_rest_has_the_documented_defaults() -> None:
    settings = load()
    assert (settings.source.port, settings.source.db) == (3306, "opendental")
    assert (settings.replication.port, settings.replication.db) == (3305, "opendental_replication")
    assert (settings.analytics.port, settings.analytics.db) == (5432, "opendental_analytics")
    assert settings.analytics.schema_name == "raw"
    assert (settings.replicator.metrics_port, settings.loader.metrics_port) == (9405, 9406)
    assert settings.replicator.metrics_host == settings.loader.metrics_host == "127.0.0.1"
    assert settings.tables_file.is_file()


def test_an_empty_environment_is_told_in_one_error_with_every_missing_variable() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {})
    missing = {f"{prefix}_{field}" for prefix in PREFIXES for field in ("HOST", "USER", "PASSWORD")}
    assert {fault.split()[0] for fault in caught.value.faults} == missing
    assert all(name in str(caught.value) for name in missing)
    assert caught.value.hint


def test_faults_of_every_kind_and_section_are_told_together() -> None:
    faults = faults_of(
        {
            "OPENDENTAL_SOURCE_PORT": "33o6",
            "MYSQL_REPLICATION_SSL_MODE": "yes",
            "MYSQL_REPLICATION_USER": None,
            "POSTGRES_ANALYTICS_SSL_CERT": "/nowhere/cert.pem",
            "REPLICATOR_COPY_LOCK": "maybe",
            "LOADER_BATCH_ROWS": "0",
            "LOADER_BATCH_BYTES": "a lot",
            "REPLICATOR_LOG_FORMAT": "xml",
            "REPLICATOR_TABLES": "/nowhere/tables.toml",
        }
    )
    text = "\n".join(faults)
    for expected in (
        "OPENDENTAL_SOURCE_PORT=33o6: ",
        "MYSQL_REPLICATION_SSL_MODE=yes: ",
        "MYSQL_REPLICATION_USER is missing",
        "POSTGRES_ANALYTICS_SSL_CERT and POSTGRES_ANALYTICS_SSL_KEY belong together",
        "POSTGRES_ANALYTICS_SSL_CERT=/nowhere/cert.pem: must be a file",
        "REPLICATOR_COPY_LOCK=maybe: ",
        "LOADER_BATCH_ROWS=0: ",
        "LOADER_BATCH_BYTES=a lot: ",
        "REPLICATOR_LOG_FORMAT=xml: ",
        "REPLICATOR_TABLES=/nowhere/tables.toml: must be a file",
    ):
        assert expected in text
    assert len(faults) == 10


def test_a_fault_says_what_is_allowed() -> None:
    (fault,) = faults_of({"OPENDENTAL_SOURCE_SSL_MODE": "on"})
    assert "'disabled'" in fault
    assert "'verify_identity'" in fault
    (fault,) = faults_of({"POSTGRES_ANALYTICS_PORT": "70000"})
    assert "65535" in fault


def test_a_misspelt_variable_is_suggested_where_one_is_missing() -> None:
    (fault,) = faults_of({"OPENDENTAL_SOURCE_PASSWORD": None, "OPENDENTAL_SOURCE_PASSWROD": SECRET})
    assert "is OPENDENTAL_SOURCE_PASSWROD meant to be it?" in fault
    assert SECRET not in fault


@pytest.mark.parametrize("variable", known_variables())
def test_no_variable_set_to_nonsense_shows_a_traceback_or_a_password(variable: str) -> None:
    try:
        shown = repr(load({variable: "\u2603 nonsense"}))
    except ConfigError as exc:
        shown = f"{exc}{exc.hint}{exc.faults}"
        assert variable in shown
    assert SECRET not in shown


def test_secrets_are_in_no_representation() -> None:
    settings = load()
    shown = [repr(settings), str(settings), f"{settings}", settings.model_dump_json()]
    shown += [str(settings.model_dump()), json.dumps(settings.model_dump(mode="json"))]
    shown += [repr(server) for server in (settings.source, settings.replication)]
    assert not [text for text in shown if SECRET in text]
    assert settings.source.password.get_secret_value() == SECRET


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().source.port = 1


def test_the_environment_wins_over_the_env_file(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("OPENDENTAL_SOURCE_PORT=1111\nMYSQL_REPLICATION_PORT=2222 # ours\n")
    settings = load({"OPENDENTAL_SOURCE_PORT": "3333"}, env_file)
    assert (settings.source.port, settings.replication.port) == (3333, 2222)


def test_a_password_in_the_env_file_is_taken_literally(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("OPENDENTAL_SOURCE_PASSWORD='a${HOME}#b c'\n")
    settings = load({"OPENDENTAL_SOURCE_PASSWORD": None}, env_file)
    assert settings.source.password.get_secret_value() == "a${HOME}#b c"


def test_a_missing_env_file_is_a_fault_only_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(environ=COMPLETE).source.host == "db.example"
    with pytest.raises(ConfigError, match="cannot be read"):
        load(env_file=tmp_path / "absent")


def test_an_empty_value_counts_as_unset(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("OPENDENTAL_SOURCE_PORT=\n")
    assert load({"MYSQL_REPLICATION_PORT": ""}, env_file).replication.port == 3305
    assert faults_of({"OPENDENTAL_SOURCE_PASSWORD": ""})[0].startswith("OPENDENTAL_SOURCE_PASSWORD")


@pytest.fixture
def password_sources(tmp_path: Path) -> dict[str, str]:
    """A password file and a systemd credential, in the variables that announce them."""
    (tmp_path / "file").write_text("from file\n")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "opendental_source_password").write_text("from credential")
    return {
        "OPENDENTAL_SOURCE_PASSWORD_FILE": str(tmp_path / "file"),
        "CREDENTIALS_DIRECTORY": str(credentials),
    }


@pytest.mark.parametrize(
    ("absent", "password"),
    [
        ((), SECRET),
        (("OPENDENTAL_SOURCE_PASSWORD",), "from file"),
        (
            ("OPENDENTAL_SOURCE_PASSWORD", "OPENDENTAL_SOURCE_PASSWORD_FILE"),
            "from credential",
        ),
    ],
)
def test_a_password_comes_from_the_variable_then_the_file_then_the_credential(
    password_sources: dict[str, str], absent: tuple[str, ...], password: str
) -> None:
    settings = load({**password_sources, **dict.fromkeys(absent)})
    assert settings.source.password.get_secret_value() == password


@pytest.mark.parametrize(
    ("leg", "other"),
    [("replicator", "POSTGRES_ANALYTICS_PASSWORD"), ("loader", "OPENDENTAL_SOURCE_PASSWORD")],
)
def test_a_daemon_need_not_be_told_the_password_of_a_server_that_it_does_not_connect_to(
    leg: str, other: str
) -> None:
    environ = {name: value for name, value in COMPLETE.items() if name != other}
    assert load_settings(None, environ, leg=leg)
    with pytest.raises(ConfigError, match=f"{other} is missing"):
        load_settings(None, environ)
    both = {k: v for k, v in environ.items() if k != "MYSQL_REPLICATION_PASSWORD"}
    with pytest.raises(ConfigError, match="MYSQL_REPLICATION_PASSWORD is missing"):
        load_settings(None, both, leg=leg)


def test_a_credential_that_may_not_be_looked_at_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = {name: getattr(Path, name) for name in ("stat", "read_text")}

    def refusing(name: str) -> Callable[..., object]:
        def look(path: Path, *words: object, **options: object) -> object:
            if path.parent == tmp_path:  # as in a directory of another account's
                raise PermissionError(13, "Permission denied")
            return real[name](path, *words, **options)

        return look

    for name in real:
        monkeypatch.setattr(Path, name, refusing(name))
    environ = {k: v for k, v in COMPLETE.items() if not k.startswith("OPENDENTAL_SOURCE_PASSW")}
    with pytest.raises(ConfigError, match=r"credential opendental_source_password=.*denied"):
        load_settings(None, {**environ, "CREDENTIALS_DIRECTORY": str(tmp_path)})


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_an_unusable_password_file_is_named_and_its_content_is_not(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    (fault,) = faults_of(
        {"OPENDENTAL_SOURCE_PASSWORD": None, "OPENDENTAL_SOURCE_PASSWORD_FILE": str(path)}
    )
    assert fault.startswith(f"OPENDENTAL_SOURCE_PASSWORD_FILE={path}: ")


def test_a_client_certificate_may_stand_in_for_a_password(tmp_path: Path) -> None:
    for name in ("cert", "key"):
        (tmp_path / name).touch()
    settings = load(
        {
            "POSTGRES_ANALYTICS_PASSWORD": None,
            "POSTGRES_ANALYTICS_SSL_CERT": str(tmp_path / "cert"),
            "POSTGRES_ANALYTICS_SSL_KEY": str(tmp_path / "key"),
        }
    )
    assert settings.analytics.password.get_secret_value() == ""


def test_an_authority_that_would_not_be_looked_at_is_refused(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    (fault,) = faults_of({"MYSQL_REPLICATION_SSL_CA": str(authority)})
    assert fault.startswith("MYSQL_REPLICATION_SSL_CA is not looked at")
    verified = {"MYSQL_REPLICATION_SSL_CA": str(authority)}
    settings = load({**verified, "MYSQL_REPLICATION_SSL_MODE": "VERIFY_IDENTITY"})
    assert settings.replication.ssl_mode == "verify_identity"


def test_sizes_may_carry_units() -> None:
    settings = load({"LOADER_BATCH_BYTES": "2 MiB", "REPLICATOR_BATCH_BYTES": "65536"})
    assert (settings.loader.batch_bytes, settings.replicator.batch_bytes) == (2 * 2**20, 65536)


def test_a_replica_that_is_the_source_itself_is_refused() -> None:
    (fault,) = faults_of(
        {
            "OPENDENTAL_SOURCE_HOST": "localhost",
            "MYSQL_REPLICATION_HOST": "127.0.0.1",
            "MYSQL_REPLICATION_PORT": "3306",
        }
    )
    assert "MYSQL_REPLICATION_PORT=3306" in fault


def replica(host: str, port: int, db: str) -> MySQLServer:
    return MySQLServer(role="replica", host=host, port=port, db=db, user="u")


@given(st.text(min_size=1), st.integers(1, 65535), st.text(min_size=1))
def test_derived_server_ids_are_valid_and_differ_between_the_legs(
    host: str, port: int, db: str
) -> None:
    legs = [derived_server_id(leg, replica(host, port, db)) for leg in ("replicator", "loader")]
    assert all(2**31 <= number <= 2**32 - 2 for number in legs)
    assert legs[0] != legs[1]


def test_derived_server_ids_stay_the_same_between_versions() -> None:
    place = replica("localhost", 3305, "opendental_replication")
    assert derived_server_id("replicator", place) == 2687063216
    assert load({"REPLICATOR_SERVER_ID": "77"}).replicator.server_id == 77


def test_the_example_names_every_variable_and_no_other() -> None:
    example = Path(__file__).parents[3] / "config" / "env.example"
    assignments = [line.lstrip("#") for line in example.read_text().splitlines()]
    named = {line.split("=")[0] for line in assignments if "=" in line and line[0].isupper()}
    named = {name for name in named if " " not in name}
    expected = {name for name in known_variables() if not name.endswith("_PASSWORD_FILE")}
    assert named == expected

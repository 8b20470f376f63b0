"""Connections, as far as they can be told without a server."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from config.connections import (
    ConnectionFactory,
    connect_mysql,
    connect_postgres,
    mysql_tls_options,
    postgres_tls_options,
    quote_mysql_identifier,
    search_path_option,
)
from config.errors import ConfigError, ConnectionLost
from config.settings import MySQLServer, PostgresServer, load_settings

SECRET = "hunter2-s3cret"
ENVIRONMENT = {
    f"{prefix}_{field}": value
    for prefix in ("OPENDENTAL_SOURCE", "MYSQL_REPLICATION", "POSTGRES_ANALYTICS")
    for field, value in {"HOST": "db.invalid", "USER": "someone", "PASSWORD": SECRET}.items()
}
METHODS = [name for name in dir(ConnectionFactory) if name.startswith("get_")]


@pytest.fixture(autouse=True)
def _no_shared_factory() -> Iterator[None]:
    ConnectionFactory.forget_environment()
    yield
    ConnectionFactory.forget_environment()


def mysql_server(**fields: object) -> MySQLServer:
    given = {"role": "source", "host": "h", "port": 3306, "db": "d", "user": "u", **fields}
    return MySQLServer.model_validate(given)


@pytest.mark.parametrize(
    ("name", "quoted"), [("patient", "`patient`"), ("a`b", "`a``b`"), ("a b", "`a b`")]
)
def test_identifiers_are_quoted(name: str, quoted: str) -> None:
    assert quote_mysql_identifier(name) == quoted


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_cannot_be_an_identifier_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="identifier"):
        quote_mysql_identifier(name)


def test_a_search_path_holds_any_schema_name() -> None:
    assert search_path_option("raw") == '-c search_path="raw"'
    assert search_path_option('a b"\\') == '-c search_path="a\\ b""\\\\"'


@pytest.mark.parametrize(
    ("mode", "verify", "hostname"),
    [
        ("required", ssl.CERT_NONE, False),
        ("verify_ca", ssl.CERT_REQUIRED, False),
        ("verify_identity", ssl.CERT_REQUIRED, True),
    ],
)
def test_mysql_tls_modes_verify_what_they_say(
    mode: str, verify: ssl.VerifyMode, hostname: bool
) -> None:
    context = mysql_tls_options(mysql_server(ssl_mode=mode))["ssl"]
    assert (context.verify_mode, context.check_hostname) == (verify, hostname)


def test_mysql_tls_is_off_or_left_to_the_server_where_asked() -> None:
    assert mysql_tls_options(mysql_server(ssl_mode="disabled")) == {"ssl_disabled": True}
    assert mysql_tls_options(mysql_server()) == {}


def test_postgres_tls_files_get_libpqs_names() -> None:
    server = PostgresServer(
        host="h", db="d", user="u", ssl_mode="verify-full", ssl_ca=Path("/ca.pem")
    )
    assert postgres_tls_options(server) == {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_works_on_the_class_and_on_an_instance(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    engine = getattr(ConnectionFactory, method)()
    assert getattr(ConnectionFactory, method)() is engine
    factory = ConnectionFactory(load_settings(None, ENVIRONMENT))
    other = getattr(factory, method)()
    assert other is not engine
    for one in (engine, other):
        assert SECRET not in f"{one!r}{one.url!r}{one.url.render_as_string(hide_password=False)}"
    factory.dispose()


def test_the_factory_has_exactly_the_documented_methods() -> None:
    assert sorted(METHODS) == [
        "get_mysql_replication_connection",
        "get_opendental_analytics_intermediate_connection",
        "get_opendental_analytics_marts_connection",
        "get_opendental_analytics_public_connection",
        "get_opendental_analytics_raw_connection",
        "get_opendental_analytics_staging_connection",
        "get_opendental_source_connection",
        "get_postgres_analytics_connection",
    ]
    assert all(vars(ConnectionFactory)[method].__doc__ for method in METHODS)


def test_a_wrong_environment_shows_at_the_first_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    method = ConnectionFactory.get_opendental_source_connection
    with pytest.raises(ConfigError, match="OPENDENTAL_SOURCE_HOST is missing"):
        method()


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A listener that accepts and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        accepted: list[socket.socket] = []
        ended = threading.Event()

        def accept() -> None:
            listener.settimeout(0.05)
            while not ended.is_set():
                try:
                    accepted.append(listener.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        ended.set()
        thread.join()
        for connection in accepted:
            connection.close()


def test_a_server_that_accepts_and_stays_silent_is_given_up(mute_port: int) -> None:
    started = monotonic()
    silent = mysql_server(host="127.0.0.1", port=mute_port, connect_timeout=0.2)
    with pytest.raises(ConnectionLost, match=f"source 127.0.0.1:{mute_port}"):
        connect_mysql(silent)
    postgres = PostgresServer(host="127.0.0.1", port=mute_port, db="d", user="u", connect_timeout=1)
    with pytest.raises(ConnectionLost, match=f"analytics 127.0.0.1:{mute_port}"):
        connect_postgres(postgres)
    assert monotonic() - started < 20

"""TLS to all three servers: a real authority is trusted, another is not, plain text is refused."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from config.connections import connect_mysql, connect_postgres
from config.errors import ConfigError
from config.settings import MySQLServer, PostgresServer
from replicator.sandbox.postgres import PostgreSQLServer
from replicator.sandbox.servers import SOURCE_OPTIONS, BinlogServer
from tests.fix_servers import NewMariaDB, NewPostgreSQL

MONTH = datetime.timedelta(days=30)
NEW = datetime.timedelta()


@dataclass(frozen=True)
class Authority:
    """A certificate authority, in files."""

    directory: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def file(self) -> Path:
        return self.directory / "ca.pem"


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, age: datetime.timedelta = NEW
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC) - age
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - MONTH)
        .not_valid_after(now + MONTH)
    )


def make_authority(directory: Path) -> Authority:
    directory.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(directory.name, _name(directory.name), key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    certificate = builder.sign(key, hashes.SHA256())
    authority = Authority(directory, key, certificate)
    authority.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return authority


def issue(
    authority: Authority, address: str, directory: Path, age: datetime.timedelta = NEW
) -> None:
    """Write server.pem and server.key, for a server at the IP `address`, into `directory`.

    A certificate holds for a month from when it is new.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    builder = _builder("server", authority.certificate.subject, key.public_key(), age)
    certificate = builder.add_extension(alternatives, False).sign(authority.key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (directory / "server.pem").write_bytes(certificate.public_bytes(pem))
    (directory / "server.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    )
    (directory / "server.key").chmod(0o600)


@pytest.fixture
def trusted(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "trusted")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "stranger")


def mariadb_with(authority: Authority, address: str, new_mariadb: NewMariaDB) -> BinlogServer:
    issue(authority, address, authority.directory)
    files = {
        "ssl_cert": str(authority.directory / "server.pem"),
        "ssl_key": str(authority.directory / "server.key"),
    }
    server = new_mariadb({**SOURCE_OPTIONS, **files})
    with closing(server.connect()) as root, root.cursor() as cursor:
        cursor.execute("CREATE USER u@'%' IDENTIFIED BY 'secret'")
    return server


def mysql(server: BinlogServer, mode: str, authority: Authority | None = None) -> MySQLServer:
    return MySQLServer.model_validate(
        {
            "role": "replica",
            "host": "127.0.0.1",
            "port": server.port,
            "db": "mysql",
            "user": "u",
            "password": "secret",
            "ssl_mode": mode,
            "ssl_ca": authority and authority.file,
        }
    )


def mysql_cipher(server: MySQLServer) -> str:
    with closing(connect_mysql(server)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        row = cursor.fetchone()
        assert row is not None
        return str(row[1])


def test_mysql_tls_trusts_the_given_authority_and_no_other(
    new_mariadb: NewMariaDB, trusted: Authority, stranger: Authority
) -> None:
    server = mariadb_with(trusted, "127.0.0.1", new_mariadb)
    assert mysql_cipher(mysql(server, "disabled")) == ""
    for mode in ("preferred", "required"):
        assert mysql_cipher(mysql(server, mode))
    for mode in ("verify_ca", "verify_identity"):
        assert mysql_cipher(mysql(server, mode, trusted))
        for authority in (stranger, None):
            with pytest.raises(ConfigError, match="TLS failed") as caught:
                connect_mysql(mysql(server, mode, authority))
            assert "MYSQL_REPLICATION_SSL_MODE" in caught.value.hint


def test_mysql_identity_is_verified_only_where_asked(
    new_mariadb: NewMariaDB, trusted: Authority
) -> None:
    server = mariadb_with(trusted, "192.0.2.1", new_mariadb)
    assert mysql_cipher(mysql(server, "verify_ca", trusted))
    with pytest.raises(ConfigError, match="TLS failed"):
        connect_mysql(mysql(server, "verify_identity", trusted))


def postgres_with(
    authority: Authority, address: str, new_postgresql: NewPostgreSQL
) -> PostgreSQLServer:
    server = new_postgresql()
    data = server.data.resolve()
    issue(authority, address, authority.directory)
    owner = data.stat()
    for file in ("server.pem", "server.key"):
        shutil.copy(authority.directory / file, data / file)
        os.chown(data / file, owner.st_uid, owner.st_gid)
    with closing(server.connect()) as root:
        for name, value in (
            ("ssl_cert_file", "server.pem"),
            ("ssl_key_file", "server.key"),
            ("ssl", "on"),
        ):
            root.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        root.execute("CREATE ROLE u LOGIN PASSWORD 'secret'")
    server.stop()
    server.start()
    return server


def postgres(
    server: PostgreSQLServer, mode: str, authority: Authority | None = None
) -> PostgresServer:
    return PostgresServer.model_validate(
        {
            "host": "127.0.0.1",
            "port": server.port,
            "db": "postgres",
            "user": "u",
            "password": "secret",
            "ssl_mode": mode,
            "ssl_ca": authority and authority.file,
        }
    )


def uses_tls(server: PostgresServer) -> bool:
    with connect_postgres(server) as connection:
        found = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        return connection.execute(found).fetchone() == (True,)


@pytest.mark.only_on("postgresql", reason="the wheel of PostgreSQL 18 is built without TLS")
def test_postgres_tls_trusts_the_given_authority_and_no_other(
    new_postgresql: NewPostgreSQL, trusted: Authority, stranger: Authority
) -> None:
    server = postgres_with(trusted, "127.0.0.1", new_postgresql)
    assert not uses_tls(postgres(server, "disable"))
    for mode in ("prefer", "require"):
        assert uses_tls(postgres(server, mode))
    for mode in ("verify-ca", "verify-full"):
        assert uses_tls(postgres(server, mode, trusted))
        with pytest.raises(ConfigError, match="certificate") as caught:
            connect_postgres(postgres(server, mode, stranger))
        assert "POSTGRES_ANALYTICS_SSL_MODE" in caught.value.hint
    elsewhere = PostgresServer.model_validate(
        {**postgres(server, "verify-full", trusted).model_dump(), "host": "localhost"}
    )
    with pytest.raises(ConfigError, match="localhost"):
        connect_postgres(elsewhere)

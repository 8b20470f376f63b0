"""What each account needs, in the words of each family and version, and quoted."""

from __future__ import annotations

import pytest

from config.settings import MySQLServer
from replicator.cli.doctor.greeting import told
from replicator.grants import (
    PLACEHOLDER,
    mysql_account_statements,
    postgres_account_statements,
    replica_privileges,
    source_privileges,
)
from replicator.source import Identity


def words(version: str, *, replica: bool = False) -> list[str]:
    identity = Identity(0, "", version)
    found = replica_privileges(identity) if replica else source_privileges(identity)
    return [privilege.word for privilege in found if privilege.everywhere]


@pytest.mark.parametrize(
    ("version", "source", "replica"),
    [
        ("10.11.6-MariaDB", "BINLOG MONITOR", {"BINLOG REPLAY", "BINLOG ADMIN"}),
        ("10.4.32-MariaDB", "REPLICATION CLIENT", {"SUPER"}),
        ("9.7.0", "REPLICATION CLIENT", {"BINLOG_ADMIN", "SESSION_VARIABLES_ADMIN"}),
        ("5.7.44-log", "REPLICATION CLIENT", {"SUPER"}),
    ],
)
def test_each_version_is_asked_in_its_own_words(
    version: str, source: str, replica: set[str]
) -> None:
    assert words(version) == ["REPLICATION SLAVE", source]
    others = {"REPLICATION SLAVE", source, "PROCESS"}
    assert set(words(version, replica=True)) == replica | others


def server(**changes: object) -> MySQLServer:
    base = {"role": "source", "host": "h", "port": 1, "db": "a_b", "user": "u", "password": "s"}
    return MySQLServer.model_validate({**base, **changes})


def test_names_are_quoted_and_no_password_is_shown() -> None:
    identity = Identity(0, "", "10.11.6-MariaDB")
    made = mysql_account_statements(
        server(user="o'hara", db="50%_`x", password="not-to-be-seen"),
        source_privileges(identity, locks=True),
    )
    assert made == [
        f"CREATE USER 'o''hara'@'%' IDENTIFIED BY '{PLACEHOLDER}';",
        "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO 'o''hara'@'%';",
        r"GRANT SELECT, LOCK TABLES ON `50\%\_``x`.* TO 'o''hara'@'%';",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({}, ""), ({"ssl_mode": "required"}, " REQUIRE SSL"), ({"ssl_mode": "preferred"}, "")],
)
def test_an_account_that_comes_by_tls_may_come_no_other_way(
    changes: dict[str, object], words: str
) -> None:
    made = mysql_account_statements(server(**changes), ())
    assert made == [f"CREATE USER 'u'@'%' IDENTIFIED BY '{PLACEHOLDER}'{words};"]


def test_postgresqls_role_owns_nothing_but_what_it_creates() -> None:
    assert postgres_account_statements('w"r', "an") == [
        f'CREATE ROLE "w""r" LOGIN PASSWORD \'{PLACEHOLDER}\';',
        "CREATE DATABASE \"an\" ENCODING 'UTF8' TEMPLATE template0;",
        'GRANT CONNECT, CREATE, TEMPORARY ON DATABASE "an" TO "w""r";',
    ]


@pytest.mark.parametrize(
    ("packet", "version"),
    [
        (b"\x5b\0\0\0\x0a5.5.5-10.11.6-MariaDB-1\0rest", "10.11.6-MariaDB-1"),
        (b"\x4a\0\0\0\x0a9.7.0\0rest", "9.7.0"),
        (b"\x10\0\0\0\xff\x69\x04Host 'x' is blocked", None),
        (b"\x4a\0\0\0\x0a9.7.0", None),
        (b"HTTP/1.1 400 Bad Request\r\n", None),
        (b"", None),
    ],
)
def test_a_greeting_tells_the_version(packet: bytes, version: str | None) -> None:
    found = told(packet)
    assert (found and found.version) == version

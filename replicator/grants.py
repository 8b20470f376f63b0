"""What each account must be allowed, and no more: the one place that says so.

Left: a server's family and version, and the settings' names. Right: privileges, each with what
fails without it, and the SQL that makes an account with just these. `replicator check --grants`
prints that SQL, the doctor compares it with what an account holds, and the sandbox makes its
accounts with it, so that every run of the demo and of the tests shows that it suffices.

Names are as the servers have them in SHOW GRANTS. MariaDB gave the parts of SUPER names of
their own in 10.5.2, MySQL in 8.0.14; older servers have only SUPER. Sources:
https://mariadb.com/kb/en/grant/ and the manual's "Privileges Provided by MySQL".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from config.connections import quote_mysql_identifier
from config.settings import MySQLServer
from replicator.source import Identity

PLACEHOLDER: Final = "<password>"
"""Stands where a password belongs; whoever pastes puts his own there."""
_MARIADB_PARTS: Final = 100502
_MYSQL_PARTS: Final = 80014


@dataclass(frozen=True, slots=True)
class Privilege:
    """One privilege: everywhere (`*.*`) or on the pipeline's own database."""

    word: str
    everywhere: bool
    why: str
    """What cannot be done without it, in a few words."""


def source_privileges(identity: Identity, *, locks: bool = False) -> tuple[Privilege, ...]:
    """What the read-only account on the source needs; `locks`: REPLICATOR_COPY_LOCK=short."""
    needed = (
        Privilege("REPLICATION SLAVE", True, "read the binlog"),
        Privilege(_monitor(identity), True, "ask where the binlog ends, and which files there are"),
        Privilege("SELECT", False, "copy tables"),
    )
    lock = Privilege("LOCK TABLES", False, "copy tables without a key under a short lock")
    return (*needed, lock) if locks else needed


def replica_privileges(identity: Identity) -> tuple[Privilege, ...]:
    """What the account on the replica needs, for both legs."""
    return (
        *_appliers(identity),
        Privilege("REPLICATION SLAVE", True, "read the replica's binlog (leg 2)"),
        Privilege(_monitor(identity), True, "ask where the replica's binlog ends (leg 2)"),
        Privilege("PROCESS", True, "tell a table from its successor by the engine's table ids"),
        *(Privilege(word, False, why) for word, why in _ON_THE_REPLICAS_DATABASE.items()),
        *(() if identity.mariadb else (Privilege("REFERENCES", False, "create foreign keys"),)),
    )


_ON_THE_REPLICAS_DATABASE: Final = {
    "SELECT": "read back what was applied, and load it (leg 2)",
    "INSERT": "write rows and positions",
    "UPDATE": "keep positions",
    "DELETE": "remove rows",
    "CREATE": "create the database and tables",
    "DROP": "drop and truncate tables",
    "ALTER": "change tables as the source does, and swap reloaded ones",
    "INDEX": "create and drop indexes",
}


def _monitor(identity: Identity) -> str:
    named = identity.mariadb and identity.number >= _MARIADB_PARTS
    return "BINLOG MONITOR" if named else "REPLICATION CLIENT"


def _appliers(identity: Identity) -> tuple[Privilege, ...]:
    """What BINLOG statements, and sessions that are not logged, ask for."""
    apply, hide = "apply row events (BINLOG)", "keep unfinished copies out of the binlog"
    if identity.mariadb and identity.number >= _MARIADB_PARTS:
        return (
            Privilege("BINLOG REPLAY", True, apply),
            Privilege("BINLOG ADMIN", True, f"{hide}, and purge files that leg 2 has passed"),
        )
    if not identity.mariadb and identity.number >= _MYSQL_PARTS:
        return (
            Privilege("BINLOG_ADMIN", True, f"{apply}, and purge files that leg 2 has passed"),
            Privilege("SESSION_VARIABLES_ADMIN", True, f"{hide}, and run DDL as the source ran it"),
        )
    return (Privilege("SUPER", True, f"{apply}, and {hide}"),)


# --- SQL -------------------------------------------------------------------------------------


def account(user: str, host: str = "%") -> str:
    """`'user'@'host'`, quoted."""
    return f"{_text(user)}@{_text(host)}"


def mysql_account_statements(
    server: MySQLServer, privileges: Iterable[Privilege], password: str = PLACEHOLDER
) -> list[str]:
    """CREATE USER and GRANT for the account of `server`'s settings, as SQL to paste."""
    name = account(server.user)
    return [
        create_user(name, password, require=_required_tls(server)),
        *grant_statements(name, server.db, privileges),
    ]


def create_user(name: str, password: str, *, require: str = "") -> str:
    return f"CREATE USER {name} IDENTIFIED BY {_text(password)}{require and f' REQUIRE {require}'};"


def grant_statements(name: str, database: str, privileges: Iterable[Privilege]) -> list[str]:
    """A GRANT for each scope that anything is needed on; `name` is a quoted account."""
    given = tuple(privileges)
    return [
        f"GRANT {', '.join(words)} ON {database_scope(database) if here else '*.*'} TO {name};"
        for here in (False, True)
        if (words := [p.word for p in given if p.everywhere is not here])
    ]


def reset_statements(name: str, database: str, privileges: Iterable[Privilege]) -> list[str]:
    """Take everything from an account, then give it what it needs."""
    taken = f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {name};"
    return [taken, *grant_statements(name, database, privileges)]


def database_scope(database: str) -> str:
    r"""`db`.* in a GRANT, where _ and % in the name would be wildcards."""
    escaped = database.replace("\\", "\\\\").replace("_", r"\_").replace("%", r"\%")
    return f"{quote_mysql_identifier(escaped)}.*"


def postgres_account_statements(user: str, database: str, password: str = PLACEHOLDER) -> list[str]:
    """The role that writes `raw`, its database, and what it may do there.

    It creates the schema, and owns that and nothing else.
    """
    return [postgres_role(user, password), *postgres_database(user, database)]


def postgres_role(user: str, password: str) -> str:
    literal = "'" + password.replace("'", "''") + "'"
    return f"CREATE ROLE {_name(user)} LOGIN PASSWORD {literal};"


def postgres_database(user: str, database: str) -> list[str]:
    return [
        f"CREATE DATABASE {_name(database)} ENCODING 'UTF8' TEMPLATE template0;",
        f"GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {_name(database)} TO {_name(user)};",
    ]


def _required_tls(server: MySQLServer) -> str:
    if server.ssl_mode in ("disabled", "preferred"):
        return ""
    return "SSL" if server.ssl_cert is None else "X509"


def _text(value: str) -> str:
    """A MySQL string literal, under every sql_mode but NO_BACKSLASH_ESCAPES."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

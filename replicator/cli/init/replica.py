"""What the replica's server needs: settings, the account of both legs, database, tracking tables.

Left: an administrator's connection. Right: `Step`s. An account that works as it is stays as it is;
a password that is not that of the settings is set anew, which is also how it is rotated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from config.connections import connect_mysql
from config.connections import quote_mysql_identifier as quote
from config.errors import ConfigError, ReplicatorError, translated
from config.settings import MySQLServer
from replicator import grants, tracking
from replicator import source as src
from replicator.cli.doctor.facts import MySQLFacts
from replicator.cli.doctor.held import parse_grants
from replicator.cli.init.steps import Statement, Step, runs_on
from replicator.tracking import execute, fetch

REPLICA: Final = "replica"
_MASK: Final = "***"
_WANTED: Final = {
    "binlog_format": ("ROW",),
    "binlog_row_image": ("FULL",),
    "binlog_row_metadata": ("FULL",),
}
_PERSISTS: Final = 80000


def replica_steps(admin: Any, server: MySQLServer) -> Iterator[Step]:
    """In order; each looks at the server when it is asked for. Raises what init cannot mend."""
    with translated(server.label):
        execute(admin, "SET SESSION sql_log_bin = 0")  # leg 2 need not follow any of this
        identity = src.identify(admin)
        yield from _settings(admin, server, identity)
        yield from _account(admin, server, identity)
        yield _database(admin, server)
        yield from _tables(admin, server)


def _settings(admin: Any, server: MySQLServer, identity: src.Identity) -> Iterator[Step]:
    found = {str(n): str(v).upper() for n, v in fetch(admin, "SHOW GLOBAL VARIABLES")}
    if found.get("log_bin") != "ON":
        raise ConfigError(
            f"{server.label}: it writes no binlog, and that cannot be changed while it runs",
            "Start it with config/replica.cnf (systemctl start mariadb@replica), then: replicator"
            " init",
        )
    lasting = not identity.mariadb and identity.number >= _PERSISTS
    for name, values in _WANTED.items():
        if name not in found:
            raise ConfigError(
                f"{server.label}: it has no {name}, so it is too old to be a replica",
                "Install MariaDB 10.5 or newer, or MySQL 8.0 or newer.",
            )
        wanted = f"SET {'PERSIST' if lasting else 'GLOBAL'} {name} = '{values[0]}';"
        note = "" if lasting else " (config/replica.cnf keeps it through a restart)"
        missing = () if found[name] in values else (Statement(wanted),)
        yield Step(REPLICA, f"{name} is {values[0]}{note if missing else ''}", missing,
                   runs_on(admin))  # fmt: skip


def _account(admin: Any, server: MySQLServer, identity: src.Identity) -> Iterator[Step]:
    needed = grants.replica_privileges(identity)
    name = _logged_in(server)
    hosts = [h for (h,) in fetch(admin, "SELECT host FROM mysql.user WHERE user = %s",
                                 [server.user])]  # fmt: skip
    there = name is not None or bool(hosts)
    password = server.password.get_secret_value()
    make = grants.mysql_account_statements(server, needed, password)[0]
    shown = grants.mysql_account_statements(server, needed, _MASK)[0]
    yield Step(REPLICA, f"account {server.user}, both legs'",
               () if there else (Statement(make, shown),), runs_on(admin))  # fmt: skip
    if there and name is None:
        for host in hosts:
            words = grants.create_user(grants.account(server.user, host), password)
            masked = grants.create_user(grants.account(server.user, host), _MASK)
            anew = Statement(
                words.replace("CREATE", "ALTER", 1), masked.replace("CREATE", "ALTER", 1)
            )
            yield Step(REPLICA, f"{server.user}@{host} has the settings' password", (anew,),
                       runs_on(admin))  # fmt: skip
    name = name or grants.account(server.user, hosts[0] if hosts else "%")
    held = _grants(admin, name) if there else {}
    lacking = [p for p in needed if not holds_all(held, [p], server.db)]
    given = tuple(map(Statement, grants.grant_statements(name, server.db, lacking)))
    yield Step(REPLICA, f"{server.user} may do what both legs do", given, runs_on(admin))


def _logged_in(server: MySQLServer) -> str | None:
    """The account that the settings lead to, quoted; None where they lead to none."""
    try:
        connection = connect_mysql(server)
    except ConfigError:
        return None
    try:
        user, _, host = str(fetch(connection, "SELECT CURRENT_USER()")[0][0]).rpartition("@")
        return grants.account(user, host)
    finally:
        connection.close()


def _grants(admin: Any, name: str) -> dict[str, frozenset[str]]:
    with admin.cursor() as cursor:
        cursor.execute(f"SHOW GRANTS FOR {name}")
        return parse_grants(str(row[0]) for row in cursor.fetchall())


def holds_all(
    held: Mapping[str, frozenset[str]], needed: Iterable[grants.Privilege], database: str
) -> bool:
    """Are all these privileges among those that are held, by scope? Pure."""
    there = [scope for scope in held if MySQLFacts.names(scope) == database]
    return all(
        any(
            held.get(scope, frozenset()) & {privilege.word, "ALL PRIVILEGES"}
            for scope in ["*.*", *([] if privilege.everywhere else there)]
        )
        for privilege in needed
    )


def _database(admin: Any, server: MySQLServer) -> Step:
    there = fetch(
        admin, "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", [server.db]
    )
    make = () if there else (Statement(f"CREATE DATABASE {quote(server.db)};"),)
    return Step(REPLICA, f"database {server.db}", make, runs_on(admin))


def _tables(admin: Any, server: MySQLServer) -> Iterator[Step]:
    rows = fetch(
        admin,
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s",
        [server.db],
    )
    there = {str(name) for (name,) in rows}
    for definition in tracking.DEFINITIONS:
        name = definition.split("EXISTS ")[1].split(" ")[0]
        full = definition.replace(f"EXISTS {name}", f"EXISTS {quote(server.db)}.{name}", 1) + ";"
        missing = () if name in there else (Statement(full),)
        yield Step(REPLICA, f"tracking table {name}", missing, runs_on(admin))


def reached(server: MySQLServer, user: str, password: str, socket: str | None) -> Any:
    """An administrator's connection; a ConfigError that names what was given for the occasion."""
    chosen = server.model_copy(update={"user": user, "password": type(server.password)(password)})
    options: dict[str, Any] = {"unix_socket": socket} if socket else {}
    try:
        return connect_mysql(chosen, **options)
    except ConfigError as error:
        raise ConfigError(
            str(error),
            "Check --replica-admin and its password (MYSQL_REPLICATION_ADMIN_PASSWORD, or"
            " --replica-admin-password-file), or give --replica-socket and run it as root.",
        ) from None
    except ReplicatorError as error:
        raise ConfigError(
            str(error), "Start the replica's server first: systemctl start mariadb@replica"
        ) from None

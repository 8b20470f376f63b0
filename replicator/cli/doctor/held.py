"""What an account may do: its own privileges, those of its roles, and those of everybody.

Left: what SHOW GRANTS says, in either family's words. Right: privileges by scope. What is active
when the account logs in is what the pipeline has, for it never says SET ROLE; what any of its
roles gives is what the account might do, and too many of these are as bad.

MySQL adds the privileges of active roles to the account's own; MariaDB tells each role's grants
in lines of their own, those of PUBLIC among them. A role that is not active by default shows as
granted, and what it gives is asked for. Sources: the manuals' pages on SHOW GRANTS and on roles.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pymysql

from config.connections import quote_mysql_identifier as quote
from replicator.tracking import execute, fetch

Grants = Mapping[str, frozenset[str]]
"""Scope as the server writes it, such as *.*: the privileges held on it, upper case."""

_GRANT = re.compile(
    r"^GRANT (?P<words>.+?) ON (?P<scope>\S+|`.*`\.\S+) TO (?P<whom>.*)", re.IGNORECASE
)
_COLUMNS = re.compile(r"\([^)]*\)")
_NAME = r"`(?:[^`]|``)+`(?:@`[^`]*`)?"
_ROLES = re.compile(rf"^GRANT (?P<roles>{_NAME}(?:, ?{_NAME})*) TO ", re.IGNORECASE)
_PUBLIC = "PUBLIC"


@dataclass(frozen=True, slots=True)
class Held:
    """See the module."""

    active: Grants
    by_roles: Grants = field(default_factory=dict)
    """What the account may do when it says SET ROLE; of what is active, some or all."""
    by_public: Grants = field(default_factory=dict)
    """What everybody may do; among `active`."""
    roles: tuple[str, ...] = ()
    """Granted to the account itself, quoted."""

    def all(self) -> Grants:
        """What is active, and what might be."""
        return united(self.active, self.by_roles)


def read_held(connection: Any, *, mariadb: bool) -> Held:
    """Of the account that has connected."""
    active = _shown(connection, "SHOW GRANTS")
    own = _shown(connection, "SHOW GRANTS FOR CURRENT_USER()")
    roles = tuple(name for line in own for name in roles_in(line))
    given: list[str] = []
    if roles and mariadb:
        given = _tried(connection, roles)
    elif roles:
        given = _shown(connection, f"SHOW GRANTS FOR CURRENT_USER() USING {', '.join(roles)}")
    everybodys = [line for line in active if (m := _GRANT.match(line)) and m["whom"] == _PUBLIC]
    return Held(parse_grants(active), parse_grants(given), parse_grants(everybodys), roles)


def _tried(connection: Any, roles: Iterable[str]) -> list[str]:
    """MariaDB tells what a role gives to those alone in whose session it is active."""
    given: list[str] = []
    (active,) = fetch(connection, "SELECT CURRENT_ROLE()")[0]
    with suppress(pymysql.MySQLError):
        for role in roles:
            execute(connection, f"SET ROLE {role}")
            given += _shown(connection, "SHOW GRANTS FOR CURRENT_ROLE")
    execute(connection, f"SET ROLE {quote(str(active)) if active else 'NONE'}")
    return given


def _shown(connection: Any, query: str) -> list[str]:
    """What it answers; nothing where it will not tell."""
    with suppress(pymysql.MySQLError):
        return [str(row[0]) for row in fetch(connection, query)]
    return []


def parse_grants(lines: Iterable[str]) -> dict[str, frozenset[str]]:
    """SHOW GRANTS as scope → privileges; grants on columns count for their table. Pure."""
    found: dict[str, frozenset[str]] = {}
    for line in lines:
        match = _GRANT.match(line)
        if match:
            words = _COLUMNS.sub("", match["words"]).upper().split(",")
            words += ["GRANT OPTION"] if line.endswith("WITH GRANT OPTION") else []
            scope = match["scope"]
            found[scope] = found.get(scope, frozenset()) | {word.strip() for word in words}
    return found


def roles_in(line: str) -> list[str]:
    """The roles that a line of SHOW GRANTS grants, quoted as they stand there. Pure."""
    match = _ROLES.match(line)
    return re.findall(_NAME, match["roles"]) if match else []


def united(*held: Grants) -> dict[str, frozenset[str]]:
    """What any of them holds. Pure."""
    scopes = {scope for each in held for scope in each}
    none: frozenset[str] = frozenset()
    return {scope: none.union(*(each.get(scope, none) for each in held)) for scope in scopes}

"""Checks that source and replica have in common. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from replicator.cli.doctor.facts import MySQLFacts
from replicator.cli.doctor.finding import Finding, Mend, fail, ok, warn
from replicator.cli.doctor.held import Grants
from replicator.grants import Privilege, grant_statements, reset_statements
from replicator.source import Identity

SKEW_SECONDS: Final = 2.0
DAY: Final = 86_400
_LOOPBACK = ("127.", "::1", "localhost", "/")
_OF_SUPER = frozenset({"BINLOG MONITOR", "BINLOG ADMIN", "BINLOG REPLAY", "REPLICATION CLIENT"}) | {
    "BINLOG_ADMIN",
    "SESSION_VARIABLES_ADMIN",
}
_SPARE = 1.2
"""So many times what is needed shall be free."""
_HARMLESS = frozenset({"USAGE", "SHOW DATABASES", "SHOW VIEW"})
_MODERN_EXPIRY = {True: 100601, False: 80000}
"""From which version binlogs expire by seconds, on MariaDB and not."""


def value_in_my_cnf(
    server: str, facts: MySQLFacts, name: str, allowed: Sequence[str], line: str, why: str = ""
) -> Finding:
    """A global variable that must have one of some values; `line` sets it for good."""
    found = facts.variable(name)
    if found in allowed:
        return ok(server, name, found)
    needed = " or ".join(allowed) + why
    return fail(server, name, found or "absent", needed, Mend(my_cnf=(line,)))


def set_global(name: str, value: str, *, quoted: bool = False) -> Mend:
    """A variable set now and after a restart."""
    shown = f"'{value}'" if quoted else value
    return Mend(sql=(f"SET GLOBAL {name} = {shown};",), my_cnf=(f"{name}={value}",))


def checksum(server: str, facts: MySQLFacts) -> Finding:
    """Damaged bytes must be noticed."""
    found = facts.variable("binlog_checksum")
    if found in ("", "CRC32"):
        return ok(server, "binlog_checksum", found or "none: the server is too old to have any")
    needed = "CRC32, so that damaged bytes are noticed"
    mend = set_global("binlog_checksum", "CRC32", quoted=True)
    return warn(server, "binlog_checksum", found, needed, mend)


# --- binlogs that are kept -------------------------------------------------------------------


def retention_seconds(facts: MySQLFacts) -> float | None:
    """How long binlogs are kept; None: until somebody purges them."""
    for name, unit in (("binlog_expire_logs_seconds", 1), ("expire_logs_days", DAY)):
        found = facts.variables.get(name, "")
        if found and float(found) > 0:
            return float(found) * unit
    return None


def expiry(identity: Identity, seconds: int) -> Mend:
    """What makes a server keep binlogs so long, now and after a restart."""
    if identity.number >= _MODERN_EXPIRY[identity.mariadb]:
        return set_global("binlog_expire_logs_seconds", str(seconds))
    return set_global("expire_logs_days", str(seconds // DAY))


def growth(server: str, facts: MySQLFacts) -> Iterator[Finding]:
    """Do the binlogs of the whole retention fit on the disk, as they grow now?"""
    check, kept = "binlog growth", retention_seconds(facts)
    if facts.binlog_age_seconds is None or facts.binlog_age_seconds < DAY / 24:
        return  # the oldest is younger than an hour: nothing can be told from it
    daily = facts.binlog_bytes / facts.binlog_age_seconds * DAY
    told = f"{daily:,.0f} bytes a day"
    if kept is None or facts.disk_free_bytes is None:
        unseen = "; the disk's free space cannot be seen from here" if kept else ""
        yield ok(server, check, told + unseen)
        return
    ahead = daily * max(0.0, kept - facts.binlog_age_seconds) / DAY
    told += f", {ahead:,.0f} more until the oldest go, {facts.disk_free_bytes:,} free"
    if ahead * _SPARE <= facts.disk_free_bytes:
        yield ok(server, check, told)
        return
    fitting = max(3600, int(facts.disk_free_bytes / _SPARE / daily * DAY))
    yield warn(
        server,
        check,
        told,
        "room for the binlogs of the whole retention",
        Mend(
            "Give that disk more room, or keep binlogs for a shorter time:",
            sql=expiry(facts.identity, fitting).sql,
            my_cnf=expiry(facts.identity, fitting).my_cnf,
        ),
    )


def room(server: str, check: str, needed: int, free: int | None, look: str = "df -h") -> Finding:
    """Is there room for `needed` bytes more? `look`: what tells it on the server's own machine."""
    if not needed:
        return ok(server, check, "nothing is left to be copied")
    told = f"{needed:,} bytes are needed"
    if free is None:
        return warn(
            server,
            check,
            f"{told}; not visible: how much is free where that server has its data",
            f"{needed * _SPARE:,.0f} bytes free there",
            f"Look on its machine: {look}. This line is gone when all is copied.",
        )
    told += f", {free:,} free"
    if needed * _SPARE <= free:
        return ok(server, check, told)
    return fail(
        server,
        check,
        told,
        f"{needed * _SPARE:,.0f} bytes",
        "Give that disk more room, or exclude tables in tables.toml.",
    )


# --- privileges ------------------------------------------------------------------------------


def privileges(
    server: str, facts: MySQLFacts, needed: Sequence[Privilege], database: str
) -> Iterator[Finding]:
    """What the account lacks, each by itself, with what cannot be done without it."""
    for privilege in needed:
        check = f"privilege {privilege.word}"
        where = None if privilege.everywhere else database
        if facts.holds(privilege.word, where) or (
            privilege.everywhere and facts.holds("SUPER") and _part_of_super(privilege, facts)
        ):
            yield ok(server, check, "granted")
            continue
        (grant,) = grant_statements(facts.account, database, [privilege])
        dormant = facts.might_hold(privilege.word, where)
        yield fail(
            server,
            check,
            ("only by a role that is not active at login" if dormant else "not granted")
            + f": cannot {privilege.why}",
            f"granted on {'*.*' if privilege.everywhere else database}",
            Mend(sql=(grant,)),
        )


def _part_of_super(privilege: Privilege, facts: MySQLFacts) -> bool:
    """SUPER stands for what was split off it, on the servers that still have it whole."""
    alone = facts.identity.mariadb and facts.identity.number >= 101100  # SUPER is only itself
    return privilege.word in _OF_SUPER and not alone


def too_many(
    server: str, facts: MySQLFacts, needed: Sequence[Privilege], database: str, *, owns: bool
) -> Finding:
    """What the account may do beyond its needs; `owns`: anything on its own database is fine."""

    def extra(held: Grants) -> dict[str, list[str]]:
        return {
            scope: words
            for scope, has in sorted(held.items())
            if (words := sorted(has - _fine(facts, scope, needed, database, owns=owns)))
        }

    held, everybodys = facts.held, extra(facts.held.by_public)
    own = extra({scope: has - set(everybodys.get(scope, ())) for scope, has in held.all().items()})
    if not own and not everybodys:
        return ok(server, "too many privileges", "none")
    told = [f"{word} ON {scope}" for scope, words in own.items() for word in words]
    told += [
        f"{word} ON {scope} (PUBLIC's)" for scope, words in everybodys.items() for word in words
    ]
    by_roles = f"; of the roles {', '.join(held.roles)}, too" if held.roles else ""
    taken = [f"REVOKE {role} FROM {facts.account};" for role in held.roles]
    reset = [*taken, *reset_statements(facts.account, database, needed)] if own else []
    shut = [f"REVOKE {', '.join(w)} ON {scope} FROM PUBLIC;" for scope, w in everybodys.items()]
    return warn(
        server,
        "too many privileges",
        ", ".join(told) + (by_roles if held.roles else ""),
        "an account that may do what the pipeline does, and no more",
        Mend(
            "What PUBLIC holds is everybody's: see first who else rests on it." if shut else "",
            sql=(*reset, *shut),
        ),
    )


def _fine(
    facts: MySQLFacts, scope: str, needed: Sequence[Privilege], database: str, *, owns: bool
) -> frozenset[str]:
    """What may be held there."""
    there = facts.names(scope) == database
    if there and owns:
        return facts.held.all().get(scope, frozenset())
    wanted = {p.word for p in needed if p.everywhere is (scope == "*.*")}
    return _HARMLESS | wanted if there or scope == "*.*" else _HARMLESS


# --- the way there ---------------------------------------------------------------------------


def clock(server: str, skew: float) -> Finding:
    """Lag is told by two clocks; `skew` in seconds."""
    if abs(skew) <= SKEW_SECONDS:
        return ok(server, "clock", f"{skew:+.1f} s from this machine's")
    return warn(
        server,
        "clock",
        f"{skew:+.1f} s from this machine's",
        f"within {SKEW_SECONDS:.0f} s, or lag reads wrong by as much",
        "Let both machines follow the same time server (timedatectl set-ntp true).",
    )


def transport(
    server: str, *, host: str, mode: str, encrypted: bool, prefix: str, strict: str
) -> Finding:
    """Patient data on its way; `strict` is the SSL_MODE that checks who answers."""
    here = host.startswith(_LOOPBACK)
    if here or (encrypted and mode.startswith("verify")):
        return ok(server, "TLS", f"in use ({mode})" if encrypted else "not needed: same machine")
    told = f"in use, but nobody looks whose certificate it is (SSL_MODE={mode})"
    return warn(
        server,
        "TLS",
        told if encrypted else "the connection is not encrypted",
        "TLS with a verified certificate, since patient data passes",
        Mend(
            "" if encrypted else "Turn TLS on at the server (ssl_cert, ssl_key).",
            settings=(f"{prefix}_SSL_MODE={strict}", f"{prefix}_SSL_CA=/path/to/its/ca.pem"),
        ),
    )


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first of some names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")

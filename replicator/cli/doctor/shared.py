"""Checks that source and replica have in common. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from replicator.cli.doctor.facts import MySQLFacts
from replicator.cli.doctor.finding import Finding, fail, ok, warn

SKEW_SECONDS: Final = 2.0
_DAY = 86_400
_LOOPBACK = ("127.", "::1", "localhost", "/")


def value_in_my_cnf(
    server: str, facts: MySQLFacts, name: str, allowed: Sequence[str], line: str
) -> Finding:
    """A global variable that must have one of some values; `line` sets it for good."""
    found = facts.variable(name)
    if found in allowed:
        return ok(server, name, found)
    return fail(
        server, name, found or "absent", " or ".join(allowed), f"In my.cnf, then restart: {line}"
    )


def retention_seconds(facts: MySQLFacts) -> float | None:
    """How long binlogs are kept; None: until somebody purges them."""
    for name, unit in (("binlog_expire_logs_seconds", 1), ("expire_logs_days", _DAY)):
        found = facts.variables.get(name, "")
        if found and float(found) > 0:
            return float(found) * unit
    return None


def expiry_line(seconds: int) -> str:
    """What makes a server keep binlogs so long, now and after a restart."""
    return (
        f"SET GLOBAL binlog_expire_logs_seconds = {seconds};"
        f" and in my.cnf: binlog_expire_logs_seconds={seconds}"
    )


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


def transport(server: str, *, host: str, encrypted: bool, prefix: str, strict: str) -> Finding:
    """Patient data on its way; `strict` is the SSL_MODE that checks who answers."""
    if encrypted or host.startswith(_LOOPBACK):
        return ok(server, "TLS", "in use" if encrypted else "not needed: same machine")
    return warn(
        server,
        "TLS",
        "the connection is not encrypted",
        "TLS, since patient data passes",
        f"Set {prefix}_SSL_MODE={strict} and {prefix}_SSL_CA to the server's CA"
        " (and turn TLS on at the server).",
    )

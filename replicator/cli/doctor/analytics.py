"""What must hold on the analytics server. Pure.

Left: what was read there, and the settings. Right: findings whose remedies are SQL
for a superuser of that PostgreSQL, or settings of ours.
"""

from __future__ import annotations

from collections.abc import Iterator

from config.settings import Settings
from replicator.cli.doctor.facts import PostgresFacts
from replicator.cli.doctor.finding import Finding, fail, ok, warn
from replicator.cli.doctor.shared import clock, transport

ANALYTICS = "analytics"
_LEAST = 13


def analytics_findings(facts: PostgresFacts, settings: Settings) -> Iterator[Finding]:
    """Everything about the analytics server."""
    server = settings.analytics
    major = facts.version // 10_000
    if major < _LEAST:
        yield fail(
            ANALYTICS, "version", major, f"{_LEAST} or newer", "Upgrade PostgreSQL (pg_upgrade)."
        )
    else:
        yield ok(ANALYTICS, "version", f"PostgreSQL {major}")
    if facts.encoding != "UTF8":
        yield fail(
            ANALYTICS,
            "encoding",
            facts.encoding,
            "UTF8, to hold every character of the source",
            f"CREATE DATABASE \"{server.db}\" ENCODING 'UTF8' TEMPLATE template0;"
            " under a name that is free, and set POSTGRES_ANALYTICS_DB to it.",
        )
    else:
        yield ok(ANALYTICS, "encoding", facts.encoding)
    yield _schema(facts, settings)
    if facts.superuser:
        yield warn(
            ANALYTICS,
            "too many privileges",
            f"{facts.account} is a superuser",
            "an ordinary role",
            f'ALTER ROLE "{facts.account}" NOSUPERUSER;',
        )
    else:
        yield ok(ANALYTICS, "too many privileges", "none: an ordinary role")
    if facts.read_only:
        yield fail(
            ANALYTICS,
            "writable",
            "transactions are read-only",
            "a primary server that takes writes",
            "Point POSTGRES_ANALYTICS_HOST at the primary, or"
            f' ALTER DATABASE "{server.db}" RESET default_transaction_read_only;',
        )
    else:
        yield ok(ANALYTICS, "writable", "yes")
    off = sorted(n for n, value in facts.settings.items() if value == "off")
    if off:
        yield warn(
            ANALYTICS,
            "durability",
            ", ".join(f"{name}=off" for name in off),
            "on, or a power cut may destroy the database",
            "ALTER SYSTEM RESET " + "; ALTER SYSTEM RESET ".join(off) + "; then restart",
        )
    else:
        yield ok(ANALYTICS, "durability", "fsync and full_page_writes are on")
    yield clock(ANALYTICS, facts.skew_seconds)
    yield transport(
        ANALYTICS,
        host=server.host,
        encrypted=facts.encrypted,
        prefix="POSTGRES_ANALYTICS",
        strict="verify-full",
    )


def _schema(facts: PostgresFacts, settings: Settings) -> Finding:
    server = settings.analytics
    check = f"schema {server.schema_name}"
    if facts.may_create_in_schema:
        return ok(ANALYTICS, check, "there, and ours to write")
    if not facts.schema_exists and facts.may_create_schema:
        return ok(ANALYTICS, check, "not there yet: the loader will create it")
    if not facts.schema_exists:
        remedy = f'CREATE SCHEMA "{server.schema_name}" AUTHORIZATION "{facts.account}";'
        return fail(ANALYTICS, check, "not there", "a schema that we may write", remedy)
    return fail(
        ANALYTICS,
        check,
        "there, but not ours to write",
        "a schema that we may write",
        f'ALTER SCHEMA "{server.schema_name}" OWNER TO "{facts.account}";',
    )

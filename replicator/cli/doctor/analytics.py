"""What must hold on the analytics server. Pure.

Left: what was read there, and the settings. Right: findings whose remedies are SQL
for a superuser of that PostgreSQL, or settings of ours.
"""

from __future__ import annotations

from collections.abc import Iterator

from config.settings import PostgresServer, Settings
from replicator.cli.doctor.facts_analytics import PostgresFacts
from replicator.cli.doctor.finding import Finding, Mend, fail, ok, warn
from replicator.cli.doctor.shared import clock, room, transport
from replicator.grants import postgres_database

ANALYTICS = "analytics"
_LEAST = 13


def analytics_findings(
    facts: PostgresFacts, settings: Settings, carried_bytes: int | None = None
) -> Iterator[Finding]:
    """Everything about the analytics server; `carried_bytes`: the source's tables, if known."""
    server = settings.analytics
    yield _version(facts)
    yield _encoding(facts, server)
    yield _schema(facts, settings)
    yield _superuser(facts)
    yield _temporary(facts, server.db)
    yield _writable(facts, server.db)
    yield _durability(facts)
    yield clock(ANALYTICS, facts.skew_seconds)
    yield transport(
        ANALYTICS,
        host=server.host,
        mode=server.ssl_mode,
        encrypted=facts.encrypted,
        prefix="POSTGRES_ANALYTICS",
        strict="verify-full",
    )
    if carried_bytes is not None:
        missing = max(0, carried_bytes - facts.raw_bytes)
        look = "df -h, with what SHOW data_directory says to a superuser"
        yield room(ANALYTICS, "room for the copy", missing, facts.disk_free_bytes, look)


def _version(facts: PostgresFacts) -> Finding:
    major = facts.version // 10_000
    if major >= _LEAST:
        return ok(ANALYTICS, "version", f"PostgreSQL {major}")
    return fail(
        ANALYTICS, "version", major, f"{_LEAST} or newer", "Upgrade PostgreSQL (pg_upgrade)."
    )


def _encoding(facts: PostgresFacts, server: PostgresServer) -> Finding:
    if facts.encoding == "UTF8":
        return ok(ANALYTICS, "encoding", facts.encoding)
    return fail(
        ANALYTICS,
        "encoding",
        facts.encoding,
        "UTF8, to hold every character of the source",
        Mend(
            "Load into another database:",
            sql=tuple(postgres_database(facts.account, f"{server.db}_utf8")),
            settings=(f"POSTGRES_ANALYTICS_DB={server.db}_utf8",),
        ),
    )


def _superuser(facts: PostgresFacts) -> Finding:
    if not facts.superuser:
        return ok(ANALYTICS, "too many privileges", "none: an ordinary role")
    return warn(
        ANALYTICS,
        "too many privileges",
        f"{facts.account} is a superuser",
        "an ordinary role",
        Mend(sql=(f"ALTER ROLE {_name(facts.account)} NOSUPERUSER;",)),
    )


def _writable(facts: PostgresFacts, database: str) -> Finding:
    if not facts.read_only:
        return ok(ANALYTICS, "writable", "yes")
    return fail(
        ANALYTICS,
        "writable",
        "transactions are read-only",
        "a primary server that takes writes",
        Mend(
            "Point POSTGRES_ANALYTICS_HOST at the primary; on a primary:",
            sql=(f"ALTER DATABASE {_name(database)} RESET default_transaction_read_only;",),
        ),
    )


def _durability(facts: PostgresFacts) -> Finding:
    off = sorted(n for n, value in facts.settings.items() if value == "off")
    if not off:
        return ok(ANALYTICS, "durability", "fsync and full_page_writes are on")
    resets = tuple(f"ALTER SYSTEM RESET {name};" for name in off)
    return warn(
        ANALYTICS,
        "durability",
        ", ".join(f"{name}=off" for name in off),
        "on, or a power cut may destroy the database",
        Mend(sql=(*resets, "SELECT pg_reload_conf();")),
    )


def _temporary(facts: PostgresFacts, database: str) -> Finding:
    check = "privilege TEMPORARY"
    if facts.may_make_temporary:
        return ok(ANALYTICS, check, "granted")
    grant = f"GRANT TEMPORARY ON DATABASE {_name(database)} TO {_name(facts.account)};"
    return fail(
        ANALYTICS,
        check,
        "not granted: cannot stage a batch",
        f"granted on {database}",
        Mend(sql=(grant,)),
    )


def _schema(facts: PostgresFacts, settings: Settings) -> Finding:
    server = settings.analytics
    check = f"schema {server.schema_name}"
    if facts.may_create_in_schema:
        return ok(ANALYTICS, check, "there, and ours to write")
    if not facts.schema_exists and facts.may_create_schema:
        return ok(ANALYTICS, check, "not there yet: the loader will create it")
    if not facts.schema_exists:
        grant = f"GRANT CREATE ON DATABASE {_name(server.db)} TO {_name(facts.account)};"
        return fail(
            ANALYTICS,
            check,
            "not there, and not ours to create",
            "a schema that we may write",
            Mend(sql=(grant,)),
        )
    return fail(
        ANALYTICS,
        check,
        "there, but not ours to write",
        "a schema that we may write",
        Mend(sql=(f"ALTER SCHEMA {_name(server.schema_name)} OWNER TO {_name(facts.account)};",)),
    )


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

"""What the doctor reads of the analytics server, as plain values.

Left: a connection of the loader's own account. Right: `PostgresFacts`. Only catalogs are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

from config.connections import PostgresConnection
from replicator.cli.doctor.facts import free_bytes, skew
from replicator.tracking import utc_now


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """The analytics server as the loader's account sees it."""

    version: int
    account: str
    encoding: str
    may_create_schema: bool
    schema_exists: bool
    may_create_in_schema: bool
    superuser: bool
    encrypted: bool
    read_only: bool
    may_make_temporary: bool
    raw_bytes: int
    """What the schema's tables take."""
    skew_seconds: float
    settings: Mapping[str, str] = field(default_factory=dict)
    disk_free_bytes: int | None = None
    """Where the database lies; None where that cannot be seen from here."""


def read_postgres(
    connection: PostgresConnection, schema: str, *, here: bool = False
) -> PostgresFacts:
    """Look at the analytics server; the transaction that this opens is left to the caller.

    `here`: it runs on this machine, where its disk can be looked at.
    """
    moment = utc_now()
    connection.execute("SET client_encoding TO 'UTF8'")  # of SQL_ASCII, names would be bytes
    row = connection.execute(
        "SELECT current_setting('server_version_num')::int, current_user::text,"
        " pg_encoding_to_char(d.encoding), has_database_privilege(d.oid, 'CREATE'),"
        " n.oid IS NOT NULL, COALESCE(has_schema_privilege(n.oid, 'CREATE'), false),"
        " r.rolsuper, COALESCE(s.ssl, false),"
        " current_setting('transaction_read_only') = 'on',"
        " has_database_privilege(d.oid, 'TEMPORARY'),"
        " (SELECT COALESCE(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
        " WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'm')),"
        " clock_timestamp() AT TIME ZONE 'UTC'"
        " FROM pg_database d JOIN pg_roles r ON r.rolname = current_user"
        " LEFT JOIN pg_namespace n ON n.nspname = %s"
        " LEFT JOIN pg_stat_ssl s ON s.pid = pg_backend_pid()"
        " WHERE d.datname = current_database()",
        [schema],
    ).fetchone()
    assert row is not None
    wanted = connection.execute(
        "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes')"
    )
    names = [field.name for field in fields(PostgresFacts)[:11]]
    return PostgresFacts(
        **dict(zip(names, row, strict=False)),
        skew_seconds=skew(row[11], moment),
        settings=dict(wanted.fetchall()),
        disk_free_bytes=_free_of(connection) if here else None,
    )


def _free_of(connection: PostgresConnection) -> int | None:
    """Free bytes where the database's files are, if we may know where that is.

    Everybody is told of a tablespace's place, but of the data directory's only superusers and
    pg_read_all_settings. Whoever may look at the server's process (root may) sees its place.
    """
    row = connection.execute(
        "SELECT pg_tablespace_location(t.oid), pg_has_role('pg_read_all_settings', 'USAGE'),"
        " pg_backend_pid() FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace"
        " WHERE d.datname = current_database()"
    ).fetchone()
    assert row is not None
    place, told, process = row
    if not place and told:
        place = connection.execute("SHOW data_directory").fetchall()[0][0]
    if not place:
        place = _data_directory(Path(f"/proc/{process}/cwd"))
    return free_bytes(place) if place else None


def _data_directory(link: Path) -> str:
    """Where it leads, if that is a data directory: on another machine the process is another."""
    with suppress(OSError):
        place = link.resolve(strict=True)
        if (place / "PG_VERSION").is_file():
            return str(place)
    return ""

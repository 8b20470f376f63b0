"""The verb: an administrator's credentials in, each step told, a script for the source out."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from config.connections import connect_mysql
from config.errors import ConfigError, ReplicatorError
from config.settings import Settings, load_settings
from replicator import grants
from replicator import source as src
from replicator.cli import outcome
from replicator.cli.doctor.held import parse_grants
from replicator.cli.doctor.printed import as_sql, scripts
from replicator.cli.init.analytics import Superuser, analytics_steps
from replicator.cli.init.replica import holds_all, reached, replica_steps
from replicator.cli.init.steps import Step, Told, carried_out
from replicator.cli.outcome import reported
from replicator.grants_analytics import Layout
from replicator.tracking import fetch

Server = Literal["replica", "analytics"]
File = Annotated[Path | None, typer.Option(help="A file that holds its password.")]
_ENV_FILE = Path(".env")


def init(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    only: Annotated[Server | None, typer.Option(help="Only this server.")] = None,
    replica_admin: Annotated[str, typer.Option(help="The replica's administrator.")] = "root",
    replica_admin_password_file: File = None,
    replica_socket: Annotated[
        str | None, typer.Option(help="Its socket, where root comes in without a password.")
    ] = None,
    analytics_admin: Annotated[str, typer.Option(help="PostgreSQL's superuser.")] = "postgres",
    analytics_admin_password_file: File = None,
    analytics_socket: Annotated[
        str | None, typer.Option(help="The directory of its socket, /var/run/postgresql.")
    ] = None,
    dbt_user: Annotated[str, typer.Option(help="The role that dbt will use.")] = "dbt_user",
    dbt_password_file: File = None,
    readers: Annotated[
        str, typer.Option(help="The group of those who may read; one of its own for each clinic.")
    ] = "analytics_readers",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of text.")
    ] = False,
    env_file: Annotated[
        Path, typer.Option(help="Settings to read beside the environment, which wins.")
    ] = _ENV_FILE,
) -> None:
    """Prepare the replica's server and PostgreSQL: accounts, databases, schemas, tracking tables.

    Shows each statement before it runs; what holds already is left as it is, so it may be run
    again at any time, also to set a password that was changed in the settings. The source is
    never written to: what its administrator must run there is printed.

    The administrators' passwords come from files, from MYSQL_REPLICATION_ADMIN_PASSWORD and
    POSTGRES_ANALYTICS_ADMIN_PASSWORD, or from whoever sits at the terminal; they are kept nowhere.
    dbt's (--dbt-password-file, DBT_PASSWORD) may be given later, in psql: \\password dbt_user

    \b
    Examples:
      replicator init --dry-run
      sudo replicator init --replica-socket /run/mysqld-replica/mysqld.sock --only replica
      replicator init --analytics-admin-password-file /root/postgres-password
    """
    with reported("What was done stays; run it again for the rest."):
        settings = load_settings(env_file)
        told: list[Told] = []
        if only != "analytics":
            password = _password(
                replica_admin_password_file,
                "MYSQL_REPLICATION_ADMIN_PASSWORD",
                f"Password of {replica_admin} on the replica (empty for none): ",
                needed=replica_socket is None,
            )
            server = settings.replication
            with closing(reached(server, replica_admin, password, replica_socket)) as admin:
                told += _carry_out(replica_steps(admin, server), dry=dry_run, as_json=as_json)
        if only != "replica":
            password = _password(
                analytics_admin_password_file,
                "POSTGRES_ANALYTICS_ADMIN_PASSWORD",
                f"Password of {analytics_admin} in PostgreSQL: ",
                needed=analytics_socket is None,
            )
            superuser = Superuser(analytics_admin, password, analytics_socket)
            analytics = settings.analytics
            layout = Layout(analytics.db, analytics.schema_name, analytics.user, dbt_user, readers)
            dbt_password = _password(dbt_password_file, "DBT_PASSWORD", "", needed=False) or None
            steps = analytics_steps(superuser, analytics, layout, dbt_password)
            told += _carry_out(steps, dry=dry_run, as_json=as_json)
        _end(settings, told, dry=dry_run, as_json=as_json)


def _password(file: Path | None, variable: str, prompt: str, *, needed: bool) -> str:
    """What was given for the occasion, or is told now; "" where nobody can be asked."""
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(f"{file}: cannot be read: {reason}", "Name another file.") from None
    given = os.environ.get(variable, "")
    if given or not needed or not sys.stdin.isatty():
        return given
    return getpass.getpass(prompt)


def _carry_out(steps: Iterable[Step], *, dry: bool, as_json: bool) -> list[Told]:
    show = _say_nothing if as_json else _show
    return list(carried_out(steps, show, dry=dry))


def _say_nothing(_told: Told) -> None:
    """The document at the end says it."""


def _show(told: Told) -> None:
    word = "ok  " if told.state == "ok" else "do  "
    typer.echo(f"{word} {told.server}: {told.what}")
    for statement in told.statements:
        for line in statement.splitlines():
            typer.echo(f"       {line}")


def _end(settings: Settings, told: list[Told], *, dry: bool, as_json: bool) -> None:
    missing = [one for one in told if one.state == "missing"]
    script = _for_the_source(settings)
    if as_json:
        document = {"steps": [asdict(one) for one in told], "source": script}
        typer.echo(json.dumps(document, indent=2))
    else:
        done = sum(one.state == "done" for one in told)
        words = f"{len(missing)} would be done" if dry else f"{done} done"
        typer.echo(f"{len(told)} steps: {len(told) - done - len(missing)} held already, {words}")
        if script:
            typer.echo("\nThe source is not ours to write to. Its administrator runs there:\n")
            typer.echo(script)
        elif not missing:
            typer.echo("next: replicator check")
    if missing:
        raise typer.Exit(outcome.NO)


def _for_the_source(settings: Settings) -> str:
    """What its administrator must run; "" where the account is there and may do all it must."""
    server = settings.source
    with suppress(ReplicatorError), closing(connect_mysql(server)) as connection:
        held = parse_grants(str(row[0]) for row in fetch(connection, "SHOW GRANTS"))
        locks = settings.replicator.copy_lock == "short"
        needed = grants.source_privileges(src.identify(connection), locks=locks)
        if holds_all(held, needed, server.db):
            return ""
    return as_sql(script for script in scripts(settings) if script.server == "source")

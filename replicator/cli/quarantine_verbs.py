"""`replicator quarantine list|replay|drop`: options in, what `quarantine` found or did out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table as Grid

from config.errors import ConfigError
from config.settings import load_settings
from replicator.cli import outcome
from replicator.cli.observation import Observer
from replicator.cli.outcome import console, exit_codes, reported, say
from replicator.cli.quarantine import (
    Entry,
    counted,
    follow,
    forget,
    read_entries,
    request,
    rows,
)

MOST_SHOWN = 100

quarantine_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Rows that PostgreSQL refused: see them, have them tried again, or forget them.",
)

EnvFile = Annotated[Path, typer.Option(help="Settings to read beside the environment, which wins.")]
TableName = Annotated[str | None, typer.Argument(metavar="[TABLE]", help="Only this table's rows.")]
Keys = Annotated[
    list[str] | None, typer.Option("--key", help="Only the row of this key, as `list` shows it.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Everything = Annotated[bool, typer.Option("--all", help="Every row in quarantine.")]
_ENV_FILE = Path(".env")


@quarantine_app.command("list", epilog=exit_codes("listed", "never"))
def list_command(
    table: TableName = None,
    as_json: Json = False,
    env_file: EnvFile = _ENV_FILE,
) -> None:
    """Show the rows that are missing in raw because PostgreSQL refused them, and why.

    A row stays here until a later version of it is written, it is deleted on the source,
    its table is reloaded, or it is replayed or dropped by hand. Prints keys, never values;
    raw.etl_quarantine has the rows themselves.

    \b
    Examples:
      replicator quarantine list
      replicator quarantine list patient
      replicator quarantine list --json | jq -r '.rows[] | [.table, .shown, .reason] | @tsv'
    """
    with reported(), Observer(load_settings(env_file)) as observer:
        found = read_entries(observer, table)
        if as_json:
            typer.echo(json.dumps({"rows": [one.as_json() for one in found]}, indent=2))
        else:
            _show(found, console())


def _show(found: list[Entry], on: Console) -> None:
    if not found:
        on.print("nothing in quarantine")
        return
    grid = Grid("table", "key", "change", "refused because of", "source", "since", "tries")
    for one in found[:MOST_SHOWN]:
        grid.add_row(
            one.table,
            _shortened(one.shown),
            one.operation,
            _remarks(one),
            one.source_position or "-",
            one.quarantined_at[:19],
            str(one.attempts),
        )
    on.print(grid, markup=False)
    if len(found) > MOST_SHOWN:
        on.print(f"and {len(found) - MOST_SHOWN} more (--json lists them all)")
    on.print(f"in quarantine: {counted(found)}", markup=False, highlight=False)


def _shortened(key: str) -> str:
    return key if len(key) <= 60 else key[:57] + "..."


def _remarks(one: Entry) -> str:
    said = [one.reason]
    if one.copies > 1:
        said.append(f"{one.copies} copies")
    if one.raw_has_old_row:
        said.append("raw still has it" if one.operation == "delete" else "raw has an older version")
    if one.replay_requested:
        said.append("replay requested")
    return "; ".join(said)


@quarantine_app.command(
    "replay",
    epilog=exit_codes("asked for, or written with --wait", "refused again, or not in time"),
)
def replay_command(
    table: TableName = None,
    keys: Keys = None,
    everything: Everything = False,
    wait_for_it: Annotated[
        bool, typer.Option("--wait", help="Return when the loader has tried.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="With --wait: give up after so many seconds.")
    ] = None,
    as_json: Json = False,
    env_file: EnvFile = _ENV_FILE,
) -> None:
    """Have rows in quarantine tried again, when what refused them has been mended.

    The loader does it, between two batches; where it is down, when it next runs. What is
    refused again stays in quarantine, with the reason of this time.

    \b
    Examples:
      replicator quarantine replay patient --wait
      replicator quarantine replay patient --key 17 --key 42
      replicator quarantine replay --all --wait --timeout 60
    """
    with reported():
        _one_of(table, keys, everything)
        with Observer(load_settings(env_file)) as observer:
            found = read_entries(observer, table, keys or ())
            if as_json:
                _replay_as_json(observer, found, timeout if wait_for_it else None, wait_for_it)
                return
            if not found:
                typer.echo("nothing in quarantine")
                return
            request(observer, found)
            typer.echo(f"replay requested: {counted(found)}")
            if not observer.loader_runs():
                typer.echo(
                    "not running: loader; the request stands, and is carried out when it runs"
                )
            if wait_for_it:
                _await(observer, found, timeout)


def _replay_as_json(
    observer: Observer, found: list[Entry], timeout: float | None, wait_for_it: bool
) -> None:
    if found:
        request(observer, found)
    left = found
    if found and wait_for_it:
        *_, left = [found, *follow(observer, found, timeout)]
    told = {"requested": [e.as_json() for e in found], "left": [e.as_json() for e in left]}
    typer.echo(json.dumps({**told, "loader_runs": observer.loader_runs()}, indent=2))
    if wait_for_it and left:
        raise typer.Exit(outcome.NO)


def _await(observer: Observer, asked: list[Entry], timeout: float | None) -> None:
    *_, left = [asked, *follow(observer, asked, timeout)]
    waiting = [one for one in left if one.replay_requested]
    refused = [one for one in left if not one.replay_requested]
    written = sum(one.copies for one in asked) - sum(one.copies for one in left)
    typer.echo(f"written: {rows(max(0, written))}")
    for one in refused[:MOST_SHOWN]:
        say(f"refused again: {one.table} {_shortened(one.shown)}: {one.reason}")
    if waiting:
        say(
            f"not done in time: {counted(waiting)}",
            "It goes on when the loader runs and the table streams; see replicator status.",
        )
    if left:
        raise typer.Exit(outcome.NO)


@quarantine_app.command("drop", epilog=exit_codes("forgotten", "declined"))
def drop_command(
    table: TableName = None,
    keys: Keys = None,
    everything: Everything = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    env_file: EnvFile = _ENV_FILE,
) -> None:
    """Forget rows in quarantine. They stay missing in raw, and nobody says so any more.

    They come back with their next change on the source, or with `replicator resync`.
    `replicator verify` finds them missing.

    \b
    Examples:
      replicator quarantine drop patient --key 17
      replicator quarantine drop --all --yes
    """
    with reported():
        _one_of(table, keys, everything)
        with Observer(load_settings(env_file)) as observer:
            found = read_entries(observer, table, keys or ())
            if not found and not as_json:
                typer.echo("nothing in quarantine")
                return
            if found and not yes:
                _confirm(found)
            dropped = forget(observer, found) if found else 0
            if as_json:
                asked = [entry.as_json() for entry in found]
                typer.echo(json.dumps({"asked": asked, "forgotten": dropped}, indent=2))
                return
            typer.echo(f"forgotten: {dropped} of {len(found)} entries ({counted(found)})")


def _confirm(found: list[Entry]) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(
            f"about to forget {counted(found)}, and there is nobody to ask",
            "Say --yes if that is meant.",
        )
    if not typer.confirm(f"Forget {counted(found)}? They stay missing in raw."):
        raise typer.Exit(outcome.NO)


def _one_of(table: str | None, keys: list[str] | None, everything: bool) -> None:
    if everything == (table is not None):
        raise typer.BadParameter("name a table, or say --all")
    if keys and table is None:
        raise typer.BadParameter("--key needs its table")

"""The wiring of the verbs: options are read here, everything else happens in their modules."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from config.secrecy import run_sealed
from config.settings import Settings, load_settings
from config.tables import load_table_rules
from replicator.cli import control_verbs, outcome
from replicator.cli.dbt_sources import SOURCES_FILE, bring_up_to_date
from replicator.cli.doctor import Verdict, examine, worst
from replicator.cli.doctor.printed import as_sql, scripts
from replicator.cli.doctor_view import show_findings
from replicator.cli.init import init
from replicator.cli.observation import Observer
from replicator.cli.outcome import console, exit_codes, reported, say
from replicator.cli.progress_view import comparing
from replicator.cli.quarantine_verbs import quarantine_app
from replicator.cli.remembered import remember
from replicator.cli.resync import Progress, chosen, daemons_down, follow, known_tables, queue
from replicator.cli.resync_view import show_progress
from replicator.cli.run import run_replicator
from replicator.cli.sandbox import sandbox_app
from replicator.cli.sources_file import summary
from replicator.cli.status import read_status
from replicator.cli.status_view import show_status
from replicator.cli.verify import Options, verify
from replicator.cli.verify_repair import verify_and_mend
from replicator.cli.verify_view import show_report
from replicator.cli.wait import wait
from replicator.resync_requests import RequestState

app = typer.Typer(
    name="replicator",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Leg 1 of the pipeline, and the verbs that look after both legs.",
)
app.add_typer(sandbox_app, name="sandbox")
app.add_typer(quarantine_app, name="quarantine")
app.command("init", epilog=exit_codes("prepared", "--dry-run: something would be done"))(init)

EnvFile = Annotated[Path, typer.Option(help="Settings to read beside the environment, which wins.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
EveryTable = Annotated[bool, typer.Option("--tables", help="Show every table.")]
Timeout = Annotated[float, typer.Option(min=0, help="Give up after so many seconds.")]
_ENV_FILE = Path(".env")


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2))


@app.command(epilog=exit_codes("asked to stop", "never"))
def run(env_file: EnvFile = _ENV_FILE) -> None:
    """Follow the source's binlog and keep the replica exact, until told to stop.

    The first start creates the replica's database and copies every table. SIGTERM and
    SIGINT end it in good order; killed, it goes on where it was. What it cannot mend
    by waiting ends it with a message that says what to do.

    \b
    Examples:
      replicator run
      replicator run --env-file /etc/opendental-replicator/environment
    """
    with reported():
        run_replicator(env_file)


@app.command(epilog=exit_codes("queued, or done with --wait", "failed, or not done in time"))
def resync(
    tables: Annotated[list[str] | None, typer.Argument(help="Tables to reload in full.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Reload every carried table.")] = False,
    wait_for_it: Annotated[
        bool, typer.Option("--wait", help="Return when the tables are renewed in raw.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="With --wait: give up after so many seconds.")
    ] = None,
    as_json: Json = False,
    env_file: EnvFile = _ENV_FILE,
) -> None:
    """Reload tables through both legs, while everything else streams on.

    Readers of raw see the old rows until the new ones are all there. A request is
    stored on the replica: where the daemons are down, it is carried out when they run.

    \b
    Examples:
      replicator resync patient
      replicator resync patient appointment --wait --timeout 600
      replicator resync --all
    """
    with reported("What was asked for goes on in the daemons; replicator status shows how."):
        if everything == bool(tables):
            raise typer.BadParameter("name tables, or say --all")
        settings = load_settings(env_file)
        names = None if everything else list(tables or ())
        _resync(settings, names, wait_for_it, timeout, as_json=as_json)


def _resync(
    settings: Settings,
    names: list[str] | None,
    wait_for_it: bool,
    timeout: float | None,
    *,
    as_json: bool,
) -> None:
    with Observer(settings) as observer:
        known = known_tables(observer, load_table_rules(settings.tables_file))
        wanted = sorted(known) if names is None else chosen(names, known)
        numbers = queue(observer, wanted)
        down = daemons_down(observer)
        if as_json:
            last = [*follow(observer, numbers, timeout if wait_for_it else 0)][-1:]
            requests = [asdict(request) for request in (last[0] if last else [])]
            _print_json({"requests": requests, "not_running": down})
            if wait_for_it and {r["state"] for r in requests} != {RequestState.DONE}:
                raise typer.Exit(outcome.NO)
            return
        shown = ", ".join(wanted) if len(wanted) <= 10 else f"{len(wanted)} tables"
        typer.echo(f"resync requested: {shown}")
        if down:
            typer.echo(
                f"not running: {', '.join(down)}; the request is queued, and is carried out"
                " when both daemons run"
            )
        if not wait_for_it:
            return
        last_stage = show_progress(follow(observer, numbers, timeout), console())
    _judge(last_stage)


def _judge(last: list[Progress]) -> None:
    """Exit with 1 unless all were done."""
    failed = [request for request in last if request.state == RequestState.FAILED]
    for request in failed:
        say(f"resync of {request.table} failed: {request.message or 'see the log'}")
    open_ones = [request.table for request in last if not request.ended]
    if open_ones:
        say(f"not done in time: {', '.join(open_ones)}", "It goes on; replicator status shows how.")
    if failed or open_ones or not last:
        raise typer.Exit(outcome.NO)


@app.command(epilog=exit_codes("nothing fails", "something fails, or with --strict warns"))
def check(
    as_json: Json = False,
    grants: Annotated[
        bool, typer.Option("--grants", help="Print the accounts' SQL instead, to be pasted.")
    ] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 1 for a warning, too.")] = False,
    env_file: EnvFile = _ENV_FILE,
) -> None:
    """Look at everything that the pipeline rests on, and say how to mend what does not hold.

    Settings, privileges and versions of the three servers, as the pipeline's own accounts
    see them, and this installation. Each line tells what was found; below a warning or a
    failure stands what is needed and the lines that mend it. Nothing is changed.

    --grants prints SQL that makes the three accounts of the settings, each with what it
    needs and no more, in the words of the servers that answer. It prints no password.

    \b
    Examples:
      replicator check
      replicator check --json | jq '.findings[] | select(.verdict != "ok")'
      replicator check --grants
    """
    with reported():
        settings = load_settings(env_file)
        if grants:
            _print_grants(settings, as_json=as_json)
            return
        findings = list(examine(settings, load_table_rules(settings.tables_file)))
        verdict = worst(findings)
        if as_json:
            _print_json({"verdict": verdict, "findings": [asdict(f) for f in findings]})
        else:
            show_findings(findings, console())
        if verdict is Verdict.FAIL or (strict and verdict is Verdict.WARN):
            raise typer.Exit(outcome.NO)


def _print_grants(settings: Settings, *, as_json: bool) -> None:
    found = list(scripts(settings))
    if as_json:
        _print_json({"grants": [asdict(script) for script in found]})
    else:
        typer.echo(as_sql(found))


@app.command(
    epilog=exit_codes(
        "both daemons run and all servers answer", "a daemon is down or a server out of reach"
    )
)
def status(
    tables: EveryTable = False, as_json: Json = False, env_file: EnvFile = _ENV_FILE
) -> None:
    """Show where both legs stand: positions, lag, throughput, tables, resyncs.

    Of the tables, those that do not stream in both legs and those whose schema changed last.

    Lag in seconds is the age of the newest source commit that a leg has written, 0 when
    it has written all there is. Throughput is what the daemons counted during one second.

    \b
    Examples:
      replicator status
      replicator status --tables
      replicator status --json | jq .loader.lag_seconds
    """
    with reported(), Observer(load_settings(env_file)) as observer:
        found = read_status(observer)
        if as_json:
            _print_json(found.as_json())
        else:
            show_status(found, console(), every_table=tables)
        if not found.healthy:
            raise typer.Exit(outcome.NO)


@app.command("wait", epilog=exit_codes("visible in raw", "not in time"))
def wait_command(
    timeout: Timeout = 60.0, as_json: Json = False, env_file: EnvFile = _ENV_FILE
) -> None:
    """Return when what is committed on the source now is visible in raw.

    \b
    Examples:
      replicator wait && dbt run
      replicator wait --timeout 300
    """
    with reported(), Observer(load_settings(env_file)) as observer:
        arrival = wait(observer, timeout)
        if as_json:
            _print_json(
                {
                    "arrived": arrival.arrived,
                    "source_position": str(arrival.wanted),
                    "raw_position": str(arrival.raw) if arrival.raw else None,
                    "seconds": round(arrival.seconds, 3),
                    "unsettled": list(arrival.unsettled),
                    "missing": list(arrival.missing),
                }
            )
        elif arrival.arrived:
            typer.echo(f"raw shows the source at {arrival.wanted} ({arrival.seconds:.2f} s)")
        if not arrival.arrived:
            for reason in () if as_json else arrival.missing:
                say(reason)
            if not as_json:
                say(f"raw does not show {arrival.wanted} after {arrival.seconds:.1f} s")
            raise typer.Exit(outcome.NO)


@app.command("verify", epilog=exit_codes("everything is the same", "something differs"))
def verify_command(
    tables: Annotated[
        list[str] | None, typer.Argument(help="Tables to compare; all where none is named.")
    ] = None,
    as_json: Json = False,
    chunk_rows: Annotated[int, typer.Option(min=1, help="Rows to compare at a time.")] = 10_000,
    timeout: Annotated[
        float,
        typer.Option(min=1, help="Seconds to wait for a leg, and for rows that keep changing."),
    ] = 60.0,
    strict: Annotated[
        bool, typer.Option(help="Count rows that changed at every look as differing.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Have the daemons mend the rows that differ.")
    ] = False,
    env_file: EnvFile = _ENV_FILE,
) -> None:
    """Compare source, replica and raw row by row, while everything streams on.

    Each part is compared at one position: the replica is read when it has passed what
    the source was read at, raw when it has passed the replica's snapshot. What differs
    is looked at again before it is called a difference. Prints keys, never values.

    With --repair the running daemons are asked to mend the rows that differ, by key, at
    one place of the stream each; what has no usable key is reloaded as a whole, and that
    is said. Then it is compared again, and the last comparison is what is printed.

    \b
    Examples:
      replicator verify
      replicator verify --repair patient
      replicator verify patient appointment
      replicator verify --json --chunk-rows 50000
    """
    kept = "What was asked to be mended will be." if repair else "It only reads."
    with reported(f"{kept} Run it again to compare."):
        settings = load_settings(env_file)
        rules = load_table_rules(settings.tables_file)
        look = verify_and_mend if repair else verify
        with comparing(Console(stderr=True)) as progress:
            report = look(settings, rules, tables or (), Options(chunk_rows, timeout), progress)
        if not tables:
            remember(settings, report)
        if as_json:
            _print_json(report.as_json(strict=strict))
        else:
            show_report(report, console(), strict=strict)
        if not report.exact(strict=strict):
            raise typer.Exit(outcome.NO)


@app.command("dbt-sources", epilog=exit_codes("up to date, or written", "--check: it is stale"))
def dbt_sources_command(
    file: Annotated[Path, typer.Option(help="The sources.yml to write.")] = SOURCES_FILE,
    check_only: Annotated[
        bool, typer.Option("--check", help="Write nothing; say whether it is stale.")
    ] = False,
    as_json: Json = False,
    env_file: EnvFile = _ENV_FILE,
) -> None:
    """Bring dbt's sources.yml in line with the tables and columns that raw really has.

    Tables stand in the order of their names, columns in the source's order. Descriptions,
    tests, freshness and comments that people wrote are kept. What is not carried any more
    goes, unless a model of the project reads it: then it is marked `carried: false`.

    \b
    Examples:
      replicator dbt-sources
      replicator dbt-sources --check
      replicator dbt-sources --file analytics/models/sources.yml --json
    """
    with reported(), Observer(load_settings(env_file)) as observer:
        found = bring_up_to_date(observer, file, look_only=check_only)
        if as_json:
            _print_json(found.as_json())
        elif found.stale:
            told = summary(found.changes)
            say(f"{file} is stale: {told}. Bring it up to date: replicator dbt-sources")
        else:
            told = f"written: {summary(found.changes)}" if found.written else "up to date"
            typer.echo(f"{file}: {found.tables} tables, {found.columns} columns; {told}")
        if found.stale:
            raise typer.Exit(outcome.NO)


control_verbs.add_to(app)


def main() -> None:
    """Entry point of the `replicator` console script."""
    run_sealed(app, "replicator")

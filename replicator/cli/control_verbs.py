"""`replicator pause`, `resume`, `throttle`, and why there is no `skip`: options in, requests out.

What is asked for is written to the replica (`config.control`), where both daemons look twice a
second, now or when they next run. These verbs then watch that it is heeded.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError

from config import control
from config.errors import ConfigError, ReplicatorError, translated
from config.settings import Settings, load_settings
from replicator.cli import outcome
from replicator.cli.observation import Observer
from replicator.cli.outcome import exit_codes, reported, say

EnvFile = Annotated[Path, typer.Option(help="Settings to read beside the environment, which wins.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Leg = Literal["replicator", "loader"]
ChosenLeg = Annotated[Leg | None, typer.Option(help="Only this one; both by default.")]
Timeout = Annotated[float, typer.Option(min=0, help="Wait at most so many seconds for it.")]
_ENV_FILE = Path(".env")
_POLL_SECONDS: Final = 0.1
LEAST_RATE: Final = 1024
_SIZE: TypeAdapter[ByteSize] = TypeAdapter(ByteSize)


def add_to(app: typer.Typer) -> None:
    """Make them verbs of `app`."""
    app.command("pause", epilog=exit_codes("at rest", "asked for, but not at rest in time"))(pause)
    app.command("resume", epilog=exit_codes("at work", "asked for, but not at work in time"))(
        resume
    )
    app.command("throttle", epilog=exit_codes("shown, or asked for", "never"))(throttle)
    app.command(
        "skip",
        hidden=True,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(skip)


def pause(
    leg: ChosenLeg = None,
    timeout: Timeout = 15.0,
    as_json: Json = False,
    env_file: EnvFile = _ENV_FILE,
) -> None:
    """Stop the flow and keep every position, until `replicator resume`.

    Within a second each daemon ends what it is about, closes its connections (the source
    is left alone) and stays up, idle. It stays paused when it is started again. Nothing is
    lost for as long as the source keeps its binlog: replicator_purge_seconds tells how long.

    \b
    Examples:
      replicator pause
      replicator pause --leg loader
    """
    with reported("What was asked for stands; see replicator status."):
        _ask(load_settings(env_file), _legs(leg), timeout, working=False, as_json=as_json)


def resume(
    leg: ChosenLeg = None,
    timeout: Timeout = 15.0,
    as_json: Json = False,
    env_file: EnvFile = _ENV_FILE,
) -> None:
    """Let the daemons go on where `replicator pause` stopped them.

    \b
    Examples:
      replicator resume
      replicator resume --leg loader && replicator wait
    """
    with reported("What was asked for stands; see replicator status."):
        _ask(load_settings(env_file), _legs(leg), timeout, working=True, as_json=as_json)


def _legs(chosen: Leg | None) -> tuple[Leg, ...]:
    return control.LEGS if chosen is None else (chosen,)


def _ask(
    settings: Settings, legs: Sequence[Leg], timeout: float, *, working: bool, as_json: bool
) -> None:
    with Observer(settings) as observer:
        connection = _tracked(observer)
        with translated(settings.replication.label):
            (control.ask_resume if working else control.ask_pause)(connection, legs)
        deadline = time.monotonic() + timeout
        found = {leg: _state(observer, leg, deadline, working=working) for leg in legs}
    if as_json:
        typer.echo(json.dumps({"paused": not working, "legs": found}, indent=2))
    else:
        for leg, state in found.items():
            _tell(leg, state, working=working)
    if any(state["working"] is not working for state in found.values()):
        raise typer.Exit(outcome.NO)


def _tracked(observer: Observer) -> Any:
    """A connection to the replica's database; a ConfigError where there is none yet."""
    if not observer.has_tracking():
        raise ConfigError(
            f"the replica has no {observer.settings.replication.db} with tracking tables yet",
            "Run replicator init, or start replicator run once.",
        )
    return observer.replica


def _state(observer: Observer, leg: Leg, deadline: float, *, working: bool) -> dict[str, Any]:
    """What the leg does when it does what it should, or the time is up."""
    looks: dict[Leg, tuple[Callable[[], bool], Callable[[], object]]] = {
        "replicator": (observer.replicator_runs, lambda: _position(observer.replica_offset())),
        "loader": (observer.loader_runs, lambda: _position(observer.raw_offset())),
    }
    runs, position = looks[leg]
    try:
        while runs() is not working and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return {"working": runs(), "source_position": position(), "unknown": None}
    except ReplicatorError as error:
        return {"working": None, "source_position": None, "unknown": str(error)}


def _position(offset: Any) -> str | None:
    source = getattr(offset, "position", None) or getattr(offset, "source", None)
    return str(source) if source else None


def _tell(leg: Leg, state: dict[str, Any], *, working: bool) -> None:
    at = state["source_position"] or "the beginning"
    if state["unknown"]:
        say(f"{leg}: asked for; whether it heeds it cannot be told: {state['unknown']}")
    elif state["working"] is working:
        typer.echo(f"{leg}: {'at work' if working else 'paused'}, at {at}")
    elif working:
        say(
            f"{leg}: it may work, but does not",
            f"systemctl status {leg} says why; where it is down: systemctl start {leg}",
        )
    else:
        say(
            f"{leg}: asked to pause, and still ends what it is about",
            "replicator status shows when it rests.",
        )


def throttle(
    rate: Annotated[
        str | None,
        typer.Argument(metavar="[RATE|off|default]", help="2MB, 500KiB, … for each second."),
    ] = None,
    as_json: Json = False,
    env_file: EnvFile = _ENV_FILE,
) -> None:
    """Bound what copies read on the source, in bytes a second; also while one is under way.

    It holds for the first copy and for resyncs, all their connections together, and not for
    the stream of changes. `off` lets them read as fast as they can, `default` as fast as
    REPLICATOR_COPY_BYTES_PER_SECOND says. Without a word it is only shown.

    \b
    Examples:
      replicator throttle 2MB
      replicator throttle off
      replicator throttle default
    """
    with reported(), Observer(load_settings(env_file)) as observer:
        settings = observer.settings
        wanted = None if rate is None else parse_rate(rate)
        connection = _tracked(observer)
        with translated(settings.replication.label):
            if rate is not None:
                control.ask_copy_rate(connection, wanted)
            asked = control.read_asked(connection, settings.replication.db).copy_rate
        configured = settings.replicator.copy_bytes_per_second
        holds = configured if asked is None else asked
        if as_json:
            told = {"bytes_per_second": holds, "asked": asked, "configured": configured}
            typer.echo(json.dumps(told, indent=2))
            return
        origin = "as the settings say" if asked is None else "by replicator throttle"
        typer.echo(f"copies read {rate_in_words(holds)} ({origin})")


def parse_rate(text: str) -> int | None:
    """Bytes a second; 0 for `off`, None for `default`. Pure."""
    word = text.strip().lower()
    if word in ("off", "default"):
        return 0 if word == "off" else None
    try:
        size = re.fullmatch(r"(\d+(?:\.\d+)? ?[a-z]*)(?:/s)?", word)
        rate = int(_SIZE.validate_python(size[1] if size else ""))
    except ValidationError:
        raise typer.BadParameter(f"{text} is no rate: say 2MB, 500KiB, off or default") from None
    if rate < LEAST_RATE:
        raise typer.BadParameter(f"{text} is {rate} bytes a second: {LEAST_RATE} at least, or off")
    return rate


def rate_in_words(rate: int) -> str:
    """A rate for people; 0 is no ceiling. Pure."""
    return f"at most {rate:,} bytes a second" if rate else "as fast as they can"


def skip(context: typer.Context) -> None:
    """There is none: see docs/operations.md."""
    del context
    with reported():
        typer.echo(
            "replicator: there is no skip: a change left out makes later ones wrong unseen; mend"
            " what the halt names, or reload the table: replicator resync TABLE"
            " (docs/operations.md tells more)",
            err=True,
        )
        raise typer.Exit(outcome.UNABLE)

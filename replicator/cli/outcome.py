"""How a verb ends: one message and one exit code, whatever happened inside.

Left: our own errors, drivers' errors, Ctrl-C. Right: standard error and the exit
code. Nothing is shown but what our own errors say: no traceback, no row, no secret.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import pymysql
import typer
from rich.console import Console

from config.errors import EXIT_HALT, ReplicatorError, classify
from config.logs import safe_message

OK: Final = 0
NO: Final = 1
"""The question was answered, and the answer is no: different, too late, down, failed."""
UNABLE: Final = EXIT_HALT
"""The question could not be asked: a setting, a name, a grant, a server out of reach."""
INTERRUPTED: Final = 130
READER_GONE: Final = 141
"""Whoever read what we print has gone (`… | head`): what a shell says of SIGPIPE."""

EXIT_CODES: Final = (
    "Exit codes: 0 {ok}; 1 {no}; 2 a setting, name or server must be mended first;"
    " 130 interrupted by Ctrl-C."
)


def exit_codes(ok: str, no: str) -> str:
    """The line about exit codes that ends every verb's help."""
    return EXIT_CODES.format(ok=ok, no=no)


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for whoever reads a file."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=200)


def say(message: str, hint: str = "") -> None:
    """Tell the operator, on standard error, what happened and what to do."""
    typer.echo(f"replicator: {message}", err=True)
    if hint:
        typer.echo(f"  {hint}", err=True)


@contextmanager
def reported(interrupted: str = "Nothing was changed; run it again.") -> Iterator[None]:
    """Turn whatever is raised inside into a message and an exit code.

    `interrupted` tells whoever pressed Ctrl-C how things stand, and what goes on from there.
    """
    try:
        yield
    except ReplicatorError as error:
        say(str(error), error.hint)
        raise typer.Exit(UNABLE) from None
    except (pymysql.MySQLError, psycopg.Error) as error:
        known = classify(error, server="a server")
        say(str(known), known.hint)
        raise typer.Exit(UNABLE) from None
    except KeyboardInterrupt:
        say("interrupted", interrupted)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        raise typer.Exit(READER_GONE) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
        say(f"unexpected {safe_message(error)} at {place}", "Please report it.")
        raise typer.Exit(UNABLE) from None

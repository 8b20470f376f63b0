"""The `replicator` program: verbs and options in, an exit code out.

This package is the command-line floor: it may see both legs, because here they
are started, watched and compared. Each verb has a module of its own; `app` holds
the typer wiring and nothing else.
"""

from replicator.cli.app import app, main

__all__ = ["app", "main"]

"""`replicator init`: what the pipeline needs on its own two servers, made where it is missing.

Left: settings, and an administrator's credentials for the occasion, which are kept nowhere. Right:
`Step`s, each of which holds already or is a few statements, shown before they run. Nothing is
undone or dropped, so a second run finds nothing to do, and one that broke off is simply repeated.
The source is not touched: what its administrator must run there is printed.
"""

from replicator.cli.init.verb import init

__all__ = ["init"]

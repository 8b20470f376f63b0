"""`python -m replicator.cli`: the program where no console script is installed."""

from replicator.cli.app import main

main()

"""What both processes share: settings, connections, table rules, errors, logs, metrics.

Nothing here imports `replicator` or `loader`; both import from here.
"""

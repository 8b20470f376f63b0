"""Both legs in one process, for scripts and notebooks: `ELTPipeline`.

Left: settings, by default from the environment. Right: engines for all three
databases, and the phases as methods that return when their work is done. The
daemons do the same work for good; only one of a leg can run at a time, whoever
runs it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from sqlalchemy import Engine

from config.connections import ConnectionFactory
from config.daemon import Leg, run
from config.errors import ConfigError, Transient
from config.settings import Settings, load_settings
from config.tables import load_table_rules
from loader.daemon import Loader
from replicator.cli import resync
from replicator.cli.observation import Observer
from replicator.cli.status import read_status
from replicator.daemon import Replicator
from replicator.resync_requests import RequestState
from replicator.tracking import TableState, fetch, table_states

_UNDER_WAY = (TableState.COPYING, TableState.RECONCILING, TableState.QUEUED)
_REQUESTS_UNDER_WAY = (RequestState.QUEUED, RequestState.COPYING, RequestState.CATCHING_UP)


class ELTPipeline:
    """Extract and load, step by step. Close it, or use it as a context manager."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Raises ConfigError when the environment is wrong; connects when first used."""
        self._settings = settings or load_settings()
        self._connections = ConnectionFactory(self._settings)
        self.source_engine: Engine = self._connections.get_opendental_source_connection()
        self.replication_engine: Engine = self._connections.get_mysql_replication_connection()
        self.analytics_engine: Engine = self._connections.get_postgres_analytics_connection()
        self.source_db = self._settings.source.db
        self.replication_db = self._settings.replication.db
        self.analytics_db = self._settings.analytics.db
        self.analytics_schema = self._settings.analytics.schema_name
        self._observer = Observer(self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._observer.close()
        self._connections.dispose()

    def extract(self, stop: threading.Event | None = None) -> None:
        """Bring the replica to where the source is at the call; copies and resyncs included.

        Returns earlier when `stop` is set. Transient failures are waited out; Halt is raised.
        """
        self._require_no_pause("replicator")
        wanted = self._observer.source_position()
        rules = load_table_rules(self._settings.tables_file)

        def done() -> bool:
            offset = self._observer.replica_offset()
            if offset is None or offset.position < wanted:
                return False
            return not self._copies_under_way()

        _run_until(Replicator(self._settings, rules), done, stop)

    def _require_no_pause(self, leg: str) -> None:
        if leg in self._observer.asked().paused:
            raise ConfigError(f"the {leg} is paused", "Let it go on: replicator resume")

    def _copies_under_way(self) -> bool:
        connection = self._observer.replica
        if set(table_states(connection).values()) & set(_UNDER_WAY):
            return True
        open_requests = fetch(
            connection,
            "SELECT 1 FROM etl_resync_request WHERE state IN %s LIMIT 1",
            [_REQUESTS_UNDER_WAY],
        )
        return bool(open_requests)

    def load(self, stop: threading.Event | None = None) -> None:
        """Bring `raw` to where the replica is at the call; loads and reloads included.

        Returns earlier when `stop` is set. Transient failures are waited out; Halt is raised.
        """
        self._require_no_pause("loader")
        offset = self._observer.replica_offset()
        wanted = offset.position if offset else None

        def done() -> bool:
            shown = self._observer.raw_offset()
            if wanted is not None and (
                shown is None or shown.source is None or shown.source < wanted
            ):
                return False
            return shown is not None and not self._loads_under_way()

        _run_until(Loader(self._settings), done, stop)

    def _loads_under_way(self) -> bool:
        status = read_status(self._observer, rates=False)
        lagging = [t for t in status.tables if t.replica == "streaming" and t.raw != "streaming"]
        waiting = [r for r in status.resyncs if r.state == RequestState.LOADING]
        return bool(lagging or waiting)

    def status(self) -> dict[str, Any]:
        """What `replicator status --json` says."""
        return read_status(self._observer).as_json()

    def resync(self, tables: Sequence[str]) -> list[int]:
        """Ask for tables to be reloaded in full; the next `extract` and `load` do it.

        Returns the requests' numbers; raises ConfigError for a table that is not carried.
        """
        rules = load_table_rules(self._settings.tables_file)
        known = resync.known_tables(self._observer, rules)
        return resync.queue(self._observer, resync.chosen(tables, known))


def _run_until(leg: Leg, done: Callable[[], bool], stop: threading.Event | None) -> None:
    stop = stop or threading.Event()
    run(_Until(leg, done, stop), stop)


class _Until:
    """A leg that sets `stop` once its work is done."""

    def __init__(self, leg: Leg, done: Callable[[], bool], stop: threading.Event) -> None:
        self._leg = leg
        self._done = done
        self._stop = stop

    def step(self) -> None:
        """A step of the leg, then the question."""
        self._leg.step()
        try:
            if self._done():
                self._stop.set()
        except Transient:
            return  # the leg itself will meet it, and wait

    def describe(self) -> str:
        """Where the leg stands."""
        return self._leg.describe()

    def close(self) -> None:
        """Close the leg."""
        self._leg.close()

"""Schemas that were worked out from statements, until something else has said the same.

Left: ALTERs that happened in `raw` while the replica's catalog was further than the stream.
Right: each of them confirmed by a table map, or by the catalog at the end of the stream; or
the table given to whoever reloads it. They are stored with the schemas (`shapes`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import structlog

from config.connections import MySQLConnection
from config.errors import translated
from config.settings import Settings
from loader import replica as rep
from loader.ddl import shapes
from loader.ledger import Ledger
from loader.masking import Masker
from loader.rows import TablePlan
from replicator.binlog.position import ReplicaPosition
from replicator.binlog.schema import schemas_from_catalog

log = structlog.get_logger()

DOUBT_SECONDS = 1.0
"""So long the catalog must contradict us at one position before it is believed."""


class Predictions:
    """See the module. `reload` has a table copied anew, the batch before being written."""

    def __init__(
        self,
        settings: Settings,
        query: MySQLConnection,
        ledger: Ledger,
        reload: Callable[[str], None],
        masker: Masker,
    ) -> None:
        self._settings = settings
        self._query = query
        self._ledger = ledger
        self._reload = reload
        self._masker = masker
        self._waiting: dict[str, str] = {}
        """Names with the hash of what was worked out."""
        self._doubted: dict[str, tuple[ReplicaPosition, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def read(self) -> None:
        """Take up what is stored, the open transaction's part included."""
        self._waiting = shapes.predictions(self._ledger.postgres)

    def see(self, plans: Iterable[TablePlan]) -> None:
        """Compare with table maps, before their rows are taken in."""
        for plan in plans:
            predicted = self._waiting.get(plan.table)
            if predicted == plan.schema.hash:
                self._confirmed(plan.table)
            elif predicted is not None:
                self._mistaken(plan.table)

    def confirm(self) -> None:
        """At the end of the stream the catalog must say the same.

        A server shows a schema change before it logs it, so one look may be too early.
        """
        with translated(self._settings.replication.label):
            database = self._settings.replication.db
            found_there = schemas_from_catalog(self._query, database, self._waiting)
            catalog = self._masker.schemas(found_there)
            at_end = rep.binlog_end(self._query) == self._ledger.offset.replica
        waiting = dict(self._waiting)
        for name, predicted in waiting.items():
            found = catalog.get(name)
            if found is not None and found.hash == predicted:
                self._confirmed(name)
            elif not at_end:
                self._doubted.pop(name, None)
            elif self._doubts_again(name):
                self._mistaken(name)
        if len(self._waiting) < len(waiting):
            self._ledger.write()

    def _doubts_again(self, name: str) -> bool:
        """Was the catalog otherwise at this very position some time ago as well?"""
        position, now = self._ledger.offset.replica, time.monotonic()
        before, since = self._doubted.setdefault(name, (position, now))
        if before != position:
            self._doubted[name] = (position, now)
            return False
        return now - since > DOUBT_SECONDS

    def _mistaken(self, name: str) -> None:
        log.warning("schema_not_as_predicted", table=name, remedy="reloading the table")
        self._reload(name)
        self._confirmed(name)  # behind the reload: it must not be forgotten by who dies between

    def _confirmed(self, name: str) -> None:
        self._waiting.pop(name, None)
        self._doubted.pop(name, None)
        self._ledger.drain()
        with translated(self._settings.analytics.label):
            shapes.confirm(self._ledger.postgres, name)

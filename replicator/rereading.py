"""End the windows of the main stream's copies: read rows again that the window left open.

Left: tables whose windows the stream has passed. Right: those that are exact by that; those
whose noted rows have been read again, which have a new window now; and those that changed
their shape meanwhile, to be copied again. Exactness is argued in `reconcile`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import structlog

from config.connections import connect_source
from replicator import copy_progress
from replicator import source as src
from replicator.binlog.position import SourcePosition
from replicator.reconcile import Reconciler
from replicator.routes import Routes, Window
from replicator.session import Session
from replicator.snapshot import TableCopier
from replicator.targets import TableChanged, TableGone

log = structlog.get_logger(__name__)


class Rereading:
    """Of one session; it writes where the main stream does, between its transactions."""

    def __init__(self, session: Session, reconciler: Reconciler, routes: Routes) -> None:
        self._session = session
        self._reconciler = reconciler
        self._routes = routes
        self._opened: TableCopier | None = None

    def read_again(
        self, passed: Collection[str], reached: SourcePosition
    ) -> tuple[list[str], list[str]]:
        """(tables that are exact now, tables to be copied again) of those passed."""
        noted = copy_progress.targets_with_keys(self._session.replica).intersection(passed)
        changed = []
        if noted:
            database = self._session.settings.source.db
            there = {t.name: t for t in src.base_tables(self._session.catalog, database)}
            copies = copy_progress.copy_progresses(self._session.replica)
            for table in sorted(noted):
                try:
                    self._read_table(there.get(table), copies[table], reached)
                except (TableGone, TableChanged):  # the stream is about to tell of it
                    log.info("copy_begins_again", tables=[table], reason="its definition changed")
                    changed.append(table)
        return [table for table in passed if table not in noted], changed

    def _read_table(
        self,
        table: src.SourceTable | None,
        progress: copy_progress.CopyProgress,
        reached: SourcePosition,
    ) -> None:
        window = self._routes.window(progress.target)
        if table is None or window is None:
            raise TableGone(progress.target)
        progress = self._copier.read_again(table, progress, reached)
        high = progress.high or window.high
        self._routes.stream(table.name, window=Window(window.low, high, window.settled))
        self._routes.hold(table.name)
        log.info("rows_read_again", table=table.name, position=str(high))

    @property
    def _copier(self) -> TableCopier:
        if self._opened is None:
            session = self._session
            reader: Any = session.kept(session.raw_source())
            self._opened = session.kept(
                session.copier(
                    session.kept(connect_source(session.settings)),
                    reader,
                    session.replica,
                    self._reconciler,
                )
            )
        return self._opened

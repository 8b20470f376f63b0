"""Tables that come to another name: are their rows in `raw` masked, and kept, as that name asks?

Left: renames about to be followed, and plans of the tables whose rows come after schema
changes. Right: rows keep their place in `raw` only under a name that gives them the same masks;
what differs is reloaded, before a row is taken in beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import structlog

from loader.ddl import shapes
from loader.keeping import keeping_of
from loader.ledger import Ledger
from loader.masking import Masker, masks_of
from loader.rows import TablePlan
from loader.tracking import STREAMING
from replicator.binlog.schema import TableSchema

log = structlog.get_logger()


def _rules_of(schema: TableSchema) -> object:
    return masks_of(schema), keeping_of(schema)


class MaskWatch:
    """See the module. `reload` has a table copied anew, the batch before being written."""

    def __init__(self, masker: Masker, ledger: Ledger, reload: Callable[[str], None]) -> None:
        self._masker = masker
        self._ledger = ledger
        self._reload = reload
        self._doubtful = False
        """Has a schema change been followed? The start has compared everything."""
        self._seen: set[str] = set()

    def doubt(self) -> None:
        """A schema change is being followed."""
        self._doubtful = bool(self._masker)
        self._seen.clear()

    def allow(self, moved: Mapping[str, str | None]) -> bool:
        """May each name (left) have the rows that a content (right) has in `raw`?"""
        if not self._masker:
            return True
        known = shapes.read_all(self._ledger.postgres, filter(None, moved.values()))
        return all(
            not self._masker.differs(replace(known[content], name=name))
            for name, content in moved.items()
            if content in known
        )

    def see(self, plans: Iterable[TablePlan]) -> None:
        """Compare each table once, before its rows are taken in."""
        if not self._doubtful:
            return
        for plan in plans:
            table = self._ledger.tables.by_name.get(plan.table)
            if plan.table in self._seen or table is None or table.state != STREAMING:
                continue
            self._seen.add(plan.table)
            self._ledger.drain()
            known = shapes.read(self._ledger.postgres, plan.table)
            if known is not None and _rules_of(known) != _rules_of(plan.schema):
                log.warning("rules_differ", tables=[plan.table], remedy="reloading them")
                self._reload(plan.table)

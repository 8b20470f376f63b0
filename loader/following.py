"""What rows events do not tell: schema changes, leg 1's notices, copies that became whole.

Left: statements of the replica's binlog, notices, and the copies of the `LoadWorker`,
each at its place in the stream. Right: `raw` and the tables' lives brought in line.
Whoever acts here first has the batch before it written, so that nothing is out of
order; that is what `Ledger.write` is for, here and only here called with actions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial

import structlog

from config.connections import MySQLConnection, PostgresConnection
from config.errors import translated
from config.failpoints import reach
from config.settings import Settings
from config.tables import TableRules
from loader import history_shape, naming, schema, tracking
from loader import replica as rep
from loader.completing import Completer
from loader.ddl import shapes
from loader.ddl.evolving import evolve_table
from loader.ddl.maskwatch import MaskWatch
from loader.ddl.predictions import Predictions
from loader.ddl.renaming import STANDING
from loader.ddl.standing import Standing
from loader.ddl.statements import Replica, TableChanges, changes_of
from loader.keyless import load_keyless
from loader.ledger import Ledger
from loader.lifecycle import Table
from loader.load.merge import discard_copies, helpers_of
from loader.load.reload import Connections, Copier, LoadedTable
from loader.masking import Masker
from loader.notices import NoticeReader, Notices
from loader.quarantine import entries
from loader.rows import TablePlan
from loader.tracking import DROPPED, STREAMING, WAITING
from loader.types import raw_name
from loader.writer import Action
from replicator.binlog.catalog import read_catalog
from replicator.binlog.position import BinlogPosition, ReplicaPosition
from replicator.binlog.schema import schema_from_catalog
from replicator.binlog.transactions import Statement

log = structlog.get_logger()


class Follower:
    """See the module. `connect_copy` opens what a copy on the writing connection needs."""

    def __init__(
        self,
        settings: Settings,
        rules: TableRules,
        replica: Replica,
        query: MySQLConnection,
        ledger: Ledger,
        connect_copy: Callable[[PostgresConnection], Connections],
        notices: NoticeReader,
        masker: Masker,
        completer: Completer,
    ) -> None:
        self._settings = settings
        self._completer = completer
        self._rules = rules
        self._replica = replica
        self._query = query
        self._ledger = ledger
        self._tables = ledger.tables
        self._connect_copy = connect_copy
        self._notices = notices
        self._masker = masker
        self._masks = MaskWatch(masker, ledger, self._mistaken)
        tuning = settings.loader
        self._standing = Standing(
            ledger,
            (tuning.rename_seconds, tuning.replacement_seconds),
            self._load,
            self._drop,
            self._masks,
        )
        self._predictions = Predictions(settings, query, ledger, self._mistaken, masker)
        with translated(settings.analytics.label):
            self._standing.restore(shapes.read_standing(ledger.postgres))
            self._predictions.read()
            ledger.postgres.rollback()

    def heed(self, notices: Notices) -> None:
        """Act on what leg 1 says about its tables, at this point of the stream."""
        if notices.copying:
            self._pause(notices.copying)
        named = notices.streaming | set(notices.requests.values())
        names = {name for name in named if self._rules.carries(name)}
        if names:
            self._ledger.write()
            self._load(names, missed=notices.streaming)
        for number, name in notices.requests.items():
            self._tables.get(name).requests.append(number)

    def _pause(self, names: Iterable[str]) -> None:
        """Leg 1 copies them anew: `raw` shows them as they are now until the copy is whole.

        Events that come for them meanwhile follow on rows that only the new copy has.
        """
        self._ledger.write()
        paused = self._tables.pause(names)
        if paused:
            log.info("tables_paused", tables=len(paused), reason="they are copied anew")
            helpers = [helper for name in paused for helper in helpers_of(name)]
            self._ledger.write([partial(schema.drop_helpers, helpers=helpers)])

    def _load(self, names: set[str], missed: Collection[str] = ()) -> None:
        """See that each table's copy is later than the present position.

        `missed`: what leg 1 passed over for a while. Its changes from here on follow on others.
        """
        self._standing.release(names)
        self._tables.miss(names.intersection(missed))
        there = self._ledger.raw_tables([raw_name(name) for name in names])
        touched = [naming.helper_name(naming.TOUCHED, name) for name in names]
        for name in sorted(names):
            exists = raw_name(name) in there
            self._tables.load(name, exists=exists, at=self._ledger.offset.replica)
        self._ledger.write([partial(schema.drop_helpers, helpers=touched)])

    def statement(self, statement: Statement) -> None:
        """Follow a statement that the replica logged as text."""
        changes = changes_of(statement.query, self._replica, self._rules.carries)
        if changes:
            self._ledger.write()
        before = self._ledger.offset.replica
        if not statement.in_transaction:
            self._ledger.advance(statement.position)
        if changes:
            reach("schema.before")
            moment = datetime.fromtimestamp(statement.query.timestamp, UTC)
            self._follow(changes, before, moment.strftime("%Y-%m-%d %H:%M:%S+00"))
            self._reload_doubted(changes, statement.position)
        self._completer.forget()

    def _follow(self, changes: TableChanges, before: ReplicaPosition, moment: str) -> None:
        """Act on a schema change of this moment on the source, the batch before being written.

        What drops or renames tables and changes others too is written in two steps. The first
        is stored with the position `before`: should we die between them the statement comes
        again, and finds what it drops or renames done already.
        """
        log.info(
            "schema_change",
            created=changes.created,
            dropped=changes.dropped,
            truncated=changes.truncated,
            altered=changes.altered,
        )
        self._masks.doubt()
        known = self._tables.by_name
        behind = self._ledger.offset.replica
        if changes.in_two_steps:
            self._ledger.advance(before)
        with translated(self._settings.analytics.label):
            gone = self._standing.dropped(n for n in changes.dropped if n in known)
            self._drop(gone, moment)
            self._standing.complete()
            if changes.renames:
                self._notices.seed_streaming(self._standing.renamed(changes.renames))
                self._predictions.read()
        self._ledger.advance(behind)
        self._truncate(changes.truncated, moment)
        created = [n for n in changes.created if not (changes.kept and self._is_there(n))]
        new = [n for n in created if not self._grows(n, changes)]
        altered = {n for n in changes.altered if n in known}
        wrong = self._live({n for n in altered if not self._altered(n, changes, moment)})
        if new or wrong:
            replaced = self._created(new)  # what raw has under the name is the table before it
            self._load(replaced | wrong, missed=replaced)

    def _reload_doubted(self, changes: TableChanges, behind: BinlogPosition) -> None:
        """Reload tables whose generated columns were worked out as they are only from here on."""
        doubted = self._completer.doubted(behind)
        named = {*changes.altered, *changes.created}
        for before, after in changes.renames:
            named.add(after)
            if before in doubted:
                doubted.add(after)
        wrong = self._live(doubted & named)
        if wrong:
            self._load(wrong)

    def _drop(self, names: list[str], moment: str | None = None) -> None:
        if not names:
            return
        actions: list[Action] = []
        finished: list[int] = []
        for name in names:
            finished += self._tables.drop(name).take_requests()
            actions.append(partial(_drop_action, table=name, at=moment))
        self._ledger.write(actions)
        self._ledger.finish(finished)

    def _truncate(self, names: tuple[str, ...], moment: str) -> None:
        for name in names:
            table = self._tables.by_name.get(name)
            if table is None or self._ledger.is_in_copy(table):
                continue
            if self._standing.truncated(name):
                continue
            loading = table.loading
            if table.state == STREAMING or loading:
                empty = partial(_empty_action, table=name, at=moment)
                self._ledger.write([] if table.hidden else [empty])
            if loading:
                self._load({name})

    def _is_there(self, name: str) -> bool:
        """Has the replica this table, at this place of the stream?"""
        table = self._tables.by_name.get(name)
        return table is not None and (table.state == STREAMING or table.loading)

    def _grows(self, name: str, changes: TableChanges) -> bool:
        """Is this a new table behind a name that stands?"""
        if not self._standing or not changes.born_empty:
            return False
        with translated(self._settings.replication.label):
            copied = rep.unfinished_tables(self._query, self._replica.database)
        with translated(self._settings.analytics.label):
            grows = self._standing.created(name, born_empty=name not in copied)
        if grows:
            self._notices.seed_streaming([name])
        return grows

    def _created(self, names: Sequence[str]) -> set[str]:
        """New tables: those to load, as leg 1 streams them already; the others wait for its word.

        What is followed under the name until here is another table (OR REPLACE), whatever leg 1
        has made of the new one since: its rows are not the new one's.
        """
        if not names:
            return set()
        with translated(self._settings.replication.label):
            streaming = rep.streaming_tables(self._query, self._replica.database)
        for name in names:
            table = self._tables.get(name)
            if table.state in (DROPPED, STANDING):
                self._tables.enter(table, WAITING)
        return {name for name in names if name in streaming or self._is_there(name)}

    def _live(self, names: set[str]) -> set[str]:
        """Those that are followed, and whose copy is not later than the present position."""
        live = {n for n in names if self._tables.get(n).state not in (WAITING, DROPPED)}
        return {n for n in live if not self._ledger.is_in_copy(self._tables.get(n))}

    def _altered(self, name: str, changes: TableChanges, moment: str) -> bool:
        """Do to a raw table what an ALTER did to its table; False where it must be reloaded."""
        table, actions = self._tables.get(name), changes.alteration
        if actions == () or self._standing.altered(name, rows_changed=changes.rows_changed):
            return True
        if actions is None or table.state != STREAMING or self._ledger.is_in_copy(table):
            return False
        with translated(self._settings.replication.label):
            found = read_catalog(self._query, self._replica.database, [name]).get(name)
        if found is not None and found.system_versioned:
            return False  # its rows' old versions may have been changed in ways of their own
        catalog = self._masker.schema(schema_from_catalog(found)) if found else None
        with translated(self._settings.analytics.label):
            postgres = self._ledger.postgres
            done = evolve_table(postgres, name, actions, catalog, self._masker, moment)
        if done:
            reach("schema.altered")
            table.writer = None
            self._predictions.read()
            self._ledger.write()
            reach("schema.followed")
        else:
            self._ledger.postgres.rollback()
        return done

    def settle(self, *, idle: bool) -> None:
        """What only time, or the end of the stream, can tell; called at every step."""
        if self._standing:
            with translated(self._settings.analytics.label):
                self._standing.settle(time.monotonic())
        for table in self._tables.absent(self._ledger.offset.replica):
            self._vanished(table)
        if idle and self._predictions:
            self._predictions.confirm()

    def see(self, plans: Iterable[TablePlan]) -> None:
        """Compare what we worked out with table maps, before their rows are taken in."""
        if self._masker or self._predictions:
            plans = list(plans)
            self._masks.see(plans)
            self._predictions.see(plans)

    def _mistaken(self, name: str) -> None:
        """Reload what an ALTER did otherwise than we thought."""
        self._ledger.write()
        wrong = self._live({name})
        if wrong:
            self._load(wrong)

    def take_copies(self, copies: Iterable[LoadedTable]) -> None:
        """Note the copies that became whole; the ledger merges them when their time has come."""
        for loaded in copies:
            table = self._tables.arrived(loaded)
            if table is None and not self._tables.is_copied(loaded.request.table):
                self._ledger.write([partial(discard_copies, table=loaded.request.table)])
            if table is not None and loaded.schema is not None and not loaded.schema.primary_key:
                self._load_keyless(table)

    def _vanished(self, table: Table) -> None:
        """The replica has no such table, and its binlog does not tell why."""
        log.warning("table_absent", table=table.name)
        self._ledger.write()
        self._drop([table.name])

    def _load_keyless(self, table: Table) -> None:
        """A table without a key is copied here, while the stream waits."""
        self._ledger.write()
        postgres = self._ledger.postgres
        connections = self._connect_copy(postgres)
        try:
            copier = Copier(connections, self._replica.database, self._masker)
            found = load_keyless(copier, postgres, table.name)
        finally:
            connections.close_replica()
        if table.name not in found.schemas:  # it was there just now: the stream will tell
            self._tables.begin_again(table)
            return
        self._ledger.entries_changed()
        table.watermark = found.mark.position if found.mark else None
        table.copied_at = found.after
        finished = table.take_requests()
        self._tables.merged([table])
        self._ledger.write()
        self._ledger.finish(finished)


def _drop_action(connection: PostgresConnection, table: str, at: str | None) -> None:
    """The table is gone, `at` a moment that may be known; its history stays."""
    history_shape.close_all(connection, raw_name(table), at, exact=at is not None)
    schema.drop_helpers(connection, helpers_of(table))
    schema.drop_table(connection, raw_name(table))
    reach("schema.dropped")
    tracking.set_watermark(connection, table, None)
    tracking.clear_all_exceptions(connection, table)
    entries.clear_all(connection, table)
    shapes.forget(connection, table)
    tracking.forget_dropped(connection)


def _empty_action(connection: PostgresConnection, table: str, at: str) -> None:
    """No row is left on the source; where deleted rows are kept they go on being in `raw`."""
    place = raw_name(table)
    found = schema.read_tables(connection, [place]).get(place)
    if found is not None and found.soft:
        schema.mark_all(connection, place, at)
    else:
        schema.empty_table(connection, place)
        tracking.clear_all_exceptions(connection, table)
    history_shape.close_all(connection, place, at, exact=True)
    reach("schema.emptied")
    entries.clear_all(connection, table)

"""Leg 1 as a loop: open, finish what was begun, copy what is missing, stream.

Left: settings and table rules. Right: the replica, always at a position that its
own offset row tells. `step` returns within about a second; whatever breaks is
raised, everything is closed, and the next `step` begins from what is stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from config import metrics
from config.errors import ApplyConflict, translated
from config.failpoints import reach
from config.settings import Settings
from config.tables import TableRules
from replicator import copy_progress, resync_requests, tracking
from replicator import replica as rep
from replicator import source as src
from replicator.answered import EVERY_SECONDS, forget_answered
from replicator.binlog.position import SourcePosition
from replicator.binlog.schema import hashes_from_catalog
from replicator.binlog.transactions import (
    Change,
    Prepared,
    Rollback,
    Statement,
    XaCommit,
)
from replicator.conflicts import Conflicts
from replicator.exact import Applied, ExactMySQLReplicator
from replicator.first_copy import (
    CopyStage,
    FirstCopy,
    Watch,
    begin_first_copy,
    log_stages,
    open_first_copy,
)
from replicator.incoming import Incoming
from replicator.mending import Mending
from replicator.provenance import executed_with
from replicator.reconcile import Reconciler
from replicator.relocation import settle_down
from replicator.rereading import Rereading
from replicator.resync import Resync
from replicator.resync_desk import ResyncDesk
from replicator.routes import Routes, Window
from replicator.schema_changes import SchemaChanges
from replicator.scratch import drop_left_over
from replicator.session import Session
from replicator.standing import Standing
from replicator.tracking import MAIN, Offset, TableState, execute

log = structlog.get_logger(__name__)

STEP_SECONDS = 1.0
TOUCH_SECONDS = 5.0


class Replicator:
    """The whole of leg 1 for one source database."""

    def __init__(
        self,
        settings: Settings,
        rules: TableRules,
        watch: Watch | None = None,
        copy_rate: Callable[[], int] | None = None,
    ) -> None:
        """`watch` is told of each step of a first copy; log lines by default.

        `copy_rate` is what copies may read on the source now; as the settings say by default.
        """
        self._copy_rate = copy_rate
        self._settings = settings
        self._rules = rules
        self._watch = watch or log_stages()
        self.standing = Standing(settings)
        self._session: Session | None = None
        self._desk: ResyncDesk | None = None
        self._copy: FirstCopy | None = None
        self._conflicts = Conflicts(settings.replicator.on_conflict)
        self._incoming: Incoming | None = None
        self._newcomers: tuple[SourcePosition, set[str]] | None = None
        """Tables that we did not know at the start, and up to where the stream may create them."""
        self._next_poll = 0.0
        self._next_touch = 0.0
        self._next_forgetting = 0.0

    # --- the loop's face -----------------------------------------------------------------

    def step(self) -> None:
        """A bounded piece of work."""
        try:
            if self._session is None:
                self.standing.begin()
                self._session = Session(self._settings, self._rules, self._copy_rate)
                self._open(self._session)
            if self._copy is not None:
                self._copy_on(self._copy)
            else:
                self._stream_on(self._session)
        except ApplyConflict as conflict:
            self._set_aside(conflict)
        except BaseException:
            self.close()
            raise

    def _set_aside(self, conflict: ApplyConflict) -> None:
        """Begin again, and leave the table to a reload whose row was refused; or raise."""
        try:
            if self._session is None or self._incoming is None:
                raise conflict
            with translated(self._settings.replication.label):
                asked = resync_requests.open_requests(self._session.hidden)
            replicator = self._replicator
            self._conflicts.met(conflict, replicator.position, replicator.reached, asked)
        except ApplyConflict:
            metrics.CONFLICTS.labels("replicator", "halted").inc()
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Give everything back; nothing is lost, for nothing was only here."""
        self.standing.closed()
        if self._desk is not None:
            self._desk.close()
        if self._session is not None:
            self._session.close()
        self._session = self._desk = self._copy = self._incoming = None

    def follow(self, rules: TableRules) -> None:
        """Carry other tables from the next step on."""
        self._rules = rules
        self.close()

    def describe(self) -> str:
        """Where it stands, in a few words."""
        if self._session is None:
            return "connecting"
        if self._copy is not None:
            return "first copy"
        reloading = f", reloading {self.resync.table}" if self.resync is not None else ""
        return f"at {self.position}, {self.standing.lag():.1f} s behind{reloading}"

    @property
    def resync(self) -> Resync | None:
        """The table reload under way, if there is one."""
        return self._desk.job if self._desk is not None else None

    @property
    def settled(self) -> bool:
        """Streaming, with no copy under way."""
        return self._incoming is not None and self.resync is None

    @property
    def position(self) -> SourcePosition:
        """Up to where the replica shows the source."""
        return self._replicator.position

    # --- opening -------------------------------------------------------------------------

    def _open(self, session: Session) -> None:
        with translated(self._settings.replication.label):
            offset = tracking.read_offset(session.replica, MAIN)
            over = offset is not None and resync_requests.everything_requested(session.replica)
        if offset is None or over:
            offset = self._first_start(session)
        offset = settle_down(session, offset)
        session.read_format_description(offset.position)
        self.standing.opened(offset)
        self._wire(session, offset)

    def _first_start(self, session: Session) -> Offset:
        with translated(self._settings.source.label):
            position = session.history(session.catalog).now()  # copies wait for the commit gap
            tables = [
                t
                for t in src.base_tables(session.catalog, self._settings.source.db)
                if self._rules.carries(t.name)
            ]
            offset = session.provenance.know(Offset(MAIN, position, 0, ""))
        with translated(self._settings.replication.label):
            rep.take_charset(
                session.hidden,
                session.replica,
                self._settings.replication.db,
                session.charset,
                session.collation,
            )
            begin_first_copy(session.replica, offset, tables)
        return offset

    def _wire(self, session: Session, offset: Offset) -> None:
        settings, database = self._settings, self._settings.replication.db
        self._reconciler = Reconciler(session.replica, session.hidden, database)
        self._virtual = session.virtual_columns()
        self._routes = Routes(self._rules.carries)
        self._replicator = ExactMySQLReplicator(
            session.replica,
            database,
            offset,
            self._routes,
            source_database=settings.source.db,
            limit=settings.replicator.batch_bytes,
            reconciler=self._reconciler,
            rows_v2=not session.replica_identity.mariadb,
            apart=self._conflicts.apart,
            virtual=self._virtual,
        )
        self._changes = SchemaChanges(
            session.replica, self._replicator, self._routes, session.statements, database
        )
        self._desk = ResyncDesk(session, self._replicator, self._routes)
        self._mending = Mending(session, self._replicator, self._routes, self._reconciler)
        self._rereading = Rereading(session, self._reconciler, self._routes)
        self._prepared = session.prepared(settings.replicator.server_id, session.catalog)
        with translated(settings.replication.label):
            drop_left_over(session.hidden)
            self._changes.recover(offset)
            self._desk.recover(offset)
            self._conflicts.begin_repair(session.replica)
            copying = self._set_routes(session)
            if copying:
                self._copy = open_first_copy(session, copying, self._watch_copy)
            else:
                self._fit_rules(session)

    def _set_routes(self, session: Session) -> list[str]:
        """Routes as the stored states have them; the tables whose first copy is unfinished."""
        states = tracking.table_states(session.replica)
        copies = copy_progress.copy_progresses(session.replica)
        noted = copy_progress.targets_with_keys(session.replica)
        for table, state in states.items():
            progress = copies.get(table)
            if state == TableState.STREAMING:
                self._routes.stream(table)
            elif state == TableState.RECONCILING and progress and progress.low and progress.high:
                self._routes.stream(table, window=Window(progress.low, progress.high))
                if table in noted:
                    self._routes.hold(table)
            else:
                self._routes.skip(table)
        return [t for t, state in states.items() if state == TableState.COPYING]

    def _fit_rules(self, session: Session) -> None:
        """Follow tables.toml as it is now: leave what it excludes, copy what it has added."""
        states = tracking.table_states(session.replica)
        carried = {t for t, state in states.items() if state != TableState.EXCLUDED}
        newcomers: set[str] = set()
        for table in sorted(carried):
            if not self._rules.carries(table):
                log.info("table_excluded", table=table)
                tracking.set_state(session.replica, table, TableState.EXCLUDED)
                self._routes.skip(table)
        for source_table in src.base_tables(session.catalog, self._settings.source.db):
            name = source_table.name
            if self._rules.carries(name) and name not in carried:
                if name in states:
                    log.info("table_included", table=name)
                    self._queue(session, name)
                else:
                    newcomers.add(name)
        if newcomers:
            self._newcomers = (session.history(session.catalog).now(), newcomers)

    # --- the first copy ------------------------------------------------------------------

    def _watch_copy(self, stage: CopyStage) -> None:
        self.standing.stage = stage
        self._watch(stage)

    def _copy_on(self, copy: FirstCopy) -> None:
        deadline = time.monotonic() + STEP_SECONDS
        with translated("source or replica"):
            while time.monotonic() < deadline:
                if copy.step() and self._session is not None:
                    self._copy = self.standing.stage = None
                    self._set_routes(self._session)
                    self._fit_rules(self._session)  # a catalog may hide a table that is altered
                    return

    # --- streaming -----------------------------------------------------------------------

    def _stream_on(self, session: Session) -> None:
        if self._incoming is None:
            self._incoming = self.standing.link.stream = Incoming(session, self._replicator)
        incoming = self._incoming
        deadline = time.monotonic() + STEP_SECONDS
        reach("source.before_read")
        heard = incoming.heard
        events = incoming.read(self._settings.replicator.poll_seconds)
        if events:
            reach("source.read")
            self.standing.freshness.arrived(time.monotonic())
        while events or self._replicator.settle_one():
            self._take(incoming, events)
            metrics.EVENTS.labels("replicator").inc(len(events))
            if time.monotonic() > deadline:
                break
            self._replicator.keep_busy()
            heard = incoming.heard
            events = incoming.read(0)
        self._commit_batch()
        drained = not events and self._replicator.idle
        self.standing.stepped(heard, self._replicator.committed, drained=drained)
        if not self._replicator.has_begun:  # what housekeeping begins would commit half of it
            self._housekeeping(session)

    def _take(self, incoming: Incoming, events: list[bytes]) -> None:
        """Apply them: whole plain transactions at once, all others event by event."""
        at, end = 0, len(events)
        while at < end:
            taken = self._replicator.take_plain(incoming.reader, events, at)
            if taken == at:
                self._feed(incoming, events[at])
                taken += 1
            at = taken

    def _feed(self, incoming: Incoming, event: bytes) -> None:
        change = incoming.feed(event)
        if isinstance(change, Prepared | XaCommit):
            for part in self._prepared.unfold(change, self._replicator.reached):
                self._apply(part)
        elif change is not None:
            self._apply(change)
        if isinstance(change, Statement | Rollback | Prepared):  # a commit tells its own
            self._replicator.executed(executed_with(event, change, incoming.reader))

    def _apply(self, change: Change) -> None:
        if isinstance(change, Statement):
            self._replicator.settle()  # it speaks to the replica on the same connection
            with translated(self._settings.replication.label):
                self._mending.follow(self._changes.apply(change))
        else:
            self._replicator.apply(change)

    def _commit_batch(self) -> None:
        self._replicator.flush()
        applied = self._replicator.applied
        if applied.statements:
            metrics.TRANSACTIONS.labels("replicator").inc(applied.transactions)
            self._replicator.applied = Applied()

    # --- housekeeping --------------------------------------------------------------------

    def _housekeeping(self, session: Session) -> None:
        with translated(self._settings.replication.label):
            if self._virtual is not None:
                self._virtual.rest()
            self._end_windows(session)
            self._queue_again(session)
            if not self._replicator.has_open_rows:  # their routes were chosen already
                self._mending.mind()
            now = time.monotonic()
            if now >= self._next_touch:
                tracking.touch_tables(session.replica, self._replicator.touched)
                self._replicator.touched.clear()
                self._next_touch = now + TOUCH_SECONDS
            if now >= self._next_forgetting:
                forget_answered(session.hidden, tracking.utc_now())
                self._next_forgetting = now + EVERY_SECONDS
            self.standing.note(session.hidden)
            self.standing.resync = self.resync
            if self._desk is not None and (now >= self._next_poll or self._desk.job is not None):
                busy = self._desk.job is not None
                self._desk.mind()
                ended = busy and self._desk.job is None  # another request may wait behind it
                self._next_poll = now + (0 if ended else self._settings.replicator.poll_seconds)

    def _end_windows(self, session: Session) -> None:
        """Tables whose copy window the stream has passed are exact from here on."""
        passed = self._routes.windows_passed(self._replicator.position)
        if passed:
            passed, changed = self._rereading.read_again(passed, self._replicator.position)
            for table in changed:
                self._queue(session, table)
        kept = self._routes.windowed().difference(passed) | self._mending.copies
        self._reconciler.finish_others(kept)
        if passed:
            hashes = hashes_from_catalog(session.replica, self._settings.replication.db, passed)
            execute(session.replica, "BEGIN")
            for table in passed:
                tracking.set_state(
                    session.replica, table, TableState.STREAMING, schema_hash=hashes[table]
                )
                copy_progress.forget_progress(session.replica, table)
                resync_requests.answer_restarted(session.replica, table)
            reach("window.before_end")
            execute(session.replica, "COMMIT")
            reach("window.ended")
            for table in passed:
                self._routes.stream(table)
            log.info("tables_streaming", tables=len(passed))

    def _queue_again(self, session: Session) -> None:
        """Copy again what cannot be reconciled, keyless tables, and copy what had no route."""
        if self._newcomers is not None and self._newcomers[0] <= self._replicator.position:
            self._routes.unknown |= {t for t in self._newcomers[1] if not self._routes.known(t)}
            self._newcomers = None
        if self._routes.unknown:
            unknown, self._routes.unknown = self._routes.unknown, set()
            for table in sorted(unknown):
                if src.base_table(session.catalog, self._settings.source.db, table) is None:
                    continue  # a sequence, or gone again
                log.info("table_included", table=table)
                self._queue(session, table)
        self._mending.give_up(self._replicator.dirty)
        dirty, self._replicator.dirty = self._replicator.dirty, set()
        for table in sorted(dirty):
            log.info("copy_begins_again", tables=[table], reason="it changed, and not by key")
            self._queue(session, table)

    def _queue(self, session: Session, table: str) -> None:
        execute(session.replica, "BEGIN")
        tracking.set_state(session.replica, table, TableState.QUEUED)
        copy_progress.forget_progress(session.replica, table)
        resync_requests.queue_resync(session.replica, [table])
        execute(session.replica, "COMMIT")
        self._routes.skip(table)

"""The source's binlog as leg 1 reads it: whatever befalls it is told apart, and nothing passes.

Left: a stream of raw events, and `Provenance`, which knows whose they are. Right: changes for
the one who applies them; where the binlog is not the one that was read before, or breaks
off, an error that says why, or the way on where there surely is one.

Each file is entered by its FORMAT_DESCRIPTION event, on the very connection that brings its
events: so whichever server a name or an address leads to by then, the file is known to be the
one that the stored position is in, or a later one, whose beginning is stored with the first
position in it. The ROTATE event before it moves nothing: no position is ever stored without
what identifies its file.

A server that is killed leaves a file without an end. MySQL cuts off what was not whole;
MariaDB leaves it, and the file may break off within an event. What stood in there was not
committed: with sync_binlog=1 the binlog reaches the disk before the engine commits, and so a
transaction whose end is not in it is rolled back when the server starts again. Then the next
file goes on where this one broke off. Without sync_binlog=1 the binlog may lack what the
engine has; that is for an operator to look at.
"""

from __future__ import annotations

import time
from typing import Final

import structlog

from config.connections import answered_within
from config.errors import BinlogTorn, Halt, ReplicatorError, SourceReset, translated
from replicator import source as src
from replicator.binlog import events as ev
from replicator.binlog.ahead import AheadStream
from replicator.binlog.events import EventType
from replicator.binlog.gtidset import parse_gtid_list
from replicator.binlog.position import FIRST_OFFSET, SourcePosition
from replicator.binlog.silence import Silence
from replicator.binlog.transactions import Change, Rollback, TransactionReader
from replicator.exact import ExactMySQLReplicator
from replicator.session import Session
from replicator.tracking import fetch

log = structlog.get_logger(__name__)

_CREATED_AT: Final = ev.HEADER_LENGTH + 52
"""In a FORMAT_DESCRIPTION event: when the server was started, where it was then that it began
the file; else zero."""


class Incoming:
    """Opened by its constructor, at the position that `replicator` has committed."""

    def __init__(self, session: Session, replicator: ExactMySQLReplicator) -> None:
        tuning = session.settings.replicator
        self._session = session
        self._replicator = replicator
        self._heartbeat_seconds = tuning.heartbeat_seconds
        self._stream = session.kept(AheadStream(session.binlog(tuning.server_id)))
        self._open()

    def _open(self) -> None:
        self.reader = TransactionReader(self._replicator.position, xa=True)
        self._ended = False
        """Did the server end the file, by a ROTATE or STOP event?"""
        self._silence = Silence("source", self._heartbeat_seconds, time.monotonic())
        self._stream.open(self._replicator.position)
        log.info("streaming", position=str(self._replicator.position))

    def read(self, timeout: float) -> list[bytes]:
        """Events that have arrived, waiting up to `timeout` seconds for the first."""
        try:
            events: list[bytes] = self._stream.read(timeout)
        except BinlogTorn as torn:
            self._explain(torn)
            self._go_on_behind(torn)
            return []
        except Halt as refusal:
            self._explain(refusal)
            raise
        if events:
            self._silence.broken(time.monotonic())
        elif timeout and self._silence.due(time.monotonic()):
            self._ask()
        return events

    @property
    def heard(self) -> float:
        """When the source was last heard (monotonic); all it had sent by then is to be read."""
        return self._stream.heard  # type: ignore[no-any-return]

    def feed(self, event: bytes) -> Change | None:
        """What one more event completes."""
        kind = event[4]
        if kind == EventType.FORMAT_DESCRIPTION:
            return self._enter_file(event)
        change = self.reader.feed(event)
        if kind == EventType.STOP or (kind == EventType.ROTATE and ev.event_end(event)):
            self._ended = True  # told again, should we come back before the next file begins
            return None
        if kind == EventType.ROTATE:
            return None
        if kind == EventType.MARIADB_GTID_LIST and ev.event_end(event):
            for gtid in parse_gtid_list(event):
                self._replicator.executed(gtid)
        return change

    # --- files ---------------------------------------------------------------------------

    def _enter_file(self, event: bytes) -> Change | None:
        self._replicator.describe(event)
        committed, file = self._replicator.committed, self.reader.file
        created = ev.event_timestamp(event)
        started = any(event[_CREATED_AT : _CREATED_AT + 4])
        if file != committed.position.file and started and not self._ended:
            self._note_crash(committed.position.file)
        self._replicator.enter_file(file, created)
        self._ended = False
        return self.reader.feed(event)

    def _note_crash(self, file: str) -> None:
        log.warning(
            "source_crashed",
            file=file,
            sync_binlog=self._sync_binlog(),
            remedy="replicator verify, unless sync_binlog is 1 and all tables are InnoDB: the"
            " source may hold changes that it did not log",
        )

    def _sync_binlog(self) -> int:
        with translated(self._session.settings.source.label):
            return int(fetch(self._session.catalog, "SELECT @@GLOBAL.sync_binlog")[0][0])

    def _go_on_behind(self, torn: BinlogTorn) -> None:
        """Into the next file, where a crash has cut this one off; else raise `torn`."""
        here = self._replicator.reached
        with translated(self._session.settings.source.label):
            following = self._session.provenance.file_behind(here.file)
            if following is None or self.reader.file != here.file:
                raise torn
            created = self._session.provenance.created(following)
        if self._sync_binlog() != 1:
            raise BinlogTorn(
                f"the source's binlog file {here.file} breaks off in the middle of an event behind"
                f" {here}: the source crashed; and as its sync_binlog is not 1, it may have"
                " changes that its binlog lost",
                hint="Copy everything again: replicator resync --all. To be spared this the next"
                " time, on the source: SET GLOBAL sync_binlog = 1; and in its my.cnf.",
            )
        log.warning("source_binlog_torn", position=str(here), goes_on_in=following)
        self._replicator.enter_file(following, created)
        self._replicator.apply(Rollback(SourcePosition(following, FIRST_OFFSET)))
        self._replicator.flush()
        self._open()

    # --- silence and refusals ------------------------------------------------------------

    def _explain(self, refusal: ReplicatorError) -> None:
        """Raise what is known better than what the server said as it hung up."""
        log.info("binlog_refused", reason=str(refusal))
        with translated(self._session.settings.source.label):
            self._session.provenance.confirm(self._replicator.committed)

    def _ask(self) -> None:
        """Nothing came for a while: is there nothing?"""
        session = self._session
        with translated(session.settings.source.label):
            with answered_within(session.catalog, self._heartbeat_seconds):
                end = src.current_position(session.catalog, session.identity)
            try:
                self._silence.judge(self._replicator.reached, end, time.monotonic())
            except SourceReset as reset:
                self._explain(reset)
                raise

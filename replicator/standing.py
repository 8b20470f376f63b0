"""Where leg 1 stands: how fresh the replica is, and what is known of the source beside the stream.

Left: what the daemon's loop notices, and a `Lookout` of the source. Right: leg 1's told metrics,
the status page's numbers, and every two seconds the horizon on the replica, by which the loader
knows how fresh `raw` is. It lives as long as the daemon; sessions come and go.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from config import metrics, records
from config.clock import ServerClock
from config.connections import connect_mysql, connect_source
from config.errors import ReplicatorError
from config.freshness import Freshness, patience
from config.records import HaltNote, Horizon, VerifyNote
from config.settings import Settings
from replicator.binlog.lookout import Lookout, bytes_behind, purge_in, transactions_behind
from replicator.binlog.position import SourcePosition
from replicator.first_copy import CopyStage
from replicator.incoming import Incoming
from replicator.resync import Resync
from replicator.tracking import Offset, fetch

HORIZON_SECONDS: Final = 2.0
RECORDS_SECONDS: Final = 10.0


class Standing:
    """See the module. All but the metrics' questions is for the loop's thread."""

    def __init__(self, settings: Settings) -> None:
        tuning, now = settings.replicator, time.monotonic()
        self._settings = settings
        self._period = tuning.heartbeat_seconds
        self.freshness = Freshness(patience(self._period), now)
        connect = partial(
            connect_source, settings, read_timeout=self._period, write_timeout=self._period
        )
        self.lookout = Lookout(connect, self._period, SourcePosition)
        self.replica_clock = ServerClock(time.time() - now)
        self.offset: Offset | None = None
        self.incoming: Incoming | None = None
        self.resync: Resync | None = None
        self.stage: CopyStage | None = None
        self.halts: list[HaltNote] = []
        self.verified: VerifyNote | None = None
        self._began = False
        self._sessions = 0
        self._next_horizon = self._next_records = 0.0
        self._counted: set[HaltNote] = set()
        self._tell()

    def _tell(self) -> None:
        leg = "replicator"
        metrics.REPLICATOR_LAG.tell(self.lag)
        metrics.STREAM_UP.tell(lambda: {(leg,): float(self.streaming)})
        metrics.HEARD_AGE.tell(lambda: _if_known(leg, self.heard_age()))
        metrics.BYTES_BEHIND.tell(lambda: _if_known(leg, self.bytes_behind()))
        metrics.TRANSACTIONS_BEHIND.tell(lambda: _if_known(leg, self.transactions_behind()))
        metrics.PURGE_IN.tell(lambda: _if_known(leg, self.purge_in()))
        metrics.CLOCK_AHEAD.tell(lambda: _if_known(leg, self.clock_ahead()))
        metrics.POSITION.tell(self._position)
        metrics.COPY_ROWS.tell(lambda: {(of,): rows for of, rows, _, _ in self._copies()})
        metrics.COPY_EXPECTED.tell(lambda: {(of,): rows for of, _, rows, _ in self._copies()})
        metrics.COPY_TABLES_LEFT.tell(lambda: {(of,): left for of, _, _, left in self._copies()})
        metrics.LAST_HALT.tell(lambda: {(n.leg,): n.at for n in reversed(self.halts)})
        metrics.VERIFIED_AT.tell(lambda: self.verified.at if self.verified else None)
        metrics.VERIFIED_TABLES.tell(
            lambda: {
                (v,): float(n) for v, n in (self.verified.verdicts if self.verified else {}).items()
            }
        )

    # --- what the loop notices ----------------------------------------------------------

    def begin(self) -> None:
        """Before the first connection: take up what an earlier process noted, and look out."""
        self.lookout.start()
        if self._began:
            return
        self._began = True
        server = self._settings.replication
        with suppress(ReplicatorError, OSError):
            connection = connect_mysql(server, database=server.db, read_timeout=self._period)
            try:
                self._read_replica_clock(connection)
                horizon = records.read_horizon(connection)
                if horizon is not None:
                    self.freshness.begin(self.replica_clock.moment(horizon.fresh_at))
            finally:
                connection.close()

    def opened(self, offset: Offset) -> None:
        """A session begins at the stored offset."""
        self._sessions += 1
        if self._sessions > 1:
            metrics.RECONNECTS.labels("replicator").inc()
        self.offset = offset
        if offset.event_timestamp is not None:
            self.freshness.committed(self._source_moment(offset.event_timestamp))

    def stepped(self, heard: float, offset: Offset, *, drained: bool) -> None:
        """The loop has come round; `drained`: all that had come by `heard` is committed."""
        self.offset = offset
        if drained:
            self.freshness.caught_up(heard)
        elif offset.event_timestamp is not None:
            self.freshness.committed(self._source_moment(offset.event_timestamp))

    def closed(self) -> None:
        """The session is over."""
        self.freshness.lost()
        self.lookout.close()
        self.incoming = self.resync = self.stage = None

    def note(self, connection: Any) -> None:
        """Now and then: the horizon onto the replica, and what was noted there by others."""
        now = time.monotonic()
        if now < self._next_horizon or self.offset is None:
            return
        self._next_horizon = now + HORIZON_SECONDS
        self._read_replica_clock(connection)
        clock, position = self.replica_clock, self.offset.position
        horizon = Horizon(
            position.file,
            position.offset,
            clock.wall(self.freshness.until()),
            self.freshness.live(now),
            self.lookout.clock.offset - clock.offset,
            time.time() - now - clock.offset,
        )
        records.write_horizon(connection, horizon)
        if now >= self._next_records:
            self._next_records = now + RECORDS_SECONDS
            self.verified = records.read_verify(connection)
            self.halts = records.read_halts(connection)
            records.count_new(self.halts, self._counted)

    def _read_replica_clock(self, connection: Any) -> None:
        before = time.monotonic()
        wall = float(fetch(connection, "SELECT UNIX_TIMESTAMP(NOW(6))")[0][0])
        self.replica_clock.read(wall, before, time.monotonic())

    def _source_moment(self, utc: datetime) -> float:
        return self.lookout.clock.moment(utc.replace(tzinfo=UTC).timestamp())

    # --- what is known -------------------------------------------------------------------

    def lag(self) -> float:
        """Source commit to committed on the replica, seconds."""
        return self.freshness.lag(time.monotonic())

    @property
    def streaming(self) -> bool:
        """Is the stream open, and was something heard in time?"""
        age = self.heard_age()
        return age is not None and age <= self.freshness.patience

    def heard_age(self) -> float | None:
        """Seconds since the source was last heard on the stream; None where there is none."""
        incoming = self.incoming
        return None if incoming is None else max(0.0, time.monotonic() - incoming.heard)

    def bytes_behind(self) -> float | None:
        """Bytes of the source's binlog that the replica lacks, as the source told last."""
        sight, offset = self.lookout.sight, self.offset
        if sight.end is None or offset is None:
            return None
        return bytes_behind(sight.files, offset.position, sight.end)

    def transactions_behind(self) -> float | None:
        """Transactions that the replica lacks."""
        offset = self.offset
        if offset is None or (sight := self.lookout.sight).end is None:
            return None
        return 0 if sight.end <= offset.position else transactions_behind(offset.gtid, sight.gtids)

    def purge_in(self) -> float | None:
        """Seconds until the source may purge the file that we need next."""
        offset, lookout = self.offset, self.lookout
        if offset is None:
            return None
        began = lookout.clock.moment(offset.binlog_created) if offset.binlog_created else None
        now = time.monotonic()
        return purge_in(lookout.sight, lookout.rotations, offset.position, began, now)

    def clock_ahead(self) -> float | None:
        """How far the source's clock is ahead of this machine's."""
        clock = self.lookout.clock
        return clock.wall(time.monotonic()) - time.time() if clock.known else None

    def _position(self) -> metrics.Values:
        offset = self.offset
        if offset is None:
            return None
        return {("replicator", offset.position.file): float(offset.position.offset)}

    def _copies(self) -> list[tuple[str, float, float, float]]:
        """Copies under way: of, rows, rows expected, tables left."""
        stage, resync = self.stage, self.resync
        copies: list[tuple[str, float, float, float]] = []
        if stage is not None:
            left = stage.tables - stage.tables_done
            copies.append(("first_copy", stage.rows, stage.rows_expected, left))
        if resync is not None:
            copies.append(("resync", resync.rows, max(resync.rows, resync.expected), 1))
        return copies


def _if_known(leg: str, value: float | None) -> metrics.Values:
    return None if value is None else {(leg,): value}

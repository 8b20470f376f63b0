"""Where leg 1 stands: how fresh the replica is, and what is known of the source beside the stream.

Left: what the daemon's loop notices, and a `Link` to the source. Right: leg 1's told metrics,
the status page's numbers, and every two seconds the horizon on the replica, by which the loader
knows how fresh `raw` is. It lives as long as the daemon; sessions come and go.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC
from functools import partial
from typing import Any, Final

from config import metrics, records
from config.clock import ServerClock
from config.connections import connect_mysql, connect_source
from config.errors import ReplicatorError
from config.freshness import Freshness, patience
from config.records import Horizon, RememberedHalts, VerifyNote
from config.settings import Settings
from replicator.binlog.link import Link, Place
from replicator.binlog.lookout import Lookout
from replicator.binlog.position import SourcePosition
from replicator.first_copy import CopyStage
from replicator.resync import Resync
from replicator.tracking import Offset, fetch

HORIZON_SECONDS: Final = 2.0


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
        lookout = Lookout(connect, self._period, SourcePosition)
        self.link = Link("replicator", self.freshness, lookout, self._place)
        self.replica_clock = ServerClock(time.time() - now)
        self.offset: Offset | None = None
        self.resync: Resync | None = None
        self.stage: CopyStage | None = None
        self.halts = RememberedHalts()
        self.verified: VerifyNote | None = None
        self._began = False
        self._sessions = 0
        self._next_horizon = 0.0
        self._tell()

    def _tell(self) -> None:
        self.link.tell()
        self.halts.tell()
        metrics.REPLICATOR_LAG.tell(self.link.lag)
        metrics.COPY_ROWS.tell(lambda: {(of,): rows for of, rows, _, _ in self._copies()})
        metrics.COPY_EXPECTED.tell(lambda: {(of,): rows for of, _, rows, _ in self._copies()})
        metrics.COPY_TABLES_LEFT.tell(lambda: {(of,): left for of, _, _, left in self._copies()})
        metrics.VERIFIED_AT.tell(lambda: self.verified.at if self.verified else None)
        metrics.VERIFIED_TABLES.tell(
            lambda: {
                (v,): float(n) for v, n in (self.verified.verdicts if self.verified else {}).items()
            }
        )

    # --- what the loop notices ----------------------------------------------------------

    def begin(self) -> None:
        """Before the first connection: take up what an earlier process noted, and look out."""
        self.link.lookout.start()
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
                    moment = self.replica_clock.moment(horizon.fresh_at)
                    self.freshness.begin(moment, time.monotonic())
            finally:
                connection.close()

    def opened(self, offset: Offset) -> None:
        """A session begins at the stored offset."""
        self._sessions += 1
        if self._sessions > 1:
            metrics.RECONNECTS.labels("replicator").inc()
        self.offset = offset
        self._committed(offset)

    def stepped(self, heard: float, offset: Offset, *, drained: bool) -> None:
        """The loop has come round; `drained`: all that had come by `heard` is committed."""
        self.offset = offset
        if drained:
            self.freshness.caught_up(heard)
        else:
            self._committed(offset)

    def _committed(self, offset: Offset) -> None:
        """By the source's clock, once that is known."""
        clock, commit = self.link.lookout.clock, offset.event_timestamp
        if commit is not None and clock.known:
            moment = clock.moment(commit.replace(tzinfo=UTC).timestamp())
            self.freshness.committed(moment, time.monotonic())

    def closed(self) -> None:
        """The session is over."""
        self.link.close()
        self.resync = self.stage = None

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
            self.link.lookout.clock.offset - clock.offset,
            time.time() - now - clock.offset,
        )
        records.write_horizon(connection, horizon)
        if self.halts.look(connection, now):
            self.verified = records.read_verify(connection)

    def _read_replica_clock(self, connection: Any) -> None:
        before = time.monotonic()
        wall = float(fetch(connection, "SELECT UNIX_TIMESTAMP(NOW(6))")[0][0])
        self.replica_clock.read(wall, before, time.monotonic())

    # --- what is known -------------------------------------------------------------------

    def lag(self) -> float:
        """Source commit to committed on the replica, seconds."""
        return self.link.lag()

    def _place(self) -> Place | None:
        offset = self.offset
        if offset is None:
            return None
        return Place(offset.position, offset.gtid, offset.binlog_created)

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

"""Where leg 2 stands: how fresh `raw` is, seen from the replica and seen from the source.

Left: what the session's loop notices, a `Link` to the replica, and the horizon that leg 1 notes
there. Right: leg 2's told metrics and the status page's numbers. It lives as long as the daemon;
sessions come and go.

Two things are kept apart. `fresh` is about the replica: all that it has is in `raw`. `whole` is
about the source: when nothing waits here and `raw` stands where leg 1's horizon stands, `raw` is
as fresh as that horizon. A commit's own moments (the source's, and leg 1's when it sent it on)
come with the rows, each by a clock that the horizon tells the distance of.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from config import metrics, records
from config.connections import connect_mysql
from config.freshness import Freshness, patience
from config.records import Horizon, RememberedHalts
from config.settings import Settings
from loader.lifecycle import Tables
from loader.tracking import Offset
from replicator.binlog.link import Link, Place
from replicator.binlog.lookout import Lookout
from replicator.binlog.position import ReplicaPosition, SourcePosition

LOOK_SECONDS: Final = 1.0
SIGHT_SECONDS: Final = 2.0
"""How long the first look at the replica is waited for at the start."""
HORIZON_LATE: Final = 5.0
"""How much older than the source's last sign of life leg 1's horizon is when it gets here."""


class Standing:
    """See the module. All but the metrics' questions is for the loop's thread, and the writer's."""

    def __init__(self, settings: Settings) -> None:
        now, server = time.monotonic(), settings.replication
        self._settings = settings
        self.fresh = Freshness(patience(settings.loader.heartbeat_seconds), now)
        self.whole = Freshness(patience(settings.replicator.heartbeat_seconds) + HORIZON_LATE, now)
        connect = partial(
            connect_mysql,
            server,
            database=server.db,
            read_timeout=settings.loader.heartbeat_seconds,
            write_timeout=settings.loader.heartbeat_seconds,
        )
        lookout = Lookout(connect, LOOK_SECONDS, ReplicaPosition, self._read_records)
        self.link = Link("loader", self.fresh, lookout, self._place)
        self.horizon: Horizon | None = None
        self.offset: Offset | None = None
        self.tables: Tables | None = None
        self.halts = RememberedHalts()
        self._sessions = 0
        self._tell()

    def _tell(self) -> None:
        self.link.tell()
        self.halts.tell()
        metrics.LOADER_LAG.tell(self.loader_lag)
        metrics.PIPELINE_LAG.tell(self.lag)
        metrics.TABLES.tell(lambda: {(s,): float(n) for s, n in self.states().items()})

    # --- what the loop notices ----------------------------------------------------------

    def begin(self) -> None:
        """Before the first connection of a session."""
        self.link.lookout.start()

    def opened(self, offset: Offset, tables: Tables) -> None:
        """A session begins at the stored offset."""
        self._sessions += 1
        if self._sessions > 1:
            metrics.RECONNECTS.labels("loader").inc()
        elif offset.source_ts and self.link.lookout.seen.wait(SIGHT_SECONDS):
            moment = self._source_moment(offset.source_ts)  # older than this process
            self.whole.begin(moment, time.monotonic())
            self.fresh.begin(moment, time.monotonic())
        self.offset, self.tables = offset, tables

    def arrived(self, now: float) -> None:
        """Something has come from the replica."""
        self.fresh.arrived(now)
        self.whole.arrived(now)

    def written(self, offset: Offset) -> None:
        """A batch that ends here is committed."""
        if not self.link.lookout.clock.known:
            return  # no moment of the replica's can be told yet
        now = time.monotonic()
        if offset.applied_at:
            ahead = self.horizon.replicator_ahead if self.horizon else 0.0
            self.fresh.committed(self._moment(_seconds(offset.applied_at) - ahead), now)
        if offset.source_ts:
            moment = self._source_moment(offset.source_ts)
            self.whole.committed(moment, now)
            metrics.PIPELINE_DELAY.observe(max(0.0, now - moment))

    def caught_up(self, heard: float, offset: Offset) -> None:
        """All is written that had come from the replica by `heard`."""
        self.fresh.caught_up(heard)
        horizon, source = self.horizon, offset.source
        if horizon is None or source is None:
            return
        if source < SourcePosition(horizon.file, horizon.offset):
            return  # leg 1 was quicker with its horizon than the stream with its rows
        moment = min(heard, self._moment(horizon.fresh_at))
        if horizon.caught_up:
            self.whole.caught_up(moment)
        else:
            self.whole.committed(moment, heard)
            self.whole.lost()

    def closed(self) -> None:
        """The session is over."""
        self.whole.lost()
        self.link.close()

    def _read_records(self, connection: Any) -> None:
        self.horizon = records.read_horizon(connection)
        self.halts.look(connection, time.monotonic())

    def _source_moment(self, source_ts: str) -> float:
        ahead = self.horizon.source_ahead if self.horizon else 0.0
        return self._moment(_seconds(source_ts) - ahead)

    def _moment(self, replica_time: float) -> float:
        return self.link.lookout.clock.moment(replica_time)

    # --- what is known -------------------------------------------------------------------

    def lag(self) -> float:
        """Source commit to committed in `raw`, seconds."""
        return max(self.whole.lag(time.monotonic()), self.loader_lag())

    def loader_lag(self) -> float:
        """Committed on the replica to committed in `raw`, seconds."""
        return self.link.lag()

    def states(self) -> Counter[str]:
        """How many tables are in which state."""
        known = list(self.tables.by_name.values()) if self.tables else []
        return Counter(table.state for table in known)

    def _place(self) -> Place | None:
        offset = self.offset
        if offset is None:
            return None
        server, _, number = offset.gtid.rpartition(":")
        have = f"{server}:1-{number}" if server else offset.gtid  # MySQL's: all up to there
        return Place(offset.replica, have, offset.created)


def _seconds(utc: str) -> float:
    """A moment as the replica or PostgreSQL writes it, in seconds since 1970. Pure."""
    moment = datetime.fromisoformat(utc.removesuffix("+00"))
    return moment.replace(tzinfo=UTC).timestamp()

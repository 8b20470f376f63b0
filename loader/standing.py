"""Where leg 2 stands: how fresh `raw` is, seen from the replica and seen from the source.

Left: what the session's loop notices, a `Lookout` of the replica, and the horizon that leg 1 notes
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
from config.records import HaltNote, Horizon
from config.settings import Settings
from loader.lifecycle import Tables
from loader.tracking import Offset
from replicator.binlog.ahead import AheadStream
from replicator.binlog.lookout import Lookout, bytes_behind, purge_in, transactions_behind
from replicator.binlog.position import ReplicaPosition, SourcePosition

LOOK_SECONDS: Final = 1.0
HORIZON_LATE: Final = 5.0
"""How much older than the source's last sign of life leg 1's horizon is when it gets here."""
RECORDS_SECONDS: Final = 10.0


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
        self.lookout = Lookout(connect, LOOK_SECONDS, ReplicaPosition, self._read_records)
        self.horizon: Horizon | None = None
        self.offset: Offset | None = None
        self.stream: AheadStream | None = None
        self.tables: Tables | None = None
        self.halts: list[HaltNote] = []
        self._sessions = 0
        self._next_records = 0.0
        self._counted: set[HaltNote] = set()
        self._tell()

    def _tell(self) -> None:
        leg = "loader"
        metrics.LOADER_LAG.tell(self.loader_lag)
        metrics.PIPELINE_LAG.tell(self.lag)
        metrics.STREAM_UP.tell(lambda: {(leg,): float(self.streaming)})
        metrics.HEARD_AGE.tell(lambda: _if_known(leg, self.heard_age()))
        metrics.BYTES_BEHIND.tell(lambda: _if_known(leg, self.bytes_behind()))
        metrics.TRANSACTIONS_BEHIND.tell(lambda: _if_known(leg, self.transactions_behind()))
        metrics.PURGE_IN.tell(lambda: _if_known(leg, self.purge_in()))
        metrics.CLOCK_AHEAD.tell(lambda: _if_known(leg, self.clock_ahead()))
        metrics.POSITION.tell(self._position)
        metrics.TABLES.tell(lambda: {(s,): float(n) for s, n in self.states().items()})
        metrics.LAST_HALT.tell(lambda: {(n.leg,): n.at for n in reversed(self.halts)})

    # --- what the loop notices ----------------------------------------------------------

    def begin(self) -> None:
        """Before the first connection of a session."""
        self.lookout.start()

    def opened(self, offset: Offset, tables: Tables) -> None:
        """A session begins at the stored offset."""
        self._sessions += 1
        if self._sessions > 1:
            metrics.RECONNECTS.labels("loader").inc()
        elif offset.source_ts:  # older than this process: it takes up what is stored
            moment = self._source_moment(offset.source_ts)
            self.whole.begin(moment)
            self.fresh.begin(moment)
        self.offset, self.tables = offset, tables

    def arrived(self, now: float) -> None:
        """Something has come from the replica."""
        self.fresh.arrived(now)
        self.whole.arrived(now)

    def written(self, offset: Offset) -> None:
        """A batch that ends here is committed."""
        if offset.applied_at:
            ahead = self.horizon.replicator_ahead if self.horizon else 0.0
            self.fresh.committed(self.lookout.clock.moment(_seconds(offset.applied_at) - ahead))
        if offset.source_ts:
            moment = self._source_moment(offset.source_ts)
            self.whole.committed(moment)
            metrics.PIPELINE_DELAY.observe(max(0.0, time.monotonic() - moment))

    def caught_up(self, heard: float, offset: Offset) -> None:
        """All is written that had come from the replica by `heard`."""
        self.fresh.caught_up(heard)
        horizon, source = self.horizon, offset.source
        if horizon is None or source is None:
            return
        if source < SourcePosition(horizon.file, horizon.offset):
            return  # leg 1 was quicker with its horizon than the stream with its rows
        moment = min(heard, self.lookout.clock.moment(horizon.fresh_at))
        if horizon.caught_up:
            self.whole.caught_up(moment)
        else:
            self.whole.committed(moment)
            self.whole.lost()

    def closed(self) -> None:
        """The session is over."""
        self.fresh.lost()
        self.whole.lost()
        self.lookout.close()
        self.stream = None

    def _read_records(self, connection: Any) -> None:
        self.horizon = records.read_horizon(connection)
        now = time.monotonic()
        if now >= self._next_records:
            self._next_records = now + RECORDS_SECONDS
            self.halts = records.read_halts(connection)
            records.count_new(self.halts, self._counted)

    def _source_moment(self, source_ts: str) -> float:
        ahead = self.horizon.source_ahead if self.horizon else 0.0
        return self.lookout.clock.moment(_seconds(source_ts) - ahead)

    # --- what is known -------------------------------------------------------------------

    def lag(self) -> float:
        """Source commit to committed in `raw`, seconds."""
        return max(self.whole.lag(time.monotonic()), self.loader_lag())

    def loader_lag(self) -> float:
        """Committed on the replica to committed in `raw`, seconds."""
        return self.fresh.lag(time.monotonic())

    @property
    def streaming(self) -> bool:
        """Is the stream open, and was something heard in time?"""
        age = self.heard_age()
        return age is not None and age <= self.fresh.patience

    def heard_age(self) -> float | None:
        """Seconds since the replica was last heard on the stream; None where there is none."""
        stream = self.stream
        return None if stream is None else max(0.0, time.monotonic() - stream.heard)

    def bytes_behind(self) -> float | None:
        """Bytes of the replica's binlog that `raw` lacks, as the replica told last."""
        sight, offset = self.lookout.sight, self.offset
        if sight.end is None or offset is None:
            return None
        return bytes_behind(sight.files, offset.replica, sight.end)

    def transactions_behind(self) -> float | None:
        """Transactions of the replica that `raw` lacks."""
        offset = self.offset
        if offset is None or (sight := self.lookout.sight).end is None:
            return None
        if sight.end <= offset.replica:
            return 0
        server, _, number = offset.gtid.rpartition(":")
        have = f"{server}:1-{number}" if server else offset.gtid  # MySQL's: all up to there
        return transactions_behind(have, sight.gtids)

    def purge_in(self) -> float | None:
        """Seconds until the replica may purge the file that we need next."""
        offset, lookout = self.offset, self.lookout
        if offset is None:
            return None
        began = lookout.clock.moment(offset.created) if offset.created else None
        now = time.monotonic()
        return purge_in(lookout.sight, lookout.rotations, offset.replica, began, now)

    def clock_ahead(self) -> float | None:
        """How far the replica's clock is ahead of this machine's."""
        clock = self.lookout.clock
        return clock.wall(time.monotonic()) - time.time() if clock.known else None

    def states(self) -> Counter[str]:
        """How many tables are in which state."""
        known = list(self.tables.by_name.values()) if self.tables else []
        return Counter(table.state for table in known)

    def _position(self) -> metrics.Values:
        offset = self.offset
        if offset is None:
            return None
        return {("loader", offset.replica.file): float(offset.replica.offset)}


def _seconds(utc: str) -> float:
    """A moment as the replica or PostgreSQL writes it, in seconds since 1970. Pure."""
    moment = datetime.fromisoformat(utc.removesuffix("+00"))
    return moment.replace(tzinfo=UTC).timestamp()


def _if_known(leg: str, value: float | None) -> metrics.Values:
    return None if value is None else {(leg,): value}

"""`replicator status`: where both legs stand, and how far behind, from what is stored.

Left: an `Observer`. Right: a `Status` of plain values, good for JSON and for a
terminal. A server out of reach leaves its part empty and is named; nothing is
estimated: what cannot be known is None.

Lag in seconds is the age of the newest source commit that a leg has written, and 0
when the leg has written all there is. Rates are what the daemons themselves counted
between two looks at their metrics; bytes a second come from the two positions.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from config.errors import ReplicatorError, translated
from config.settings import Settings
from replicator.binlog.lookout import bytes_behind
from replicator.binlog.position import BinlogPosition
from replicator.cli.observation import Observer, has_table
from replicator.cli.quarantine import rows_by_table
from replicator.cli.scrape import LegCounters, scrape
from replicator.resync_requests import RequestState
from replicator.tracking import fetch

RATE_SECONDS = 1.0
_ENDED = (RequestState.DONE, RequestState.FAILED)


@dataclass(slots=True)
class Leg:
    """One leg as it stands; positions of what it reads, and of what it has written."""

    running: bool | None = None
    paused_since: str | None = None
    """Since when `replicator pause` holds it; its daemon may be up, but does nothing."""
    position: str | None = None
    source_position: str | None = None
    source_commit_time: str | None = None
    lag_bytes: int | None = None
    lag_seconds: float | None = None
    bytes_per_second: float | None = None
    transactions_per_second: float | None = None
    rows_per_second: float | None = None


@dataclass(slots=True)
class Table:
    """A table's state in both legs; None where a leg does not know the table."""

    name: str
    replica: str | None = None
    raw: str | None = None
    last_extracted: str | None = None
    last_transformed: str | None = None
    replica_schema_hash: str | None = None
    raw_schema_hash: str | None = None
    schema_changed_at: str | None = None
    """When `raw` took its present schema on."""
    quarantined: int = 0
    """Rows that PostgreSQL refused."""
    masked: int = 0
    """Columns that are masked in `raw`, or not there for a mask's sake."""
    renamed_to: str | None = None
    """Where the table went whose last rows readers of this name still see (see `standing`)."""


@dataclass(frozen=True, slots=True)
class Request:
    """A resync that is under way or that failed last."""

    id: int
    table: str
    state: str
    rows_copied: int
    rows_total: int
    message: str | None


@dataclass(slots=True)
class Status:
    """Everything that `status` shows."""

    source_position: str | None = None
    replicator: Leg = field(default_factory=Leg)
    loader: Leg = field(default_factory=Leg)
    tables: list[Table] = field(default_factory=list)
    resyncs: list[Request] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    copy_bytes_per_second: int | None = None
    """What `replicator throttle` asks for, 0 for no ceiling; None: as the settings say."""

    @property
    def healthy(self) -> bool:
        """Do both daemons work, with all servers in reach? A paused one does not."""
        return not self.unreachable and bool(self.replicator.running and self.loader.running)

    def as_json(self) -> dict[str, Any]:
        """Plain values, the verdict included."""
        return {"healthy": self.healthy, **asdict(self)}

    def states(self) -> Counter[tuple[str, str]]:
        """How many tables are in which pair of states."""
        return Counter((t.replica or "-", t.raw or "-") for t in self.tables)


@dataclass(slots=True)
class _Positions:
    """The ends that lag is measured between, and the clock that it is measured by."""

    source: BinlogPosition | None = None
    source_time: datetime | None = None
    """What time it is there, in UTC."""
    applied: BinlogPosition | None = None
    replica: BinlogPosition | None = None
    loaded: BinlogPosition | None = None


def read_status(
    observer: Observer, *, rates: bool = True, pause: Callable[[float], None] = time.sleep
) -> Status:
    """Look at everything; with `rates`, twice, `RATE_SECONDS` apart."""
    before = _Positions()
    began = time.monotonic()
    first = _counters(observer.settings) if rates else None
    if rates:
        _look(observer, Status(), before, tables=False)
        pause(RATE_SECONDS)
    status, now = Status(), _Positions()
    _look(observer, status, now, tables=True)
    if first is not None:
        seconds = time.monotonic() - began
        second = _counters(observer.settings)
        for leg, old, new, name in (
            (status.replicator, before.applied, now.applied, "replicator"),
            (status.loader, before.loaded, now.loaded, "loader"),
        ):
            leg.bytes_per_second = _bytes_rate(old, new, seconds)
            leg.transactions_per_second, leg.rows_per_second = second[name].rates_since(
                first[name], seconds
            )
    return status


def _counters(settings: Settings) -> dict[str, LegCounters]:
    return {
        "replicator": scrape(
            settings.replicator.metrics_host, settings.replicator.metrics_port, "replicator"
        ),
        "loader": scrape(settings.loader.metrics_host, settings.loader.metrics_port, "loader"),
    }


def _bytes_rate(
    old: BinlogPosition | None, new: BinlogPosition | None, seconds: float
) -> float | None:
    if old is None or new is None or old.file != new.file:
        return None
    return round((new.offset - old.offset) / seconds, 1)


def _look(observer: Observer, status: Status, at: _Positions, *, tables: bool) -> None:
    parts: list[Callable[[Observer, Status, _Positions], None]] = [
        _source,
        _asked,
        _replica,
        _analytics,
    ]
    if tables:
        parts += [_replica_tables, _raw_tables, _quarantine]
    for part in parts:
        try:
            part(observer, status, at)
        except ReplicatorError as error:
            if str(error) not in status.unreachable:
                status.unreachable.append(str(error))
    status.tables.sort(key=lambda table: table.name)


def _source(observer: Observer, status: Status, at: _Positions) -> None:
    at.source, at.source_time = observer.source_position(), observer.source_time()
    status.source_position = str(at.source)


def _asked(observer: Observer, status: Status, _at: _Positions) -> None:
    asked = observer.asked()
    status.copy_bytes_per_second = asked.copy_rate
    for name, leg in (("replicator", status.replicator), ("loader", status.loader)):
        leg.paused_since = _moment(asked.paused.get(name))


def _replica(observer: Observer, status: Status, at: _Positions) -> None:
    leg = status.replicator
    leg.running = observer.replicator_runs()
    at.replica = observer.replica_position()
    offset = observer.replica_offset()
    if offset is None:
        return
    at.applied = offset.position
    leg.position = leg.source_position = str(offset.position)
    moment = offset.event_timestamp
    leg.source_commit_time = moment.replace(tzinfo=UTC).isoformat() if moment else None
    if at.source is not None:
        # Read before the offset, so a busy source shows no lag that is not there.
        leg.lag_bytes = bytes_behind(observer.source_files(), at.applied, at.source)
        leg.lag_seconds = _age(leg, at.source_time)


def _analytics(observer: Observer, status: Status, at: _Positions) -> None:
    leg = status.loader
    leg.running = observer.loader_runs()
    offset = observer.raw_offset()
    if offset is None:
        return
    at.loaded = offset.replica
    leg.position = str(offset.replica)
    leg.source_position = str(offset.source) if offset.source else None
    leg.source_commit_time = offset.source_ts
    if at.replica is not None:
        leg.lag_bytes = bytes_behind(observer.replica_files(), at.loaded, at.replica)
    shown = offset.source
    if at.source is not None and shown is not None:
        leg.lag_seconds = 0.0 if shown >= at.source else _age(leg, at.source_time)


def _age(leg: Leg, now: datetime | None) -> float | None:
    """Seconds since the source committed what the leg wrote last; 0 when that is all there is.

    Both moments are by the source's clock, which may be another than ours.
    """
    if leg.lag_bytes == 0:
        return 0.0
    if leg.source_commit_time is None or now is None:
        return None
    moment = datetime.fromisoformat(leg.source_commit_time)
    return round(max(0.0, (now - moment).total_seconds()), 3)


def _table(status: Status, name: str) -> Table:
    for table in reversed(status.tables):
        if table.name == name:
            return table
    status.tables.append(Table(name))
    return status.tables[-1]


def _replica_tables(observer: Observer, status: Status, _at: _Positions) -> None:
    if not observer.has_tracking():
        return
    with translated(observer.settings.replication.label):
        rows = fetch(
            observer.replica,
            "SELECT table_name, extraction_status, last_extracted, schema_hash"
            " FROM etl_extract_status",
        )
        status.tables += [
            Table(n, state, None, _moment(when), replica_schema_hash=digest)
            for n, state, when, digest in rows
        ]
        status.resyncs = read_requests(observer.replica)


def _raw_tables(observer: Observer, status: Status, _at: _Positions) -> None:
    connection = observer.analytics
    with translated(observer.settings.analytics.label):
        if not has_table(connection, "etl_transform_status"):
            return
        known = {table.name: table for table in status.tables}
        for name, state, when in connection.execute(
            "SELECT table_name, transformation_status, last_transformed FROM etl_transform_status"
        ):
            table = known.get(name) or _table(status, name)
            table.raw, table.last_transformed = state, _moment(when)
            known[name] = table
        if not has_table(connection, "etl_standing"):
            return  # a loader that is just making its tables
        for name, digest, when, moved_to, masked in connection.execute(
            "SELECT table_name, schema_hash, changed_at, moved_to, coalesce(jsonb_array_length("
            "jsonb_path_query_array(definition, '$.columns[*].mask')), 0) FROM etl_table_schema"
            " FULL JOIN etl_standing USING (table_name)"
        ):
            table = known.get(name) or _table(status, name)
            table.raw_schema_hash, table.schema_changed_at = digest, _moment(when)
            table.renamed_to, table.masked = moved_to, masked


def _quarantine(observer: Observer, status: Status, _at: _Positions) -> None:
    known = {table.name: table for table in status.tables}
    for name, count in rows_by_table(observer).items():
        table = known.get(name) or _table(status, name)
        table.quarantined = count


def _moment(when: datetime | None) -> str | None:
    if when is None:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def read_requests(connection: Any) -> list[Request]:
    """Resyncs that have not ended, and tables' last ones where they failed."""
    rows = fetch(
        connection,
        "SELECT r.id, r.table_name, r.state, r.rows_copied, r.rows_total, r.message"
        " FROM etl_resync_request r WHERE r.state NOT IN (%s, %s) OR (r.state = %s AND NOT EXISTS"
        " (SELECT 1 FROM etl_resync_request n WHERE n.table_name = r.table_name AND n.id > r.id))"
        " ORDER BY r.id",
        [*_ENDED, RequestState.FAILED],
    )
    return [Request(*row) for row in rows]

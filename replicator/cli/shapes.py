"""Which tables there are on the three servers, of which shape, and in which state.

Left: catalogs and tracking tables, the source's first, the others once they have
caught up with it. Right: what can be compared, and for the rest the reason why not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from config.errors import translated
from config.tables import TableRules
from loader import schema as raw_schema
from loader import tracking as raw_tracking
from loader.ddl.shapes import predictions
from loader.load.reload import shape_of
from loader.masking import masker_of
from loader.types import raw_name
from replicator import source as src
from replicator import tracking
from replicator.binlog.schema import TableSchema, schemas_from_catalog
from replicator.cli.barrier import Barrier
from replicator.cli.observation import Observer, has_table
from replicator.cli.report import DIFFERENT, NOT_COMPARABLE, TableReport

STREAMING = "streaming"


@dataclass(slots=True)
class Shapes:
    """The tables by name. `rows`: the source's estimates."""

    source: dict[str, TableSchema] = field(default_factory=dict)
    replica: dict[str, TableSchema] = field(default_factory=dict)
    raw: dict[str, raw_schema.RawTable] = field(default_factory=dict)
    replica_states: dict[str, str] = field(default_factory=dict)
    raw_states: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    masked: dict[str, TableSchema] = field(default_factory=dict)
    """The replica's, with the masks that `raw` has them under."""
    predicted: set[str] = field(default_factory=set)
    """Those whose shape in `raw` the loader has worked out and not confirmed yet."""

    @property
    def names(self) -> set[str]:
        """Every table that at least one server has."""
        raw = {name for name, state in self.raw_states.items() if state != raw_tracking.DROPPED}
        return set(self.source) | set(self.replica) | raw

    def unready(self, name: str) -> list[tuple[str, str]]:
        """(side, reason) for each leg that does not stream the table yet."""
        said = []
        on_replica, in_raw = self.replica_states.get(name), self.raw_states.get(name)
        if name in self.source and on_replica != STREAMING:
            said.append(("replica", f"not streaming on the replica: {on_replica or 'unknown'}"))
        if name in self.replica and in_raw != STREAMING:
            said.append(("raw", f"not streaming in raw: {in_raw or 'unknown'}"))
        return said

    def passing(self, name: str) -> bool:
        """Is the table in a state that ends by itself, and soon?"""
        return (
            name in self.predicted
            or self.raw_states.get(name) in (raw_tracking.RELOADING, raw_tracking.LOADING)
            or self.replica_states.get(name) == tracking.TableState.RECONCILING
        )

    def faults_of(self, name: str) -> list[tuple[str, str]]:
        """(side, reason) for each difference in shape between servers that stream the table."""
        said: list[tuple[str, str]] = []
        waiting = {side for side, _ in self.unready(name)}
        source, replica = self.source.get(name), self.replica.get(name)
        if "replica" not in waiting:
            said += [("replica", reason) for reason in _schema_faults(source, replica)]
        if "raw" not in waiting:
            raw = self.raw.get(raw_name(name))
            stays = self.raw_states.get(name) not in (None, raw_tracking.DROPPED)
            masked = self.masked.get(name, replica)
            said += [("raw", reason) for reason in _raw_faults(masked, raw, streams=stays)]
        return said

    def comparable_on_replica(self, name: str) -> bool:
        """Can the source's rows be compared with the replica's?"""
        sides = {side for side, _ in (*self.unready(name), *self.faults_of(name))}
        return name in self.source and name in self.replica and "replica" not in sides

    def comparable_in_raw(self, name: str) -> bool:
        """Can the replica's rows be compared with those in `raw`?"""
        sides = {side for side, _ in (*self.unready(name), *self.faults_of(name))}
        return name in self.replica and "raw" not in sides

    def judge(self, report: TableReport) -> None:
        """Write into a report what keeps its table from being compared."""
        for side, reason in self.unready(report.name):
            (report.replica if side == "replica" else report.raw).worsen(NOT_COMPARABLE, reason)
        for side, reason in self.faults_of(report.name):
            (report.replica if side == "replica" else report.raw).worsen(DIFFERENT, reason)


def _schema_faults(source: TableSchema | None, replica: TableSchema | None) -> list[str]:
    if source is None and replica is None:
        return []
    if replica is None:
        return ["the replica lacks the table"]
    if source is None:
        return ["the source has no such table"]
    if source.hash == replica.hash:
        return []
    left = {column.name: column for column in source.columns}
    right = {column.name: column for column in replica.columns}
    names = [n for n in {**left, **right} if left.get(n) != right.get(n)]
    return [f"schema differs: {', '.join(names) or 'order of columns'}"]


def _raw_faults(
    replica: TableSchema | None, raw: raw_schema.RawTable | None, *, streams: bool
) -> list[str]:
    if replica is None:
        return ["raw has the table, the replica has not"] if raw is not None and streams else []
    if raw is None:
        return ["raw lacks the table"]
    change = raw_schema.diff(raw, shape_of(replica))
    said = [f"raw has column {name}, the replica has not" for name in change.dropped]
    said += [f"raw lacks column {column.name}" for column in change.added]
    said += [f"raw has another type for column {column.name}" for column in change.retyped]
    if change.key_changed:
        said.append("raw has another primary key")
    return said  # columns that were retired for a view's sake are not among them


def read_shapes(observer: Observer, rules: TableRules, barrier: Barrier) -> Shapes:
    """Read all catalogs, each behind the one before."""
    settings = observer.settings
    shapes = Shapes()
    with translated(settings.source.label):
        found = schemas_from_catalog(observer.source, settings.source.db)
        shapes.source = {n: s for n, s in found.items() if rules.carries(n)}
        tables = src.base_tables(observer.source, settings.source.db)
    barrier.replica_shows_source()
    with translated(settings.replication.label):
        found = schemas_from_catalog(observer.replica, settings.replication.db)
        shapes.replica = {n: s for n, s in found.items() if rules.carries(n)}
        shapes.masked = masker_of(settings, rules).schemas(shapes.replica)
        states = tracking.table_states(observer.replica)
        shapes.replica_states = {n: s for n, s in states.items() if rules.carries(n)}
        offset = tracking.read_offset(observer.replica, tracking.MAIN)
    shapes.rows = dict.fromkeys(shapes.names, 0) | {t.name: t.rows for t in tables}
    if offset is not None:
        barrier.raw_shows(offset.position)
    with translated(settings.analytics.label):
        _read_raw(observer, rules, shapes)
    return shapes


def _read_raw(observer: Observer, rules: TableRules, shapes: Shapes) -> None:
    connection = observer.analytics
    if not has_table(connection, "etl_transform_status"):
        return
    statuses = raw_tracking.read_statuses(connection)
    shapes.raw_states = {n: s.state for n, s in statuses.items() if rules.carries(n)}
    if has_table(connection, "etl_table_schema"):
        shapes.predicted = set(predictions(connection))
    wanted = {raw_name(name) for name in shapes.names}
    shapes.raw = raw_schema.read_tables(connection, wanted)

"""`replicator verify`: is it all there, exactly, on the replica and in `raw`?

Left: settings, and which tables. Right: a `Report`, and which rows are `Wrong`. First every
table is summed up once on every server; whatever differs is looked at again, key by key, until
it is equal, certain, or the patience is at its end. Everything streams on meanwhile.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Literal

from config.errors import translated
from config.settings import Settings
from config.tables import TableRules
from replicator import tracking
from replicator.binlog.schema import TableSchema
from replicator.cli import keys
from replicator.cli.barrier import Barrier, NotCaughtUp
from replicator.cli.observation import Observer
from replicator.cli.quarantine import read_entries, rows, rows_by_table
from replicator.cli.raw_compare import RawComparison
from replicator.cli.report import (
    DIFFERENT,
    NOT_COMPARABLE,
    UNSETTLED,
    Comparison,
    Report,
    TableReport,
)
from replicator.cli.resync import chosen
from replicator.cli.settling import Settled, Sides, settle
from replicator.cli.shapes import Shapes, read_shapes
from replicator.cli.source_compare import (
    WHOLE,
    Chunk,
    SourceComparison,
    Suspect,
    TableChangedMeanwhile,
)

MOST_KEYS = 500
"""Differing keys that are told of one table; beyond, it is simply wrong."""
ATTEMPTS = 3
Where = Literal["replica", "raw"]
"""Which side of a table's report: source and replica, or replica and raw."""
Wrong = dict[tuple[str, Where], set[keys.Literals]]
"""The keys of the rows that differ, as literals of MySQL; `WHOLE` where they have none."""
Progress = Callable[[int, int], None]
"""Called with the tables that are done, and all."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to compare: `patience` is what each wait and the settling of rows may take, seconds."""

    chunk_rows: int = 10_000
    patience: float = 60.0


def verify(
    settings: Settings,
    rules: TableRules,
    tables: Sequence[str] = (),
    options: Options | None = None,
    progress: Progress = lambda _done, _all: None,
) -> Report:
    """Compare `tables`, or everything; raises ConfigError for a table that nobody has."""
    return examine(settings, rules, tables, options, progress)[0]


def examine(
    settings: Settings,
    rules: TableRules,
    tables: Sequence[str] = (),
    options: Options | None = None,
    progress: Progress = lambda _done, _all: None,
) -> tuple[Report, Wrong]:
    """The same, and the rows that differ for certain, or were too many to be looked at again."""
    began = time.monotonic()
    with Observer(settings) as observer:
        verifier = _Verifier(observer, rules, options or Options(), progress)
        report = verifier.run(tables)
    report.seconds = time.monotonic() - began
    return report, verifier.wrong


@dataclass(frozen=True, slots=True)
class _Side:
    """Two servers that are compared: how, in which batches, and what the first look finds.

    `steady`: may a difference be believed now? `before`: tables that the other side was asked for.
    """

    where: Where
    schemas: Mapping[str, TableSchema]
    servers: SourceComparison | RawComparison
    batches: Callable[[Iterable[Chunk]], Iterable[list[Chunk]]]
    first_look: Callable[[Sequence[Chunk]], dict[Suspect, Sides]]
    steady: Callable[[Suspect], bool] = lambda _suspect: True
    before: int = 0


class _Verifier:
    def __init__(
        self, observer: Observer, rules: TableRules, options: Options, progress: Progress
    ) -> None:
        self._observer = observer
        self._settings = observer.settings
        self._rules = rules
        self._options = options
        self._progress = progress
        self._barrier = Barrier(observer, options.patience)
        self._reports: dict[str, TableReport] = {}
        self.wrong: Wrong = {}

    def run(self, names: Sequence[str]) -> Report:
        report = Report()
        try:
            self._compare(names)
        except NotCaughtUp as late:
            report.stopped = str(late)
        self._count_quarantine()
        report.tables = [self._reports[name] for name in sorted(self._reports)]
        return report

    def _count_quarantine(self) -> None:
        """A table whose rows PostgreSQL refused is not the same, and this is why."""
        for name, count in rows_by_table(self._observer).items():
            report = self._reports.get(name)
            if report is None:
                continue
            report.raw.worsen(
                DIFFERENT, f"{rows(count)} in quarantine (replicator quarantine list {name})"
            )
            held = {one.shown for one in read_entries(self._observer, name)}
            refused = self.wrong.get((name, "raw"), set())
            refused -= {key for key in refused if _named((name, key)) in held}
            report.raw.keys = [
                f"{key} (in quarantine)" if key.rpartition(" ")[0] in held else key
                for key in report.raw.keys
            ]

    def _compare(self, names: Sequence[str]) -> None:
        shapes = read_shapes(self._observer, self._rules, self._barrier)
        wanted = chosen(names, shapes.names) if names else sorted(shapes.names)
        pending = set(wanted)
        deadline = time.monotonic() + self._options.patience
        for attempt in itertools.count(1):
            self._reports.update({name: TableReport(name) for name in pending})
            self.wrong = {
                place: rows for place, rows in self.wrong.items() if place[0] not in pending
            }
            passing = self._passing(shapes, pending) if time.monotonic() < deadline else set()
            last = attempt >= ATTEMPTS
            pending = passing | self._attempt(shapes, sorted(pending - passing), last=last)
            if not pending or (last and not passing):
                break
            time.sleep(0.5)
            shapes = read_shapes(self._observer, self._rules, self._barrier)
        for name in pending:
            self._reports[name].replica.worsen(
                NOT_COMPARABLE, "its definition changed while it was compared"
            )

    def _passing(self, shapes: Shapes, names: Iterable[str]) -> set[str]:
        """Tables that a running daemon will soon have reloaded."""
        found = {name for name in names if shapes.passing(name)}
        if found and self._observer.replicator_runs() and self._observer.loader_runs():
            return found
        return set()

    def _attempt(self, shapes: Shapes, names: list[str], *, last: bool) -> set[str]:
        """Compare the tables once; the names of those to be compared anew."""
        again = {name for name in names if shapes.faults_of(name)}
        if last:
            for name in again:
                shapes.judge(self._reports[name])
                for where, _reason in shapes.faults_of(name):
                    self._add(name, "raw" if where == "raw" else "replica", WHOLE)
            again = set()
        ready = [name for name in names if not shapes.faults_of(name)]
        for name in list(ready):
            if shapes.unready(name):
                shapes.judge(self._reports[name])
        both = [name for name in ready if shapes.comparable_on_replica(name)]
        again |= self._source_side(shapes, both)
        again |= self._raw_side(shapes, [n for n in ready if shapes.comparable_in_raw(n)])
        return again

    # --- one side after the other --------------------------------------------------------

    def _source_side(self, shapes: Shapes, names: list[str]) -> set[str]:
        comparison = SourceComparison(self._settings, self._barrier, self._options.chunk_rows)

        def first_look(batch: Sequence[Chunk]) -> dict[Suspect, Sides]:
            found: dict[Suspect, Sides] = {}
            for compared in comparison.compare(batch):
                report = self._reports[compared.chunk.table]
                report.rows += compared.rows
                report.chunks += 1
                if not compared.equal:
                    found.update(comparison.drill(compared.chunk))
            return found

        with closing(comparison):
            side = _Side("replica", shapes.replica, comparison, comparison.batches, first_look)
            return self._compare_side(side, shapes, names)

    def _raw_side(self, shapes: Shapes, names: list[str]) -> set[str]:
        comparison = RawComparison(self._settings, self._barrier, self._options.chunk_rows)
        batches = partial(_batches, chunk_rows=self._options.chunk_rows)
        with closing(comparison):
            side = _Side(
                "raw", shapes.masked, comparison, batches, comparison.compare,
                steady=self._raw_is_steady, before=len(names),
            )  # fmt: skip
            return self._compare_side(side, shapes, names)

    def _compare_side(self, side: _Side, shapes: Shapes, names: list[str]) -> set[str]:
        """Look at every chunk once, then judge what differed; the tables to be compared anew."""
        changed: set[str] = set()
        suspects: dict[Suspect, Sides] = {}

        def chunks() -> Iterator[Chunk]:
            for done, name in enumerate(names, side.before + 1):
                try:
                    yield from side.servers.chunks(side.schemas[name], shapes.rows[name])
                except TableChangedMeanwhile as error:
                    changed.update(error.tables)
                self._progress(done, 2 * len(names))

        def look(batch: Sequence[Chunk]) -> None:
            suspects.update(side.first_look(batch))

        for batch in side.batches(chunks()):
            changed |= _one_by_one(batch, look)
        return changed | self._settle(suspects, side, shapes)

    def _raw_is_steady(self, suspect: Suspect) -> bool:
        """Is nobody reloading the table in `raw` at this moment?"""
        with translated(self._settings.analytics.label):
            row = self._observer.analytics.execute(
                "SELECT transformation_status FROM etl_transform_status WHERE table_name = %s",
                [suspect[0]],
            ).fetchone()
        with translated(self._settings.replication.label):
            loading = tracking.fetch(
                self._observer.replica,
                "SELECT 1 FROM etl_resync_request WHERE state='loading' AND table_name=%s",
                [suspect[0]],
            )
        return row is not None and row[0] == "streaming" and not loading

    # --- settling ------------------------------------------------------------------------

    def _settle(self, suspects: dict[Suspect, Sides], side: _Side, shapes: Shapes) -> set[str]:
        """Judge the suspects; the tables whose definition changed meanwhile."""
        changed: set[str] = set()
        kept = self._limited(suspects, shapes, side.where)

        def look_again(wanted: Sequence[Suspect]) -> dict[Suspect, Sides]:
            found: dict[Suspect, Sides] = {}
            for table, group in _by_table(wanted).items():
                try:
                    found.update(side.servers.look(side.schemas[table], group))
                except TableChangedMeanwhile:
                    changed.add(table)
            return found

        settled = settle(
            kept,
            look_again,
            deadline=time.monotonic() + self._options.patience,
            clock=time.monotonic,
            pause=time.sleep,
            steady=side.steady,
        )
        self._note(settled, shapes, side.where)
        return changed

    def _side(self, table: str, where: Where) -> Comparison:
        report = self._reports[table]
        return report.raw if where == "raw" else report.replica

    def _add(self, table: str, where: Where, key: keys.Literals) -> None:
        self.wrong.setdefault((table, where), set()).add(key)

    def _add_row(self, table: str, where: Where, key: keys.Literals, shapes: Shapes) -> None:
        """`raw` names its rows by PostgreSQL's text, which is a literal where it is a number."""
        literal = where == "replica" or keys.integral(shapes.replica[table])
        self._add(table, where, key if literal else WHOLE)

    def _limited(
        self, suspects: dict[Suspect, Sides], shapes: Shapes, where: Where
    ) -> dict[Suspect, Sides]:
        kept: dict[Suspect, Sides] = {}
        for table, group in _by_table(suspects).items():
            for key in group[:MOST_KEYS]:
                kept[table, key] = suspects[table, key]
            for key in group[MOST_KEYS:]:
                self._add_row(table, where, key, shapes)
            if len(group) > MOST_KEYS:
                self._side(table, where).reasons.append(
                    f"{len(group)} or more rows differ; only {MOST_KEYS} were looked at again"
                )
        return kept

    def _note(self, settled: Settled[Suspect], shapes: Shapes, where: Where) -> None:
        for suspect, how in sorted(settled.different.items()):
            self._add_row(suspect[0], where, suspect[1], shapes)
            comparison = self._side(suspect[0], where)
            comparison.worsen(DIFFERENT)
            comparison.keys.append(f"{_named(suspect)} {how}")
        for suspect in sorted(settled.unsettled):
            comparison = self._side(suspect[0], where)
            comparison.worsen(UNSETTLED)
            comparison.unsettled.append(_named(suspect))


def _named(suspect: Suspect) -> str:
    _table, key = suspect
    return "(table without usable key)" if key == WHOLE else ", ".join(map(keys.readable, key))


def _by_table(suspects: Iterable[Suspect]) -> dict[str, list[keys.Literals]]:
    grouped: dict[str, list[keys.Literals]] = {}
    for table, key in suspects:
        grouped.setdefault(table, []).append(key)
    return grouped


def _one_by_one(batch: Sequence[Chunk], look: Callable[[Sequence[Chunk]], None]) -> set[str]:
    """Look at a batch; where a table changed under it, at each chunk for itself."""
    try:
        look(batch)
        return set()
    except TableChangedMeanwhile as error:
        if len(batch) == 1:
            return set(error.tables)
    return set().union(*(_one_by_one([chunk], look) for chunk in batch))


def _batches(chunks: Iterable[Chunk], chunk_rows: int) -> Iterable[list[Chunk]]:
    """Small tables together, a whole chunk alone: each batch is one snapshot of the replica."""
    batch: list[Chunk] = []
    rows = 0
    for chunk in chunks:
        if batch and (rows + chunk.rows > chunk_rows or len(batch) >= 100):
            yield batch
            batch, rows = [], 0
        batch.append(chunk)
        rows += chunk.rows
    if batch:
        yield batch

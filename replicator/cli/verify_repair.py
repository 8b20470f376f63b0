"""`replicator verify --repair`: have the rows mended that differ, and compare again.

Left: what `verify` found wrong. Right: requests for the replicator, what became of them, and the
`Report` of the last comparison. Nothing is written here but requests, rows of `etl_mend_request`
on the replica: whoever writes rows must be the daemon that holds the lock there. So both daemons
must run.

Rows that are wrong on the replica are mended first; what `raw` had right beside them is compared
again behind that, as is all the rest. Three rounds at most, and none that would only repeat the
last: who still differs then is reported as such.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from config.errors import ConfigError, translated
from config.settings import Settings
from config.tables import TableRules
from replicator import mend_requests as requests
from replicator.cli import resync
from replicator.cli.observation import Observer
from replicator.cli.report import Mended, Report
from replicator.cli.source_compare import WHOLE
from replicator.cli.verify import Options, Progress, Wrong, examine
from replicator.mend_requests import MOST_KEYS, Literals, MendState
from replicator.resync_requests import RequestState

ROUNDS: Final = 3
MOST_BY_KEY: Final = 20_000
"""Rows of one table that are mended by key; where more differ a reload is no more work."""
_POLL_SECONDS: Final = 0.1


def verify_and_mend(
    settings: Settings,
    rules: TableRules,
    tables: Sequence[str] = (),
    options: Options | None = None,
    progress: Progress = lambda _done, _all: None,
) -> Report:
    """Compare, have mended what differs, and compare that again; raises where no daemon runs."""
    began = time.monotonic()
    options = options or Options()
    with Observer(settings) as observer:
        _require_daemons(observer)
        report, wrong = examine(settings, rules, tables, options, progress)
        mended: list[Mended] = []
        for _ in range(ROUNDS):
            if report.stopped or not any(wrong.values()):
                break
            late, done = _mend(observer, wrong, options.patience)
            mended += done
            if late:
                report.stopped = late
                break
            before, names = wrong, sorted({table for table, _ in wrong})
            again, wrong = examine(settings, rules, names, options)
            report = _merged(report, again)
            if wrong == before:
                break
    report.mended, report.seconds = _summed(mended), time.monotonic() - began
    return report


def _require_daemons(observer: Observer) -> None:
    down = resync.daemons_down(observer)
    if not observer.has_tracking() or down:
        raise ConfigError(
            f"nothing can be mended while these do not run: {', '.join(down) or 'replicator'}",
            "Start both daemons: they write, not this command. Without --repair it only compares.",
        )


def _merged(report: Report, again: Report) -> Report:
    """The report with those tables replaced that were compared again."""
    tables = {table.name: table for table in (*report.tables, *again.tables)}
    return Report([tables[name] for name in sorted(tables)], stopped=again.stopped)


def _summed(mended: list[Mended]) -> list[Mended]:
    """One entry for each table, side, and way."""
    sums: dict[tuple[str, str, bool, str | None], int] = {}
    for one in mended:
        place = (one.table, one.side, one.whole, one.reason)
        sums[place] = sums.get(place, 0) + one.rows
    return [
        Mended(table, side, rows, whole, reason)
        for (table, side, whole, reason), rows in sums.items()
    ]


# --- requests ----------------------------------------------------------------------------


def _mend(observer: Observer, wrong: Wrong, patience: float) -> tuple[str, list[Mended]]:
    """Ask for it and wait; why that took too long, if it did, and what was mended."""
    with translated(observer.settings.replication.label):
        connection = observer.replica
        numbers = [
            requests.queue_mend(connection, table, where, part)
            for (table, where), rows in sorted(_in_turn(wrong).items())
            for part in _parts(rows)
        ]
    watch = _Watch(observer, numbers)
    since = time.monotonic()
    while not watch.ended:
        time.sleep(_POLL_SECONDS)
        if watch.look():
            since = time.monotonic()
        if time.monotonic() - since > patience:
            return f"the daemons did not go on with what was to be mended for {patience:.0f} s", (
                watch.mended()
            )
    _wait_for_loader(observer, patience)
    return "", watch.mended()


def _in_turn(wrong: Wrong) -> Wrong:
    """Without rows of `raw` that differ from rows which are wrong on the replica: those first."""
    turn: Wrong = {}
    for (table, where), rows in wrong.items():
        first = wrong.get((table, "replica"), set()) if where == "raw" else set()
        left = rows - first
        if left and not (first and WHOLE in rows | first):
            turn[table, where] = left
    return turn


def _parts(rows: set[Literals]) -> Iterator[list[Literals]]:
    """The keys of each request; none where the whole table is meant."""
    if not rows:
        return
    if WHOLE in rows or len(rows) > MOST_BY_KEY:
        yield []
        return
    ordered = sorted(rows)
    for at in range(0, len(ordered), MOST_KEYS):
        yield ordered[at : at + MOST_KEYS]


def _wait_for_loader(observer: Observer, patience: float) -> None:
    """Until `raw` shows all that the replica's binlog holds now; or long enough."""
    goal = observer.replica_position()
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        offset = observer.raw_offset()
        if offset is not None and offset.replica >= goal:
            return
        time.sleep(_POLL_SECONDS)


@dataclass(slots=True)
class _Watch:
    """Requests on their way; what was seen of one is known when it is forgotten there."""

    observer: Observer
    numbers: list[int]
    states: dict[int, MendState] = field(default_factory=dict)
    reloads: dict[int, resync.Progress] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Has each been done, or failed?"""
        if len(self.states) < len(self.numbers):
            return not self.numbers
        settled = (requests.DONE, requests.FAILED, requests.RELOADING)
        return all(one.state in settled for one in self.states.values()) and all(
            reload.ended for reload in self.reloads.values()
        )

    def look(self) -> bool:
        """Has anything happened since the last look?"""
        before = dict(self.states), dict(self.reloads)
        with translated(self.observer.settings.replication.label):
            connection = self.observer.replica
            self.states |= {one.id: one for one in requests.mends(connection, self.numbers)}
            wanted = [one.reload for one in self.states.values() if one.reload is not None]
        if wanted:
            self.reloads |= {one.id: one for one in resync.progress(self.observer, wanted)}
        return (self.states, self.reloads) != before

    def mended(self) -> list[Mended]:
        """What has come of them."""
        copied = {
            one.id: one.copied for one in self.reloads.values() if one.state == RequestState.DONE
        }
        return [_outcome(one, copied) for one in self.states.values() if _is_done(one, copied)]


def _is_done(one: MendState, copied: dict[int, int]) -> bool:
    return one.state == requests.DONE or one.reload in copied


def _outcome(one: MendState, copied: dict[int, int]) -> Mended:
    if one.reload is None:
        return Mended(one.table, one.side, one.rows)
    return Mended(one.table, one.side, copied[one.reload], whole=True, reason=one.message)

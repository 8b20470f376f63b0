"""When do readers of a table surely see what stands before a position of the binlog?

Left: a connection to the source. Right: a position for a copy's window to begin at, and a
wait after which a new read view shows every transaction that stands before it.

A transaction stands in the binlog before the engine shows it: that is the commit gap. In
MySQL with GTIDs it can be seen. A transaction owns its GTID from before it is written into
the binlog until after the engine has committed it (`assign_automatic_gtids_to_flush_group`
comes before `flush_thread_caches`, `update_commit_group` behind `ha_commit_low`; without
binlog_order_commits, `update_on_commit` behind it likewise). So: take the binlog's end,
*then* the GTIDs that are owned. What stands before that end owned its GTID when the end
was taken; either it has given it up by now, and is visible, or it is among those listed.
When none of these is owned any more, all of it is visible, however long the gap is held
open (by semi-synchronous replication, say). Nothing is locked, no privilege is needed.

Elsewhere the position is one that is `gap` seconds old, which outlasts a commit that nobody holds
back. Semi-synchronous replication holds it back (AFTER_SYNC), for as long as no replica
acknowledges. On MariaDB a snapshot's position then stays behind the binlog's end, until the
engine has committed: it must reach the window's beginning, for tables of any engine, since all
commits wait in one queue. MySQL without GTIDs tells how many sessions wait. Three things say that
none of those is left that waited when the window began: nobody has been seen waiting for `gap`
seconds; or more have been answered since than had connections then; or the server's own patience
with its replicas is over, and it waits for none any more.

Source: MySQL `sql/binlog.cc` (ordered_commit), `sql/rpl_gtid_state.cc`; what
`@@GLOBAL.gtid_owned` prints: `sql/rpl_gtid_owned.cc`.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from config.errors import ServerBusy
from replicator.binlog.position import SourcePosition
from replicator.source import Identity, current_position
from replicator.tracking import execute, fetch

log = structlog.get_logger(__name__)

Wait = Callable[[], None]
"""Returns when whoever begins to read now sees all that stands before the position."""

PATIENCE: Final = 60.0
_POLL: Final = 0.02
_TELL_SECONDS: Final = 1.0
_REASON: Final = "commits on the source wait for its own replicas"
_SEMI_SYNC: Final = re.compile(r"^rpl_semi_sync_(source|master)_")
_UUID: Final = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")

Gtid = tuple[str, str, int]
"""Server, tag (mostly none) and number."""


def parse_owned(text: str) -> set[Gtid]:
    """`@@GLOBAL.gtid_owned`: uuid:number#thread:number#thread…, the next uuid right behind. Pure.

    Nothing stands between a thread's number and a uuid, so uuids are found first.
    """
    pieces = _UUID.split(text.lower())
    owned: set[Gtid] = set()
    for uuid, numbers in zip(pieces[1::2], pieces[2::2], strict=True):
        tag = ""
        for word in filter(None, (part.strip(" ,\n") for part in numbers.split(":"))):
            number, held, _thread = word.partition("#")
            if held:
                owned.add((uuid, tag, int(number)))
            else:
                tag = word
    return owned


class PositionHistory:
    """Recent ends of the source's binlog, to find one that is surely visible in the engine."""

    _lock = threading.Lock()
    """Over the samples, which histories on several threads share."""

    def __init__(
        self,
        connection: Any,
        identity: Identity,
        gap: float,
        samples: list[tuple[float, SourcePosition]] | None = None,
    ) -> None:
        """`samples` may be shared by histories of one source, so that later ones need not wait."""
        self._connection = connection
        self._identity = identity
        self._gap = gap
        self._samples = [] if samples is None else samples
        self._committed: SourcePosition | None = None
        """Up to where MariaDB's engines have surely committed."""

    def now(self) -> SourcePosition:
        """The binlog's end, remembered."""
        position = current_position(self._connection, self._identity)
        with self._lock:
            self._samples.append((time.monotonic(), position))
        return position

    def ripening(self) -> tuple[SourcePosition, Wait]:
        """A position and the wait that its readers need.

        Without GTIDs, the newest remembered end that needs none; else the one that needs least.
        """
        position = self.now()
        if self._has_gtids():
            return position, self.wait_for_all()
        with self._lock:
            limit = time.monotonic() - self._gap
            old = [sample for sample in self._samples if sample[0] <= limit]
            del self._samples[: len(old) - 1]
            when, position = old[-1] if old else min(self._samples)
        return position, lambda: self._wait_until_old(position, when)

    def wait_for_all(self) -> Wait:
        """The wait for whatever stands in the binlog now, wherever a window begins."""
        if self._has_gtids():
            owned = self._owned()
            return lambda: self._wait_while_owned(owned)
        position, when = current_position(self._connection, self._identity), time.monotonic()
        return lambda: self._wait_until_old(position, when)

    def wait_for_commits(self, low: SourcePosition) -> None:
        """Until a snapshot on MariaDB shows all that stands before `low`."""
        if self._committed is None or self._committed < low:
            self._wait_while(lambda: self._has_not_committed(low))

    def _has_not_committed(self, low: SourcePosition) -> bool:
        self._committed = committed_position(self._connection)
        return self._committed < low

    def forget(self) -> None:
        """The next position shall not be from before this moment."""
        self._samples.clear()

    def _wait_until_old(self, position: SourcePosition, when: float) -> None:
        """Wait for what stands before `position`, the binlog's end at `when`."""
        _sleep_until(when + self._gap)
        if self._identity.mariadb:
            self._wait_while(lambda: self._has_not_committed(position))
        else:
            self._wait_while(_Answers(self._connection, when, self._gap).awaited)

    def _wait_while(self, held: Callable[[], bool]) -> None:
        if not held():
            return
        log.info("copy_waits", reason=_REASON)
        deadline = time.monotonic() + PATIENCE
        while held():
            if time.monotonic() > deadline:
                raise _held_back("Some transactions")
            time.sleep(_POLL)
        time.sleep(self._gap)  # from the answer to the commit

    def _has_gtids(self) -> bool:
        """Does every transaction have one? It may be changed while the server runs."""
        if self._identity.mariadb:
            return False
        return bool(fetch(self._connection, "SELECT @@GLOBAL.gtid_mode")[0][0] == "ON")

    def _owned(self) -> set[Gtid]:
        return parse_owned(str(fetch(self._connection, "SELECT @@GLOBAL.gtid_owned")[0][0]))

    def _wait_while_owned(self, awaited: set[Gtid]) -> None:
        deadline = time.monotonic() + PATIENCE
        told = time.monotonic() + _TELL_SECONDS
        while awaited := awaited & self._owned() if awaited else awaited:
            if time.monotonic() > told:
                told = deadline
                log.info("copy_waits", reason=_REASON)
            if time.monotonic() > deadline:
                raise _held_back(f"{len(awaited)} transactions")
            time.sleep(_POLL)


class _Answers:
    """What MySQL's semi-synchronous replication has done since it was first asked."""

    def __init__(self, connection: Any, when: float, gap: float) -> None:
        self._connection = connection
        self._when = when
        self._gap = gap
        self._goal: int | None = None
        """So many answers mean that everybody who waited then has been answered."""
        self._quiet_since: float | None = None

    def awaited(self) -> bool:
        """Perhaps somebody still waits who waited then."""
        counts = self._counts()
        done = counts.get("yes_tx", 0) + counts.get("no_tx", 0)
        now = time.monotonic()
        if self._goal is None:
            if not counts.get("wait_sessions"):
                return False
            self._goal = done + counts.get("threads_connected", 0)
        if counts.get("wait_sessions"):
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        quiet = self._quiet_since is not None and now - self._quiet_since >= self._gap
        return not (quiet or done > self._goal or now > self._when + self._patience() + self._gap)

    def _counts(self) -> dict[str, int]:
        rows = fetch(
            self._connection,
            "SHOW GLOBAL STATUS WHERE Variable_name = 'Threads_connected'"
            " OR Variable_name LIKE 'Rpl_semi_sync_%'",
        )
        return {
            _SEMI_SYNC.sub("", name.lower()): int(value) for name, value in rows if value.isdigit()
        }

    def _patience(self) -> float:
        """For how long the server waits for its replicas, in seconds."""
        rows = fetch(
            self._connection,
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN"
            " ('rpl_semi_sync_source_timeout', 'rpl_semi_sync_master_timeout')",
        )
        return max((int(value) for _name, value in rows), default=0) / 1000


def _held_back(what: str) -> ServerBusy:
    return ServerBusy(
        f"{what} have stood in the source's binlog for {PATIENCE:.0f} seconds and are not"
        " committed",
        hint="On the source: SHOW PROCESSLIST. Waiting for semi-sync ACK means that its"
        " semi-synchronous replica does not answer.",
    )


def committed_position(connection: Any) -> SourcePosition:
    """Up to where MariaDB's engines have committed what stands in the binlog."""
    execute(connection, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
    try:
        return snapshot_position(connection)
    finally:
        execute(connection, "COMMIT")


def snapshot_position(connection: Any) -> SourcePosition:
    """Which position the open snapshot shows, exactly; MariaDB tells."""
    rows = fetch(connection, "SHOW STATUS LIKE 'binlog_snapshot_%'")
    status = {_text(name).lower(): _text(value) for name, value in rows}
    file, offset = status["binlog_snapshot_file"], status["binlog_snapshot_position"]
    return SourcePosition(file, int(offset))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))

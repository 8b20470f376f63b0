"""Places where a test may end or halt a daemon: the boundaries of everything that must be whole.

Left: an order in the environment, `REPLICATOR_FAILPOINTS=apply.sent:kill@3,copy.read:pause`.
Right: SIGKILL (`kill`) or SIGSTOP (`pause`) of our own process when it passes the named place for
the n-th time, the first by default. Real signals, so that what is proven is what happens.

A daemon that nobody ordered anything passes each place with one look into an empty dictionary, and
none stands in code that runs for each row or event. An order alone is refused at the start: a
second variable must say that this is a test (`REPLICATOR_FAILPOINTS_ARE_A_TEST=yes`), and then the
orders are logged as a warning. Both are read from the process's environment, never from `.env`.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, get_ident
from typing import Final

import structlog

from config.errors import ConfigError

log = structlog.get_logger()

ORDER: Final = "REPLICATOR_FAILPOINTS"
CONSENT: Final = "REPLICATOR_FAILPOINTS_ARE_A_TEST"

REPLICATOR: Final[Mapping[str, str]] = {
    "source.before_read": "about to ask the stream for events",
    "source.read": "events are in our hands, none is applied",
    "apply.before_send": "a batch is closed by its offset row's change, and not sent",
    "apply.sent": "a statement with rows, and its offset, is sent and not answered",
    "apply.answered": "a statement with rows is answered: where it moves the offset, committed",
    "transaction.begun": "a large transaction has begun on the replica, without rows yet",
    "transaction.before_commit": "all its rows are there, its offset is sent, COMMIT is not",
    "transaction.committed": "COMMIT of a large transaction is answered",
    "replica.sent": "a statement to the replica is sent as bytes (DDL, rows of a copy, BEGIN,"
    " COMMIT) and not answered",
    "ddl.before": "about to record what a schema change is about to do",
    "ddl.recorded": "a schema change's intent is recorded, nothing is done",
    "ddl.ready": "the session is set for a schema change, the statement is not sent",
    "ddl.executed": "a schema change is done, and the offset stands before it",
    "ddl.before_commit": "states, requests and the offset behind a schema change are not committed",
    "ddl.noted": "the offset stands behind a schema change",
    "copy.begun": "what is to be copied, and where streaming will start, is recorded",
    "copy.created": "a copy's table is created, its place is not noted",
    "copy.read": "a chunk is read from the source",
    "copy.before_commit": "a chunk and its place are on the replica, not committed",
    "copy.committed": "a chunk and its place are committed",
    "copy.group_committed": "the first chunks of several small tables are committed together",
    "copy.whole_committed": "a table without a key is copied in one transaction",
    "copy.ended": "tables whose copies are complete are noted so",
    "window.staged": "rows of a copy's window stand in the scratch table, not in the table",
    "window.read_again": "rows of a copy's window that were read again are not committed",
    "window.before_end": "tables whose windows have passed are not noted as streaming yet",
    "window.ended": "tables whose windows have passed are noted as streaming",
    "resync.taken": "a request to reload a table is taken, nothing is done",
    "resync.copied": "the hidden copy is complete, its own stream has not begun",
    "resync.begun_stream": "the hidden copy's offset row is written",
    "resync.level": "both streams stand at one position, the swap is not recorded",
    "resync.recorded": "the swap is recorded, nothing is renamed",
    "resync.renamed": "the tables are swapped, the old one is still there",
    "resync.swapped": "the tables are swapped, nobody is told",
    "resync.before_commit": "what leg 2 is to know of the swap is not committed",
    "resync.noted": "what leg 2 is to know of the swap is committed",
    "conflict.before_commit": "a table whose row was refused is set aside, not committed",
    "mend.taken": "a request to mend some rows is taken, nothing is done",
    "mend.read": "rows to be mended are read from the source, beside the table",
    "mend.before_commit": "mended rows are in the table, not committed",
}
LOADER: Final[Mapping[str, str]] = {
    "stream.read": "events of the replica's binlog are in our hands",
    "batch.begun": "a batch is about to be written",
    "batch.copied_in": "rows of new keys are copied straight into a raw table",
    "batch.staged": "rows stand in a stage, not in their table",
    "batch.before_commit": "rows and offset are sent, COMMIT is not",
    "batch.commit_sent": "COMMIT is sent, its answer not awaited",
    "batch.committed": "COMMIT is answered",
    "parts.begun": "a large transaction is about to be read a second time",
    "parts.written": "a part of a large transaction is written, not committed",
    "load.snapshot": "a snapshot of the replica is open, nothing is copied",
    "load.before_commit": "a copy stands in its helper table, not committed",
    "load.committed": "a copy stands in its helper table",
    "load.keyless": "a table without a key is replaced by its copy, not committed",
    "merge.before": "a whole copy is about to be merged",
    "merge.done": "a copy is merged, not committed",
    "finish.before": "a reload is committed, the request on the replica still says loading",
    "finish.done": "the request on the replica says done",
    "schema.before": "a schema change is about to be followed",
    "schema.altered": "a raw table is altered, not committed",
    "schema.followed": "a raw table is altered, and the position behind the change is committed",
    "schema.dropped": "a raw table is dropped, not committed",
    "schema.emptied": "a raw table is emptied, not committed",
}
POINTS: Final[Mapping[str, str]] = {**REPLICATOR, **LOADER}

_WORDING: Final = re.compile(r"([a-z_.]+):(kill|pause)(?:@([1-9][0-9]{0,8}))?\Z")
_SIGNALS: Final = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP}


@dataclass(slots=True)
class _Order:
    """What happens at a place, at which passing."""

    action: str
    passing: int
    passed: int = 0


class _Orders:
    """The orders of this process: given at its start, or to be looked up in a file each time."""

    def __init__(self, wanted: str) -> None:
        self._lock = Lock()
        self._file = Path(wanted[1:]) if wanted.startswith("@") else None
        self._text = ""
        self._by_name: dict[str, _Order] = {}
        if self._file is None:
            self._by_name = _parsed(wanted)

    @property
    def places(self) -> Iterable[str]:
        """Where to look for an order at all."""
        return self._by_name if self._file is None else POINTS

    def action_at(self, name: str) -> str | None:
        """Count a passing; what is to happen, if anything. Several threads may pass at once."""
        with self._lock:
            self._look()
            order = self._by_name.get(name)
            if order is None:
                return None
            order.passed += 1
            return order.action if order.passed == order.passing else None

    def _look(self) -> None:
        if self._file is None:
            return
        text = self._file.read_text(encoding="ascii").strip()
        if text != self._text:  # passings are counted from here
            self._text, self._by_name = text, _parsed(text)


_armed: dict[str, _Orders] = {}


def reach(name: str) -> None:
    """The process has come to this place; whoever was to see it no further is obeyed."""
    if name in _armed:
        _obey(name, _armed[name].action_at(name))


def _obey(name: str, action: str | None) -> None:
    if action is None:
        return
    said = {"event": "failpoint", "name": name, "action": action}
    os.write(2, json.dumps(said).encode() + b"\n")  # by itself: the logger may be held by a thread
    # To this very thread: a signal to the process is taken by any, and this one would go on.
    signal.pthread_kill(get_ident(), _SIGNALS[action])


def arm(environ: Mapping[str, str]) -> None:
    """Take the orders in `environ`; raises ConfigError where they are wrong or not meant."""
    disarm()
    wanted = environ.get(ORDER, "").strip()
    if not wanted:
        return
    if environ.get(CONSENT) != "yes":
        raise ConfigError(
            f"{ORDER} is set: this process would end itself on purpose",
            hint=f"Unset {ORDER}. It is for tests alone, which also set {CONSENT}=yes.",
        )
    orders = _Orders(wanted)
    _armed.update(dict.fromkeys(orders.places, orders))
    log.warning("failpoints_armed", orders=wanted)


def _parsed(text: str) -> dict[str, _Order]:
    orders = {}
    for word in filter(None, text.split(",")):
        found = _WORDING.match(word.strip())
        if found is None or found.group(1) not in POINTS:
            raise ConfigError(
                f"{ORDER}: {word!r} is not a known place with kill or pause",
                hint="NAME:kill@N, for instance apply.sent:kill@3; the names are in"
                " config/failpoints.py.",
            )
        orders[found.group(1)] = _Order(found.group(2), int(found.group(3) or 1))
    return orders


def disarm() -> None:
    """Forget all orders."""
    _armed.clear()

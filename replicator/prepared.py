"""XA transactions: their rows stand in the binlog long before they take place, if they ever do.

Left: where prepared transactions begin, and the ids of those that are committed. Right: the
changes of one, read from the binlog once more at its XA COMMIT, to be applied there.

Nothing is kept but places, and even those may be forgotten: a transaction that was prepared
before we came, in an earlier life or another file, is searched for from the commit backwards.
While an id is prepared no other transaction can take it, so the last one before the commit that
was prepared under it is the one. Rows that were prepared count where they are committed: their
position, for offsets and copies' windows, is the commit's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final

import structlog

from config.errors import Halt, PositionLost
from replicator.binlog.position import FIRST_OFFSET, BinlogPosition, SourcePosition
from replicator.binlog.stream import BinlogStream
from replicator.binlog.transactions import (
    Begin,
    Change,
    Moved,
    Prepared,
    Rollback,
    Rows,
    Statement,
    TransactionReader,
    XaCommit,
)

log = structlog.get_logger(__name__)

_MOST_PLACES: Final = 10_000
_LISTEN_SECONDS: Final = 1.0


class PreparedTransactions:
    """One stream's prepared transactions; for one thread at a time."""

    def __init__(
        self, new_stream: Callable[[], BinlogStream], files: Callable[[], list[str]]
    ) -> None:
        """`new_stream` opens nothing yet; `files` lists the binlog files that the source has."""
        self._new_stream = new_stream
        self._files = files
        self._starts: OrderedDict[str, SourcePosition] = OrderedDict()

    def unfold(self, change: Prepared | XaCommit, begun: SourcePosition) -> Iterator[Change]:
        """What is to be applied in its place; its transaction begins at `begun`.

        What was prepared is void for now; what is committed brings its rows.
        """
        if isinstance(change, Prepared):
            self._note(change.xid, begun)
            yield Rollback(change.position)
        else:
            yield from self._changes(change.xid, _place(change.commit.position))
            yield change.commit

    def _note(self, xid: str, start: SourcePosition) -> None:
        self._starts[xid] = start
        self._starts.move_to_end(xid)
        if len(self._starts) > _MOST_PLACES:
            self._starts.popitem(last=False)

    def _changes(self, xid: str, end: SourcePosition) -> Iterator[Rows | Statement]:
        """What the transaction whose XA COMMIT ends at `end` had changed."""
        start = self._starts.pop(xid, None) or self._search(xid, end)
        for change, _begun in self._changes_from(start):
            if isinstance(change, Rows | Statement):
                yield change
            elif isinstance(change, Prepared) and change.xid == xid:
                return
            elif not isinstance(change, Begin | Moved):
                raise Halt(
                    f"no XA transaction of the id that is committed at {end} begins at {start}",
                    hint="Report it; replicator resync --all goes on behind it.",
                )

    def _changes_from(self, start: SourcePosition) -> Iterator[tuple[Change, SourcePosition]]:
        """Each change from there on, and where the one before it had ended. Endless."""
        reader, before = TransactionReader(start, xa=True), start
        with closing(self._new_stream()) as stream:
            stream.open(start)
            while True:
                for event in stream.read(_LISTEN_SECONDS):
                    change = reader.feed(event)
                    if change is None:
                        continue
                    yield change, before
                    end = _end_of(change)
                    before = before if end is None else end

    def _search(self, xid: str, end: SourcePosition) -> SourcePosition:
        """Where it begins; from the commit's file backwards."""
        log.info("xa_transaction_searched", position=str(end))
        files = self._files()
        at = files.index(end.file) if end.file in files else -1
        for file in reversed(files[: at + 1]):
            found = self._last_in(file, xid, end)
            if found is not None:
                return found
        raise PositionLost(
            f"the XA transaction that is committed at {end} was prepared in a binlog file that the"
            " source no longer has",
            hint="replicator resync --all; and keep binlogs longer on the source"
            " (binlog_expire_logs_seconds), or prepared transactions shorter (XA RECOVER).",
        )

    def _last_in(self, file: str, xid: str, end: SourcePosition) -> SourcePosition | None:
        """Where the last one of this id begins that was prepared in this file, before `end`."""
        found = None
        for change, begun in self._changes_from(SourcePosition(file, FIRST_OFFSET)):
            if begun.file != file:
                break
            if isinstance(change, Prepared) and change.xid == xid:
                found = begun
            here = _end_of(change)
            if here is not None and (here >= end or here.file != file):
                break
        return found


def _end_of(change: Change) -> SourcePosition | None:
    """Where the change ends, if one may resume there."""
    if isinstance(change, Begin | Rows) or (
        isinstance(change, Statement) and change.in_transaction
    ):
        return None
    return _place(change.commit.position if isinstance(change, XaCommit) else change.position)


def _place(position: BinlogPosition) -> SourcePosition:
    if not isinstance(position, SourcePosition):
        raise TypeError("a position of the replica among the source's")
    return position

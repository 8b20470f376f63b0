"""Does the stored position still mean on the source what it meant when it was stored?

Left: the stored offset, and a connection to whatever now answers under the source's name.
Right: nothing where the position is what it was; else an error that says what happened to
the source, or, where another server proves by its GTIDs that it has the same past, the
offset at which to go on there.

A position is a file's name and a number, and both come again: after RESET MASTER, on a
server that was restored or set up anew, on another server. So beside it are stored the
server's id (and uuid), the second in which the source began that file, which every
FORMAT_DESCRIPTION event tells, and the set of GTIDs executed there. What is stored is true
of the position, for all of it is written in one row. Hence:

* another server id or uuid: another server;
* GTIDs that the source does not know: its past ended before ours;
* the file is not listed, or shorter: by its number purged, or numbering began again;
* the file was begun at another second: another file of the same name.

Else the file is the very one that was read before, and since a binlog only ever grows at
its end, the bytes before the position are the bytes that were read. (A file begun within
the same second under the same name, after all of the old one was read in that second, would
pass, if its GTIDs do; nobody resets a binlog twice a second.)

Another server is followed when the transactions before some position in its binlog are,
as a set, exactly those that the replica has: what comes behind is then what is missing,
whatever the order before. GTIDs are given out again by a server whose binlog was reset, so
the last transaction's commit time must be the one that was stored, too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from config.errors import PositionLost, SourceReset
from replicator.binlog import events as ev
from replicator.binlog.events import EventType
from replicator.binlog.gtidset import GtidSet
from replicator.binlog.position import FIRST_OFFSET, SourcePosition
from replicator.binlog.stream import BinlogStream
from replicator.binlog.transactions import (
    Begin,
    Change,
    Commit,
    Prepared,
    Rollback,
    Rows,
    Statement,
    TransactionReader,
    XaCommit,
)
from replicator.settling import parse_owned
from replicator.source import Identity
from replicator.tracking import Offset, fetch

log = structlog.get_logger(__name__)

_LISTEN_SECONDS: Final = 1.0
_GTIDS: Final = (EventType.GTID, EventType.GTID_TAGGED, EventType.MARIADB_GTID)
_ANEW: Final = (
    "If this server is the right one, copy everything again: replicator resync --all, and start"
    " again."
)


class Provenance:
    """What is asked of one source; `new_stream` makes a stream of its binlog, not yet open."""

    def __init__(
        self, connection: Any, identity: Identity, new_stream: Callable[[], BinlogStream]
    ) -> None:
        self._connection = connection
        self._identity = identity
        self._new_stream = new_stream

    def know(self, offset: Offset) -> Offset:
        """The offset with all that tells its position from another of the same name."""
        return replace(
            offset,
            server_id=self._identity.server_id,
            server_uuid=self._identity.uuid,
            gtid=self._gtids_at(offset.position),
            binlog_created=self.created(offset.position.file),
        )

    def confirm(self, offset: Offset) -> Offset:
        """The offset to go on from; `SourceReset` or `PositionLost` where there is none."""
        if not self._is_same_server(offset):
            return self._moved(offset)
        self._require_past(offset)
        self._require_file(offset.position)
        if not offset.binlog_created:  # stored by a version that did not note it
            log.info("position_adopted", position=str(offset.position))
            return self.know(offset)
        self.require_created(offset.position.file, offset.binlog_created)
        return replace(offset, server_id=self._identity.server_id)

    def _is_same_server(self, offset: Offset) -> bool:
        """MySQL's uuid is a server's own, whatever its id; MariaDB has the id alone."""
        if self._identity.uuid and offset.server_uuid:
            return self._identity.uuid == offset.server_uuid
        return self._identity.server_id == offset.server_id

    # --- the same server -----------------------------------------------------------------

    def _require_past(self, offset: Offset) -> None:
        if offset.gtid and not self._has_executed(GtidSet.parse(offset.gtid)):
            raise SourceReset(
                f"the source does not know transactions that the replica has, up to"
                f" {offset.gtid}: it was restored from an older backup, or its binlog was begun"
                " anew (RESET MASTER)",
                hint=_ANEW,
            )

    def _has_executed(self, gtids: GtidSet) -> bool:
        """Has the source executed all of them?"""
        if self._identity.mariadb:
            state = str(fetch(self._connection, "SELECT @@GLOBAL.gtid_binlog_state")[0][0] or "")
            return gtids <= GtidSet.parse(state)
        # In the binlog before it is executed: who commits owns it meanwhile. Ask in this order.
        owned = parse_owned(str(fetch(self._connection, "SELECT @@GLOBAL.gtid_owned")[0][0]))
        executed = GtidSet.parse(
            str(fetch(self._connection, "SELECT @@GLOBAL.gtid_executed")[0][0])
        )
        for server, tag, number in owned:
            executed.add(f"{server}:{tag}:{number}" if tag else f"{server}:{number}")
        return gtids <= executed

    def _require_file(self, position: SourcePosition) -> None:
        require_file(self._files(), position)

    def _files(self) -> list[BinlogFile]:
        return [
            BinlogFile(str(row[0]), int(row[1]))
            for row in fetch(self._connection, "SHOW BINARY LOGS")
        ]

    def require_created(self, file: str, created: int) -> None:
        """`SourceReset` where the file was begun at another time than ours."""
        require_created(file, created, self.created(file))

    def created(self, file: str) -> int:
        """The second in which the source began a file, as its head tells."""
        with closing(self._new_stream()) as stream:
            stream.open(SourcePosition(file, FIRST_OFFSET))
            while True:
                for event in stream.read(_LISTEN_SECONDS):
                    if event[4] == EventType.FORMAT_DESCRIPTION:  # those of later files follow
                        return ev.event_timestamp(event)

    def file_behind(self, file: str) -> str | None:
        """The file that the source began after this one."""
        names = [each.name for each in self._files()]
        at = names.index(file) + 1 if file in names else len(names)
        return names[at] if at < len(names) else None

    # --- GTIDs ---------------------------------------------------------------------------

    def _gtids_at(self, position: SourcePosition) -> str:
        """The GTID set executed at a transaction's end; "" where there are no GTIDs."""
        if (
            not self._identity.mariadb
            and fetch(self._connection, "SELECT @@GLOBAL.gtid_mode")[0][0] == "OFF"
        ):
            return ""
        gtids, reader = self._head(position.file), TransactionReader(position, xa=True)
        with closing(self._new_stream()) as stream:
            stream.open(SourcePosition(position.file, FIRST_OFFSET))
            here = FIRST_OFFSET
            while here < position.offset and stream.file == position.file:
                for event in stream.read(_LISTEN_SECONDS):
                    here = max(here, ev.event_end(event))
                    if here <= position.offset and event[4] in _GTIDS:
                        reader.feed(event)
                        gtids.add(reader.gtid)
        return str(gtids)

    def _head(self, file: str) -> GtidSet:
        """The set that the source had executed when it began the file."""
        for row in fetch(self._connection, "SHOW BINLOG EVENTS IN %s LIMIT 3", [file]):
            if row[2] in ("Previous_gtids", "Gtid_list"):
                return GtidSet.parse(str(row[5]))
        return GtidSet()

    # --- another server ------------------------------------------------------------------

    def _moved(self, offset: Offset) -> Offset:
        """Where to go on on another server, whose past proves to be ours."""
        another = (
            f"the source is another server than the replica was copied from (server id"
            f" {self._identity.server_id} instead of {offset.server_id})"
        )
        hint = (
            "Point OPENDENTAL_SOURCE_HOST back to it; or, to follow the new one, run"
            " replicator resync --all and start again: everything is copied anew."
        )
        gtids = GtidSet.parse(offset.gtid)
        if not gtids or not offset.binlog_created:
            raise SourceReset(f"{another}, and no GTIDs tell where to go on", hint=hint)
        if not self._has_executed(gtids):
            raise SourceReset(
                f"{another}, and it lacks transactions that the replica has, up to {gtids}",
                hint="Wait until it has caught up with the old one, if it still does; else: "
                + hint,
            )
        found = self._search(gtids, offset.event_timestamp)
        if found is None:
            raise SourceReset(
                f"{another}, and nowhere in its binlog are the transactions before it exactly"
                f" those that the replica has ({gtids}): the files are purged, or it executed"
                " them in another order, or others under the same GTIDs",
                hint=hint,
            )
        log.warning(
            "source_changed",
            was=offset.server_id,
            now=self._identity.server_id,
            position=str(found),
            gtids=str(gtids),
        )
        return replace(
            offset,
            position=found,
            server_id=self._identity.server_id,
            server_uuid=self._identity.uuid,
            binlog_created=self.created(found.file),
        )

    def _search(self, gtids: GtidSet, committed: datetime | None) -> SourcePosition | None:
        """The position on this server at which exactly these are executed."""
        for file in reversed(self._files()):
            head = self._head(file.name)
            if head <= gtids:
                return self._search_in(file, head, gtids, committed)
        return None

    def _search_in(
        self, file: BinlogFile, here: GtidSet, gtids: GtidSet, committed: datetime | None
    ) -> SourcePosition | None:
        start = SourcePosition(file.name, FIRST_OFFSET)
        if here == gtids:
            return start
        reader, moments = TransactionReader(start, xa=True), _Moments()
        with closing(self._new_stream()) as stream:
            stream.open(start)
            while True:
                for event in stream.read(_LISTEN_SECONDS):
                    moments.note(event)
                    change = reader.feed(event)
                    if change is None or isinstance(change, Begin | Rows) or not reader.between:
                        continue
                    whole = change.commit if isinstance(change, XaCommit) else change
                    end = whole.position
                    if end.file != file.name or not isinstance(end, SourcePosition):
                        return None
                    here.add(executed_with(event, change, reader))
                    if isinstance(whole, Commit | Statement):
                        moments.end(event, statement=isinstance(whole, Statement))
                    if here == gtids:
                        return end if moments.fit(committed) else None
                    if end.offset >= file.size:
                        return None


def executed_with(event: bytes, change: Change, reader: TransactionReader) -> str:
    """The GTID of what `event` ended; "" where it ended nothing that counts as executed.

    What a crash left without an end, so that the next file begins, never was; all else that has
    a GTID was, be it void.
    """
    ended = isinstance(change, Commit | Statement | Rollback | Prepared | XaCommit)
    if not ended or event[4] == EventType.FORMAT_DESCRIPTION or not reader.between:
        return ""
    return reader.gtid


@dataclass(frozen=True, slots=True)
class BinlogFile:
    """A line of SHOW BINARY LOGS."""

    name: str
    size: int


class _Moments:
    """When the last transactions were committed at first, on whatever server that was."""

    def __init__(self) -> None:
        self._original = 0
        self._last: dict[bool, datetime] = {}

    def note(self, event: bytes) -> None:
        """MySQL's GTID event: behind the flag in the time of the local commit is the first's."""
        if event[4] in (EventType.GTID, EventType.ANONYMOUS_GTID):
            at = ev.HEADER_LENGTH + 42
            local = int.from_bytes(event[at : at + 7], "little")
            first = event[at + 7 : at + 14] if local >> 55 else event[at : at + 7]
            self._original = int.from_bytes(first, "little") & ((1 << 55) - 1)

    def end(self, event: bytes, *, statement: bool) -> None:
        """A transaction ends with this event."""
        seconds = ev.event_timestamp(event)
        us = seconds * 1_000_000 if statement or not self._original else self._original
        self._last[statement] = datetime.fromtimestamp(us / 1e6, UTC).replace(tzinfo=None)

    def fit(self, committed: datetime | None) -> bool:
        """Was one of the last transactions of this server committed then?"""
        return committed is None or not self._last or committed in self._last.values()


def require_created(file: str, stored: int, found: int) -> None:
    """`SourceReset` where a file that was begun at `stored` was begun at `found`."""
    if stored != found:
        raise SourceReset(
            f"the source's binlog file {file} was begun on {_shown(found)} UTC; the one that"
            f" the replica's position is in was begun on {_shown(stored)}: the source's binlog"
            " was begun anew (RESET MASTER), or the source was restored or set up again",
            hint=_ANEW,
        )


def require_file(files: list[BinlogFile], position: SourcePosition) -> None:
    """`PositionLost` or `SourceReset` where these files do not reach to the position. Pure."""
    found = next((file for file in files if file.name == position.file), None)
    if found is not None:
        if found.size < position.offset:
            raise SourceReset(
                f"the source's binlog file {found.name} ends at {found.size}, before the"
                f" replica's position {position}: the source lost the end of its binlog in a"
                " crash, or was restored to an older state, or its binlog was begun anew",
                hint=f"{_ANEW} With sync_binlog=1 a crash of the source loses nothing.",
            )
        return
    stem = position.file.rpartition(".")[0]
    numbers = [
        SourcePosition(file.name, 0).file_number
        for file in files
        if file.name.rpartition(".")[0] == stem
    ]
    if not numbers:
        raise PositionLost(
            f"the source's binlog files have other names than {position.file}"
            + (f": {files[-1].name}" if files else ""),
            hint=f"Set log_bin={stem} on the source as it was, and restart it. Else: {_ANEW}",
        )
    if position.file_number > max(numbers):
        raise SourceReset(
            f"the source's binlog ends in file {files[-1].name}, before the replica's position"
            f" {position}: numbering began again (RESET MASTER), or the source was restored or"
            " set up again",
            hint=_ANEW,
        )
    raise PositionLost(
        f"the source no longer has the binlog file {position.file}; its oldest is {files[0].name}",
        hint="replicator resync --all; and keep binlogs longer on the source"
        " (binlog_expire_logs_seconds).",
    )


def _shown(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")

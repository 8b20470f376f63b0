"""Turn a server's raw events into changes, with the transactions' borders marked.

Left: raw events in binlog order. Right: `Begin`, `Rows`, `Statement`, `Commit`,
`Rollback`, and `Moved` where only the position advances. Pure: no socket, no
clock. What may be ignored is listed here; everything else unknown halts.

Changes are not frozen, though nobody alters them: a busy source makes hundreds of
thousands a second, and a frozen dataclass takes three times as long to make.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from config.errors import UnknownEvent, UnsupportedStatement
from replicator.binlog import events as ev
from replicator.binlog.events import EventType, QueryEvent, TableMap
from replicator.binlog.gtid import read_tagged
from replicator.binlog.position import FIRST_OFFSET, BinlogPosition


@dataclass(slots=True)
class Begin:
    """A transaction opens."""


@dataclass(slots=True)
class Rows:
    """One rows event, uncompressed, without checksum; `table` is its table map."""

    table: TableMap
    event: bytes


@dataclass(slots=True)
class Statement:
    """A statement that is logged as text: DDL, savepoints, statement-format changes.

    Outside a transaction it is a transaction of its own, ending at `position`;
    inside one, `position` is its own end, not a place to resume before the commit.
    """

    query: QueryEvent
    position: BinlogPosition
    in_transaction: bool
    gtid: str


@dataclass(slots=True)
class Commit:
    """The transaction is whole; `position` is where to resume behind it."""

    position: BinlogPosition
    timestamp_us: int
    """Source commit time, microseconds since 1970 (whole seconds where the server has no more)."""
    gtid: str


@dataclass(slots=True)
class Rollback:
    """The transaction's rows are void; its binlog space is passed."""

    position: BinlogPosition


@dataclass(slots=True)
class Moved:
    """Nothing happened up to here, outside any transaction."""

    position: BinlogPosition


Change = Begin | Rows | Statement | Commit | Rollback | Moved

_IGNORED = frozenset(
    {
        EventType.STOP,
        EventType.HEARTBEAT,
        EventType.HEARTBEAT_V2,
        EventType.IGNORABLE,
        EventType.ROWS_QUERY,
        EventType.PREVIOUS_GTIDS,
        EventType.TRANSACTION_CONTEXT,
        EventType.VIEW_CHANGE,
        EventType.ANNOTATE_ROWS,
        EventType.BINLOG_CHECKPOINT,
        EventType.MARIADB_GTID_LIST,
        EventType.START_ENCRYPTION,
        # context of a statement-format change: the statement that follows decides
        EventType.INTVAR,
        EventType.RAND,
        EventType.USER_VAR,
    }
)

_STANDALONE, _PREPARED_XA, _COMPLETED_XA = 1, 64, 128
_MAX_CACHED_MAPS = 10_000
_BEGIN = Begin()


class TransactionReader:
    """Feed it raw events; it keeps the place, the open transaction and the table maps."""

    def __init__(self, start: BinlogPosition) -> None:
        self._position_type = type(start)
        self._file = start.file
        self._open = False
        self._standalone = False
        self._gtid = ""
        self._maps: dict[int, TableMap] = {}
        self._known_maps: dict[bytes, TableMap] = {}
        self._committed_us = 0
        self._mariadb = True
        # By plain numbers: comparing with an enum's members one after the other takes longer
        # than all the rest that is done for an event.
        self._handlers: dict[int, Callable[[bytes], Change | None]] = {
            **dict.fromkeys(ev.ROWS_EVENTS, self._rows),
            **dict.fromkeys(range(166, 172), self._compressed_rows),
            int(EventType.TABLE_MAP): self._table_map,
            int(EventType.XID): self._commit,
            int(EventType.MARIADB_GTID): self._mariadb_gtid,
            int(EventType.GTID): self._mysql_gtid,
            int(EventType.ANONYMOUS_GTID): self._mysql_gtid,
            int(EventType.GTID_TAGGED): self._tagged_gtid,
            int(EventType.QUERY): self._query,
            int(EventType.QUERY_COMPRESSED): self._query,
            int(EventType.ROTATE): self._rotate,
            int(EventType.FORMAT_DESCRIPTION): self._new_file,
        }

    @property
    def in_transaction(self) -> bool:
        """Has a transaction begun and not ended?"""
        return self._open

    @property
    def between(self) -> bool:
        """Does the next event stand between two transactions?"""
        return not (self._open or self._standalone)

    def feed(self, event: bytes) -> Change | None:
        """What one more event completes; most complete nothing by themselves."""
        handle = self._handlers.get(event[4])
        if handle is not None:
            return handle(event)
        if event[4] in _IGNORED or ev.event_flags(event) & ev.IGNORABLE_FLAG:
            return self._moved(event)
        raise self._unknown(event)

    def _position(self, event: bytes) -> BinlogPosition:
        return self._position_type(self._file, ev.event_end(event))

    def _moved(self, event: bytes) -> Change | None:
        if not self._open and not self._standalone and ev.event_end(event):
            return Moved(self._position(event))
        return None

    def _rotate(self, event: bytes) -> Change | None:
        self._file, offset = ev.parse_rotate(event)
        if ev.event_end(event) and not ev.event_flags(event) & ev.ARTIFICIAL_FLAG:
            return Moved(self._position_type(self._file, offset))
        return None

    def _new_file(self, event: bytes) -> Change | None:
        """A server that died while it wrote a transaction starts a file without its end."""
        self._maps.clear()
        self._mariadb = "MariaDB" in ev.server_version(event)
        if self._open:
            self._open = self._standalone = False
            end = ev.event_end(event) or FIRST_OFFSET
            return Rollback(self._position_type(self._file, end))
        self._standalone = False
        return self._moved(event)

    def _table_map(self, event: bytes) -> Change | None:
        self.table_map(event)
        self._open = True  # also where the stream was opened inside a transaction
        return None

    def table_map(self, event: bytes) -> TableMap:
        """Take note of a table map without opening a transaction."""
        key = event[ev.HEADER_LENGTH :]
        table_map = self._known_maps.get(key)
        if table_map is None:
            if len(self._known_maps) >= _MAX_CACHED_MAPS:
                self._known_maps.clear()
            table_map = self._known_maps[key] = TableMap(event, mariadb=self._mariadb)
        self._maps[table_map.table_id] = table_map
        return table_map

    def _rows(self, event: bytes) -> Change | None:
        table_id = ev.table_id_of(event)
        table_map = self._maps.get(table_id)
        if table_map is not None:
            return Rows(table_map, event)
        if table_id != ev.DUMMY_TABLE_ID:
            raise UnknownEvent(
                f"a rows event at {self._position(event)} names a table id that no table map"
                " introduced",
                hint="Report it with the binlog's lines around that position.",
            )
        return None

    def _compressed_rows(self, event: bytes) -> Change | None:
        return self._rows(ev.decompress_rows(event))

    def _mariadb_gtid(self, event: bytes) -> Change | None:
        """A MariaDB GTID event begins a transaction, unless it is one statement by itself."""
        at = ev.HEADER_LENGTH
        sequence = int.from_bytes(event[at : at + 8], "little")
        domain = int.from_bytes(event[at + 8 : at + 12], "little")
        flags = event[at + 12]
        if flags & (_PREPARED_XA | _COMPLETED_XA):
            raise self._xa(event)
        server_id = int.from_bytes(event[5:9], "little")
        self._gtid = f"{domain}-{server_id}-{sequence}"
        self._committed_us = 0
        self._standalone = bool(flags & _STANDALONE)
        if self._standalone:
            return None
        self._open = True
        return _BEGIN

    def _mysql_gtid(self, event: bytes) -> Change | None:
        """A GTID event of MySQL announces a transaction; BEGIN or a statement follows."""
        at = ev.HEADER_LENGTH
        self._committed_us = 0
        if event[4] == EventType.GTID:
            source = event[at + 1 : at + 17].hex()
            number = int.from_bytes(event[at + 17 : at + 25], "little")
            parts = (source[:8], source[8:12], source[12:16], source[16:20], source[20:])
            self._gtid = f"{'-'.join(parts)}:{number}"
        self._standalone = True
        if len(event) >= at + 49 and event[at + 25] == 2:
            commit = int.from_bytes(event[at + 42 : at + 49], "little")
            self._committed_us = commit & ((1 << 55) - 1)
        return None

    def _tagged_gtid(self, event: bytes) -> Change | None:
        self._gtid, self._committed_us = read_tagged(event)
        self._standalone = True
        return None

    def _query(self, event: bytes) -> Change | None:
        query = ev.parse_query(event)
        word = query.statement[:10].upper()
        if word == b"BEGIN":
            self._open, self._standalone = True, False
            return _BEGIN
        if word == b"COMMIT":
            return self._commit(event)
        if word == b"ROLLBACK":
            self._open = self._standalone = False
            return Rollback(self._position(event))
        if word[:3] == b"XA ":
            raise self._xa(event)
        self._standalone = False
        return Statement(query, self._position(event), self._open, self._gtid)

    def _commit(self, event: bytes) -> Commit:
        self._open = self._standalone = False
        when = self._committed_us or ev.event_timestamp(event) * 1_000_000
        return Commit(self._position(event), when, self._gtid)

    def _xa(self, event: bytes) -> UnsupportedStatement:
        return UnsupportedStatement(
            f"an XA transaction stands in the binlog at {self._position(event)}",
            hint="Distributed (XA) transactions are not carried yet; end their use on the source"
            " and start over with: replicator resync --all",
        )

    def _unknown(self, event: bytes) -> UnknownEvent:
        return UnknownEvent(
            f"an event of type {event[4]} that must not be ignored stands at"
            f" {self._position(event)}",
            hint="Nothing behind it was applied. Type 26 (INCIDENT) means that the server lost"
            " events: resync. For other types report the server's version and the type.",
        )

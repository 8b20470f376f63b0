"""Turn a server's raw events into changes, with the transactions' borders marked.

Left: raw events in binlog order. Right: `Begin`, `Rows`, `Statement`, `Commit`,
`Rollback`, and `Moved` where only the position advances; and, for who can treat them, XA's
`Prepared` and `XaCommit`. Pure: no socket, no clock. What may be ignored is listed here;
everything else unknown halts.

Changes are not frozen, though nobody alters them: a busy source makes hundreds of
thousands a second, and a frozen dataclass takes three times as long to make.

Positions are the ends that events carry. MariaDB 11.8 leaves them out, as zeros, in all
events between a group's GTID event and the one that closes it, because it writes them before
it knows where in the file they will stand. Only one of them is ever a place to resume: that
of the CREATE TABLE with which a CREATE … SELECT opens its group. It stands right behind the
GTID event, so its end is that event's and its own length. Further inside, what lies between
is not known: the server keeps annotations to itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from config.errors import EventsLost, Halt, UnknownEvent, UnsupportedStatement
from replicator.binlog import events as ev
from replicator.binlog.events import EventType, QueryEvent, TableMap
from replicator.binlog.gtid import read_tagged
from replicator.binlog.position import FIRST_OFFSET, BinlogPosition
from replicator.binlog.xa import read_xa_prepare, xid_of_statement


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
    MariaDB 11.8 tells that end only where no rows came before it; else the offset is 0.
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


@dataclass(slots=True)
class Prepared:
    """The rows since `Begin` are an XA transaction's: void until an `XaCommit` of its id."""

    position: BinlogPosition
    xid: str


@dataclass(slots=True)
class XaCommit:
    """The XA transaction that was prepared under this id takes place here."""

    xid: str
    commit: Commit


Change = Begin | Rows | Statement | Commit | Rollback | Moved | Prepared | XaCommit

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
_MAX_CACHED_MAPS = 1 << 20
"""Bytes of table maps that are kept: a table has another one each time that a server opens it."""
_MAX_NOTED_MAPS = 1000
"""Table ids that are noted between two transactions, each of which brings all that it needs."""
_BEGIN = Begin()


class TransactionReader:
    """Feed it raw events; it keeps the place, the open transaction and the table maps."""

    def __init__(self, start: BinlogPosition, *, xa: bool = False) -> None:
        """`xa`: tell of XA transactions by `Prepared` and `XaCommit`; else they halt."""
        self._xa_told = xa
        self._position_type = type(start)
        self._file = start.file
        self._open = False
        self._standalone = False
        self._gtid = ""
        self._entered = 0
        """The end of the last event of an open group, while all before it was seen; else 0."""
        self._trailer = 4
        """Bytes that an event is longer in its file than here: its checksum."""
        self._maps: dict[int, TableMap] = {}
        self._known_maps: dict[bytes, TableMap] = {}
        self._known_bytes = 0
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
            int(EventType.XA_PREPARE): self._prepare,
            int(EventType.QUERY): self._query,
            int(EventType.QUERY_COMPRESSED): self._query,
            int(EventType.ROTATE): self._rotate,
            int(EventType.FORMAT_DESCRIPTION): self._new_file,
        }

    @property
    def file(self) -> str:
        """The binlog file that the last event stood in."""
        return self._file

    @property
    def gtid(self) -> str:
        """The last GTID that was told of; "" where the server gives none."""
        return self._gtid

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
            try:
                return handle(event)
            except (IndexError, ValueError, struct.error):
                raise self._senseless(event) from None
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
        self._trailer = 4 if event[-1] else 0  # the checksum algorithm
        if self._open:
            self._open = self._standalone = False
            end = ev.event_end(event) or FIRST_OFFSET
            return Rollback(self._position_type(self._file, end))
        self._standalone = False
        return self._moved(event)

    def _table_map(self, event: bytes) -> Change | None:
        self.table_map(event)
        self._open = True  # also where the stream was opened inside a transaction
        self._entered = 0
        return None

    def table_map(self, event: bytes) -> TableMap:
        """Take note of a table map without opening a transaction."""
        key = event[ev.HEADER_LENGTH :]
        table_map = self._known_maps.get(key)
        if table_map is None:
            self._known_bytes += len(key)
            if self._known_bytes > _MAX_CACHED_MAPS:
                self._known_maps.clear()
                self._known_bytes = len(key)
            table_map = self._known_maps[key] = TableMap(event, mariadb=self._mariadb)
        if len(self._maps) > _MAX_NOTED_MAPS and not self._open:
            self._maps.clear()
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
            self._require_xa(event)
        server_id = int.from_bytes(event[5:9], "little")
        self._gtid = f"{domain}-{server_id}-{sequence}"
        self._committed_us = 0
        self._standalone = bool(flags & _STANDALONE)
        if self._standalone:
            return None
        self._open, self._entered = True, ev.event_end(event)
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
            return self._xa_statement(event, query.statement)
        self._standalone = False
        return Statement(query, self._statement_end(event), self._open, self._gtid)

    def _statement_end(self, event: bytes) -> BinlogPosition:
        """Where a statement ends, though it may not say so itself."""
        end = ev.event_end(event)
        if not end and self._open and self._entered:
            end = self._entered + len(event) + self._trailer
        self._entered = end
        return self._position_type(self._file, end)

    def _commit(self, event: bytes) -> Commit:
        self._open = self._standalone = False
        self._maps.clear()
        when = self._committed_us or ev.event_timestamp(event) * 1_000_000
        return Commit(self._position(event), when, self._gtid)

    def _xa_statement(self, event: bytes, statement: bytes) -> Change | None:
        """XA START and XA END frame what is prepared; XA COMMIT and XA ROLLBACK stand alone."""
        self._require_xa(event)
        verb = statement[3:].split(maxsplit=1)[0].upper()
        if verb in (b"START", b"BEGIN"):
            self._open, self._standalone = True, False
            return _BEGIN
        if verb == b"END" and self._open:
            return None
        if verb == b"ROLLBACK":
            self._open = self._standalone = False
            return Rollback(self._position(event))
        xid = xid_of_statement(statement) if verb == b"COMMIT" else None
        if xid is None:
            raise UnsupportedStatement(
                f"an XA statement that is not understood stands at {self._position(event)}",
                hint="Report it with the server's version; replicator resync --all goes on"
                " behind it.",
            )
        return XaCommit(xid, self._commit(event))

    def _prepare(self, event: bytes) -> Change | None:
        """The end of what an XA transaction changed; in one phase, of the transaction."""
        self._require_xa(event)
        one_phase, xid = read_xa_prepare(event)
        if one_phase:
            return self._commit(event)
        self._open = self._standalone = False
        return Prepared(self._position(event), xid)

    def _require_xa(self, event: bytes) -> None:
        if not self._xa_told:
            raise UnsupportedStatement(
                f"an XA transaction stands in the binlog at {self._position(event)}",
                hint="Nobody but the replicator should write on that server: end the use of XA"
                " there, and start over with: replicator resync --all",
            )

    def _senseless(self, event: bytes) -> Halt:
        return UnknownEvent(
            f"an event of type {event[4]} at {self._position(event)} is cut short, or makes no"
            " sense",
            hint="Nothing behind it was applied. Check the server's binlog around that position:"
            " mariadb-binlog or mysqlbinlog, with --verify-binlog-checksum.",
        )

    def _unknown(self, event: bytes) -> Halt:
        if event[4] == EventType.INCIDENT:
            return EventsLost(
                f"the server noted at {self._position(event)} that its binlog lacks changes that"
                " were made (an INCIDENT event)",
                hint="Nothing behind it was applied. See the server's error log for the cause, then"
                " copy everything again: replicator resync --all",
            )
        return UnknownEvent(
            f"an event of type {event[4]} that must not be ignored stands at"
            f" {self._position(event)}",
            hint="Nothing behind it was applied. Report the server's version and the type; to go on"
            " behind it, once nothing writes such events any more: replicator resync --all",
        )
